package compare

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// Verdict says whether the two answers agree. Why is empty if they do.
type Verdict struct {
	Why      string
	Expected string // name of the on-purpose difference that explains Why, or empty
	Revision int64  // newest revision that the real etcd named
	Failed   bool   // the real etcd answered with an error
}

// Differs says whether there is an unexplained difference.
func (v Verdict) Differs() bool { return v.Why != "" && v.Expected == "" }

// Run gives the operation to both servers at the same time and compares what they answer.
func Run(ctx context.Context, etcd, detcd *Session, op script.Op) Verdict {
	return run(ctx, etcd, detcd, op, func(outcome Outcome) Outcome { return outcome })
}

// RunElsewhere does the same with a member of another cluster, whose ids are its own.
func RunElsewhere(ctx context.Context, etcd, member *Session, op script.Op) Verdict {
	return run(ctx, etcd, member, op, withoutIDs)
}

func run(ctx context.Context, etcd, detcd *Session, op script.Op, level func(Outcome) Outcome) Verdict {
	var theirs, ours Outcome
	var both sync.WaitGroup
	both.Go(func() { theirs = etcd.Call(ctx, op) })
	both.Go(func() { ours = detcd.Call(ctx, op) })
	both.Wait()

	verdict := Verdict{Revision: theirs.Revision(), Failed: theirs.Failed()}
	verdict.Why = difference(level(canonical(op, theirs)), level(canonical(op, ours)))
	if verdict.Why == "" {
		verdict.Why = cutDifference(ctx, etcd, op, ours)
	}
	if verdict.Why != "" {
		verdict.Expected = explain(op, theirs, ours)
	}
	return verdict
}

// difference describes the first difference of two canonical answers, or nothing.
func difference(theirs, ours Outcome) string {
	if theirs.Code != ours.Code || theirs.Text != ours.Text {
		return fmt.Sprintf("etcd answers %s\ndetcd answers %s", ending(theirs), ending(ours))
	}
	if len(theirs.Responses) != len(ours.Responses) {
		return fmt.Sprintf("etcd sends %d messages %s\ndetcd sends %d messages %s",
			len(theirs.Responses), sizes(theirs), len(ours.Responses), sizes(ours))
	}
	for i := range theirs.Responses {
		if !proto.Equal(theirs.Responses[i], ours.Responses[i]) {
			return fmt.Sprintf("message %d\n%s", i, textDifference(theirs.Responses[i], ours.Responses[i]))
		}
	}
	return ""
}

func ending(outcome Outcome) string {
	if !outcome.Failed() {
		return "OK"
	}
	return fmt.Sprintf("%v %q", outcome.Code, outcome.Text)
}

// sizes tells how many keys each message of a stream carries.
func sizes(outcome Outcome) string {
	var keys []int
	for _, response := range outcome.Responses {
		switch response := response.(type) {
		case *pb.RangeStreamResponse:
			keys = append(keys, len(response.GetRangeResponse().GetKvs()))
		case *pb.RangeResponse:
			keys = append(keys, len(response.Kvs))
		case *pb.WatchResponse:
			keys = append(keys, len(response.Events))
		}
	}
	return fmt.Sprintf("with %v keys", keys)
}

// textDifference shows both messages from shortly before the place where they part.
func textDifference(theirs, ours proto.Message) string {
	const before, after = 160, 400
	a, b := compactText(theirs), compactText(ours)
	part := 0
	for part < len(a) && part < len(b) && a[part] == b[part] {
		part++
	}
	window := func(text []byte) string {
		start, end := max(0, part-before), min(len(text), part+after)
		out := string(text[start:end])
		if start > 0 {
			out = "…" + out
		}
		if end < len(text) {
			out += "…"
		}
		return out
	}
	return fmt.Sprintf("etcd:  %s\ndetcd: %s", window(a), window(b))
}

// compactText undoes the random spaces that the text encoder puts in on purpose.
func compactText(message proto.Message) []byte {
	text, err := prototext.MarshalOptions{EmitUnknown: true}.Marshal(message)
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.ReplaceAll(text, []byte("  "), []byte(" "))
}

// cutDifference looks behind a limit that cut a group of tied keys: whichever of
// them detcd chose, each must be a key that the real etcd has in that range too.
func cutDifference(ctx context.Context, etcd *Session, op script.Op, ours Outcome) string {
	request, ok := op.Request.(*pb.RangeRequest)
	if !ok || op.Kind != script.Range || ours.Failed() || len(ours.Responses) != 1 {
		return ""
	}
	response, ok := proto.Clone(ours.Responses[0]).(*pb.RangeResponse)
	if !ok {
		return ""
	}
	cut := levelTies(request, response)
	if len(cut) == 0 {
		return ""
	}
	whole, ok := proto.Clone(request).(*pb.RangeRequest)
	if !ok {
		return ""
	}
	whole.Limit = 0
	answer := etcd.Call(ctx, script.Op{Kind: script.Range, Via: script.Stub, Request: whole})
	if answer.Failed() {
		return fmt.Sprintf("the same range without its limit fails: %s", ending(answer))
	}
	there := map[string]proto.Message{}
	for _, kv := range answer.Responses[0].(*pb.RangeResponse).Kvs {
		there[string(kv.Key)] = kv
	}
	for _, kv := range cut {
		if !proto.Equal(there[string(kv.Key)], kv) {
			return fmt.Sprintf("detcd returns %s\netcd has     %s", compactText(kv), compactText(there[string(kv.Key)]))
		}
	}
	return ""
}
