// Package pair runs the real etcd and detcd side by side through one sequence of operations.
//
// The first difference ends a run: what follows it would be its echo.
package pair

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"detcd.io/conformance/internal/compare"
	"detcd.io/conformance/internal/process"
	"detcd.io/conformance/internal/script"
)

// Binaries are the two servers to compare.
type Binaries struct{ Etcd, Detcd string }

// Pair is one member of each kind, started with empty data directories.
type Pair struct {
	Etcd, Detcd *process.Member

	dir      string
	sessions []*compare.Session
}

// Start starts both under a new directory inside root.
func Start(binaries Binaries, root string) (*Pair, error) {
	dir, err := os.MkdirTemp(root, "pair-")
	if err != nil {
		return nil, err
	}
	p := &Pair{
		Etcd:  process.New("etcd", binaries.Etcd, filepath.Join(dir, "etcd")),
		Detcd: process.New("detcd", binaries.Detcd, filepath.Join(dir, "detcd")),
		dir:   dir,
	}
	if err := p.start(); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Dir holds both data directories and logs.
func (p *Pair) Dir() string { return p.dir }

// Remove deletes all that the pair wrote.
func (p *Pair) Remove() {
	p.Kill()
	_ = os.RemoveAll(p.dir)
}

func (p *Pair) start() error {
	failed := make(chan error)
	for _, member := range p.members() {
		go func() { failed <- member.Start() }()
	}
	if err := errors.Join(<-failed, <-failed); err != nil {
		return err
	}
	for _, member := range p.members() {
		session, err := compare.Dial(member.Addr())
		if err != nil {
			return err
		}
		p.sessions = append(p.sessions, session)
	}
	return nil
}

func (p *Pair) members() []*process.Member { return []*process.Member{p.Etcd, p.Detcd} }

func (p *Pair) disconnect() {
	for _, session := range p.sessions {
		session.Close()
	}
	p.sessions = nil
}

// Kill ends both at once, as a crash would.
func (p *Pair) Kill() {
	p.disconnect()
	for _, member := range p.members() {
		member.Kill()
	}
}

// Stop ends both by SIGTERM and compares how they end.
func (p *Pair) Stop() error {
	p.disconnect()
	theirs, err := p.Etcd.Stop()
	ours, oursErr := p.Detcd.Stop()
	if err := errors.Join(err, oursErr); err != nil {
		return err
	}
	if theirs != ours {
		return fmt.Errorf("after SIGTERM etcd ends with %q, detcd with %q", theirs, ours)
	}
	return nil
}

// Do gives both the operation. A server that does not come back is a difference like any other.
func (p *Pair) Do(ctx context.Context, op script.Op) compare.Verdict {
	var err error
	switch op.Kind {
	case script.Kill:
		p.Kill()
		err = p.start()
	case script.Stop:
		if err = p.Stop(); err == nil {
			err = p.start()
		}
	default:
		verdict := compare.Run(ctx, p.sessions[0], p.sessions[1], op)
		if verdict.Differs() {
			verdict.Why += p.dead()
		}
		return verdict
	}
	if err != nil {
		return compare.Verdict{Why: err.Error()}
	}
	return compare.Verdict{}
}

// dead tells of a member that is gone: then the difference is its crash.
func (p *Pair) dead() string {
	var out string
	for _, member := range p.members() {
		if !member.Running() {
			out += "\n" + member.Name + " is gone\n" + member.Tail()
		}
	}
	return out
}

// Mismatch is the first difference of a run.
type Mismatch struct {
	At      int // position of the operation that shows it
	Verdict compare.Verdict
}

// Replay runs the operations from the start and returns the first difference, or nil.
func Replay(ctx context.Context, binaries Binaries, root string, ops []script.Op) (*Mismatch, error) {
	p, err := Start(binaries, root)
	if err != nil {
		return nil, err
	}
	defer p.Remove()
	for i, op := range ops {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		verdict := p.Do(ctx, op)
		if verdict.Differs() && ctx.Err() == nil {
			return &Mismatch{At: i, Verdict: verdict}, nil
		}
	}
	return nil, ctx.Err()
}
