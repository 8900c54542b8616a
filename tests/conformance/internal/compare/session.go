// Package compare gives one operation to both servers and says whether a client
// could tell their answers apart.
//
// Every field of every message counts, unknown ones included. What two correct
// servers may answer differently is listed in canonical.go, field by field, and
// nowhere else; what they answer differently on purpose is in expected.go.
package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// callWithin bounds one operation; etcd's own limit for a request is 7 s.
const callWithin = 20 * time.Second

// Outcome is all that a client sees of one operation. A stream has a response per message.
type Outcome struct {
	Responses []proto.Message
	Code      codes.Code
	Text      string
}

// Failed says whether the operation was answered with an error.
func (o Outcome) Failed() bool { return o.Code != codes.OK }

// Revision is the store revision that the answer's header names, 0 if it names none.
func (o Outcome) Revision() int64 {
	var revision int64
	for _, response := range o.Responses {
		if with, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
			revision = max(revision, with.GetHeader().GetRevision())
		}
	}
	return revision
}

// Session is a set of connections to one server.
type Session struct {
	addr   string
	conn   *grpc.ClientConn
	client *clientv3.Client

	kv          pb.KVClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	health      healthpb.HealthClient
	watches     map[int]*watching
	lease       pb.LeaseClient
}

// Dial connects the stubs and the official client to a server.
func Dial(addr string) (*Session, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          []string{"http://" + addr},
		DialTimeout:        callWithin,
		MaxCallSendMsgSize: math.MaxInt32,
		Logger:             zap.NewNop(),
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Session{
		addr: addr, conn: conn, client: client,
		kv:          pb.NewKVClient(conn),
		cluster:     pb.NewClusterClient(conn),
		maintenance: pb.NewMaintenanceClient(conn),
		health:      healthpb.NewHealthClient(conn),
		lease:       pb.NewLeaseClient(conn),
	}, nil
}

// Close ends the connections.
func (s *Session) Close() {
	s.closeWatches()
	_ = s.client.Close()
	_ = s.conn.Close()
}

// Call sends one operation and collects what comes back.
func (s *Session) Call(ctx context.Context, op script.Op) Outcome {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	if op.Via == script.Client {
		if op.Kind == script.RangeStream {
			return s.streamByClient(ctx, op)
		}
		if outcome, ok := s.leaseByClient(ctx, op); ok {
			return outcome
		}
		if converted, ok := clientOp(op.Request); ok {
			return s.callByClient(ctx, converted)
		}
	}
	return s.callByStub(ctx, op)
}

func (s *Session) callByStub(ctx context.Context, op script.Op) Outcome {
	if outcome, ok := s.leaseByStub(ctx, op); ok {
		return outcome
	}
	switch request := op.Request.(type) {
	case *pb.RangeRequest:
		if op.Kind == script.RangeStream {
			return s.streamByStub(ctx, request)
		}
		return one(s.kv.Range(ctx, request))
	case *pb.PutRequest:
		return one(s.kv.Put(ctx, request))
	case *pb.DeleteRangeRequest:
		return one(s.kv.DeleteRange(ctx, request))
	case *pb.TxnRequest:
		return one(s.kv.Txn(ctx, request))
	case *pb.MemberListRequest:
		return one(s.cluster.MemberList(ctx, request))
	case *pb.StatusRequest:
		return one(s.maintenance.Status(ctx, request))
	case *pb.HashKVRequest:
		return one(s.maintenance.HashKV(ctx, request))
	case *pb.CompactionRequest:
		return one(s.kv.Compact(ctx, request))
	case *pb.AlarmRequest:
		return one(s.maintenance.Alarm(ctx, request))
	case *healthpb.HealthCheckRequest:
		return one(s.health.Check(ctx, request))
	case *pb.WatchRequest:
		return s.watch(ctx, op, request)
	}
	panic(fmt.Sprintf("an operation that is no call: %v", op))
}

func (s *Session) streamByStub(ctx context.Context, request *pb.RangeRequest) Outcome {
	stream, err := s.kv.RangeStream(ctx, request)
	if err != nil {
		return failure(nil, err)
	}
	var chunks []proto.Message
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return Outcome{Responses: chunks}
		}
		if err != nil {
			return failure(chunks, err)
		}
		chunks = append(chunks, chunk)
	}
}

func one[M proto.Message](response M, err error) Outcome {
	if err != nil {
		return failure(nil, err)
	}
	return Outcome{Responses: []proto.Message{response}}
}

// failure reads code and text from either family: the client wraps etcd's errors in its own type.
func failure(before []proto.Message, err error) Outcome {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return Outcome{Responses: before, Code: known.Code(), Text: known.Error()}
	}
	seen := status.Convert(err)
	return Outcome{Responses: before, Code: seen.Code(), Text: seen.Message()}
}
