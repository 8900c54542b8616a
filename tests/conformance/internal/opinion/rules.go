package opinion

import (
	"cmp"
	"slices"
	"sort"
	"strings"
)

// What a request is rejected with that changes nothing.
const (
	compacted   = "etcdserver: mvcc: required revision has been compacted"
	future      = "etcdserver: mvcc: required revision is a future revision"
	keyNotFound = "etcdserver: key not found"
	// Which leases there are is no matter of this model.
	leaseNotFound = "etcdserver: requested lease not found"
)

// put writes a key.
func (v *view) put(request *Put) *Response {
	before, was := v.get(request.Key)
	kv := KV{Key: request.Key, Value: request.Value, Lease: request.Lease, ModRevision: v.revision + 1, CreateRevision: v.revision + 1, Version: 1}
	response := &Response{Revision: v.revision + 1}
	if was {
		kv.CreateRevision, kv.Version = before.CreateRevision, before.Version+1
		if request.IgnoreValue {
			kv.Value = before.Value
		}
		if request.IgnoreLease {
			kv.Lease = before.Lease
		}
		if request.PrevKV {
			response.PrevKV = &before
		}
	}
	v.change(change{kv: kv})
	return response
}

// remove deletes keys.
func (v *view) remove(request *Delete) *Response {
	gone := v.within(request.Key, request.RangeEnd)
	for _, kv := range gone {
		v.change(change{kv: KV{Key: kv.Key, ModRevision: v.revision + 1}, isGone: true})
	}
	response := &Response{Revision: v.now(), Deleted: int64(len(gone))}
	if request.PrevKV {
		response.PrevKVs = gone
	}
	return response
}

// find reads keys.
func (v *view) find(request *Range) *Response {
	from := v
	if request.Revision > 0 {
		from = &view{store: v.store, read: request.Revision}
	}
	found := from.within(request.Key, request.RangeEnd)
	response := &Response{Revision: v.now(), Count: int64(len(found))}
	if request.CountOnly {
		return response
	}
	found = slices.DeleteFunc(found, func(kv KV) bool {
		return request.MinModRevision != 0 && kv.ModRevision < request.MinModRevision ||
			request.MaxModRevision != 0 && kv.ModRevision > request.MaxModRevision ||
			request.MinCreateRevision != 0 && kv.CreateRevision < request.MinCreateRevision ||
			request.MaxCreateRevision != 0 && kv.CreateRevision > request.MaxCreateRevision
	})
	if less := order(request); less != nil {
		sort.SliceStable(found, func(i, j int) bool { return less(found[i], found[j]) })
	}
	if request.Limit > 0 && int64(len(found)) > request.Limit {
		found, response.More = found[:request.Limit], true
	}
	if request.KeysOnly {
		for i := range found {
			found[i].Value = ""
			// Such a range is read from the index, which knows no leases, unless values are what it is sorted by.
			if request.SortTarget != 4 {
				found[i].Lease = 0
			}
		}
	}
	response.KVs = found
	return response
}

// order is how a range wants its keys; nil for by key, ascending.
func order(request *Range) func(one, other KV) bool {
	number := func(of func(KV) int64) func(one, other KV) bool {
		return func(one, other KV) bool { return of(one) < of(other) }
	}
	var less func(one, other KV) bool
	switch request.SortTarget {
	case 0:
		less = func(one, other KV) bool { return one.Key < other.Key }
	case 1:
		less = number(func(kv KV) int64 { return kv.Version })
	case 2:
		less = number(func(kv KV) int64 { return kv.CreateRevision })
	case 3:
		less = number(func(kv KV) int64 { return kv.ModRevision })
	default:
		less = func(one, other KV) bool { return one.Value < other.Value }
	}
	if request.SortOrder == 2 {
		return func(one, other KV) bool { return less(other, one) }
	}
	return less
}

// branch is what a transaction does, chosen before anything of it is done.
type branch struct {
	succeeded bool
	steps     []Request
	nested    map[int]*branch
}

func (v *view) choose(txn *Txn) *branch {
	chosen := &branch{succeeded: true, nested: map[int]*branch{}}
	for i := range txn.Compare {
		chosen.succeeded = chosen.succeeded && v.holds(&txn.Compare[i])
	}
	chosen.steps = txn.Failure
	if chosen.succeeded {
		chosen.steps = txn.Success
	}
	for i, step := range chosen.steps {
		if step.Txn != nil {
			chosen.nested[i] = v.choose(step.Txn)
		}
	}
	return chosen
}

func (v *view) run(chosen *branch) *Response {
	response := &Response{Succeeded: chosen.succeeded}
	for i, step := range chosen.steps {
		var nested NestedResponse
		switch {
		case step.Put != nil:
			nested.Put = v.put(step.Put)
		case step.Range != nil:
			nested.Range = v.find(step.Range)
		case step.Delete != nil:
			nested.Delete = v.remove(step.Delete)
		case step.Txn != nil:
			nested.Txn = v.run(chosen.nested[i])
		}
		response.Responses = append(response.Responses, nested)
	}
	return response
}

// What a condition is about.
const (
	targetVersion = iota
	targetCreate
	targetMod
	targetValue
	targetLease
)

// given is what a condition gives, by what it is about.
func (c *Compare) given() (target int, number int64, value string) {
	switch {
	case c.Version != nil:
		return targetVersion, *c.Version, ""
	case c.CreateRevision != nil:
		return targetCreate, *c.CreateRevision, ""
	case c.ModRevision != nil:
		return targetMod, *c.ModRevision, ""
	case c.Value != nil:
		return targetValue, 0, *c.Value
	case c.Lease != nil:
		return targetLease, *c.Lease, ""
	}
	return -1, 0, ""
}

// holds says whether a condition does, for every key that it names. A missing
// key has zeros, and no value.
func (v *view) holds(compare *Compare) bool {
	target, number, value := compare.given()
	if compare.Target != nil && *compare.Target != target {
		// What is given for something else is not looked at.
		target, number, value = *compare.Target, 0, ""
	}
	found := v.within(compare.Key, compare.RangeEnd)
	if len(found) == 0 {
		if target == targetValue {
			return false
		}
		found = []KV{{}}
	}
	for _, kv := range found {
		if !related(compare.Result, standing(kv, target, number, value)) {
			return false
		}
	}
	return true
}

// standing is how a key stands to what is given, as a number below, at or above
// zero. What nobody knows is equal to everything.
func standing(kv KV, target int, number int64, value string) int {
	switch target {
	case targetVersion:
		return cmp.Compare(kv.Version, number)
	case targetCreate:
		return cmp.Compare(kv.CreateRevision, number)
	case targetMod:
		return cmp.Compare(kv.ModRevision, number)
	case targetValue:
		return strings.Compare(kv.Value, value)
	case targetLease:
		return cmp.Compare(kv.Lease, number)
	}
	return 0
}

// related says whether a result asks for such an order. One that nobody knows
// asks for nothing.
func related(result string, order int) bool {
	switch result {
	case "equal":
		return order == 0
	case "greater":
		return order > 0
	case "less":
		return order < 0
	case "not_equal":
		return order != 0
	}
	return true
}

// rejections are all reasons for which a request would be rejected here. Which
// of several comes first is not the point.
func (v *view) rejections(request *Request) map[string]bool {
	reasons := map[string]bool{}
	v.reject(request, reasons)
	unlawful(request, reasons)
	return reasons
}

func (v *view) reject(request *Request, reasons map[string]bool) {
	switch {
	case request.Put != nil:
		if _, was := v.get(request.Put.Key); !was && (request.Put.IgnoreValue || request.Put.IgnoreLease) {
			reasons[keyNotFound] = true
		}
	case request.Range != nil || request.Stream != nil:
		asked := request.Range
		if asked == nil {
			asked = request.Stream
		}
		if asked.Revision > v.revision {
			reasons[future] = true
		}
		if asked.Revision > 0 && asked.Revision < v.compacted {
			reasons[compacted] = true
		}
	case request.Compact != nil:
		if request.Compact.Revision > v.revision {
			reasons[future] = true
		}
		if request.Compact.Revision <= v.compacted {
			reasons[compacted] = true
		}
	case request.Txn != nil:
		v.rejectBranch(v.choose(request.Txn), reasons)
	}
}

func (v *view) rejectBranch(chosen *branch, reasons map[string]bool) {
	for i := range chosen.steps {
		if nested, is := chosen.nested[i]; is {
			v.rejectBranch(nested, reasons)
		} else {
			v.reject(&chosen.steps[i], reasons)
		}
	}
}
