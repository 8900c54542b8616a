package compare

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// Expected is one difference that is there on purpose. Its name is a row of
// docs/compatibility.md, where the reason is given; a test holds the two together.
type Expected struct {
	Name    string
	Matches func(op script.Op, etcd, detcd Outcome) bool
}

// OnPurpose lists every difference that is not a failure. (Differences that concern
// requests which crash the real etcd are not generated, as it could not answer the next one.)
var OnPurpose = []Expected{
	{Name: "range-stream-sort-target", Matches: streamsUnsorted},
	{Name: "range-stream-negative-limit", Matches: streamsInChunks},
}

// streamsInChunks holds for a stream with a negative limit, which etcd answers with one
// message of any size; detcd sends the same keys in chunks.
func streamsInChunks(op script.Op, etcd, detcd Outcome) bool {
	request, ok := op.Request.(*pb.RangeRequest)
	if !ok || op.Kind != script.RangeStream || request.Limit >= 0 {
		return false
	}
	return proto.Equal(merged(etcd), merged(detcd))
}

// merged is the range response that the chunks of a stream make, without its header.
func merged(outcome Outcome) *pb.RangeResponse {
	whole := &pb.RangeResponse{}
	for _, response := range outcome.Responses {
		if chunk, ok := response.(*pb.RangeStreamResponse); ok {
			proto.Merge(whole, chunk.RangeResponse)
		}
	}
	whole.Header = nil
	return whole
}

// streamsUnsorted holds for a stream without an order but with a target: etcd sorts each
// chunk by the target and goes on after the chunk's last key, so that it can repeat or
// skip keys; detcd ignores the target, as the method's documentation says.
func streamsUnsorted(op script.Op, _, detcd Outcome) bool {
	request, ok := op.Request.(*pb.RangeRequest)
	return ok && op.Kind == script.RangeStream && !detcd.Failed() &&
		request.SortOrder == pb.RangeRequest_NONE && request.SortTarget != pb.RangeRequest_KEY
}

func explain(op script.Op, etcd, detcd Outcome) string {
	for _, expected := range OnPurpose {
		if expected.Matches(op, etcd, detcd) {
			return expected.Name
		}
	}
	return ""
}
