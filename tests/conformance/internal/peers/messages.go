// Package peers makes and judges what members of etcd say to each other.
package peers

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// said is one message as etcd's raft library made it, in the bytes that travel.
type said struct {
	message *pb.Message
	bytes   []byte
}

// cluster is etcd's raft library without a network: messages go where they are let.
type cluster struct {
	nodes    map[uint64]*raft.RawNode
	storages map[uint64]*raft.MemoryStorage
	cut      map[uint64]bool
	said     []said
}

func newCluster(ids ...uint64) (*cluster, error) {
	c := &cluster{nodes: map[uint64]*raft.RawNode{}, storages: map[uint64]*raft.MemoryStorage{}, cut: map[uint64]bool{}}
	for _, id := range ids {
		storage := raft.NewMemoryStorage()
		start := &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
			Index: proto.Uint64(1), Term: proto.Uint64(1), ConfState: &pb.ConfState{Voters: ids},
		}}
		if err := storage.ApplySnapshot(start); err != nil {
			return nil, err
		}
		node, err := raft.NewRawNode(&raft.Config{
			ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, MaxSizePerMsg: 1 << 20,
			MaxInflightMsgs: 512, CheckQuorum: true, PreVote: true, Logger: quiet{},
		})
		if err != nil {
			return nil, err
		}
		c.nodes[id], c.storages[id] = node, storage
	}
	return c, nil
}

// settle works until nobody has anything to do.
func (c *cluster) settle() error {
	for busy := true; busy; {
		busy = false
		for id := uint64(1); id <= uint64(len(c.nodes)); id++ {
			for c.nodes[id].HasReady() {
				busy = true
				if err := c.work(id); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *cluster) work(id uint64) error {
	node, storage := c.nodes[id], c.storages[id]
	ready := node.Ready()
	if ready.HardState != nil && !raft.IsEmptyHardState(ready.HardState) {
		if err := storage.SetHardState(ready.HardState); err != nil {
			return err
		}
	}
	if ready.Snapshot != nil && !raft.IsEmptySnap(ready.Snapshot) {
		if err := storage.ApplySnapshot(ready.Snapshot); err != nil {
			return err
		}
	}
	if err := storage.Append(ready.Entries); err != nil {
		return err
	}
	for _, entry := range ready.CommittedEntries {
		if entry.GetType() != pb.EntryConfChange {
			continue
		}
		var change pb.ConfChange
		if err := proto.Unmarshal(entry.GetData(), &change); err != nil {
			return err
		}
		node.ApplyConfChange(&change)
	}
	messages := ready.Messages
	node.Advance(ready)
	for _, message := range messages {
		text, err := proto.Marshal(message)
		if err != nil {
			return err
		}
		c.said = append(c.said, said{message, text})
		if c.cut[message.GetFrom()] || c.cut[message.GetTo()] {
			continue
		}
		var arrived pb.Message
		if err := proto.Unmarshal(text, &arrived); err != nil {
			return err
		}
		// Refusals, such as a dropped proposal, are no failure of the network.
		_ = c.nodes[message.GetTo()].Step(&arrived)
		if message.GetType() == pb.MsgSnap {
			node.ReportSnapshot(message.GetTo(), raft.SnapshotFinish)
		}
	}
	return nil
}

func (c *cluster) tick(id uint64, times int) error {
	for range times {
		c.nodes[id].Tick()
		if err := c.settle(); err != nil {
			return err
		}
	}
	return nil
}

// conversation lets three members say everything that members of etcd say.
func conversation() ([]said, error) {
	c, err := newCluster(1, 2, 3)
	if err != nil {
		return nil, err
	}
	change := func(kind pb.ConfChangeType, node uint64, context string) *pb.ConfChange {
		return &pb.ConfChange{Type: kind.Enum(), NodeId: proto.Uint64(node), Id: proto.Uint64(77), Context: []byte(context)}
	}
	steps := []func() error{
		func() error { return c.nodes[1].Campaign() },
		func() error { return c.nodes[1].Propose([]byte("first")) },
		func() error { return c.nodes[2].Propose([]byte("passed on")) },
		func() error { return c.nodes[1].Propose(bytes.Repeat([]byte("long"), 500)) },
		func() error { c.nodes[1].ReadIndex([]byte{0, 0, 0, 0, 0, 0, 0, 1}); return nil },
		func() error { c.nodes[2].ReadIndex([]byte{1, 2, 3, 4, 5, 6, 7, 8}); return nil },
		func() error { return c.tick(1, 1) },
		// A change of the configuration, proposed by a follower.
		func() error {
			return c.nodes[3].ProposeConfChange(change(pb.ConfChangeUpdateNode, 3, `{"id":3,"peerURLs":["http://h:1"]}`))
		},
		func() error { return c.tick(1, 2) },
		// The third falls behind, but not so far that it needs a snapshot.
		func() error { c.cut[3] = true; return c.nodes[1].Propose([]byte("missed")) },
		func() error { return c.nodes[1].Propose([]byte("missed too")) },
		func() error { c.nodes[1].ReportUnreachable(3); c.cut[3] = false; return c.tick(1, 2) },
		// It stands for election while it is behind: refused, first in advance and then by lease.
		func() error { c.cut[3] = true; return c.nodes[1].Propose([]byte("missed again")) },
		func() error { return c.tick(3, 25) },
		func() error { c.cut[3] = false; return c.tick(1, 3) },
		func() error { c.nodes[2].ReportUnreachable(1); c.nodes[1].TransferLeader(2); return nil },
		func() error { return c.tick(2, 2) },
		// Now so far behind that its entries are gone.
		func() error { c.cut[3] = true; return c.nodes[2].Propose([]byte("lost")) },
		func() error { return c.nodes[2].Propose([]byte("lost too")) },
		func() error { return c.compact(2) },
		func() error { c.nodes[2].ReportUnreachable(3); c.cut[3] = false; return c.tick(2, 4) },
		func() error { return c.nodes[2].Propose([]byte("after the snapshot")) },
		// A deposed leader is told the newer term.
		func() error { c.cut[2] = true; return c.nodes[2].Propose([]byte("alone")) },
		func() error { return c.tick(1, 40) },
		func() error { c.cut[2] = false; return c.tick(2, 1) },
		func() error { return c.tick(1, 3) },
		func() error { return c.tick(3, 3) },
		// Nobody hears anybody for a while; then one that is behind asks first, and is refused for its log.
		func() error {
			c.cut = map[uint64]bool{1: true, 2: true, 3: true}
			return c.nodes[2].Propose([]byte("only for the second"))
		},
		func() error { return errors.Join(c.tick(1, 30), c.tick(2, 30), c.tick(3, 30)) },
		func() error { c.cut = map[uint64]bool{}; return c.tick(3, 25) },
		func() error {
			return c.nodes[1].Step(&pb.Message{
				Type: pb.MsgVote.Enum(), From: proto.Uint64(2), To: proto.Uint64(1),
				Term: proto.Uint64(c.nodes[1].Status().GetTerm() + 1), LogTerm: proto.Uint64(1), Index: proto.Uint64(1),
				Context: []byte("CampaignTransfer"),
			})
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
		if err := c.settle(); err != nil {
			return nil, fmt.Errorf("after step %d: %w", i, err)
		}
	}
	return c.said, nil
}

func (c *cluster) compact(id uint64) error {
	storage, applied := c.storages[id], c.nodes[id].Status().Applied
	data := []byte(`{"Root":{}}`)
	if _, err := storage.CreateSnapshot(applied, &pb.ConfState{Voters: []uint64{1, 2, 3}, AutoLeave: proto.Bool(false)}, data); err != nil {
		return err
	}
	return storage.Compact(applied)
}

// quiet is a log that nobody reads; what ends a member ends here as well.
type quiet struct{}

func (quiet) Debug(...any)            {}
func (quiet) Debugf(string, ...any)   {}
func (quiet) Info(...any)             {}
func (quiet) Infof(string, ...any)    {}
func (quiet) Warning(...any)          {}
func (quiet) Warningf(string, ...any) {}
func (quiet) Error(...any)            {}
func (quiet) Errorf(string, ...any)   {}

func (quiet) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (quiet) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (quiet) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (quiet) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
