package compare

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

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
