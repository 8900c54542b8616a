// Package ctl drives both servers with the real etcdctl and plain HTTP, as people
// and probes do, and compares what these print.
package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/process"
)

const commandWithin = 30 * time.Second

// step is one call of etcdctl. The arguments come behind the endpoint.
type step struct {
	args  []string
	stdin string
}

var steps = []step{
	{args: []string{"put", "a", "1"}},
	{args: []string{"put", "a", "2", "--prev-kv"}},
	{args: []string{"put", "ab", "two words"}},
	{args: []string{"put", "b", "3", "-w", "json"}},
	{args: []string{"put", "c", "-w", "fields"}, stdin: "from stdin"},
	{args: []string{"put", "", "empty key"}},
	{args: []string{"put", "missing", "--ignore-value"}},
	{args: []string{"put", "a", "1", "--lease", "4d2"}},
	{args: []string{"get", "a"}},
	{args: []string{"get", "nothing"}},
	{args: []string{"get", "a", "--prefix", "-w", "json"}},
	{args: []string{"get", "a", "c", "--sort-by", "MODIFY", "--order", "DESCEND", "--limit", "2"}},
	{args: []string{"get", "", "--from-key", "--keys-only"}},
	{args: []string{"get", "", "--prefix", "--count-only", "-w", "fields"}},
	{args: []string{"get", "a", "--rev", "2", "--consistency", "s", "--hex"}},
	{args: []string{"get", "a", "--rev", "999"}},
	{args: []string{"txn"}, stdin: "val(\"a\") = \"2\"\n\nput a 4\nget a\n\nget b\n\n"},
	{args: []string{"txn", "-w", "json"}, stdin: "mod(\"a\") < \"1\"\n\nput a 5\n\ndel ab\nget a c\n\n"},
	{args: []string{"txn"}, stdin: "\nput d 1\nput d 2\n\n\n"},
	{args: []string{"del", "b", "--prev-kv"}},
	{args: []string{"del", "b"}},
	{args: []string{"del", "", "--from-key"}},
	{args: []string{"get", "", "--prefix"}},
	{args: []string{"lease", "list"}},
	{args: []string{"lease", "revoke", "4d2"}},
	{args: []string{"lease", "timetolive", "4d2"}},
	{args: []string{"lease", "keep-alive", "--once", "4d2"}},
	{args: []string{"lease", "grant", "9000000001"}},
	{args: []string{"lease", "grant", "1"}},
	{args: []string{"lease", "grant", "600", "-w", "json"}},
	{args: []string{"lease", "grant", "word"}},
	{args: []string{"member", "list"}},
	{args: []string{"member", "list", "-w", "json"}},
	{args: []string{"member", "list", "-w", "table"}},
	{args: []string{"endpoint", "status", "-w", "json"}},
	{args: []string{"endpoint", "hashkv"}},
	{args: []string{"endpoint", "hashkv", "--rev", "3", "-w", "json"}},
	{args: []string{"endpoint", "hashkv", "--rev", "999"}},
}

// paths are what probes ask for over plain HTTP on the client port.
var paths = []string{"/version", "/health", "/health?serializable=true", "/livez", "/readyz", "/livez/serializable_read"}

// Smoke takes all steps on both servers and returns how many agreed and what differed.
func Smoke(ctx context.Context, etcdctl string, p *pair.Pair) (passed int, differences []string) {
	note := func(what, theirs, ours string) {
		if theirs == ours {
			passed++
			return
		}
		differences = append(differences, fmt.Sprintf("%s\n--- etcd\n%s\n--- detcd\n%s", what, theirs, ours))
	}
	theirs, ours := watchAll(ctx, etcdctl, p.Etcd), watchAll(ctx, etcdctl, p.Detcd)
	for i, one := range watches {
		note(fmt.Sprintf("etcdctl %q", one.args), theirs[i], ours[i])
	}
	for _, one := range steps {
		what := fmt.Sprintf("etcdctl %q", one.args)
		note(what, run(ctx, etcdctl, p.Etcd, one), run(ctx, etcdctl, p.Detcd, one))
	}
	for _, path := range paths {
		note("GET "+path, get(p.Etcd, path), get(p.Detcd, path))
	}
	return passed, differences
}

func get(member *process.Member, path string) string {
	code, body, err := member.Get(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %q", code, body)
}

// run returns exit status, standard output and the error line, without what differs by nature.
func run(ctx context.Context, etcdctl string, member *process.Member, one step) string {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	command := exec.CommandContext(ctx, etcdctl, append([]string{"--endpoints", member.Addr()}, one.args...)...)
	command.Env = process.CleanEnv()
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Stdin = strings.NewReader(one.stdin)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return err.Error()
	}
	out := fmt.Sprintf("exit %d\n%s%s", command.ProcessState.ExitCode(), level(stdout.Bytes()), errorLine(stderr.String()))
	return strings.ReplaceAll(out, member.Addr(), "ENDPOINT")
}

// errorLine leaves out the client's own log lines: they carry times and addresses.
func errorLine(stderr string) string {
	var kept []string
	for _, line := range strings.Split(stderr, "\n") {
		if line != "" && !strings.HasPrefix(line, "{") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// ownValue names the numbers that are a server's own affair in etcdctl's JSON and fields.
var ownValue = map[string]bool{
	"raft_term": true, "raftTerm": true, "raftIndex": true, "raftAppliedIndex": true, "dbSize": true, "dbSizeInUse": true,
}

// leaseID is how etcdctl prints a lease's id; the server may have chosen it.
var leaseID = regexp.MustCompile(`lease [0-9a-f]{16}`)

// level replaces such numbers in JSON and in the `fields` form.
func level(stdout []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(stdout))
	decoder.UseNumber()
	var tree any
	if len(stdout) > 0 && (stdout[0] == '{' || stdout[0] == '[') && decoder.Decode(&tree) == nil {
		levelTree(tree)
		if text, err := json.Marshal(tree); err == nil {
			return string(text) + "\n"
		}
	}
	lines := strings.SplitAfter(string(stdout), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, `"RaftTerm" :`) {
			lines[i] = "\"RaftTerm\" : TERM\n"
		}
	}
	return leaseID.ReplaceAllString(strings.Join(lines, ""), "lease ID")
}

func levelTree(tree any) {
	switch tree := tree.(type) {
	case map[string]any:
		if _, isLease := tree["TTL"]; isLease {
			tree["ID"] = "set" // the server chose it
		}
		for name, value := range tree {
			if ownValue[name] {
				tree[name] = "set"
			} else {
				levelTree(value)
			}
		}
	case []any:
		for _, value := range tree {
			levelTree(value)
		}
	}
}
