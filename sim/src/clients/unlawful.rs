//! Requests that are turned away whatever the store holds, and comparisons that hardly anybody makes: what is lawful is for the oracles to say.

use bytes::Bytes;
use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request;

use crate::options::pick;
use crate::record::Ask;

/// A number that no enumeration has.
const UNKNOWN: i32 = 9;

/// A request about `key`, or about none, that would write `value`.
pub(super) fn draw(dice: &mut Entropy, key: Bytes, value: Bytes) -> Ask {
    let put = pb::PutRequest { key: key.clone(), value, ..pb::PutRequest::default() };
    let range = pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() };
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..pb::DeleteRangeRequest::default() };
    let nobody = Bytes::new();
    match dice.draw(0, 15) {
        0 => Ask::Put(pb::PutRequest { key: nobody, ..put }),
        1 => Ask::Put(pb::PutRequest { ignore_value: true, ..put }),
        2 => Ask::Put(pb::PutRequest { ignore_lease: true, lease: 1, ..put }),
        3 => Ask::Range(pb::RangeRequest { key: nobody, ..range }),
        4 => Ask::Range(pb::RangeRequest { sort_order: UNKNOWN, ..range }),
        5 => Ask::Range(pb::RangeRequest { sort_target: UNKNOWN, ..range }),
        6 => Ask::Stream(pb::RangeRequest { sort_order: 2, ..range }),
        7 => Ask::Stream(pb::RangeRequest { max_mod_revision: 5, ..range }),
        8 => Ask::Delete(pb::DeleteRangeRequest { key: nobody, ..delete }),
        9 => txn(vec![Request::RequestPut(put.clone()), Request::RequestPut(put)]),
        10 => txn(vec![Request::RequestPut(put), Request::RequestDeleteRange(delete)]),
        11 => {
            let end = Bytes::from_static(b"l");
            let delete = pb::DeleteRangeRequest { range_end: end, ..delete };
            txn(vec![
                Request::RequestDeleteRange(delete.clone()),
                Request::RequestDeleteRange(delete),
                Request::RequestPut(put),
            ])
        }
        12 => txn(vec![Request::RequestRange(range); 129]),
        13 => Ask::Txn(pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..pb::TxnRequest::default() }),
        14 => {
            let compare = vec![compare(dice, nobody)];
            Ask::Txn(pb::TxnRequest { compare, ..pb::TxnRequest::default() })
        }
        _ => {
            let compare = vec![compare(dice, key)];
            let success = vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }];
            Ask::Txn(pb::TxnRequest { compare, success, failure: Vec::new() })
        }
    }
}

fn txn(requests: Vec<Request>) -> Ask {
    let success = requests.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect();
    Ask::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() })
}

/// By the lease, by what is not what is given, or by what nobody knows.
fn compare(dice: &mut Entropy, key: Bytes) -> pb::Compare {
    let given = pick(dice, &[TargetUnionKind::Lease, TargetUnionKind::Version]);
    let number = pick(dice, &[0, 0, 1]);
    pb::Compare {
        result: pick(dice, &[0, 0, 1, 2, 3, UNKNOWN]),
        target: pick(dice, &[4, 4, 4, 2, UNKNOWN]),
        key,
        range_end: Bytes::new(),
        target_union: Some(match given {
            TargetUnionKind::Lease => TargetUnion::Lease(number),
            TargetUnionKind::Version => TargetUnion::Version(number),
        }),
    }
}

#[derive(Clone, Copy)]
enum TargetUnionKind {
    Lease,
    Version,
}
