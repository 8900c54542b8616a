package generate

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// survivable takes the value- and lease-keeping flags off the puts of a transaction that
// also deletes from a key on: the duplicate-key rule does not see such a delete, and the
// real etcd's process ends when the put then looks for the row that is gone. detcd refuses
// it with "key not found" (docs/compatibility.md).
func survivable(txn *pb.TxnRequest) *pb.TxnRequest {
	if deletesOpenEnded(txn) {
		keepNothing(txn)
	}
	return txn
}

func operations(txn *pb.TxnRequest) []*pb.RequestOp {
	return append(append([]*pb.RequestOp{}, txn.Success...), txn.Failure...)
}

func deletesOpenEnded(txn *pb.TxnRequest) bool {
	for _, op := range operations(txn) {
		if request := op.GetRequestDeleteRange(); request != nil && string(request.RangeEnd) == "\x00" {
			return true
		}
		if inner := op.GetRequestTxn(); inner != nil && deletesOpenEnded(inner) {
			return true
		}
	}
	return false
}

func keepNothing(txn *pb.TxnRequest) {
	for _, op := range operations(txn) {
		if put := op.GetRequestPut(); put != nil {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
		if inner := op.GetRequestTxn(); inner != nil {
			keepNothing(inner)
		}
	}
}
