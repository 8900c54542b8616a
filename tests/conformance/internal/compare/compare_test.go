package compare

import (
	"errors"
	"os"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

func answer(message proto.Message) Outcome { return Outcome{Responses: []proto.Message{message}} }

func differs(op script.Op, a, b proto.Message) bool {
	return difference(canonical(op, answer(a)), canonical(op, answer(b))) != ""
}

func kv(key string, mod int64, value string) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), ModRevision: mod, CreateRevision: 2, Version: 1, Value: []byte(value)}
}

func TestTheTermIsAServersOwnButItsAbsenceIsNot(t *testing.T) {
	op := script.Op{Kind: script.Put, Request: &pb.PutRequest{}}
	with := func(term uint64, revision int64) proto.Message {
		return &pb.PutResponse{Header: &pb.ResponseHeader{ClusterId: 7, RaftTerm: term, Revision: revision}}
	}
	if differs(op, with(2, 5), with(3, 5)) {
		t.Error("another term was a difference")
	}
	if !differs(op, with(2, 5), with(0, 5)) {
		t.Error("a missing term was none")
	}
	if !differs(op, with(2, 5), with(2, 6)) {
		t.Error("another revision was none")
	}
	if !differs(op, with(2, 0), &pb.PutResponse{}) {
		t.Error("a missing header was none")
	}
}

func TestTermsDeepInATransactionAreLevelledToo(t *testing.T) {
	op := script.Op{Kind: script.Txn, Request: &pb.TxnRequest{}}
	with := func(term uint64) proto.Message {
		inner := &pb.PutResponse{Header: &pb.ResponseHeader{RaftTerm: term}}
		return &pb.TxnResponse{Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: inner}}}}
	}
	if differs(op, with(2), with(3)) {
		t.Error("another term was a difference")
	}
	if !differs(op, with(2), with(0)) {
		t.Error("a missing term was none")
	}
}

func TestTiedKeysMayComeInAnyOrderAndOthersNot(t *testing.T) {
	op := script.Op{Kind: script.Range, Request: &pb.RangeRequest{SortTarget: pb.RangeRequest_MOD}}
	of := func(kvs ...*mvccpb.KeyValue) proto.Message { return &pb.RangeResponse{Kvs: kvs} }
	if differs(op, of(kv("a", 3, ""), kv("b", 3, ""), kv("c", 4, "")), of(kv("b", 3, ""), kv("a", 3, ""), kv("c", 4, ""))) {
		t.Error("the order of tied keys was a difference")
	}
	if !differs(op, of(kv("a", 3, ""), kv("c", 4, "")), of(kv("c", 4, ""), kv("a", 3, ""))) {
		t.Error("a wrong order was none")
	}
	if !differs(op, of(kv("a", 3, ""), kv("b", 3, "x")), of(kv("b", 3, ""), kv("a", 3, ""))) {
		t.Error("another value among tied keys was none")
	}
	byKey := script.Op{Kind: script.Range, Request: &pb.RangeRequest{}}
	if !differs(byKey, of(kv("a", 3, ""), kv("b", 3, "")), of(kv("b", 3, ""), kv("a", 3, ""))) {
		t.Error("a wrong order by key was none")
	}
}

func TestALimitMayCutTiedKeysAnywhere(t *testing.T) {
	op := script.Op{Kind: script.Range, Request: &pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, Limit: 2}}
	of := func(more bool, kvs ...*mvccpb.KeyValue) proto.Message { return &pb.RangeResponse{Kvs: kvs, More: more} }
	if differs(op, of(true, kv("a", 3, ""), kv("b", 4, "")), of(true, kv("a", 3, ""), kv("c", 4, ""))) {
		t.Error("another choice among cut ties was a difference")
	}
	if !differs(op, of(true, kv("a", 3, ""), kv("b", 4, "")), of(true, kv("a", 3, ""), kv("c", 5, ""))) {
		t.Error("another sort value behind the cut was none")
	}
	if !differs(op, of(false, kv("a", 3, ""), kv("b", 4, "")), of(false, kv("a", 3, ""), kv("c", 4, ""))) {
		t.Error("another key without a cut was none")
	}
}

func TestAnErrorIsItsCodeAndItsText(t *testing.T) {
	refused := Outcome{Code: codes.InvalidArgument, Text: "etcdserver: key is not provided"}
	for _, other := range []Outcome{{}, {Code: codes.Unknown, Text: refused.Text}, {Code: refused.Code, Text: "no key"}} {
		if difference(refused, other) == "" {
			t.Errorf("%v and %v were taken as the same", refused, other)
		}
	}
	if why := difference(refused, refused); why != "" {
		t.Error(why)
	}
}

func TestEveryOnPurposeDifferenceIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/compatibility.md")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, expected := range OnPurpose {
		if !strings.Contains(string(text), "`"+expected.Name+"`") {
			t.Errorf("docs/compatibility.md does not list `%s`", expected.Name)
		}
	}
}
