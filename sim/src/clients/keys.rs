//! Which keys clients share: few, so that they meet – or, in some runs, thousands, so that what goes by the number of keys is used: a key index of
//! many leaves, ranges and deletes that take more than one turn.

use bytes::Bytes;
use detcd_io::entropy::Entropy;

use crate::options::{Load, MemberOptions, Options, Steps, pick};

/// The mean of milliseconds between two defragmentations or snapshots of many keys.
const UPKEEP_MILLIS: u64 = 15_000;

/// Rows that a sweep of many removes at least between two pauses: two sweeps of all that a run writes take less than a client waits.
const SWEEP_ROWS_MIN: u64 = 100;
/// Keys that a command looks at between two looks at others, at least.
const APPLY_KEYS_MIN: usize = 30;

/// Thousands of keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Crowd {
    /// In a thousand operations, how many are about many keys.
    pub share: u64,
    /// How many neighbours one transaction writes at most. Reads and deletes take ten times as many.
    pub puts_max: u64,
    /// How much longer than their number keys are at most, in bytes.
    pub padding_max: u64,
}

/// The keys that all clients of a run share.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keys {
    /// How many there are.
    pub count: u64,
    padding_max: Option<u64>,
}

impl Keys {
    /// Those of a load.
    #[must_use]
    pub fn of(load: &Load) -> Self {
        Self { count: load.keys, padding_max: load.crowd.map(|crowd| crowd.padding_max) }
    }

    /// The key with this number.
    #[must_use]
    pub fn name(&self, number: u64) -> Bytes {
        let Some(padding_max) = self.padding_max else { return short_name(number) };
        // Lengths lie as if by chance, and are the same for everybody.
        let padding = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let padding = usize::try_from(padding % (padding_max + 1)).unwrap_or(0);
        Bytes::from(format!("k{number:04}{:-<padding$}", ""))
    }

    /// Any of them.
    pub fn draw(&self, dice: &mut Entropy) -> Bytes {
        let number = dice.draw(0, self.count - 1);
        self.name(number)
    }

    /// The key of a crowd that comes so many places after this one.
    #[must_use]
    pub fn after(&self, key: &Bytes, places: u64) -> Bytes {
        let number = std::str::from_utf8(&key[1..5]).ok().and_then(|digits| digits.parse::<u64>().ok());
        self.name(number.expect("keys of a crowd begin with four digits") + places)
    }

    /// Neighbours, at most so many: the number of the first, and how many.
    pub fn neighbours(&self, dice: &mut Entropy, most: u64) -> (u64, u64) {
        let count = dice.draw(1, most.min(self.count));
        (dice.draw(0, self.count - count), count)
    }
}

/// The names of few keys, made once: a client asks for several per operation.
static SHORT_NAMES: [[u8; 3]; 100] = {
    let (mut names, mut number) = ([*b"k00"; 100], 0u8);
    while number < 100 {
        names[number as usize] = [b'k', b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    names
};

fn short_name(number: u64) -> Bytes {
    let name = usize::try_from(number).ok().and_then(|number| SHORT_NAMES.get(number));
    name.map_or_else(|| Bytes::from(format!("k{number}")), |name| Bytes::from_static(name))
}

impl Crowd {
    /// What a member does by rows, with a pause after some, ends within a run.
    pub fn bear(member: &mut MemberOptions) {
        let steps = &mut member.steps;
        steps.sweep_rows = steps.sweep_rows.max(SWEEP_ROWS_MIN);
        steps.copy.rows = steps.copy.rows.max(200);
        steps.apply_keys = steps.apply_keys.max(APPLY_KEYS_MIN);
    }

    /// Makes a run one of many keys.
    pub fn draw(options: &mut Options, dice: &mut Entropy) {
        options.load.keys = pick(dice, &[600, 2_000, 6_000]);
        options.load.crowd = Some(Self {
            share: pick(dice, &[30, 100]),
            puts_max: pick(dice, &[30, 120]),
            padding_max: pick(dice, &[0, 0, 40, 600]),
        });
        // Each would take half of the keys away.
        options.load.rewrites = 0;
        // The oracles go through all rows for each.
        options.load.weights.compact = options.load.weights.compact.min(1);
        options.load.upkeep_millis = if options.load.upkeep_millis > 0 { UPKEEP_MILLIS } else { 0 };
        // A large index is where rows that come by the handful are worked in one by one.
        options.member.steps.gathered_rows = pick(dice, &[Steps::USUAL.gathered_rows, 3]);
        Self::bear(&mut options.member);
        let limits = &mut options.watch.limits;
        limits.chunk.rows = limits.chunk.rows.max(100);
        limits.chunk.bytes = limits.chunk.bytes.max(20_000);
        limits.outbox.messages = limits.outbox.messages.max(64);
        limits.outbox.bytes = limits.outbox.bytes.max(20_000);
    }
}
