//! The bytes of one file: as they are read, and what a power cut would leave of them at worst.
//!
//! The invariant: taking the pending changes back, newest first, makes of what is read what the platters hold – until a sync fails. Then the pages count as
//! clean although they may be lost, as on Linux: no later sync writes them, what the platters hold is kept apart (`Deceived`), and it shows when the
//! process is gone. So that an honest sync costs nothing, a change is remembered by what was there before it.

use detcd_io::entropy::Entropy;

use super::image::ByteLoss;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// A file's bytes.
#[derive(Debug, Default)]
pub struct Content {
    current: Vec<u8>,
    /// How to take back what no sync covered. Empty after a failed one.
    undo: Vec<Undo>,
    /// Since a sync failed.
    deceived: Option<Deceived>,
    /// Changes that ever became pending; syncs name the newest that they cover.
    changes: u64,
    /// The open file that holds the lock.
    pub holder: Option<u64>,
}

/// A change, by what was there before it.
#[derive(Debug)]
struct Undo {
    /// The length of the file.
    size: u64,
    kind: UndoKind,
}

#[derive(Debug)]
enum UndoKind {
    /// So many bytes were written there, over these.
    Write { offset: u64, length: usize, before: Vec<u8> },
    /// These were cut off, if any.
    Resize { cut: Vec<u8> },
}

/// What the platters hold while the system believes otherwise.
#[derive(Debug)]
struct Deceived {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize { size: u64 },
}

impl Content {
    /// What a reader sees.
    pub fn bytes(&self) -> &[u8] {
        &self.current
    }

    /// Writes, making the file longer where needed.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(deceived) = &mut self.deceived {
            deceived.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
        }
        self.put(offset, bytes);
        self.changes += 1;
    }

    /// Other bytes are there, durably, and nobody wrote them.
    pub fn set(&mut self, offset: u64, bytes: &[u8]) {
        self.write(offset, bytes);
        self.sync(self.changes);
    }

    /// Cuts the file or adds zeros.
    pub fn resize(&mut self, size: u64) {
        if size == self.current.len() as u64 {
            return;
        }
        if let Some(deceived) = &mut self.deceived {
            deceived.pending.push(Change::Resize { size });
        }
        self.cut_or_fill(size);
        self.changes += 1;
    }

    /// What a sync that begins now covers.
    pub const fn mark(&self) -> u64 {
        self.changes
    }

    /// A sync that began at `mark` is done.
    pub fn sync(&mut self, mark: u64) {
        let covered = self.covered(mark);
        match &mut self.deceived {
            None => drop(self.undo.drain(..covered)),
            Some(Deceived { durable, pending }) => {
                for change in pending.drain(..covered) {
                    change.apply(durable, Parts::Both, &mut |_| true);
                }
            }
        }
    }

    /// A sync that began at `mark` failed: what it covered is written or lost, and nobody will try again.
    pub fn fail_sync(&mut self, mark: u64, entropy: &mut Entropy) {
        let covered = self.covered(mark);
        let mut deceived = self.take_apart();
        for change in deceived.pending.drain(..covered) {
            change.apply(&mut deceived.durable, Parts::Both, &mut |_| entropy.draw(0, 3) == 0);
        }
        self.deceived = Some(deceived);
    }

    /// The process is gone. After a failed sync the lost pages are dropped: what is read now is what there is.
    pub fn end_process(&mut self) {
        self.holder = None;
        let Some(Deceived { durable, pending }) = self.deceived.take() else { return };
        self.current = durable;
        for change in pending {
            match change {
                Change::Write { offset, bytes } => self.put(offset, &bytes),
                Change::Resize { size } => self.cut_or_fill(size),
            }
        }
    }

    /// The power is gone. Lengths change in order, up to some point; sectors fare as `loss` says.
    pub fn cut_power(&mut self, loss: ByteLoss, entropy: &mut Entropy) {
        self.holder = None;
        let count = self.pending() as u64;
        let lengths = match loss {
            ByteLoss::All => 0,
            ByteLoss::None => count,
            ByteLoss::Sectors => entropy.draw(0, count),
        };
        let keep_in_ten = entropy.draw(1, 9);
        if count == 0 && self.deceived.is_none() {
            return;
        }
        let Deceived { mut durable, pending } = self.take_apart();
        for (place, change) in pending.into_iter().enumerate() {
            let parts = if (place as u64) < lengths { Parts::Both } else { Parts::BytesOnly };
            change.apply(&mut durable, parts, &mut |_| match loss {
                ByteLoss::All => false,
                ByteLoss::None => true,
                ByteLoss::Sectors => entropy.draw(1, 10) <= keep_in_ten,
            });
        }
        self.current = durable;
    }

    /// How many changes no sync covered.
    fn pending(&self) -> usize {
        self.deceived.as_ref().map_or(self.undo.len(), |deceived| deceived.pending.len())
    }

    fn covered(&self, mark: u64) -> usize {
        let newer = (self.changes - mark) as usize;
        self.pending().saturating_sub(newer)
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (size, start) = (self.current.len(), offset as usize);
        let overlap = start.min(size)..(start + bytes.len()).min(size);
        if self.deceived.is_none() {
            let before = self.current[overlap.clone()].to_vec();
            self.undo.push(Undo { size: size as u64, kind: UndoKind::Write { offset, length: bytes.len(), before } });
        }
        if size < start {
            self.current.resize(start, 0);
        }
        let (over, beyond) = bytes.split_at(overlap.len());
        self.current[overlap].copy_from_slice(over);
        self.current.extend_from_slice(beyond);
    }

    fn cut_or_fill(&mut self, size: u64) {
        if self.deceived.is_none() {
            let cut = self.current.get(size as usize..).unwrap_or_default().to_vec();
            self.undo.push(Undo { size: self.current.len() as u64, kind: UndoKind::Resize { cut } });
        }
        self.current.resize(size as usize, 0);
    }

    /// What the platters hold, and the changes from there to what is read.
    fn take_apart(&mut self) -> Deceived {
        if let Some(deceived) = self.deceived.take() {
            return deceived;
        }
        let mut durable = self.current.clone();
        let mut pending: Vec<Change> = self.undo.drain(..).rev().map(|undo| undo.take_back(&mut durable)).collect();
        pending.reverse();
        Deceived { durable, pending }
    }
}

impl Undo {
    /// Takes the newest change back. Says what it was.
    fn take_back(self, bytes: &mut Vec<u8>) -> Change {
        let size = bytes.len() as u64;
        match self.kind {
            UndoKind::Write { offset, length, before } => {
                let start = offset as usize;
                let written = bytes[start..start + length].to_vec();
                bytes.truncate(self.size as usize);
                let kept = start.min(bytes.len());
                bytes[kept..kept + before.len()].copy_from_slice(&before);
                Change::Write { offset, bytes: written }
            }
            UndoKind::Resize { cut } => {
                bytes.truncate(self.size as usize);
                bytes.extend_from_slice(&cut);
                Change::Resize { size }
            }
        }
    }
}

/// What of a change is carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Parts {
    Both,
    /// The file keeps its length, and what lies beyond it is lost.
    BytesOnly,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, parts: Parts, keep: &mut dyn FnMut(u64) -> bool) {
        match self {
            Self::Resize { size } => {
                if parts == Parts::Both {
                    bytes.resize(*size as usize, 0);
                }
            }
            Self::Write { offset, bytes: new } => {
                let end = *offset + new.len() as u64;
                if parts == Parts::Both && (bytes.len() as u64) < end {
                    bytes.resize(end as usize, 0);
                }
                let mut at = *offset;
                while at < end {
                    let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    let limit = next.min(bytes.len() as u64);
                    if keep(at / SECTOR_BYTES) && at < limit {
                        let piece = (at - offset) as usize..(limit - offset) as usize;
                        bytes[at as usize..limit as usize].copy_from_slice(&new[piece]);
                    }
                    at = next;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros_then_ones() -> Content {
        let mut content = Content::default();
        content.resize(4 * SECTOR_BYTES);
        let mark = content.mark();
        content.sync(mark);
        content.write(100, &[1; 1500]);
        content
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_tears_at_sectors() {
        let mut is_torn = false;
        for seed in 0..20 {
            let mut content = zeros_then_ones();
            content.cut_power(ByteLoss::Sectors, &mut Entropy::seeded(seed));
            assert_eq!(content.bytes().len(), 2048);
            let pieces = [100..512, 512..1024, 1024..1536, 1536..1600];
            let kept = pieces.map(|piece| {
                let first = content.bytes()[piece.start];
                assert!(content.bytes()[piece].iter().all(|byte| *byte == first), "sectors are whole");
                first
            });
            is_torn |= kept.contains(&0) && kept.contains(&1);
        }
        assert!(is_torn);
        let mut content = zeros_then_ones();
        let mark = content.mark();
        content.write(2000, &[2; 8]);
        content.sync(mark);
        content.cut_power(ByteLoss::All, &mut Entropy::seeded(1));
        assert_eq!(content.bytes()[1599..1601], [1, 0], "the sync covered what came before it");
        assert_eq!(content.bytes()[2000], 0, "and nothing after it");
    }

    /// The same, by keeping both sides whole.
    #[derive(Default)]
    struct Twin {
        current: Vec<u8>,
        durable: Vec<u8>,
        pending: Vec<Change>,
        changes: u64,
        is_deceived: bool,
    }

    impl Twin {
        fn add(&mut self, change: Change) {
            change.apply(&mut self.current, Parts::Both, &mut |_| true);
            self.pending.push(change);
            self.changes += 1;
        }

        fn sync(&mut self, mark: u64, keep: &mut dyn FnMut(u64) -> bool) {
            let covered = self.pending.len().saturating_sub((self.changes - mark) as usize);
            for change in self.pending.drain(..covered) {
                change.apply(&mut self.durable, Parts::Both, keep);
            }
        }

        fn end_process(&mut self) {
            if std::mem::take(&mut self.is_deceived) {
                self.current.clone_from(&self.durable);
                for change in &self.pending {
                    change.apply(&mut self.current, Parts::Both, &mut |_| true);
                }
            }
        }

        fn cut_power(&mut self, loss: ByteLoss, entropy: &mut Entropy) {
            self.is_deceived = false;
            let lengths = if loss == ByteLoss::Sectors { entropy.draw(0, self.pending.len() as u64) } else { 0 };
            let keep_in_ten = entropy.draw(1, 9);
            for (place, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
                let has_length = loss == ByteLoss::None || (place as u64) < lengths;
                let parts = if has_length { Parts::Both } else { Parts::BytesOnly };
                change.apply(&mut self.durable, parts, &mut |_| match loss {
                    ByteLoss::All => false,
                    ByteLoss::None => true,
                    ByteLoss::Sectors => entropy.draw(1, 10) <= keep_in_ten,
                });
            }
            self.current.clone_from(&self.durable);
        }
    }

    #[test]
    fn what_is_read_and_left_is_what_two_whole_sides_say() {
        for seed in 0..200 {
            let (mut content, mut twin) = (Content::default(), Twin::default());
            let (mut dice, mut fate, mut other_fate) =
                (Entropy::seeded(seed), Entropy::seeded(!seed), Entropy::seeded(!seed));
            let mut mark = 0;
            for step in 0..60_u8 {
                let (at, length) = (dice.draw(0, 3_000), dice.draw(0, 2_000));
                match dice.draw(0, 9) {
                    0..=4 => {
                        let bytes = vec![step + 1; length as usize];
                        content.write(at, &bytes);
                        twin.add(Change::Write { offset: at, bytes });
                    }
                    5 if at != content.bytes().len() as u64 => {
                        content.resize(at);
                        twin.add(Change::Resize { size: at });
                    }
                    6 => {
                        content.sync(mark);
                        twin.sync(mark, &mut |_| true);
                    }
                    7 if dice.draw(0, 3) == 0 => {
                        content.fail_sync(mark, &mut fate);
                        twin.sync(mark, &mut |_| other_fate.draw(0, 3) == 0);
                        twin.is_deceived = true;
                    }
                    8 if dice.draw(0, 3) == 0 => {
                        content.end_process();
                        twin.end_process();
                    }
                    9 if dice.draw(0, 3) == 0 => {
                        let loss = [ByteLoss::All, ByteLoss::None, ByteLoss::Sectors][dice.draw(0, 2) as usize];
                        content.cut_power(loss, &mut fate);
                        twin.cut_power(loss, &mut other_fate);
                    }
                    _ => mark = content.mark(),
                }
                assert_eq!(content.bytes(), twin.current, "seed {seed}, step {step}");
            }
            content.cut_power(ByteLoss::All, &mut fate);
            twin.cut_power(ByteLoss::All, &mut other_fate);
            assert_eq!(content.bytes(), twin.current, "seed {seed}, in the end");
        }
    }

    #[test]
    fn after_a_failed_sync_the_pages_look_clean_and_are_lost() {
        let mut content = zeros_then_ones();
        let mark = content.mark();
        content.fail_sync(mark, &mut Entropy::seeded(3));
        assert_eq!(content.bytes()[100], 1, "the page cache still shows them");
        let mark = content.mark();
        content.sync(mark);
        let shown = content.bytes().to_vec();
        content.end_process();
        assert_ne!(content.bytes(), shown, "a second sync did not write them");
    }
}
