//! What is on the platters and what only seems to be: files and directory entries, each as the running system sees it and as a power
//! cut would leave it.
//!
//! The invariant: the current side is the durable side plus the pending changes, in order. A sync moves the changes it covers to the durable side; a
//! power cut draws which of the others made it – bytes in whole sectors, in any order; lengths and directory entries each in a lawful order – and forgets
//! the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use detcd_io::entropy::Entropy;

use super::content::Content;
use crate::rot::Rot;

/// Names a file or directory, whatever its path.
pub type Inode = u64;

const ROOT: Inode = 0;

/// How pending directory entries fare at a power cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryLoss {
    /// A journal: the oldest ones made it, up to some point.
    Prefix,
    /// No journal: each on its own.
    Any,
}

/// How pending bytes fare at a power cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ByteLoss {
    /// None of them made it.
    All,
    /// All of them did.
    None,
    /// Each sector on its own: torn writes.
    Sectors,
}

/// A file system.
#[derive(Debug)]
pub struct Image {
    files: BTreeMap<Inode, Content>,
    current: BTreeMap<Inode, Entries>,
    durable: BTreeMap<Inode, Entries>,
    pending: Vec<Change>,
    inodes: Inode,
    /// Files that were removed, as they were: what the log once said, for the oracles.
    attic: BTreeMap<PathBuf, Vec<u8>>,
    /// What of the log has rotted.
    pub rot: Option<Rot>,
}

type Entries = BTreeMap<OsString, Inode>;

/// A change of directory entries.
#[derive(Clone, Debug)]
enum Change {
    Link { dir: Inode, name: OsString, inode: Inode },
    Unlink { dir: Inode, name: OsString },
    Move { from: (Inode, OsString), to: (Inode, OsString), inode: Inode },
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// A file.
    File(Inode),
    /// A directory.
    Directory(Inode),
}

impl Default for Image {
    fn default() -> Self {
        let root = BTreeMap::from([(ROOT, Entries::new())]);
        Self {
            files: BTreeMap::new(),
            current: root.clone(),
            durable: root,
            pending: Vec::new(),
            inodes: ROOT,
            attic: BTreeMap::new(),
            rot: None,
        }
    }
}

impl Image {
    /// What `path` stands for.
    pub fn node(&self, path: &Path) -> io::Result<Node> {
        let mut inode = ROOT;
        for name in names(path) {
            let entries = self.current.get(&inode).ok_or(io::ErrorKind::NotADirectory)?;
            inode = *entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(if self.current.contains_key(&inode) { Node::Directory(inode) } else { Node::File(inode) })
    }

    fn directory(&self, path: &Path) -> io::Result<Inode> {
        match self.node(path)? {
            Node::Directory(inode) => Ok(inode),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory that holds the entry of `path`, and the entry's name.
    fn place_of(&self, path: &Path) -> io::Result<(Inode, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok((self.directory(path.parent().unwrap_or_else(|| Path::new("/")))?, name))
    }

    /// The content of a file.
    pub fn content(&mut self, inode: Inode) -> &mut Content {
        self.files.get_mut(&inode).expect("a file lives as long as the image")
    }

    /// The same, if there is such a file.
    pub fn content_of(&mut self, inode: Inode) -> Option<&mut Content> {
        self.files.get_mut(&inode)
    }

    /// Puts a file there with these bytes, as durable as the directories above it: what the disk holds before the first life.
    ///
    /// # Panics
    /// If something else is in the way.
    pub fn place(&mut self, path: &Path, bytes: &[u8]) {
        self.create_dir_all(path.parent().unwrap_or_else(|| Path::new("/"))).expect("nothing is in the way");
        let inode = self.create(path).expect("its directory is there");
        let content = self.content(inode);
        content.write(0, bytes);
        let mark = content.mark();
        content.sync(mark);
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    /// Makes an empty file.
    pub fn create(&mut self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = self.place_of(path)?;
        self.inodes += 1;
        let inode = self.inodes;
        self.files.insert(inode, Content::default());
        self.change(Change::Link { dir, name, inode });
        Ok(inode)
    }

    /// Makes a directory and those above it that are missing.
    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in names(path) {
            let entries = self.current.get(&dir).ok_or(io::ErrorKind::AlreadyExists)?;
            if let Some(inode) = entries.get(name) {
                dir = *inode;
                continue;
            }
            self.inodes += 1;
            let inode = self.inodes;
            self.current.insert(inode, Entries::new());
            self.durable.insert(inode, Entries::new());
            self.change(Change::Link { dir, name: name.to_owned(), inode });
            dir = inode;
        }
        if self.current.contains_key(&dir) { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
    }

    /// The names in a directory, sorted.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let dir = self.directory(path)?;
        Ok(self.current[&dir].keys().cloned().collect())
    }

    /// Moves an entry; a file there is replaced, and so is an empty directory.
    pub fn rename(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let inode = match self.node(source)? {
            Node::File(inode) | Node::Directory(inode) => inode,
        };
        if let Ok(Node::Directory(taken)) = self.node(target)
            && !self.current[&taken].is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let change = Change::Move { from: self.place_of(source)?, to: self.place_of(target)?, inode };
        self.change(change);
        Ok(())
    }

    /// Removes a file.
    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let Node::File(inode) = self.node(path)? else { return Err(io::ErrorKind::IsADirectory.into()) };
        let (dir, name) = self.place_of(path)?;
        let kept = self.content(inode).bytes().to_vec();
        self.attic.insert(path.to_owned(), kept);
        self.change(Change::Unlink { dir, name });
        Ok(())
    }

    /// Removes a directory and everything in it.
    pub fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.directory(path)?;
        for name in self.list(path)? {
            let below = path.join(name);
            match self.node(&below)? {
                Node::Directory(_) => self.remove_dir_all(&below)?,
                Node::File(_) => self.remove_file(&below)?,
            }
        }
        let (dir, name) = self.place_of(path)?;
        self.change(Change::Unlink { dir, name });
        Ok(())
    }

    /// Makes the entries of a directory durable; what moved between two directories counts for both.
    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.directory(path)?;
        for change in std::mem::take(&mut self.pending) {
            if change.touches(dir) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    /// Bytes that files take, for a disk that can be full.
    pub fn used_bytes(&self) -> u64 {
        let files = self.current.values().flat_map(BTreeMap::values).filter_map(|inode| self.files.get(inode));
        files.map(|content| content.bytes().len() as u64).sum()
    }

    /// Everything that no sync covered is kept, lost or torn.
    pub fn cut_power(&mut self, entropy: &mut Entropy) {
        let entries = if entropy.draw(0, 1) == 0 { EntryLoss::Prefix } else { EntryLoss::Any };
        let kept = entropy.draw(0, self.pending.len() as u64);
        for (place, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let survives = match entries {
                EntryLoss::Prefix => (place as u64) < kept,
                EntryLoss::Any => entropy.draw(0, 1) == 0,
            };
            if survives {
                change.apply(&mut self.durable);
            }
        }
        self.current.clone_from(&self.durable);
        for content in self.files.values_mut() {
            let bytes = match entropy.draw(0, 3) {
                0 => ByteLoss::All,
                1 => ByteLoss::None,
                _ => ByteLoss::Sectors,
            };
            content.cut_power(bytes, entropy);
        }
        self.forget_unlinked();
    }

    /// The process is gone, the system goes on: nothing is lost but what failed syncs left behind.
    pub fn end_process(&mut self) {
        for content in self.files.values_mut() {
            content.end_process();
        }
        self.forget_unlinked();
    }

    /// Frees files that no entry leads to. Only when nobody has a file open.
    fn forget_unlinked(&mut self) {
        let sides = [&self.current, &self.durable];
        let mut linked: BTreeSet<Inode> =
            sides.iter().flat_map(|side| side.values()).flat_map(BTreeMap::values).copied().collect();
        // A power cut may yet bring an entry back.
        linked.extend(self.pending.iter().filter_map(|change| match change {
            Change::Link { inode, .. } | Change::Move { inode, .. } => Some(*inode),
            Change::Unlink { .. } => None,
        }));
        self.files.retain(|inode, _| linked.contains(inode));
    }

    /// The bytes of every wanted file below `dir`, those that were removed included.
    pub fn ever_below(&self, dir: &Path, wanted: impl Fn(&Path) -> bool) -> BTreeMap<PathBuf, Vec<u8>> {
        let removed = self.attic.iter().filter(|(path, _)| path.starts_with(dir) && wanted(path));
        let mut found: BTreeMap<PathBuf, Vec<u8>> = removed.map(|(p, b)| (p.clone(), b.clone())).collect();
        found.extend(self.below(dir, wanted));
        found
    }

    /// The bytes of the wanted files in `dir`.
    pub fn below(&self, dir: &Path, wanted: impl Fn(&Path) -> bool) -> BTreeMap<PathBuf, Vec<u8>> {
        let Ok(inode) = self.directory(dir) else { return BTreeMap::new() };
        let files = self.current[&inode].iter().filter_map(|(name, inode)| {
            let path = dir.join(name);
            let content = self.files.get(inode).filter(|_| wanted(&path))?;
            Some((path, content.bytes().to_vec()))
        });
        files.collect()
    }

    /// The bytes of every file there is, and of every one that was removed.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.files.values().map(Content::bytes).chain(self.attic.values().map(Vec::as_slice))
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }
}

impl Change {
    fn touches(&self, wanted: Inode) -> bool {
        match self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } => *dir == wanted,
            Self::Move { from, to, .. } => from.0 == wanted || to.0 == wanted,
        }
    }

    fn apply(&self, directories: &mut BTreeMap<Inode, Entries>) {
        match self {
            Self::Link { dir, name, inode } => {
                if let Some(entries) = directories.get_mut(dir) {
                    entries.insert(name.clone(), *inode);
                }
            }
            Self::Unlink { dir, name } => {
                if let Some(entries) = directories.get_mut(dir) {
                    entries.remove(name);
                }
            }
            Self::Move { from, to, inode } => {
                if let Some(entries) = directories.get_mut(&from.0)
                    && entries.get(&from.1) == Some(inode)
                {
                    entries.remove(&from.1);
                }
                if let Some(entries) = directories.get_mut(&to.0) {
                    entries.insert(to.1.clone(), *inode);
                }
            }
        }
    }
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.iter().filter(|name| *name != OsStr::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> &Path {
        Path::new(text)
    }

    fn has(image: &Image, text: &str) -> bool {
        match image.node(path(text)) {
            Ok(Node::File(inode)) => {
                assert!(image.files.contains_key(&inode), "a name leads to bytes");
                true
            }
            found => found.is_ok(),
        }
    }

    /// What is left of these steps after a power cut, for many fates.
    fn fates(steps: impl Fn(&mut Image), names: &[&str]) -> BTreeSet<Vec<bool>> {
        let fate = |seed| {
            let mut image = Image::default();
            steps(&mut image);
            image.cut_power(&mut Entropy::seeded(seed));
            names.iter().map(|name| has(&image, name)).collect()
        };
        (0..200).map(fate).collect()
    }

    #[test]
    fn a_name_is_durable_once_its_directory_was_synced() {
        let made = |image: &mut Image| {
            image.create_dir_all(path("/a/b")).unwrap();
            image.sync_dir(path("/")).unwrap();
            image.sync_dir(path("/a")).unwrap();
            let inode = image.create(path("/a/b/file")).unwrap();
            image.content(inode).write(0, b"synced inside");
            let mark = image.content(inode).mark();
            image.content(inode).sync(mark);
        };
        assert_eq!(fates(made, &["/a/b", "/a/b/file"]), BTreeSet::from([vec![true, false], vec![true, true]]));
        let synced = |image: &mut Image| {
            made(image);
            image.sync_dir(path("/a/b")).unwrap();
        };
        assert_eq!(fates(synced, &["/a/b/file"]), BTreeSet::from([vec![true]]));
    }

    #[test]
    fn a_rename_is_whole_and_may_be_undone() {
        let renamed = |image: &mut Image| {
            image.create_dir_all(path("/a.tmp")).unwrap();
            image.create(path("/a.tmp/file")).unwrap();
            image.sync_dir(path("/a.tmp")).unwrap();
            image.sync_dir(path("/")).unwrap();
            image.rename(path("/a.tmp"), path("/a")).unwrap();
            assert!(has(image, "/a/file") && !has(image, "/a.tmp"));
        };
        let names = ["/a.tmp/file", "/a/file"];
        assert_eq!(fates(renamed, &names), BTreeSet::from([vec![true, false], vec![false, true]]));
    }

    #[test]
    fn a_removal_may_be_undone_even_after_the_process_is_gone() {
        let removed = |image: &mut Image| {
            image.create(path("/file")).unwrap();
            image.remove_file(path("/file")).unwrap();
            image.end_process();
            assert!(!has(image, "/file"));
            assert_eq!(image.ever_below(path("/"), |_| true).len(), 1, "the oracles remember it");
        };
        assert_eq!(fates(removed, &["/file"]), BTreeSet::from([vec![false], vec![true]]));
    }

    #[test]
    fn a_directory_with_something_in_it_is_not_replaced() {
        let mut image = Image::default();
        image.create_dir_all(path("/a")).unwrap();
        image.create_dir_all(path("/b")).unwrap();
        image.create(path("/b/file")).unwrap();
        assert_eq!(image.rename(path("/a"), path("/b")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        image.remove_dir_all(path("/b")).unwrap();
        assert_eq!(image.list(path("/")).unwrap(), ["a"]);
    }
}
