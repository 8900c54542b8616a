//! Which rows a hash counts, against the rule taken literally over the set of kept rows.

use std::collections::BTreeSet;

use detcd_core::command::Command;
use detcd_core::ids::Revision;
use detcd_core::mvcc::View;
use detcd_core::mvcc::hash::{HashRule, HashStart, RowKind};
use detcd_core::reply::Rejected;
use proptest::prelude::*;

mod support;
use detcd_tests::apply::store::{Store, bytes};
use support::{any_slices, any_txn};

/// Every row there is: where, whose, and of which kind.
type Rows = Vec<(Revision, bytes::Bytes, RowKind)>;

fn rule(store: &Store, asked: i64, slices: &[usize]) -> Result<HashRule, Rejected> {
    let mut start = HashStart::new(asked, store.current, store.compacted)?;
    let mut slices = detcd_tests::apply::store::Slices::new(slices);
    loop {
        if let Some(rule) = start.advance(store, slices.step()) {
            return Ok(rule);
        }
    }
}

fn counted(store: &Store, rows: &Rows, rule: HashRule) -> Vec<Revision> {
    let counts = |(at, key, kind): &&(Revision, bytes::Bytes, RowKind)| {
        rule.counts(*at, *kind).unwrap_or_else(|| rule.is_newest(store, key, *at))
    };
    rows.iter().filter(counts).map(|row| row.0).collect()
}

/// What a compaction leaves of the rows, tombstones at its own revision apart, which no hash counts.
fn sweep(rows: &Rows, compacted: i64) -> Rows {
    let newest =
        |key: &bytes::Bytes| rows.iter().filter(|row| row.1 == *key && row.0.main <= compacted).max_by_key(|row| row.0);
    let stays = |row: &&(Revision, bytes::Bytes, RowKind)| {
        compacted < row.0.main || row.2 == RowKind::Put && newest(&row.1).is_some_and(|newest| newest.0 == row.0)
    };
    rows.iter().filter(stays).cloned().collect()
}

/// The slow twin: first the set of kept rows, then one pass.
fn slowly(rows: &Rows, revision: i64, compacted: i64) -> Vec<Revision> {
    let mut keep = BTreeSet::new();
    for (_, key, _) in rows {
        let newest = rows.iter().filter(|row| row.1 == key && row.0.main <= revision).max_by_key(|row| row.0);
        if let Some((at, _, RowKind::Put)) = newest {
            keep.insert(*at);
        }
    }
    let mut counted = Vec::new();
    for (at, _, kind) in rows {
        let gone = at.main <= compacted && !keep.is_empty() && !keep.contains(at);
        let boundary = at.main == compacted && *kind == RowKind::Tombstone;
        if at.main <= revision && !gone && !boundary {
            counted.push(*at);
        }
    }
    counted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn counts_the_rows_that_the_slow_twin_counts(
        txns in prop::collection::vec(any_txn(), 1..10),
        compacted in prop_oneof![1 => Just(-1i64), 4 => 0..9i64],
        asked in -2..11i64,
        slices in any_slices(),
    ) {
        let (mut store, mut rows) = (Store::default(), Rows::new());
        for txn in txns {
            for write in store.apply(Command::Txn(txn), &[usize::MAX]).writes {
                match write {
                    detcd_core::apply::Write::Row { revision, kv } => rows.push((revision, kv.key, RowKind::Put)),
                    detcd_core::apply::Write::Tombstone { revision, key } => {
                        rows.push((revision, key, RowKind::Tombstone));
                    }
                    other => panic!("not about a key: {other:?}"),
                }
            }
        }
        store.compacted = compacted.min(store.current);
        let left = sweep(&rows, store.compacted);
        let revision = if asked == 0 { store.current() } else { asked };
        let expected = if asked > 0 && asked < store.compacted {
            Err(Rejected::Compacted)
        } else if asked > store.current {
            Err(Rejected::FutureRevision)
        } else {
            Ok(slowly(&left, revision, store.compacted))
        };
        prop_assert_eq!(rule(&store, asked, &slices).map(|rule| counted(&store, &rows, rule)), expected);
    }
}

#[test]
fn a_search_past_many_dead_keys_comes_in_slices() {
    let mut store = Store::default();
    for i in 0..100 {
        store.put(&format!("{i:03}"), "");
    }
    store.delete("000", "099");
    let mut start = HashStart::new(0, store.current, store.compacted).expect("now");
    assert!(start.advance(&store, 60).is_none());
    let rule = start.advance(&store, 60).expect("the live key is in reach");
    store.compacted = store.current;
    assert_eq!((rule.revision(), rule.compacted()), (102, -1));
    assert!(rule.is_newest(&store, &bytes("099"), Revision::new(101, 0)));
    assert!(!rule.is_newest(&store, &bytes("098"), Revision::new(100, 0)));
}
