package generate

import (
	"fmt"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"detcd.io/conformance/internal/script"
)

// Streams that a run's watch requests go to.
const watchStreams = 3

func (g *Generator) watch() script.Op {
	op := stub(script.Watch, g.watchRequest())
	op.Stream = g.rng.IntN(watchStreams)
	return op
}

func (g *Generator) watchRequest() *pb.WatchRequest {
	switch at := g.rng.IntN(100); {
	case at < 62:
		return watchCreate(g.watcher())
	case at < 87:
		cancel := &pb.WatchCancelRequest{WatchId: g.watchID() + g.among(8)}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: cancel}}
	case at < 97:
		return watchProgress()
	}
	return &pb.WatchRequest{} // no union that any server knows
}

func (g *Generator) watcher() *pb.WatchCreateRequest {
	key := g.key()
	create := &pb.WatchCreateRequest{
		Key: key, RangeEnd: g.rangeEnd(key),
		StartRevision:  g.watchStart(),
		ProgressNotify: g.oneIn(3),
		PrevKv:         g.oneIn(2),
		Fragment:       g.oneIn(4),
	}
	if g.percent(50) {
		create.WatchId = g.watchID()
	}
	for g.percent(25) {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_FilterType(g.oneOf(0, 1, 1, 7)))
	}
	return create
}

// watchID draws few ids, so that they are taken, free again, and used once more.
func (g *Generator) watchID() int64 {
	return int64(g.oneOf(0, 0, 1, 2, 3, 5, 8, -1, -7, math.MaxInt64-8))
}

// watchStart draws the first revision: mostly now or the past, now and then what is soon to come.
func (g *Generator) watchStart() int64 {
	switch at := g.rng.IntN(100); {
	case at < 40:
		return 0
	case at < 80:
		return 1 + g.among(g.revision)
	case at < 88:
		return g.revision + g.among(3)
	case at < 96:
		return g.revision + 1 + g.among(12)
	case at < 97:
		return math.MaxInt64
	case at < 98:
		return 1
	}
	return -1 - g.among(3)
}

// bigWatch makes one revision whose events are too large for a response that may be cut, then takes the watchers away.
func (g *Generator) bigWatch() script.Op {
	prefix := []byte("huge/")
	watcher := func(id int64, fragment bool) script.Op {
		return stub(script.Watch, watchCreate(&pb.WatchCreateRequest{
			Key: prefix, RangeEnd: prefixEnd(prefix), WatchId: id, PrevKv: true, Fragment: fragment,
		}))
	}
	cancel := func(id int64) script.Op {
		return stub(script.Watch, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: id},
		}})
	}
	const whole, cut = 1000, 1001
	g.queued = append(g.queued, watcher(cut, true))
	for i := range 3 + g.rng.IntN(3) {
		value := make([]byte, 400_000+g.rng.IntN(1_000_000))
		g.queued = append(g.queued, stub(script.Put, &pb.PutRequest{Key: fmt.Appendf(nil, "huge/%d", i), Value: value}))
	}
	g.queued = append(g.queued,
		stub(script.DeleteRange, &pb.DeleteRangeRequest{Key: prefix, RangeEnd: prefixEnd(prefix)}),
		stub(script.Watch, watchProgress()), cancel(whole), cancel(cut))
	return watcher(whole, false)
}

func watchCreate(create *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
}

func watchProgress() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

// watched asks all streams of a run for what has arrived.
func watched() []script.Op {
	var ops []script.Op
	for i := range watchStreams {
		op := stub(script.Watch, watchProgress())
		op.Stream = i
		ops = append(ops, op)
	}
	return ops
}
