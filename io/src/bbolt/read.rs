//! Reading a bbolt file, page by page, in bounded memory.
//!
//! Nothing is believed: both metas are weighed, every page is checked against the file's own bounds, keys must rise, and a walk that would visit more pages than there
//! are ends in an error. What is wrong is told with the file, the byte and the cause. Invariant: no input makes it panic, loop, or hold more than one
//! path of pages.

use std::path::PathBuf;

use bytes::Bytes;

use super::Meta;
use super::page::{self, BRANCH, HEADER_BYTES, Header, LEAF};
use crate::disk::File;
use crate::fault::Fault;

/// Pages one above the other.
const DEPTH_MAX: usize = 32;
/// Bytes of one page with all its overflow.
const RUN_BYTES_MAX: u64 = 1 << 30;
/// Buckets in a file. etcd has eleven.
const BUCKETS_MAX: usize = 1_000;

/// An open file.
#[derive(Debug)]
pub struct Reader<F> {
    file: F,
    path: PathBuf,
    meta: Meta,
}

/// Where a bucket's tree begins.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Root {
    Page(u64),
    /// A leaf inside the element, and where that lies, for error texts.
    Inline(Bytes, u64),
}

/// A bucket of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bucket {
    /// Its name.
    pub name: Bytes,
    root: Root,
}

/// A walk through a bucket, in the order of its keys.
#[derive(Debug)]
pub struct Cursor<'a, F> {
    reader: &'a Reader<F>,
    path: Vec<Level>,
    last: Option<Bytes>,
    /// Pages that may still be read: a tree has no page twice.
    pages_left: u64,
    start: Option<Root>,
}

#[derive(Debug)]
struct Level {
    page: Bytes,
    /// Where the page lies in the file.
    offset: u64,
    header: Header,
    next: usize,
}

impl<F: File> Reader<F> {
    /// Opens a file. `path` is for error texts.
    ///
    /// # Errors
    /// The file cannot be read, or has no valid meta, or is shorter than it says.
    pub async fn open(file: F, path: PathBuf) -> Result<Self, Fault> {
        let Some(meta) = Self::read_meta(&file, &path).await? else {
            let cause = "no valid meta page: not a bbolt database, or both metas are damaged".to_owned();
            return Err(Fault::Corrupt { file: path, offset: 0, cause });
        };
        let reader = Self { file, path, meta };
        let size = reader.file.size().await.map_err(Fault::disk("read", &reader.path))?;
        let used = meta.high_water.checked_mul(u64::from(meta.page_bytes));
        if used.is_none_or(|used| size < used) {
            return Err(reader.corrupt(size, format!("the file ends before its page {}", meta.high_water)));
        }
        Ok(reader)
    }

    /// The newer of the valid metas.
    async fn read_meta(file: &F, path: &std::path::Path) -> Result<Option<Meta>, Fault> {
        let first = read_some(file, path, 0, 4096).await?;
        let first = Meta::parse(&first);
        // Without the first one the second may lie at any page size.
        let places = match first {
            Some(meta) => vec![u64::from(meta.page_bytes)],
            None => (0..7).map(|power| 1024_u64 << power).collect(),
        };
        let mut newest = first;
        for place in places {
            let second = Meta::parse(&read_some(file, path, place, HEADER_BYTES + super::META_BYTES).await?);
            let second = second.filter(|meta| u64::from(meta.page_bytes) == place);
            if let Some(meta) = second
                && newest.is_none_or(|newest| newest.txid < meta.txid)
            {
                newest = Some(meta);
            }
        }
        Ok(newest)
    }

    /// The meta in force.
    #[must_use]
    pub const fn meta(&self) -> Meta {
        self.meta
    }

    fn corrupt(&self, offset: u64, cause: impl Into<String>) -> Fault {
        Fault::Corrupt { file: self.path.clone(), offset, cause: cause.into() }
    }

    /// Every bucket of the file, in the order of their names.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub async fn buckets(&self) -> Result<Vec<Bucket>, Fault> {
        let mut cursor = self.cursor(Root::Page(self.meta.root));
        let mut buckets = Vec::new();
        while let Some((element, offset)) = cursor.advance().await? {
            if !element.is_bucket {
                return Err(self.corrupt(offset, "a row outside every bucket"));
            }
            if buckets.len() == BUCKETS_MAX {
                return Err(self.corrupt(offset, "too many buckets"));
            }
            let root = page::u64_at(&element.value, 0).filter(|_| 16 <= element.value.len());
            let root = match root.ok_or_else(|| self.corrupt(offset, "a bucket without a root"))? {
                0 => Root::Inline(element.value.slice(16..), offset),
                pgid => Root::Page(pgid),
            };
            buckets.push(Bucket { name: element.key, root });
        }
        Ok(buckets)
    }

    /// A walk through a bucket.
    #[must_use]
    pub fn rows(&self, bucket: &Bucket) -> Cursor<'_, F> {
        self.cursor(bucket.root.clone())
    }

    const fn cursor(&self, root: Root) -> Cursor<'_, F> {
        Cursor { reader: self, path: Vec::new(), last: None, pages_left: self.meta.high_water, start: Some(root) }
    }

    /// Reads a page with its overflow.
    async fn page(&self, pgid: u64) -> Result<Level, Fault> {
        let page_bytes = u64::from(self.meta.page_bytes);
        if pgid < 2 || self.meta.high_water <= pgid {
            return Err(self.corrupt(0, format!("page {pgid} is named, but there is none")));
        }
        let offset = pgid * page_bytes;
        let header = read_some(&self.file, &self.path, offset, HEADER_BYTES).await?;
        let header = Header::parse(&header).ok_or_else(|| self.corrupt(offset, "the file ends inside a page"))?;
        if header.pgid != pgid {
            return Err(self.corrupt(offset, format!("page {pgid} calls itself {}", header.pgid)));
        }
        let pages = u64::from(header.overflow) + 1;
        if self.meta.high_water - pgid < pages || RUN_BYTES_MAX < pages * page_bytes {
            return Err(self.corrupt(offset, format!("page {pgid} is longer than the file")));
        }
        let len = usize::try_from(pages * page_bytes).map_err(|_| self.corrupt(offset, "too long a page"))?;
        let page = read_some(&self.file, &self.path, offset, len).await?;
        if page.len() < len {
            return Err(self.corrupt(offset, "the file ends inside a page"));
        }
        Ok(Level { page: page.into(), offset, header, next: 0 })
    }
}

impl<F: File> Cursor<'_, F> {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, Fault> {
        match self.advance().await? {
            Some((element, offset)) if element.is_bucket => {
                Err(self.reader.corrupt(offset, "a bucket inside a bucket, which etcd never makes"))
            }
            Some((element, _)) => Ok(Some((element.key, element.value))),
            None => Ok(None),
        }
    }

    /// Where in the file the page of the last row lies.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.path.last().map_or(0, |level| level.offset)
    }

    async fn advance(&mut self) -> Result<Option<(page::LeafElement, u64)>, Fault> {
        match self.start.take() {
            Some(Root::Page(pgid)) => self.descend(pgid).await?,
            Some(Root::Inline(page, offset)) => {
                let header = Header::parse(&page).ok_or_else(|| self.reader.corrupt(offset, "half a bucket"))?;
                if header.flags != LEAF {
                    return Err(self.reader.corrupt(offset, "a bucket inside an element that is no leaf"));
                }
                self.path.push(Level { page, offset, header, next: 0 });
            }
            None => {}
        }
        while let Some(level) = self.path.last_mut() {
            let (place, offset) = (level.next, level.offset);
            if place == usize::from(level.header.count) {
                self.path.pop();
                continue;
            }
            level.next += 1;
            let broken = || self.reader.corrupt(offset, format!("element {place} lies outside its page"));
            if level.header.flags == BRANCH {
                let child = page::branch_element(&level.page, place).ok_or_else(broken)?.child;
                self.descend(child).await?;
                continue;
            }
            let element = page::leaf_element(&level.page, place).ok_or_else(broken)?;
            if element.key.is_empty() || self.last.as_ref().is_some_and(|last| element.key <= *last) {
                return Err(self.reader.corrupt(offset, format!("the key of element {place} is out of order")));
            }
            self.last = Some(element.key.clone());
            return Ok(Some((element, offset)));
        }
        Ok(None)
    }

    async fn descend(&mut self, pgid: u64) -> Result<(), Fault> {
        if self.path.len() == DEPTH_MAX {
            return Err(self.reader.corrupt(self.path[0].offset, "a tree of more levels than any file needs"));
        }
        let level = self.reader.page(pgid).await?;
        if level.header.flags != BRANCH && level.header.flags != LEAF {
            let flags = level.header.flags;
            return Err(self
                .reader
                .corrupt(level.offset, format!("page {pgid} is no part of a tree: flags {flags:#x}")));
        }
        let pages = u64::from(level.header.overflow) + 1;
        self.pages_left = self.pages_left.checked_sub(pages).ok_or_else(|| {
            self.reader.corrupt(level.offset, format!("page {pgid} or another one is part of the tree twice"))
        })?;
        self.path.push(level);
        Ok(())
    }
}

/// Up to `len` bytes at `offset`: fewer at the end of the file.
async fn read_some<F: File>(file: &F, path: &std::path::Path, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], offset + read as u64).await.map_err(Fault::disk("read", path))? {
            0 => break,
            count => read += count,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}
