package generate

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// deepest is how far transactions nest.
const deepest = 3

func (g *Generator) txn(depth int) *pb.TxnRequest {
	request := &pb.TxnRequest{}
	for range g.rng.IntN(3) {
		request.Compare = append(request.Compare, g.compare())
	}
	request.Success = g.branch(depth)
	request.Failure = g.branch(depth)
	return request
}

// branch draws the operations of one side. Mostly its puts have different keys, or
// nearly every transaction would be refused for a duplicate.
func (g *Generator) branch(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	taken := map[string]bool{}
	careful := !g.oneIn(4)
	readOnly := g.oneIn(5)
	for range g.rng.IntN(5) {
		op := g.txnOp(depth, readOnly)
		if put := op.GetRequestPut(); put != nil && careful {
			if taken[string(put.Key)] {
				continue
			}
			taken[string(put.Key)] = true
		}
		ops = append(ops, op)
	}
	return ops
}

func (g *Generator) txnOp(depth int, readOnly bool) *pb.RequestOp {
	at := g.rng.IntN(100)
	switch {
	case at < 1:
		return &pb.RequestOp{} // no variant is set
	case readOnly || at < 30:
		request := g.rangeOf()
		if g.oneIn(2) {
			request.Revision = 0 // another one fails the whole transaction too often
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: request}}
	case at < 70:
		put := g.put()
		if g.oneIn(2) {
			put.Lease = 0
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	case at < 85 || depth >= deepest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteOf()}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
}

func (g *Generator) compare() *pb.Compare {
	key := g.key()
	compare := &pb.Compare{
		Key:    key,
		Result: pb.Compare_CompareResult(g.rng.IntN(4)),
		Target: pb.Compare_CompareTarget(g.rng.IntN(5)),
	}
	if g.percent(3) {
		compare.Result = pb.Compare_CompareResult(g.oneOf(4, 9, -1))
	}
	if g.percent(25) {
		compare.RangeEnd = g.rangeEnd(key)
	}
	given := int(compare.Target)
	if g.percent(6) {
		given = g.rng.IntN(6) // often another than the target; 5 is none
	}
	if g.percent(3) {
		compare.Target = pb.Compare_CompareTarget(g.oneOf(5, 9, -1))
	}
	g.operand(compare, given)
	return compare
}

func (g *Generator) operand(compare *pb.Compare, given int) {
	number := g.among(4)
	switch given {
	case int(pb.Compare_VERSION):
		compare.TargetUnion = &pb.Compare_Version{Version: number}
	case int(pb.Compare_CREATE):
		compare.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.nearRevision()}
	case int(pb.Compare_MOD):
		compare.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.nearRevision()}
	case int(pb.Compare_VALUE):
		compare.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case int(pb.Compare_LEASE):
		compare.TargetUnion = &pb.Compare_Lease{Lease: number - 1}
	}
}

func (g *Generator) nearRevision() int64 {
	if g.oneIn(3) {
		return 0 // how clients ask whether a key is missing
	}
	return g.among(g.revision+3) - 1
}

// bulk draws a transaction near the limit on operations, in one list or spread over two levels.
func (g *Generator) bulk() *pb.TxnRequest {
	size := maxTxnOps - 4 + g.rng.IntN(8)
	if g.oneIn(2) {
		return &pb.TxnRequest{Success: g.manyPuts(size, "n/")}
	}
	outer := 1 + g.rng.IntN(size-2)
	request := &pb.TxnRequest{Success: g.manyPuts(outer-1, "n/")}
	inner := &pb.TxnRequest{Failure: g.manyPuts(size-outer, "m/"), Success: g.manyPuts(g.rng.IntN(3), "m/")}
	request.Success = append(request.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}})
	return request
}

func (g *Generator) manyPuts(n int, prefix string) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for i := range n {
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d", prefix, i), Value: g.value(), PrevKv: g.oneIn(8)}
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	return ops
}
