//! Each oracle accepts a small lawful story and refuses it once one thing in it is wrong.
#![cfg(madsim)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::mvcc::KeyValue;
use detcd_io::store::buckets::{RevisionKey, encode_key_value, encode_tombstone};
use detcd_proto::{etcdserverpb as pb, mvccpb};
use detcd_sim::check::compactions::Compactions;
use detcd_sim::check::lawful::REQUEST_BYTES_MAX;
use detcd_sim::check::rows::Rows;
use detcd_sim::check::{Promise, Violation, durability, latency, linear, progress};
use detcd_sim::leases::{Did, LeaseHistory, LeaseOperation, Saw};
use detcd_sim::options::{Kind, Options};
use detcd_sim::record::{Answer, Ask, History, Operation, Outcome, Watched, Watches};

type Table = BTreeMap<Bytes, Bytes>;

/// A store in which `a` is written at 2, written again at 3 and deleted at 4.
fn table() -> Table {
    table_under(LeaseId(0), LeaseId(0))
}

/// The same, with the leases that the two versions hang on.
fn table_under(first: LeaseId, second: LeaseId) -> Table {
    let mut table = Table::new();
    for (main, version, value, lease) in [(2, 1, "x", first), (3, 2, "y", second)] {
        let kv = KeyValue {
            key: Bytes::from_static(b"a"),
            created: 2,
            modified: main,
            version,
            value: Bytes::from_static(value.as_bytes()),
            lease,
        };
        let mut bytes = Vec::new();
        encode_key_value(&kv, &mut bytes);
        table.insert(Bytes::copy_from_slice(RevisionKey::put(Revision::new(main, 0)).as_slice()), bytes.into());
    }
    let mut bytes = Vec::new();
    encode_tombstone(b"a", &mut bytes);
    table.insert(Bytes::copy_from_slice(RevisionKey::tombstone(Revision::new(4, 0)).as_slice()), bytes.into());
    table
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, cluster_id: 1, member_id: 2, raft_term: 3 })
}

fn kv(modified: i64, version: i64, value: &'static str) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::from_static(b"a"),
        create_revision: 2,
        mod_revision: modified,
        version,
        value: Bytes::from_static(value.as_bytes()),
        lease: 0,
    }
}

fn put(value: &'static str, revision: i64) -> (Ask, Outcome) {
    let (key, value) = (Bytes::from_static(b"a"), Bytes::from_static(value.as_bytes()));
    let request = pb::PutRequest { key, value, ..pb::PutRequest::default() };
    let response = pb::PutResponse { header: header(revision), prev_kv: None };
    (Ask::Put(request), Outcome::Answered(Answer::Put(response)))
}

fn range(revision: i64, kvs: Vec<mvccpb::KeyValue>) -> (Ask, Outcome) {
    let request = pb::RangeRequest { key: Bytes::from_static(b"a"), ..pb::RangeRequest::default() };
    let count = kvs.len() as i64;
    let response = pb::RangeResponse { header: header(revision), kvs, more: false, count };
    (Ask::Range(request), Outcome::Answered(Answer::Range(response)))
}

fn delete(revision: i64) -> (Ask, Outcome) {
    let request = pb::DeleteRangeRequest { key: Bytes::from_static(b"a"), ..pb::DeleteRangeRequest::default() };
    let response = pb::DeleteRangeResponse { header: header(revision), deleted: 1, prev_kvs: Vec::new() };
    (Ask::Delete(request), Outcome::Answered(Answer::Delete(response)))
}

/// One operation after the other, as they were told.
fn story(told: Vec<(Ask, Outcome)>) -> History {
    let mut history = History::default();
    for ((ask, outcome), place) in told.into_iter().zip(0..) {
        history.operations.push(Operation::told(ask, (place * 2 + 1, place * 2 + 2), outcome));
    }
    history
}

fn lawful() -> Vec<(Ask, Outcome)> {
    vec![
        put("x", 2),
        range(2, vec![kv(2, 1, "x")]),
        put("y", 3),
        range(3, vec![kv(3, 2, "y")]),
        delete(4),
        range(4, vec![]),
    ]
}

fn judge(told: Vec<(Ask, Outcome)>, table: &Table) -> Result<(), Violation> {
    judge_among(1, told, table)
}

fn judge_among(members: usize, told: Vec<(Ask, Outcome)>, table: &Table) -> Result<(), Violation> {
    let history = story(told);
    let rows = Rows::read(table)?;
    durability::check(&history, &rows)?;
    linear::check(&history, &rows, &Compactions::of(&history), members)
}

fn broken(told: Vec<(Ask, Outcome)>, table: &Table) -> Option<Promise> {
    judge(told, table).err().map(|violation| violation.promise)
}

#[test]
fn a_lawful_story_passes() {
    assert_eq!(judge(lawful(), &table()), Ok(()));
}

#[test]
fn a_lost_write_breaks_durability() {
    let mut table = table();
    table.pop_last();
    assert_eq!(broken(lawful(), &table), Some(Promise::Durability), "the delete is gone");
    table.pop_last();
    assert_eq!(broken(lawful()[..3].to_vec(), &table), Some(Promise::Durability), "the second put is gone");
    table.pop_first();
    assert_eq!(broken(Vec::new(), &table), None, "an empty store holds what nobody was told");
}

#[test]
fn a_revision_with_two_meanings_breaks_durability() {
    let mut told = lawful();
    told[1] = range(2, vec![kv(2, 1, "another")]);
    assert_eq!(broken(told, &table()), Some(Promise::Durability));
    let mut told = lawful();
    told[0] = put("another", 2);
    assert_eq!(broken(told, &table()), Some(Promise::Durability));
}

#[test]
fn a_stale_read_breaks_the_order() {
    let mut told = lawful();
    told[3] = range(2, vec![kv(2, 1, "x")]);
    assert_eq!(broken(told.clone(), &table()), Some(Promise::Linear));
    let (Ask::Range(request), outcome) = told[3].clone() else { unreachable!() };
    told[3] = (Ask::Range(pb::RangeRequest { serializable: true, ..request }), outcome);
    assert_eq!(broken(told, &table()), Some(Promise::Linear));
}

#[test]
fn a_read_that_may_be_stale_is_not_staler_than_what_its_member_has_told() {
    let mut told = lawful();
    let (Ask::Range(request), _) = told[3].clone() else { unreachable!() };
    let (_, outcome) = range(2, vec![kv(2, 1, "x")]);
    told[3] = (Ask::Range(pb::RangeRequest { serializable: true, ..request }), outcome);
    let rows = Rows::read(&table()).expect("a lawful table");
    let judge = |history: &History| linear::check(history, &rows, &Compactions::of(history), 3).is_ok();
    let mut history = story(told);
    assert!(!judge(&history), "the member wrote 3 itself");
    history.operations[3].place = 1;
    assert!(judge(&history), "another one is behind");
    history.operations[1].place = 1;
    assert!(judge(&history), "it has told no more than 2");
    history.operations[2].place = 1;
    assert!(!judge(&history), "it has told 3");
    history.begin_life(1, 6);
    assert!(judge(&history), "it has started again since, and may have forgotten");
    history.begin_life(1, 7);
    assert!(judge(&history), "it is not known which life it was");
}

#[test]
fn a_wrong_field_breaks_the_order() {
    let mut told = lawful();
    if let Outcome::Answered(Answer::Range(response)) = &mut told[1].1 {
        response.count = 2;
    }
    assert_eq!(broken(told, &table()), Some(Promise::Linear));
    let mut told = lawful();
    told[5] = range(4, vec![kv(3, 2, "y")]);
    assert_eq!(broken(told, &table()), Some(Promise::Linear), "it was deleted at 4");
}

#[test]
fn a_write_that_nobody_asked_for_breaks_the_order() {
    let mut told = lawful();
    told.remove(2);
    assert_eq!(broken(told.clone(), &table()), Some(Promise::Linear));
    // Unless somebody did who never learned of it.
    let (ask, _) = put("y", 3);
    told.insert(0, (ask.clone(), Outcome::Uncertain("given up".to_owned())));
    assert_eq!(broken(told.clone(), &table()), None);
    // One that began after the revision was told cannot be it.
    told.remove(0);
    told.push((ask, Outcome::Uncertain("given up".to_owned())));
    assert_eq!(broken(told, &table()), Some(Promise::Linear));
}

#[test]
fn a_write_that_goes_back_in_time_breaks_the_order() {
    let told = vec![put("y", 3), put("x", 2), delete(4)];
    assert_eq!(broken(told, &table()), Some(Promise::Linear));
}

/// A request that no store carries out, and what it is turned away with.
fn unlawful() -> (Ask, &'static str) {
    let (Ask::Put(put), _) = put("z", 0) else { unreachable!() };
    let request = pb::request_op::Request::RequestPut(put);
    let success = vec![pb::RequestOp { request: Some(request) }; 2];
    let text = "etcdserver: duplicate key given in txn request";
    (Ask::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() }), text)
}

#[test]
fn an_unlawful_request_that_passes_breaks_the_order() {
    let (ask, text) = unlawful();
    let refused = |text: &str| Outcome::Rejected(tonic::Code::InvalidArgument, text.to_owned());
    let with = |outcome: Outcome| {
        let mut told = lawful();
        told.push((ask.clone(), outcome));
        told
    };
    assert_eq!(broken(with(refused(text)), &table()), None);
    assert_eq!(broken(with(refused("etcdserver: key is not provided")), &table()), Some(Promise::Linear));
    let (Ask::Put(kept), _) = put("", 0) else { unreachable!() };
    let kept = Ask::Put(pb::PutRequest { ignore_lease: true, lease: 1, ..kept });
    for (text, expected) in [("lease is provided", None), ("requested lease not found", Some(Promise::Linear))] {
        let mut told = lawful();
        told.push((kept.clone(), refused(&format!("etcdserver: {text}"))));
        assert_eq!(broken(told, &table()), expected, "{text}");
    }
    // Carried out: the second of two puts is what shows.
    let put = pb::response_op::Response::ResponsePut(pb::PutResponse { header: header(5), prev_kv: None });
    let responses = vec![pb::ResponseOp { response: Some(put) }; 2];
    let response = pb::TxnResponse { header: header(5), succeeded: true, responses };
    assert_eq!(broken(with(Outcome::Answered(Answer::Txn(response))), &table()), Some(Promise::Durability));
    let nothing = pb::TxnResponse { header: header(4), succeeded: true, responses: Vec::new() };
    assert_eq!(broken(with(Outcome::Answered(Answer::Txn(nothing))), &table()), Some(Promise::Linear));
}

#[test]
fn a_lawful_request_that_is_turned_away_breaks_the_order() {
    let (_, text) = unlawful();
    let mut told = lawful();
    told.push((put("z", 0).0, Outcome::Rejected(tonic::Code::InvalidArgument, text.to_owned())));
    assert_eq!(broken(told, &table()), Some(Promise::Linear));
}

#[test]
fn a_request_that_is_too_large_is_turned_away() {
    let (Ask::Put(put), _) = put("", 0) else { unreachable!() };
    let judge = |bytes: usize| {
        let ask = Ask::Put(pb::PutRequest { value: vec![b'.'; bytes].into(), ..put.clone() });
        let text = "etcdserver: request is too large".to_owned();
        let told = [lawful(), vec![(ask, Outcome::Rejected(tonic::Code::InvalidArgument, text))]].concat();
        broken(told, &table())
    };
    assert_eq!(judge(REQUEST_BYTES_MAX), None);
    assert_eq!(judge(1_500_000), Some(Promise::Linear));
}

/// The lawful story at one operation a second, the last of them of `seconds`, with compactions by age at these revisions.
fn aged(logged: &[i64], told: Vec<(Ask, Outcome)>, seconds: u64) -> (History, Compactions) {
    let mut history = story(told);
    let last = history.operations.len() - 1;
    for (operation, place) in history.operations.iter_mut().zip(0..) {
        operation.sent = Duration::from_secs(place);
    }
    history.operations[last].sent = Duration::from_secs(seconds);
    let compactions = Compactions::of(&history).and_by_age(Duration::from_secs(10), logged, &history);
    (history, compactions)
}

#[test]
fn a_lease_that_is_kept_must_stay() {
    let put = |value, revision, lease, ignore_lease| {
        let (Ask::Put(request), outcome) = put(value, revision) else { unreachable!() };
        (Ask::Put(pb::PutRequest { lease, ignore_lease, ..request }), outcome)
    };
    let told = |keeps| vec![put("x", 2, 7, false), put("y", 3, 0, keeps), delete(4)];
    let (kept, dropped) = (table_under(LeaseId(7), LeaseId(7)), table_under(LeaseId(7), LeaseId(0)));
    assert_eq!((broken(told(true), &kept), broken(told(false), &dropped)), (None, None));
    assert_eq!(broken(told(true), &dropped), Some(Promise::Linear), "it was to be kept");
    assert_eq!(broken(told(false), &kept), Some(Promise::Linear), "nobody asked for that");
    let missing = (
        put("z", 5, 0, true).0,
        Outcome::Rejected(tonic::Code::InvalidArgument, "etcdserver: key not found".to_owned()),
    );
    assert_eq!(broken([told(true), vec![missing]].concat(), &kept), None, "there is no key any more");
}

#[test]
fn what_is_young_must_not_be_compacted_by_age() {
    let mut told = lawful();
    let past = pb::RangeRequest { key: Bytes::from_static(b"a"), revision: 2, ..pb::RangeRequest::default() };
    let text = "etcdserver: mvcc: required revision has been compacted".to_owned();
    told.push((Ask::Range(past), Outcome::Rejected(tonic::Code::OutOfRange, text)));
    let judge = |logged: &[i64], seconds| {
        let (history, compactions) = aged(logged, told.clone(), seconds);
        let rows = Rows::read(&table()).expect("the table is sound");
        linear::check(&history, &rows, &compactions, 1).map_err(|violation| violation.promise)
    };
    // Revision 3 was written at the third second, so it is old at the thirteenth.
    assert_eq!(judge(&[3], 12), Ok(()));
    assert_eq!(judge(&[3], 11), Err(Promise::Linear), "revision 3 is younger than the retention");
    assert_eq!(judge(&[], 60), Err(Promise::Linear), "there was no compaction");
    assert_eq!(judge(&[2], 60), Err(Promise::Linear), "one of revision 2 leaves revision 2");
}

#[test]
fn what_is_old_must_be_compacted_by_age() {
    let judge = |logged: &[i64], calm| {
        let (history, compactions) = aged(logged, lawful(), 6);
        compactions.check_end(&history, history.operations[4].completed + 1, Duration::from_secs(calm)).is_ok()
    };
    assert!(judge(&[3, 4], 40), "what was there when the calm began is gone");
    assert!(!judge(&[3], 40), "revision 4 was there when the calm began, four retentions ago");
    assert!(!judge(&[], 40));
    assert!(judge(&[], 39), "a shorter calm shows nothing");
}

#[test]
fn silence_after_healing_breaks_progress() {
    let told = lawful();
    assert_eq!(progress::check(&story(told.clone()), 1), Ok(()));
    let nothing = progress::check(&story(told.clone()), 1_000).unwrap_err();
    assert_eq!(nothing.promise, Promise::Progress);
    let mut told = told;
    told[4].1 = Outcome::Uncertain("etcdserver: request timed out".to_owned());
    assert_eq!(progress::check(&story(told), 1).unwrap_err().promise, Promise::Progress);
}

#[test]
fn a_slow_answer_in_quiet_breaks_the_budget() {
    let mut history = story(lawful());
    assert_eq!(latency::check(&history, 1), Ok(()));
    history.operations[2].took = Duration::from_millis(500);
    assert_eq!(latency::check(&history, 1).unwrap_err().promise, Promise::Latency);
    assert_eq!(latency::check(&history, 7), Ok(()), "that was before the end of all trouble");
    history.operations[2].outcome = Outcome::Uncertain("given up".to_owned());
    assert_eq!(latency::check(&history, 1), Ok(()), "no answer is another matter");
    let request = pb::CompactionRequest { revision: 2, physical: true };
    let compacted = Outcome::Rejected(tonic::Code::OutOfRange, "compacted".to_owned());
    (history.operations[2].ask, history.operations[2].outcome) = (Ask::Compact(request), compacted);
    assert_eq!(latency::check(&history, 1), Ok(()), "it waits until everything is swept");
}

#[test]
fn a_watcher_that_keeps_up_is_told_soon() {
    let millis = Duration::from_millis;
    let mut history = story(lawful());
    for operation in &mut history.operations {
        operation.sent = millis(operation.invoked * 100);
    }
    let mut options = Options::draw(Kind::Engine, 1);
    (options.watch.pauses, options.watch.has_prompt) = (0, false);
    // Told of 2, 3 and 4 so long after somebody else: they were heard of at 100, 500 and 900 ms.
    let judge = |options: &Options, late: [u64; 3], healed: u64| {
        let mut watched = Watched::new(0, pb::WatchCreateRequest::default(), &pb::WatchResponse::default());
        for (revision, late) in (2..).zip(late) {
            let kv = Some(mvccpb::KeyValue { mod_revision: revision, ..mvccpb::KeyValue::default() });
            let events = vec![mvccpb::Event { kv, ..mvccpb::Event::default() }];
            watched.responses.push(pb::WatchResponse { events, ..pb::WatchResponse::default() });
            watched.times.push(millis(100 + (revision as u64 - 2) * 400 + late));
        }
        let watches = Watches::default();
        let _ = watches.begin(watched);
        latency::watchers(options, &watches, &history, healed).err().map(|broken| broken.promise)
    };
    assert_eq!(judge(&options, [1, 2, 60], 1), None);
    assert_eq!(judge(&options, [1, 2, 61], 1), Some(Promise::Latency));
    assert_eq!(judge(&options, [300, 200, 100], 1), None, "it catches up");
    assert_eq!(judge(&options, [1, 100, 1], 5), None, "and was told of nothing before, as far as that counts");
    options.watch.pauses = 5;
    assert_eq!(judge(&options, [1, 2, 61], 1), None, "it is slow itself");
    options.watch.has_prompt = true;
    assert_eq!(judge(&options, [1, 2, 61], 1), Some(Promise::Latency), "it is not, though others are");
}

#[test]
fn holders_of_leases_are_answered_soon() {
    let asked = |took: u64, saw: Saw| {
        let sent = Duration::from_secs(1);
        let operation = LeaseOperation { id: 7, did: Did::Renew, sent, ended: sent + Duration::from_millis(took), saw };
        let mut leases = LeaseHistory::default();
        leases.operations.push(operation);
        let judge = |healed| latency::holders(&leases, Duration::from_secs(healed)).is_ok();
        (judge(1), judge(2))
    };
    assert_eq!(asked(60, Saw::Alive(5)), (true, true));
    assert_eq!(asked(61, Saw::Alive(5)), (false, true));
    assert_eq!(asked(61, Saw::Unknown), (true, true));
}
