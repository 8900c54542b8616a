//! The bytes of one file: as they are read, as a power cut would leave them at worst, and the changes between the two.
//!
//! The invariant: `current` is `durable` with every pending change applied, in order – until a sync fails. Then the pages count as clean although
//! they may be lost, as on Linux: no later sync writes them, and what the file really holds shows when the process is gone.

use detcd_io::entropy::Entropy;

use super::image::ByteLoss;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// A file's bytes.
#[derive(Debug, Default)]
pub struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Changes that ever became pending; syncs name the newest that they cover.
    changes: u64,
    /// Whether a sync failed since the process started.
    is_deceived: bool,
    /// The open file that holds the lock.
    pub holder: Option<u64>,
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
        self.add(Change::Write { offset, bytes: bytes.to_vec() });
    }

    /// Cuts the file or adds zeros.
    pub fn resize(&mut self, size: u64) {
        if size != self.current.len() as u64 {
            self.add(Change::Resize { size });
        }
    }

    /// What a sync that begins now covers.
    pub const fn mark(&self) -> u64 {
        self.changes
    }

    /// A sync that began at `mark` is done.
    pub fn sync(&mut self, mark: u64) {
        let covered = self.covered(mark);
        for change in self.pending.drain(..covered) {
            change.apply(&mut self.durable, Parts::Both, &mut |_| true);
        }
    }

    /// A sync that began at `mark` failed: what it covered is written or lost, and nobody will try again.
    pub fn fail_sync(&mut self, mark: u64, entropy: &mut Entropy) {
        let covered = self.covered(mark);
        let lost: Vec<Change> = self.pending.drain(..covered).collect();
        for change in &lost {
            let parts = Parts::Both;
            change.apply(&mut self.durable, parts, &mut |_| entropy.draw(0, 3) == 0);
        }
        self.is_deceived = true;
    }

    /// The process is gone. After a failed sync the lost pages are dropped: what is read now is what there is.
    pub fn end_process(&mut self) {
        self.holder = None;
        if std::mem::take(&mut self.is_deceived) {
            self.current.clone_from(&self.durable);
            for change in &self.pending {
                change.apply(&mut self.current, Parts::Both, &mut |_| true);
            }
        }
    }

    /// The power is gone. Lengths change in order, up to some point; sectors fare as `loss` says.
    pub fn cut_power(&mut self, loss: ByteLoss, entropy: &mut Entropy) {
        self.holder = None;
        self.is_deceived = false;
        let lengths = match loss {
            ByteLoss::All => 0,
            ByteLoss::None => self.pending.len() as u64,
            ByteLoss::Sectors => entropy.draw(0, self.pending.len() as u64),
        };
        let keep_in_ten = entropy.draw(1, 9);
        for (place, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let parts = if (place as u64) < lengths { Parts::Both } else { Parts::BytesOnly };
            change.apply(&mut self.durable, parts, &mut |_| match loss {
                ByteLoss::All => false,
                ByteLoss::None => true,
                ByteLoss::Sectors => entropy.draw(1, 10) <= keep_in_ten,
            });
        }
        self.current.clone_from(&self.durable);
    }

    fn add(&mut self, change: Change) {
        change.apply(&mut self.current, Parts::Both, &mut |_| true);
        self.pending.push(change);
        self.changes += 1;
    }

    fn covered(&self, mark: u64) -> usize {
        let newer = (self.changes - mark) as usize;
        self.pending.len().saturating_sub(newer)
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
