package opinion

import (
	"strconv"
	"strings"
)

// What a request is turned away with that no store carries out, whatever is in
// it.
const (
	noKey         = "etcdserver: key is not provided"
	valueGiven    = "etcdserver: value is provided"
	leaseGiven    = "etcdserver: lease is provided"
	tooManyOps    = "etcdserver: too many operations in txn request"
	duplicateKey  = "etcdserver: duplicate key given in txn request"
	unknownSort   = "etcdserver: invalid sort option"
	sortedStream  = "RangeStream does not support custom sort orders"
	boundedStream = "RangeStream does not support revision filters"
	tooLarge      = "etcdserver: request is too large"
)

// Bytes of a request, by default. One with a value of this length has more.
const requestBytesMax = 1_572_864

// The most operations on one way through a transaction, by default.
const opsMax = 128

// isUnlawful says whether no store would carry out a request.
func isUnlawful(request *Request) bool {
	reasons := map[string]bool{}
	unlawful(request, reasons)
	return len(reasons) > 0
}

// unlawful adds all reasons for which no store would carry out a request.
func unlawful(request *Request, reasons map[string]bool) {
	add := func(reason string, is bool) {
		if is {
			reasons[reason] = true
		}
	}
	switch {
	case request.Put != nil:
		add(noKey, request.Put.Key == "")
		add(valueGiven, request.Put.IgnoreValue && request.Put.Value != "")
		add(leaseGiven, request.Put.IgnoreLease && request.Put.Lease != 0)
		add(tooLarge, lengthOf(request.Put.Value) >= requestBytesMax)
	case request.Delete != nil:
		add(noKey, request.Delete.Key == "")
	case request.Range != nil:
		unlawfulRange(request.Range, add)
	case request.Stream != nil:
		asked := request.Stream
		unlawfulRange(asked, add)
		isByKey := asked.SortOrder == 0 || asked.SortOrder == 1 && asked.SortTarget == 0
		isBounded := asked.MinModRevision != 0 || asked.MaxModRevision != 0 || asked.MinCreateRevision != 0 || asked.MaxCreateRevision != 0
		add(sortedStream, !isByKey)
		add(boundedStream, isBounded)
	case request.Txn != nil:
		unlawfulTxn(request.Txn, opsMax, reasons)
		add(duplicateKey, writesTwice(request.Txn.Success) || writesTwice(request.Txn.Failure))
	}
}

// lengthOf is how many bytes a value has. Of a long one histories tell only how
// it begins, its length and a sum.
func lengthOf(value string) int {
	parts := strings.Split(value, "~")
	if len(parts) < 3 {
		return len(value)
	}
	length, err := strconv.Atoi(parts[len(parts)-2])
	if err != nil {
		return len(value)
	}
	return length
}

func unlawfulRange(asked *Range, add func(reason string, is bool)) {
	add(noKey, asked.Key == "")
	isKnown := asked.SortOrder >= 0 && asked.SortOrder <= 2 && asked.SortTarget >= 0 && asked.SortTarget <= 4
	add(unknownSort, !isKnown)
}

func unlawfulTxn(txn *Txn, most int, reasons map[string]bool) {
	longest := max(len(txn.Compare), len(txn.Success), len(txn.Failure))
	if longest > most {
		reasons[tooManyOps] = true
	}
	for i := range txn.Compare {
		if txn.Compare[i].Key == "" {
			reasons[noKey] = true
		}
	}
	for _, branch := range [][]Request{txn.Success, txn.Failure} {
		for i := range branch {
			switch step := &branch[i]; {
			case *step == Request{}:
				reasons[keyNotFound] = true
			case step.Txn != nil:
				unlawfulTxn(step.Txn, most-longest, reasons)
			default:
				unlawful(step, reasons)
			}
		}
	}
}

// writesTwice says whether one list of operations may write a key twice. A
// delete of everything from a key on counts as none, as in etcd. Transactions
// inside it are left out: clients of a run write keys of their own in them.
func writesTwice(branch []Request) bool {
	written := map[string]bool{}
	for _, step := range branch {
		if step.Put == nil {
			continue
		}
		key := step.Put.Key
		if written[key] {
			return true
		}
		written[key] = true
		for _, other := range branch {
			if other.Delete != nil && other.Delete.RangeEnd != "\x00" && isIn(key, other.Delete.Key, other.Delete.RangeEnd) {
				return true
			}
		}
	}
	return false
}
