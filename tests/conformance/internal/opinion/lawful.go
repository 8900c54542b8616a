package opinion

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
)

// The most operations on one way through a transaction, by default.
const opsMax = 128

// unlawful adds all reasons for which no store would carry out a request.
func unlawful(request *Request, reasons map[string]bool) {
	switch {
	case request.Put != nil:
		reasons[noKey] = reasons[noKey] || request.Put.Key == ""
		reasons[valueGiven] = reasons[valueGiven] || request.Put.IgnoreValue && request.Put.Value != ""
		reasons[leaseGiven] = reasons[leaseGiven] || request.Put.IgnoreLease && request.Put.Lease != 0
	case request.Delete != nil:
		reasons[noKey] = reasons[noKey] || request.Delete.Key == ""
	case request.Range != nil:
		unlawfulRange(request.Range, reasons)
	case request.Stream != nil:
		asked := request.Stream
		unlawfulRange(asked, reasons)
		isByKey := asked.SortOrder == 0 || asked.SortOrder == 1 && asked.SortTarget == 0
		isBounded := asked.MinModRevision != 0 || asked.MaxModRevision != 0 || asked.MinCreateRevision != 0 || asked.MaxCreateRevision != 0
		reasons[sortedStream] = reasons[sortedStream] || !isByKey
		reasons[boundedStream] = reasons[boundedStream] || isBounded
	case request.Txn != nil:
		unlawfulTxn(request.Txn, opsMax, reasons)
		for _, branch := range [][]Request{request.Txn.Success, request.Txn.Failure} {
			reasons[duplicateKey] = reasons[duplicateKey] || writesTwice(branch)
		}
	}
	for reason, is := range reasons {
		if !is {
			delete(reasons, reason)
		}
	}
}

func unlawfulRange(asked *Range, reasons map[string]bool) {
	reasons[noKey] = reasons[noKey] || asked.Key == ""
	isKnown := asked.SortOrder >= 0 && asked.SortOrder <= 2 && asked.SortTarget >= 0 && asked.SortTarget <= 4
	reasons[unknownSort] = reasons[unknownSort] || !isKnown
}

func unlawfulTxn(txn *Txn, most int, reasons map[string]bool) {
	longest := max(len(txn.Compare), len(txn.Success), len(txn.Failure))
	reasons[tooManyOps] = reasons[tooManyOps] || longest > most
	for i := range txn.Compare {
		reasons[noKey] = reasons[noKey] || txn.Compare[i].Key == ""
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
