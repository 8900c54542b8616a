//! The store's rows on their way into etcd's database file: what a snapshot is made of, and an export.
//!
//! Rows come from one frozen state, a bounded chunk at a time, and leave as pages. A store whose rows are out of order is damaged, and told so.

use std::ops::Bound;

use bytes::Bytes;

use super::backend::{Frozen, Slice, Visit};
use super::buckets::Bucket;
use super::copying::Chunk;
use crate::bbolt::write::{Finished, Writer};
use crate::fault::Fault;
use crate::mutants::mutated;

/// A file on its way.
#[derive(Debug, Default)]
pub struct Export {
    writer: Writer,
    /// The table under way, and the last key that was written of it, if some were.
    table: usize,
    last: Option<Bytes>,
    /// The bug that it has.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

impl Export {
    /// Writes the next rows of `store`, which is the same each time. Answers the file's metas and length at its end.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    pub fn advance(&mut self, store: &impl Frozen, chunk: Chunk) -> Result<Option<Finished>, Fault> {
        let (mut rows, mut bytes) = (0, 0);
        while let Some(bucket) = Bucket::ALL.get(self.table).copied() {
            let place = self.last.take();
            if place.is_none() {
                self.writer.bucket(bucket.name().as_bytes());
            }
            if bucket == Bucket::Lease && mutated!(self, LeasesNotExported) {
                self.table += 1;
                continue;
            }
            let start = place.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (writer, last, mut is_broken) = (&mut self.writer, &mut self.last, false);
            let mut visit = |key: &[u8], value: &[u8]| {
                is_broken = !writer.takes(key);
                if is_broken {
                    return Visit::Enough;
                }
                writer.row(key, value);
                rows += 1;
                bytes += key.len() + value.len();
                if rows < chunk.rows && bytes < chunk.bytes {
                    return Visit::More;
                }
                *last = Some(Bytes::copy_from_slice(key));
                Visit::Enough
            };
            store.scan(Slice { bucket, start, end: Bound::Unbounded }, &mut visit)?;
            if is_broken {
                let cause = format!("the rows of table {} are out of order", bucket.name());
                return Err(Fault::Store { action: "read", cause });
            }
            if self.last.is_some() {
                return Ok(None);
            }
            self.table += 1;
        }
        Ok(Some(self.writer.finish()))
    }

    /// The pages made since the last call, and where they belong. Those of a finished file come before its metas.
    pub fn take(&mut self) -> (u64, Vec<u8>) {
        self.writer.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows these rows of table `key`, whatever is asked for.
    struct Rows(Vec<&'static [u8]>);

    impl Frozen for Rows {
        fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
            if slice.bucket == Bucket::Key {
                let _ = self.0.iter().all(|key| visit(key, b"v") == Visit::More);
            }
            Ok(())
        }
    }

    #[test]
    fn rows_out_of_order_are_damage_and_no_panic() {
        for (rows, is_sound) in
            [(vec![&b"a"[..], b"b"], true), (vec![b"b", b"a"], false), (vec![b"a", b"a"], false), (vec![b""], false)]
        {
            let exported = Export::default().advance(&Rows(rows.clone()), Chunk::USUAL);
            assert_eq!(exported.is_ok(), is_sound, "{rows:?}: {exported:?}");
        }
    }
}
