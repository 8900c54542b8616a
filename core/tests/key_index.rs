//! The key index against a plain list of everything that ever happened.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use detcd_core::ids::Revision;
use detcd_core::mvcc::hash::RowKind;
use detcd_core::mvcc::index::{BadRow, Gathering, Misplaced, RowFacts};
use detcd_core::mvcc::{Facts, KeyAt, KeyIndex, Scan, Span};
use proptest::prelude::*;

mod support;
use detcd_tests::apply::store::bytes;
use support::{any_key, any_range_end};

/// One row of the slow twin.
#[derive(Clone, Debug)]
struct Row {
    at: Revision,
    key: Bytes,
    /// Creation and version; `None` for a tombstone.
    put: Option<(i64, i64)>,
}

#[derive(Clone, Debug, Default)]
struct Slow(Vec<Row>);

impl Slow {
    fn newest(&self, key: &[u8], at: Revision) -> Option<&Row> {
        self.0.iter().filter(|row| row.key == key && row.at <= at).max_by_key(|row| row.at)
    }

    fn get(&self, key: &[u8], at: Revision) -> Option<Facts> {
        let row = self.newest(key, at)?;
        let (created, version) = row.put?;
        Some(Facts { created, modified: row.at, version })
    }

    fn keys(&self, span: &Span, at: Revision) -> Vec<KeyAt> {
        let keys: BTreeSet<Bytes> = self.0.iter().map(|row| row.key.clone()).collect();
        let found = |key: Bytes| self.get(&key, at).map(|facts| KeyAt { key, facts });
        keys.into_iter().filter(|key| span.contains(key)).filter_map(found).collect()
    }

    fn change(&mut self, at: Revision, key: &Bytes, wants_put: bool) -> bool {
        let before = self.get(key, at);
        if !wants_put && before.is_none() {
            return false;
        }
        let (created, version) = before.map_or((at.main, 1), |facts| (facts.created, facts.version + 1));
        let put = if wants_put { Some((created, version)) } else { None };
        self.0.push(Row { at, key: key.clone(), put });
        true
    }

    /// Drops what a compaction drops.
    fn compact(&mut self, upto: i64) {
        let all = self.clone();
        self.0.retain(|row| {
            let newest = all.newest(&row.key, Revision::end_of(upto)).map(|newest| newest.at) == Some(row.at);
            let deletes_there = |other: &&Row| other.key == row.key && other.at.main == upto && other.put.is_none();
            let first_delete = all.0.iter().find(deletes_there).map(|other| other.at);
            let told_there = row.at.main == upto && first_delete.is_some_and(|first| first <= row.at);
            upto < row.at.main || told_there || newest && row.put.is_some()
        });
    }
}

/// Transactions of puts (`true`) and deletes.
fn any_history() -> impl Strategy<Value = Vec<Vec<(Bytes, bool)>>> {
    let change = (any_key(), prop::bool::weighted(0.6));
    prop::collection::vec(prop::collection::vec(change, 1..5), 1..14)
}

fn build(history: &[Vec<(Bytes, bool)>]) -> (KeyIndex, Slow) {
    let (mut index, mut slow, mut main) = (KeyIndex::default(), Slow::default(), 1);
    for transaction in history {
        let mut sub = 0;
        for (key, wants_put) in transaction {
            let at = Revision::new(main + 1, sub);
            if slow.change(at, key, *wants_put) {
                if *wants_put {
                    index.put(key, at)
                } else {
                    index.delete(key, at)
                }
                sub += 1;
            }
        }
        main += i64::from(0 < sub);
    }
    (index, slow)
}

impl Row {
    fn facts(&self) -> RowFacts<'_> {
        match self.put {
            Some((created, version)) => RowFacts::Put { key: &self.key, created, version },
            None => RowFacts::Tombstone { key: &self.key },
        }
    }
}

fn restore(slow: &Slow) -> KeyIndex {
    let mut index = KeyIndex::default();
    for row in &slow.0 {
        index.restore(row.at, row.facts()).expect("the rows are in order");
    }
    index
}

fn gather(rows: &[Row], rows_max: usize) -> Result<KeyIndex, Misplaced> {
    let mut gathering = Gathering::in_steps_of(rows_max);
    for row in rows {
        gathering.add(row.at, row.facts())?;
    }
    gathering.finish()
}

/// Keys that share much of their beginning, and of which some begin others.
fn any_alike_key() -> impl Strategy<Value = Bytes> {
    let letter = prop_oneof![Just(0_u8), Just(b'a'), Just(255)];
    let (begin, end) =
        (prop::sample::select(vec!["", "/registry/", "/registry/pods/"]), prop::collection::vec(letter, 0..12));
    (begin, end).prop_map(|(begin, end)| [begin.as_bytes(), b"k", &end].concat().into())
}

/// Every point that tells transactions or changes apart, from `floor` on.
fn points(floor: i64) -> Vec<Revision> {
    let mains = floor.max(0)..16;
    mains.flat_map(|main| (0..5).map(move |sub| Revision::new(main, sub)).chain([Revision::end_of(main)])).collect()
}

fn agrees(index: &KeyIndex, slow: &Slow, floor: i64) {
    let keys: BTreeSet<Bytes> = slow.0.iter().map(|row| row.key.clone()).chain([bytes("other")]).collect();
    for at in points(floor).into_iter().filter(|at| floor < at.main || at.sub == i64::MAX) {
        for key in &keys {
            assert_eq!(index.get(key, at), slow.get(key, at), "{key:?} at {at}");
        }
    }
    let now = Revision::end_of(100);
    assert_eq!(index.live(), keys.iter().filter(|key| slow.get(key, now).is_some()).count());
}

/// A whole walk in steps of these sizes: its keys, and its count.
fn walk(index: &KeyIndex, span: &Span, at: Revision, steps: (usize, usize)) -> (Vec<KeyAt>, usize) {
    let (keys_max, visits_max) = steps;
    let (mut keys, mut after) = (Vec::new(), None::<Bytes>);
    loop {
        let chunk = index.keys(&Scan { span, at, after: after.as_deref(), keys_max, visits_max });
        assert!(chunk.keys.len() <= keys_max && chunk.visited <= visits_max);
        keys.extend(chunk.keys);
        after = chunk.resume;
        if after.is_none() {
            break;
        }
    }
    let mut count = 0;
    loop {
        let chunk = index.count(&Scan { span, at, after: after.as_deref(), keys_max, visits_max });
        assert!(chunk.visited <= visits_max);
        count += chunk.count;
        after = chunk.resume;
        if after.is_none() {
            return (keys, count);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn tells_every_key_at_every_point(history in any_history()) {
        let (index, slow) = build(&history);
        agrees(&index, &slow, 0);
    }

    #[test]
    fn walks_spans_in_steps(
        history in any_history(),
        key in any_key(),
        range_end in any_range_end(),
        main in 1..16i64,
        steps in (1..5usize, 1..5usize),
    ) {
        let (index, slow) = build(&history);
        let (span, at) = (Span::parse(&key, &range_end), Revision::end_of(main));
        let expected = slow.keys(&span, at);
        let (keys, count) = walk(&index, &span, at, steps);
        prop_assert_eq!(count, expected.len());
        prop_assert_eq!(keys, expected);
    }

    #[test]
    fn is_rebuilt_from_all_rows_as_it_was(history in any_history()) {
        let (index, slow) = build(&history);
        prop_assert_eq!(restore(&slow), index);
    }

    #[test]
    fn is_rebuilt_from_what_a_compaction_left(history in any_history(), upto in 1..16i64) {
        let (_, mut slow) = build(&history);
        let whole = slow.clone();
        slow.compact(upto);
        agrees(&restore(&slow), &whole, upto);
        // What comes after the restart goes on from there.
        let (mut index, mut whole) = (restore(&slow), whole);
        let keys: BTreeMap<Bytes, ()> = whole.0.iter().map(|row| (row.key.clone(), ())).collect();
        for (sub, key) in keys.keys().enumerate() {
            let at = Revision::new(15, sub as i64);
            whole.change(at, key, true);
            index.put(key, at);
        }
        agrees(&index, &whole, upto);
    }
}

/// Rows of a few keys, now and then one that repeats the revision before.
fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let keys = prop::collection::vec(any_alike_key(), 1..16);
    let row = (any::<prop::sample::Index>(), prop::option::weighted(0.7, (1..4i64, 1..4i64)), 0..30);
    (keys, prop::collection::vec(row, 0..40)).prop_map(|(keys, rows)| {
        let mut main = 1;
        let mut of = |(key, put, step): (prop::sample::Index, _, _)| {
            main += i64::from(0 < step);
            Row { at: Revision::new(main, 0), key: key.get(&keys).clone(), put }
        };
        rows.into_iter().map(&mut of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn many_rows_at_once_make_what_they_make_one_by_one(rows in any_rows(), rows_max in 1..20usize) {
        let (mut one_by_one, mut bad) = (KeyIndex::default(), None);
        for row in &rows {
            if let Err(why) = one_by_one.restore(row.at, row.facts()) {
                bad.get_or_insert(Misplaced { at: row.at, why });
            }
        }
        match (gather(&rows, rows_max), bad) {
            (Ok(index), None) => prop_assert_eq!(index, one_by_one),
            (Err(misplaced), Some(_)) => prop_assert_eq!(misplaced.why, BadRow::OutOfOrder),
            (gathered, bad) => prop_assert!(false, "{:?} {:?}", gathered, bad),
        }
    }
}

/// Compacts what `rows` made in steps of `work_max`; answers the dead rows in order. A start after any step finds the index that the step left.
fn compact(index: &mut KeyIndex, rows: &Slow, upto: i64, work_max: usize) -> Vec<(Revision, RowKind)> {
    let (mut dead, mut from) = (Vec::new(), None::<Bytes>);
    loop {
        let swept = index.compact(upto, from.as_deref(), work_max);
        assert!(swept.visited <= work_max);
        dead.extend(swept.dead);
        let mut left = rows.clone();
        left.0.retain(|row| !dead.iter().any(|(at, _)| *at == row.at));
        assert_eq!(restore(&left), *index);
        from = swept.resume;
        if from.is_none() {
            dead.sort_by_key(|(at, _)| *at);
            return dead;
        }
    }
}

fn kind(row: &Row) -> RowKind {
    if row.put.is_some() { RowKind::Put } else { RowKind::Tombstone }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn compacts_in_steps_to_what_a_restart_would_find(
        history in any_history(),
        upto in prop::collection::vec(0..16i64, 1..4),
        work_max in 1..5usize,
    ) {
        let (mut index, mut slow) = build(&history);
        let whole = slow.clone();
        let mut floor = 0;
        for upto in upto {
            floor = floor.max(upto);
            let before = slow.clone();
            slow.compact(floor);
            let kept = |row: &&Row| slow.0.iter().any(|other| other.at == row.at);
            let expected: Vec<_> = before.0.iter().filter(|row| !kept(row)).map(|row| (row.at, kind(row))).collect();
            prop_assert_eq!(compact(&mut index, &before, floor, work_max), expected);
            prop_assert_eq!(&restore(&slow), &index);
            agrees(&index, &whole, floor);
        }
    }
}

#[test]
fn a_step_ends_with_the_key_whose_rows_fill_it() {
    let mut index = KeyIndex::default();
    for main in 2..5 {
        for key in [b"a", b"b"] {
            index.put(key, Revision::new(main, 0));
        }
    }
    let swept = index.compact(9, None, 2);
    assert_eq!((swept.visited, swept.dead.len(), swept.resume.as_deref()), (1, 2, Some(&b"b"[..])));
    let swept = index.compact(9, swept.resume.as_deref(), 3);
    assert_eq!((swept.visited, swept.dead.len(), swept.resume), (1, 2, None));
}

#[test]
fn a_compaction_keeps_a_delete_and_the_put_after_it_in_its_revision() {
    let (mut index, mut slow) = (KeyIndex::default(), Slow::default());
    for (at, is_put) in [((2, 0), true), ((3, 0), false), ((3, 1), true)] {
        let at = Revision::new(at.0, at.1);
        slow.change(at, &Bytes::from_static(b"k"), is_put);
        if is_put { index.put(b"k", at) } else { index.delete(b"k", at) }
    }
    assert_eq!(compact(&mut index, &slow, 3, 1), [(Revision::new(2, 0), RowKind::Put)]);
    assert_eq!((index.live(), index.known()), (1, 1));
    slow.compact(3);
    assert_eq!(compact(&mut index, &slow, 4, 1), [(Revision::new(3, 0), RowKind::Tombstone)]);
    assert_eq!(index.get(b"k", Revision::end_of(4)).map(|facts| facts.version), Some(1));
}

proptest! {
    #[test]
    fn bounds_hold_what_the_span_contains(
        key in any_key(),
        range_end in any_range_end(),
        after in prop::option::of(any_key()),
        keys in prop::collection::btree_set(any_key(), 0..8),
    ) {
        let span = Span::parse(&key, &range_end);
        let after = after.as_deref();
        let inside = |key: &&Bytes| span.contains(key) && after.is_none_or(|after| after < key.as_ref());
        let expected: Vec<&Bytes> = keys.iter().filter(inside).collect();
        let found = span.bounds(after).map_or_else(Vec::new, |bounds| keys.range::<[u8], _>(bounds).collect());
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn deleted_and_put_again_in_one_revision() {
    let mut index = KeyIndex::default();
    index.put(b"k", Revision::new(2, 0));
    index.delete(b"k", Revision::new(3, 0));
    index.put(b"k", Revision::new(3, 1));
    assert_eq!(index.get(b"k", Revision::new(3, 0)), None);
    let facts = Facts { created: 3, modified: Revision::new(3, 1), version: 1 };
    assert_eq!(index.get(b"k", Revision::end_of(3)), Some(facts));
    assert_eq!((index.live(), index.known()), (1, 1));
}

#[test]
fn a_tombstone_that_comes_first_is_known() {
    let mut index = KeyIndex::default();
    index.restore(Revision::new(5, 0), RowFacts::Tombstone { key: b"k" }).expect("a compaction at 5 left it");
    assert_eq!((index.live(), index.known()), (0, 1));
    index.restore(Revision::new(6, 0), RowFacts::Tombstone { key: b"k" }).expect("passed over");
    index.put(b"k", Revision::new(7, 0));
    assert_eq!(index.get(b"k", Revision::end_of(6)), None);
    let facts = Facts { created: 7, modified: Revision::new(7, 0), version: 1 };
    assert_eq!(index.get(b"k", Revision::end_of(7)), Some(facts));
}

#[test]
fn rows_that_no_history_can_hold_are_told() {
    let mut index = KeyIndex::default();
    let put = RowFacts::Put { key: b"k", created: 5, version: 1 };
    assert_eq!(index.restore(Revision::new(5, -1), put), Err(BadRow::BadRevision));
    assert_eq!(index.restore(Revision::new(5, 1 << 32), put), Err(BadRow::BadRevision));
    assert_eq!(index.restore(Revision::new(5, 0), put), Ok(()));
    assert_eq!(index.restore(Revision::new(5, 0), put), Err(BadRow::OutOfOrder));
    assert_eq!(index.restore(Revision::new(4, 7), put), Err(BadRow::OutOfOrder));
    let mut gathering = Gathering::default();
    let at = Revision::new(5, -1);
    assert_eq!(gathering.add(at, put), Err(Misplaced { at, why: BadRow::BadRevision }));
}
