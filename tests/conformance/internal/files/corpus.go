package files

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
)

// corpusBytesMax keeps the corpus small enough to live in the repository.
const corpusBytesMax = 300_000

// MakeCorpus writes every case to its own directory under out: `wal/` and `expect.json`.
// The result depends on nothing but this code and etcd's. If serverWAL is not empty, it is
// the log of a real server that was stopped, and becomes one more case.
func MakeCorpus(out, serverWAL string) (cases int, err error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return 0, err
	}
	whole := append(append([]logCase(nil), soundCases...), damagedCases...)
	if serverWAL != "" {
		whole = append(whole, logCase{
			name: "server", why: "written by a real etcd 3.7.3 that was started, used and stopped", segment: wideSegment,
			make: func(dir string) error { return copyDir(serverWAL, dir) },
		})
	}
	for _, one := range whole {
		if err := makeCase(filepath.Join(out, one.name), one); err != nil {
			return cases, fmt.Errorf("case %s: %w", one.name, err)
		}
		cases++
	}
	size, err := treeSize(out)
	if err == nil && size > corpusBytesMax {
		err = fmt.Errorf("the corpus has %d bytes, more than %d", size, corpusBytesMax)
	}
	return cases, err
}

func makeCase(dir string, one logCase) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	wal.SegmentSizeBytes = one.segment
	walDir := filepath.Join(dir, "wal")
	if err := one.make(walDir); err != nil {
		return err
	}
	if err := cutTail(walDir, one); err != nil {
		return err
	}
	judgement, err := judge(walDir, one.why)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(judgement, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "expect.json"), append(text, '\n'), 0o644)
}

// cutTail removes the zeros that the last segment was filled up with. The damaged
// cases have lost theirs when they were edited, or mean them.
func cutTail(walDir string, one logCase) error {
	if one.keepZeros {
		return nil
	}
	path, err := nth(walDir, -1)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() < one.segment {
		return err
	}
	return trim(path)
}

func treeSize(root string) (int64, error) {
	var size int64
	err := filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
