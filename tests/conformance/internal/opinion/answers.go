package opinion

import "sort"

// mayWrite says whether a request can change anything.
func mayWrite(ask *Request) bool {
	if ask.Txn == nil {
		return ask.Put != nil || ask.Delete != nil
	}
	for _, branch := range [][]Request{ask.Txn.Success, ask.Txn.Failure} {
		for i := range branch {
			if mayWrite(&branch[i]) {
				return true
			}
		}
	}
	return false
}

// hasWritten says whether an answer tells that something was changed.
func hasWritten(ask *Request, answer *Response) bool {
	return ask.Put != nil || ask.Delete != nil && answer.Deleted > 0 || ask.Txn != nil && txnHasWritten(answer)
}

func txnHasWritten(answer *Response) bool {
	for _, nested := range answer.Responses {
		if nested.Put != nil || nested.Delete != nil && nested.Delete.Deleted > 0 || nested.Txn != nil && txnHasWritten(nested.Txn) {
			return true
		}
	}
	return false
}

// isSerializable says whether a request may be answered from the past.
func isSerializable(ask *Request) bool {
	switch {
	case ask.Range != nil:
		return ask.Range.Serializable
	case ask.Stream != nil:
		return ask.Stream.Serializable
	case ask.Txn == nil:
		return false
	}
	for _, branch := range [][]Request{ask.Txn.Success, ask.Txn.Failure} {
		for i := range branch {
			if branch[i].Range == nil || !branch[i].Range.Serializable {
				return false
			}
		}
	}
	return true
}

// revisions are those that a request reads on any of its ways.
func revisions(ask *Request) []int64 {
	switch {
	case ask.Range != nil && ask.Range.Revision > 0:
		return []int64{ask.Range.Revision}
	case ask.Stream != nil:
		return []int64{ask.Stream.Revision}
	case ask.Compact != nil:
		// One at the very revision refuses it, too.
		return []int64{ask.Compact.Revision - 1}
	case ask.Txn == nil:
		return nil
	}
	var found []int64
	for _, branch := range [][]Request{ask.Txn.Success, ask.Txn.Failure} {
		for i := range branch {
			found = append(found, revisions(&branch[i])...)
		}
	}
	return found
}

// same says whether an answer is what the rules say, but for the order of
// elements that are equal by what they are sorted by.
func same(ask *Request, ruled, told *Response) bool {
	if ruled.Revision != told.Revision || ruled.Count != told.Count || ruled.More != told.More || ruled.Deleted != told.Deleted || ruled.Succeeded != told.Succeeded {
		return false
	}
	if (ruled.PrevKV == nil) != (told.PrevKV == nil) || ruled.PrevKV != nil && *ruled.PrevKV != *told.PrevKV {
		return false
	}
	asked := ask.Range
	if asked == nil {
		asked = ask.Stream
	}
	if !sameKVs(ruled.PrevKVs, told.PrevKVs, nil) || !sameKVs(ruled.KVs, told.KVs, asked) {
		return false
	}
	return ask.Txn == nil || sameBranch(ask.Txn, ruled, told)
}

func sameKVs(ruled, told []KV, asked *Range) bool {
	if len(ruled) != len(told) {
		return false
	}
	if asked != nil && asked.SortTarget != 0 {
		less := order(asked)
		isHidden := asked.SortTarget == 4 && asked.KeysOnly
		isSorted := sort.SliceIsSorted(told, func(i, j int) bool { return less(told[i], told[j]) })
		if !isHidden && !isSorted {
			return false
		}
		ruled, told = byKey(ruled), byKey(told)
	}
	for i := range ruled {
		if ruled[i] != told[i] {
			return false
		}
	}
	return true
}

func byKey(kvs []KV) []KV {
	sorted := append([]KV(nil), kvs...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Key < sorted[j].Key })
	return sorted
}

func sameBranch(txn *Txn, ruled, told *Response) bool {
	if len(ruled.Responses) != len(told.Responses) {
		return false
	}
	steps := txn.Failure
	if ruled.Succeeded {
		steps = txn.Success
	}
	for i := range ruled.Responses {
		one, other := ruled.Responses[i], told.Responses[i]
		isKind := (one.Put == nil) == (other.Put == nil) && (one.Range == nil) == (other.Range == nil) && (one.Delete == nil) == (other.Delete == nil) && (one.Txn == nil) == (other.Txn == nil)
		if !isKind || !same(&steps[i], one.any(), other.any()) {
			return false
		}
	}
	return true
}
