package shrink

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"detcd.io/conformance/internal/script"
)

func put(key string) script.Op {
	return script.Op{Kind: script.Put, Via: script.Stub, Request: &pb.PutRequest{Key: []byte(key)}}
}

func keyOf(op script.Op) string {
	if request, ok := op.Request.(*pb.PutRequest); ok {
		return string(request.Key)
	}
	return ""
}

func TestOnlyWhatMattersIsLeft(t *testing.T) {
	var ops []script.Op
	for i := range 300 {
		ops = append(ops, put(fmt.Sprint(i)))
	}
	attempts := 0
	// Fails at 299 if 17 and 220 came before.
	fails := func(_ context.Context, ops []script.Op) (int, error) {
		attempts++
		seen := map[string]bool{}
		for i, op := range ops {
			seen[keyOf(op)] = true
			if seen["17"] && seen["220"] && seen["299"] {
				return i, nil
			}
		}
		return -1, nil
	}
	small := Shrink(context.Background(), ops, fails)
	if len(small) != 3 || keyOf(small[0]) != "17" || keyOf(small[1]) != "220" || keyOf(small[2]) != "299" {
		t.Fatalf("%d operations are left: %v", len(small), small)
	}
	if attempts > 200 {
		t.Errorf("%d attempts", attempts)
	}
}

func TestATransactionIsThinnedAtEveryDepth(t *testing.T) {
	op := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	inner := &pb.TxnRequest{Success: []*pb.RequestOp{op("b"), op("guilty")}, Failure: []*pb.RequestOp{op("c")}}
	outer := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("x")}, {Key: []byte("y")}},
		Success: []*pb.RequestOp{op("a"), {Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}}},
		Failure: []*pb.RequestOp{op("d")},
	}
	fails := func(_ context.Context, ops []script.Op) (int, error) {
		for i, op := range ops {
			if txn, ok := op.Request.(*pb.TxnRequest); ok && guilty(txn) {
				return i, nil
			}
		}
		return -1, nil
	}
	small := Shrink(context.Background(), []script.Op{{Kind: script.Txn, Via: script.Stub, Request: outer}}, fails)
	want := `txn/stub {success:{request_txn:{success:{request_put:{key:"guilty"}}}}}`
	if len(small) != 1 || small[0].String() != want {
		t.Fatalf("left: %v", small)
	}
}

func guilty(txn *pb.TxnRequest) bool {
	for _, op := range append(append([]*pb.RequestOp(nil), txn.Success...), txn.Failure...) {
		if string(op.GetRequestPut().GetKey()) == "guilty" {
			return true
		}
		if inner := op.GetRequestTxn(); inner != nil && guilty(inner) {
			return true
		}
	}
	return false
}

func TestAnEndedContextKeepsWhatWasFound(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ops := []script.Op{put("a"), put("b")}
	small := Shrink(ctx, ops, func(context.Context, []script.Op) (int, error) { return 0, nil })
	if len(small) != 2 {
		t.Fatalf("%d operations are left", len(small))
	}
}
