//! Copying the store into a fresh one while batches go on being committed: what defragmentation is made of.
//!
//! The copy goes through the tables in order, a bounded chunk at a time, each chunk one durable transaction. Everything up to the place reached is equal in both stores, so a batch
//! is carried over as far as it lies before the place, and what lies behind is met on the way. Nothing is held open between two chunks, and nothing gathers in memory.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::backend::{Backend, Committed, RawRow, Slice, Visit};
use super::batch::Batch;
use super::buckets::Bucket;
use crate::fault::Fault;

/// How long after a write its clients count as being at work.
const AT_WORK: Duration = Duration::from_millis(500);
/// The least rest between two chunks.
const REST_LEAST: Duration = Duration::from_millis(1);

/// A chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Rows at the most.
    pub rows: usize,
    /// Bytes of keys and values, but for the last row.
    pub bytes: usize,
}

impl Chunk {
    /// Done in about a millisecond, its sync included: so long may a sync of the log have to wait for it.
    pub const USUAL: Self = Self { rows: 1_024, bytes: 256 << 10 };
}

/// How long the disk and the processor rest between two chunks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rest {
    /// Somebody else works: three times as long as the chunk took.
    Long,
    /// Nobody does.
    Short,
}

impl Rest {
    /// The rest when the last write was so long ago.
    #[must_use]
    pub fn since(written: Duration) -> Self {
        if written < AT_WORK { Self::Long } else { Self::Short }
    }

    /// The rest after a chunk that took so long.
    #[must_use]
    pub fn after(self, took: Duration) -> Duration {
        let rest = match self {
            Self::Long => took * 3,
            Self::Short => took / 4,
        };
        rest.max(REST_LEAST)
    }
}

/// Where a copy stands after a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stands {
    /// There is more to copy.
    More,
    /// The copy is equal to the store, until the next batch.
    Equal,
}

/// Why a copy came to nothing.
#[derive(Debug)]
pub enum Failed {
    /// The copy could not be written; the store itself is as it was.
    Copy(String),
    /// The store could not be read.
    Store(Fault),
}

/// A copy under way.
pub struct Copying<B> {
    copy: B,
    place: Place,
}

/// Everything before it was copied.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    /// How many tables are done.
    tables: usize,
    /// The last key that was copied of the next one.
    key: Option<Bytes>,
}

impl Place {
    /// Whether a row lies where both stores are equal already.
    fn is_behind(&self, bucket: Bucket, key: &[u8]) -> bool {
        let table = Bucket::ALL.iter().position(|each| *each == bucket).expect("every bucket is listed");
        table < self.tables || table == self.tables && self.key.as_deref().is_some_and(|last| key <= last)
    }
}

impl<B: Backend> Copying<B> {
    /// Begins a copy of `store`.
    ///
    /// # Errors
    /// There is no place for it.
    pub async fn begin(store: &B) -> Result<Self, Failed> {
        let copy = store.beside().await.map_err(|fault| Failed::Copy(fault.to_string()))?;
        Ok(Self { copy, place: Place { tables: 0, key: None } })
    }

    /// Copies a chunk.
    ///
    /// # Errors
    /// The copy cannot be written, or the store not be read.
    pub async fn advance(&mut self, store: &B, chunk: Chunk) -> Result<Stands, Failed> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(bucket) = Bucket::ALL.get(self.place.tables).copied() {
            let place = self.place.key.clone();
            let start = place.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut is_full = false;
            let mut visit = |key: &[u8], value: &[u8]| {
                bytes += key.len() + value.len();
                let (key, value) = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
                self.place.key = Some(key.clone());
                rows.push(RawRow { bucket, key, value });
                is_full = chunk.rows <= rows.len() || chunk.bytes <= bytes;
                if is_full { Visit::Enough } else { Visit::More }
            };
            store.scan(Slice { bucket, start, end: Bound::Unbounded }, &mut visit).map_err(Failed::Store)?;
            if is_full {
                break;
            }
            self.place = Place { tables: self.place.tables + 1, key: None };
        }
        if !rows.is_empty() {
            self.load(&rows).await?;
        }
        Ok(if self.place.tables == Bucket::ALL.len() { Stands::Equal } else { Stands::More })
    }

    /// Carries over what the store has just committed.
    ///
    /// # Errors
    /// The copy cannot be written.
    pub async fn on_committed(&mut self, batch: &Batch) -> Result<(), Failed> {
        let mut rows = Vec::new();
        for row in &batch.rows {
            let key = row.key();
            if self.place.is_behind(Bucket::Key, key.as_slice()) {
                let mut value = Vec::new();
                row.encode_value(&mut value);
                let key = Bytes::copy_from_slice(key.as_slice());
                rows.push(RawRow { bucket: Bucket::Key, key, value: Some(value.into()) });
            }
        }
        let dead = batch.dead.iter().map(|key| (Bucket::Key, key.as_slice(), None));
        for (bucket, key, value) in dead.chain(batch.table_changes()) {
            if self.place.is_behind(bucket, key) {
                rows.push(RawRow { bucket, key: Bytes::copy_from_slice(key), value });
            }
        }
        if rows.is_empty() { Ok(()) } else { self.load(&rows).await }
    }

    /// The copy, to be put in the store's place or thrown away.
    #[must_use]
    pub fn into_copy(self) -> B {
        self.copy
    }

    async fn load(&self, rows: &[RawRow]) -> Result<(), Failed> {
        match self.copy.load(rows).await {
            Ok(Committed::Done) => Ok(()),
            Ok(Committed::NoRoom) => Err(Failed::Copy("no space left on device".to_owned())),
            Err(fault) => Err(Failed::Copy(fault.to_string())),
        }
    }
}
