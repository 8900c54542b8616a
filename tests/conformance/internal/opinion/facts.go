package opinion

import (
	"slices"
	"sort"
)

// facts are what all answers of a history say together about every order that
// they can have. They decide nothing; they save the search from trying what
// some answer forbids.
type facts struct {
	// Revisions of answered writes.
	owned map[int64]bool
	// Revisions without an owner, up to the last that anybody was told of.
	free []int64
	// What anybody was shown of a revision, by key.
	shown map[int64]map[string]KV
	// The same of a key, by revision; and the revisions of answered puts to it.
	versions map[string][]KV
	puts     map[string][]int64
	// What a key was seen to hold after a revision, or that it was not there.
	sights map[string][]sight
	// Answered deletes, by revision: who may have deleted a key.
	deletes []deletion
	// The only revision that a lost write can have: somebody was shown its
	// value there, which is nobody else's.
	homes map[*Operation]int64
}

type sight struct {
	at     int64
	kv     KV
	isGone bool
}

type deletion struct {
	revision int64
	key, end string
}

func gather(history *History) *facts {
	f := &facts{owned: map[int64]bool{}, shown: map[int64]map[string]KV{}, versions: map[string][]KV{}, puts: map[string][]int64{}, homes: map[*Operation]int64{}, sights: map[string][]sight{}}
	keys := universe(history)
	last := int64(1)
	for i := range history.Operations {
		ask, answer := &history.Operations[i].Ask, history.Operations[i].Outcome.Answered
		if answer == nil || ask.Hash != nil || ask.Compact != nil {
			continue
		}
		last = max(last, answer.Revision)
		walk(ask, answer, func(kv KV, withValue bool) {
			last = max(last, kv.ModRevision)
			f.show(kv, withValue)
		})
		if hasWritten(ask, answer) {
			f.owned[answer.Revision] = true
			f.notePuts(ask, answer, answer.Revision)
			f.noteDeletes(ask, answer, answer.Revision)
		}
		f.see(ask, answer, answer.Revision, !hasWritten(ask, answer), keys)
	}
	for revision := int64(2); revision <= last; revision++ {
		if !f.owned[revision] {
			f.free = append(f.free, revision)
		}
	}
	for _, keys := range f.shown {
		for key, kv := range keys {
			f.versions[key] = append(f.versions[key], kv)
		}
	}
	for key := range f.versions {
		sort.Slice(f.versions[key], func(i, j int) bool { return f.versions[key][i].ModRevision < f.versions[key][j].ModRevision })
	}
	for key := range f.puts {
		slices.Sort(f.puts[key])
	}
	for key := range f.sights {
		sort.SliceStable(f.sights[key], func(i, j int) bool { return f.sights[key][i].at < f.sights[key][j].at })
	}
	sort.Slice(f.deletes, func(i, j int) bool { return f.deletes[i].revision < f.deletes[j].revision })
	f.findHomes(history)
	return f
}

func (f *facts) show(kv KV, withValue bool) {
	keys := f.shown[kv.ModRevision]
	if keys == nil {
		keys = map[string]KV{}
		f.shown[kv.ModRevision] = keys
	}
	if _, is := keys[kv.Key]; !is || withValue {
		keys[kv.Key] = kv
	}
}

// walk tells what an answer shows of the versions of keys.
func walk(ask *Request, answer *Response, tell func(kv KV, withValue bool)) {
	for _, kv := range answer.KVs {
		tell(kv, kv.Value != "")
	}
	if answer.PrevKV != nil {
		tell(*answer.PrevKV, true)
	}
	for _, kv := range answer.PrevKVs {
		tell(kv, true)
	}
	if ask.Txn != nil {
		for i, step := range taken(ask.Txn, answer) {
			if i < len(answer.Responses) {
				walk(&step, answer.Responses[i].any(), tell)
			}
		}
	}
}

func taken(txn *Txn, answer *Response) []Request {
	if answer.Succeeded {
		return txn.Success
	}
	return txn.Failure
}

func lastShown(ask *Request, answer *Response) int64 {
	last := int64(1)
	walk(ask, answer, func(kv KV, _ bool) { last = max(last, kv.ModRevision) })
	return last
}

func (f *facts) notePuts(ask *Request, answer *Response, revision int64) {
	if ask.Put != nil {
		f.puts[ask.Put.Key] = append(f.puts[ask.Put.Key], revision)
	}
	if ask.Txn != nil {
		for i, step := range taken(ask.Txn, answer) {
			if i < len(answer.Responses) {
				f.notePuts(&step, answer.Responses[i].any(), revision)
			}
		}
	}
}

func (f *facts) noteDeletes(ask *Request, answer *Response, revision int64) {
	if ask.Delete != nil && answer.Deleted > 0 {
		f.deletes = append(f.deletes, deletion{revision, ask.Delete.Key, ask.Delete.RangeEnd})
	}
	if ask.Txn != nil {
		for i, step := range taken(ask.Txn, answer) {
			if i < len(answer.Responses) {
				f.noteDeletes(&step, answer.Responses[i].any(), revision)
			}
		}
	}
}

// universe is all keys that anybody named.
func universe(history *History) []string {
	names := map[string]bool{}
	for i := range history.Operations {
		eachPut(&history.Operations[i].Ask, func(put *Put) { names[put.Key] = true })
	}
	var keys []string
	for name := range names {
		keys = append(keys, name)
	}
	sort.Strings(keys)
	return keys
}

// see notes what an answer shows of the keys after a revision. What a
// transaction that writes reads in between is left out.
func (f *facts) see(ask *Request, answer *Response, revision int64, isPure bool, keys []string) {
	asked := ask.Range
	if asked == nil {
		asked = ask.Stream
	}
	switch {
	case ask.Put != nil && ask.Put.PrevKV && answer.PrevKV == nil:
		f.add(ask.Put.Key, sight{at: revision - 1, isGone: true})
	case ask.Put != nil && answer.PrevKV != nil:
		f.add(ask.Put.Key, sight{at: revision - 1, kv: *answer.PrevKV})
	case ask.Delete != nil && answer.Deleted == 0 && isPure && ask.Delete.RangeEnd == "":
		f.add(ask.Delete.Key, sight{at: revision, isGone: true})
	case asked != nil && asked.Revision > 0:
		f.seeRange(asked, answer, asked.Revision, keys)
	case asked != nil && isPure:
		f.seeRange(asked, answer, revision, keys)
	case ask.Txn != nil:
		for i, step := range taken(ask.Txn, answer) {
			// Behind a delete of the same transaction, what a put found is not what was there before.
			if i < len(answer.Responses) && !(step.Put != nil && hasDelete(ask)) {
				f.see(&step, answer.Responses[i].any(), revision, isPure, keys)
			}
		}
	}
}

func hasDelete(ask *Request) bool {
	if ask.Txn == nil {
		return ask.Delete != nil
	}
	isOne := func(step Request) bool { return hasDelete(&step) }
	return slices.ContainsFunc(ask.Txn.Success, isOne) || slices.ContainsFunc(ask.Txn.Failure, isOne)
}

func (f *facts) seeRange(asked *Range, answer *Response, at int64, keys []string) {
	seen := map[string]bool{}
	for _, kv := range answer.KVs {
		seen[kv.Key] = true
		f.add(kv.Key, sight{at: at, kv: kv})
	}
	isFiltered := asked.MinModRevision != 0 || asked.MaxModRevision != 0 || asked.MinCreateRevision != 0 || asked.MaxCreateRevision != 0
	if answer.More || isFiltered || asked.CountOnly && answer.Count > 0 {
		return
	}
	for _, key := range keys {
		if !seen[key] && isIn(key, asked.Key, asked.RangeEnd) {
			f.add(key, sight{at: at, isGone: true})
		}
	}
}

func (f *facts) add(key string, seen sight) { f.sights[key] = append(f.sights[key], seen) }

type written struct{ key, value string }

// findHomes finds lost writes whose values were shown. A value says whose it is
// only if one request alone has it, and if no lost request repeats what is there.
func (f *facts) findHomes(history *History) {
	askers := map[written]int{}
	repeats := map[string]bool{}
	for i := range history.Operations {
		operation := &history.Operations[i]
		eachPut(&operation.Ask, func(put *Put) {
			askers[written{put.Key, put.Value}]++
			if put.IgnoreValue && operation.Outcome.Answered == nil {
				repeats[put.Key] = true
			}
		})
	}
	at := map[written]int64{}
	for revision, keys := range f.shown {
		for key, kv := range keys {
			if !f.owned[revision] && kv.Value != "" && !repeats[key] {
				at[written{key, kv.Value}] = revision
			}
		}
	}
	for i := range history.Operations {
		operation := &history.Operations[i]
		if operation.Outcome.Unknown == nil {
			continue
		}
		eachPut(&operation.Ask, func(put *Put) {
			value := written{put.Key, put.Value}
			if revision, is := at[value]; is && !put.IgnoreValue && askers[value] == 1 {
				f.homes[operation] = revision
			}
		})
	}
}

func eachPut(ask *Request, tell func(*Put)) {
	if ask.Put != nil {
		tell(ask.Put)
	}
	if ask.Txn != nil {
		for _, branch := range [][]Request{ask.Txn.Success, ask.Txn.Failure} {
			for i := range branch {
				eachPut(&branch[i], tell)
			}
		}
	}
}

// wasShown says whether these changes are what others were shown of a revision.
func (f *facts) wasShown(revision int64, changes []change) bool {
	made := 0
	for _, change := range changes {
		seen, is := f.shown[revision][change.kv.Key]
		if !is {
			continue
		}
		made++
		same := seen.CreateRevision == change.kv.CreateRevision && seen.Version == change.kv.Version
		if change.isGone || !same || seen.Value != "" && seen.Value != change.kv.Value {
			return false
		}
	}
	return made == len(f.shown[revision])
}

// leaveRoom says whether every key can still come to the version that somebody
// was shown of it next: as many puts are left until then as it has versions to
// go, the answered ones and at most one for each revision without an owner.
func (f *facts) leaveRoom(s store) bool {
	for key, sights := range f.sights {
		at := sort.Search(len(sights), func(i int) bool { return sights[i].at >= s.revision })
		if at < len(sights) && !f.leadsTo(s, key, sights[at]) {
			return false
		}
	}
	for key, versions := range f.versions {
		at := sort.Search(len(versions), func(i int) bool { return versions[i].ModRevision > s.revision })
		if at == len(versions) {
			continue
		}
		next := versions[at]
		held, is := s.at(key, s.revision)
		if next.CreateRevision > s.revision {
			// It is made anew until then; what is there goes before.
			continue
		}
		if !is || held.CreateRevision != next.CreateRevision {
			return false
		}
		open := next.Version - held.Version
		certain := between(f.puts[key], s.revision, next.ModRevision)
		if open < certain || open > certain+between(f.free, s.revision, next.ModRevision) {
			return false
		}
	}
	return true
}

// leadsTo says whether a key can come to what it was seen to hold.
func (f *facts) leadsTo(s store, key string, next sight) bool {
	held, is := s.at(key, s.revision)
	switch {
	case !next.isGone && next.kv.ModRevision <= s.revision:
		return is && held.ModRevision == next.kv.ModRevision && held.Version == next.kv.Version && held.CreateRevision == next.kv.CreateRevision
	case next.isGone:
		return !is || f.mayGo(key, s.revision, next.at)
	case next.kv.CreateRevision > s.revision:
		return !is || f.mayGo(key, s.revision, next.kv.CreateRevision)
	}
	return is && held.CreateRevision == next.kv.CreateRevision
}

// mayGo says whether a key can have been deleted after one revision and up to another.
func (f *facts) mayGo(key string, after, upto int64) bool {
	if between(f.free, after, upto) > 0 {
		return true
	}
	first := sort.Search(len(f.deletes), func(i int) bool { return f.deletes[i].revision > after })
	for _, deletion := range f.deletes[first:] {
		if deletion.revision > upto {
			return false
		}
		if isIn(key, deletion.key, deletion.end) {
			return true
		}
	}
	return false
}

// between counts the revisions after one and up to another.
func between(revisions []int64, after, upto int64) int64 {
	first := sort.Search(len(revisions), func(i int) bool { return revisions[i] > after })
	end := sort.Search(len(revisions), func(i int) bool { return revisions[i] > upto })
	return int64(end - first)
}
