package generate

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

func TestASeedRepeatsItsRun(t *testing.T) {
	a, b, other := New(7), New(7), New(8)
	same := true
	for i := range int64(500) {
		x, y, z := a.Next(i), b.Next(i), other.Next(i)
		if x.Kind != y.Kind || x.Via != y.Via || !proto.Equal(x.Request, y.Request) {
			t.Fatalf("operation %d: %v and %v", i, x, y)
		}
		same = same && proto.Equal(x.Request, z.Request)
	}
	if same {
		t.Fatal("another seed gave the same run")
	}
}

func TestThePrefixEndIsTheFirstKeyBehindThePrefix(t *testing.T) {
	for prefix, end := range map[string]string{"a": "b", "a\xff": "b", "a\x00": "a\x01", "\xff\xff": "\x00", "": "\x00"} {
		if got := prefixEnd([]byte(prefix)); !bytes.Equal(got, []byte(end)) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, end)
		}
	}
}

// What the seeds are for: each corner must come up in a few thousand operations.
func TestTheCornersAreDrawn(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(8) {
		g := New(seed)
		for i := range int64(1000) {
			note(seen, g.Next(i))
		}
	}
	for _, corner := range []string{
		"range", "range-stream", "put", "delete-range", "txn", "member-list", "status", "hash-kv", "health",
		"empty key", "from key", "inverted", "unknown sort", "future", "negative revision", "negative limit",
		"missing lease", "big", "third level", "empty operation", "too many operations", "oneof mismatch", "unknown target",
	} {
		if !seen[corner] {
			t.Errorf("never drawn: %s", corner)
		}
	}
}

func note(seen map[string]bool, op script.Op) {
	seen[string(op.Kind)] = true
	switch request := op.Request.(type) {
	case *pb.RangeRequest:
		noteRange(seen, request)
	case *pb.PutRequest:
		if len(request.Key) == 0 {
			seen["empty key"] = true
		}
		if request.Lease != 0 {
			seen["missing lease"] = true
		}
		if len(request.Value) > maxRequestBytes {
			seen["big"] = true
		}
	case *pb.TxnRequest:
		noteTxn(seen, request, 1)
	}
}

func noteRange(seen map[string]bool, request *pb.RangeRequest) {
	if string(request.RangeEnd) == "\x00" {
		seen["from key"] = true
	} else if len(request.RangeEnd) > 0 && bytes.Compare(request.RangeEnd, request.Key) < 0 {
		seen["inverted"] = true
	}
	if request.SortTarget > 4 || request.SortOrder < 0 {
		seen["unknown sort"] = true
	}
	if request.Revision > 2000 {
		seen["future"] = true
	}
	if request.Revision < 0 {
		seen["negative revision"] = true
	}
	if request.Limit < 0 {
		seen["negative limit"] = true
	}
}

func noteTxn(seen map[string]bool, request *pb.TxnRequest, depth int) {
	if depth == deepest {
		seen["third level"] = true
	}
	if len(request.Success) > maxTxnOps {
		seen["too many operations"] = true
	}
	for _, compare := range request.Compare {
		if _, ok := compare.TargetUnion.(*pb.Compare_Value); ok && compare.Target == pb.Compare_MOD {
			seen["oneof mismatch"] = true
		}
		if compare.Target > 4 {
			seen["unknown target"] = true
		}
	}
	for _, op := range append(append([]*pb.RequestOp(nil), request.Success...), request.Failure...) {
		if op.Request == nil {
			seen["empty operation"] = true
		}
		if inner := op.GetRequestTxn(); inner != nil {
			noteTxn(seen, inner, depth+1)
		}
	}
}
