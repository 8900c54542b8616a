//! Data directories that the real etcd 3.7.3 wrote (`make corpus`), and what it answers on them: a member of ours starts on each with the same
//! revisions, hashes, leases and alarms, over a store in memory and over LMDB; or refuses it by name and leaves it as it was.
#![allow(clippy::unwrap_used)]

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use detcd_core::ids::MemberId;
use detcd_core::mvcc::View as _;
use detcd_io::bbolt::read::Reader;
use detcd_io::bbolt::write::Writer;
use detcd_io::boot::execute::{BootError, Booted, boot};
use detcd_io::boot::fuzz::live;
use detcd_io::disk::{Access, Disk, MemoryDisk, RealDisk};
use detcd_io::fault::Fault;
use detcd_io::store::Store;
use detcd_io::store::backend::Backend;
use detcd_io::store::hash::{HashKeys, Hashed};
use detcd_io::store::lmdb::Lmdb;
use detcd_io::store::memory::{MemoryBackend, MemoryStores};
use detcd_io::wal::fuzz::ready;
use imports::{Case, cases, start};

/// Whoever starts on it finds what etcd would.
fn check<B: Backend>(case: &Case, store: &Store<B>) {
    let expect = &case.expect;
    assert_eq!(store.current(), expect.revision, "{}", case.name);
    assert_eq!(store.view().compacted(), expect.compacted, "{}", case.name);
    // The empty name, which raising a revision makes, is none that anybody can ask for.
    let nameless = usize::from(case.name == "restored-bumped");
    assert_eq!(store.live_keys() - nameless, expect.keys, "{}", case.name);
    assert_eq!(store.alarms().iter().count(), expect.alarms, "{}", case.name);
    for (revision, hash) in expect.hashes.iter().flatten() {
        let mut hashing = HashKeys::new(store, revision.parse().unwrap()).unwrap();
        let done = loop {
            if let Hashed::Done(done) = hashing.advance(100).unwrap() {
                break done;
            }
        };
        assert_eq!(done.hash, *hash, "{} at {revision}", case.name);
    }
    assert_eq!(store.leases().len(), expect.leases, "{}", case.name);
}

fn live_on<D: Disk, B: Backend>(booted: Booted<D, B>) -> Store<B> {
    let store = booted.store.clone();
    let committed = booted.raft.commit();
    live(booted).unwrap();
    assert!(committed <= store.applied().index, "the log is worked off");
    store
}

fn boot_in_memory(disk: &MemoryDisk, stores: &MemoryStores) -> Result<Booted<MemoryDisk, MemoryBackend>, BootError> {
    let open = |directory: PathBuf| async move { stores.open(disk, &directory).await };
    ready(boot(disk, &start(Path::new("d")), open))
}

fn names(disk: &MemoryDisk, directory: &str) -> Vec<String> {
    let names = ready(disk.list(Path::new(directory))).unwrap_or_default();
    names.iter().map(|name| name.to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_member_starts_on_what_etcd_wrote() {
    for case in cases().iter().filter(|case| case.expect.refused.is_empty()) {
        let (disk, stores) = (case.in_memory(), MemoryStores::default());
        let booted = boot_in_memory(&disk, &stores).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let store = live_on(booted);
        check(case, &store);
        assert!(names(&disk, "d/member").iter().all(|name| name != "lmdb.tmp"), "{}", case.name);
        assert_eq!(names(&disk, "d/member/lmdb"), ["data.mdb"], "{}", case.name);
        for (path, bytes) in &case.files {
            let kept = match path.file_name().unwrap().to_str().unwrap() {
                "db" => path.with_file_name("db.imported"),
                _ => path.clone(),
            };
            let now = disk.bytes(&Path::new("d").join(&kept)).unwrap_or_else(|| panic!("{} is gone", kept.display()));
            // A log goes on where its zeros begin.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            assert!(now.starts_with(&bytes[..used]), "{}: {}", case.name, path.display());
        }
        // From now on it is a member like any other.
        check(case, &live_on(boot_in_memory(&disk, &stores).unwrap()));
    }
}

/// A layout of 3.6 is raised with the import where the cluster is of 3.7 already, and with the cluster otherwise.
#[test]
fn an_older_layout_is_raised_with_the_cluster() {
    for (name, layout) in [("version-3.6", Some("3.7.0")), ("cluster-3.6", Some("3.6.0"))] {
        let booted = boot_in_memory(&Case::named(name).in_memory(), &MemoryStores::default()).unwrap();
        let version = booted.store.storage_version().map(|version| version.to_string());
        assert_eq!(version.as_deref(), layout, "{name}");
    }
}

#[test]
fn over_lmdb_it_is_the_same() {
    for case in cases().iter().filter(|case| case.expect.refused.is_empty()) {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in &case.files {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), bytes).unwrap();
        }
        // What an earlier attempt left is in the way of nobody.
        fs::create_dir_all(root.path().join("member/lmdb.tmp")).unwrap();
        fs::write(root.path().join("member/lmdb.tmp/data.mdb"), b"half a store").unwrap();
        for _ in 0..2 {
            let open = |directory: PathBuf| async move { Lmdb::open(&directory) };
            let booted = ready(boot(&RealDisk, &start(root.path()), open)).unwrap();
            check(case, &live_on(booted));
        }
        assert!(!root.path().join("member/snap/db").exists() && !root.path().join("member/lmdb.tmp").exists());
        assert_eq!(
            fs::read(root.path().join("member/snap/db.imported")).unwrap(),
            case.files[Path::new("member/snap/db")]
        );
    }
}

#[test]
fn what_is_not_built_is_refused_by_name_and_left_as_it_was() {
    let mut refused = 0;
    for case in cases().iter().filter(|case| !case.expect.refused.is_empty()) {
        let disk = case.in_memory();
        let Err(error) = boot_in_memory(&disk, &MemoryStores::default()) else { panic!("{} starts", case.name) };
        assert!(matches!(error, BootError::Refused(_)), "{}: {error}", case.name);
        assert_eq!(error.to_string(), case.expect.refused);
        assert_untouched(case, &disk);
        refused += 1;
    }
    assert!(refused >= 1);
}

fn assert_untouched(case: &Case, disk: &MemoryDisk) {
    for (path, bytes) in &case.files {
        assert_eq!(disk.bytes(&Path::new("d").join(path)).as_ref(), Some(bytes), "{}", path.display());
    }
    assert_eq!(names(disk, "d/member"), ["lock", "snap", "wal"]);
}

/// The failure of a start on a directory whose database was changed.
fn failure(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut case = Case::named("restored");
    change(case.files.get_mut(Path::new("member/snap/db")).unwrap());
    let disk = case.in_memory();
    let Err(error) = boot_in_memory(&disk, &MemoryStores::default()) else { panic!("it starts") };
    assert_untouched(&case, &disk);
    error.to_string()
}

#[test]
fn a_database_that_is_none_is_named_with_place_and_cause() {
    let text = failure(|db| db.truncate(0));
    assert_eq!(
        text,
        "d/member/snap/db is damaged at byte 0: no valid meta page: not a bbolt database, or both metas are damaged"
    );
    assert_eq!(failure(|db| db.fill(0x7f)), text);
    let text = failure(|db| db.truncate(db.len() - 8192));
    assert!(
        text.starts_with("d/member/snap/db is damaged at byte ") && text.contains("the file ends before"),
        "{text}"
    );
}

type Tables = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A database with other rows.
fn rewritten(database: Vec<u8>, edit: impl FnOnce(&mut Tables)) -> Vec<u8> {
    let (disk, path) = (MemoryDisk::new(), PathBuf::from("db"));
    disk.put(&path, database);
    let mut tables = Tables::new();
    ready(async {
        let reader = Reader::open(disk.open(&path, Access::Read).await.unwrap(), path).await.unwrap();
        for bucket in reader.buckets().await.unwrap() {
            let (mut cursor, rows) = (reader.rows(&bucket), tables.entry(bucket.name.to_vec()).or_default());
            while let Some((key, value)) = cursor.next().await.unwrap() {
                rows.insert(key.to_vec(), value.to_vec());
            }
        }
    });
    edit(&mut tables);
    let mut writer = Writer::new();
    for (name, rows) in &tables {
        writer.bucket(name);
        rows.iter().for_each(|(key, value)| writer.row(key, value));
    }
    let finished = writer.finish();
    let (offset, pages) = writer.take();
    let mut file = finished.metas;
    file.resize(usize::try_from(offset).unwrap(), 0);
    [file, pages].concat()
}

/// The failure of a start on a database with other rows.
fn failure_with_rows(edit: impl FnOnce(&mut Tables)) -> String {
    failure(|db| *db = rewritten(std::mem::take(db), edit))
}

#[test]
fn rows_that_make_no_member_of_ours_are_told() {
    let put = |table: &'static str, key: &'static [u8], value: &'static [u8]| {
        failure_with_rows(move |tables| drop(tables.entry(table.into()).or_default().insert(key.into(), value.into())))
    };
    let unbuilt = |what: &str| format!("importing {what} is not built yet in detcd");
    let unfit = |what: &str| format!("d/member/snap/db: {what}");
    assert_eq!(put("auth", b"authEnabled", &[1]), unbuilt("a store with authentication enabled"));
    let text = put("cluster", b"downgrade", b"{");
    assert!(text.starts_with(&unfit("cannot be imported: cannot load the store: downgrade: ")), "{text}");
    assert_eq!(put("meta", b"storageVersion", b"3.8.0"), unfit("version \"3.8.0\" is not supported"));
    assert_eq!(put("meta", b"storageVersion", b"soon"), unfit("storage version \"soon\": not a version"));
    assert_eq!(put("meta", b"consistent_index", b"1"), unfit("consistent_index: not eight bytes"));
    assert_eq!(put("v2", b"a", b"b"), unfit("holds a bucket \"v2\", which etcd 3.7 does not have"));
    let nobody = failure_with_rows(|tables| tables.get_mut(&b"members"[..]).unwrap().clear());
    assert!(nobody.starts_with(&unfit("the log is of member ")), "{nobody}");
    let old = failure_with_rows(|tables| drop(tables.get_mut(&b"meta"[..]).unwrap().remove(&b"term"[..])));
    assert_eq!(old, unbuilt("a database without a term, as etcd wrote it before 3.5,"));
    let text = put("key", b"not a revision", b"");
    assert!(text.contains("is damaged at byte") && text.ends_with("which is no revision"), "{text}");
    let text = put("lease", b"short", b"");
    assert!(text.starts_with(&unfit("cannot be imported: cannot load the store: lease short: ")), "{text}");
    let text = failure_with_rows(|tables| {
        tables.get_mut(&b"authUsers"[..]).unwrap().insert(vec![b'u'; 600], Vec::new());
    });
    assert!(text.ends_with("a row of table authUsers under a name of 600 bytes, too long for this version"), "{text}");
}

/// The log's newest mark names what the database does not have: it was to come from a file that another member had sent.
#[test]
fn a_database_behind_the_logs_mark_is_refused() {
    let mut case = Case::named("restored");
    let database = case.files.get_mut(Path::new("member/snap/db")).unwrap();
    *database = rewritten(std::mem::take(database), |tables| {
        tables.get_mut(&b"meta"[..]).unwrap().insert(b"consistent_index".to_vec(), vec![0; 8]);
    });
    let disk = case.in_memory();
    let error = |disk: &MemoryDisk| boot_in_memory(disk, &MemoryStores::default()).err().unwrap().to_string();
    assert_eq!(error(&disk), "d/member/snap/db: the store ends at index 0, before the log's newest mark at 1");
    assert_untouched(&case, &disk);
    // Where it is, it counts, whatever the other one holds.
    let sent = Path::new("d/member/snap/0000000000000001.snap.db");
    disk.put(sent, b"sent".to_vec());
    assert!(error(&disk).starts_with("d/member/snap/0000000000000001.snap.db is damaged at byte 0: "));
    assert_untouched(&case, &disk);
    let whole = Case::named("restored");
    disk.put(sent, whole.files[Path::new("member/snap/db")].clone());
    check(&whole, &live_on(boot_in_memory(&disk, &MemoryStores::default()).unwrap()));
    assert_eq!(names(&disk, "d/member/snap").iter().filter(|name| name.starts_with("db")).count(), 1);
}

/// One of several goes on as that one: it has its vote, and waits for the others'.
#[test]
fn a_member_of_several_is_one_of_several_and_a_removed_one_is_none() {
    let with_row = |table: &'static str, key: Vec<u8>, value: &'static str| {
        let mut case = Case::named("restored");
        let database = case.files.get_mut(Path::new("member/snap/db")).unwrap();
        *database = rewritten(std::mem::take(database), |tables| {
            tables.entry(table.into()).or_default().insert(key, value.into());
        });
        case
    };
    for (member, voters, learners) in [
        (r#"{"id":1,"peerURLs":["http://h:1"]}"#, 2, 0),
        (r#"{"id":1,"peerURLs":["http://h:1"],"isLearner":true}"#, 1, 1),
    ] {
        let case = with_row("members", b"1".to_vec(), member);
        let booted = boot_in_memory(&case.in_memory(), &MemoryStores::default()).unwrap();
        let configuration = booted.raft.configuration();
        assert_eq!((configuration.voters.len(), configuration.learners.len()), (voters, learners), "{member}");
        check(&case, &booted.store);
    }
    let own = boot_in_memory(&Case::named("restored").in_memory(), &MemoryStores::default()).unwrap().raft.id();
    let case = with_row("members_removed", own.to_string().into_bytes(), "removed");
    let disk = case.in_memory();
    let error = boot_in_memory(&disk, &MemoryStores::default()).err().unwrap();
    assert!(matches!(&error, BootError::Refused(_)), "{error}");
    assert!(error.to_string().starts_with("the member has been permanently removed from the cluster"), "{error}");
    assert_untouched(&case, &disk);
}

/// A cluster whose machines are replaced all the time has removed many.
#[test]
fn a_cluster_that_removed_thousands_is_imported() {
    let removed = |count: u64| {
        move |tables: &mut Tables| {
            let rows = (1..=count).map(|id| (MemberId(id).to_string().into_bytes(), b"removed".to_vec()));
            tables.entry(b"members_removed".to_vec()).or_default().extend(rows);
        }
    };
    let mut case = Case::named("restored");
    let database = case.files.get_mut(Path::new("member/snap/db")).unwrap();
    *database = rewritten(std::mem::take(database), removed(5_000));
    let booted = boot_in_memory(&case.in_memory(), &MemoryStores::default()).unwrap();
    assert_eq!(booted.store.membership().removed().len(), 5_000);
    check(&case, &booted.store);
    let text = failure_with_rows(removed(100_001));
    assert_eq!(text, "d/member/snap/db: more than 100000 rows in table members_removed");
    let text = failure_with_rows(|tables| {
        let rows = (1..=1_000_u32).map(|key| (key.to_be_bytes().to_vec(), Vec::new()));
        tables.get_mut(&b"meta"[..]).unwrap().extend(rows);
    });
    assert_eq!(text, "d/member/snap/db: more than 1000 rows in table meta");
}

#[test]
fn a_failing_disk_ends_an_import_and_the_next_start_begins_again() {
    let case = Case::named("restored");
    let disk = case.in_memory();
    disk.fail_syncs(1);
    let failed = boot_in_memory(&disk, &MemoryStores::default()).err().unwrap();
    assert!(failed.to_string().starts_with("cannot write d/member/lmdb.tmp: "), "{failed}");
    assert!(disk.bytes(Path::new("d/member/snap/db")).is_some() && names(&disk, "d/member/lmdb").is_empty());
    check(&case, &live_on(boot_in_memory(&disk, &MemoryStores::default()).unwrap()));
}

/// Whichever page is broken: told, or not part of what is read.
#[test]
fn a_broken_page_is_told_before_anything_is_named() {
    let pages = Case::named("restored").files[Path::new("member/snap/db")].len() / 4096;
    let mut told = 0;
    for page in 2..pages {
        let mut case = Case::named("restored");
        let db = case.files.get_mut(Path::new("member/snap/db")).unwrap();
        db[page * 4096..page * 4096 + 64].fill(0xee);
        let disk = case.in_memory();
        match boot_in_memory(&disk, &MemoryStores::default()) {
            Ok(booted) => check(&case, &live_on(booted)),
            Err(error) => {
                told += 1;
                assert!(matches!(error, BootError::Fault(Fault::Corrupt { .. })), "page {page}: {error}");
                assert_untouched(&case, &disk);
            }
        }
    }
    assert!(told >= 2);
}

#[test]
fn an_etcd_that_runs_keeps_us_out() {
    let case = Case::named("young");
    let disk = case.in_memory();
    let log = case.files.keys().find(|path| path.extension().is_some_and(|suffix| suffix == "wal")).unwrap();
    let held = ready(disk.open(&Path::new("d").join(log), Access::Write)).unwrap();
    ready(detcd_io::disk::File::lock(&held)).unwrap();
    let Err(error) = boot_in_memory(&disk, &MemoryStores::default()) else { panic!("it starts") };
    assert_eq!(error.to_string(), format!("d/{} is locked by another process", log.display()));
    assert_untouched(&case, &disk);
}

/// Between two starts of ours an etcd ran: the store is of an earlier state of the database.
#[test]
fn an_unfinished_import_of_an_earlier_state_is_not_finished() {
    let case = Case::named("restored");
    let disk = case.in_memory();
    disk.put(Path::new("d/member/lmdb/data.mdb"), b"store in memory 0".to_vec());
    disk.put(Path::new("d/member/lmdb/importing"), b"transaction 1 with 2 pages, applied 3\n".to_vec());
    let Err(error) = boot_in_memory(&disk, &MemoryStores::default()) else { panic!("it starts") };
    assert_eq!(
        error.to_string(),
        "d/member/lmdb: is an unfinished import of an earlier state of d/member/snap/db; move it away to import the database as it is now"
    );
    assert!(disk.bytes(Path::new("d/member/snap/db")).is_some());
}
