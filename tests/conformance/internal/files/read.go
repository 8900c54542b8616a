// Package files lets the real etcd's own code judge write-ahead logs.
//
// It reads what detcd wrote as strictly as a starting etcd would, and compares
// it with what the real etcd logged for the same operations. The other way
// round, it writes logs – sound and damaged – together with what etcd's reader
// says of each, for detcd's reader to agree with.
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Log is what etcd's code reads from a write-ahead log, from its first entry on.
type Log struct {
	Metadata  []byte
	State     *raftpb.HardState
	Entries   []*raftpb.Entry
	Snapshots []*walpb.Snapshot
}

// Read reads a log the way a starting etcd does. The directory is not touched: a copy is read.
func Read(walDir string) (log *Log, err error) {
	defer recovered(&err)
	work, err := os.MkdirTemp("", "wal-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	copied := filepath.Join(work, "wal")
	if err := copyDir(walDir, copied); err != nil {
		return nil, err
	}

	log = &Log{}
	if log.Snapshots, err = wal.ValidSnapshotEntries(zap.NewNop(), copied); err != nil {
		return nil, fmt.Errorf("ValidSnapshotEntries: %w", err)
	}
	if _, err := wal.Verify(zap.NewNop(), copied, firstSnapshot()); err != nil {
		return nil, fmt.Errorf("Verify: %w", err)
	}
	opened, err := wal.Open(zap.NewNop(), copied, firstSnapshot())
	if err != nil {
		return nil, fmt.Errorf("Open: %w", err)
	}
	defer opened.Close()
	if log.Metadata, log.State, log.Entries, err = opened.ReadAll(); err != nil {
		return nil, fmt.Errorf("ReadAll: %w", err)
	}
	return log, nil
}

// firstSnapshot stands for the start of the log.
func firstSnapshot() *walpb.Snapshot {
	return &walpb.Snapshot{Index: proto.Uint64(0), Term: proto.Uint64(0)}
}

// recovered turns a panic of etcd's code, which it answers some damage with, into an error.
func recovered(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("etcd's code panics: %v", cause)
	}
}

// copyDir copies the files of a directory, without filling the holes that zeros can be.
func copyDir(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() || strings.HasSuffix(entry.Name(), ".tmp") {
			continue
		}
		if err := copySparse(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()

	block, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	var size int64
	for {
		n, err := io.ReadFull(in, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := out.WriteAt(block[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}
