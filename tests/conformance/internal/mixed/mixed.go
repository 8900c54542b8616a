// Package mixed gives one sequence of operations to a single real etcd and to a cluster of both kinds, and compares every answer.
//
// Operations come one after the other, each through any member of the cluster, so a cluster that keeps its promises
// answers as one member does. Between them leaders move, members are killed, stopped for good, added and removed.
package mixed

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"detcd.io/conformance/internal/compare"
	"detcd.io/conformance/internal/ensemble"
	"detcd.io/conformance/internal/generate"
	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/process"
	"detcd.io/conformance/internal/script"
)

// Config says what to run.
type Config struct {
	Binaries pair.Binaries
	Root     string
	Seed     uint64
	Ops      int // of each story
	Only     string
	Out      io.Writer
}

// Run plays all stories and returns how many operations and checks agreed.
func Run(ctx context.Context, config Config) (passed int, differences []string) {
	for _, story := range stories {
		if config.Only != "" && config.Only != story.name {
			continue
		}
		began := time.Now()
		p, err := begin(config, story)
		if err == nil {
			err = story.play(ctx, p)
			passed += p.passed
			if err != nil {
				err = fmt.Errorf("%w\nthe last operations:\n%s%s", err, p.recent(), p.tails())
			}
			p.end()
		}
		if err != nil {
			differences = append(differences, fmt.Sprintf("%s, seed %d: %v", story.name, config.Seed, err))
		}
		fmt.Fprintf(config.Out, "mixed: %s: %d operations and checks agree, %v\n", story.name, p.passed, time.Since(began).Round(time.Second))
	}
	return passed, differences
}

// play is one run of a story.
type play struct {
	*ensemble.Cluster
	config Config

	single    *process.Member
	reference *compare.Session
	sessions  map[*ensemble.Member]*compare.Session
	generator *generate.Generator
	rng       *rand.Rand
	revision  int64
	passed    int
	done      []string
	sticky    *ensemble.Member // who is asked next, too
	stickyFor int
}

func begin(config Config, story story) (*play, error) {
	dir := filepath.Join(config.Root, story.name)
	p := &play{
		config:    config,
		single:    process.New("etcd alone", config.Binaries.Etcd, filepath.Join(dir, "alone")),
		sessions:  map[*ensemble.Member]*compare.Session{},
		generator: generate.New(config.Seed),
		rng:       rand.New(rand.NewPCG(config.Seed, 0x6d69786564)),
		revision:  1,
	}
	var err error
	if p.Cluster, err = ensemble.Found(config.Binaries, story.founders, dir); err != nil {
		return p, err
	}
	if err = p.single.Start(); err == nil {
		p.reference, err = compare.Dial(p.single.Addr())
	}
	if err != nil {
		p.end()
	}
	return p, err
}

func (p *play) end() {
	for _, session := range p.sessions {
		session.Close()
	}
	if p.reference != nil {
		p.reference.Close()
	}
	p.single.Kill()
	p.End()
}

// session is the connection to a member, made anew after each start.
func (p *play) session(member *ensemble.Member) (*compare.Session, error) {
	if session := p.sessions[member]; session != nil {
		return session, nil
	}
	session, err := compare.Dial(member.Addr())
	p.sessions[member] = session
	return session, err
}

func (p *play) forget(member *ensemble.Member) {
	if session := p.sessions[member]; session != nil {
		session.Close()
		delete(p.sessions, member)
	}
}

// isShared says whether an operation means the same to a member of a cluster as to one that is alone.
func isShared(op script.Op) bool {
	switch op.Kind {
	case script.MemberList, script.Status, script.Watch, script.Kill, script.Stop:
		return false
	}
	return true
}

// operate gives the next operations to both, each through a member that is drawn.
func (p *play) operate(ctx context.Context, count int) error {
	for range count {
		op := p.generator.Next(p.revision)
		for !isShared(op) {
			op = p.generator.Next(p.revision)
		}
		if err := p.do(ctx, op, p.anyone()); err != nil {
			return err
		}
	}
	return nil
}

// anyone draws a running member. Who compacted is asked for the hashes that follow.
func (p *play) anyone() *ensemble.Member {
	if p.stickyFor > 0 && p.sticky.Running() {
		p.stickyFor--
		return p.sticky
	}
	for {
		if member := p.Members[p.rng.IntN(len(p.Members))]; member.Running() {
			return member
		}
	}
}

func (p *play) do(ctx context.Context, op script.Op, by *ensemble.Member) error {
	session, err := p.session(by)
	if err != nil {
		return err
	}
	p.done = append(p.done, fmt.Sprintf("  by %s: %v\n", by.Name, op))
	// What a member answers from its own state is to be the newest.
	caughtUp := script.Op{Kind: script.Range, Via: script.Stub, Request: &pb.RangeRequest{Key: []byte("caught up"), CountOnly: true}}
	if answer := session.Call(ctx, caughtUp); answer.Failed() {
		return fmt.Errorf("%s does not read: %v %s", by.Name, answer.Code, answer.Text)
	}
	verdict := compare.RunElsewhere(ctx, p.reference, session, op)
	// A hash depends on how far a compaction has come.
	for began := time.Now(); verdict.Differs() && op.Kind == script.HashKV && time.Since(began) < 5*time.Second; {
		time.Sleep(50 * time.Millisecond)
		verdict = compare.RunElsewhere(ctx, p.reference, session, op)
	}
	if verdict.Differs() {
		return fmt.Errorf("by %s (the second of the two below): %v\n%s", by.Name, op, verdict.Why)
	}
	if op.Kind == script.Compact {
		p.sticky, p.stickyFor = by, 2
	}
	p.revision = max(p.revision, verdict.Revision)
	p.passed++
	return nil
}

// sweep compares all that is stored, through everyone, and everyone with everyone.
func (p *play) sweep(ctx context.Context) error {
	if err := p.Settle(ctx); err != nil {
		return err
	}
	if err := p.Agree(ctx); err != nil {
		return err
	}
	for _, member := range p.Members {
		if !member.Running() {
			continue
		}
		for _, op := range generate.Sweep(p.revision) {
			if !isShared(op) {
				continue
			}
			if err := p.do(ctx, op, member); err != nil {
				return err
			}
		}
	}
	p.passed++
	return nil
}

const recentMax = 12

func (p *play) recent() string {
	return strings.Join(p.done[max(0, len(p.done)-recentMax):], "")
}

func (p *play) tails() string {
	var out strings.Builder
	for _, member := range p.Members {
		out.WriteString(member.Tail() + "\n")
	}
	return out.String()
}
