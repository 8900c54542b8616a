package compare

import (
	"context"
	"errors"
	"io"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// leaseByStub sends a lease operation; false says that it is none.
func (s *Session) leaseByStub(ctx context.Context, op script.Op) (Outcome, bool) {
	switch request := op.Request.(type) {
	case *pb.LeaseGrantRequest:
		return one(s.lease.LeaseGrant(ctx, request)), true
	case *pb.LeaseRevokeRequest:
		return one(s.lease.LeaseRevoke(ctx, request)), true
	case *pb.LeaseTimeToLiveRequest:
		return one(s.lease.LeaseTimeToLive(ctx, request)), true
	case *pb.LeaseLeasesRequest:
		return one(s.lease.LeaseLeases(ctx, request)), true
	case *pb.LeaseKeepAliveRequest:
		return s.keepAlive(ctx, request), true
	}
	return Outcome{}, false
}

// keepAlive sends the request twice on one stream, with an unknown lease in between, and ends its side of it.
func (s *Session) keepAlive(ctx context.Context, request *pb.LeaseKeepAliveRequest) Outcome {
	stream, err := s.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return failure(nil, err)
	}
	var answers []proto.Message
	const unknown = 0x7eaf
	for _, one := range []*pb.LeaseKeepAliveRequest{request, {ID: unknown}, request} {
		if err := stream.Send(one); err != nil {
			return failure(answers, err)
		}
		answer, err := stream.Recv()
		if err != nil {
			return failure(answers, err)
		}
		answers = append(answers, answer)
	}
	if err := stream.CloseSend(); err != nil {
		return failure(answers, err)
	}
	if extra, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return failure(append(answers, extra), err)
	}
	return Outcome{Responses: answers}
}

// leaseByClient sends a lease operation through the official client; false says that it is none.
// What the client hides of an answer is put back where it is the same by definition.
func (s *Session) leaseByClient(ctx context.Context, op script.Op) (Outcome, bool) {
	switch request := op.Request.(type) {
	case *pb.LeaseRevokeRequest:
		response, err := s.client.Revoke(ctx, clientv3.LeaseID(request.ID))
		return one((*pb.LeaseRevokeResponse)(response), err), true
	case *pb.LeaseKeepAliveRequest:
		response, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(request.ID))
		if err != nil {
			return failure(nil, err), true
		}
		return one(&pb.LeaseKeepAliveResponse{Header: response.ResponseHeader, ID: int64(response.ID), TTL: response.TTL}, nil), true
	}
	return Outcome{}, false
}

// levelLease levels what two clocks make of one lease, and orders that etcd leaves open.
func levelLease(response proto.Message) {
	switch response := response.(type) {
	case *pb.LeaseTimeToLiveResponse:
		if response.TTL > 0 && response.TTL <= response.GrantedTTL+leaderSeconds {
			response.TTL = 1
		}
		sort.Slice(response.Keys, func(i, j int) bool { return string(response.Keys[i]) < string(response.Keys[j]) })
	case *pb.LeaseLeasesResponse:
		sort.Slice(response.Leases, func(i, j int) bool { return response.Leases[i].ID < response.Leases[j].ID })
	}
}

// leaderSeconds is what a new leader adds to every lease: an election timeout.
const leaderSeconds = 1
