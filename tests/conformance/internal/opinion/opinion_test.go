package opinion

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const patience = 20 * time.Second

// told is an operation as a test writes it. Without a span it comes after the
// one before it.
type told struct {
	ask      Request
	outcome  Outcome
	from, to int64
}

func story(all ...told) *History {
	history := &History{Head: Head{Format: "detcd-history", Version: 1, Kind: "engine", Members: 1, Compacted: []int64{}}}
	now := int64(0)
	for i, one := range all {
		if one.to == 0 {
			one.from, one.to = now+1, now+2
		}
		now = max(now, one.to)
		history.Operations = append(history.Operations, Operation{Client: i, Invoked: one.from, Completed: one.to, Ask: one.ask, Outcome: one.outcome})
	}
	return history
}

func (t told) at(from, to int64) told { t.from, t.to = from, to; return t }

func (t told) lost() told {
	text := "no answer"
	t.outcome = Outcome{Unknown: &text}
	return t
}

func (t told) rejected(text string) told {
	t.outcome = Outcome{Rejected: &Rejected{Code: "OutOfRange", Text: text}}
	return t
}

func (t told) serializable() told {
	asked := *t.ask.Range
	asked.Serializable = true
	t.ask.Range = &asked
	return t
}

func answered(response Response) Outcome { return Outcome{Answered: &response} }

func put(key, value string, revision int64) told {
	return told{ask: Request{Put: &Put{Key: key, Value: value}}, outcome: answered(Response{Revision: revision})}
}

func get(key string, revision int64, kvs ...KV) told {
	return told{ask: Request{Range: &Range{Key: key}}, outcome: answered(Response{Revision: revision, KVs: kvs, Count: int64(len(kvs))})}
}

func getAt(key string, at, revision int64, kvs ...KV) told {
	got := get(key, revision, kvs...)
	got.ask.Range.Revision = at
	return got
}

func remove(key, end string, deleted, revision int64) told {
	return told{ask: Request{Delete: &Delete{Key: key, RangeEnd: end}}, outcome: answered(Response{Revision: revision, Deleted: deleted})}
}

func compact(at, revision int64) told {
	return told{ask: Request{Compact: &Compact{Revision: at}}, outcome: answered(Response{Revision: revision})}
}

func kv(key, value string, created, modified, version int64) KV {
	return KV{Key: key, Value: value, CreateRevision: created, ModRevision: modified, Version: version}
}

// swap puts a value if another one is there, and says what came of it.
func swap(key, from, to string, succeeded bool, revision int64) told {
	txn := &Txn{
		Compare: []Compare{{Key: key, Result: "equal", Value: &from}},
		Success: []Request{{Put: &Put{Key: key, Value: to}}},
		Failure: []Request{{Range: &Range{Key: key}}},
	}
	return told{ask: Request{Txn: txn}, outcome: answered(Response{Revision: revision, Succeeded: succeeded, Responses: []NestedResponse{{Put: &Response{Revision: revision}}}})}
}

// rewrite deletes everything from a key on and writes the key, which found nothing, or what it says.
func rewrite(key, value string, revision int64, found *KV) told {
	txn := &Txn{Success: []Request{
		{Delete: &Delete{Key: key, RangeEnd: "\x00"}},
		{Put: &Put{Key: key, Value: value, PrevKV: true}},
	}}
	responses := []NestedResponse{
		{Delete: &Response{Revision: revision, Deleted: 1}},
		{Put: &Response{Revision: revision, PrevKV: found}},
	}
	return told{ask: Request{Txn: txn}, outcome: answered(Response{Revision: revision, Succeeded: true, Responses: responses})}
}

func leased(lease int64, put told) told {
	put.ask.Put.Lease = lease
	return put
}

func TestJudge(t *testing.T) {
	x := kv("a", "x", 2, 2, 1)
	y := kv("a", "y", 2, 3, 2)
	underLease := x
	underLease.Lease = 7
	cases := map[string]struct {
		history *History
		want    Verdict
	}{
		"a lawful story": {story(put("a", "x", 2), get("a", 2, x), put("a", "y", 3), get("a", 3, y), getAt("a", 2, 3, x), remove("a", "", 1, 4), get("a", 4)), Accepted},
		// Reads.
		"a stale read":                         {story(put("a", "x", 2), put("a", "y", 3), get("a", 2, x)), Contradicted},
		"a stale read that may be stale":       {story(put("a", "x", 2), put("a", "y", 3), get("a", 2, x).serializable()), Accepted},
		"a read of the future":                 {story(put("a", "x", 2), get("a", 3, y).serializable(), put("a", "y", 3)), Contradicted},
		"a read with a wrong version":          {story(put("a", "x", 2), get("a", 2, kv("a", "x", 2, 2, 2))), Contradicted},
		"a read with a wrong value":            {story(put("a", "x", 2), get("a", 2, kv("a", "z", 2, 2, 1))), Contradicted},
		"a read that misses a key":             {story(put("a", "x", 2), get("a", 2)), Contradicted},
		"the past, wrong":                      {story(put("a", "x", 2), put("a", "y", 3), getAt("a", 2, 3, y)), Contradicted},
		"a read beside a write, before it":     {story(put("a", "x", 2), put("a", "y", 3).at(10, 20), get("a", 2, x).at(11, 19)), Accepted},
		"a read beside a write, after it":      {story(put("a", "x", 2), put("a", "y", 3).at(10, 20), get("a", 3, y).at(11, 12)), Accepted},
		"reads beside a write, back and forth": {story(put("a", "x", 2), put("a", "y", 3).at(10, 20), get("a", 3, y).at(11, 12), get("a", 2, x).at(13, 14)), Contradicted},
		// Writes.
		"one revision for two":          {story(put("a", "x", 2), put("b", "y", 2)), Contradicted},
		"a revision that goes back":     {story(put("a", "x", 3), put("b", "y", 2)), Contradicted},
		"a write that was lost":         {story(put("a", "x", 2), put("b", "y", 3), get("b", 3), put("b", "z", 4)), Contradicted},
		"a wrong previous value":        {story(put("a", "x", 2), told{ask: Request{Put: &Put{Key: "a", Value: "y", PrevKV: true}}, outcome: answered(Response{Revision: 3, PrevKV: &y})}), Contradicted},
		"a delete of too many":          {story(put("a", "x", 2), put("b", "x", 3), remove("a", "c", 3, 4)), Contradicted},
		"a delete of all":               {story(put("a", "x", 2), put("b", "x", 3), remove("\x00", "\x00", 2, 4), get("b", 4)), Accepted},
		"a delete of nothing":           {story(put("a", "x", 2), remove("b", "", 0, 2), get("a", 2, x)), Accepted},
		"a delete that takes no effect": {story(put("a", "x", 2), remove("a", "", 1, 3), get("a", 3, x)), Contradicted},
		// Transactions.
		"a swap":                                  {story(put("a", "x", 2), swap("a", "x", "y", true, 3), get("a", 3, y)), Accepted},
		"a swap that must not be":                 {story(put("a", "x", 2), swap("a", "z", "y", true, 3), get("a", 3, y)), Contradicted},
		"two swaps of one value":                  {story(put("a", "x", 2), swap("a", "x", "y", true, 3).at(10, 20), swap("a", "x", "z", true, 4).at(11, 21)), Contradicted},
		"a branch that was not it":                {story(put("a", "x", 2), swap("a", "x", "y", false, 3)), Contradicted},
		"a key deleted and written at once":       {story(put("a", "x", 2), rewrite("a", "y", 3, nil), get("a", 3, kv("a", "y", 3, 3, 1))), Accepted},
		"a key written as if it were not deleted": {story(put("a", "x", 2), rewrite("a", "y", 3, &x), get("a", 3, kv("a", "y", 3, 3, 1))), Contradicted},
		"a key rewritten that keeps its past":     {story(put("a", "x", 2), rewrite("a", "y", 3, nil), get("a", 3, kv("a", "y", 2, 3, 2))), Contradicted},
		// Lost answers.
		"a gap":                                {story(put("a", "x", 2), put("b", "y", 4)), Contradicted},
		"a gap that a lost write explains":     {story(put("a", "x", 2), put("c", "y", 3).lost(), put("b", "y", 4), get("c", 4, kv("c", "y", 3, 3, 1))), Accepted},
		"a lost write before a key rewritten":  {story(put("d", "x", 2), put("c", "y", 3).lost(), put("b", "z", 4), rewrite("d", "y", 5, nil), get("d", 5, kv("d", "y", 5, 5, 1))), Accepted},
		"one lost write for two gaps":          {story(put("a", "x", 2), put("c", "y", 3).lost(), put("b", "y", 5)), Contradicted},
		"a lost write that comes too late":     {story(put("a", "x", 2), put("b", "y", 4), put("c", "y", 3).lost(), get("b", 4, kv("b", "y", 4, 4, 1))), Contradicted},
		"a lost write that never was":          {story(put("c", "y", 2).lost(), put("a", "x", 2), get("c", 2)), Accepted},
		"a lost write that shows much later":   {story(put("c", "y", 2).lost(), put("a", "x", 2), get("c", 2), get("c", 3, kv("c", "y", 3, 3, 1))), Accepted},
		"a lost write that comes and goes":     {story(put("c", "y", 2).lost(), get("c", 2, kv("c", "y", 2, 2, 1)), get("c", 1)), Contradicted},
		"a lost delete, seen by its absence":   {story(put("a", "x", 2), remove("a", "", 1, 3).lost(), get("a", 3)), Accepted},
		"absence without a delete":             {story(put("a", "x", 2), put("b", "y", 3).lost(), get("a", 3)), Contradicted},
		"what nobody wrote":                    {story(put("c", "z", 2).lost(), get("c", 2, kv("c", "y", 2, 2, 1))), Contradicted},
		"a lost swap that can not have been":   {story(put("a", "x", 2), swap("a", "z", "y", true, 3).lost(), get("a", 3, y)), Contradicted},
		"a lost swap that can":                 {story(put("a", "x", 2), swap("a", "x", "y", true, 3).lost(), get("a", 3, y)), Accepted},
		"two lost writes of one key, in order": {story(put("a", "x", 2).lost(), put("a", "y", 3).lost(), get("a", 3, y)), Accepted},
		// Compactions and rejections.
		"the past after its compaction":      {story(put("a", "x", 2), put("a", "y", 3), compact(3, 3), getAt("a", 2, 3, x)), Contradicted},
		"the floor itself":                   {story(put("a", "x", 2), put("a", "y", 3), compact(3, 3), getAt("a", 3, 3, y)), Accepted},
		"refused after a compaction":         {story(put("a", "x", 2), put("a", "y", 3), compact(3, 3), getAt("a", 2, 3, x).rejected(compacted)), Accepted},
		"refused without one":                {story(put("a", "x", 2), put("a", "y", 3), getAt("a", 2, 3, x).rejected(compacted)), Contradicted},
		"refused before one":                 {story(put("a", "x", 2), put("a", "y", 3), getAt("a", 2, 3, x).rejected(compacted), compact(3, 3)), Contradicted},
		"refused after a lost one":           {story(put("a", "x", 2), put("a", "y", 3), compact(3, 3).lost(), getAt("a", 2, 3, x).rejected(compacted)), Accepted},
		"a compaction of what is gone":       {story(put("a", "x", 2), compact(2, 2), compact(2, 2)), Contradicted},
		"a future that is present":           {story(put("a", "x", 2), getAt("a", 2, 2, x).rejected(future)), Contradicted},
		"a future that is one":               {story(put("a", "x", 2), getAt("a", 3, 3, x).rejected(future)), Accepted},
		"a key that is there, refused":       {story(put("a", "x", 2), keep("a").rejected(keyNotFound)), Contradicted},
		"a key that is not there, refused":   {story(put("a", "x", 2), keep("b").rejected(keyNotFound)), Accepted},
		"a refusal that no rule knows":       {story(put("a", "x", 2).rejected("etcdserver: something else")), Contradicted},
		"a lease that is not there, refused": {story(leased(7, put("a", "x", 2)).rejected(leaseNotFound), get("a", 1)), Accepted},
		// Leases end beside the history.
		"a lease that ends":            {story(leased(7, put("a", "x", 2)), get("a", 2, underLease), get("a", 3)), Accepted},
		"a lease that ends twice":      {story(leased(7, put("a", "x", 2)), get("a", 3), leased(7, put("a", "x", 4)), get("a", 5)), Contradicted},
		"no lease":                     {story(put("a", "x", 2), get("a", 3)), Contradicted},
		"a lease that takes no others": {story(leased(7, put("a", "x", 2)), put("b", "x", 3), get("b", 4)), Contradicted},
	}
	for name, c := range cases {
		if got := Judge(c.history, patience); got != c.want {
			t.Errorf("%s: %s, not %s", name, got, c.want)
		}
	}
}

func keep(key string) told {
	return told{ask: Request{Put: &Put{Key: key, IgnoreValue: true}}, outcome: answered(Response{Revision: 3})}
}

// asked is a request that was turned away with these words.
func asked(ask Request, text string) told { return told{ask: ask}.rejected(text) }

func TestUnlawful(t *testing.T) {
	write := Request{Put: &Put{Key: "a", Value: "z"}}
	all := func(end string) Request { return Request{Delete: &Delete{Key: "a", RangeEnd: end}} }
	txn := func(steps ...Request) Request { return Request{Txn: &Txn{Success: steps}} }
	many := make([]Request, opsMax+1)
	for i := range many {
		many[i] = Request{Range: &Range{Key: "a"}}
	}
	cases := map[string]struct {
		ask  Request
		text string
	}{
		"no key":                         {Request{Put: &Put{Value: "z"}}, noKey},
		"no key to read":                 {Request{Range: &Range{}}, noKey},
		"no key to delete":               {Request{Delete: &Delete{}}, noKey},
		"no key to compare":              {Request{Txn: &Txn{Compare: []Compare{{Result: "equal"}}}}, noKey},
		"no key within":                  {txn(txn(Request{Range: &Range{}})), noKey},
		"a value that is kept and given": {Request{Put: &Put{Key: "a", Value: "z", IgnoreValue: true}}, valueGiven},
		"a lease that is kept and given": {Request{Put: &Put{Key: "a", Value: "z", IgnoreLease: true, Lease: 7}}, leaseGiven},
		"an order that nobody knows":     {Request{Range: &Range{Key: "a", SortOrder: 9}}, unknownSort},
		"a target that nobody knows":     {Request{Range: &Range{Key: "a", SortTarget: 9}}, unknownSort},
		"a sorted stream":                {Request{Stream: &Range{Key: "a", SortOrder: 2}}, sortedStream},
		"a bounded stream":               {Request{Stream: &Range{Key: "a", MaxModRevision: 5}}, boundedStream},
		"a key twice":                    {txn(write, write), duplicateKey},
		"a key and its delete":           {txn(all(""), write), duplicateKey},
		"a key and a delete around it":   {txn(all("b"), all("b"), write), duplicateKey},
		"too many":                       {txn(many...), tooManyOps},
		"nothing":                        {txn(Request{}), keyNotFound},
		"too large":                      {Request{Put: &Put{Key: "a", Value: "0:1;..~1572864~0123abcd"}}, tooLarge},
	}
	lawful := []told{put("a", "x", 2), get("a", 2, kv("a", "x", 2, 2, 1))}
	for name, c := range cases {
		if got := Judge(story(append(lawful, asked(c.ask, c.text))...), patience); got != Accepted {
			t.Errorf("%s: %s", name, got)
		}
		for _, text := range []string{"etcdserver: another reason", leaseNotFound} {
			if got := Judge(story(append(lawful, asked(c.ask, text))...), patience); got != Contradicted {
				t.Errorf("%s, turned away with %s: %s", name, text, got)
			}
		}
	}
	for name, ask := range map[string]Request{"a delete of everything from the key on": txn(all("\x00"), write), "a stream by key": {Stream: &Range{Key: "a", SortOrder: 1}}, "as many as may be": txn(many[1:]...), "a large value": {Put: &Put{Key: "a", Value: "0:1;..~1500000~0123abcd"}}} {
		for _, text := range []string{noKey, duplicateKey, tooManyOps, sortedStream, tooLarge} {
			if got := Judge(story(append(lawful, asked(ask, text))...), patience); got != Contradicted {
				t.Errorf("%s, turned away with %s: %s", name, text, got)
			}
		}
	}
}

func TestTargets(t *testing.T) {
	one, target := int64(1), func(target int) *int { return &target }
	x := kv("a", "x", 2, 2, 1)
	cases := map[string]struct {
		compare Compare
		holds   bool
	}{
		"its version":                         {Compare{Result: "equal", Version: &one}, true},
		"a lease, given a version":            {Compare{Result: "equal", Version: &one, Target: target(targetLease)}, true},
		"a modification, given a version":     {Compare{Result: "equal", Version: &one, Target: target(targetMod)}, false},
		"what nobody knows":                   {Compare{Result: "equal", Version: &one, Target: target(9)}, true},
		"less than what nobody knows":         {Compare{Result: "less", Version: &one, Target: target(9)}, false},
		"a result that nobody knows":          {Compare{Version: &one, Target: target(targetMod)}, true},
		"a value, given a version":            {Compare{Result: "greater", Version: &one, Target: target(targetValue)}, true},
		"nothing given, about the lease":      {Compare{Result: "equal", Target: target(targetLease)}, true},
		"another key's value, which it lacks": {Compare{Key: "b", Result: "less", Version: &one, Target: target(targetValue)}, false},
	}
	for name, c := range cases {
		if c.compare.Key == "" {
			c.compare.Key = "a"
		}
		ask := Request{Txn: &Txn{Compare: []Compare{c.compare}}}
		for _, succeeded := range []bool{true, false} {
			swap := told{ask: ask, outcome: answered(Response{Revision: 2, Succeeded: succeeded})}
			want := Contradicted
			if succeeded == c.holds {
				want = Accepted
			}
			if got := Judge(story(put("a", "x", 2), get("a", 2, x), swap), patience); got != want {
				t.Errorf("%s, %v: %s", name, succeeded, got)
			}
		}
	}
}

func TestUnaskedCompactions(t *testing.T) {
	tale := []told{put("a", "x", 2), put("a", "y", 3), getAt("a", 2, 3).rejected(compacted)}
	unknown := story(tale...)
	unknown.Head.Compacted = nil
	if got := Judge(unknown, patience); got != Accepted {
		t.Errorf("compacted nobody knows where: %s", got)
	}
	for revision, want := range map[int64]Verdict{2: Contradicted, 3: Accepted} {
		history := story(tale...)
		history.Head.Compacted = []int64{revision}
		if got := Judge(history, patience); got != want {
			t.Errorf("compacted at %d: %s", revision, got)
		}
	}
}

func TestOptionsOfRanges(t *testing.T) {
	puts := []told{put("a", "3", 2), put("b", "1", 3), put("c", "2", 4), put("a", "3", 5)}
	a, b, c := kv("a", "3", 2, 5, 2), kv("b", "1", 3, 3, 1), kv("c", "2", 4, 4, 1)
	all := Range{Key: "a", RangeEnd: "z"}
	with := func(change func(*Range)) *Range { asked := all; change(&asked); return &asked }
	short := func(kv KV) KV { kv.Value = ""; return kv }
	cases := map[string]struct {
		asked *Range
		told  Response
		want  Verdict
	}{
		"all":                   {with(func(*Range) {}), Response{KVs: []KV{a, b, c}, Count: 3}, Accepted},
		"out of order":          {with(func(*Range) {}), Response{KVs: []KV{b, a, c}, Count: 3}, Contradicted},
		"limit":                 {with(func(r *Range) { r.Limit = 2 }), Response{KVs: []KV{a, b}, Count: 3, More: true}, Accepted},
		"limit, without more":   {with(func(r *Range) { r.Limit = 2 }), Response{KVs: []KV{a, b}, Count: 3}, Contradicted},
		"keys only":             {with(func(r *Range) { r.KeysOnly = true }), Response{KVs: []KV{short(a), short(b), short(c)}, Count: 3}, Accepted},
		"count only":            {with(func(r *Range) { r.CountOnly = true }), Response{Count: 3}, Accepted},
		"a wrong count":         {with(func(r *Range) { r.CountOnly = true }), Response{Count: 2}, Contradicted},
		"by value":              {with(func(r *Range) { r.SortTarget = 4 }), Response{KVs: []KV{b, c, a}, Count: 3}, Accepted},
		"by value, falling":     {with(func(r *Range) { r.SortTarget, r.SortOrder = 4, 2 }), Response{KVs: []KV{a, c, b}, Count: 3}, Accepted},
		"by version":            {with(func(r *Range) { r.SortTarget = 1 }), Response{KVs: []KV{c, b, a}, Count: 3}, Accepted},
		"by version, wrong":     {with(func(r *Range) { r.SortTarget = 1 }), Response{KVs: []KV{a, b, c}, Count: 3}, Contradicted},
		"from a revision":       {with(func(r *Range) { r.MinModRevision = 4 }), Response{KVs: []KV{a, c}, Count: 3}, Accepted},
		"created up to":         {with(func(r *Range) { r.MaxCreateRevision = 3 }), Response{KVs: []KV{a, b}, Count: 3}, Accepted},
		"created up to, wrong":  {with(func(r *Range) { r.MaxCreateRevision = 3 }), Response{KVs: []KV{a}, Count: 3}, Contradicted},
		"from a key":            {&Range{Key: "b", RangeEnd: "\x00"}, Response{KVs: []KV{b, c}, Count: 2}, Accepted},
		"up to a key, the last": {&Range{Key: "a", RangeEnd: "c"}, Response{KVs: []KV{a, b, c}, Count: 3}, Contradicted},
	}
	for name, c := range cases {
		c.told.Revision = 5
		read := told{ask: Request{Range: c.asked}, outcome: answered(c.told)}
		if got := Judge(story(append(puts[:4:4], read)...), patience); got != c.want {
			t.Errorf("%s: %s, not %s", name, got, c.want)
		}
	}
}

func TestTimeIsUp(t *testing.T) {
	var all []told
	for revision := int64(2); revision < 3000; revision++ {
		all = append(all, put("a", "x", revision))
	}
	if got := Judge(story(all...), 100*time.Nanosecond); got != Unknown {
		t.Errorf("%s, in no time", got)
	}
	if got := Judge(story(all...), patience); got != Accepted {
		t.Errorf("%s, with time", got)
	}
}

func TestRead(t *testing.T) {
	const head = `{"format":"detcd-history","version":1,"kind":"engine","seed":1,"members":1,"operations":1}` + "\n"
	const line = `{"client":0,"invoked":1,"completed":2,"ask":{"put":{"key":"k","value":"v"}},"outcome":{"answered":{"revision":2}}}` + "\n"
	cases := map[string]string{
		head + line:                            "",
		head:                                   "0 operations of 1",
		head + line + line:                     "2 operations of 1",
		head + line[:40] + "\n":                ":2:",
		strings.Replace(head, ":1,", ":2,", 1): "version 2",
		strings.Replace(head, "detcd", "other", 1): "format",
	}
	for text, want := range cases {
		path := filepath.Join(t.TempDir(), "history.jsonl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		history, err := Read(path)
		switch {
		case want == "" && (err != nil || len(history.Operations) != 1 || history.Operations[0].Ask.Put.Value != "v"):
			t.Errorf("%v, %v", history, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, not %q", err, want)
		}
	}
}
