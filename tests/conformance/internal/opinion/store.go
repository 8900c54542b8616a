package opinion

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sort"
)

// version is one version of a key, and those before it. A store is never
// changed: what follows from it shares what stayed.
type version struct {
	kv     KV
	isGone bool
	before *version
}

// store is a store after one revision.
type store struct {
	revision int64
	// The floor that compactions set; -1 before the first.
	compacted int64
	keys      map[string]*version
	// Stands for everything that ever changed, in its order.
	sum [16]byte
	// Stands for what the keys hold, but for the revisions of their last changes.
	look uint64
}

func empty() store {
	return store{revision: 1, compacted: -1, keys: map[string]*version{}}
}

// change is what a request does to one key.
type change struct {
	kv     KV
	isGone bool
}

// with is the store after its next revision, in which these changes are made.
func (s store) with(changes []change) store {
	keys := make(map[string]*version, len(s.keys)+1)
	for key, newest := range s.keys {
		keys[key] = newest
	}
	sum := fnv.New128a()
	sum.Write(s.sum[:])
	look := s.look
	for _, change := range changes {
		if newest := keys[change.kv.Key]; newest != nil && !newest.isGone {
			look ^= lookOf(newest.kv)
		}
		if !change.isGone {
			look ^= lookOf(change.kv)
		}
		keys[change.kv.Key] = &version{kv: change.kv, isGone: change.isGone, before: keys[change.kv.Key]}
		sum.Write([]byte(change.kv.Key))
		sum.Write([]byte{0, truth(change.isGone)})
		sum.Write([]byte(change.kv.Value))
		sum.Write(binary.BigEndian.AppendUint64([]byte{0}, uint64(change.kv.Lease)))
	}
	next := store{revision: s.revision + 1, compacted: s.compacted, keys: keys, look: look}
	sum.Sum(next.sum[:0])
	return next
}

func lookOf(kv KV) uint64 {
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%q %q %d %d %d", kv.Key, kv.Value, kv.CreateRevision, kv.Version, kv.Lease)
	return sum.Sum64()
}

func truth(is bool) byte {
	if is {
		return 1
	}
	return 0
}

// at is what a key holds after a revision.
func (s store) at(key string, revision int64) (KV, bool) {
	found := s.keys[key]
	for found != nil && found.kv.ModRevision > revision {
		found = found.before
	}
	if found == nil || found.isGone {
		return KV{}, false
	}
	return found.kv, true
}

// isIn says whether a key is in what a key and an end mean on the wire.
func isIn(candidate, key, end string) bool {
	switch end {
	case "":
		return candidate == key
	case "\x00":
		return key <= candidate
	}
	return key <= candidate && candidate < end
}

// view is a store while a request works on it.
type view struct {
	store
	changed map[string]change
	order   []string
	// The revision whose state is read; changes of the request count only at
	// the newest.
	read int64
}

func (s store) view() *view { return &view{store: s, changed: map[string]change{}, read: s.revision} }

// now is the revision that an answer tells at this point.
func (v *view) now() int64 {
	if len(v.order) == 0 {
		return v.read
	}
	return v.revision + 1
}

func (v *view) change(change change) {
	if _, was := v.changed[change.kv.Key]; !was {
		v.order = append(v.order, change.kv.Key)
	}
	v.changed[change.kv.Key] = change
}

func (v *view) changes() []change {
	var changes []change
	for _, key := range v.order {
		changes = append(changes, v.changed[key])
	}
	return changes
}

func (v *view) get(key string) (KV, bool) {
	if change, was := v.changed[key]; was {
		return change.kv, !change.isGone
	}
	return v.at(key, v.read)
}

// within is what the keys of a range hold, in their order.
func (v *view) within(key, end string) []KV {
	if end == "" {
		if kv, is := v.get(key); is {
			return []KV{kv}
		}
		return nil
	}
	var found []KV
	for candidate := range v.keys {
		if _, was := v.changed[candidate]; !was && isIn(candidate, key, end) {
			if kv, is := v.at(candidate, v.read); is {
				found = append(found, kv)
			}
		}
	}
	for candidate, change := range v.changed {
		if !change.isGone && isIn(candidate, key, end) {
			found = append(found, change.kv)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Key < found[j].Key })
	return found
}
