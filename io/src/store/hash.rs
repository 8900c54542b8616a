//! Hashes over stored bytes: the keys' history as HashKV asks for it, and the whole backend as Hash does.
//!
//! The rules are the engine's ([`detcd_core::mvcc::hash`]) and etcd's; here are bytes and CRC. Work comes in bounded steps, none of which holds
//! a lock or a transaction across a yield.

use std::ops::Bound;

use bytes::Bytes;
use detcd_core::ids::Revision;
use detcd_core::mvcc::View as _;
use detcd_core::mvcc::hash::{self, HashRule, HashStart};
use detcd_core::reply::Rejected;

use super::backend::{Backend, Slice, Visit};
use super::batch::{Change, Row};
use super::buckets::{self, Bucket, RevisionKey, RowKind};
use super::{ReadView, Store};
use crate::fault::Fault;

/// A hash over the history of the keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeysHash {
    /// CRC-32C of the bucket's name and all counted rows.
    pub hash: u32,
    /// The revision that was hashed.
    pub revision: i64,
    /// The last compaction; -1 if there was none.
    pub compacted: i64,
}

/// A hash of the keys on its way.
pub struct HashKeys<B> {
    view: ReadView<B>,
    start: HashStart,
    rule: Option<HashRule>,
    crc: u32,
    after: Option<RevisionKey>,
    overlay: Vec<Row>,
}

/// How far a hash of the keys has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hashed {
    /// Advance it again.
    More,
    /// It is done.
    Done(KeysHash),
    /// A compaction has removed rows that it should have counted: begin again.
    Overtaken,
}

impl<B: Backend> HashKeys<B> {
    /// A hash at `asked` (zero: now).
    ///
    /// # Errors
    /// The revision is compacted, or lies in the future.
    pub fn new(store: &Store<B>, asked: i64) -> Result<Self, Rejected> {
        let view = store.view();
        // In this order: the compaction may not lie beyond the hashed revision.
        let compacted = view.compacted();
        let start = HashStart::new(asked, view.current(), compacted)?;
        Ok(Self::starting(view, start))
    }

    /// The hash that a compaction at `revision` takes before it removes anything. `previous` is the compaction before it.
    ///
    /// # Errors
    /// The backend failed.
    pub fn of_compaction(store: &Store<B>, revision: i64, previous: i64) -> Result<Self, Fault> {
        let view = store.view();
        let deletes_there = has_tombstone(store, revision)?;
        Ok(Self::starting(view, HashStart::of_compaction(revision, previous, deletes_there)))
    }

    fn starting(view: ReadView<B>, start: HashStart) -> Self {
        let crc = crc32c::crc32c(Bucket::Key.name().as_bytes());
        Self { view, start, rule: None, crc, after: None, overlay: Vec::new() }
    }

    /// Looks at up to `budget` rows.
    ///
    /// # Errors
    /// The backend failed, or holds what is no row.
    pub fn advance(&mut self, budget: usize) -> Result<Hashed, Fault> {
        let Some(rule) = self.rule else {
            self.rule = self.start.advance(&self.view, budget);
            if let Some(rule) = self.rule {
                // Taken before the backend is read: a row that is committed meanwhile shows up there, and is then passed over here.
                let end = Revision::new(rule.revision(), i64::MAX);
                self.overlay = self.view.store.read().overlay.rows(Revision::default(), end);
            }
            return Ok(Hashed::More);
        };
        let visited = self.advance_backend(rule, budget)?;
        if visited == budget {
            return Ok(Hashed::More);
        }
        self.add_overlay(rule);
        if rule.compacted() < self.view.store.swept() {
            return Ok(Hashed::Overtaken);
        }
        Ok(Hashed::Done(KeysHash { hash: self.crc, revision: rule.revision(), compacted: rule.compacted() }))
    }

    fn advance_backend(&mut self, rule: HashRule, budget: usize) -> Result<usize, Fault> {
        let end = RevisionKey::put(Revision::new(rule.revision().saturating_add(1).max(0), 0));
        let after = self.after;
        let start = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_slice()));
        let slice = Slice { bucket: Bucket::Key, start, end: Bound::Excluded(end.as_slice()) };
        let (mut visited, mut crc, mut last, mut broken) = (0, self.crc, after, None);
        let view = &self.view;
        view.store.shared.backend.scan(slice, &mut |key, value| {
            match RevisionKey::parse(key) {
                Some((revision, kind)) => {
                    if counts(view, rule, revision, kind, value) {
                        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
                    }
                    last = Some(row_key(revision, kind));
                }
                None => broken = Some(key.escape_ascii().to_string()),
            }
            visited += 1;
            if visited == budget || broken.is_some() { Visit::Enough } else { Visit::More }
        })?;
        if let Some(key) = broken {
            return Err(Fault::Store { action: "hash", cause: format!("row {key}: not a revision") });
        }
        (self.crc, self.after) = (crc, last);
        Ok(visited)
    }

    fn add_overlay(&mut self, rule: HashRule) {
        let seen = self.after.and_then(|key| RevisionKey::parse(key.as_slice())).map(|(revision, _)| revision);
        let mut value = Vec::new();
        for row in &self.overlay {
            if seen.is_some_and(|seen| row.revision <= seen) {
                continue;
            }
            value.clear();
            row.encode_value(&mut value);
            let key = row.key();
            let (revision, kind) = RevisionKey::parse(key.as_slice()).expect("a row makes its own key");
            if counts(&self.view, rule, revision, kind, &value) {
                self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, key.as_slice()), &value);
            }
        }
    }
}

/// Whether any key was deleted at `main`.
fn has_tombstone<B: Backend>(store: &Store<B>, main: i64) -> Result<bool, Fault> {
    let (start, end) = (Revision::new(main, 0), Revision::end_of(main));
    let above = store.read().overlay.rows(start, end);
    let mut found = above.iter().any(|row| matches!(row.change, Change::Tombstone(_)));
    let (start, end) = (RevisionKey::put(start), RevisionKey::tombstone(end));
    let slice =
        Slice { bucket: Bucket::Key, start: Bound::Included(start.as_slice()), end: Bound::Included(end.as_slice()) };
    store.shared.backend.scan(slice, &mut |key, _| {
        found |= matches!(RevisionKey::parse(key), Some((_, RowKind::Tombstone)));
        if found { Visit::Enough } else { Visit::More }
    })?;
    Ok(found)
}

fn counts<B: Backend>(view: &ReadView<B>, rule: HashRule, revision: Revision, kind: RowKind, value: &[u8]) -> bool {
    let hash_kind = match kind {
        RowKind::Put => hash::RowKind::Put,
        RowKind::Tombstone => hash::RowKind::Tombstone,
    };
    rule.counts(revision, hash_kind).unwrap_or_else(|| {
        let kv = buckets::decode_key_value(Bytes::copy_from_slice(value));
        kv.is_ok_and(|kv| rule.is_newest(view, &kv.key, revision))
    })
}

fn row_key(revision: Revision, kind: RowKind) -> RevisionKey {
    match kind {
        RowKind::Put => RevisionKey::put(revision),
        RowKind::Tombstone => RevisionKey::tombstone(revision),
    }
}

/// The whole backend on its way through a CRC, bucket by bucket.
pub struct HashAll<B> {
    store: Store<B>,
    bucket: usize,
    after: Option<Bytes>,
    crc: u32,
}

impl<B: Backend> HashAll<B> {
    /// A hash of everything durable.
    #[must_use]
    pub fn new(store: &Store<B>) -> Self {
        Self { store: store.clone(), bucket: 0, after: None, crc: 0 }
    }

    /// Looks at up to `budget` rows; `None` means: advance it again.
    ///
    /// # Errors
    /// The backend failed.
    pub fn advance(&mut self, budget: usize) -> Result<Option<u32>, Fault> {
        let Some(bucket) = Bucket::ALL.get(self.bucket).copied() else {
            return Ok(Some(self.crc));
        };
        let mut crc = self.crc;
        if self.after.is_none() {
            crc = crc32c::crc32c_append(crc, bucket.name().as_bytes());
        }
        let after = self.after.take();
        let start = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_ref()));
        let (mut visited, mut last) = (0, None);
        self.store.shared.backend.scan(Slice { bucket, start, end: Bound::Unbounded }, &mut |key, value| {
            if !is_left_out(bucket, key) {
                crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
            }
            visited += 1;
            if visited < budget {
                return Visit::More;
            }
            last = Some(Bytes::copy_from_slice(key));
            Visit::Enough
        })?;
        self.crc = crc;
        self.after = last;
        if self.after.is_none() {
            self.bucket += 1;
        }
        Ok(None)
    }
}

/// Rows that differ between members although their data are equal.
fn is_left_out(bucket: Bucket, key: &[u8]) -> bool {
    bucket == Bucket::Meta && [buckets::APPLIED_INDEX, buckets::APPLIED_TERM, buckets::STORAGE_VERSION].contains(&key)
}
