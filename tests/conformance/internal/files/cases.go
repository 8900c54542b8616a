package files

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// logCase is one log of the corpus.
type logCase struct {
	name, why string
	segment   int64 // target size of a segment
	make      func(dir string) error
	keepZeros bool // of the last segment; otherwise they are cut off, as etcd accepts that
}

// The sizes that the cases use: small ones rotate every few entries.
const (
	smallSegment = 2048
	wideSegment  = 16384
)

// soundCases are logs that etcd reads without a word.
var soundCases = []logCase{
	{"fresh", "a log that nothing was written to, with its zero tail", smallSegment, writer(), true},
	{"entries", "entries of every padding, a state after each", wideSegment, writer(entries(1, 1, 24)), false},
	{"zero-tail", "entries before the zeros of a preallocated file", wideSegment, writer(entries(1, 1, 5)), true},
	{"segments", "many segments, each with its head", smallSegment, writer(entries(1, 1, 60)), false},
	{"overwritten", "a new leader's entries take the place of uncommitted ones", wideSegment,
		writer(entries(1, 1, 4), uncommitted(1, 5, 6), entries(2, 6, 3)), false},
	{"overwritten-later", "the entries that are replaced lie in earlier segments", smallSegment,
		writer(entries(1, 1, 4), uncommitted(1, 5, 30), entries(3, 7, 20)), false},
	{"snapshots", "two snapshot records, the last of them is where reading starts", smallSegment,
		writer(entries(1, 1, 20), snapshot(1, 12), entries(1, 21, 20), snapshot(1, 33), entries(2, 41, 6)), false},
	{"snapshot-ahead", "a snapshot record beyond the commit index does not count", wideSegment,
		writer(entries(1, 1, 6), snapshot(1, 4), uncommitted(1, 7, 5), snapshot(1, 10)), false},
	{"configuration", "configuration changes, a no-op, an entry without bytes", wideSegment, writer(configuration), false},
}

// write is one step of a log that the real etcd's package writes.
type write func(w *wal.WAL) error

// writer returns a function that creates a log and takes the steps.
func writer(steps ...write) func(dir string) error {
	return func(dir string) error {
		metadata, err := proto.Marshal(&pb.Metadata{NodeID: proto.Uint64(0xa1), ClusterID: proto.Uint64(0xc1)})
		if err != nil {
			return err
		}
		w, err := wal.Create(zap.NewNop(), dir, metadata)
		if err != nil {
			return err
		}
		defer w.Close()
		for _, step := range steps {
			if err := step(w); err != nil {
				return err
			}
		}
		return nil
	}
}

// entries saves n entries from the index on, one after the other, each committed at once.
func entries(term, first, n uint64) write {
	return func(w *wal.WAL) error {
		for index := first; index < first+n; index++ {
			entry, err := putEntry(term, index, int(index*37%160))
			if err != nil {
				return err
			}
			if err := w.Save(state(term, index), []*raftpb.Entry{entry}); err != nil {
				return err
			}
		}
		return nil
	}
}

// uncommitted saves n entries at once and leaves the state as it is.
func uncommitted(term, first, n uint64) write {
	return func(w *wal.WAL) error {
		var batch []*raftpb.Entry
		for index := first; index < first+n; index++ {
			entry, err := putEntry(term, index, 90)
			if err != nil {
				return err
			}
			batch = append(batch, entry)
			if len(batch) == 3 || index == first+n-1 {
				if err := w.Save(&raftpb.HardState{}, batch); err != nil {
					return err
				}
				batch = nil
			}
		}
		return nil
	}
}

// bigEntry saves one committed entry of several sectors without a zero byte in its value.
func bigEntry(term, index uint64) write {
	return func(w *wal.WAL) error {
		entry, err := putEntry(term, index, 2200)
		if err != nil {
			return err
		}
		return w.Save(state(term, index), []*raftpb.Entry{entry})
	}
}

func snapshot(term, index uint64) write {
	return func(w *wal.WAL) error {
		return w.SaveSnapshot(&walpb.Snapshot{
			Index: proto.Uint64(index), Term: proto.Uint64(term),
			ConfState: &raftpb.ConfState{Voters: []uint64{0xa1}, AutoLeave: proto.Bool(false)},
		})
	}
}

func configuration(w *wal.WAL) error {
	change, err := proto.Marshal(&raftpb.ConfChange{
		Type: raftpb.ConfChangeType_ConfChangeAddNode.Enum(), NodeId: proto.Uint64(0xa1),
		Context: []byte(`{"id":161,"peerURLs":["http://127.0.0.1:12380"],"name":"conformance"}`),
	})
	if err != nil {
		return err
	}
	batch := []*raftpb.Entry{
		{Term: proto.Uint64(1), Index: proto.Uint64(1), Type: raftpb.EntryType_EntryConfChange.Enum(), Data: change},
		{Term: proto.Uint64(2), Index: proto.Uint64(2)},
		{Term: proto.Uint64(2), Index: proto.Uint64(3), Data: []byte{}},
		{Term: proto.Uint64(2), Index: proto.Uint64(4), Type: raftpb.EntryType_EntryNormal.Enum()},
	}
	return w.Save(state(2, 4), batch)
}

func state(term, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(term), Vote: proto.Uint64(0xa1), Commit: proto.Uint64(commit)}
}

func putEntry(term, index uint64, size int) (*raftpb.Entry, error) {
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(1 + (uint64(i)*7+index)%250)
	}
	request := &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: 1<<48 | index},
		Put:    &pb.PutRequest{Key: []byte("key"), Value: value},
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	return &raftpb.Entry{Term: proto.Uint64(term), Index: proto.Uint64(index), Data: data}, err
}

// segments lists the log's files in order.
func segments(dir string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	sort.Strings(names)
	return names, err
}

// nth returns the path of a segment, counted from the end if negative.
func nth(dir string, n int) (string, error) {
	paths, err := segments(dir)
	if err != nil {
		return "", err
	}
	if n < 0 {
		n += len(paths)
	}
	if n < 0 || n >= len(paths) {
		return "", os.ErrNotExist
	}
	return paths[n], nil
}

// trim cuts the zero tail off a segment.
func trim(path string) error {
	return edit(path, func(_ []frame, data []byte) ([]byte, error) { return data, nil })
}

func littleEndian(field uint64) []byte { return binary.LittleEndian.AppendUint64(nil, field) }
