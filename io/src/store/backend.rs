//! The small trait under the store: read, scan, commit a batch, tell the size.
//!
//! Two implementations stand under the same overlay and batching: LMDB in production, a crashing one in the simulator. A batch is one transaction:
//! its rows, its table changes and the applied index become durable together or not at all. Reads see the last committed batch; a scan
//! sees one point for its whole length, so callers keep scans short and reopen at a pinned revision.

use std::future::Future;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;

use super::batch::Batch;
use super::buckets::Bucket;
use crate::fault::Fault;

/// What a commit came to. A failure that is not about room is a [`Fault`]: the member stops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Committed {
    /// The batch is durable.
    Done,
    /// The disk is full. Nothing of the batch was kept, the file is as it was before; the same batch may be tried again.
    NoRoom,
}

/// How large the store is, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Size {
    /// Pages ever allocated in the file: what etcd calls dbSize.
    pub allocated: u64,
    /// Allocated pages that hold live data: what etcd calls dbSizeInUse.
    pub in_use: u64,
}

/// A part of one table, in key order.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The table.
    pub bucket: Bucket,
    /// The first key.
    pub start: Bound<&'a [u8]>,
    /// The last key.
    pub end: Bound<&'a [u8]>,
}

/// Whether a scan goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Visit {
    /// Show me the next row.
    More,
    /// That is enough.
    Enough,
}

/// A row as it stands in its table. Without a value it is removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawRow {
    /// The table.
    pub bucket: Bucket,
    /// Its key there.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// What is left of stores that were replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// Nothing.
    Done,
    /// More of the same.
    More,
    /// One that is still read.
    Read,
}

/// A store as it was at one moment, however long it is read.
pub trait Frozen: Send + 'static {
    /// Shows the rows of `slice` in key order until `visit` has enough.
    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault>;
}

/// A transactional ordered store of a few tables. Clones share one store.
pub trait Backend: Clone + Send + Sync + 'static {
    /// What [`Backend::freeze`] makes.
    type Frozen: Frozen;

    /// The value under `key`, at the last committed batch.
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Shows the rows of `slice` in key order, all from one point in time, until `visit` has enough.
    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault>;

    /// Makes `batch` durable as one transaction.
    fn commit(&self, batch: &Batch) -> impl Future<Output = Result<Committed, Fault>> + Send;

    /// The size after the last commit.
    fn size(&self) -> impl Future<Output = Result<Size, Fault>> + Send;

    /// The store as the last committed batch left it. Pages that change meanwhile are kept for it, so nobody holds one while waiting for a client or a peer.
    fn freeze(&self) -> Result<Self::Frozen, Fault>;

    /// Puts rows as they are, as one durable transaction. Those of an empty store come fastest in the order of their keys.
    fn load(&self, rows: &[RawRow]) -> impl Future<Output = Result<Committed, Fault>> + Send;

    /// An empty store beside this one, for a copy that is to take its place. What is left of it after a crash is removed when the store is opened.
    fn beside(&self) -> impl Future<Output = Result<Self, Fault>> + Send;

    /// Puts `copy`, which [`Backend::beside`] made, in the place of this store, for all clones and for the next start. Nothing is committed meanwhile. After a crash
    /// it is one or the other. After an error nobody knows which.
    fn replace(&self, copy: Self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Gives back a bit of the room of what [`Backend::replace`] has replaced, unless it is still read. To be called, with rests, until nothing is left.
    fn release(&self) -> impl Future<Output = Release> + Send {
        async { Release::Done }
    }

    /// Closes `copy`, which [`Backend::beside`] made, and gives its file this name, durably. Renamed into the store's directory as `data.mdb` while no store is open there, it is the store.
    fn detach(&self, copy: Self, to: &Path) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Removes a copy that is not wanted any more.
    fn discard(&self, copy: Self) -> impl Future<Output = ()> + Send;
}
