// Package generate draws operations from a seed.
//
// A run is drawn twice: first its own habits (which keys, how often each kind of
// operation), then the operations. Keys are few, so that operations meet; the
// rare values are those at which etcd's rules bend: empty keys, from-key ends,
// inverted ranges, unknown enum numbers, revisions that are gone or not there yet.
// The same seed against the same answers gives the same operations.
package generate

import (
	"fmt"
	"math"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// Limits of a server with default flags.
const (
	maxRequestBytes = 3 << 19 // 1.5 MiB
	grpcSlackBytes  = 512 << 10
	maxTxnOps       = 128
)

// Generator draws one run.
type Generator struct {
	rng           *rand.Rand
	keys          []string
	weights       []weight
	total         int
	clientPercent int
	revision      int64       // newest revision that the servers named
	queued        []script.Op // drawn together with an earlier operation
}

// leaseIDs are the leases that puts name.
var leaseIDs = []int64{1, 12345, -1, math.MaxInt32}

type weight struct {
	share int
	draw  func() script.Op
}

// New draws the habits of a run.
func New(seed uint64) *Generator {
	g := &Generator{rng: rand.New(rand.NewPCG(seed, 0x6465746364)), revision: 1}
	g.keys = g.someKeys()
	g.clientPercent = []int{0, 20, 50}[g.rng.IntN(3)]
	for _, kind := range []weight{
		{300, func() script.Op { return g.by(script.Put, g.put()) }},
		{4, g.bigPut},
		{250, func() script.Op { return g.by(script.Range, g.rangeOf()) }},
		{60, func() script.Op { return g.by(script.RangeStream, g.streamOf()) }},
		{70, func() script.Op { return g.by(script.DeleteRange, g.deleteOf()) }},
		{200, func() script.Op { return g.by(script.Txn, survivable(g.txn(1))) }},
		{12, func() script.Op { return g.by(script.Txn, g.bulk()) }},
		{25, func() script.Op { return stub(script.HashKV, &pb.HashKVRequest{Revision: g.anyRevision()}) }},
		{8, func() script.Op { return stub(script.MemberList, &pb.MemberListRequest{Linearizable: g.oneIn(2)}) }},
		{8, func() script.Op { return stub(script.Status, &pb.StatusRequest{}) }},
		{6, g.health},
		{40, g.watch},
		{1, g.bigWatch},
		{60, g.lease},
		{6, g.compact},
		{4, g.alarm},
	} {
		kind.share *= 1 + g.rng.IntN(4) // a habit of this run
		g.total += kind.share
		g.weights = append(g.weights, kind)
	}
	return g
}

// Next draws an operation for servers that are at the revision.
func (g *Generator) Next(revision int64) script.Op {
	g.revision = max(1, revision)
	if len(g.queued) > 0 {
		op := g.queued[0]
		g.queued = g.queued[1:]
		return op
	}
	at := g.rng.IntN(g.total)
	for _, kind := range g.weights {
		if at < kind.share {
			return kind.draw()
		}
		at -= kind.share
	}
	panic("the shares do not add up to their total")
}

// Sweep reads all that the servers hold: the present, some pasts, hashes, members.
func Sweep(revision int64) []script.Op {
	all := func(at int64) *pb.RangeRequest {
		return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: at}
	}
	ops := []script.Op{
		stub(script.Range, all(0)),
		stub(script.RangeStream, all(0)),
		stub(script.HashKV, &pb.HashKVRequest{}),
		stub(script.MemberList, &pb.MemberListRequest{Linearizable: true}),
		stub(script.Status, &pb.StatusRequest{}),
		stub(script.Alarm, &pb.AlarmRequest{}),
		stub(script.LeaseLeases, &pb.LeaseLeasesRequest{}),
	}
	for _, id := range leaseIDs {
		ops = append(ops, stub(script.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}))
	}
	const pasts = 8
	for i := int64(1); i < pasts; i++ {
		if at := revision * i / pasts; at > 0 {
			ops = append(ops, stub(script.Range, all(at)), stub(script.HashKV, &pb.HashKVRequest{Revision: at}))
		}
	}
	return append(ops, watched()...)
}

func stub(kind script.Kind, request proto.Message) script.Op {
	return script.Op{Kind: kind, Via: script.Stub, Request: request}
}

func (g *Generator) by(kind script.Kind, request proto.Message) script.Op {
	op := stub(kind, request)
	if g.percent(g.clientPercent) {
		op.Via = script.Client
	}
	return op
}

func (g *Generator) oneIn(n int) bool    { return g.rng.IntN(n) == 0 }
func (g *Generator) percent(of int) bool { return g.rng.IntN(100) < of }
func (g *Generator) among(n int64) int64 { return g.rng.Int64N(max(1, n)) }
func (g *Generator) oneOf(of ...int) int { return of[g.rng.IntN(len(of))] }
func (g *Generator) leaseID() (id int64) { return leaseIDs[g.rng.IntN(len(leaseIDs))] }
func (g *Generator) rareLease() (id int64) {
	if g.percent(15) {
		return g.leaseID() // granted now and then
	}
	return 0
}

func (g *Generator) someKeys() []string {
	all := []string{
		"a", "b", "ab", "abc", "a\x00", "a\x00\x00", "a\xff", "b\xff", "\xff", "\xff\xff", "\x00", "\x01",
		"c", "c/", "c0", "d", "/", "Ünïcode", "a key with spaces", "health",
	}
	for i := range 16 {
		all = append(all, fmt.Sprintf("c/%d", i), fmt.Sprintf("k%02d", i))
	}
	g.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:6+g.rng.IntN(len(all)-5)]
}

func (g *Generator) key() []byte {
	if g.percent(1) {
		return nil
	}
	return []byte(g.keys[g.rng.IntN(len(g.keys))])
}

// rangeEnd draws one of the forms an end has: none, from-key, prefix, next key, any other (often inverted), the key itself.
func (g *Generator) rangeEnd(key []byte) []byte {
	switch at := g.rng.IntN(100); {
	case at < 35:
		return nil
	case at < 55:
		return []byte{0}
	case at < 70:
		return prefixEnd(key)
	case at < 75:
		return append(append([]byte(nil), key...), 0)
	case at < 78:
		return key
	}
	return g.key()
}

// prefixEnd is the end of the range of all keys that start with the prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for len(end) > 0 {
		if end[len(end)-1] < 0xff {
			end[len(end)-1]++
			return end
		}
		end = end[:len(end)-1]
	}
	return []byte{0}
}

func (g *Generator) value() []byte {
	size := g.oneOf(0, 1, 1, 2, 3, 8, 8, 100, 1000)
	value := make([]byte, size)
	for i := range value {
		value[i] = byte('a' + g.rng.IntN(4)) // few letters, so that values are equal now and then
	}
	if g.percent(5) && size > 0 {
		value[0] = byte(g.oneOf(0, 0xff, 0x80))
	}
	return value
}

// anyRevision draws a revision to ask for, mostly one that is there.
func (g *Generator) anyRevision() int64 {
	switch at := g.rng.IntN(100); {
	case at < 50:
		return 0
	case at < 80:
		return 1 + g.among(g.revision)
	case at < 87:
		return g.revision
	case at < 93:
		return g.revision + 1 + g.among(5)
	case at < 97:
		return -1 - g.among(3)
	case at < 98:
		return math.MaxInt64
	case at < 99:
		return math.MinInt64
	}
	return 1
}

func (g *Generator) put() *pb.PutRequest {
	put := &pb.PutRequest{Key: g.key(), Value: g.value(), Lease: g.rareLease(), PrevKv: g.oneIn(3)}
	if g.percent(8) {
		put.IgnoreValue = true
		if !g.oneIn(4) {
			put.Value = nil
		}
	}
	put.IgnoreLease = g.percent(6)
	return put
}

// bigPut draws a value near one of the size limits, looks at it in a stream, and takes it away again:
// left in place, it would be copied by every later range.
func (g *Generator) bigPut() script.Op {
	size := maxRequestBytes - 128 + g.rng.IntN(192)
	if g.oneIn(3) {
		size = maxRequestBytes + grpcSlackBytes - 64 + g.rng.IntN(128)
	}
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(i >> 8)
	}
	key := []byte("big")
	g.queued = append(g.queued,
		g.by(script.RangeStream, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}),
		stub(script.DeleteRange, &pb.DeleteRangeRequest{Key: key}))
	return g.by(script.Put, &pb.PutRequest{Key: key, Value: value})
}

func (g *Generator) deleteOf() *pb.DeleteRangeRequest {
	key := g.key()
	return &pb.DeleteRangeRequest{Key: key, RangeEnd: g.rangeEnd(key), PrevKv: g.oneIn(2)}
}

func (g *Generator) health() script.Op {
	service := []string{"", "", "etcdserverpb.KV", "no such service"}[g.rng.IntN(4)]
	return stub(script.Health, &healthpb.HealthCheckRequest{Service: service})
}
