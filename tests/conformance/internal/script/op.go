// Package script holds the operations that both servers are given, as data.
//
// An operation is a request message of etcd's own API and the way it is sent,
// or something done to the servers themselves (a kill, a stop). It depends on
// nothing but itself, so that any subsequence of a run is a run: that is what
// lets a mismatch be shrunk, written to a file and repeated.
package script

import (
	"encoding/json"
	"fmt"
	"os"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Kind names what an operation does.
type Kind string

// The kinds. Kill and Stop end both servers (SIGKILL, SIGTERM) and start them again.
const (
	Range           Kind = "range"
	RangeStream     Kind = "range-stream"
	Put             Kind = "put"
	DeleteRange     Kind = "delete-range"
	Txn             Kind = "txn"
	MemberList      Kind = "member-list"
	Status          Kind = "status"
	HashKV          Kind = "hash-kv"
	Health          Kind = "health"
	LeaseGrant      Kind = "lease-grant"
	LeaseRevoke     Kind = "lease-revoke"
	LeaseKeepAlive  Kind = "lease-keep-alive"
	LeaseTimeToLive Kind = "lease-time-to-live"
	LeaseLeases     Kind = "lease-leases"
	Watch           Kind = "watch"
	Compact         Kind = "compact"
	Alarm           Kind = "alarm"
	Kill            Kind = "kill"
	Stop            Kind = "stop"
)

// Via names the road a request takes.
type Via string

// Stub is the generated gRPC client; Client is the official Go client on top of it.
const (
	Stub   Via = "stub"
	Client Via = "client"
)

// Op is one operation. Request is nil for Kill and Stop. Stream says which of the open watch streams a watch request goes to.
type Op struct {
	Kind    Kind
	Via     Via
	Stream  int
	Request proto.Message
}

// NewRequest returns an empty request of the kind, or nil if the kind has none.
func NewRequest(kind Kind) (proto.Message, error) {
	switch kind {
	case Range, RangeStream:
		return &pb.RangeRequest{}, nil
	case Put:
		return &pb.PutRequest{}, nil
	case DeleteRange:
		return &pb.DeleteRangeRequest{}, nil
	case Txn:
		return &pb.TxnRequest{}, nil
	case MemberList:
		return &pb.MemberListRequest{}, nil
	case Status:
		return &pb.StatusRequest{}, nil
	case HashKV:
		return &pb.HashKVRequest{}, nil
	case Health:
		return &healthpb.HealthCheckRequest{}, nil
	case Watch:
		return &pb.WatchRequest{}, nil
	case Compact:
		return &pb.CompactionRequest{}, nil
	case Alarm:
		return &pb.AlarmRequest{}, nil
	case LeaseGrant:
		return &pb.LeaseGrantRequest{}, nil
	case LeaseRevoke:
		return &pb.LeaseRevokeRequest{}, nil
	case LeaseKeepAlive:
		return &pb.LeaseKeepAliveRequest{}, nil
	case LeaseTimeToLive:
		return &pb.LeaseTimeToLiveRequest{}, nil
	case LeaseLeases:
		return &pb.LeaseLeasesRequest{}, nil
	case Kill, Stop:
		return nil, nil
	}
	return nil, fmt.Errorf("unknown kind of operation %q", kind)
}

// noteBytes bounds the readable copy of a request in a script: big values stay in the request alone.
const noteBytes = 400

// String shows the operation on one line, shortened.
func (op Op) String() string {
	if op.Request == nil {
		return string(op.Kind)
	}
	text := prototext.MarshalOptions{}.Format(op.Request)
	if len(text) > noteBytes {
		text = fmt.Sprintf("%s… (%d bytes)", text[:noteBytes], len(text))
	}
	if op.Kind == Watch {
		return fmt.Sprintf("%s on stream %d {%s}", op.Kind, op.Stream, text)
	}
	return fmt.Sprintf("%s/%s {%s}", op.Kind, op.Via, text)
}

type line struct {
	Kind    Kind            `json:"kind"`
	Via     Via             `json:"via,omitempty"`
	Stream  int             `json:"stream,omitempty"`
	Note    string          `json:"note,omitempty"`
	Request json.RawMessage `json:"request,omitempty"`
}

// MarshalJSON writes the operation with a readable note beside the exact request.
func (op Op) MarshalJSON() ([]byte, error) {
	out := line{Kind: op.Kind, Via: op.Via, Stream: op.Stream}
	if op.Request != nil {
		raw, err := protojson.Marshal(op.Request)
		if err != nil {
			return nil, err
		}
		out.Request, out.Note = raw, op.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote; the note is ignored.
func (op *Op) UnmarshalJSON(data []byte) error {
	var in line
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	request, err := NewRequest(in.Kind)
	if err != nil {
		return err
	}
	if request != nil && in.Request != nil {
		if err := protojson.Unmarshal(in.Request, request); err != nil {
			return fmt.Errorf("request of %q: %w", in.Kind, err)
		}
	}
	via := in.Via
	if via == "" {
		via = Stub
	}
	*op = Op{Kind: in.Kind, Via: via, Stream: in.Stream, Request: request}
	return nil
}

// Write stores the operations as a JSON array, one operation per line.
func Write(path string, ops []Op) error {
	out := []byte("[\n")
	for i, op := range ops {
		text, err := json.Marshal(op)
		if err != nil {
			return err
		}
		out = append(out, text...)
		if i+1 < len(ops) {
			out = append(out, ',')
		}
		out = append(out, '\n')
	}
	return os.WriteFile(path, append(out, "]\n"...), 0o600)
}

// Read loads a script that Write stored.
func Read(path string) ([]Op, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var ops []Op
	if err := json.Unmarshal(data, &ops); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ops, nil
}
