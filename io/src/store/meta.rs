//! A look at an LMDB file before LMDB maps it.
//!
//! LMDB trusts its meta pages and its file's length: a truncated file would end the process with SIGBUS. So both metas, the page size and the
//! tree roots are checked here first, on plain bytes. Damage inside tree pages is beyond this check; hashes between members find that.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::fault::Fault;

const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
const PAGE_HEADER_BYTES: usize = 16;
const META_BYTES: usize = 136;
const META_FLAG: u16 = 0x08;
/// A branch or a leaf.
const NODE_FLAGS: u16 = 0x03;
const NO_PAGE: u64 = u64::MAX;

/// The part of a meta page that must make sense before the file is mapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Meta {
    /// Bytes in a page.
    pub page_bytes: u32,
    /// Root pages of the free list and the main tree.
    pub roots: [u64; 2],
    /// The last page ever used.
    pub last_page: u64,
    /// The transaction that wrote this meta.
    pub transaction: u64,
}

/// Checks the file at `path`. A file that is absent or empty is fine: LMDB will write it.
///
/// # Errors
/// [`Fault::Corrupt`] with the offset and what is wrong there; [`Fault::Disk`] if it cannot be read.
pub fn check(path: &Path) -> Result<(), Fault> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Fault::disk("open", path)(source)),
    };
    let len = file.metadata().map_err(Fault::disk("stat", path))?.len();
    if len == 0 {
        return Ok(());
    }
    let mut head = Vec::new();
    (&mut file).take(2 * 65536).read_to_end(&mut head).map_err(Fault::disk("read", path))?;
    let corrupt = |(offset, cause)| Fault::Corrupt { file: path.to_owned(), offset, cause };
    let meta = check_bytes(&head, len).map_err(corrupt)?;
    for root in meta.roots.into_iter().filter(|root| *root != NO_PAGE) {
        let offset = root * u64::from(meta.page_bytes);
        let mut header = [0; PAGE_HEADER_BYTES];
        file.read_exact_at(&mut header, offset).map_err(Fault::disk("read", path))?;
        if !is_root(&header, root) {
            return Err(corrupt((offset, format!("page {root} is no root of a tree, as the meta page has it"))));
        }
    }
    Ok(())
}

/// Whether a page knows its own number and is a node of a tree.
fn is_root(header: &[u8; PAGE_HEADER_BYTES], root: u64) -> bool {
    let (number, flags) = header.split_at(8);
    let kind = u16::from_ne_bytes([flags[2], flags[3]]);
    number == root.to_ne_bytes() && kind != 0 && kind & !NODE_FLAGS == 0
}

/// Checks the head of a file of `len` bytes; the newer of the two metas is the one that LMDB would use.
fn check_bytes(head: &[u8], len: u64) -> Result<Meta, (u64, String)> {
    let first = parse(head).map_err(|cause| (0, format!("meta page 0: {cause}")))?;
    let page_bytes = first.page_bytes as usize;
    let at = page_bytes as u64;
    let second = head.get(page_bytes..).ok_or_else(|| (at, "meta page 1 is missing".to_owned()))?;
    let second = parse(second).map_err(|cause| (at, format!("meta page 1: {cause}")))?;
    if second.page_bytes != first.page_bytes {
        return Err((at, format!("page size {} differs from {}", second.page_bytes, first.page_bytes)));
    }
    let newest = if first.transaction < second.transaction { second } else { first };
    for root in newest.roots {
        if root != NO_PAGE && (root >= len / at || newest.last_page < root) {
            return Err((root.saturating_mul(at), format!("the file ends at {len}, before root page {root}")));
        }
    }
    Ok(newest)
}

fn parse(page: &[u8]) -> Result<Meta, &'static str> {
    let u16_at = |at: usize| page.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let u32_at = |at: usize| page.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let u64_at = |at: usize| page.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let short = "the file is too short";
    if page.len() < PAGE_HEADER_BYTES + META_BYTES {
        return Err(short);
    }
    if u16_at(10).ok_or(short)? & META_FLAG == 0 {
        return Err("not marked as a meta page");
    }
    let meta = PAGE_HEADER_BYTES;
    if u32_at(meta).ok_or(short)? != MAGIC {
        return Err("wrong magic number");
    }
    if u32_at(meta + 4).ok_or(short)? != DATA_VERSION {
        return Err("unknown format version");
    }
    let page_bytes = u32_at(meta + 24).ok_or(short)?;
    if !page_bytes.is_power_of_two() || !(512..=65536).contains(&page_bytes) {
        return Err("impossible page size");
    }
    Ok(Meta {
        page_bytes,
        roots: [u64_at(meta + 64).ok_or(short)?, u64_at(meta + 112).ok_or(short)?],
        last_page: u64_at(meta + 120).ok_or(short)?,
        transaction: u64_at(meta + 128).ok_or(short)?,
    })
}
