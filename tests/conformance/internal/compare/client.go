package compare

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// clientOp turns a request into an operation of the official client, if that can express it.
func clientOp(request proto.Message) (clientv3.Op, bool) {
	switch request := request.(type) {
	case *pb.RangeRequest:
		return clientv3.OpGet(string(request.Key), rangeOptions(request)...), true
	case *pb.PutRequest:
		return clientPut(request), true
	case *pb.DeleteRangeRequest:
		return clientDelete(request), true
	case *pb.TxnRequest:
		return clientTxn(request)
	}
	return clientv3.Op{}, false
}

func rangeOptions(request *pb.RangeRequest) []clientv3.OpOption {
	options := []clientv3.OpOption{
		clientv3.WithLimit(request.Limit),
		clientv3.WithRev(request.Revision),
		clientv3.WithMinModRev(request.MinModRevision),
		clientv3.WithMaxModRev(request.MaxModRevision),
		clientv3.WithMinCreateRev(request.MinCreateRevision),
		clientv3.WithMaxCreateRev(request.MaxCreateRevision),
		clientv3.WithSort(clientv3.SortTarget(request.SortTarget), clientv3.SortOrder(request.SortOrder)),
	}
	if len(request.RangeEnd) > 0 {
		options = append(options, clientv3.WithRange(string(request.RangeEnd)))
	}
	if request.Serializable {
		options = append(options, clientv3.WithSerializable())
	}
	if request.KeysOnly {
		options = append(options, clientv3.WithKeysOnly())
	}
	if request.CountOnly {
		options = append(options, clientv3.WithCountOnly())
	}
	return options
}

func clientPut(request *pb.PutRequest) clientv3.Op {
	options := []clientv3.OpOption{clientv3.WithLease(clientv3.LeaseID(request.Lease))}
	if request.PrevKv {
		options = append(options, clientv3.WithPrevKV())
	}
	if request.IgnoreValue {
		options = append(options, clientv3.WithIgnoreValue())
	}
	if request.IgnoreLease {
		options = append(options, clientv3.WithIgnoreLease())
	}
	return clientv3.OpPut(string(request.Key), string(request.Value), options...)
}

func clientDelete(request *pb.DeleteRangeRequest) clientv3.Op {
	var options []clientv3.OpOption
	if len(request.RangeEnd) > 0 {
		options = append(options, clientv3.WithRange(string(request.RangeEnd)))
	}
	if request.PrevKv {
		options = append(options, clientv3.WithPrevKV())
	}
	return clientv3.OpDelete(string(request.Key), options...)
}

func clientTxn(request *pb.TxnRequest) (clientv3.Op, bool) {
	var compares []clientv3.Cmp
	for _, compare := range request.Compare {
		compares = append(compares, clientv3.FromCompare(compare))
	}
	success, ok := clientOps(request.Success)
	if !ok {
		return clientv3.Op{}, false
	}
	failure, ok := clientOps(request.Failure)
	if !ok {
		return clientv3.Op{}, false
	}
	return clientv3.OpTxn(compares, success, failure), true
}

func clientOps(requests []*pb.RequestOp) ([]clientv3.Op, bool) {
	var ops []clientv3.Op
	for _, request := range requests {
		var inner proto.Message
		switch of := request.Request.(type) {
		case *pb.RequestOp_RequestRange:
			inner = of.RequestRange
		case *pb.RequestOp_RequestPut:
			inner = of.RequestPut
		case *pb.RequestOp_RequestDeleteRange:
			inner = of.RequestDeleteRange
		case *pb.RequestOp_RequestTxn:
			inner = of.RequestTxn
		default:
			return nil, false // the client cannot send an empty operation
		}
		op, ok := clientOp(inner)
		if !ok {
			return nil, false
		}
		ops = append(ops, op)
	}
	return ops, true
}

func (s *Session) callByClient(ctx context.Context, op clientv3.Op) Outcome {
	response, err := s.client.Do(ctx, op)
	switch {
	case err != nil:
		return failure(nil, err)
	case response.Get() != nil:
		return one((*pb.RangeResponse)(response.Get()), nil)
	case response.Put() != nil:
		return one((*pb.PutResponse)(response.Put()), nil)
	case response.Del() != nil:
		return one((*pb.DeleteRangeResponse)(response.Del()), nil)
	case response.Txn() != nil:
		return one((*pb.TxnResponse)(response.Txn()), nil)
	}
	panic("the client answered with neither a response nor an error")
}

func (s *Session) streamByClient(ctx context.Context, op script.Op) Outcome {
	request, ok := op.Request.(*pb.RangeRequest)
	if !ok {
		panic("a stream that is no range")
	}
	stream, err := s.client.GetStream(ctx, string(request.Key), rangeOptions(request)...)
	if err != nil {
		return failure(nil, err)
	}
	var chunks []proto.Message
	for chunk := range stream {
		if err := chunk.Err(); err != nil {
			return failure(chunks, err)
		}
		chunks = append(chunks, chunk.RangeResponse)
	}
	return Outcome{Responses: chunks}
}
