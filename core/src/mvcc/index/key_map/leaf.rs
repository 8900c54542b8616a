//! A leaf of the map: a few keys next to each other, and their values.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::{Bound, ControlFlow, Range};

use bytes::Bytes;

/// Entries of a leaf.
pub(super) const LEN_MAX: usize = 64;
/// Bytes of a leaf's keys from which on it is split, unless there is one alone.
pub(super) const BYTES_MAX: usize = 16 << 10;
/// Room for so many more entries is made at once.
const LEN_STEP: usize = 8;

/// A key, in the two parts that a leaf keeps it in.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Key<'a> {
    shared: &'a [u8],
    rest: &'a [u8],
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(key: &'a [u8]) -> Self {
        Self { shared: key, rest: &[] }
    }
}

impl Key<'_> {
    pub(in super::super) fn to_vec(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.shared.len() + self.rest.len());
        key.extend_from_slice(self.shared);
        key.extend_from_slice(self.rest);
        key
    }

    pub(in super::super) fn to_bytes(self) -> Bytes {
        self.to_vec().into()
    }
}

/// Keys in order, and their values. What all keys begin with is there once.
#[derive(Clone, Debug)]
pub(super) struct Leaf<V> {
    /// The common beginning, then the rest of each key, one behind the other.
    bytes: Vec<u8>,
    /// The length of the common beginning.
    shared: usize,
    /// Where the rest of each key ends.
    ends: Vec<u32>,
    values: Vec<V>,
}

impl<V> Leaf<V> {
    pub(super) const EMPTY: Self = Self { bytes: Vec::new(), shared: 0, ends: Vec::new(), values: Vec::new() };

    pub(super) const fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) const fn room(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn value(&self, at: usize) -> &V {
        &self.values[at]
    }

    pub(super) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.values[at]
    }

    pub(super) fn key(&self, at: usize) -> Key<'_> {
        Key { shared: &self.bytes[..self.shared], rest: self.rest(at) }
    }

    fn span(&self, at: usize) -> Range<usize> {
        let start = at.checked_sub(1).map_or(self.shared, |before| self.ends[before] as usize);
        start..self.ends[at] as usize
    }

    fn rest(&self, at: usize) -> &[u8] {
        &self.bytes[self.span(at)]
    }

    /// Where a key is, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let shared = &self.bytes[..self.shared];
        let Some(rest) = key.strip_prefix(shared) else {
            return Err(if key < shared { 0 } else { self.len() });
        };
        let mut range = 0..self.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            match self.rest(middle).cmp(rest) {
                Ordering::Less => range.start = middle + 1,
                Ordering::Greater => range.end = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(range.start)
    }

    /// The entries within bounds.
    pub(super) fn within(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Range<usize> {
        let start = match start {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.find(key).unwrap_or_else(|at| at),
            Bound::Excluded(key) => self.find(key).map_or_else(|at| at, |at| at + 1),
        };
        let end = match end {
            Bound::Unbounded => self.len(),
            Bound::Included(key) => self.find(key).map_or_else(|at| at, |at| at + 1),
            Bound::Excluded(key) => self.find(key).unwrap_or_else(|at| at),
        };
        start..end
    }

    /// Puts an entry at the place where [`Self::find`] missed it.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], value: V) {
        if self.values.is_empty() {
            self.bytes.clear();
            self.bytes.extend_from_slice(key);
            self.shared = key.len();
        }
        let shared = common(&self.bytes[..self.shared], key);
        if shared < self.shared {
            self.share_only(shared);
        }
        let rest = &key[self.shared..];
        let start = at.checked_sub(1).map_or(self.shared, |before| self.ends[before] as usize);
        let more = self.bytes.len() / 8;
        make_room(&mut self.bytes, rest.len(), more);
        self.bytes.splice(start..start, rest.iter().copied());
        make_room(&mut self.ends, 1, LEN_STEP);
        self.ends.insert(at, place(start));
        for end in &mut self.ends[at..] {
            *end += place(rest.len());
        }
        make_room(&mut self.values, 1, LEN_STEP);
        self.values.insert(at, value);
    }

    /// Keys share less than they did.
    fn share_only(&mut self, shared: usize) {
        let more = self.shared - shared;
        let mut bytes = Vec::with_capacity(self.bytes.len() + more * self.len());
        bytes.extend_from_slice(&self.bytes[..shared]);
        for at in 0..self.len() {
            bytes.extend_from_slice(&self.bytes[shared..self.shared]);
            bytes.extend_from_slice(self.rest(at));
        }
        // Only now: each rest begins where the one before it ended.
        for (end, before) in self.ends.iter_mut().zip(0..) {
            *end += place(more * before);
        }
        (self.bytes, self.shared) = (bytes, shared);
    }

    pub(super) fn remove(&mut self, at: usize) -> V {
        let span = self.span(at);
        let less = place(span.len());
        self.bytes.drain(span);
        self.ends.remove(at);
        for end in &mut self.ends[at..] {
            *end -= less;
        }
        let value = self.values.remove(at);
        // One large key may have needed nearly all of the room.
        if self.len() * 2 < self.values.capacity() || self.bytes.len() * 2 < self.bytes.capacity() {
            self.fit();
        }
        value
    }

    /// Gives back room that is not used.
    pub(super) fn fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    /// Takes the entries from a place on into a leaf of their own.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let values = self.values.split_off(at);
        let right = self.part(at..self.ends.len(), values);
        let values = core::mem::take(&mut self.values);
        *self = self.part(0..at, values);
        self.values.shrink_to_fit();
        right
    }

    /// A leaf of some of the keys.
    fn part(&self, places: Range<usize>, values: Vec<V>) -> Self {
        let (first, last) = (self.rest(places.start), self.rest(places.end - 1));
        let more = common(first, last);
        let shared = self.shared + more;
        let rests: usize = places.clone().map(|at| self.rest(at).len() - more).sum();
        let mut bytes = Vec::with_capacity(shared + rests);
        bytes.extend_from_slice(&self.bytes[..self.shared]);
        bytes.extend_from_slice(&first[..more]);
        let mut ends = Vec::with_capacity(places.len());
        for at in places {
            bytes.extend_from_slice(&self.rest(at)[more..]);
            ends.push(place(bytes.len()));
        }
        Self { bytes, shared, ends, values }
    }

    /// Gives away all entries, in order.
    pub(super) fn give_away(self, mut take: impl FnMut(&[u8], V)) {
        let Self { bytes, shared, ends, values } = self;
        let mut key = Vec::new();
        let mut start = shared;
        for (end, value) in ends.into_iter().zip(values) {
            key.clear();
            key.extend_from_slice(&bytes[..shared]);
            key.extend_from_slice(&bytes[start..end as usize]);
            start = end as usize;
            take(&key, value);
        }
    }

    /// Shows some entries to `visit`, in order, until it breaks off.
    pub(super) fn each(
        &self,
        places: Range<usize>,
        visit: &mut impl FnMut(Key<'_>, &V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for at in places {
            visit(self.key(at), &self.values[at])?;
        }
        ControlFlow::Continue(())
    }

    /// [`Self::each`], and values may change.
    pub(super) fn each_mut(
        &mut self,
        places: Range<usize>,
        visit: &mut impl FnMut(Key<'_>, &mut V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for at in places {
            let span = self.span(at);
            let key = Key { shared: &self.bytes[..self.shared], rest: &self.bytes[span] };
            visit(key, &mut self.values[at])?;
        }
        ControlFlow::Continue(())
    }
}

/// How many bytes two keys begin with alike.
pub(in super::super) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Makes room, a little more than is needed now: a leaf holds few entries, and unused room in each would be unused room for all.
fn make_room<T>(vec: &mut Vec<T>, needed: usize, at_once: usize) {
    if vec.capacity() - vec.len() < needed {
        vec.reserve_exact(needed.max(at_once));
    }
}

fn place(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("keys are shorter than requests, and a leaf has few")
}
