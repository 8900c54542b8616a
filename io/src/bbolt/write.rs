//! Writing a bbolt file in one pass, from buckets and rows that come in order.
//!
//! Trees are built from the bottom: a leaf is written when it is full, its first key goes into the branch above, and so on. So only one page of each level is in memory, however
//! large the file. Bytes gather in a buffer that the caller takes and writes one behind the other; the metas come last and belong to the front. Invariant: a file
//! is valid from the moment its metas are written, and not before.

use super::page::{BRANCH, BUCKET, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF};
use super::{META_BYTES, Meta};

/// Bytes of a page, as on the machines that etcd runs on most.
pub const PAGE_BYTES: usize = 4096;
/// How full a page gets before the next one begins: bbolt's measure for rows that come in order.
const FILL_BYTES: usize = PAGE_BYTES / 10 * 9;
/// A bucket that is no larger lives inside its element.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;
/// The first page behind the metas.
const FIRST_PAGE: u64 = 2;

/// A file on its way.
#[derive(Debug)]
pub struct Writer {
    /// Whole pages that the caller has not taken yet.
    out: Vec<u8>,
    /// Where they belong.
    offset: u64,
    next_page: u64,
    buckets: Vec<(Vec<u8>, Vec<u8>)>,
    tree: Option<Tree>,
}

/// The bucket being written.
#[derive(Debug, Default)]
struct Tree {
    name: Vec<u8>,
    leaf: Page,
    /// Children of the lowest branches first.
    branches: Vec<Page>,
    last: Option<Vec<u8>>,
}

/// Elements that will be a page.
#[derive(Debug, Default)]
struct Page {
    elements: Vec<Element>,
    data: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Element {
    key_len: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Child(u64),
    Value { len: u32, flags: u32 },
}

/// The end of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finished {
    /// The metas: the first bytes of the file.
    pub metas: Vec<u8>,
    /// The length of the file.
    pub size_bytes: u64,
}

impl Page {
    fn len(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    /// Whether one more element of this size belongs onto another page.
    fn is_full_for(&self, bytes: usize) -> bool {
        !self.elements.is_empty() && FILL_BYTES < self.len() + ELEMENT_BYTES + bytes
    }

    fn push(&mut self, key: &[u8], value: &[u8], flags: u32) {
        let len = u32::try_from(value.len()).expect("no value is as long as 4 GiB");
        self.add(key, Kind::Value { len, flags });
        self.data.extend_from_slice(value);
    }

    fn add(&mut self, key: &[u8], kind: Kind) {
        let key_len = u32::try_from(key.len()).expect("no key is as long as 4 GiB");
        self.elements.push(Element { key_len, kind });
        self.data.extend_from_slice(key);
    }

    fn first_key(&self) -> Vec<u8> {
        let len = self.elements.first().map_or(0, |element| element.key_len as usize);
        self.data[..len].to_vec()
    }

    /// The page's bytes, without filling.
    fn encode(&self, pgid: u64, flags: u16, overflow: u32) -> Vec<u8> {
        let count = u16::try_from(self.elements.len()).expect("pages are full long before");
        let mut bytes = Header { pgid, flags, count, overflow }.encode().to_vec();
        let mut position = self.elements.len() * ELEMENT_BYTES;
        for Element { key_len, kind } in &self.elements {
            let at = u32::try_from(position).expect("a page is shorter than 4 GiB");
            let value_len = match kind {
                Kind::Child(child) => {
                    bytes.extend(at.to_le_bytes());
                    bytes.extend(key_len.to_le_bytes());
                    bytes.extend(child.to_le_bytes());
                    0
                }
                Kind::Value { len, flags } => {
                    for word in [*flags, at, *key_len, *len] {
                        bytes.extend(word.to_le_bytes());
                    }
                    *len
                }
            };
            // Positions are told from the element itself.
            position = position + *key_len as usize + value_len as usize - ELEMENT_BYTES;
        }
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

impl Tree {
    fn takes(&self, key: &[u8]) -> bool {
        !key.is_empty() && self.last.as_deref().is_none_or(|last| last < key)
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// An empty file.
    #[must_use]
    pub const fn new() -> Self {
        let offset = FIRST_PAGE * PAGE_BYTES as u64;
        Self { out: Vec::new(), offset, next_page: FIRST_PAGE, buckets: Vec::new(), tree: None }
    }

    /// Begins a bucket. Names come in ascending order.
    ///
    /// # Panics
    /// If they do not: the caller's bug.
    pub fn bucket(&mut self, name: &[u8]) {
        self.end_bucket();
        assert!(self.buckets.last().is_none_or(|(last, _)| last.as_slice() < name), "buckets come in order");
        self.tree = Some(Tree { name: name.to_vec(), ..Tree::default() });
    }

    /// Whether a row under `key` may come next.
    #[must_use]
    pub fn takes(&self, key: &[u8]) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.takes(key))
    }

    /// Adds a row to the bucket. Keys come in ascending order.
    ///
    /// # Panics
    /// If they do not, or no bucket was begun: the caller's bug.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        let mut tree = self.tree.take().expect("a row belongs to a bucket");
        assert!(tree.takes(key), "rows come in order");
        if tree.leaf.is_full_for(key.len() + value.len()) {
            self.end_leaf(&mut tree);
        }
        tree.leaf.push(key, value, 0);
        tree.last.get_or_insert_default().clear();
        tree.last.get_or_insert_default().extend_from_slice(key);
        self.tree = Some(tree);
    }

    /// The pages written since the last call, and where they belong.
    pub fn take(&mut self) -> (u64, Vec<u8>) {
        let (offset, out) = (self.offset, std::mem::take(&mut self.out));
        self.offset += out.len() as u64;
        (offset, out)
    }

    /// How many bytes wait to be taken.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.out.len()
    }

    /// Ends the file. What [`Writer::take`] still has comes before the metas.
    #[must_use]
    pub fn finish(&mut self) -> Finished {
        self.end_bucket();
        let mut root = Page::default();
        for (name, bucket) in std::mem::take(&mut self.buckets) {
            root.push(&name, &bucket, BUCKET);
        }
        let root = self.write(&root, LEAF);
        let meta = Meta { page_bytes: PAGE_BYTES as u32, root, high_water: self.next_page, txid: 2 };
        let older = Meta { txid: 1, ..meta };
        let metas = [meta.page(0), older.page(1)].concat();
        Finished { metas, size_bytes: self.next_page * PAGE_BYTES as u64 }
    }

    fn end_bucket(&mut self) {
        let Some(mut tree) = self.tree.take() else { return };
        let mut bucket = Vec::new();
        if tree.branches.is_empty() && tree.leaf.len() <= INLINE_BYTES_MAX {
            bucket.extend([0; 16]);
            bucket.extend(tree.leaf.encode(0, LEAF, 0));
        } else {
            let root = self.end_tree(&mut tree);
            bucket.extend(root.to_le_bytes());
            bucket.extend([0; 8]);
        }
        self.buckets.push((tree.name, bucket));
    }

    /// Writes what is left of a tree, from the bottom. Answers its root.
    fn end_tree(&mut self, tree: &mut Tree) -> u64 {
        if !tree.leaf.elements.is_empty() || tree.branches.is_empty() {
            self.end_leaf(tree);
        }
        let mut level = 0;
        loop {
            let branch = std::mem::take(&mut tree.branches[level]);
            if level + 1 == tree.branches.len()
                && let [Element { kind: Kind::Child(child), .. }] = branch.elements.as_slice()
            {
                return *child;
            }
            let pgid = self.write(&branch, BRANCH);
            self.add_child(tree, level + 1, &branch.first_key(), pgid);
            level += 1;
        }
    }

    fn end_leaf(&mut self, tree: &mut Tree) {
        let leaf = std::mem::take(&mut tree.leaf);
        let pgid = self.write(&leaf, LEAF);
        self.add_child(tree, 0, &leaf.first_key(), pgid);
    }

    fn add_child(&mut self, tree: &mut Tree, level: usize, key: &[u8], child: u64) {
        if level == tree.branches.len() {
            tree.branches.push(Page::default());
        }
        if tree.branches[level].is_full_for(key.len()) {
            let branch = std::mem::take(&mut tree.branches[level]);
            let pgid = self.write(&branch, BRANCH);
            self.add_child(tree, level + 1, &branch.first_key(), pgid);
        }
        tree.branches[level].add(key, Kind::Child(child));
    }

    /// Gives a page its number and appends its bytes.
    fn write(&mut self, page: &Page, flags: u16) -> u64 {
        let pgid = self.next_page;
        let pages = page.len().div_ceil(PAGE_BYTES).max(1);
        let overflow = u32::try_from(pages - 1).expect("a page is shorter than 16 TiB");
        let end = self.out.len() + pages * PAGE_BYTES;
        self.out.extend(page.encode(pgid, flags, overflow));
        self.out.resize(end, 0);
        self.next_page += pages as u64;
        pgid
    }
}

const _: () = assert!(HEADER_BYTES + META_BYTES <= PAGE_BYTES);
