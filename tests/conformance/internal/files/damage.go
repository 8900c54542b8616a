package files

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

const sector = 512

// damagedCases are logs as crashes, disks and operators leave them. All but a few
// are made of six entries in one segment, the last of several sectors.
var damagedCases = []logCase{
	torn("torn-length", "the last frame ends inside its length field", func(last frame) int { return last.start + 3 }),
	torn("torn-start", "the last frame ends right behind its length field", func(last frame) int { return last.start + 8 }),
	torn("torn-body", "the last frame ends inside its record", func(last frame) int { return last.start + 700 }),
	torn("torn-padding", "the last frame lacks its last byte", func(last frame) int { return last.end - 1 }),
	damaged("torn-sector", "a whole sector of the last record was never written", inLast(func(last frame, data []byte) {
		from := (last.start/sector + 2) * sector
		zero(data[from : from+sector])
	})),
	damaged("torn-first-chunk", "the last record is zero up to the first sector boundary", inLast(func(last frame, data []byte) {
		zero(data[last.start+8 : (last.start+8)/sector*sector+sector])
	})),
	damaged("torn-last-chunk", "the last record is zero from its last sector boundary on", inLast(func(last frame, data []byte) {
		zero(data[(last.end-1)/sector*sector : last.end])
	})),
	damaged("zeros-in-sector", "zeros inside one sector are no torn write", inLast(func(last frame, data []byte) {
		from := (last.start/sector+2)*sector + 100
		zero(data[from : from+300])
	})),
	damaged("flipped-bit", "one bit of an early record is wrong", func(frames []frame, data []byte) ([]byte, error) {
		data[frames[5].start+30] ^= 4
		return data, nil
	}),
	damaged("flipped-bit-last", "one bit of the last record is wrong", inLast(func(last frame, data []byte) {
		data[last.start+1000] ^= 4
	})),
	damaged("zero-sector-early", "a lost sector of a record with sound ones behind it", func(frames []frame, data []byte) ([]byte, error) {
		big := frames[len(frames)-2]
		zero(data[(big.start/sector+2)*sector : (big.start/sector+3)*sector])
		return data, nil
	}),
	damaged("garbage-behind-end", "bytes of an older write behind a zero length", func(_ []frame, data []byte) ([]byte, error) {
		return append(append(data, make([]byte, 16)...), bytes.Repeat([]byte("stale"), 40)...), nil
	}),
	damaged("huge-length", "a length far beyond the file", func(_ []frame, data []byte) ([]byte, error) {
		return append(append(data, littleEndian(1<<50)...), make([]byte, 64)...), nil
	}),
	added("unknown-type", "a record of a type that is not known", 9, []byte("?")),
	added("type-zero", "a record of type zero", 0, []byte("?")),
	added("crc-again", "a right crc record in the middle of a file", wal.CrcType, nil),
	addedMessage("gap", "an entry that leaves out three indexes", wal.EntryType, func() (proto.Message, error) { return putEntry(1, 10, 5) }),
	addedMessage("other-metadata", "metadata of another member", wal.MetadataType, func() (proto.Message, error) {
		return &pb.Metadata{NodeID: proto.Uint64(0xa2), ClusterID: proto.Uint64(0xc1)}, nil
	}),
	addedMessage("other-first-snapshot", "the first snapshot again, with another term", wal.SnapshotType, func() (proto.Message, error) {
		return &walpb.Snapshot{Index: proto.Uint64(0), Term: proto.Uint64(3)}, nil
	}),
	segmented("missing-segment", "a segment in the middle is gone", func(dir string) error { return onSegment(dir, 2, os.Remove) }),
	segmented("missing-first", "the first segment is gone", func(dir string) error { return onSegment(dir, 0, os.Remove) }),
	segmented("earlier-torn", "an earlier segment ends inside a record", func(dir string) error {
		return onSegment(dir, 1, func(path string) error { return cutTo(path, func(last frame) int { return last.end - 12 }) })
	}),
	segmented("earlier-shorter", "an earlier segment lacks its last record", func(dir string) error {
		return onSegment(dir, 1, func(path string) error { return cutTo(path, func(last frame) int { return last.start }) })
	}),
	segmented("earlier-zeros", "zeros behind the last record of an earlier segment", func(dir string) error {
		return onSegment(dir, 1, func(path string) error {
			return edit(path, func(_ []frame, data []byte) ([]byte, error) { return append(data, make([]byte, 600)...), nil })
		})
	}),
	segmented("empty-last", "the last segment was created and never written", func(dir string) error {
		return onSegment(dir, -1, func(path string) error { return os.Truncate(path, 0) })
	}),
	segmented("foreign-files", "files that are no segments", func(dir string) error {
		for _, name := range []string{"notes.txt", "0.tmp", "0000000000000000-0000000000000000.wal.broken", "zz-1.wal"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("not a log"), 0o600); err != nil {
				return err
			}
		}
		return nil
	}),
}

// damaged makes the usual log and rewrites its only segment.
func damaged(name, why string, change func(frames []frame, data []byte) ([]byte, error)) logCase {
	write := writer(entries(1, 1, 5), bigEntry(1, 6))
	return logCase{name: name, why: why, segment: wideSegment, make: func(dir string) error {
		if err := write(dir); err != nil {
			return err
		}
		return onSegment(dir, -1, func(path string) error { return edit(path, change) })
	}}
}

// lastEntry is the big record of the usual log; the state behind it is dropped so that it comes last.
func lastEntry(frames []frame) (frame, error) {
	last := frames[len(frames)-2]
	if last.record.GetType() != wal.EntryType || last.end-last.start < 2000 {
		return last, fmt.Errorf("the last but one record is of type %d", last.record.GetType())
	}
	return last, nil
}

func inLast(change func(last frame, data []byte)) func(frames []frame, data []byte) ([]byte, error) {
	return func(frames []frame, data []byte) ([]byte, error) {
		last, err := lastEntry(frames)
		if err != nil {
			return nil, err
		}
		data = data[:last.end]
		change(last, data)
		return data, nil
	}
}

func torn(name, why string, end func(last frame) int) logCase {
	return damaged(name, why, func(frames []frame, data []byte) ([]byte, error) {
		last, err := lastEntry(frames)
		if err != nil {
			return nil, err
		}
		return data[:end(last)], nil
	})
}

// added makes the usual log with one more record, whose checksum is right.
func added(name, why string, kind int64, content []byte) logCase {
	write := writer(entries(1, 1, 6))
	return logCase{name: name, why: why, segment: wideSegment, make: func(dir string) error {
		if err := write(dir); err != nil {
			return err
		}
		return onSegment(dir, -1, func(path string) error { return appendRecord(path, kind, content) })
	}}
}

func addedMessage(name, why string, kind int64, message func() (proto.Message, error)) logCase {
	write := writer(entries(1, 1, 6))
	return logCase{name: name, why: why, segment: wideSegment, make: func(dir string) error {
		content, err := message()
		if err != nil {
			return err
		}
		encoded, err := proto.Marshal(content)
		if err != nil {
			return err
		}
		if err := write(dir); err != nil {
			return err
		}
		return onSegment(dir, -1, func(path string) error { return appendRecord(path, kind, encoded) })
	}}
}

// segmented makes a log of several segments and changes its directory.
func segmented(name, why string, change func(dir string) error) logCase {
	write := writer(entries(1, 1, 60))
	return logCase{name: name, why: why, segment: smallSegment, make: func(dir string) error {
		if err := write(dir); err != nil {
			return err
		}
		return change(dir)
	}}
}

func onSegment(dir string, n int, change func(path string) error) error {
	path, err := nth(dir, n)
	if err != nil {
		return fmt.Errorf("segment %d of %s: %w", n, filepath.Base(filepath.Dir(dir)), err)
	}
	return change(path)
}

func cutTo(path string, end func(last frame) int) error {
	return edit(path, func(frames []frame, data []byte) ([]byte, error) {
		return data[:end(frames[len(frames)-1])], nil
	})
}

func zero(data []byte) {
	for i := range data {
		data[i] = 0
	}
}
