//! Damage that no disk reports: bits that rot, writes that went elsewhere, syncs that were answered and not carried out, reads that bring something else.
//!
//! It befalls the log of a member that is down, and shows at its next start: the member refuses to start and names the log, or the damage lies where
//! nothing is read or means nothing. Behind the start the sound bytes are put back, as from a mirror, so that the run goes on; to the member that is a read that went wrong once.
//!
//! Not everywhere, since no log can tell everything (the atlas). Of an only voter, where its store has gone beyond: whatever is missing there, the log
//! ends too early. Of one of several members, whose store may be ahead of its log: within an entry, where the checksum tells, and not where its record would pass for a torn one.

use std::path::{Path, PathBuf};

use detcd_io::entropy::Entropy;
use detcd_io::store::buckets;
use detcd_proto::{raftpb, walpb};
use prost::Message as _;

use crate::disk::image::{Inode, Node};
use crate::machine::{Inner, Machine};
use crate::options::{chance, pick};
use crate::store::number;

const HEAD_BYTES: usize = 8;
const SECTOR_BYTES: usize = 512;
/// Of a record: its tag and its type, which the checksum does not cover.
const UNCOVERED_BYTES: usize = 2;
const ENTRY: i64 = 2;

/// What has rotted, with the bytes that were there.
#[derive(Debug, Default)]
pub struct Rot(Vec<Spot>);

#[derive(Debug)]
struct Spot {
    inode: Inode,
    offset: usize,
    sound: Vec<u8>,
}

/// One record of the log, where it lies.
#[derive(Clone, Copy, Debug)]
struct Frame {
    file: usize,
    start: usize,
    end: usize,
    /// The index of its entry, if it holds one.
    entry: Option<u64>,
}

struct LogFile {
    path: PathBuf,
    inode: Inode,
    bytes: Vec<u8>,
}

/// How far damage may go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Atlas {
    /// A member that has always been alone.
    Alone,
    /// One of several.
    OfSeveral,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A bit has turned.
    Bit,
    /// A record is not where it was written, but over another one.
    Elsewhere,
    /// From a record on nothing was written, whatever the syncs said.
    Forgotten,
}

impl Machine {
    /// Lets the log in `dir` rot. Nobody runs.
    pub fn rot(&self, dir: &Path, atlas: Atlas, dice: &mut Entropy) {
        let mut inner = self.look();
        let files = log_files(&inner, dir);
        let frames: Vec<Frame> = files.iter().enumerate().flat_map(|(file, log)| frames(file, &log.bytes)).collect();
        let applied = number(inner.tables(), buckets::APPLIED_INDEX);
        // Behind the last time that this entry was written, a log of which the rest is lost is as good as one that never had it.
        let Some(last) = frames.iter().rposition(|frame| frame.entry == Some(applied)) else { return };
        let frames = &frames[..=last];
        let recent = frames.len().saturating_sub(RECENT);
        // The last record is like no other: nothing behind it tells that it is wrong.
        let first = pick(dice, &[0, 0, recent, last]);
        let frame = frames[dice.draw(first as u64, last as u64) as usize];
        let kind = match atlas {
            Atlas::Alone => pick(dice, &[Kind::Bit, Kind::Bit, Kind::Elsewhere, Kind::Forgotten]),
            Atlas::OfSeveral => Kind::Bit,
        };
        let changed = match kind {
            Kind::Bit => turned(frame, &files[frame.file].bytes, (atlas, frame.file + 1 == files.len()), dice),
            Kind::Elsewhere => moved(frame, frames, &files[frame.file].bytes, dice),
            Kind::Forgotten if frame.file + 1 == files.len() => {
                vec![(frame.start, vec![0; files[frame.file].bytes.len() - frame.start])]
            }
            Kind::Forgotten => Vec::new(),
        };
        let LogFile { path, inode, bytes } = &files[frame.file];
        let mut rot = Rot::default();
        for (offset, rotten) in changed {
            let sound = bytes[offset..offset + rotten.len()].to_vec();
            inner.trace.line(|| format!("rot: {kind:?} in {} at {offset}, entry {:?}", path.display(), frame.entry));
            rot.0.push(Spot { inode: *inode, offset, sound });
            inner.image.content(*inode).set(offset as u64, &rotten);
        }
        inner.image.rot = Some(rot).filter(|rot| !rot.0.is_empty());
    }
}

/// How many records count as recent.
const RECENT: usize = 12;

impl Inner {
    /// Puts the sound bytes back. Says whether anything had rotted.
    pub fn mend(&mut self) -> bool {
        let Some(Rot(spots)) = self.image.rot.take() else { return false };
        // What was there twice is put back in the order in which it was spoilt, backwards.
        for Spot { inode, offset, sound } in spots.into_iter().rev() {
            if let Some(content) = self.image.content_of(inode)
                && offset + sound.len() <= content.bytes().len()
            {
                content.set(offset as u64, &sound);
            }
        }
        true
    }
}

fn log_files(inner: &Inner, dir: &Path) -> Vec<LogFile> {
    let found = inner.image.below(dir, |path| path.extension().is_some_and(|extension| extension == "wal"));
    let with_inode = found.into_iter().filter_map(|(path, bytes)| match inner.image.node(&path) {
        Ok(Node::File(inode)) => Some(LogFile { path, inode, bytes }),
        _ => None,
    });
    with_inode.collect()
}

/// The records of a file, by the rules of the format alone.
fn frames(file: usize, bytes: &[u8]) -> Vec<Frame> {
    let (mut found, mut start) = (Vec::new(), 0);
    while let Some(head) = bytes.get(start..start + HEAD_BYTES) {
        let field = u64::from_le_bytes(head.try_into().unwrap_or_default());
        let padding = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
        let (length, padding) = ((field & 0x00ff_ffff_ffff_ffff) as usize, padding as usize);
        let body = bytes.get(start + HEAD_BYTES..start + HEAD_BYTES + length);
        let Some(record) = body.filter(|_| field != 0).and_then(|body| walpb::Record::decode(body).ok()) else { break };
        let entry = Some(record).filter(|record| record.r#type == Some(ENTRY)).and_then(|record| record.data);
        let entry = entry.and_then(|data| raftpb::Entry::decode(data).ok()).and_then(|entry| entry.index);
        let end = start + HEAD_BYTES + length + padding;
        found.push(Frame { file, start, end, entry });
        start = end;
    }
    found
}

/// The record with one bit turned: as a change at a place.
fn turned(frame: Frame, bytes: &[u8], (atlas, is_last): (Atlas, bool), dice: &mut Entropy) -> Vec<(usize, Vec<u8>)> {
    let body = frame.start + HEAD_BYTES;
    let from = match atlas {
        Atlas::Alone if chance(dice, 300) => frame.start,
        Atlas::Alone => body,
        Atlas::OfSeveral if frame.entry.is_none() || is_last && has_empty_sector(bytes, body, frame.end) => {
            return Vec::new();
        }
        Atlas::OfSeveral => body + UNCOVERED_BYTES,
    };
    let until = if from == frame.start { body } else { frame.end };
    // Of a head, its top byte as often as all others: what it says besides the length.
    let from = if from == frame.start && chance(dice, 500) { body - 1 } else { from };
    let place = dice.draw(from as u64, until as u64 - 1) as usize;
    vec![(place, vec![bytes[place] ^ 1 << dice.draw(0, 7)])]
}

/// The record over another one, and nothing where it was.
fn moved(frame: Frame, frames: &[Frame], bytes: &[u8], dice: &mut Entropy) -> Vec<(usize, Vec<u8>)> {
    let others: Vec<&Frame> =
        frames.iter().filter(|other| other.file == frame.file && other.start != frame.start).collect();
    let length = frame.end - frame.start;
    let mut changed = vec![(frame.start, vec![0; length])];
    if let Some(last) = others.len().checked_sub(1) {
        let over = others[dice.draw(0, last as u64) as usize].start;
        if over + length <= frame.start || frame.end <= over && over + length <= bytes.len() {
            changed.push((over, bytes[frame.start..frame.end].to_vec()));
        }
    }
    changed
}

/// Whether a piece of a record that lies in one sector is nothing but zeros, as after a torn write.
fn has_empty_sector(bytes: &[u8], start: usize, end: usize) -> bool {
    let mut at = start;
    while at < end {
        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if bytes[at..next].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = next;
    }
    false
}
