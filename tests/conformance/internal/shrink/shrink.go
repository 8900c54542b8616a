// Package shrink finds a small sequence of operations that still shows a difference.
//
// It is delta debugging: leave out ever smaller pieces while what is left still
// fails, then leave out parts of the transactions that remain. Every attempt
// starts both servers anew, so it is bounded by its context and returns the
// smallest sequence found by then.
package shrink

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// Test runs a sequence and returns the position of the operation that shows a
// difference, or -1 if none does. It may fail; the attempt then counts for nothing.
type Test func(ctx context.Context, ops []script.Op) (int, error)

// Shrink returns the smallest failing subsequence that it finds. The last of ops must show the difference.
func Shrink(ctx context.Context, ops []script.Op, test Test) []script.Op {
	s := &shrinker{ctx: ctx, test: test, best: ops}
	s.dropOps()
	s.thinRequests()
	s.dropOps()
	return s.best
}

type shrinker struct {
	ctx  context.Context
	test Test
	best []script.Op
}

// try keeps the candidate if it fails too, cut behind the operation that shows it.
func (s *shrinker) try(candidate []script.Op) bool {
	if s.ctx.Err() != nil || len(candidate) == 0 {
		return false
	}
	at, err := s.test(s.ctx, candidate)
	if err != nil || at < 0 {
		return false
	}
	s.best = candidate[:at+1]
	return true
}

// dropOps leaves out chunks of operations, from half of them down to one, front to back:
// what lies right before the failure is the likeliest cause and is tried last.
func (s *shrinker) dropOps() {
	for size := max(1, len(s.best)/2); ; size = max(1, size/2) {
		shorter := s.dropChunks(size)
		if size == 1 && !shorter || s.ctx.Err() != nil {
			return
		}
	}
}

func (s *shrinker) dropChunks(size int) bool {
	shorter := false
	for start := 0; start < len(s.best); {
		end := min(start+size, len(s.best))
		candidate := append(append([]script.Op(nil), s.best[:start]...), s.best[end:]...)
		if s.try(candidate) {
			shorter = true
			continue // the next chunk has moved to start
		}
		start = end
	}
	return shorter
}

// thinRequests leaves out parts of transactions, one at a time.
func (s *shrinker) thinRequests() {
	for i := 0; i < len(s.best); i++ {
		for part := 0; s.ctx.Err() == nil && i < len(s.best); {
			thinner, ok := without(s.best[i], part)
			if !ok {
				break
			}
			candidate := append([]script.Op(nil), s.best...)
			candidate[i] = thinner
			if !s.try(candidate) {
				part++
			}
		}
	}
}

// without returns the operation with the given part of its transaction left out; ok is false behind the last part.
func without(op script.Op, part int) (script.Op, bool) {
	txn, isTxn := op.Request.(*pb.TxnRequest)
	if !isTxn {
		return op, false
	}
	thinner, isTxn := proto.Clone(txn).(*pb.TxnRequest)
	if !isTxn || !cut(thinner, &part) {
		return op, false
	}
	return script.Op{Kind: op.Kind, Via: op.Via, Request: thinner}, true
}

// cut removes the part-th element of the transaction, counted depth-first, outer elements first.
func cut(txn *pb.TxnRequest, part *int) bool {
	if *part < len(txn.Compare) {
		txn.Compare = removed(txn.Compare, *part)
		return true
	}
	*part -= len(txn.Compare)
	for _, list := range []*[]*pb.RequestOp{&txn.Success, &txn.Failure} {
		if *part < len(*list) {
			*list = removed(*list, *part)
			return true
		}
		*part -= len(*list)
		for _, op := range *list {
			if inner := op.GetRequestTxn(); inner != nil && cut(inner, part) {
				return true
			}
		}
	}
	return false
}

func removed[T any](list []T, at int) []T {
	return append(append([]T(nil), list[:at]...), list[at+1:]...)
}
