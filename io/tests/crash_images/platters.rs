//! What a disk may hold after recorded calls: everything, if only the process is gone; after a power cut, what was synced, and of the rest what the disk happened to write.
//!
//! The invariant: each sector, each length and each name holds what it held at some moment from its last sync on, and each on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use detcd_io::entropy::Entropy;

use super::recorder::{Call, Node};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

type Sector = Rc<[u8; SECTOR_BYTES as usize]>;
type Sectors = BTreeMap<u64, Sector>;

/// How an image comes about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// The process is gone; the system has everything.
    Killed,
    /// Without power, nothing that was not synced.
    Nothing,
    /// Each write arrived, or did not.
    Writes,
    /// Each sector, length and name as it was at some moment since the last sync.
    Torn,
    /// All but a single sector arrived.
    AllButOne,
    /// A single sector arrived.
    OnlyOne,
}

impl Fate {
    /// Those of a power cut.
    pub(crate) const POWER_CUTS: [Self; 5] = [Self::Nothing, Self::Writes, Self::Torn, Self::AllButOne, Self::OnlyOne];
}

/// The disk.
#[derive(Clone, Default)]
pub(crate) struct Platters {
    files: Vec<Bytes>,
    names: Names,
    /// Writes so far.
    writes: u64,
}

/// The bytes of a file.
#[derive(Clone, Default)]
struct Bytes {
    durable: Sectors,
    durable_size: u64,
    /// What sectors held since they were last synced, oldest first, and by which write.
    pending: BTreeMap<u64, Vec<(u64, Sector)>>,
    /// The lengths since.
    pending_sizes: Vec<u64>,
}

#[derive(Clone, Default)]
struct Names {
    /// Also of what lies in directories that have no durable name themselves.
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Make(PathBuf, Node),
    /// What moves is found by its new name even if its earlier one was lost.
    Move(PathBuf, PathBuf, Node),
    Remove(PathBuf),
}

impl Platters {
    pub(crate) fn take(&mut self, call: &Call) {
        self.writes += 1;
        match call {
            Call::MakeFile { path, file } => {
                assert_eq!(*file, self.files.len());
                self.files.push(Bytes::default());
                self.names.pending.push(Change::Make(path.clone(), Node::File(*file)));
            }
            Call::MakeDirectory { path } => {
                self.names.pending.push(Change::Make(path.clone(), Node::Directory));
            }
            Call::Write { file, offset, bytes } => self.files[*file].write(*offset, bytes, self.writes),
            Call::Written { file, offset, length } => self.files[*file].sync_range(*offset, *length),
            Call::Resize { file, size } => self.files[*file].resize(*size, self.writes),
            Call::Allocate { file, size } => {
                let grown = self.files[*file].size().max(*size);
                self.files[*file].resize(grown, self.writes);
            }
            Call::Sync { file } => self.files[*file].sync(),
            Call::SyncDirectory { path } => self.names.sync(path),
            Call::Rename { from, to, node } => {
                self.names.pending.push(Change::Move(from.clone(), to.clone(), *node));
            }
            Call::Remove { path } => self.names.pending.push(Change::Remove(path.clone())),
            Call::Acknowledged { .. } => {}
        }
    }

    /// Writes what is left after the crash into `directory`, which is empty.
    pub(crate) fn crash(&self, fate: Fate, entropy: &mut Entropy, directory: &Path) {
        for (path, node) in self.names.after(fate, entropy) {
            let path = directory.join(path);
            match node {
                Node::Directory => fs::create_dir(&path).unwrap(),
                Node::File(file) => self.files[file].after(fate, entropy).put(&path),
            }
        }
    }
}

impl Names {
    fn sync(&mut self, directory: &Path) {
        for change in std::mem::take(&mut self.pending) {
            if change.touches(directory) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    fn after(&self, fate: Fate, entropy: &mut Entropy) -> BTreeMap<PathBuf, Node> {
        let mut names = self.durable.clone();
        // With a journal, the oldest changes made it; without one, any.
        let has_journal = entropy.draw(0, 1) == 0;
        let kept = entropy.draw(0, self.pending.len() as u64);
        for (place, change) in self.pending.iter().enumerate() {
            let arrives = match fate {
                Fate::Killed => true,
                Fate::Nothing => false,
                _ if has_journal => (place as u64) < kept,
                _ => entropy.draw(0, 1) == 0,
            };
            if arrives {
                change.apply(&mut names);
            }
        }
        // What is synced in a directory that has no name itself is not found.
        let has_place = |path: &&PathBuf| {
            let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
            above.into_iter().all(|above| names.get(above) == Some(&Node::Directory))
        };
        let found: BTreeSet<PathBuf> = names.keys().filter(has_place).cloned().collect();
        names.retain(|path, _| found.contains(path));
        names
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

impl Change {
    fn touches(&self, directory: &Path) -> bool {
        match self {
            Self::Make(path, _) | Self::Remove(path) => parent(path) == directory,
            Self::Move(from, to, _) => parent(from) == directory || parent(to) == directory,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Make(path, node) => drop(names.insert(path.clone(), *node)),
            Self::Move(from, to, node) => {
                names.retain(|path, _| !path.starts_with(to));
                names.remove(from);
                let inside: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in inside {
                    let inner = names.remove(&path).unwrap();
                    names.insert(to.join(path.strip_prefix(from).unwrap()), inner);
                }
                names.insert(to.clone(), *node);
            }
            Self::Remove(path) => names.retain(|each, _| !each.starts_with(path)),
        }
    }
}

impl Bytes {
    fn size(&self) -> u64 {
        self.pending_sizes.last().copied().unwrap_or(self.durable_size)
    }

    fn sector(&self, number: u64) -> Sector {
        let newest = self.pending.get(&number).and_then(|versions| versions.last()).map(|(_, sector)| sector);
        newest.or_else(|| self.durable.get(&number)).cloned().unwrap_or_else(|| Rc::new([0; SECTOR_BYTES as usize]))
    }

    fn change(&mut self, offset: u64, length: u64, write: u64, byte: impl Fn(u64) -> u8) {
        let end = offset + length;
        for number in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let mut sector = *self.sector(number);
            let start = number * SECTOR_BYTES;
            for place in offset.max(start)..end.min(start + SECTOR_BYTES) {
                sector[(place - start) as usize] = byte(place - offset);
            }
            self.pending.entry(number).or_default().push((write, Rc::new(sector)));
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8], write: u64) {
        self.change(offset, bytes.len() as u64, write, |place| bytes[place as usize]);
        let end = offset + bytes.len() as u64;
        if self.size() < end {
            self.pending_sizes.push(end);
        }
    }

    fn resize(&mut self, size: u64, write: u64) {
        if size < self.size() {
            let written =
                self.durable.keys().chain(self.pending.keys()).max().map_or(0, |last| (last + 1) * SECTOR_BYTES);
            self.change(size, written.saturating_sub(size), write, |_| 0);
        }
        if size != self.size() {
            self.pending_sizes.push(size);
        }
    }

    fn sync(&mut self) {
        self.durable_size = self.size();
        self.pending_sizes.clear();
        for (number, versions) in std::mem::take(&mut self.pending) {
            self.durable.extend(versions.last().map(|(_, sector)| (number, Rc::clone(sector))));
        }
    }

    fn sync_range(&mut self, offset: u64, length: u64) {
        self.durable_size = self.durable_size.max(self.size().min(offset + length));
        for number in offset / SECTOR_BYTES..(offset + length).div_ceil(SECTOR_BYTES) {
            let versions = self.pending.remove(&number).unwrap_or_default();
            self.durable.extend(versions.last().map(|(_, sector)| (number, Rc::clone(sector))));
        }
    }

    /// What a crash leaves, as if all of it had been synced.
    fn after(&self, fate: Fate, entropy: &mut Entropy) -> Self {
        let mut left = Self { durable: self.durable.clone(), durable_size: self.durable_size, ..Self::default() };
        let length = self.pending_sizes.len() as u64;
        let sizes = match fate {
            Fate::Killed | Fate::AllButOne => length,
            Fate::Nothing => 0,
            Fate::Writes | Fate::Torn | Fate::OnlyOne => entropy.draw(0, length),
        };
        if let Some(newest) = sizes.checked_sub(1) {
            left.durable_size = self.pending_sizes[newest as usize];
        }
        let chosen = entropy.draw(0, (self.pending.len() as u64).max(1) - 1);
        let luck = entropy.draw(0, u64::MAX);
        for (place, (number, versions)) in self.pending.iter().enumerate() {
            let is_chosen = place as u64 == chosen;
            let version = match fate {
                Fate::Killed => versions.last(),
                Fate::Nothing => None,
                // A write that arrived brings its sectors as they were when it was made.
                Fate::Writes => versions.iter().rev().find(|(write, _)| luck >> (write % 64) & 1 == 1),
                Fate::Torn => entropy.draw(0, versions.len() as u64).checked_sub(1).map(|at| &versions[at as usize]),
                Fate::AllButOne if is_chosen => None,
                Fate::AllButOne => versions.last(),
                Fate::OnlyOne if is_chosen => versions.last(),
                Fate::OnlyOne => None,
            };
            left.durable.extend(version.map(|(_, sector)| (*number, Rc::clone(sector))));
        }
        left
    }

    /// Writes what is durable to a file.
    fn put(&self, path: &Path) {
        let file = File::create_new(path).unwrap();
        file.set_len(self.durable_size).unwrap();
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for (number, sector) in &self.durable {
            let start = number * SECTOR_BYTES;
            if run.0 + run.1.len() as u64 != start {
                self.put_run(&file, &run);
                run = (start, Vec::new());
            }
            run.1.extend_from_slice(&**sector);
        }
        self.put_run(&file, &run);
    }

    /// As far as the file reaches.
    fn put_run(&self, file: &File, (start, bytes): &(u64, Vec<u8>)) {
        let room = self.durable_size.saturating_sub(*start).min(bytes.len() as u64);
        file.write_all_at(&bytes[..room as usize], *start).unwrap();
    }
}
