// Package run takes both servers through whole seeds and keeps the score.
//
// A seed is a fresh pair, a sequence of drawn operations with a crash, a restart
// and hashes in between, then a look at everything, and at last a comparison of
// the snapshots that both give away and of the logs that both wrote. Its first difference ends it and is shrunk.
package run

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"detcd.io/conformance/internal/ctl"
	"detcd.io/conformance/internal/files"
	"detcd.io/conformance/internal/generate"
	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/script"
	"detcd.io/conformance/internal/shrink"
	"detcd.io/conformance/internal/snapshots"
)

const (
	hashEvery     = 200
	progressEvery = 1000
)

// Config says what to run and where.
type Config struct {
	Binaries pair.Binaries
	Etcdctl  string
	Root     string        // temporary data directories
	Scripts  string        // where a shrunk mismatch is written
	Ops      int           // drawn operations per seed
	Shrink   time.Duration // longest search for a smaller sequence; 0 does not search
	Keep     bool          // leave the data directories of a failed seed in place
	Out      io.Writer
}

// Score counts comparisons. One failed comparison ends its seed, so that there is at most one per seed.
type Score struct{ Passed, Failed int }

// Add adds another score.
func (s *Score) Add(other Score) {
	s.Passed += other.Passed
	s.Failed += other.Failed
}

type seedRun struct {
	Config
	seed     uint64
	pair     *pair.Pair
	played   []script.Op
	revision int64
	refused  int // operations that both servers answered with an error
	score    Score
}

// Seed runs one seed to its end or to its first difference.
func Seed(ctx context.Context, config Config, seed uint64) Score {
	r := &seedRun{Config: config, seed: seed, revision: 1}
	p, err := pair.Start(config.Binaries, config.Root)
	if err != nil {
		r.fail(fmt.Sprintf("start: %v", err))
		return r.score
	}
	r.pair = p
	if r.play(ctx) && r.snapshots(ctx) {
		r.logs()
	}
	if r.score.Failed > 0 && r.Keep {
		r.pair.Kill()
		fmt.Fprintf(r.Out, "seed %d: both data directories are kept in %s\n", r.seed, r.pair.Dir())
	} else {
		r.pair.Remove()
	}
	return r.score
}

// play draws and runs the operations; false says that there was a difference.
func (r *seedRun) play(ctx context.Context) bool {
	generator := generate.New(r.seed)
	for i := range r.Ops {
		switch {
		case i > 0 && i == r.Ops/3 && !r.all(ctx, r.restart(script.Kill)):
			return false
		case i > 0 && i == r.Ops*2/3 && !r.all(ctx, r.restart(script.Stop)):
			return false
		case i > 0 && i%hashEvery == 0 && !r.all(ctx, generate.Sweep(0)):
			return false
		}
		if !r.step(ctx, generator.Next(r.revision)) {
			return false
		}
		if (i+1)%progressEvery == 0 {
			fmt.Fprintf(r.Out, "seed %d: %d of %d operations, revision %d\n", r.seed, i+1, r.Ops, r.revision)
		}
	}
	return r.all(ctx, generate.Sweep(r.revision))
}

func (r *seedRun) restart(kind script.Kind) []script.Op {
	return append([]script.Op{{Kind: kind, Via: script.Stub}}, generate.Sweep(r.revision)...)
}

func (r *seedRun) all(ctx context.Context, ops []script.Op) bool {
	for _, op := range ops {
		if !r.step(ctx, op) {
			return false
		}
	}
	return true
}

func (r *seedRun) step(ctx context.Context, op script.Op) bool {
	if err := ctx.Err(); err != nil {
		r.fail(fmt.Sprintf("after %d operations: %v", len(r.played), err))
		return false
	}
	r.played = append(r.played, op)
	verdict := r.pair.Do(ctx, op)
	r.revision = max(r.revision, verdict.Revision)
	if verdict.Differs() {
		if ctx.Err() != nil {
			verdict.Why = fmt.Sprintf("%v\n%s", ctx.Err(), verdict.Why)
		}
		r.fail(fmt.Sprintf("operation %d %v\n%s", len(r.played), op, verdict.Why))
		r.shrink(ctx)
		return false
	}
	r.score.Passed++
	if verdict.Failed {
		r.refused++
	}
	if verdict.Expected != "" {
		fmt.Fprintf(r.Out, "seed %d: operation %d differs on purpose: %s\n", r.seed, len(r.played), verdict.Expected)
	}
	return true
}

// snapshots compares what both give away.
func (r *seedRun) snapshots(ctx context.Context) bool {
	agreed, err := snapshots.Compare(ctx, r.pair.Etcd, r.pair.Detcd, r.Binaries.Etcd, r.pair.Dir())
	r.score.Passed += agreed
	if err != nil {
		r.fail("the snapshots differ: " + err.Error())
		r.save(r.played)
		return false
	}
	return true
}

// logs ends both servers and lets etcd's code read what they wrote.
func (r *seedRun) logs() {
	if err := r.pair.Stop(); err != nil {
		r.fail(err.Error())
		return
	}
	agreed, err := files.Compare(r.pair.Etcd.WALDir(), r.pair.Detcd.WALDir())
	r.score.Passed += agreed
	if err != nil {
		r.fail("the logs differ: " + err.Error())
		r.save(r.played)
		return
	}
	fmt.Fprintf(r.Out, "seed %d: %d operations (%d of them refused) and %d entries of the logs agree\n",
		r.seed, len(r.played), r.refused, agreed)
}

func (r *seedRun) fail(why string) {
	r.score.Failed++
	fmt.Fprintf(r.Out, "seed %d: DIFFERENCE\n%s\n", r.seed, indent(why))
}

// shrink looks for a smaller sequence that differs, and writes it down.
func (r *seedRun) shrink(ctx context.Context) {
	small := r.played
	if r.Shrink > 0 && ctx.Err() == nil {
		r.pair.Kill()
		bounded, cancel := context.WithTimeout(ctx, r.Shrink)
		defer cancel()
		attempts := 0
		small = shrink.Shrink(bounded, r.played, func(ctx context.Context, ops []script.Op) (int, error) {
			attempts++
			mismatch, err := pair.Replay(ctx, r.Binaries, r.Root, ops)
			if err != nil || mismatch == nil {
				return -1, err
			}
			return mismatch.At, nil
		})
		fmt.Fprintf(r.Out, "seed %d: %d operations are left of %d, after %d attempts\n", r.seed, len(small), len(r.played), attempts)
		const shown = 40
		for i, op := range small[:min(shown, len(small))] {
			fmt.Fprintf(r.Out, "  %d. %v\n", i+1, op)
		}
	}
	r.save(small)
}

func (r *seedRun) save(ops []script.Op) {
	path := filepath.Join(r.Scripts, fmt.Sprintf("mismatch-%d.json", r.seed))
	if err := os.MkdirAll(r.Scripts, 0o755); err != nil {
		fmt.Fprintln(r.Out, err)
		return
	}
	if err := script.Write(path, ops); err != nil {
		fmt.Fprintln(r.Out, err)
		return
	}
	fmt.Fprintf(r.Out, "seed %d: repeat with -replay %s\n", r.seed, path)
}

// Replay repeats a script.
func Replay(ctx context.Context, config Config, ops []script.Op) Score {
	mismatch, err := pair.Replay(ctx, config.Binaries, config.Root, ops)
	switch {
	case err != nil:
		fmt.Fprintf(config.Out, "replay: %v\n", err)
		return Score{Failed: 1}
	case mismatch != nil:
		fmt.Fprintf(config.Out, "operation %d of %d %v\n%s\n", mismatch.At+1, len(ops), ops[mismatch.At], indent(mismatch.Verdict.Why))
		return Score{Passed: mismatch.At, Failed: 1}
	}
	return Score{Passed: len(ops)}
}

// Smoke runs etcdctl and the probes against a fresh pair.
func Smoke(ctx context.Context, config Config) Score {
	p, err := pair.Start(config.Binaries, config.Root)
	if err != nil {
		fmt.Fprintf(config.Out, "etcdctl: %v\n", err)
		return Score{Failed: 1}
	}
	defer p.Remove()
	passed, differences := ctl.Smoke(ctx, config.Etcdctl, p)
	for _, difference := range differences {
		fmt.Fprintf(config.Out, "etcdctl: DIFFERENCE\n%s\n", indent(difference))
	}
	fmt.Fprintf(config.Out, "etcdctl: %d commands and probes agree\n", passed)
	return Score{Passed: passed, Failed: len(differences)}
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
