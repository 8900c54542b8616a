//! etcd's `.snap` files: a snapshot of the log without the store, kept for an older etcd that may take the directory over.
//!
//! The invariant: a file of that name is whole – it is written under another name, synced and renamed, and its directory is synced, before
//! the log's mark refers to it. A file that does not check out is set aside under another name, never removed and never trusted.

pub mod fuzz;
pub mod membership;

use std::io;
use std::path::Path;

use bytes::Bytes;
use crc32c::crc32c;
use prost::Message;

use detcd_core::ids::{Index, Term};
use detcd_core::raft::Mark;
use detcd_proto::{raftpb, snappb};

use crate::disk::{Disk, free_name, read_all, write_whole};
use crate::fault::Fault;

/// A file of membership is some kilobytes; a longer one than this is not read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

const SUFFIX: &str = ".snap";

/// What a `.snap` file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub mark: Mark,
    /// The members at that entry.
    pub conf_state: raftpb::ConfState,
    /// The membership as etcd's old store would write it (see [`membership`]).
    pub data: Bytes,
}

/// What is wrong with the bytes of a `.snap` file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// Nothing in it, or no checksum.
    #[error("snap: empty snapshot")]
    Empty,
    /// The checksum does not fit.
    #[error("snap: crc mismatch")]
    Crc,
    /// No lawful encoding.
    #[error("snap: {0}")]
    Malformed(String),
}

/// The name of the file: term, then index.
#[must_use]
pub fn file_name(mark: Mark) -> String {
    format!("{:016x}-{:016x}{SUFFIX}", mark.term.0, mark.index.0)
}

/// The bytes of the file.
#[must_use]
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let metadata = raftpb::SnapshotMetadata {
        conf_state: Some(snapshot.conf_state.clone()),
        index: Some(snapshot.mark.index.0),
        term: Some(snapshot.mark.term.0),
    };
    let inner = raftpb::Snapshot { data: Some(snapshot.data.clone()), metadata: Some(metadata) };
    let data = inner.encode_to_vec();
    snappb::Snapshot { crc: Some(crc32c(&data)), data: Some(data.into()) }.encode_to_vec()
}

/// Reads the bytes of a file.
pub fn decode(bytes: Vec<u8>) -> Result<Snapshot, Damage> {
    let malformed = |error: prost::DecodeError| Damage::Malformed(error.to_string());
    let outer = snappb::Snapshot::decode(Bytes::from(bytes)).map_err(malformed)?;
    let (crc, data) = (outer.crc.unwrap_or_default(), outer.data.unwrap_or_default());
    if crc == 0 || data.is_empty() {
        return Err(Damage::Empty);
    }
    if crc32c(&data) != crc {
        return Err(Damage::Crc);
    }
    let inner = raftpb::Snapshot::decode(data).map_err(malformed)?;
    let metadata = inner.metadata.unwrap_or_default();
    Ok(Snapshot {
        mark: Mark { term: Term(metadata.term.unwrap_or_default()), index: Index(metadata.index.unwrap_or_default()) },
        conf_state: metadata.conf_state.unwrap_or_default(),
        data: inner.data.unwrap_or_default(),
    })
}

/// Writes a snapshot and makes it durable, its name included. Only then may the log's mark be written.
pub async fn save<D: Disk>(disk: &D, dir: &Path, snapshot: &Snapshot) -> Result<(), Fault> {
    let name = file_name(snapshot.mark);
    let written = write_whole(disk, dir, &name, &encode(snapshot)).await;
    written.map_err(Fault::disk("write", &dir.join(name)))
}

/// Removes all but the newest `keep_max` snapshots. A file that comes back after a power cut is removed by the next call.
pub async fn purge<D: Disk>(disk: &D, dir: &Path, keep_max: usize) -> Result<(), Fault> {
    let names = disk.list(dir).await.map_err(Fault::disk("list", dir))?;
    // Names sort by term, then index.
    let snaps = names.iter().rev().filter(|name| name.to_str().is_some_and(|name| name.ends_with(SUFFIX)));
    for name in snaps.skip(keep_max) {
        let path = dir.join(name);
        disk.remove_file(&path).await.map_err(Fault::disk("remove", &path))?;
    }
    Ok(())
}

/// The newest snapshot that checks out, or `None`. Those that do not are set aside, with a warning.
pub async fn newest<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Snapshot>, Fault> {
    let names = disk.list(dir).await.map_err(Fault::disk("list", dir))?;
    for name in names.iter().rev().filter_map(|name| name.to_str()).filter(|name| parse_name(name).is_some()) {
        let path = dir.join(name);
        let read = match read_all(disk, &path, BYTES_MAX).await {
            Ok(bytes) => decode(bytes),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(Damage::Malformed(error.to_string())),
            Err(error) => return Err(Fault::disk("read", &path)(error)),
        };
        match read {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(damage) => set_aside(disk, dir, &path, &damage).await?,
        }
    }
    Ok(None)
}

/// What the newest file is about, by its name alone. The log's mark of it is written only afterwards, so it may be missing there.
pub async fn newest_name<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Mark>, Fault> {
    let names = disk.list(dir).await.map_err(Fault::disk("list", dir))?;
    Ok(names.iter().rev().find_map(|name| parse_name(name.to_str()?)))
}

/// What a file of this name is about; one that was being written, or was set aside, has another kind of name.
fn parse_name(name: &str) -> Option<Mark> {
    let (term, index) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let is_number = |part: &str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = |part: &str| if is_number(part) { u64::from_str_radix(part, 16).ok() } else { None };
    Some(Mark { term: Term(number(term)?), index: Index(number(index)?) })
}

async fn set_aside<D: Disk>(disk: &D, dir: &Path, path: &Path, damage: &Damage) -> Result<(), Fault> {
    let target = free_name(disk, path).await.map_err(Fault::disk("look beside", path))?;
    tracing::warn!(path = %path.display(), target = %target.display(), %damage, "set a broken snapshot file aside");
    disk.rename(path, &target).await.map_err(Fault::disk("rename", path))?;
    disk.sync_dir(dir).await.map_err(Fault::disk("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::wal::fuzz::ready;

    fn sample(index: u64) -> Snapshot {
        let conf_state = raftpb::ConfState { voters: vec![1], auto_leave: Some(false), ..Default::default() };
        Snapshot { mark: Mark { term: Term(2), index: Index(index) }, conf_state, data: Bytes::from_static(b"{}") }
    }

    #[test]
    fn the_bytes_are_those_of_etcd() {
        let inner = [0x0a, 2, b'{', b'}', 0x12, 10, 0x0a, 4, 0x08, 1, 0x28, 0, 0x10, 10, 0x18, 2];
        let mut crc = Vec::new();
        prost::encoding::encode_varint(u64::from(crc32c(&inner)), &mut crc);
        let wanted = [&[0x08][..], &crc, &[0x12, inner.len() as u8], &inner].concat();
        assert_eq!(encode(&sample(10)), wanted);
        assert_eq!(file_name(sample(10).mark), "0000000000000002-000000000000000a.snap");
        assert_eq!(decode(wanted), Ok(sample(10)));
    }

    #[test]
    fn no_flipped_bit_changes_what_is_read() {
        let bytes = encode(&sample(10));
        for place in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            // Some bits carry no meaning, like those of a varint beyond its type's width.
            if let Ok(read) = decode(flipped) {
                assert_eq!(read, sample(10), "bit {place}");
            }
        }
        assert_eq!(decode(Vec::new()), Err(Damage::Empty));
        for length in 1..bytes.len() {
            assert!(decode(bytes[..length].to_vec()).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_broken_file_is_set_aside_and_the_one_before_is_taken() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("snap"));
        ready(disk.create_dir_all(dir)).unwrap();
        for index in [10, 11] {
            ready(save(&disk, dir, &sample(index))).unwrap();
        }
        disk.put(&dir.join("tmp.0000000000000002-000000000000000c.snap"), encode(&sample(12)));
        for foreign in
            ["2-c.snap", "0000000000000002-000000000000000c.snap.broken", "0000000000000002-00000000000000zz.snap"]
        {
            disk.put(&dir.join(foreign), encode(&sample(12)));
        }
        assert_eq!(ready(newest_name(&disk, dir)).unwrap(), Some(sample(11).mark));
        assert_eq!(ready(newest(&disk, dir)).unwrap(), Some(sample(11)), "an unfinished file does not count");
        let path = dir.join(file_name(sample(11).mark));
        let mut broken = disk.bytes(&path).unwrap();
        *broken.last_mut().unwrap() ^= 1;
        disk.put(&path, broken.clone());
        assert_eq!(ready(newest(&disk, dir)).unwrap(), Some(sample(10)));
        assert_eq!(disk.bytes(&path), None);
        let aside = dir.join("0000000000000002-000000000000000b.snap.broken");
        assert_eq!(disk.bytes(&aside), Some(broken.clone()));

        disk.put(&path, b"again".to_vec());
        assert_eq!(ready(newest(&disk, dir)).unwrap(), Some(sample(10)));
        assert_eq!(disk.bytes(&aside), Some(broken), "an earlier copy is kept");
    }
}
