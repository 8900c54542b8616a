package mixed

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"detcd.io/conformance/internal/ensemble"
)

// story is one way of being a cluster of both kinds.
type story struct {
	name     string
	founders string
	play     func(context.Context, *play) error
}

var stories = []story{
	{"founded-by-two-etcd-and-one-detcd", "eed", founded},
	{"founded-by-one-etcd-and-two-detcd", "edd", founded},
	{"detcd-joins-etcd", "e", func(ctx context.Context, p *play) error { return takeOver(ctx, p, ensemble.Detcd, etcdKeeps) }},
	{"etcd-joins-detcd", "d", func(ctx context.Context, p *play) error { return takeOver(ctx, p, ensemble.Etcd, detcdKeeps) }},
	{"exchanged-in-place", "eee", exchanged},
}

// Entries that a leader may keep for members that are behind; with more, a new one needs a snapshot.
const (
	etcdKeeps  = 5_000 + 200
	detcdKeeps = 10_000 + 200
)

// founded lets everybody lead, and kills everybody once in each role.
func founded(ctx context.Context, p *play) error {
	rounds := 2 * len(p.Members)
	for round := range rounds {
		member := p.Members[round%len(p.Members)]
		if err := p.lead(ctx, member, p.config.Ops/(2*rounds)); err != nil {
			return err
		}
		lost := member // the leader, and later one that follows it
		if round >= len(p.Members) {
			lost = p.Members[(round+1)%len(p.Members)]
		}
		if err := p.without(ctx, lost, p.config.Ops/(2*rounds)); err != nil {
			return err
		}
	}
	return p.sweep(ctx)
}

// exchanged turns one etcd after the other into detcd, on the directory that it left when it was stopped or killed, and one of them back
// into etcd by an export.
func exchanged(ctx context.Context, p *play) error {
	share := p.config.Ops / 6
	if err := p.operate(ctx, share); err != nil {
		return err
	}
	for i, member := range p.Members {
		if err := p.lead(ctx, p.Members[(i+1)%len(p.Members)], share/2); err != nil {
			return err
		}
		if err := p.exchange(ctx, member, ensemble.Detcd, i == 1, member.DataDir()); err != nil {
			return err
		}
		if err := p.lead(ctx, member, share/2); err != nil {
			return err
		}
	}
	if _, err := p.join(ctx, p.Members[0], ensemble.Etcd, true); err != nil {
		return err
	}
	back := p.Members[0]
	exported := back.DataDir() + "-exported"
	export := func() error {
		tool := filepath.Join(filepath.Dir(p.config.Binaries.Detcd), "detcdutl")
		out, err := exec.CommandContext(ctx, tool, "export", "--data-dir", back.DataDir(), "--output-dir", exported).CombinedOutput()
		if err != nil {
			return fmt.Errorf("export: %w\n%s", err, out)
		}
		return nil
	}
	if err := p.exchangeAfter(ctx, back, ensemble.Etcd, true, exported, export); err != nil {
		return err
	}
	if err := p.lead(ctx, back, share); err != nil {
		return err
	}
	return p.sweep(ctx)
}

func (p *play) exchange(ctx context.Context, member *ensemble.Member, kind ensemble.Kind, isKilled bool, dataDir string) error {
	return p.exchangeAfter(ctx, member, kind, isKilled, dataDir, func() error { return nil })
}

// exchangeAfter ends a member, goes on without it, and lets the other kind take its place on a directory that was made ready.
func (p *play) exchangeAfter(
	ctx context.Context, member *ensemble.Member, kind ensemble.Kind, isKilled bool, dataDir string, ready func() error,
) error {
	p.note("%s ends, killed: %v", member.Name, isKilled)
	p.forget(member)
	if isKilled {
		member.Kill()
	} else if _, err := member.Stop(); err != nil {
		return err
	}
	if err := p.Settle(ctx); err != nil {
		return fmt.Errorf("without %s: %w", member.Name, err)
	}
	if err := p.operate(ctx, p.config.Ops/20); err != nil {
		return fmt.Errorf("without %s: %w", member.Name, err)
	}
	if err := ready(); err != nil {
		return err
	}
	if err := p.Exchange(member, kind, dataDir); err != nil {
		return err
	}
	p.note("%s takes its place", member.Name)
	if err := p.Settle(ctx); err != nil {
		return err
	}
	p.passed++
	return p.Agree(ctx)
}

// takeOver lets members of another kind join, first by a snapshot and then as a learner, and removes the one that was there first.
func takeOver(ctx context.Context, p *play, kind ensemble.Kind, keeps int) error {
	first, share := p.Members[0], p.config.Ops/7
	if err := p.operate(ctx, share); err != nil {
		return err
	}
	if err := p.fill(ctx, first, keeps); err != nil {
		return err
	}
	second, err := p.join(ctx, first, kind, false)
	if err != nil {
		return err
	}
	if err := sentSnapshot(ctx, second); err != nil {
		return err
	}
	if err := p.operate(ctx, share); err != nil {
		return err
	}
	for _, leader := range []*ensemble.Member{second, first} {
		if err := p.lead(ctx, leader, share); err != nil {
			return err
		}
	}
	third, err := p.join(ctx, second, kind, true)
	if err != nil {
		return err
	}
	if err := p.without(ctx, second, share); err != nil {
		return err
	}
	if err := p.sweep(ctx); err != nil {
		return err
	}
	p.forget(first)
	if err := p.Remove(ctx, third, first); err != nil {
		return err
	}
	if err := p.sweep(ctx); err != nil {
		return err
	}
	return p.lead(ctx, third, share)
}

func (p *play) note(format string, values ...any) {
	p.done = append(p.done, "  -- "+fmt.Sprintf(format, values...)+"\n")
}

func (p *play) lead(ctx context.Context, leader *ensemble.Member, ops int) error {
	p.note("%s leads", leader.Name)
	if err := p.Lead(ctx, leader); err != nil {
		return fmt.Errorf("%s leads: %w", leader.Name, err)
	}
	if err := p.Settle(ctx); err != nil {
		return err
	}
	return p.operate(ctx, ops)
}

// without kills a member, goes on, and starts it again.
func (p *play) without(ctx context.Context, lost *ensemble.Member, ops int) error {
	p.note("%s is killed", lost.Name)
	p.forget(lost)
	lost.Kill()
	if err := p.Settle(ctx); err != nil {
		return fmt.Errorf("without %s: %w", lost.Name, err)
	}
	if err := p.operate(ctx, ops); err != nil {
		return fmt.Errorf("without %s: %w", lost.Name, err)
	}
	if err := lost.Restart(); err != nil {
		return err
	}
	p.note("%s is back", lost.Name)
	if err := p.Settle(ctx); err != nil {
		return err
	}
	p.passed++
	return p.Agree(ctx)
}

func (p *play) join(ctx context.Context, by *ensemble.Member, kind ensemble.Kind, isLearner bool) (*ensemble.Member, error) {
	joined, err := p.Join(ctx, by, kind, isLearner)
	if err != nil {
		return nil, err
	}
	p.note("%s joined", joined.Name)
	if err := p.Settle(ctx); err != nil {
		return nil, err
	}
	p.passed++
	return joined, p.Agree(ctx)
}

// fill makes log entries that change nothing: transactions whose comparison fails.
func (p *play) fill(ctx context.Context, by *ensemble.Member, count int) error {
	const at = 200
	never := clientv3.Compare(clientv3.Version("never there"), ">", 0)
	errs := make([]error, at)
	var all sync.WaitGroup
	for i := range at {
		all.Go(func() {
			for range count/at + 1 {
				_, err := by.Client.Txn(ctx).If(never).Then(clientv3.OpPut("never there", "")).Commit()
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sentSnapshot makes sure that a member got its store from another one, as its log tells.
func sentSnapshot(_ context.Context, member *ensemble.Member) error {
	line := "applied snapshot"
	if member.Kind == ensemble.Detcd {
		line = "starting again on the store that a leader sent"
	}
	if !strings.Contains(member.Log(), line) {
		return fmt.Errorf("%s joined without a snapshot\n%s", member.Name, member.Tail())
	}
	return nil
}
