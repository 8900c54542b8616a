package files

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Judgement is what the real etcd says of a log. It is the JSON beside each log of
// the corpus. All indexes and terms are numbers, all bytes lower-case hexadecimal.
type Judgement struct {
	Why         string         `json:"why"`
	Files       []File         `json:"files"`
	Scan        Scan           `json:"snapshot_scan"`          // wal.ValidSnapshotEntries
	Start       SnapshotRecord `json:"start"`                  // the last snapshot of the scan: reading starts here
	VerifyClass string         `json:"verify"`                 // wal.Verify at start
	Read        Reading        `json:"read"`                   // wal.Open, ReadAll
	Repaired    *bool          `json:"repaired,omitempty"`     // wal.Repair, if the reading asks for it
	FilesAfter  []File         `json:"files_after,omitempty"`  // after the repair
	After       *Reading       `json:"after_repair,omitempty"` // read once more
}

// File is a file of the log's directory.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// SnapshotRecord is a snapshot record of the log.
type SnapshotRecord struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// Scan is the result of looking for snapshot records.
type Scan struct {
	Class     string           `json:"class"`
	Snapshots []SnapshotRecord `json:"snapshots"`
}

// Reading is the result of reading a log. Class is `ok` or the kind of the error:
// `unexpected-eof` (which a repair may heal), `crc-mismatch`, `metadata-conflict`,
// `snapshot-mismatch`, `snapshot-not-found`, `out-of-range`, `no-file`, `sequence`, `other`, `panic`.
type Reading struct {
	Class    string        `json:"class"`
	Error    string        `json:"error,omitempty"` // etcd's own text, for people
	Metadata string        `json:"metadata,omitempty"`
	Term     uint64        `json:"term"`
	Vote     uint64        `json:"vote"`
	Commit   uint64        `json:"commit"`
	Entries  []EntryRecord `json:"entries"`
}

// EntryRecord names an entry by its place and the CRC-32C of its data.
type EntryRecord struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
	Type  int32  `json:"type"`
	Bytes int    `json:"bytes"`
	CRC   uint32 `json:"crc32c"`
}

// judge asks etcd's code about the log, as a starting etcd would. The directory is not touched.
func judge(dir, why string) (Judgement, error) {
	out := Judgement{Why: why}
	work, err := os.MkdirTemp("", "judge-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(work)
	copied := filepath.Join(work, "wal")
	if err := copyDir(dir, copied); err != nil {
		return out, err
	}
	if out.Files, err = list(copied); err != nil {
		return out, err
	}
	start := firstSnapshot()
	snapshots, err := scan(copied)
	out.Scan.Class, out.Scan.Snapshots = class(err), []SnapshotRecord{}
	for _, snapshot := range snapshots {
		out.Scan.Snapshots = append(out.Scan.Snapshots, SnapshotRecord{Term: snapshot.GetTerm(), Index: snapshot.GetIndex()})
		start = snapshot
	}
	out.Start = SnapshotRecord{Term: start.GetTerm(), Index: start.GetIndex()}
	out.VerifyClass = class(verify(copied, start))
	out.Read = reading(copied, start)
	if out.Read.Class != "unexpected-eof" {
		return out, nil
	}
	repaired := wal.Repair(zap.NewNop(), copied)
	out.Repaired = &repaired
	after := reading(copied, start)
	out.After = &after
	out.FilesAfter, err = list(copied)
	return out, err
}

func scan(dir string) (snapshots []*walpb.Snapshot, err error) {
	defer recovered(&err)
	return wal.ValidSnapshotEntries(zap.NewNop(), dir)
}

func verify(dir string, start *walpb.Snapshot) (err error) {
	defer recovered(&err)
	_, err = wal.Verify(zap.NewNop(), dir, start)
	return err
}

func reading(dir string, start *walpb.Snapshot) (out Reading) {
	out.Entries = []EntryRecord{}
	err := func() (err error) {
		defer recovered(&err)
		// The reader keeps the snapshot, so it gets one of its own.
		at := &walpb.Snapshot{Index: proto.Uint64(start.GetIndex()), Term: proto.Uint64(start.GetTerm())}
		opened, err := wal.Open(zap.NewNop(), dir, at)
		if err != nil {
			return err
		}
		defer opened.Close()
		metadata, state, entries, err := opened.ReadAll()
		if err != nil {
			return err
		}
		out.Metadata = hex.EncodeToString(metadata)
		out.Term, out.Vote, out.Commit = state.GetTerm(), state.GetVote(), state.GetCommit()
		for _, entry := range entries {
			out.Entries = append(out.Entries, EntryRecord{
				Term: entry.GetTerm(), Index: entry.GetIndex(), Type: int32(entry.GetType()),
				Bytes: len(entry.GetData()), CRC: crc32.Checksum(entry.GetData(), castagnoli),
			})
		}
		return nil
	}()
	out.Class = class(err)
	if err != nil {
		out.Error = strings.ReplaceAll(err.Error(), dir, "wal")
	}
	if out.Class == "other" && strings.HasPrefix(out.Error, "unexpected block type") {
		out.Error = "unexpected block type" // the number that etcd prints here is an address
	}
	return out
}

func class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected-eof"
	case errors.Is(err, wal.ErrCRCMismatch):
		return "crc-mismatch"
	case errors.Is(err, wal.ErrMetadataConflict):
		return "metadata-conflict"
	case errors.Is(err, wal.ErrSnapshotMismatch):
		return "snapshot-mismatch"
	case errors.Is(err, wal.ErrSnapshotNotFound):
		return "snapshot-not-found"
	case errors.Is(err, wal.ErrSliceOutOfRange):
		return "out-of-range"
	case strings.Contains(err.Error(), "file sequence numbers"):
		return "sequence"
	case errors.Is(err, wal.ErrFileNotFound), strings.Contains(err.Error(), "wal: file "):
		return "no-file"
	case strings.HasPrefix(err.Error(), "etcd's code panics"):
		return "panic"
	}
	return "other"
}

func list(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := []File{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name(), err)
		}
		if !strings.HasSuffix(entry.Name(), ".tmp") {
			out = append(out, File{Name: entry.Name(), Size: info.Size()})
		}
	}
	return out, nil
}
