//! Logs that the real etcd wrote, and what its own reader makes of them: ours says the same, case by case.
//!
//! `make corpus` writes the cases (`tests/golden/wal/<case>/`): a log, sound or damaged on purpose, and etcd's judgement of it. The fuzzers'
//! functions run here too, over these files and over everything that a fuzzer once found, so that a finding stays found without a fuzzer.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::raft::{Entry, EntryKind, Mark};
use detcd_io::bbolt::{self, Meta};
use detcd_io::boot;
use detcd_io::codec::entry::Field;
use detcd_io::disk::{Disk, MemoryDisk};
use detcd_io::snap;
use detcd_io::wal::fuzz::{Outcome, decode_and_repair, ready};
use detcd_io::wal::{
    DecodeErrorKind, Metadata, Name, Options, Recovered, Repaired, Wal, WalError, entry, marks, repair,
};
use detcd_proto::etcdserverpb::PutRequest;

/// etcd's judgement of a log, as its corpus maker writes it.
#[derive(Deserialize)]
struct Judgement {
    why: String,
    files: Vec<File>,
    snapshot_scan: Scan,
    start: Record,
    read: Reading,
    repaired: Option<bool>,
    #[serde(default)]
    files_after: Vec<File>,
    after_repair: Option<Reading>,
}

#[derive(Debug, Deserialize, Eq, PartialEq)]
struct File {
    name: String,
    size: usize,
}

#[derive(Deserialize)]
struct Scan {
    class: String,
    snapshots: Vec<Record>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
struct Record {
    term: u64,
    index: u64,
}

#[derive(Debug, Deserialize, Eq, PartialEq)]
struct Reading {
    class: String,
    /// etcd's text, for people. `from` ours is empty, so it is left out of comparisons.
    #[serde(default)]
    error: String,
    #[serde(default)]
    metadata: String,
    term: u64,
    vote: u64,
    commit: u64,
    entries: Vec<EntryRecord>,
}

#[derive(Debug, Deserialize, Eq, PartialEq)]
struct EntryRecord {
    term: u64,
    index: u64,
    r#type: i32,
    bytes: usize,
    crc32c: u32,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

/// The cases by name.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases: Vec<_> = fs::read_dir(root().join("golden/wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    cases.sort();
    cases
}

const DIR: &str = "wal";

/// The case's log on a disk in memory.
fn loaded(case: &Path) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for entry in fs::read_dir(case.join(DIR)).unwrap() {
        let path = entry.unwrap().path();
        let name = Path::new(DIR).join(path.file_name().unwrap());
        if path.is_dir() {
            ready(disk.create_dir_all(&name)).unwrap();
        } else {
            disk.put(&name, fs::read(&path).unwrap());
        }
    }
    disk
}

fn files(disk: &MemoryDisk) -> Vec<File> {
    let names = ready(disk.list(Path::new(DIR))).unwrap();
    let sized = names.iter().filter_map(|name| {
        let bytes = disk.bytes(&Path::new(DIR).join(name))?;
        Some(File { name: name.to_str().unwrap().to_owned(), size: bytes.len() })
    });
    sized.filter(|file| !file.name.ends_with(".tmp")).collect()
}

fn options() -> Options {
    Options { dir: DIR.into(), segment_bytes: 16_384 }
}

/// Our error in the classes of etcd's errors.
fn class(error: &WalError) -> &'static str {
    match error {
        WalError::Damaged(damage) => match &damage.kind {
            DecodeErrorKind::UnexpectedEof | DecodeErrorKind::TooLong { .. } | DecodeErrorKind::TornWrite => {
                "unexpected-eof"
            }
            DecodeErrorKind::Crc { .. } => "crc-mismatch",
            DecodeErrorKind::MetadataConflict => "metadata-conflict",
            DecodeErrorKind::SnapshotMismatch => "snapshot-mismatch",
            DecodeErrorKind::Gap { .. } => "out-of-range",
            DecodeErrorKind::Short { .. } => "ours alone",
            DecodeErrorKind::UnknownType(_) | DecodeErrorKind::Malformed(_) | DecodeErrorKind::Oversize { .. } => {
                "other"
            }
        },
        WalError::FileNotFound { .. } => "no-file",
        WalError::Sequence { .. } => "sequence",
        WalError::SnapshotNotFound { .. } => "snapshot-not-found",
        WalError::Fault(_) | WalError::Exists { .. } | WalError::NoMetadata { .. } => "ours alone",
    }
}

fn entry_record(entry: &Entry) -> EntryRecord {
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    };
    let crc32c = crc32c::crc32c(&entry.payload);
    EntryRecord { term: entry.term.0, index: entry.index.0, r#type: kind, bytes: entry.payload.len(), crc32c }
}

/// The bytes of a metadata record, as hexadecimal digits.
fn hex(metadata: Metadata) -> String {
    let (mut out, mut crc) = (Vec::new(), 0);
    entry::put_metadata(&mut out, &mut crc, metadata);
    let data = detcd_io::wal::record::Record::parse(out[8..8 + usize::from(out[0])].to_vec().into()).unwrap().data;
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What our reader makes of a log, in the shape of etcd's judgement.
fn reading(disk: &MemoryDisk, start: Record) -> Reading {
    let mark = Mark { term: Term(start.term), index: Index(start.index) };
    let nothing = |class: &str| Reading {
        class: class.to_owned(),
        error: String::new(),
        metadata: String::new(),
        term: 0,
        vote: 0,
        commit: 0,
        entries: Vec::new(),
    };
    match ready(Wal::open(disk.clone(), options(), mark)) {
        Err(error) => nothing(class(&error)),
        Ok((_, Recovered { metadata, hard_state, entries })) => Reading {
            metadata: hex(metadata),
            term: hard_state.term.0,
            vote: hard_state.vote.map_or(0, |id| id.0),
            commit: hard_state.commit.0,
            entries: entries.iter().map(entry_record).collect(),
            ..nothing("ok")
        },
    }
}

fn without_text(reading: Reading) -> Reading {
    Reading { error: String::new(), ..reading }
}

fn check(name: &str, case: &Path) {
    let text = fs::read(case.join("expect.json")).unwrap();
    let wanted: Judgement = serde_json::from_slice(&text).unwrap();
    let why = format!("{name}: {}", wanted.why);
    let disk = loaded(case);
    assert_eq!(files(&disk), wanted.files, "{why}: the case was not loaded");

    let scan = ready(marks(&disk, Path::new(DIR)));
    let scan_class = scan.as_ref().map_or_else(class, |_| "ok");
    assert_eq!(scan_class, wanted.snapshot_scan.class, "{why}: scan");
    let found: Vec<Record> = scan
        .unwrap_or_default()
        .iter()
        .map(|marked| Record { term: marked.mark.term.0, index: marked.mark.index.0 })
        .collect();
    assert_eq!(found, wanted.snapshot_scan.snapshots, "{why}: snapshots");

    assert_eq!(reading(&disk, wanted.start), without_text(wanted.read), "{why}");
    let Some(is_repaired) = wanted.repaired else { return };
    let repaired = ready(repair(&disk, Path::new(DIR)));
    assert_eq!(repaired.is_ok(), is_repaired, "{why}: {repaired:?}");
    if let Ok(Repaired::Cut { copy, .. }) = &repaired {
        let before = fs::read(case.join(copy.with_extension(""))).unwrap();
        assert_eq!(disk.bytes(copy), Some(before), "{why}: the copy is what the file was");
    }
    assert_eq!(reading(&disk, wanted.start), without_text(wanted.after_repair.unwrap()), "{why}: after repair");
    assert_eq!(files(&disk), wanted.files_after, "{why}: files after repair");
}

#[test]
fn every_log_reads_as_etcd_reads_it() {
    let cases = cases();
    assert!(cases.len() >= 35, "the corpus is there");
    for (name, case) in &cases {
        check(name, case);
    }
}

/// The member whose logs the corpus holds.
const MEMBER: MemberId = MemberId(0xa1);

/// A case's log as the boot fuzzer reads one, with a store that has applied what the log does not hold.
fn boot_input(case: &Path) -> Vec<u8> {
    let text = fs::read(case.join("expect.json")).unwrap();
    let start = serde_json::from_slice::<Judgement>(&text).unwrap().start;
    let disk = loaded(case);
    let bytes = |file: &File| disk.bytes(&Path::new(DIR).join(&file.name)).unwrap();
    let segments: Vec<_> =
        files(&disk).iter().filter_map(|file| Some((Name::parse(&file.name)?, bytes(file)))).collect();
    boot::fuzz::input::of_log(&segments, MEMBER, Mark { term: Term(start.term), index: Index(start.index) })
}

/// Every file below a directory of the corpus whose name passes.
fn files_below(directory: &str, passes: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let (mut found, mut open) = (Vec::new(), vec![root().join("golden").join(directory)]);
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if passes(path.file_name().unwrap().to_str().unwrap()) {
                found.push(fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_fuzzers_find_nothing_in_etcds_databases_and_snap_files() {
    let databases = [files_below("bbolt", |_| true), files_below("etcd", |name| name == "db")].concat();
    assert!(databases.len() >= 10);
    for bytes in databases {
        let outcome = bbolt::fuzz::read(&bytes);
        assert!(matches!(outcome, bbolt::fuzz::Outcome::Read { buckets: 10, .. }), "{outcome:?}");
    }
    let snaps = files_below("etcd", |name| name.ends_with(".snap"));
    assert!(snaps.len() >= 2);
    for bytes in snaps {
        let snapshot = snap::fuzz::read(&bytes).unwrap();
        assert_eq!(snap::encode(&snapshot), bytes, "we would have written it so");
    }
}

#[test]
fn the_fuzzers_find_nothing_in_etcds_logs() {
    let (mut opened, mut started) = (0, 0);
    for (_, case) in &cases() {
        let disk = loaded(case);
        for file in files(&disk) {
            let bytes = disk.bytes(&Path::new(DIR).join(&file.name)).unwrap();
            opened += usize::from(matches!(decode_and_repair(&bytes), Outcome::Opened { .. }));
        }
        let outcome = boot::fuzz::start(&boot_input(case));
        started += usize::from(matches!(outcome, boot::fuzz::Outcome::Started { .. }));
    }
    assert!(opened >= 25 && started >= 23, "too few of the cases reach far: {opened} opened, {started} started");
}

/// The files that a target is fed besides its own discoveries: what etcd wrote, and what was found once.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut kept: Vec<_> = fs::read_dir(root().join("../fuzz/seeds").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    kept.sort();
    kept
}

#[test]
fn what_the_fuzzers_once_found_stays_found() {
    for (name, bytes) in kept("wal") {
        println!("{name}: {:?}", decode_and_repair(&bytes));
    }
    for (name, bytes) in kept("boot") {
        println!("{name}: {:?}", boot::fuzz::start(&bytes));
    }
    for (name, bytes) in kept("bbolt") {
        println!("{name}: {:?}", bbolt::fuzz::read(&bytes));
    }
    for (name, bytes) in kept("snap") {
        println!("{name}: {:?}", snap::fuzz::read(&bytes));
    }
}

/// The boot fuzzer's seeds are etcd's logs in its own format. `WRITE_SEEDS=1` writes them anew after the corpus was made anew.
#[test]
fn the_seeds_are_etcds_logs() {
    let seeds = root().join("../fuzz/seeds/boot");
    for (name, case) in cases().iter().filter(|(name, _)| SEEDS.contains(&name.as_str())) {
        let (path, input) = (seeds.join(format!("etcd-{name}")), boot_input(case));
        if std::env::var_os("WRITE_SEEDS").is_some() {
            fs::create_dir_all(&seeds).unwrap();
            fs::write(&path, &input).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), input, "{name}");
    }
}

/// Directories of etcd's in that format: their import is a start, too.
#[test]
fn and_its_directories() {
    let seeds = root().join("../fuzz/seeds/boot");
    for (name, started) in [("young", true), ("restored", true), ("cluster-3.6", true), ("auth", false)] {
        let directory = root().join("golden/etcd").join(name).join("member");
        let file = |path: &str| fs::read(directory.join(path)).unwrap();
        let segments = [(Name { seq: 0, index: Index(0) }, file(&format!("wal/{}", Name { seq: 0, index: Index(0) })))];
        let (path, input) =
            (seeds.join(format!("etcd-import-{name}")), boot::fuzz::input::of_import(&segments, &file("snap/db")));
        if std::env::var_os("WRITE_SEEDS").is_some() {
            fs::write(&path, &input).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), input, "{name}");
        // Found by the fuzzer: a refusal after the claim, whose write test takes a file of its own away.
        for input in [boot::fuzz::input::with_touch(input.clone()), input] {
            let outcome = boot::fuzz::start(&input);
            assert_eq!(matches!(outcome, boot::fuzz::Outcome::Started { .. }), started, "{name}: {outcome:?}");
        }
    }
}

/// An import that ended before it was done is finished, if the database is still the one that was imported.
#[test]
fn and_an_import_that_is_not_done() {
    let directory = root().join("golden/etcd/young/member");
    let name = Name { seq: 0, index: Index(0) };
    let segments = [(name, fs::read(directory.join(format!("wal/{name}"))).unwrap())];
    let database = fs::read(directory.join("snap/db")).unwrap();
    let metas = [0, 4096].map(|page| Meta::parse(&database[page..]).unwrap());
    let Meta { txid, high_water, .. } = metas.into_iter().max_by_key(|meta| meta.txid).unwrap();
    let with = |txid: u64| {
        let marker = format!("transaction {txid} with {high_water} pages, applied 3\n");
        boot::fuzz::input::of_unfinished_import(&segments, &database, &marker)
    };
    check_seed("etcd-import-unfinished", &with(txid), true);
    let outcome = boot::fuzz::start(&with(txid - 1));
    assert!(matches!(&outcome, boot::fuzz::Outcome::Failed(why) if why.contains("unfinished import")), "{outcome:?}");
}

/// Short logs of every kind.
const SEEDS: [&str; 12] = [
    "configuration",
    "fresh",
    "entries",
    "overwritten",
    "overwritten-later",
    "snapshots",
    "snapshot-ahead",
    "torn-body",
    "torn-length",
    "torn-sector",
    "garbage-behind-end",
    "gap",
];

/// Logs that say what etcd's do not: members that come and go. Each is started; `made-removed` tells of its own end.
#[test]
fn and_logs_that_were_made_up() {
    let put = detcd_io::codec::entry::encode(
        Ticket(3),
        Field::Put,
        &PutRequest { key: "a".into(), value: "b".into(), ..PutRequest::default() },
    );
    let [put, later_put] = [0, 7].map(|later| [&[0, 0, later][..], &put].concat());
    let (found, join, learn) = ([2, 0, 0], [2, 1, 0], [3, 2, 7]);
    let (promote, leave, move_, commit) = ([4, 2, 0], [5, 1, 0], [6, 2, 0], [10, 0, 0]);
    let mark = |index| Mark { term: Term(1), index: Index(index) };
    let inputs: [(&str, Vec<&[u8]>, Mark, bool); 5] = [
        ("grown", vec![&found, &put, &join, &learn, &promote, &move_, &leave, &put, &commit], Mark::ZERO, true),
        ("uncommitted", vec![&found, &put, &commit, &join, &put, &[9, 2, 0], &later_put], Mark::ZERO, true),
        ("marked", vec![&found, &put, &[8, 0, 1], &put, &commit], mark(2), true),
        ("marked-behind-the-store", vec![&found, &put, &[8, 0, 1], &put, &commit], mark(1), false),
        ("removed", vec![&found, &join, &[5, 0, 0], &commit], Mark::ZERO, false),
    ];
    for (name, items, applied, started) in inputs {
        check_seed(&format!("made-{name}"), &boot::fuzz::input::of_items(&items, applied), started);
    }
    let mut forced = boot::fuzz::input::of_items(&[&found, &put, &join, &learn, &commit], Mark::ZERO);
    forced[0] |= 1 << 5; // --force-new-cluster
    check_seed("made-forced", &forced, true);
    let unfinished = boot::fuzz::input::in_import(boot::fuzz::input::of_items(&[&found, &put, &commit], mark(2)));
    check_seed("made-unfinished-import", &unfinished, true);
}

/// The directory of an etcd that is all that is left of its cluster goes on alone, unless its log tells of its own end; that is seen before the import.
#[test]
fn and_directories_that_are_forced() {
    let (found, join, leave, end, commit) = ([2, 0, 0], [2, 1, 0], [5, 1, 0], [5, 0, 0], [10, 0, 0]);
    let inputs: [(&str, Vec<&[u8]>, bool); 3] = [
        ("alone", vec![&found, &join, &commit], true),
        ("refused-change", vec![&found, &leave, &commit, &leave], true),
        ("removed", vec![&found, &join, &end, &commit], false),
    ];
    for (name, items, started) in inputs {
        let mut input = boot::fuzz::input::of_import_with_items(&items, Mark { term: Term(1), index: Index(1) });
        input[0] |= 1 << 5; // --force-new-cluster
        check_seed(&format!("import-forced-{name}"), &input, started);
        if !started {
            let boot::fuzz::Outcome::Failed(cause) = boot::fuzz::start(&input) else { panic!("{name}") };
            // By its name, which it would have lost with the import.
            assert!(cause.starts_with("d/member/snap/db: ") && cause.contains("cannot go on alone"), "{cause}");
        }
    }
}

/// A second member joins the first; one that has served before does not, and nor does one of which nobody knows.
#[test]
fn and_members_that_join() {
    let inputs: [(&str, &[[u8; 2]], bool); 4] = [
        ("join", &[[0, 2], [1, 0]], true),
        ("join-all-new", &[[0, 0], [1, 0]], true),
        ("join-again", &[[0, 2], [1, 2]], false),
        ("join-unknown", &[[0, 2], [2, 0]], false),
    ];
    for (name, running, started) in inputs {
        check_seed(name, &boot::fuzz::input::of_join(running), started);
    }
}

/// The boot fuzzer has this seed, and a member starts on it or does not. `WRITE_SEEDS=1` writes it.
fn check_seed(name: &str, input: &[u8], started: bool) {
    let path = root().join("../fuzz/seeds/boot").join(name);
    if std::env::var_os("WRITE_SEEDS").is_some() {
        fs::write(&path, input).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), input, "{name}");
    let outcome = boot::fuzz::start(input);
    assert_eq!(matches!(outcome, boot::fuzz::Outcome::Started { .. }), started, "{name}: {outcome:?}");
}
