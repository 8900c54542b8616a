//! The oracles of the quota, of bounds and of cut responses accept a lawful story and refuse it once one thing in it is wrong.
#![cfg(madsim)]

use bytes::Bytes;
use detcd_core::alarm::Alarm;
use detcd_core::apply::Write;
use detcd_core::command::AlarmKind;
use detcd_core::ids::{MemberId, Revision};
use detcd_core::mvcc::KeyValue;
use detcd_proto::{etcdserverpb as pb, mvccpb};
use detcd_sim::check::quota::{AlarmHistory, Quotas};
use detcd_sim::check::rows::Rows;
use detcd_sim::check::{Promise, bounds, quota, watch};
use detcd_sim::gauges::Fullest;
use detcd_sim::options::{Kind, Options};
use detcd_sim::record::{Answer, Ask, History, NO_SPACE, Operation, Outcome, Sized, Watched, Watches};
use detcd_sim::sweep::scenario;

const QUOTA: u64 = 1_000;

/// A put that counts for 260 bytes.
fn put() -> Ask {
    Ask::Put(pb::PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"123"), ..Default::default() })
}

fn done(revision: i64) -> Outcome {
    let header = Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
    Outcome::Answered(Answer::Put(pb::PutResponse { header, prev_kv: None }))
}

fn no_space() -> Outcome {
    Outcome::Uncertain(NO_SPACE.to_owned())
}

/// Stores of these sizes, each measured before its operation, which follow one another.
fn story(told: Vec<(u64, Ask, Outcome)>) -> History {
    let mut history = History::default();
    for ((bytes, ask, outcome), place) in told.into_iter().zip(0..) {
        let (event, told) = (place * 10 + 1, Some(place * 10 + 2));
        history.sizes.push(Sized { event, applied: place, bytes, place: 0, told });
        history.operations.push(Operation::told(ask, (place * 10 + 3, place * 10 + 4), outcome));
    }
    history
}

fn raised(index: u64, revision: i64) -> AlarmHistory {
    let mut alarms = AlarmHistory::default();
    let alarm = Alarm { member: MemberId(1), kind: AlarmKind::NoSpace };
    let noted = alarms.on_entry((index, revision), &[Write::AlarmRaised(alarm)], |_| false);
    noted.expect("it may be raised");
    alarms
}

fn judge(told: Vec<(u64, Ask, Outcome)>, alarms: &AlarmHistory) -> Option<Promise> {
    let quotas = Quotas { bytes: &[QUOTA], place_of: &|_| Some(0) };
    quota::check(&story(told), alarms, &quotas).err().map(|violation| violation.promise)
}

#[test]
fn room_is_refused_exactly_when_there_is_none() {
    let quiet = AlarmHistory::default();
    assert_eq!(judge(vec![(739, put(), done(2)), (740, put(), no_space())], &quiet), None);
    assert_eq!(judge(vec![(739, put(), no_space())], &quiet), Some(Promise::Quota), "one byte was left");
    assert_eq!(judge(vec![(740, put(), done(2))], &quiet), Some(Promise::Quota), "it reaches the quota");
    let txn = |put: Ask| {
        let Ask::Put(put) = put else { unreachable!("it is one") };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
        Ask::Txn(pb::TxnRequest { success: vec![op.clone()], failure: vec![op.clone(), op], ..Default::default() })
    };
    assert_eq!(judge(vec![(479, txn(put()), done(2))], &quiet), None);
    assert_eq!(judge(vec![(480, txn(put()), done(2))], &quiet), Some(Promise::Quota), "the dearer branch counts");
    let free = Ask::Delete(pb::DeleteRangeRequest::default());
    assert_eq!(judge(vec![(5_000, free, no_space())], &quiet), Some(Promise::Quota), "it costs nothing");
}

#[test]
fn a_raised_alarm_explains_and_forbids() {
    let told = || vec![(900, put(), no_space()), (0, put(), no_space())];
    assert_eq!(judge(told(), &raised(1, 1)), None, "raised by the first, seen by the second");
    let late = vec![(0, put(), no_space()), (0, put(), done(5)), (900, put(), no_space())];
    assert_eq!(judge(late, &raised(2, 9)), Some(Promise::Quota), "it was raised after the first was refused");
    assert_eq!(judge(vec![(100, put(), done(2))], &raised(1, 1)), Some(Promise::Quota), "nobody had a reason to");

    let mut alarms = raised(1, 1);
    let row = Write::Row { revision: Revision::new(2, 0), kv: KeyValue::default() };
    assert!(alarms.on_entry((2, 1), std::slice::from_ref(&row), |_| false).is_err());
    assert!(alarms.on_entry((2, 1), &[Write::LeaseRemoved(detcd_core::ids::LeaseId(1))], |_| true).is_err());
    let alarm = Alarm { member: MemberId(1), kind: AlarmKind::NoSpace };
    assert_eq!(alarms.on_entry((3, 1), &[Write::AlarmLowered(alarm)], |_| false), Ok(()));
    assert_eq!(alarms.on_entry((4, 1), &[row], |_| false), Ok(()));
    assert!(alarms.on_entry((5, 2), &[Write::AlarmLowered(alarm)], |_| false).is_err(), "it is down");
}

#[test]
fn each_bound_is_seen() {
    let mut options = scenario(false);
    options.load.weights.compact = 0;
    options.watch.limits = Options::draw(Kind::Engine, 1).watch.limits;
    let limits = options.watch.limits;
    let full = Fullest {
        overlay_operations: options.member.overlay_max.operations,
        overlay_bytes: options.member.overlay_max.bytes,
        recent_bytes: limits.recent_bytes,
        outbox_bytes: limits.outbox.bytes as u64,
        outbox_messages: limits.outbox.messages as u64,
        rows_at_once: limits.chunk.rows,
    };
    let judge = |full: Fullest| bounds::check(&options, &full, &Rows::default()).err().map(|broken| broken.promise);
    assert_eq!(judge(full), None);
    let wrongs = [
        Fullest { overlay_operations: full.overlay_operations + 13, ..full },
        Fullest { overlay_bytes: full.overlay_bytes + 1, ..full },
        Fullest { recent_bytes: full.recent_bytes + 1, ..full },
        Fullest { outbox_bytes: full.outbox_bytes + 1, ..full },
        Fullest { outbox_messages: full.outbox_messages + 17, ..full },
        Fullest { rows_at_once: full.rows_at_once + 1, ..full },
    ];
    for wrong in wrongs {
        assert_eq!(judge(wrong), Some(Promise::Bounds), "{wrong:?}");
    }
}

/// What the oracle says of a watcher that got one revision in these pieces, cut at `limit`.
fn cut(fragment: bool, pieces: &[usize], limit: usize) -> Option<Promise> {
    let request = pb::WatchCreateRequest { fragment, ..pb::WatchCreateRequest::default() };
    let mut watched = Watched::new(0, request, &pb::WatchResponse::default());
    let event = mvccpb::Event {
        kv: Some(mvccpb::KeyValue { value: vec![7; 96].into(), ..Default::default() }),
        ..Default::default()
    };
    for (place, count) in pieces.iter().enumerate() {
        let fragment = place + 1 < pieces.len();
        let events = vec![event.clone(); *count];
        watched.responses.push(pb::WatchResponse { fragment, events, ..pb::WatchResponse::default() });
    }
    watch::well_cut(&watched, limit).err().map(|broken| broken.promise)
}

#[test]
fn responses_are_cut_where_they_must_be() {
    // An event takes 102 bytes, the mark that more follows two.
    assert_eq!(cut(true, &[2, 1], 207), None);
    assert_eq!(cut(true, &[2, 1], 206), Some(Promise::Watch), "two reach the limit");
    assert_eq!(cut(true, &[1, 1, 1], 206), None);
    assert_eq!(cut(true, &[1, 1, 1], 207), Some(Promise::Watch), "two fit");
    assert_eq!(cut(true, &[1], 50), None, "one may be as large as it is");
    assert_eq!(cut(false, &[3], 50), None);
    assert_eq!(cut(false, &[2, 1], 207), Some(Promise::Watch), "nobody wanted that");
    assert_eq!(watch::check(&Watches::default(), &Rows::default(), &[], Some(9)), Ok(()));
}
