// Package monitor compares what both servers tell those who watch over them: metrics,
// health checks and variables, after the same small history.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/process"
)

// both is one member of each kind.
type both struct{ etcd, detcd *process.Member }

// verdict counts comparisons and collects differences.
type verdict struct {
	passed      int
	differences []string
}

func (v *verdict) note(what, theirs, ours string) {
	if theirs == ours {
		v.passed++
		return
	}
	v.differences = append(v.differences, fmt.Sprintf("%s\n--- etcd only\n%s\n--- detcd only\n%s", what, beyond(theirs, ours), beyond(ours, theirs)))
}

// beyond keeps the lines of one text that the other has not.
func beyond(one, other string) string {
	there := strings.Split(other, "\n")
	return strings.Join(slices.DeleteFunc(strings.Split(one, "\n"), func(line string) bool {
		return slices.Contains(there, line)
	}), "\n")
}

func (v *verdict) fail(err error) { v.differences = append(v.differences, err.Error()) }

// Run starts both under root and returns how many comparisons agreed and what differed.
func Run(ctx context.Context, binaries pair.Binaries, root string) (passed int, differences []string) {
	v := &verdict{}
	if err := run(ctx, v, binaries, root); err != nil {
		v.fail(err)
	}
	return v.passed, v.differences
}

func run(ctx context.Context, v *verdict, binaries pair.Binaries, root string) error {
	dir, err := os.MkdirTemp(root, "monitor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := both{
		etcd:  process.New("etcd", binaries.Etcd, filepath.Join(dir, "etcd")),
		detcd: process.New("detcd", binaries.Detcd, filepath.Join(dir, "detcd")),
	}
	for _, member := range []*process.Member{b.etcd, b.detcd} {
		member.Flags = []string{"--metrics", "extensive"}
		defer member.Kill()
		if err := member.Start(); err != nil {
			return err
		}
	}
	theirs, ours, err := b.scrape()
	if err != nil {
		return err
	}
	b.probes(v, "")
	v.vars(b)
	histories := []*history{newHistory(b.etcd), newHistory(b.detcd)}
	for _, history := range histories {
		defer history.close()
		if err := history.play(ctx); err != nil {
			return fmt.Errorf("%s: %w", history.member.Name, err)
		}
	}
	for _, alarm := range alarms {
		for _, history := range histories {
			if err := history.raise(ctx, alarm); err != nil {
				return err
			}
		}
		b.probes(v, fmt.Sprintf(" with %v raised", alarm))
		raisedThere, raisedHere, err := b.scrape()
		if err != nil {
			return err
		}
		const name = "etcd_debugging_server_alarms"
		v.note(fmt.Sprintf("%s with %v raised", name, alarm), text(values(raisedThere[name])), text(values(raisedHere[name])))
		for _, history := range histories {
			if err := history.lower(ctx, alarm); err != nil {
				return err
			}
		}
	}
	return v.metrics(b, theirs, ours)
}

func (b both) scrape() (theirs, ours scrape, err error) {
	theirs, err = scrapeOf(b.etcd)
	if err == nil {
		ours, err = scrapeOf(b.detcd)
	}
	return theirs, ours, err
}

// settleWithin bounds the wait for counts that both bring up a moment after an answer.
const settleWithin = 5 * time.Second

// metrics compares everything that both tell by now with what they told before.
func (v *verdict) metrics(b both, theirsBefore, oursBefore scrape) error {
	theirs, ours, err := b.scrape()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(settleWithin)
	for time.Now().Before(deadline) && !settled(theirs, ours) {
		time.Sleep(100 * time.Millisecond)
		if theirs, ours, err = b.scrape(); err != nil {
			return err
		}
	}
	v.shapes(theirs, ours)
	for _, name := range equal {
		v.note(name, text(values(theirs[name])), text(values(ours[name])))
	}
	for _, name := range equalChange {
		v.note("change of "+name, text(change(theirsBefore[name], theirs[name])), text(change(oursBefore[name], ours[name])))
	}
	for _, name := range alike {
		one, other := values(theirs[name])[""], values(ours[name])[""]
		if sameMagnitude(one, other) {
			v.passed++
		} else {
			v.fail(fmt.Errorf("%s is %v at etcd, %v at detcd", name, one, other))
		}
	}
	for _, name := range queried {
		if len(ours[name].GetMetric()) > 0 {
			v.passed++
		} else {
			v.fail(fmt.Errorf("a dashboard asks for %s", name))
		}
	}
	return nil
}

// settled says whether the compaction is counted and all events are sent, on both.
func settled(theirs, ours scrape) bool {
	for _, name := range []string{"etcd_debugging_mvcc_db_compaction_keys_total", "etcd_debugging_mvcc_events_total"} {
		if text(values(theirs[name])) != text(values(ours[name])) {
			return false
		}
	}
	return true
}

// shapes compares which families there are, and how they look.
func (v *verdict) shapes(theirs, ours scrape) {
	names := slices.Sorted(maps.Keys(theirs))
	for _, name := range names {
		switch {
		case ours[name] != nil && listed(Missing, name):
			v.fail(fmt.Errorf("%s is told, though it is listed as missing", name))
		case ours[name] != nil:
			v.note(name, shape(theirs[name]), shape(ours[name]))
		case !listed(Missing, name):
			v.fail(fmt.Errorf("detcd does not tell %s (%s)", name, shape(theirs[name])))
		}
	}
	for name := range ours {
		if theirs[name] == nil && !listed(Own, name) {
			v.fail(fmt.Errorf("only detcd tells %s", name))
		}
	}
}

// probe is one HTTP request of a health checker.
type probe struct{ method, path string }

var probed = []probe{
	{"GET", "/health"}, {"GET", "/health?serializable=true"}, {"GET", "/health?exclude=NOSPACE"}, {"GET", "/health?exclude=nospace"},
	{"GET", "/health?exclude=CORRUPT&exclude=NOSPACE"}, {"GET", "/health?serializable=true&exclude=NOSPACE"}, {"GET", "/health?exclude="},
	{"HEAD", "/health"}, {"POST", "/health"}, {"GET", "/health/"},
	{"GET", "/livez"}, {"GET", "/livez?verbose"}, {"GET", "/livez?verbose=false"}, {"GET", "/livez?exclude=serializable_read&verbose"},
	{"GET", "/livez?exclude=nothing"}, {"GET", "/livez/serializable_read"}, {"GET", "/livez/serializable_read?verbose"},
	{"GET", "/livez/serializable_read?exclude=serializable_read&verbose"}, {"GET", "/livez/linearizable_read"}, {"GET", "/livez/"},
	{"PUT", "/livez"}, {"HEAD", "/livez/serializable_read"},
	{"GET", "/readyz"}, {"GET", "/readyz?verbose"}, {"GET", "/readyz?verbose&exclude=data_corruption&exclude=non_learner"},
	{"GET", "/readyz?exclude=data_corruption"}, {"GET", "/readyz?exclude=data_corruption,non_learner&verbose"},
	{"GET", "/readyz/data_corruption"}, {"GET", "/readyz/data_corruption?verbose"}, {"GET", "/readyz/data_corruption?exclude=data_corruption"},
	{"GET", "/readyz/serializable_read?verbose"}, {"GET", "/readyz/linearizable_read?verbose"}, {"GET", "/readyz/non_learner?verbose"},
	{"GET", "/readyz/nothing"}, {"GET", "/readyz/"}, {"DELETE", "/readyz"}, {"POST", "/readyz/non_learner"},
	{"GET", "/debug"}, {"POST", "/debug/vars"}, {"HEAD", "/debug/vars"}, {"HEAD", "/metrics"},
}

func (b both) probes(v *verdict, when string) {
	for _, probe := range probed {
		what := fmt.Sprintf("%s %s%s", probe.method, probe.path, when)
		v.note(what, ask(b.etcd, probe), ask(b.detcd, probe))
	}
}

// The client keeps no connection: a check is one.
var client = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask tells the answer's status, the headers that a checker may look at, and the body.
func ask(member *process.Member, probe probe) string {
	request, err := http.NewRequest(probe.method, "http://"+member.Addr()+probe.path, nil)
	if err != nil {
		return err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	// The order of checks is not specified.
	lines := strings.SplitAfter(string(body), "\n")
	slices.Sort(lines)
	headers := []string{"Content-Type", "X-Content-Type-Options", "Allow"}
	out := fmt.Sprintf("%d %q", response.StatusCode, lines)
	for _, name := range headers {
		out += fmt.Sprintf("\n%s: %q", name, response.Header.Values(name))
	}
	return out
}

// vars compares which variables there are, in their order, and the status of Raft's but for what is a server's own.
func (v *verdict) vars(b both) {
	texts := make([]string, 0, 2)
	for _, member := range []*process.Member{b.etcd, b.detcd} {
		described, err := describeVars(member)
		if err != nil {
			v.fail(fmt.Errorf("%s: /debug/vars: %w", member.Name, err))
			return
		}
		texts = append(texts, described)
	}
	v.note("/debug/vars", texts[0], texts[1])
}

func describeVars(member *process.Member) (string, error) {
	_, body, err := member.Get("/debug/vars")
	if err != nil {
		return "", err
	}
	var order []string
	for _, line := range strings.Split(body, "\n") {
		if name, _, ok := strings.Cut(line, `": `); ok {
			order = append(order, strings.TrimPrefix(name, `"`))
		}
	}
	var vars struct {
		Cmdline []string       `json:"cmdline"`
		Limit   int            `json:"file_descriptor_limit"`
		Memory  map[string]any `json:"memstats"`
		Raft    map[string]any `json:"raft.status"`
	}
	if err := json.Unmarshal([]byte(body), &vars); err != nil {
		return "", err
	}
	for _, name := range []string{"Sys", "HeapSys"} {
		if bytes, ok := vars.Memory[name].(float64); !ok || bytes <= 0 {
			return "", fmt.Errorf("memstats has no %s", name)
		}
	}
	if len(vars.Cmdline) < 2 {
		return "", errors.New("no command line")
	}
	for _, name := range []string{"term", "commit", "applied"} {
		if _, ok := vars.Raft[name].(float64); !ok {
			return "", fmt.Errorf("raft.status has no %s", name)
		}
		vars.Raft[name] = "set"
	}
	progress, _ := vars.Raft["progress"].(map[string]any)
	for _, of := range progress {
		if one, ok := of.(map[string]any); ok {
			one["match"], one["next"] = "set", "set"
		}
	}
	raft, err := json.Marshal(vars.Raft)
	return fmt.Sprintf("%q\n%q\n%d\n%s", order, vars.Cmdline[1:3], vars.Limit, raft), err
}
