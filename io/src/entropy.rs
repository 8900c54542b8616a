//! The only generator of random numbers. The engine asks for a delay range; this draws from it.
//!
//! ChaCha seeded by the composition root: from the operating system in production, from the run's seed in simulation.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub struct Entropy {
    generator: ChaCha8Rng,
}

impl Entropy {
    /// A source that repeats itself for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A source seeded with 32 bytes.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self { generator: ChaCha8Rng::from_seed(seed) }
    }

    /// A number from `min` to `max`, both allowed.
    pub fn draw(&mut self, min: u64, max: u64) -> u64 {
        assert!(min <= max);
        let span = max - min;
        if span == u64::MAX {
            return self.generator.next_u64();
        }
        // The bias of the remainder is below one in 2^40 for any timer's range.
        min + self.generator.next_u64() % (span + 1)
    }
}
