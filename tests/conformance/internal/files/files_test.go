package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func judged(t *testing.T, name string) Judgement {
	t.Helper()
	for _, one := range append(append([]logCase(nil), soundCases...), damagedCases...) {
		if one.name != name {
			continue
		}
		wal.SegmentSizeBytes = one.segment
		dir := filepath.Join(t.TempDir(), "wal")
		if err := one.make(dir); err != nil {
			t.Fatal(err)
		}
		if err := cutTail(dir, one); err != nil {
			t.Fatal(err)
		}
		out, err := judge(dir, one.why)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Fatalf("no case %q", name)
	return Judgement{}
}

// A case that is read otherwise than its sentence says has not been made as meant.
func TestTheCasesAreWhatTheySay(t *testing.T) {
	for name, want := range map[string]struct {
		class   string
		entries int
	}{
		"fresh": {"ok", 0}, "entries": {"ok", 24}, "zero-tail": {"ok", 5}, "segments": {"ok", 60},
		"overwritten": {"ok", 8}, "overwritten-later": {"ok", 26}, "snapshots": {"ok", 13},
		"snapshot-ahead": {"ok", 7}, "configuration": {"ok", 4},
		"torn-length": {"unexpected-eof", 0}, "torn-start": {"unexpected-eof", 0}, "torn-body": {"unexpected-eof", 0},
		"torn-padding": {"unexpected-eof", 0}, "torn-sector": {"unexpected-eof", 0},
		"torn-first-chunk": {"unexpected-eof", 0}, "torn-last-chunk": {"unexpected-eof", 0},
		"zero-sector-early": {"unexpected-eof", 0}, "huge-length": {"unexpected-eof", 0},
		"zeros-in-sector": {"crc-mismatch", 0}, "flipped-bit-last": {"crc-mismatch", 0},
		"garbage-behind-end": {"ok", 6}, "unknown-type": {"other", 0}, "type-zero": {"other", 0}, "crc-again": {"ok", 6},
		"gap": {"out-of-range", 0}, "other-metadata": {"metadata-conflict", 0}, "other-first-snapshot": {"snapshot-mismatch", 0},
		"missing-segment": {"sequence", 0}, "missing-first": {"no-file", 0}, "earlier-torn": {"unexpected-eof", 0},
		"earlier-shorter": {"crc-mismatch", 0}, "earlier-zeros": {"ok", 60}, "foreign-files": {"ok", 60},
	} {
		got := judged(t, name).Read
		if got.Class != want.class || len(got.Entries) != want.entries {
			t.Errorf("%s: %s with %d entries, want %s with %d (%s)", name, got.Class, len(got.Entries), want.class, want.entries, got.Error)
		}
	}
}

func TestATornLogIsRepairedUpToItsLastSoundRecord(t *testing.T) {
	out := judged(t, "torn-body")
	if out.Repaired == nil || !*out.Repaired || out.After.Class != "ok" || len(out.After.Entries) != 5 {
		t.Errorf("repaired %v, then %+v", out.Repaired, out.After)
	}
	if len(out.FilesAfter) != 2 || !strings.HasSuffix(out.FilesAfter[1].Name, ".broken") {
		t.Errorf("files after the repair: %v", out.FilesAfter)
	}
}

func TestTheCorpusIsTheSameEachTime(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if _, err := MakeCorpus(dir, ""); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(a, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		x, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		y, err := os.ReadFile(filepath.Join(b, relative))
		if string(x) != string(y) {
			t.Errorf("%s differs", relative)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func logOf(requests ...*pb.InternalRaftRequest) *Log {
	log := &Log{State: state(2, 1)}
	for i, request := range requests {
		data, err := proto.Marshal(request)
		if err != nil {
			panic(err)
		}
		log.Entries = append(log.Entries, &raftpb.Entry{Term: proto.Uint64(2), Index: proto.Uint64(uint64(i + 1)), Data: data})
	}
	return log
}

func TestIdsAndTheOrderOfAServersOwnEntriesAreLevelledAndNoMore(t *testing.T) {
	put := func(id uint64, value string) *pb.InternalRaftRequest {
		return &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: id}, Put: &pb.PutRequest{Key: []byte("k"), Value: []byte(value)}}
	}
	version := &pb.InternalRaftRequest{
		Header:            &pb.RequestHeader{ID: 5},
		ClusterVersionSet: &membershippb.ClusterVersionSetRequest{Ver: "3.7.0"},
	}
	attributes := &pb.InternalRaftRequest{
		Header:               &pb.RequestHeader{ID: 6},
		ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{Member_ID: 7},
	}
	same := func(a, b *Log) bool {
		_, err := CompareLogs(a, b)
		return err == nil
	}
	if !same(logOf(version, attributes, put(1, "v")), logOf(attributes, version, put(2, "v"))) {
		t.Error("other ids, or another order of own entries, were a difference")
	}
	if same(logOf(put(1, "v")), logOf(put(1, "w"))) {
		t.Error("another value was none")
	}
	if same(logOf(put(1, "v"), put(2, "w")), logOf(put(1, "w"), put(2, "v"))) {
		t.Error("another order of requests was none")
	}
	if same(logOf(put(1, "v")), logOf(put(0, "v"))) {
		t.Error("a missing id was none")
	}
	if same(logOf(put(1, "v")), logOf(put(1, "v"), put(2, "v"))) || same(logOf(put(1, "v"), put(2, "v")), logOf(put(1, "v"))) {
		t.Error("one entry more was none")
	}
}
