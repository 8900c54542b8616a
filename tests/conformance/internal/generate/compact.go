package generate

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"detcd.io/conformance/internal/script"
)

// compact draws a compaction. One that takes effect is at the revision of a plain put, drawn with it: at a
// transaction's, a key that was deleted and put again there would be lost to etcd (compact-on-recreate), which
// then ends at the next range. It is physical, since hashes right after a logical one depend on how far etcd has come.
func (g *Generator) compact() script.Op {
	compaction := func(revision int64) script.Op {
		return stub(script.Compact, &pb.CompactionRequest{Revision: revision, Physical: true})
	}
	switch g.rng.IntN(8) {
	case 0:
		return compaction(g.revision + 1 + int64(g.rng.IntN(3)))
	case 1:
		return compaction(-int64(g.rng.IntN(2)))
	}
	at := g.revision + 1
	for range g.rng.IntN(4) {
		g.queued = append(g.queued, g.by(script.Range, g.rangeOf()))
	}
	if g.oneIn(2) {
		g.queued = append(g.queued, g.by(script.Put, &pb.PutRequest{Key: g.someKey(), Value: []byte("later")}))
	}
	g.queued = append(g.queued,
		compaction(at),
		stub(script.HashKV, &pb.HashKVRequest{Revision: at}),
		stub(script.HashKV, &pb.HashKVRequest{}))
	return stub(script.Put, &pb.PutRequest{Key: g.someKey(), Value: []byte("before a compaction")})
}

// someKey is one that a put takes.
func (g *Generator) someKey() []byte {
	if key := g.key(); len(key) > 0 {
		return key
	}
	return []byte{'k'}
}

// alarm raises or lowers an alarm, or lists them. What is raised is lowered a few operations later.
func (g *Generator) alarm() script.Op {
	// Any member may be named; a number that is no kind forbids nothing.
	member := []uint64{0, 1, 1 << 63}[g.rng.IntN(3)]
	kind := []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT, pb.AlarmType_NONE, 9}[g.rng.IntN(4)]
	ask := func(action pb.AlarmRequest_AlarmAction) script.Op {
		return stub(script.Alarm, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: kind})
	}
	if g.oneIn(3) {
		return ask(pb.AlarmRequest_GET)
	}
	g.queued = append(g.queued, g.by(script.Put, g.put()), g.by(script.Txn, survivable(g.txn(1))), g.by(script.DeleteRange, g.deleteOf()),
		stub(script.Status, &pb.StatusRequest{}), ask(pb.AlarmRequest_DEACTIVATE), ask(pb.AlarmRequest_DEACTIVATE))
	return ask(pb.AlarmRequest_ACTIVATE)
}
