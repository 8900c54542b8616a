//! The oracle of watching accepts what a watcher was lawfully told, and refuses it once one thing in it is wrong.
#![cfg(madsim)]

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::ids::{LeaseId, Revision};
use detcd_core::mvcc::KeyValue;
use detcd_io::store::buckets::{RevisionKey, encode_key_value, encode_tombstone};
use detcd_proto::{etcdserverpb as pb, mvccpb};
use detcd_sim::check::rows::Rows;
use detcd_sim::check::{Promise, watch};
use detcd_sim::record::{Watched, Watches};

/// A store in which `a` is written at 2, `a` and `b` are written at 3, and `a` is deleted at 4.
fn rows() -> Rows {
    Rows::read(&table()).expect("a lawful table")
}

fn table() -> BTreeMap<Bytes, Bytes> {
    let mut table: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for (main, sub, key, created) in [(2, 0, "a", 2), (3, 0, "a", 2), (3, 1, "b", 3)] {
        let kv = KeyValue {
            key: key.into(),
            created,
            modified: main,
            version: main - created + 1,
            value: "v".into(),
            lease: LeaseId(0),
        };
        let mut bytes = Vec::new();
        encode_key_value(&kv, &mut bytes);
        table.insert(Bytes::copy_from_slice(RevisionKey::put(Revision::new(main, sub)).as_slice()), bytes.into());
    }
    let mut bytes = Vec::new();
    encode_tombstone(b"a", &mut bytes);
    table.insert(Bytes::copy_from_slice(RevisionKey::tombstone(Revision::new(4, 0)).as_slice()), bytes.into());
    table
}

fn put(key: &'static str, created: i64, modified: i64) -> mvccpb::KeyValue {
    let version = modified - created + 1;
    let (key, value) = (key.into(), "v".into());
    mvccpb::KeyValue { key, create_revision: created, mod_revision: modified, version, value, lease: 0 }
}

fn event(kv: mvccpb::KeyValue, prev_kv: Option<mvccpb::KeyValue>) -> mvccpb::Event {
    mvccpb::Event { r#type: i32::from(kv.version == 0), kv: Some(kv), prev_kv }
}

fn told(revision: i64, events: Vec<mvccpb::Event>) -> pb::WatchResponse {
    let header = Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
    pb::WatchResponse { header, events, ..pb::WatchResponse::default() }
}

fn lawful() -> Vec<pb::WatchResponse> {
    let deleted = mvccpb::KeyValue { key: "a".into(), mod_revision: 4, ..mvccpb::KeyValue::default() };
    vec![
        told(2, vec![event(put("a", 2, 2), None)]),
        told(3, vec![event(put("a", 2, 3), Some(put("a", 2, 2))), event(put("b", 3, 3), None)]),
        told(3, Vec::new()),
        told(4, vec![event(deleted, Some(put("a", 2, 3)))]),
    ]
}

fn all_keys(start: i64) -> pb::WatchCreateRequest {
    let (key, range_end) = ("a".into(), Bytes::from_static(b"\0"));
    pb::WatchCreateRequest { key, range_end, start_revision: start, prev_kv: true, ..Default::default() }
}

/// What the oracle says of responses to a watcher.
fn judge(request: pb::WatchCreateRequest, responses: Vec<pb::WatchResponse>) -> Option<Promise> {
    let watches = Watches::default();
    let mut watched = Watched::new(0, request, &told(1, Vec::new()));
    watched.responses = responses;
    let _ = watches.begin(watched);
    watch::check(&watches, &rows(), &[], None).err().map(|violation| violation.promise)
}

/// The same of one who is told only that `b` is gone at 4, where the table has it written there, too, before or after that.
fn judge_overwritten(puts: &[i64], deletes: i64, compactions: &[i64]) -> Option<Promise> {
    let mut table = table();
    for place in puts {
        let value = table[RevisionKey::put(Revision::new(3, 1)).as_slice()].clone();
        table.insert(Bytes::copy_from_slice(RevisionKey::put(Revision::new(4, *place)).as_slice()), value);
    }
    let mut bytes = Vec::new();
    encode_tombstone(b"b", &mut bytes);
    let gone = RevisionKey::tombstone(Revision::new(4, deletes));
    table.insert(Bytes::copy_from_slice(gone.as_slice()), bytes.into());
    let kv = mvccpb::KeyValue { key: "b".into(), mod_revision: 4, ..mvccpb::KeyValue::default() };
    let request = pb::WatchCreateRequest { key: "b".into(), start_revision: 4, ..Default::default() };
    let watches = Watches::default();
    let mut watched = Watched::new(0, request, &told(4, Vec::new()));
    watched.responses = vec![told(4, vec![event(kv, None)]), told(4, Vec::new())];
    let _ = watches.begin(watched);
    let rows = Rows::read(&table).expect("a lawful table");
    watch::check(&watches, &rows, compactions, None).err().map(|violation| violation.promise)
}

#[test]
fn only_a_compaction_of_its_revision_takes_away_what_that_overwrote() {
    assert_eq!(judge_overwritten(&[1], 2, &[3, 4]), None);
    assert_eq!(judge_overwritten(&[1], 2, &[3]), Some(Promise::Watch));
    assert_eq!(judge_overwritten(&[2], 1, &[3, 4]), Some(Promise::Watch), "what follows a delete stays");
}

#[test]
fn what_is_lawful_passes() {
    assert_eq!(judge(all_keys(0), lawful()), None);
    assert_eq!(judge(all_keys(3), lawful().split_off(1)), None);
    let no_puts = pb::WatchCreateRequest { filters: vec![0], ..all_keys(0) };
    assert_eq!(judge(no_puts, lawful().split_off(2)), None);
    assert_eq!(judge(all_keys(0), Vec::new()), None, "what breaks off at once owes nothing");
}

#[test]
fn each_wrong_thing_is_seen() {
    type Wrong = fn(&mut Vec<pb::WatchResponse>);
    let wrongs: [(&str, Wrong); 9] = [
        ("a gap", |responses| drop(responses.remove(0))),
        ("a repeat", |responses| responses.insert(1, responses[0].clone())),
        ("another order", |responses| responses[1].events.swap(0, 1)),
        ("half a revision", |responses| drop(responses[1].events.pop())),
        ("a revision in two parts", |responses| {
            let rest = responses[1].events.pop().into_iter().collect();
            responses.insert(2, told(3, rest));
        }),
        ("progress ahead", |responses| responses.insert(1, told(3, Vec::new()))),
        ("no previous value", |responses| responses[1].events[0].prev_kv = None),
        ("a wrong previous value", |responses| responses[3].events[0].prev_kv = Some(put("a", 2, 2))),
        ("a header behind its changes", |responses| responses[3] = told(3, responses[3].events.clone())),
    ];
    for (name, wrong) in wrongs {
        let mut responses = lawful();
        wrong(&mut responses);
        assert_eq!(judge(all_keys(0), responses), Some(Promise::Watch), "{name}");
    }
}

#[test]
fn only_a_compaction_that_was_ends_a_watcher() {
    let ended = |compact_revision, told_before: usize| {
        let end = pb::WatchResponse { canceled: true, compact_revision, ..told(4, Vec::new()) };
        let watches = Watches::default();
        let mut watched = Watched::new(0, all_keys(0), &told(1, Vec::new()));
        watched.responses = [&lawful()[..told_before], &[end]].concat();
        let _ = watches.begin(watched);
        watch::check(&watches, &rows(), &[2, 4], None).err().map(|violation| violation.promise)
    };
    assert_eq!(ended(4, 1), None);
    assert_eq!(ended(3, 1), Some(Promise::Watch), "there was none at 3");
    assert_eq!(ended(5, 1), Some(Promise::Watch), "nor at 5");
    assert_eq!(ended(4, 4), Some(Promise::Watch), "it has all of that");
}

#[test]
fn nothing_is_told_after_the_end() {
    let overtaken = |compact_revision| pb::WatchResponse { canceled: true, compact_revision, ..told(4, Vec::new()) };
    let given_up = || overtaken(0);
    let judge = |ends: &[pb::WatchResponse]| {
        let mut watched = Watched::new(0, all_keys(0), &told(1, Vec::new()));
        for response in [&lawful()[..1], ends].concat() {
            watched.add(&response);
        }
        let watches = Watches::default();
        let _ = watches.begin(watched);
        watch::check(&watches, &rows(), &[4], None).err().map(|violation| violation.promise)
    };
    assert_eq!(judge(&[overtaken(4), given_up()]), None);
    assert_eq!(judge(&[lawful()[1].clone(), given_up()]), None);
    let wrongs = [
        [overtaken(4), overtaken(4)].to_vec(),
        [overtaken(4), told(4, Vec::new())].to_vec(),
        [overtaken(4), given_up(), given_up()].to_vec(),
        [given_up(), given_up()].to_vec(),
        [given_up(), lawful()[1].clone()].to_vec(),
        [given_up(), overtaken(4)].to_vec(),
    ];
    for wrong in wrongs {
        assert_eq!(judge(&wrong), Some(Promise::Watch), "{wrong:?}");
    }
}

#[test]
fn nothing_is_told_below_the_start() {
    assert_eq!(judge(all_keys(3), lawful()), Some(Promise::Watch));
    assert_eq!(judge(all_keys(9), vec![told(4, Vec::new())]), Some(Promise::Watch));
}

#[test]
fn a_client_that_waits_in_vain_is_seen() {
    let watches = Watches::default();
    watches.end(0, true);
    assert_eq!(watch::check(&watches, &rows(), &[], None), Ok(()));
    watches.end(1, false);
    assert!(watch::check(&watches, &rows(), &[], None).is_err());
}
