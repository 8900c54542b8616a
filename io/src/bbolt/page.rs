//! One page: a header, an array of elements, and the bytes that they point to.
//!
//! Invariant: whatever the bytes, an element that is handed out lies inside its page.

use bytes::Bytes;

/// Bytes of a page's header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of an element, of a branch or a leaf.
pub const ELEMENT_BYTES: usize = 16;
/// The page holds keys and the pages below them.
pub const BRANCH: u16 = 0x01;
/// The page holds keys and values.
pub const LEAF: u16 = 0x02;
/// The page holds a meta.
pub const META: u16 = 0x04;
/// The element of a leaf holds a bucket.
pub const BUCKET: u32 = 0x01;

/// A page's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The page's number; zero inside an element.
    pub pgid: u64,
    /// What it is.
    pub flags: u16,
    /// How many elements it has.
    pub count: u16,
    /// How many pages after it belong to it.
    pub overflow: u32,
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl Header {
    /// Reads the header of a page.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<Self> {
        let word = u32_at(page, 8)?;
        let [flags_low, flags_high, count_low, count_high] = word.to_le_bytes();
        Some(Self {
            pgid: u64_at(page, 0)?,
            flags: u16::from_le_bytes([flags_low, flags_high]),
            count: u16::from_le_bytes([count_low, count_high]),
            overflow: u32_at(page, 12)?,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.pgid.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }
}

/// A key of a branch, and the page below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BranchElement {
    /// The first key below.
    pub key: Bytes,
    /// The page below.
    pub child: u64,
}

/// A key and value of a leaf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeafElement {
    /// Whether the value is a bucket.
    pub is_bucket: bool,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// What of the page lies at `position` of the element at `at`.
fn part(page: &Bytes, at: usize, position: u32, len: u32) -> Option<Bytes> {
    let start = at.checked_add(position as usize)?;
    let end = start.checked_add(len as usize)?;
    if end <= page.len() { Some(page.slice(start..end)) } else { None }
}

/// The element `place` of a branch.
#[must_use]
pub fn branch_element(page: &Bytes, place: usize) -> Option<BranchElement> {
    let at = HEADER_BYTES + place * ELEMENT_BYTES;
    let (position, key_len) = (u32_at(page, at)?, u32_at(page, at + 4)?);
    Some(BranchElement { key: part(page, at, position, key_len)?, child: u64_at(page, at + 8)? })
}

/// The element `place` of a leaf.
#[must_use]
pub fn leaf_element(page: &Bytes, place: usize) -> Option<LeafElement> {
    let at = HEADER_BYTES + place * ELEMENT_BYTES;
    let (flags, position) = (u32_at(page, at)?, u32_at(page, at + 4)?);
    let (key_len, value_len) = (u32_at(page, at + 8)?, u32_at(page, at + 12)?);
    let key = part(page, at, position, key_len)?;
    let value = part(page, at, position.checked_add(key_len)?, value_len)?;
    Some(LeafElement { is_bucket: flags & BUCKET != 0, key, value })
}
