package ctl

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"detcd.io/conformance/internal/process"
)

// watches are calls of etcdctl that never end by themselves. They are started on an empty store and see the same writes.
var watches = []step{
	{args: []string{"watch", "a", "--rev", "2", "--prev-kv"}},
	{args: []string{"watch", "a", "--rev", "2", "--prefix", "-w", "json"}},
	{args: []string{"watch", "ab", "--from-key", "--rev", "4"}},
	{args: []string{"watch", "a", "b", "--rev", "3", "--hex"}},
	{args: []string{"watch", "-i"}, stdin: "watch a --rev=2\n"},
	{args: []string{"watch", "a", "--rev", "2", "--", "sh", "-c", "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY"}},
}

// writes are what they see; the last one ends the wait.
var writes = []step{
	{args: []string{"put", "a", "1"}},
	{args: []string{"put", "ab", "2"}},
	{args: []string{"del", "a"}},
	{args: []string{"txn"}, stdin: "\nput a 3\nput ab 4\n\n\n"},
	{args: []string{"txn"}, stdin: "\nput a END\nput b END\n\n\n"},
}

// The last write makes this revision; every form of output shows it.
var lastRevision = []string{"END", "RU5E", `"Revision" : 6`, `\x45\x4e\x44`, `6 PUT "a"`}

const (
	watchersStartIn = 700 * time.Millisecond
	watchersEndIn   = 10 * time.Second
)

// output is what a running command has printed.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) isComplete() bool {
	text := o.String()
	for _, last := range lastRevision {
		if strings.Contains(text, last) && strings.HasSuffix(text, "\n") {
			return true
		}
	}
	return false
}

// watchAll runs all watches against one member while the writes are made, and returns what each printed.
func watchAll(ctx context.Context, etcdctl string, member *process.Member) []string {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	printed := make([]*output, len(watches))
	for i, one := range watches {
		printed[i] = &output{}
		command := exec.CommandContext(ctx, etcdctl, append([]string{"--endpoints", member.Addr()}, one.args...)...)
		command.Env = process.CleanEnv()
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		command.Stdout = printed[i]
		// An interactive watch ends with its input, so the input stays open.
		stdin, err := command.StdinPipe()
		if err == nil {
			err = command.Start()
		}
		if err != nil {
			return slices.Repeat([]string{fmt.Sprintf("%q: %v", one.args, err)}, len(watches))
		}
		_, _ = stdin.Write([]byte(one.stdin))
		defer func() {
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
			_ = command.Wait()
		}()
	}
	time.Sleep(watchersStartIn)
	for _, one := range writes {
		run(ctx, etcdctl, member, one)
	}
	deadline := time.Now().Add(watchersEndIn)
	var texts []string
	for _, one := range printed {
		for !one.isComplete() && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		var lines []string
		for _, line := range strings.SplitAfter(one.String(), "\n") {
			lines = append(lines, level([]byte(line)))
		}
		texts = append(texts, strings.Join(lines, ""))
	}
	return texts
}
