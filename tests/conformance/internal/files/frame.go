package files

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"

	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

// frame is one record as it lies in a file: [start, end) with length field and padding.
type frame struct {
	start, end int
	record     *walpb.Record
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frames walks the sound part of a file, up to its end or a zero length.
func frames(data []byte) ([]frame, error) {
	var out []frame
	for at := 0; at+8 <= len(data); {
		field := binary.LittleEndian.Uint64(data[at:])
		if field == 0 {
			break
		}
		length, padding := int(field&(1<<56-1)), 0
		if field>>63 == 1 {
			padding = int(field >> 56 & 7)
		}
		end := at + 8 + length + padding
		if end > len(data) {
			return nil, fmt.Errorf("the frame at %d ends at %d, behind the end %d", at, end, len(data))
		}
		record := &walpb.Record{}
		if err := proto.Unmarshal(data[at+8:at+8+length], record); err != nil {
			return nil, err
		}
		out = append(out, frame{start: at, end: end, record: record})
		at = end
	}
	return out, nil
}

// encoded is the frame of a record.
func encoded(record *walpb.Record) ([]byte, error) {
	body, err := proto.Marshal(record)
	if err != nil {
		return nil, err
	}
	field := uint64(len(body))
	padding := (8 - len(body)%8) % 8
	if padding > 0 {
		field |= uint64(0x80|padding) << 56
	}
	out := binary.LittleEndian.AppendUint64(nil, field)
	return append(append(out, body...), make([]byte, padding)...), nil
}

// edit rewrites a file's sound part: change gets its frames and bytes, zero tail cut off.
func edit(path string, change func(frames []frame, data []byte) ([]byte, error)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found, err := frames(data)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%s holds no record", path)
	}
	changed, err := change(found, data[:found[len(found)-1].end])
	if err != nil {
		return err
	}
	return os.WriteFile(path, changed, 0o600)
}

// appendRecord adds a record of any type behind the last one, with the checksum that continues the chain.
func appendRecord(path string, kind int64, content []byte) error {
	return edit(path, func(frames []frame, data []byte) ([]byte, error) {
		running := frames[len(frames)-1].record.GetCrc()
		record := &walpb.Record{Type: &kind, Crc: proto.Uint32(crc32.Update(running, castagnoli, content)), Data: content}
		more, err := encoded(record)
		return append(data, more...), err
	})
}
