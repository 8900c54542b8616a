//! How many keys the next chunk of a range stream gets: etcd's rule, which aims at the size of a request.

/// The first chunk.
const KEYS_FIRST: usize = 10;

/// The size of the next chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ChunkSize {
    keys: usize,
    target_bytes: usize,
}

impl ChunkSize {
    /// A stream that aims at `target_bytes` a chunk.
    #[must_use]
    pub(super) const fn new(target_bytes: usize) -> Self {
        Self { keys: KEYS_FIRST, target_bytes }
    }

    /// Keys in the next chunk.
    #[must_use]
    pub(super) const fn keys(&self) -> usize {
        self.keys
    }

    /// A chunk came out at `bytes`: doubles after a chunk below half of the target, halves after one above twice the target.
    pub(super) const fn on_chunk(&mut self, bytes: usize) {
        if bytes < self.target_bytes / 2 {
            self.keys = self.keys.saturating_mul(2);
        } else if bytes > self.target_bytes * 2 && self.keys > 1 {
            self.keys /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_to_the_target_and_shrink_from_beyond_it() {
        let mut size = ChunkSize::new(1000);
        size.on_chunk(499);
        assert_eq!(size.keys(), 20);
        size.on_chunk(500);
        size.on_chunk(2000);
        assert_eq!(size.keys(), 20);
        size.on_chunk(2001);
        assert_eq!(size.keys(), 10);
        for _ in 0..9 {
            size.on_chunk(9999);
        }
        assert_eq!(size.keys(), 1);
    }
}
