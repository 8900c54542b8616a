//! What the fuzzer calls, and the stable tests too: any bytes as a `.snap` file.
//!
//! The invariants it checks, whatever the bytes: reading ends, without a panic, in a snapshot or a named damage; a snapshot that was read is the same when it is
//! written and read again; a start takes the newest file that checks out, sets a broken one aside with all its bytes, and does nothing of it twice. The bytes are tried as they are and
//! then as the content of a file whose checksum fits.

use std::path::Path;

use bytes::Bytes;
use crc32c::crc32c;
use detcd_core::ids::{Index, Term};
use detcd_core::raft::Mark;
use detcd_proto::{raftpb, snappb};
use prost::Message as _;

use super::{Damage, Snapshot, decode, encode, file_name, newest, save};
use crate::disk::{Disk, MemoryDisk};
use crate::wal::fuzz::ready;

/// Takes the bytes for a `.snap` file, and answers for them as they are.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
pub fn read(bytes: &[u8]) -> Result<Snapshot, Damage> {
    let outcome = check(bytes.to_vec());
    let whole = snappb::Snapshot { crc: Some(crc32c(bytes)), data: Some(Bytes::copy_from_slice(bytes)) };
    let _ = check(whole.encode_to_vec());
    outcome
}

fn check(bytes: Vec<u8>) -> Result<Snapshot, Damage> {
    let outcome = decode(bytes.clone());
    if let Ok(snapshot) = &outcome {
        assert_eq!(decode(encode(snapshot)).as_ref(), Ok(snapshot), "written and read again");
    }
    let (disk, dir) = (MemoryDisk::new(), Path::new("snap"));
    let mark = |index| Mark { term: Term(1), index: Index(index) };
    let older = Snapshot { mark: mark(1), conf_state: raftpb::ConfState::default(), data: Bytes::from_static(b"{}") };
    ready(disk.create_dir_all(dir)).expect("nothing is in the way");
    ready(save(&disk, dir, &older)).expect("memory takes every file");
    let path = dir.join(file_name(mark(2)));
    disk.put(&path, bytes.clone());
    let taken = ready(newest(&disk, dir)).expect("memory fails never");
    assert_eq!(taken.as_ref(), Some(outcome.as_ref().unwrap_or(&older)));
    let aside = disk.bytes(&path.with_extension("snap.broken"));
    match &outcome {
        Ok(_) => assert_eq!((disk.bytes(&path), aside), (Some(bytes), None)),
        Err(_) => assert_eq!((disk.bytes(&path), aside), (None, Some(bytes)), "nothing is lost"),
    }
    assert_eq!(ready(newest(&disk, dir)).expect("memory fails never"), taken, "the next start comes to the same");
    outcome
}
