//! What the fuzzer `apply` calls, over its seeds and over each of them with one byte changed: requests as a log has them, applied by
//! the engine and by its slow twin.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use detcd_core::ids::Ticket;
use detcd_io::codec::entry::{self, Field};
use detcd_io::codec::fuzz::{commands, input};
use detcd_proto::etcdserverpb as pb;
use detcd_tests::apply::fuzz::{self, Tally};
use pb::request_op::Request;
use proptest::collection::vec;
use proptest::prelude::*;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/apply")
}

fn payload(field: Field, message: &impl prost::Message) -> Bytes {
    entry::encode(Ticket(7), field, message)
}

fn put(key: &'static str, value: &'static str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), lease, prev_kv: true, ..pb::PutRequest::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: true }
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..pb::RangeRequest::default() }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// One of everything that a key can meet.
fn keys() -> Vec<Bytes> {
    let sorted = pb::RangeRequest { sort_order: 2, sort_target: 3, limit: 2, min_mod_revision: 2, ..range("a", "\0") };
    let earlier = pb::RangeRequest { revision: 3, keys_only: true, ..range("\0", "\0") };
    let keep = pb::PutRequest { ignore_lease: true, ..put("a", "3", 0) };
    vec![
        payload(Field::Put, &put("a", "1", 0)),
        payload(Field::Put, &put("b", "2", 1)),
        payload(Field::Put, &keep),
        payload(Field::DeleteRange, &delete("b", "")),
        payload(Field::Put, &put("b", "4", -2)),
        payload(Field::Compaction, &pb::CompactionRequest { revision: 4, physical: true }),
        payload(Field::DeleteRange, &delete("a", "c")),
        payload(Field::Compaction, &pb::CompactionRequest { revision: 7, physical: false }),
        payload(
            Field::Txn,
            &pb::TxnRequest {
                success: vec![op(Request::RequestRange(sorted)), op(Request::RequestRange(earlier))],
                ..pb::TxnRequest::default()
            },
        ),
    ]
}

/// Compares and transactions inside a transaction.
fn transactions() -> Vec<Bytes> {
    use pb::compare::TargetUnion;
    let compare = |key: &'static str, result, target, operand| pb::Compare {
        result,
        target,
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(operand),
    };
    let inner = pb::TxnRequest {
        compare: vec![compare("a", 1, 0, TargetUnion::Version(0))],
        success: vec![op(Request::RequestPut(put("d", "then", 1)))],
        failure: vec![op(Request::RequestPut(put("d", "else", 0)))],
    };
    let outer = pb::TxnRequest {
        compare: vec![
            compare("a", 0, 3, TargetUnion::Value("1".into())),
            compare("a", 3, 2, TargetUnion::ModRevision(9)),
        ],
        success: vec![
            op(Request::RequestPut(put("c", "x", 0))),
            op(Request::RequestTxn(inner)),
            op(Request::RequestRange(range("a", "\0"))),
            op(Request::RequestDeleteRange(delete("a", "b"))),
        ],
        failure: vec![op(Request::RequestRange(pb::RangeRequest { count_only: true, ..range("a", "") }))],
    };
    vec![
        payload(Field::Txn, &outer),
        payload(Field::Put, &put("a", "1", 0)),
        payload(Field::Txn, &outer),
        payload(Field::Txn, &outer),
    ]
}

/// Leases and what hangs on them.
fn leases() -> Vec<Bytes> {
    let checkpoint = pb::LeaseCheckpointRequest { checkpoints: vec![pb::LeaseCheckpoint { id: 5, remaining_ttl: 3 }] };
    vec![
        payload(Field::LeaseGrant, &pb::LeaseGrantRequest { ttl: 10, id: 5 }),
        payload(Field::LeaseGrant, &pb::LeaseGrantRequest { ttl: 10, id: 5 }),
        payload(Field::Put, &put("a", "1", 5)),
        payload(Field::Put, &put("b", "2", 5)),
        payload(Field::Put, &put("b", "3", 1)),
        payload(Field::LeaseCheckpoint, &checkpoint),
        payload(Field::LeaseRevoke, &pb::LeaseRevokeRequest { id: 5 }),
        payload(Field::LeaseRevoke, &pb::LeaseRevokeRequest { id: 5 }),
        payload(Field::Put, &put("a", "4", 5)),
        payload(Field::Alarm, &pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }),
    ]
}

/// What a cluster says about itself, and one thing that this version cannot carry out.
fn cluster() -> Vec<Bytes> {
    use detcd_proto::membershippb as members;
    let version = || "3.7.0".to_owned();
    let attributes = members::Attributes { name: "a".to_owned(), client_urls: vec!["http://a:2379".to_owned()] };
    let of_member = members::ClusterMemberAttrSetRequest { member_id: 1, member_attributes: Some(attributes) };
    let test = pb::DowngradeVersionTestRequest { ver: version() };
    let others = [
        pb::InternalRaftRequest { downgrade_version_test: Some(test), ..Default::default() },
        pb::InternalRaftRequest { auth_enable: Some(pb::AuthEnableRequest {}), ..Default::default() },
    ];
    let others = others.iter().map(|request| prost::Message::encode_to_vec(request).into());
    let set = [
        payload(Field::ClusterVersionSet, &members::ClusterVersionSetRequest { ver: version() }),
        payload(Field::ClusterMemberAttrSet, &of_member),
        payload(Field::DowngradeInfoSet, &members::DowngradeInfoSetRequest { enabled: true, ver: version() }),
    ];
    set.into_iter().chain(others).collect()
}

fn written() -> [(&'static str, Bytes, Tally); 5] {
    let tally = |applied, refused| Tally { applied, refused, turned_away: 0 };
    let choices: Vec<u8> = (0..400_u32).map(|at| (at * at / 3 % 251) as u8).collect();
    [
        ("choices", fuzz::drawn_input(3, &choices).into(), Tally { applied: 26, refused: 9, turned_away: 1 }),
        ("cluster", input(0, &cluster()), tally(4, 1)),
        ("keys", input(1, &keys()), tally(8, 1)),
        ("leases", input(0, &leases()), tally(7, 3)),
        ("transactions", input(9, &transactions()), tally(4, 0)),
    ]
}

fn play(bytes: &[u8]) -> Tally {
    fuzz::play(bytes, commands)
}

/// `WRITE_SEEDS=1` writes the seeds anew.
#[test]
fn the_seeds_come_to_what_they_should() {
    for (name, bytes, tally) in written() {
        let path = seeds().join(name);
        if std::env::var_os("WRITE_SEEDS").is_some() {
            fs::create_dir_all(seeds()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
        assert_eq!(play(&bytes), tally, "{name}");
    }
}

#[test]
fn whatever_was_found_stays_found() {
    for file in fs::read_dir(seeds()).unwrap() {
        play(&fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn a_changed_byte_changes_both_alike() {
    for (_, bytes, _) in written() {
        for at in 0..bytes.len() {
            for change in [1, 2, 8, 0x40, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] ^= change;
                play(&changed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the choices, the engine and its twin agree.
    #[test]
    fn any_choices_come_to_the_same(pace in 0_u8..128, choices in vec(any::<u8>(), 0..600)) {
        play(&fuzz::drawn_input(pace, &choices));
    }
}
