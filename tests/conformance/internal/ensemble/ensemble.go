// Package ensemble runs members of both kinds in one cluster.
package ensemble

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/process"
)

const patience = 30 * time.Second

// Kind says what a member is.
type Kind byte

// The kinds, as the text of a cluster has them: "edd" is one etcd and two detcd.
const (
	Etcd  Kind = 'e'
	Detcd Kind = 'd'
)

// Member is one member and a client of it.
type Member struct {
	*process.Member
	Kind   Kind
	Client *clientv3.Client
}

// Cluster is the members that are in it now.
type Cluster struct {
	Members []*Member

	binaries pair.Binaries
	dir      string
	made     int
}

// Found starts a new cluster with an etcd for each `e` and a detcd for each `d`, all with these flags.
func Found(binaries pair.Binaries, kinds, dir string, flags ...string) (*Cluster, error) {
	c := &Cluster{binaries: binaries, dir: dir}
	for _, kind := range kinds {
		if _, err := c.member(Kind(kind)); err != nil {
			return nil, err
		}
	}
	initial := c.initial()
	started := make(chan error)
	for _, member := range c.Members {
		member.Place.Initial, member.Place.State = initial, "new"
		member.Flags = flags
		go func() { started <- member.Restart() }()
	}
	var all []error
	for range c.Members {
		all = append(all, <-started)
	}
	if err := errors.Join(all...); err != nil {
		c.End()
		return nil, err
	}
	return c, nil
}

// member makes one that is not started.
func (c *Cluster) member(kind Kind) (*Member, error) {
	ports, err := process.Ports(1)
	if err != nil {
		return nil, err
	}
	name, binary := c.program(kind)
	id := fmt.Sprintf("m%d", c.made)
	c.made++
	member := &Member{Member: process.New(name+" "+id, binary, filepath.Join(c.dir, id)), Kind: kind}
	member.Place = &process.Place{Name: id, Peer: ports[0]}
	c.Members = append(c.Members, member)
	return member, nil
}

func (c *Cluster) program(kind Kind) (name, binary string) {
	if kind == Detcd {
		return "detcd", c.binaries.Detcd
	}
	return "etcd", c.binaries.Etcd
}

func (c *Cluster) initial() string {
	var all []string
	for _, member := range c.Members {
		all = append(all, fmt.Sprintf("%s=http://%s", member.Place.Name, member.Place.Peer))
	}
	return strings.Join(all, ",")
}

// Restart starts the member (again) and connects to it.
func (m *Member) Restart() error {
	if err := m.Start(); err != nil {
		return err
	}
	if m.Client != nil {
		_ = m.Client.Close()
	}
	var err error
	m.Client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{"http://" + m.Addr()}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	return err
}

// Status is what the member says of itself.
func (m *Member) Status(ctx context.Context) (*clientv3.StatusResponse, error) {
	return m.Client.Status(ctx, "http://"+m.Addr())
}

// End kills everyone.
func (c *Cluster) End() {
	for _, member := range c.Members {
		member.Kill()
		if member.Client != nil {
			_ = member.Client.Close()
		}
	}
}

// Until repeats what may fail while the cluster finds itself.
func Until(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := try(attempt)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Leader returns the running member that says that it leads.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	for _, member := range c.Members {
		if !member.Running() {
			continue
		}
		status, err := member.Status(ctx)
		if err == nil && status.Leader == status.Header.MemberId {
			return member, nil
		}
	}
	return nil, errors.New("nobody leads")
}

// Lead makes a member the leader.
func (c *Cluster) Lead(ctx context.Context, next *Member) error {
	return Until(ctx, "move", func(ctx context.Context) error {
		status, err := next.Status(ctx)
		if err != nil || status.Leader == status.Header.MemberId {
			return err
		}
		leader, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		if _, err := leader.Client.MoveLeader(ctx, status.Header.MemberId); err != nil {
			return err
		}
		return errors.New("not seen yet")
	})
}

// Settle waits until everyone who runs follows one leader and reads through it.
func (c *Cluster) Settle(ctx context.Context) error {
	return Until(ctx, "settle", func(ctx context.Context) error {
		leader, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		first, err := leader.Status(ctx)
		if err != nil {
			return err
		}
		for _, member := range c.Members {
			if !member.Running() {
				continue
			}
			if _, err := member.Client.Get(ctx, "settled"); err != nil {
				return fmt.Errorf("%s: %w", member.Name, err)
			}
			status, err := member.Status(ctx)
			if err != nil {
				return err
			}
			if status.Leader != first.Leader || status.RaftTerm != first.RaftTerm {
				return fmt.Errorf("%s follows %x in %d, %s leads in %d", member.Name, status.Leader, status.RaftTerm, leader.Name, first.RaftTerm)
			}
		}
		return nil
	})
}

// Agree waits until everyone has applied the same, and compares hashes and membership.
func (c *Cluster) Agree(ctx context.Context) error {
	return Until(ctx, "agree", func(ctx context.Context) error {
		var first *clientv3.HashKVResponse
		var members, by string
		for _, member := range c.Members {
			if !member.Running() {
				continue
			}
			hash, err := member.Client.HashKV(ctx, "http://"+member.Addr(), 0)
			if err != nil {
				return fmt.Errorf("%s: %w", member.Name, err)
			}
			listed, err := member.Client.MemberList(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", member.Name, err)
			}
			list := fmt.Sprint(listed.Members)
			if first == nil {
				first, members, by = hash, list, member.Name
			}
			if hash.Hash != first.Hash || hash.HashRevision != first.HashRevision || hash.CompactRevision != first.CompactRevision {
				return fmt.Errorf("%s has %v, %s has %v", by, first, member.Name, hash)
			}
			if list != members {
				return fmt.Errorf("%s lists %s, %s lists %s", by, members, member.Name, list)
			}
		}
		return nil
	})
}

// Join adds a member by way of another and waits until it serves; as a learner first, if asked to.
func (c *Cluster) Join(ctx context.Context, by *Member, kind Kind, isLearner bool) (*Member, error) {
	joining, err := c.member(kind)
	if err != nil {
		return nil, err
	}
	urls := []string{"http://" + joining.Place.Peer}
	var id uint64
	err = Until(ctx, "add "+joining.Name, func(ctx context.Context) error {
		add := by.Client.MemberAdd
		if isLearner {
			add = by.Client.MemberAddAsLearner
		}
		added, err := add(ctx, urls)
		if err == nil {
			id = added.Member.ID
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	joining.Place.Initial, joining.Place.State = c.initial(), "existing"
	if !isLearner {
		return joining, joining.Restart()
	}
	// A learner is not healthy by etcd's own measure: it is promoted while its start waits for that.
	started := make(chan error, 1)
	go func() { started <- joining.Restart() }()
	err = Until(ctx, "promote "+joining.Name, func(ctx context.Context) error {
		_, err := by.Client.MemberPromote(ctx, id)
		return err
	})
	return joining, errors.Join(err, <-started)
}

// Exchange lets a program of another kind go on in the place of a stopped member, on the directory that it left.
func (c *Cluster) Exchange(member *Member, kind Kind, dataDir string) error {
	name, binary := c.program(kind)
	member.Kind = kind
	member.Become(name+" "+member.Place.Name, binary, dataDir)
	return member.Restart()
}

// Remove takes a member out by way of another; it must end by itself.
func (c *Cluster) Remove(ctx context.Context, by, gone *Member) error {
	status, err := gone.Status(ctx)
	if err != nil {
		return err
	}
	err = Until(ctx, "remove "+gone.Name, func(ctx context.Context) error {
		_, err := by.Client.MemberRemove(ctx, status.Header.MemberId)
		return err
	})
	if err != nil {
		return err
	}
	var left []*Member
	for _, member := range c.Members {
		if member != gone {
			left = append(left, member)
		}
	}
	c.Members = left
	how, err := gone.Ended()
	if err != nil || how != "exit status 0" {
		gone.Kill()
		return fmt.Errorf("%s was removed and ended with %q: %w\n%s", gone.Name, how, err, gone.Tail())
	}
	return gone.Client.Close()
}
