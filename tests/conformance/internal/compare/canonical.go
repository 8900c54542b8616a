package compare

import (
	"sort"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"detcd.io/conformance/internal/script"
)

// ownValue lists the fields whose value is a server's own affair, by message.
// They are compared as "set" or "not set". Ids are not among them: both servers
// advertise the same, so they must compute the same.
var ownValue = map[protoreflect.FullName][]protoreflect.Name{
	"etcdserverpb.ResponseHeader": {"raft_term"},
	"etcdserverpb.StatusResponse": {"dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex", "raftTerm"},
}

// canonical returns a copy of the answer in which all that may differ is levelled.
func canonical(op script.Op, outcome Outcome) Outcome {
	out := outcome
	out.Responses = nil
	for _, response := range outcome.Responses {
		levelled := proto.Clone(response)
		switch request := op.Request.(type) {
		case *pb.RangeRequest:
			if ranged, ok := levelled.(*pb.RangeResponse); ok && op.Kind == script.Range {
				levelTies(request, ranged)
			}
		case *pb.TxnRequest:
			if txn, ok := levelled.(*pb.TxnResponse); ok {
				levelTxn(request, txn)
			}
		}
		levelLease(levelled)
		levelAlarms(levelled)
		levelOwn(levelled.ProtoReflect())
		out.Responses = append(out.Responses, levelled)
	}
	return out
}

// levelAlarms puts alarms in one order: etcd keeps them in a map, and its text form has one space or two between fields.
func levelAlarms(message proto.Message) {
	switch response := message.(type) {
	case *pb.AlarmResponse:
		sort.Slice(response.Alarms, func(i, j int) bool {
			left, right := response.Alarms[i], response.Alarms[j]
			return left.Alarm < right.Alarm || left.Alarm == right.Alarm && left.MemberID < right.MemberID
		})
	case *pb.StatusResponse:
		for i, text := range response.Errors {
			response.Errors[i] = strings.Join(strings.Fields(text), " ")
		}
		sort.Strings(response.Errors)
	}
}

func levelOwn(message protoreflect.Message) {
	for _, name := range ownValue[message.Descriptor().FullName()] {
		field := message.Descriptor().Fields().ByName(name)
		if field == nil || !message.Has(field) {
			continue
		}
		switch field.Kind() {
		case protoreflect.Uint64Kind:
			message.Set(field, protoreflect.ValueOfUint64(1))
		case protoreflect.Int64Kind:
			message.Set(field, protoreflect.ValueOfInt64(1))
		default:
			panic("no level is known for field " + string(field.FullName()))
		}
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				levelOwn(value.List().Get(i).Message())
			}
		default:
			levelOwn(value.Message())
		}
		return true
	})
}

// withoutIDs levels who answered, in answers that are canonical already.
func withoutIDs(outcome Outcome) Outcome {
	for _, response := range outcome.Responses {
		levelIDs(response.ProtoReflect())
	}
	return outcome
}

func levelIDs(message protoreflect.Message) {
	if header, ok := message.Interface().(*pb.ResponseHeader); ok {
		header.ClusterId, header.MemberId = min(header.ClusterId, 1), min(header.MemberId, 1)
		return
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() != nil && !field.IsMap() && !field.IsList() {
			levelIDs(value.Message())
		}
		return true
	})
}

func levelTxn(request *pb.TxnRequest, response *pb.TxnResponse) {
	branch := request.Failure
	if response.Succeeded {
		branch = request.Success
	}
	for i, answer := range response.Responses {
		if i >= len(branch) {
			return // more answers than requests: left as it is, to differ
		}
		if inner := answer.GetResponseRange(); inner != nil && branch[i].GetRequestRange() != nil {
			levelTies(branch[i].GetRequestRange(), inner)
		}
		if inner := answer.GetResponseTxn(); inner != nil && branch[i].GetRequestTxn() != nil {
			levelTxn(branch[i].GetRequestTxn(), inner)
		}
	}
}

// levelTies puts keys with equal sort values in key order, which etcd's sort leaves open.
// If a limit cut the answer, the last group may hold any of the tied keys: only
// its sort values stay. It returns the keys that were blanked.
func levelTies(request *pb.RangeRequest, response *pb.RangeResponse) []*mvccpb.KeyValue {
	if request.SortTarget == pb.RangeRequest_KEY {
		return nil // keys differ, so there are no ties
	}
	kvs := response.Kvs
	var last int
	for start := 0; start < len(kvs); {
		end := start + 1
		for end < len(kvs) && sortValue(request, kvs[end]) == sortValue(request, kvs[start]) {
			end++
		}
		group := kvs[start:end]
		sort.Slice(group, func(i, j int) bool { return string(group[i].Key) < string(group[j].Key) })
		last, start = start, end
	}
	if !response.More || len(kvs) == 0 {
		return nil
	}
	cut := append([]*mvccpb.KeyValue(nil), kvs[last:]...)
	for i := last; i < len(kvs); i++ {
		kvs[i] = onlySortValue(request, kvs[i])
	}
	return cut
}

// sortValue is what etcd sorted this key by, as far as the answer still shows it:
// the values of a keys-only range are gone, so all of its keys may be tied.
func sortValue(request *pb.RangeRequest, kv *mvccpb.KeyValue) string {
	switch request.SortTarget {
	case pb.RangeRequest_VERSION:
		return strconv.FormatInt(kv.Version, 10)
	case pb.RangeRequest_CREATE:
		return strconv.FormatInt(kv.CreateRevision, 10)
	case pb.RangeRequest_MOD:
		return strconv.FormatInt(kv.ModRevision, 10)
	case pb.RangeRequest_VALUE:
		return string(kv.Value)
	}
	return string(kv.Key)
}

func onlySortValue(request *pb.RangeRequest, kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	out := &mvccpb.KeyValue{}
	switch request.SortTarget {
	case pb.RangeRequest_VERSION:
		out.Version = kv.Version
	case pb.RangeRequest_CREATE:
		out.CreateRevision = kv.CreateRevision
	case pb.RangeRequest_MOD:
		out.ModRevision = kv.ModRevision
	case pb.RangeRequest_VALUE:
		out.Value = kv.Value
	}
	return out
}
