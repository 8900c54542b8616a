//! etcd's database file: the format in which a database crosses a border.
//!
//! A bbolt file is a B+ tree of pages: two metas, then branches and leaves; a leaf of the root tree holds one bucket an element, and a bucket is a tree of its own, or,
//! if it is small, a leaf inside that element. Here are a reader that trusts nothing it reads ([`read`]) and a writer that makes a file in one pass from sorted rows
//! ([`mod@write`]); neither changes a file in place. Reading order: this page (metas), [`page`], [`read`], [`mod@write`]. Facts: bbolt 1.5's format, version 2.

pub mod fuzz;
pub mod page;
pub mod read;
pub mod write;

/// What every meta begins with.
const MAGIC: u32 = 0xED0C_DAED;
/// The format's version.
const VERSION: u32 = 2;
/// Bytes of a meta behind its page's header.
const META_BYTES: usize = 64;
/// Says in a meta that the list of free pages is not stored.
const NO_FREELIST: u64 = u64::MAX;
/// The sizes that pages may have.
const PAGE_BYTES_MIN: u32 = 1024;
const PAGE_BYTES_MAX: u32 = 65_536;

/// What a meta page says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Meta {
    /// Bytes of every page of the file.
    pub page_bytes: u32,
    /// The page of the root tree.
    pub root: u64,
    /// The first page that was never used: what lies behind is to be ignored.
    pub high_water: u64,
    /// The transaction that wrote it. Of two valid metas the newer one counts.
    pub txid: u64,
}

impl Meta {
    /// Reads a meta from a page. `None` if it is none that bbolt would take.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<Self> {
        let meta = page.get(page::HEADER_BYTES..page::HEADER_BYTES + META_BYTES)?;
        let (u32_at, u64_at) = (|at| page::u32_at(meta, at), |at| page::u64_at(meta, at));
        let page_bytes = u32_at(8)?;
        let is_sound = u32_at(0)? == MAGIC
            && u32_at(4)? == VERSION
            && u64_at(56)? == checksum(&meta[..56])
            && page_bytes.is_power_of_two()
            && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes);
        is_sound.then_some(Self { page_bytes, root: u64_at(16)?, high_water: u64_at(40)?, txid: u64_at(48)? })
    }

    /// The page that holds it.
    #[must_use]
    pub fn page(&self, pgid: u64) -> Vec<u8> {
        let mut page = page::Header { pgid, flags: page::META, count: 0, overflow: 0 }.encode().to_vec();
        let mut meta = Vec::with_capacity(META_BYTES);
        for word in [MAGIC, VERSION, self.page_bytes, 0] {
            meta.extend(word.to_le_bytes());
        }
        for word in [self.root, 0, NO_FREELIST, self.high_water, self.txid] {
            meta.extend(word.to_le_bytes());
        }
        let checksum = checksum(&meta);
        meta.extend(checksum.to_le_bytes());
        page.extend(meta);
        page.resize(self.page_bytes as usize, 0);
        page
    }
}

/// FNV-1a with 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
