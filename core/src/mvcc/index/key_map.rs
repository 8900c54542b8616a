//! An ordered map from keys to small values that takes little more memory than their bytes.
//!
//! Keys of a store stand in families: neighbours begin alike, often for most of their length. So entries lie in leaves of up to
//! 64, packed one behind the other, with what all keys of the leaf begin with written once; an ordinary ordered map finds the leaf. Each insertion moves at
//! most one leaf, whose size is bounded. Invariants: no leaf is empty; a leaf is filed under a bound that is not after its first key and after
//! every key of the leaf before it; what is in the map does not depend on how it is cut into leaves, but for memory.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Bound, ControlFlow};

use leaf::{BYTES_MAX, LEN_MAX, Leaf};
pub(super) use leaf::{Key, common};

mod leaf;
#[cfg(test)]
mod tests;

/// Bounds of a walk.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The map.
#[derive(Clone)]
pub(super) struct KeyMap<V> {
    leaves: BTreeMap<Box<[u8]>, Leaf<V>>,
    len: usize,
}

impl<V> KeyMap<V> {
    /// How many entries there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        let (_, leaf) = self.leaves.range::<[u8], _>(upto(key)).next_back()?;
        leaf.find(key).ok().map(|at| leaf.value(at))
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let (_, leaf) = self.leaves.range_mut::<[u8], _>(upto(key)).next_back()?;
        leaf.find(key).ok().map(|at| leaf.value_mut(at))
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, key: &[u8], value: V) {
        self.len += 1;
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(upto(key)).next_back() else {
            let mut leaf = Leaf::EMPTY;
            leaf.insert(0, key, value);
            // Nothing is before the empty key, so this leaf is also that of any earlier one.
            self.leaves.insert(Box::default(), leaf);
            return;
        };
        let at = leaf.find(key).expect_err("only what is not there is inserted");
        leaf.insert(at, key, value);
        if leaf.len() <= LEN_MAX && (leaf.bytes() <= BYTES_MAX || leaf.len() == 1) {
            return;
        }
        // Keys that come in order leave full leaves behind.
        let is_last = at + 1 == leaf.len();
        let right = leaf.split_off(if is_last { at } else { leaf.len() / 2 });
        let bound = bound_between(leaf, &right);
        self.leaves.insert(bound, right);
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let (bound, leaf) = self.leaves.range_mut::<[u8], _>(upto(key)).next_back()?;
        let at = leaf.find(key).ok()?;
        let value = leaf.remove(at);
        self.len -= 1;
        if leaf.len() <= LEN_MAX / 4 {
            let bound = bound.clone();
            self.join(&bound);
        }
        Some(value)
    }

    /// Moves what a small leaf holds to the one before it, if there is room.
    fn join(&mut self, bound: &[u8]) {
        let leaf = self.leaves.get(bound).expect("a leaf is filed under its bound");
        let (len, bytes) = (leaf.len(), leaf.bytes());
        if len == 0 {
            self.leaves.remove(bound);
            return;
        }
        let before = self.leaves.range_mut::<[u8], _>((Bound::Unbounded, Bound::Excluded(bound))).next_back();
        if before
            .is_some_and(|(_, before)| before.len() + len <= LEN_MAX * 3 / 4 && before.bytes() + bytes <= BYTES_MAX / 2)
        {
            let leaf = self.leaves.remove(bound).expect("it was just there");
            let before = self.leaves.range_mut::<[u8], _>((Bound::Unbounded, Bound::Excluded(bound))).next_back();
            let (_, before) = before.expect("it was just there");
            leaf.give_away(|key, value| before.insert(before.len(), key, value));
        }
    }

    /// Shows the entries within bounds to `visit`, in order, until it breaks off.
    pub(super) fn walk(&self, (start, end): Bounds<'_>, mut visit: impl FnMut(Key<'_>, &V) -> ControlFlow<()>) {
        for (_, leaf) in self.leaves.range::<[u8], _>((self.leaf_of(start), Bound::Unbounded)) {
            let places = leaf.within(start, end);
            let is_last = places.end < leaf.len();
            if leaf.each(places, &mut visit).is_break() || is_last {
                return;
            }
        }
    }

    /// [`Self::walk`] from `start` to the end of the map, and values may change.
    pub(super) fn walk_mut(&mut self, start: Bound<&[u8]>, mut visit: impl FnMut(Key<'_>, &mut V) -> ControlFlow<()>) {
        let first = self.leaf_of(start).map(Box::<[u8]>::from);
        let first = first.as_ref().map(|bound| &**bound);
        for (_, leaf) in self.leaves.range_mut::<[u8], _>((first, Bound::Unbounded)) {
            let places = leaf.within(start, Bound::Unbounded);
            if leaf.each_mut(places, &mut visit).is_break() {
                return;
            }
        }
    }

    /// The bound of the leaf in which a walk begins.
    fn leaf_of(&self, start: Bound<&[u8]>) -> Bound<&[u8]> {
        let (Bound::Included(key) | Bound::Excluded(key)) = start else { return Bound::Unbounded };
        let leaf = self.leaves.range::<[u8], _>(upto(key)).next_back();
        leaf.map_or(Bound::Unbounded, |(bound, _)| Bound::Included(&**bound))
    }

    /// Works in items whose keys are in order, each once: `change` is shown what is there and may change it, or makes what is not. Leaves that get none stay as they
    /// are, what fits goes into its leaf in place, and what does not makes its leaf into several.
    ///
    /// # Errors
    /// What `change` answered. The map is of no use any more.
    pub(super) fn work_in<'a, T, E>(
        &mut self,
        items: impl Iterator<Item = (&'a [u8], T)>,
        mut change: impl FnMut(Option<&mut V>, T) -> Result<Option<V>, E>,
    ) -> Result<(), E> {
        let mut items = items.peekable();
        let mut made = Made { leaves: Vec::with_capacity(self.leaves.len()), open: Leaf::EMPTY, most: LEN_MAX };
        let mut leaves = core::mem::take(&mut self.leaves).into_iter().peekable();
        let mut fresh = Vec::new();
        let mut leaf = leaves.next().map_or(Leaf::EMPTY, |(_, leaf)| leaf);
        loop {
            let next = leaves.peek().map(|(bound, _)| &**bound);
            while let Some((key, item)) = items.next_if(|(key, _)| next.is_none_or(|next| *key < next)) {
                let found = leaf.find(key);
                let value = change(found.ok().map(|at| leaf.value_mut(at)), item)?;
                fresh.extend(value.map(|value| (key, found.unwrap_or_else(|at| at), value)));
            }
            self.len += fresh.len();
            made.take(leaf, &mut fresh);
            match leaves.next() {
                Some((_, following)) => leaf = following,
                None => break,
            }
        }
        self.leaves = made.finish();
        Ok(())
    }
}

/// Leaves in the making, in order.
struct Made<V> {
    leaves: Vec<(Box<[u8]>, Leaf<V>)>,
    /// The one being filled, after those.
    open: Leaf<V>,
    /// With how many entries it is full: what one leaf becomes is cut into equal parts.
    most: usize,
}

impl<V> Made<V> {
    /// Takes over a leaf, with fresh entries before places of it.
    fn take(&mut self, mut leaf: Leaf<V>, fresh: &mut Vec<(&[u8], usize, V)>) {
        self.close();
        let bytes: usize = fresh.iter().map(|(key, _, _)| key.len()).sum();
        if 0 < leaf.len() && leaf.len() + fresh.len() <= LEN_MAX && leaf.bytes() + bytes <= BYTES_MAX {
            // From behind, so that places stay what they are.
            for (key, at, value) in fresh.drain(..).rev() {
                leaf.insert(at, key, value);
            }
            return self.file(leaf);
        }
        let len = leaf.len() + fresh.len();
        self.most = len.div_ceil(len.div_ceil(LEN_MAX).max(1));
        let mut fresh = fresh.drain(..).peekable();
        let mut at = 0;
        leaf.give_away(|key, value| {
            while let Some((key, _, value)) = fresh.next_if(|(_, before, _)| *before <= at) {
                self.push(key, value);
            }
            self.push(key, value);
            at += 1;
        });
        for (key, _, value) in fresh {
            self.push(key, value);
        }
    }

    fn push(&mut self, key: &[u8], value: V) {
        if self.open.len() == self.most || BYTES_MAX < self.open.bytes() + key.len() {
            self.close();
        }
        self.open.insert(self.open.len(), key, value);
    }

    fn close(&mut self) {
        let mut leaf = core::mem::replace(&mut self.open, Leaf::EMPTY);
        if 0 < leaf.len() {
            leaf.fit();
            self.file(leaf);
        }
    }

    fn file(&mut self, leaf: Leaf<V>) {
        let bound = self.leaves.last().map_or_else(Box::default, |(_, before)| bound_between(before, &leaf));
        self.leaves.push((bound, leaf));
    }

    fn finish(mut self) -> BTreeMap<Box<[u8]>, Leaf<V>> {
        self.close();
        self.leaves.into_iter().collect()
    }
}

/// Bounds up to a key, itself included.
const fn upto(key: &[u8]) -> Bounds<'_> {
    (Bound::Unbounded, Bound::Included(key))
}

/// The shortest bound that tells two leaves apart.
fn bound_between<V>(left: &Leaf<V>, right: &Leaf<V>) -> Box<[u8]> {
    let (last, mut first) = (left.key(left.len() - 1).to_vec(), right.key(0).to_vec());
    first.truncate(common(&last, &first) + 1);
    first.into()
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { leaves: BTreeMap::new(), len: 0 }
    }
}

impl<V> KeyMap<V> {
    fn entries(&self) -> impl Iterator<Item = (Vec<u8>, &V)> {
        self.leaves.values().flat_map(|leaf| (0..leaf.len()).map(|at| (leaf.key(at).to_vec(), leaf.value(at))))
    }
}

impl<V: fmt::Debug> fmt::Debug for KeyMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries()).finish()
    }
}

impl<V: PartialEq> PartialEq for KeyMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.entries().eq(other.entries())
    }
}

impl<V: Eq> Eq for KeyMap<V> {}
