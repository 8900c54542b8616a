//! What is applied and not yet durable: the batch being filled, and the one being committed.
//!
//! Readers look here first and into the backend second. A batch leaves only after its commit, so a row is always in one of the two. At most one batch
//! is on its way, which keeps commits in order.

use std::sync::Arc;

use bytes::Bytes;
use detcd_core::ids::Revision;

use super::batch::{Batch, Row};
use super::buckets::Bucket;
use crate::driver::bounds;

/// How much may be applied and not yet durable. Beyond it apply waits for the committer. The default are the bounds of [`bounds`]; simulations use smaller ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OverlayMax {
    /// Changes.
    pub operations: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Default for OverlayMax {
    fn default() -> Self {
        Self { operations: bounds::OVERLAY_OPERATIONS_MAX, bytes: bounds::OVERLAY_BYTES_MAX }
    }
}

/// The batches above the backend.
#[derive(Debug, Default)]
pub struct Overlay {
    open: Batch,
    sealed: Option<Arc<Batch>>,
}

impl Overlay {
    /// The batch being filled.
    pub fn open(&mut self) -> &mut Batch {
        &mut self.open
    }

    /// Operations and row bytes that are not durable yet, sealed ones included.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        let sealed = self.sealed.as_deref().map_or((0, 0), |batch| (batch.operations(), batch.row_bytes));
        (self.open.operations() + sealed.0, self.open.row_bytes + sealed.1)
    }

    /// Operations in the batch being filled.
    #[must_use]
    pub fn open_operations(&self) -> usize {
        self.open.operations()
    }

    /// Whether a batch is on its way.
    #[must_use]
    pub const fn is_committing(&self) -> bool {
        self.sealed.is_some()
    }

    /// Closes the batch being filled and starts another. The closed one stays readable until [`Self::retire`].
    pub fn seal(&mut self) -> Arc<Batch> {
        assert!(self.sealed.is_none(), "one batch at a time");
        let applied = self.open.applied;
        let batch = Arc::new(std::mem::take(&mut self.open));
        self.open.applied = applied;
        self.sealed = Some(Arc::clone(&batch));
        batch
    }

    /// Forgets the sealed batch: it is durable.
    pub fn retire(&mut self) {
        assert!(self.sealed.is_some(), "only a sealed batch can have been committed");
        self.sealed = None;
    }

    /// The row at `revision`.
    #[must_use]
    pub fn row(&self, revision: Revision) -> Option<&Row> {
        self.open.row(revision).or_else(|| self.sealed.as_deref()?.row(revision))
    }

    /// What a table row was changed to: `Some(None)` is a removal.
    #[must_use]
    pub fn table_row(&self, bucket: Bucket, key: &Bytes) -> Option<Option<Bytes>> {
        let place = (bucket, key.clone());
        let change = |batch: &Batch| batch.tables.get(&place).cloned();
        change(&self.open).or_else(|| self.sealed.as_deref().and_then(change))
    }

    /// All rows from `start` to `end` (both included), oldest first.
    #[must_use]
    pub fn rows(&self, start: Revision, end: Revision) -> Vec<Row> {
        let sealed = self.sealed.as_deref().map_or(&[][..], |batch| batch.rows.as_slice());
        let wanted = |row: &&Row| start <= row.revision && row.revision <= end;
        sealed.iter().chain(&self.open.rows).filter(wanted).cloned().collect()
    }

    /// Where the overlay begins: everything older is in the backend.
    #[must_use]
    pub fn first(&self) -> Option<Revision> {
        let sealed = self.sealed.as_deref().and_then(|batch| batch.rows.first());
        sealed.or_else(|| self.open.rows.first()).map(|row| row.revision)
    }

    /// The next rows from `start` to `end` (both included), oldest first, at most so many.
    #[must_use]
    pub fn next_rows(&self, start: Revision, end: Revision, most: usize) -> Vec<Row> {
        let part = |rows: &[Row]| {
            let first = rows.partition_point(|row| row.revision < start);
            rows[first..].iter().take_while(|row| row.revision <= end).take(most).cloned().collect::<Vec<_>>()
        };
        let mut rows = self.sealed.as_deref().map(|batch| part(&batch.rows)).unwrap_or_default();
        rows.extend(part(&self.open.rows));
        rows.truncate(most);
        rows
    }

    /// Table changes of one bucket, older batch first, so that the last one of a key counts.
    #[must_use]
    pub fn table_changes(&self, bucket: Bucket) -> Vec<(Bytes, Option<Bytes>)> {
        let of = |batch: &Batch| {
            let rows = batch.tables.range((bucket, Bytes::new())..).take_while(|((each, _), _)| *each == bucket);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        let mut changes = self.sealed.as_deref().map(of).unwrap_or_default();
        changes.extend(of(&self.open));
        changes
    }
}
