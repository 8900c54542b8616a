package files

import (
	"bytes"
	"fmt"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Compare reads both logs and says how many of their entries agree before the
// first difference, or that all do.
func Compare(etcdWAL, detcdWAL string) (agreed int, err error) {
	theirs, err := Read(etcdWAL)
	if err != nil {
		return 0, fmt.Errorf("the log of the real etcd: %w", err)
	}
	ours, err := Read(detcdWAL)
	if err != nil {
		return 0, fmt.Errorf("etcd's code refuses detcd's log: %w", err)
	}
	return CompareLogs(theirs, ours)
}

// CompareLogs compares metadata, entries and the final vote of two logs.
func CompareLogs(theirs, ours *Log) (agreed int, err error) {
	if !bytes.Equal(theirs.Metadata, ours.Metadata) {
		return 0, fmt.Errorf("metadata of etcd %x, of detcd %x", theirs.Metadata, ours.Metadata)
	}
	if err := compareBootstrap(theirs.Entries, ours.Entries); err != nil {
		return 0, err
	}
	a, err := normalised(theirs.Entries)
	if err != nil {
		return 0, fmt.Errorf("the log of the real etcd: %w", err)
	}
	b, err := normalised(ours.Entries)
	if err != nil {
		return 0, fmt.Errorf("the log of detcd: %w", err)
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i, fmt.Errorf("entry %d of the log\netcd:  %v\ndetcd: %v", i+1, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		longer, both := a, min(len(a), len(b))
		if len(b) > len(a) {
			longer = b
		}
		return both, fmt.Errorf("etcd logged %d entries, detcd %d; the first that only one has:\n%v", len(a), len(b), longer[both])
	}
	return len(a), compareStates(theirs, ours)
}

// compareStates leaves the commit index open: when it is written last is a server's own affair.
func compareStates(theirs, ours *Log) error {
	if theirs.State.GetTerm() != ours.State.GetTerm() || theirs.State.GetVote() != ours.State.GetVote() {
		return fmt.Errorf("the last state of etcd is {%v}, of detcd {%v}", theirs.State, ours.State)
	}
	if commit := ours.State.GetCommit(); commit == 0 || commit > uint64(len(ours.Entries)) {
		return fmt.Errorf("detcd's commit index %d is not in its log of %d entries", commit, len(ours.Entries))
	}
	return nil
}

// compareBootstrap compares the entries that every member makes up by itself, byte for byte.
func compareBootstrap(theirs, ours []*raftpb.Entry) error {
	const bootstrapTerm = 1
	for i, entry := range theirs {
		if entry.GetTerm() != bootstrapTerm {
			return nil
		}
		if i >= len(ours) {
			return fmt.Errorf("bootstrap entry %d is missing from detcd's log", i+1)
		}
		a, err := proto.Marshal(entry)
		if err != nil {
			return err
		}
		b, err := proto.Marshal(ours[i])
		if err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("bootstrap entry %d\netcd:  %x\ndetcd: %x", i+1, a, b)
		}
	}
	return nil
}

// item is an entry without what two servers choose by themselves: the ids of requests.
type item struct {
	term, index uint64
	kind        raftpb.EntryType
	body        string // deterministic encoding
	own         bool   // logged by the server by itself, not for a client
}

func (i item) String() string {
	text := "no-op"
	var request pb.InternalRaftRequest
	if i.body != "" && i.kind == raftpb.EntryType_EntryNormal && proto.Unmarshal([]byte(i.body), &request) == nil {
		text = prototext.MarshalOptions{}.Format(&request)
	} else if i.body != "" {
		text = fmt.Sprintf("%q", i.body)
	}
	const longest = 500
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return fmt.Sprintf("term %d, index %d, %v: %s", i.term, i.index, i.kind, text)
}

// normalised turns entries into items. Entries that a server logs by itself right
// after one another come from independent tasks: their order is levelled.
func normalised(entries []*raftpb.Entry) ([]item, error) {
	var items []item
	for _, entry := range entries {
		next, err := normalise(entry)
		if err != nil {
			return nil, err
		}
		items = append(items, next)
	}
	for start := 0; start < len(items); start++ {
		end := start
		for end < len(items) && items[end].own {
			end++
		}
		if end-start > 1 {
			sortBodies(items[start:end])
		}
		start = max(start, end-1)
	}
	return items, nil
}

// sortBodies orders what the items carry; terms and indexes stay where they are.
func sortBodies(run []item) {
	var bodies []string
	for _, item := range run {
		bodies = append(bodies, item.body)
	}
	sort.Strings(bodies)
	for i := range run {
		run[i].body = bodies[i]
	}
}

func normalise(entry *raftpb.Entry) (item, error) {
	out := item{term: entry.GetTerm(), index: entry.GetIndex(), kind: entry.GetType()}
	switch {
	case entry.GetType() == raftpb.EntryType_EntryConfChange:
		out.body = string(entry.GetData())
	case entry.GetType() != raftpb.EntryType_EntryNormal:
		return out, fmt.Errorf("entry %d has type %v", entry.GetIndex(), entry.GetType())
	case len(entry.GetData()) > 0:
		var request pb.InternalRaftRequest
		if err := proto.Unmarshal(entry.GetData(), &request); err != nil {
			return out, fmt.Errorf("entry %d: %w", entry.GetIndex(), err)
		}
		if request.GetHeader().GetID() == 0 {
			return out, fmt.Errorf("entry %d has no request id", entry.GetIndex())
		}
		request.Header.ID = 1
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(&request)
		if err != nil {
			return out, err
		}
		out.body = string(body)
		out.own = request.ClusterVersionSet != nil || request.ClusterMemberAttrSet != nil || request.DowngradeInfoSet != nil
	}
	return out, nil
}

// Describe shows a log, one line for each entry.
func Describe(log *Log) (string, error) {
	items, err := normalised(log.Entries)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("metadata %x\nstate {%v}\n%d valid snapshot records\n", log.Metadata, log.State, len(log.Snapshots))
	for _, item := range items {
		text += item.String() + "\n"
	}
	return text, nil
}
