// Package opinion is a second opinion on histories that the simulator writes:
// Porcupine searches for an order of all operations that etcd's rules allow.
// The rules are written here once more, in another language and by nobody who
// looked at the simulator's; only the format of a history is shared
// (docs/format/history.md).
package opinion

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// Head is a history's first line.
type Head struct {
	Format     string `json:"format"`
	Version    int    `json:"version"`
	Kind       string `json:"kind"`
	Seed       uint64 `json:"seed"`
	Less       string `json:"less"`
	Mutant     string `json:"mutant"`
	Members    int    `json:"members"`
	Operations int    `json:"operations"`
	// Revisions of compactions that nobody asked for; nil if they are not known.
	Compacted []int64 `json:"compacted"`
}

// History is what clients asked and were told.
type History struct {
	Head       Head
	Operations []Operation
}

// Operation is one of them. Invoked and Completed count all events of the run.
type Operation struct {
	Client    int     `json:"client"`
	Invoked   int64   `json:"invoked"`
	Completed int64   `json:"completed"`
	Ask       Request `json:"ask"`
	Outcome   Outcome `json:"outcome"`
}

// Request is one of these.
type Request struct {
	Put     *Put     `json:"put"`
	Range   *Range   `json:"range"`
	Stream  *Range   `json:"stream"`
	Delete  *Delete  `json:"delete"`
	Txn     *Txn     `json:"txn"`
	Hash    *Hash    `json:"hash"`
	Compact *Compact `json:"compact"`
}

type Put struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Lease       int64  `json:"lease"`
	PrevKV      bool   `json:"prev_kv"`
	IgnoreValue bool   `json:"ignore_value"`
	IgnoreLease bool   `json:"ignore_lease"`
}

type Range struct {
	Key               string `json:"key"`
	RangeEnd          string `json:"range_end"`
	Limit             int64  `json:"limit"`
	Revision          int64  `json:"revision"`
	SortOrder         int    `json:"sort_order"`
	SortTarget        int    `json:"sort_target"`
	Serializable      bool   `json:"serializable"`
	KeysOnly          bool   `json:"keys_only"`
	CountOnly         bool   `json:"count_only"`
	MinModRevision    int64  `json:"min_mod_revision"`
	MaxModRevision    int64  `json:"max_mod_revision"`
	MinCreateRevision int64  `json:"min_create_revision"`
	MaxCreateRevision int64  `json:"max_create_revision"`
}

type Delete struct {
	Key      string `json:"key"`
	RangeEnd string `json:"range_end"`
	PrevKV   bool   `json:"prev_kv"`
}

type Txn struct {
	Compare []Compare `json:"compare"`
	Success []Request `json:"success"`
	Failure []Request `json:"failure"`
}

// Compare has one of its last five. Target is there if it is not that one's,
// Result is not if nobody knows it.
type Compare struct {
	Key            string  `json:"key"`
	RangeEnd       string  `json:"range_end"`
	Result         string  `json:"result"`
	Target         *int    `json:"target"`
	Version        *int64  `json:"version"`
	CreateRevision *int64  `json:"create_revision"`
	ModRevision    *int64  `json:"mod_revision"`
	Lease          *int64  `json:"lease"`
	Value          *string `json:"value"`
}

type Hash struct {
	Revision int64 `json:"revision"`
}

type Compact struct {
	Revision int64 `json:"revision"`
	Physical bool  `json:"physical"`
}

// Outcome is one of these.
type Outcome struct {
	Answered *Response `json:"answered"`
	Rejected *Rejected `json:"rejected"`
	Refused  *string   `json:"refused"`
	Unknown  *string   `json:"unknown"`
}

type Rejected struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Response is an answer to any request, also to one within a transaction.
type Response struct {
	Revision  int64            `json:"revision"`
	PrevKV    *KV              `json:"prev_kv"`
	KVs       []KV             `json:"kvs"`
	Count     int64            `json:"count"`
	More      bool             `json:"more"`
	Deleted   int64            `json:"deleted"`
	PrevKVs   []KV             `json:"prev_kvs"`
	Succeeded bool             `json:"succeeded"`
	Responses []NestedResponse `json:"responses"`
}

// NestedResponse is one of these.
type NestedResponse struct {
	Put    *Response `json:"put"`
	Range  *Response `json:"range"`
	Delete *Response `json:"delete"`
	Txn    *Response `json:"txn"`
}

func (n NestedResponse) any() *Response {
	for _, response := range []*Response{n.Put, n.Range, n.Delete, n.Txn} {
		if response != nil {
			return response
		}
	}
	return &Response{}
}

type KV struct {
	Key            string `json:"key"`
	Value          string `json:"value"`
	CreateRevision int64  `json:"create_revision"`
	ModRevision    int64  `json:"mod_revision"`
	Version        int64  `json:"version"`
	Lease          int64  `json:"lease"`
}

// The longest line: a range of all keys, or a transaction of such.
const lineBytesMax = 16 << 20

// Read reads a history. What it does not know is an error, so that nothing is
// passed over.
func Read(path string) (*History, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 1<<16), lineBytesMax)
	history := &History{}
	for number := 1; lines.Scan(); number++ {
		if number == 1 {
			err = json.Unmarshal(lines.Bytes(), &history.Head)
			if err == nil && (history.Head.Format != "detcd-history" || history.Head.Version != 1) {
				err = fmt.Errorf("format %q, version %d", history.Head.Format, history.Head.Version)
			}
		} else {
			var operation Operation
			err = json.Unmarshal(lines.Bytes(), &operation)
			history.Operations = append(history.Operations, operation)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(history.Operations) != history.Head.Operations {
		return nil, fmt.Errorf("%s: %d operations of %d", path, len(history.Operations), history.Head.Operations)
	}
	return history, nil
}
