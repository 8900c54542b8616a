//! What is wrong with a database is told in words: the checks that a small file can fail, each by one that fails no other.

use detcd_io::bbolt::Meta;
use detcd_io::bbolt::fuzz::{Outcome, read};
use detcd_io::bbolt::page::{BRANCH, BUCKET, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF};

const PAGE_BYTES: usize = 1024;
/// The pages of a sound file: two metas, the root, and a bucket's branch and leaf.
const ROOT: u64 = 2;
const TOP: u64 = 3;
const ROWS: u64 = 4;

/// A page with these elements as a leaf has them: what each is, its key and its value.
fn page(pgid: u64, flags: u16, elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let (mut heads, mut parts) = (Vec::new(), Vec::new());
    for (at, (word, key, value)) in elements.iter().enumerate() {
        let position = ((elements.len() - at) * ELEMENT_BYTES + parts.len()) as u32;
        let (key_len, value_len) = (key.len() as u32, value.len() as u32);
        heads.extend([*word, position, key_len, value_len].iter().flat_map(|word| word.to_le_bytes()));
        parts.extend([*key, *value].concat());
    }
    let pages = (HEADER_BYTES + heads.len() + parts.len()).div_ceil(PAGE_BYTES).max(1);
    let head = Header { pgid, flags, count: elements.len() as u16, overflow: pages as u32 - 1 };
    let mut page = [&head.encode()[..], &heads, &parts].concat();
    page.resize(pages * PAGE_BYTES, 0);
    page
}

fn leaf(pgid: u64, elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    page(pgid, LEAF, elements)
}

fn branch(pgid: u64, elements: &[(&[u8], u64)]) -> Vec<u8> {
    let (mut heads, mut parts) = (Vec::new(), Vec::new());
    for (at, (key, child)) in elements.iter().enumerate() {
        let position = ((elements.len() - at) * ELEMENT_BYTES + parts.len()) as u32;
        heads.extend([position, key.len() as u32].iter().flat_map(|word| word.to_le_bytes()));
        heads.extend(child.to_le_bytes());
        parts.extend(*key);
    }
    let head = Header { pgid, flags: BRANCH, count: elements.len() as u16, overflow: 0 };
    let mut page = [&head.encode()[..], &heads, &parts].concat();
    page.resize(PAGE_BYTES, 0);
    page
}

/// The value of a bucket: its root, and a number that etcd does not use.
fn bucket(root: u64) -> Vec<u8> {
    [root.to_le_bytes(), [0; 8]].concat()
}

/// A bucket inside its element.
fn inline(page: &[u8]) -> Vec<u8> {
    [&bucket(0), page].concat()
}

/// The file of these pages behind the metas.
fn file(pages: &[Vec<u8>]) -> Vec<u8> {
    let tree = pages.concat();
    let high_water = (2 + tree.len() / PAGE_BYTES) as u64;
    let meta = |pgid| Meta { page_bytes: PAGE_BYTES as u32, root: ROOT, high_water, txid: pgid }.page(pgid);
    [meta(0), meta(1), tree].concat()
}

/// A file whose one bucket is this page, or the tree that it begins.
fn file_of_rows(pages: &[Vec<u8>]) -> Vec<u8> {
    file(&[&[leaf(ROOT, &[(BUCKET, b"key", &bucket(TOP))])], pages].concat())
}

fn told(file: &[u8]) -> String {
    match read(file) {
        Outcome::Refused(cause) => cause,
        Outcome::Read { buckets, rows } => format!("{buckets} buckets, {rows} rows"),
    }
}

#[test]
fn a_sound_file_is_read() {
    let rows = leaf(ROWS, &[(0, b"a", b"1"), (0, b"b", b"")]);
    assert_eq!(told(&file_of_rows(&[branch(TOP, &[(b"a", ROWS)]), rows])), "1 buckets, 2 rows");
    let small = inline(&leaf(0, &[(0, b"a", b"1")]));
    assert_eq!(
        told(&file(&[leaf(ROOT, &[(BUCKET, b"key", &small), (BUCKET, b"lease", &small)])])),
        "2 buckets, 2 rows"
    );
}

#[test]
fn a_file_that_says_that_it_is_longer_is_told() {
    let mut file = file_of_rows(&[leaf(TOP, &[])]);
    for high_water in [5, u64::MAX] {
        let meta = Meta { page_bytes: PAGE_BYTES as u32, root: ROOT, high_water, txid: 7 };
        file[PAGE_BYTES..2 * PAGE_BYTES].copy_from_slice(&meta.page(1));
        assert_eq!(told(&file), format!("the file ends before its page {high_water}"));
    }
}

#[test]
fn what_is_wrong_with_the_root_is_told() {
    let names: Vec<[u8; 2]> = (1..=1001_u16).map(u16::to_be_bytes).collect();
    let empty = inline(&leaf(0, &[])[..HEADER_BYTES]);
    let many: Vec<(u32, &[u8], &[u8])> = names.iter().map(|name| (BUCKET, &name[..], &empty[..])).collect();
    assert_eq!(told(&file(&[leaf(ROOT, &many[..1000])])), "1000 buckets, 0 rows");
    assert_eq!(told(&file(&[leaf(ROOT, &many)])), "too many buckets");
    let of_one = |flags: u32, value: &[u8]| told(&file(&[leaf(ROOT, &[(flags, b"key", value)])]));
    assert_eq!(of_one(0, b"value"), "a row outside every bucket");
    assert_eq!(of_one(BUCKET, &[1; 15]), "a bucket without a root");
    assert_eq!(of_one(BUCKET, &inline(&[0; HEADER_BYTES - 1])), "half a bucket");
    assert_eq!(of_one(BUCKET, &inline(&branch(0, &[]))), "a bucket inside an element that is no leaf");
    for root in [1, 3, u64::MAX] {
        assert_eq!(of_one(BUCKET, &bucket(root)), format!("page {root} is named, but there is none"));
    }
}

#[test]
fn what_is_wrong_with_a_page_is_told() {
    let of = |page: Vec<u8>| told(&file_of_rows(&[page]));
    assert_eq!(of(leaf(TOP + 1, &[])), "page 3 calls itself 4");
    assert_eq!(of(page(TOP, LEAF | BRANCH, &[])), "page 3 is no part of a tree: flags 0x3");
    let mut long = leaf(TOP, &[]);
    long[12..16].copy_from_slice(&1_u32.to_le_bytes()); // overflow
    assert_eq!(of(long), "page 3 is longer than the file");
    let two = |one: &[u8], next: &[u8]| of(leaf(TOP, &[(0, one, b"v"), (0, next, b"v")]));
    assert_eq!(two(b"", b"b"), "the key of element 0 is out of order");
    assert_eq!(two(b"b", b"a"), "the key of element 1 is out of order");
    assert_eq!(two(b"b", b"b"), "the key of element 1 is out of order");
    assert_eq!(of(leaf(TOP, &[(BUCKET, b"b", &bucket(4))])), "a bucket inside a bucket, which etcd never makes");
}

#[test]
fn an_element_outside_its_page_is_told() {
    const OUTSIDE: &str = "element 0 lies outside its page";
    let reach = |page: &[u8], at: usize, word: u32| {
        let mut page = page.to_vec();
        page[HEADER_BYTES + at..HEADER_BYTES + at + 4].copy_from_slice(&word.to_le_bytes());
        told(&file_of_rows(&[page, leaf(ROWS, &[])]))
    };
    let (rows, tops) = (leaf(TOP, &[(0, b"a", b"1")]), branch(TOP, &[(b"a", ROWS)]));
    let room = (PAGE_BYTES - HEADER_BYTES) as u32;
    for word in [room + 1, u32::MAX] {
        // Of a leaf: where the key lies, how long it is, and the value; of a branch: where the key lies and how long it is.
        assert_eq!([4, 8, 12].map(|at| reach(&rows, at, word)), [OUTSIDE; 3], "{word}");
        assert_eq!([0, 4].map(|at| reach(&tops, at, word)), [OUTSIDE; 2], "{word}");
    }
    assert_eq!(reach(&rows, 12, room - ELEMENT_BYTES as u32 - 1), "1 buckets, 1 rows", "to its last byte");
}

/// Nothing empty or round is walked for ever.
#[test]
fn a_tree_without_an_end_is_told() {
    let same: Vec<(&[u8], u64)> = vec![(b"a", ROWS); 8];
    let told_of = |times: usize| told(&file_of_rows(&[branch(TOP, &same[..times]), leaf(ROWS, &[])]));
    // Five pages in all; the branch is one.
    assert_eq!(told_of(4), "1 buckets, 0 rows");
    assert_eq!(told_of(5), "page 4 or another one is part of the tree twice");
    let chain = |levels: u64| {
        let tops = (TOP..TOP + levels - 1).map(|pgid| branch(pgid, &[(b"a", pgid + 1)]));
        told(&file_of_rows(&tops.chain([leaf(TOP + levels - 1, &[])]).collect::<Vec<_>>()))
    };
    assert_eq!(chain(32), "1 buckets, 0 rows");
    assert_eq!(chain(33), "a tree of more levels than any file needs");
}

/// A meta lies where its own page size says, or it is something else that looks like one.
#[test]
fn of_two_metas_the_newer_one_counts_if_it_is_in_its_place() {
    let sound = file_of_rows(&[leaf(TOP, &[(0, b"a", b"1")])]);
    let high_water = (sound.len() / PAGE_BYTES) as u64;
    // The sound file with a meta in the place of a page, and with so many metas of its own.
    let with = |place: usize, meta: Meta, own: usize| {
        let mut file = sound.clone();
        file.resize(16 * PAGE_BYTES, 0);
        file[own * PAGE_BYTES..2 * PAGE_BYTES].fill(0);
        file[place * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&meta.page(1)[..PAGE_BYTES]);
        told(&file)
    };
    let elsewhere = Meta { page_bytes: 4096, root: 99, high_water, txid: 7 };
    assert_eq!(with(1, elsewhere, 2), "1 buckets, 1 rows");
    let (newer, older) = (Meta { page_bytes: 1024, ..elsewhere }, Meta { page_bytes: 1024, txid: 0, ..elsewhere });
    assert_eq!(with(1, newer, 2), "page 99 is named, but there is none");
    assert_eq!(with(0, older, 2), "1 buckets, 1 rows");
    // With the first one gone the second is looked for, at every size of page.
    assert_eq!(with(4, elsewhere, 0), "page 99 is named, but there is none");
    assert!(with(1, elsewhere, 0).starts_with("no valid meta page"));
}
