//! What the fuzzer calls, and the stable tests too: any bytes as the files of a log.
//!
//! The invariant it checks: whatever the bytes, opening and repairing end, without a panic, in a log or in a typed error; a log that
//! was opened opens again with the same content, takes writes, and has them afterwards.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use detcd_core::ids::{Index, Term};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};

use super::made::Made;
use super::{Name, Options, Wal, WalError, marks};
use crate::disk::{Disk, MemoryDisk};
use crate::fault::Fault;

/// What became of the bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// They are a log with so many entries after the newest mark, possibly after repair.
    Opened {
        /// Entries after the mark.
        entries: usize,
        /// Whether its end was cut off.
        was_repaired: bool,
    },
    /// They are not, and this is what an operator would read.
    Refused(String),
}

const DIR: &str = "wal";
const SEGMENT_BYTES: u64 = 4096;

/// Takes the bytes for a log of one file; then, cut in two, for a log of two; then for what a sound log says. Answers for the
/// first.
///
/// # Panics
///
/// If a log that was opened does not keep what it holds: then there is a bug.
#[must_use]
pub fn decode_and_repair(input: &[u8]) -> Outcome {
    let outcome = open_and_extend(&[input]);
    let (first, second) = input.split_at(input.len() / 16 * 8);
    let _ = open_and_extend(&[first, second]);
    let _ = open_and_extend(&[&Made::of(input).into_bytes()]);
    outcome
}

/// Runs a future over a [`MemoryDisk`], which never makes anyone wait.
///
/// # Panics
///
/// If it waits all the same.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a disk in memory has nothing to wait for"),
    }
}

fn open_and_extend(files: &[&[u8]]) -> Outcome {
    let disk = MemoryDisk::new();
    for (seq, bytes) in files.iter().enumerate() {
        let name = Name { seq: seq as u64, index: Index(seq as u64) };
        disk.put(&Path::new(DIR).join(name.to_string()), bytes.to_vec());
    }
    match ready(extended(&disk)) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

async fn extended(disk: &MemoryDisk) -> Result<Outcome, WalError> {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::new(DIR) };
    let start = marks(disk, &options.dir).await?.pop().map_or(Mark::ZERO, |marked| marked.mark);
    let files = disk_files(disk).await?;
    let was_repaired =
        matches!(Wal::open(disk.clone(), options.clone(), start).await, Err(error) if error.is_repairable());
    let (mut wal, recovered) = Wal::open_repairing(disk.clone(), options.clone(), start, None).await?;
    if was_repaired {
        assert!(files < disk_files(disk).await?, "repair leaves a copy");
    }

    let last = recovered.entries.last().map_or(start.index, |entry| entry.index);
    if last.0 > u64::MAX / 2 {
        return Ok(Outcome::Opened { entries: recovered.entries.len(), was_repaired });
    }
    let entry = Entry { term: Term(1), index: last.next(), kind: EntryKind::Normal, payload: Bytes::from_static(b"x") };
    let hard_state = HardState { term: Term(9), vote: None, commit: start.index };
    let write =
        Write { snapshot: None, entries: vec![entry.clone()], hard_state: Some(hard_state), sync: Sync::Required };
    wal.append(&write);
    wal.cut_if_full().await?;
    wal.sync().await?;
    drop(wal);

    let (_, again) = Wal::open(disk.clone(), options, start).await.expect("a log that was opened opens again");
    assert_eq!(again.hard_state, hard_state);
    assert_eq!(again.entries.last(), Some(&entry));
    assert_eq!(again.entries[..again.entries.len() - 1], recovered.entries[..]);
    Ok(Outcome::Opened { entries: recovered.entries.len(), was_repaired })
}

async fn disk_files(disk: &MemoryDisk) -> Result<usize, WalError> {
    let dir = Path::new(DIR);
    Ok(disk.list(dir).await.map_err(Fault::disk("list", dir))?.len())
}
