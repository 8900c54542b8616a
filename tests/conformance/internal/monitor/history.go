package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"detcd.io/conformance/internal/process"
)

// history is one client that does the same to each server.
type history struct {
	member *process.Member
	client *clientv3.Client
	cancel context.CancelFunc
}

var alarms = []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT}

const playWithin = 30 * time.Second

func newHistory(member *process.Member) *history { return &history{member: member} }

func (h *history) close() {
	if h.cancel != nil {
		h.cancel()
	}
	if h.client != nil {
		_ = h.client.Close()
	}
}

// play writes, reads, watches, leases and looks after the store. Its watchers stay open.
func (h *history) play(ctx context.Context) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"http://" + h.member.Addr()}, DialTimeout: playWithin, Logger: zap.NewNop(),
	})
	if err != nil {
		return err
	}
	h.client = client
	watching, cancel := context.WithCancel(ctx)
	h.cancel = cancel
	watched := client.Watch(watching, "a", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	other := client.Watch(watching, "other", clientv3.WithCreatedNotify())
	<-watched
	<-other
	ctx, done := context.WithTimeout(ctx, playWithin)
	defer done()
	for _, part := range []func(context.Context) error{h.write, h.lease, h.upkeep} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return drain(ctx, watched, 11)
}

// drain takes events until there were so many.
func drain(ctx context.Context, watched clientv3.WatchChan, events int) error {
	for events > 0 {
		select {
		case response := <-watched:
			if err := response.Err(); err != nil {
				return err
			}
			events -= len(response.Events)
		case <-ctx.Done():
			return fmt.Errorf("%d events never came", events)
		}
	}
	return nil
}

func (h *history) write(ctx context.Context) error {
	c := h.client
	for i := range 5 {
		if _, err := c.Put(ctx, fmt.Sprintf("a%d", i), "value"); err != nil {
			return err
		}
	}
	_, putErr := c.Put(ctx, "a0", "newer", clientv3.WithPrevKV())
	_, emptyErr := c.Put(ctx, "", "x")
	_, keepErr := c.Put(ctx, "nothing", "", clientv3.WithIgnoreValue())
	_, getErr := c.Get(ctx, "a", clientv3.WithPrefix())
	_, localErr := c.Get(ctx, "a0", clientv3.WithSerializable())
	_, futureErr := c.Get(ctx, "a0", clientv3.WithRev(999))
	_, deleteErr := c.Delete(ctx, "a1", clientv3.WithPrevKV())
	_, missingErr := c.Delete(ctx, "nothing")
	_, txnErr := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("a0"), "=", "newer")).
		Then(clientv3.OpPut("a6", "6"), clientv3.OpPut("a7", "7"), clientv3.OpGet("a2"), clientv3.OpDelete("a2")).Commit()
	_, oneErr := c.Txn(ctx).Then(clientv3.OpPut("a8", "8")).Commit()
	_, readErr := c.Txn(ctx).Then(clientv3.OpGet("a0"), clientv3.OpGet("a3")).Commit()
	if emptyErr == nil || keepErr == nil || futureErr == nil {
		return errors.New("a request that makes no sense was answered")
	}
	return errors.Join(putErr, getErr, localErr, deleteErr, missingErr, txnErr, oneErr, readErr)
}

func (h *history) lease(ctx context.Context) error {
	c := h.client
	for _, ttl := range []int64{60, 600, 5000} {
		if _, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: ttl, TTL: ttl}); err != nil {
			return err
		}
	}
	_, putErr := c.Put(ctx, "b0", "leased", clientv3.WithLease(60))
	_, againErr := c.Put(ctx, "b1", "leased", clientv3.WithLease(60))
	renewErr := h.renew(ctx, 600)
	_, revokeErr := c.Revoke(ctx, 60)
	_, goneErr := c.Revoke(ctx, 60)
	_, leftErr := c.TimeToLive(ctx, 600, clientv3.WithAttachedKeys())
	_, listErr := c.Leases(ctx)
	if goneErr == nil {
		return errors.New("a lease was revoked twice")
	}
	return errors.Join(putErr, againErr, renewErr, revokeErr, leftErr, listErr)
}

// renew closes its stream and waits for its end. The client's KeepAliveOnce resets it, which a server counts as
// Canceled or as OK, whichever of the two ends it sees first.
func (h *history) renew(ctx context.Context, id int64) error {
	stream, err := pb.NewLeaseClient(h.client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("a closed keep-alive stream ended with %v", err)
	}
	return nil
}

func (h *history) upkeep(ctx context.Context) error {
	c := h.client
	maintenance := pb.NewMaintenanceClient(c.ActiveConnection())
	_, keysErr := c.HashKV(ctx, c.Endpoints()[0], 0)
	_, hashErr := maintenance.Hash(ctx, &pb.HashRequest{})
	_, compactErr := c.Compact(ctx, 8, clientv3.WithCompactPhysical())
	_, againErr := c.Compact(ctx, 8)
	_, oldErr := c.Get(ctx, "a0", clientv3.WithRev(3))
	_, defragErr := c.Defragment(ctx, c.Endpoints()[0])
	_, statusErr := c.Status(ctx, c.Endpoints()[0])
	_, membersErr := c.MemberList(ctx)
	if againErr == nil || oldErr == nil {
		return errors.New("a compacted revision was served")
	}
	snapshot, snapshotErr := maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
	for snapshotErr == nil {
		_, snapshotErr = snapshot.Recv()
	}
	if errors.Is(snapshotErr, io.EOF) {
		snapshotErr = nil
	}
	return errors.Join(keysErr, hashErr, compactErr, defragErr, statusErr, membersErr, snapshotErr)
}

func (h *history) raise(ctx context.Context, alarm pb.AlarmType) error {
	return h.alarm(ctx, alarm, pb.AlarmRequest_ACTIVATE)
}

func (h *history) lower(ctx context.Context, alarm pb.AlarmType) error {
	return h.alarm(ctx, alarm, pb.AlarmRequest_DEACTIVATE)
}

func (h *history) alarm(ctx context.Context, alarm pb.AlarmType, action pb.AlarmRequest_AlarmAction) error {
	ctx, cancel := context.WithTimeout(ctx, playWithin)
	defer cancel()
	members, err := h.client.MemberList(ctx)
	if err != nil {
		return err
	}
	id := members.Members[0].ID
	_, err = pb.NewMaintenanceClient(h.client.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{MemberID: id, Action: action, Alarm: alarm})
	return err
}
