package peers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/process"
)

const patience = 20 * time.Second

// mixed is a cluster of members of both kinds.
type mixed struct {
	members []*process.Member
	clients []*clientv3.Client
	kinds   string
	puts    int
}

// together runs a cluster with an etcd for each `e` and a detcd for each `d`, lets everyone lead, and loses everyone once. It
// returns how many steps went well.
func together(ctx context.Context, binaries pair.Binaries, kinds, dir string) (steps int, err error) {
	c, err := found(binaries, kinds, dir)
	if err != nil {
		return 0, err
	}
	defer c.end()
	// This comes first: for half a minute after it sent a store, etcd keeps all entries.
	for lost := range c.members {
		leader := (lost + 1) % len(c.members)
		if kinds[lost] == 'e' && kinds[leader] == 'e' {
			continue
		}
		if err := c.leaveBehind(ctx, lost, leader); err != nil {
			return steps, fmt.Errorf("%s is left behind: %w", c.name(lost), err)
		}
		steps++
	}
	for i := range c.members {
		if err := c.lead(ctx, i); err != nil {
			return steps, fmt.Errorf("%s leads: %w", c.name(i), err)
		}
		if err := c.use(ctx); err != nil {
			return steps, fmt.Errorf("while %s leads: %w", c.name(i), err)
		}
		steps++
	}
	for i := range c.members {
		if err := c.lead(ctx, i); err != nil {
			return steps, fmt.Errorf("%s leads again: %w", c.name(i), err)
		}
		c.members[i].Kill()
		if err := c.write(ctx, (i+1)%len(c.members), 200); err != nil {
			return steps, fmt.Errorf("without %s: %w", c.name(i), err)
		}
		if err := c.start(i); err != nil {
			return steps, err
		}
		if err := c.agree(ctx); err != nil {
			return steps, fmt.Errorf("after %s came back: %w", c.name(i), err)
		}
		steps++
	}
	return steps, nil
}

// Entries beyond which a leader has no entries any more for one that is behind, and sends its store.
var kept = map[byte]int{'e': 300, 'd': 11_000}

// What a leader logs when it does.
var sending = map[byte]string{'e': "sending database snapshot", 'd': "sending a snapshot"}

// leaveBehind lets a member miss so much that the leader has to send it the store.
func (c *mixed) leaveBehind(ctx context.Context, lost, leader int) error {
	if err := c.lead(ctx, leader); err != nil {
		return err
	}
	c.members[lost].Kill()
	kind := c.kinds[leader]
	before := c.members[leader].Logged(sending[kind])
	if err := c.writeMany(ctx, leader, kept[kind]); err != nil {
		return err
	}
	if err := c.start(lost); err != nil {
		return err
	}
	if err := c.agree(ctx); err != nil {
		return err
	}
	if c.members[leader].Logged(sending[kind]) == before {
		return fmt.Errorf("%s sent no store", c.name(leader))
	}
	return c.use(ctx)
}

// writeMany writes side by side.
func (c *mixed) writeMany(ctx context.Context, by, count int) error {
	const writers = 50
	failed := make(chan error, writers)
	for writer := range writers {
		go func() {
			for i := range count / writers {
				if _, err := c.clients[by].Put(ctx, fmt.Sprint("many ", writer), fmt.Sprint(i)); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	var all []error
	for range writers {
		all = append(all, <-failed)
	}
	return errors.Join(all...)
}

func found(binaries pair.Binaries, kinds, dir string) (*mixed, error) {
	ports, err := process.Ports(len(kinds))
	if err != nil {
		return nil, err
	}
	var initial []string
	for i, port := range ports {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, port))
	}
	c := &mixed{kinds: kinds, clients: make([]*clientv3.Client, len(kinds))}
	for i, kind := range kinds {
		name, binary := "etcd", binaries.Etcd
		var flags []string
		if kind == 'd' {
			name, binary = "detcd", binaries.Detcd
		} else {
			flags = []string{"--snapshot-count", "100", "--snapshot-catchup-entries", "10"}
		}
		member := process.New(fmt.Sprintf("%s m%d", name, i), binary, filepath.Join(dir, fmt.Sprint(i)))
		member.Flags = flags
		member.Place = &process.Place{Name: fmt.Sprintf("m%d", i), Peer: ports[i], Initial: strings.Join(initial, ","), State: "new"}
		c.members = append(c.members, member)
	}
	started := make(chan error)
	for i := range c.members {
		go func() { started <- c.start(i) }()
	}
	var all []error
	for range c.members {
		all = append(all, <-started)
	}
	if err := errors.Join(all...); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (c *mixed) name(i int) string { return c.members[i].Name }

func (c *mixed) start(i int) error {
	if err := c.members[i].Start(); err != nil {
		return err
	}
	client, err := dial(c.members[i].Addr())
	if c.clients[i] != nil {
		_ = c.clients[i].Close()
	}
	c.clients[i] = client
	return err
}

func (c *mixed) end() {
	for i, member := range c.members {
		member.Kill()
		if c.clients[i] != nil {
			_ = c.clients[i].Close()
		}
	}
}

// until repeats what may fail while the cluster finds itself.
func until(ctx context.Context, what string, try func(context.Context) error) error {
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

// lead makes a member the leader.
func (c *mixed) lead(ctx context.Context, i int) error {
	return until(ctx, "move", func(ctx context.Context) error {
		status, err := c.clients[i].Status(ctx, "http://"+c.members[i].Addr())
		if err != nil || status.Leader == status.Header.MemberId {
			return err
		}
		for j := range c.members {
			of, err := c.clients[j].Status(ctx, "http://"+c.members[j].Addr())
			if err == nil && of.Leader == of.Header.MemberId {
				_, err = c.clients[j].MoveLeader(ctx, status.Header.MemberId)
				return err
			}
		}
		return errors.New("nobody leads")
	})
}

func (c *mixed) write(ctx context.Context, by, count int) error {
	return until(ctx, "write", func(ctx context.Context) error {
		for range count {
			c.puts++
			if _, err := c.clients[by].Put(ctx, fmt.Sprint("key ", c.puts%100), fmt.Sprint("value ", c.puts)); err != nil {
				return fmt.Errorf("by %s: %w", c.name(by), err)
			}
		}
		return nil
	})
}

// use writes, reads and lends by every member.
func (c *mixed) use(ctx context.Context) error {
	for i := range c.members {
		if err := c.write(ctx, i, 100); err != nil {
			return err
		}
		key := fmt.Sprint("read by ", i)
		if _, err := c.clients[(i+1)%len(c.members)].Put(ctx, key, fmt.Sprint(c.puts)); err != nil {
			return err
		}
		read, err := c.clients[i].Get(ctx, key)
		if err != nil || len(read.Kvs) != 1 || string(read.Kvs[0].Value) != fmt.Sprint(c.puts) {
			return fmt.Errorf("%s reads %v: %w", c.name(i), read, err)
		}
		lent, err := c.clients[i].Grant(ctx, 100)
		if err != nil {
			return err
		}
		for j := range c.members {
			renewed, err := c.clients[j].KeepAliveOnce(ctx, lent.ID)
			if err != nil || renewed.TTL != 100 {
				return fmt.Errorf("%s renews what %s lent: %v: %w", c.name(j), c.name(i), renewed, err)
			}
			seen, err := c.clients[j].TimeToLive(ctx, lent.ID, clientv3.WithAttachedKeys())
			if err != nil || seen.GrantedTTL != 100 || seen.TTL < 90 {
				return fmt.Errorf("%s looks at what %s lent: %v: %w", c.name(j), c.name(i), seen, err)
			}
		}
	}
	return c.agree(ctx)
}

// agree waits until everyone has applied the same, and compares the hashes.
func (c *mixed) agree(ctx context.Context) error {
	return until(ctx, "agree", func(ctx context.Context) error {
		var first *clientv3.HashKVResponse
		for i, client := range c.clients {
			hash, err := client.HashKV(ctx, "http://"+c.members[i].Addr(), 0)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name(i), err)
			}
			if first == nil {
				first = hash
			}
			if hash.Hash != first.Hash || hash.HashRevision != first.HashRevision || hash.CompactRevision != first.CompactRevision {
				return fmt.Errorf("%s has %v, %s has %v", c.name(0), first, c.name(i), hash)
			}
		}
		return nil
	})
}
