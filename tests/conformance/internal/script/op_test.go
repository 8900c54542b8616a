package script

import (
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func TestAScriptReadsBackAsItWasWritten(t *testing.T) {
	ops := []Op{
		{Kind: Put, Via: Client, Request: &pb.PutRequest{Key: []byte("a\x00\xff"), Value: []byte{0, 1, 2}, Lease: -3}},
		{Kind: Kill, Via: Stub},
		{Kind: Txn, Via: Stub, Request: &pb.TxnRequest{
			Compare: []*pb.Compare{{Target: 9, Key: []byte("k"), TargetUnion: &pb.Compare_Value{Value: []byte("v")}}},
			Success: []*pb.RequestOp{{}, {Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}},
		}},
		{Kind: Range, Via: Stub, Request: &pb.RangeRequest{SortOrder: 7, Limit: -1, RangeEnd: []byte{0}}},
	}
	path := filepath.Join(t.TempDir(), "script.json")
	if err := Write(path, ops); err != nil {
		t.Fatal(err)
	}
	back, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(back) != len(ops) {
		t.Fatalf("wrote %d operations, read %d", len(ops), len(back))
	}
	for i := range ops {
		if back[i].Kind != ops[i].Kind || back[i].Via != ops[i].Via || !proto.Equal(back[i].Request, ops[i].Request) {
			t.Errorf("operation %d: wrote %v, read %v", i, ops[i], back[i])
		}
	}
}

func TestAnUnknownKindIsRefused(t *testing.T) {
	var op Op
	if err := op.UnmarshalJSON([]byte(`{"kind":"juggle"}`)); err == nil {
		t.Fatal("an unknown kind was accepted")
	}
}
