//! A member's directory as etcd's: what is in it, when there is none, and that it can be imported again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use detcd_ctl::export::{Exported, export};
use detcd_ctl::status::{Format, status};
use detcd_ctl::{database, now};
use detcd_io::boot::inspect::Places;
use detcd_io::disk::RealDisk;
use detcd_io::store::backend::{Backend as _, RawRow};
use detcd_io::store::buckets::Bucket;
use detcd_io::store::lmdb::Lmdb;

type Rows = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// All rows of a database file, by table and key.
fn rows(path: &Path) -> Rows {
    let mut rows = Rows::new();
    now(database::read(&RealDisk, path, &mut |table, key, value| {
        rows.insert((table.to_vec(), key.to_vec()), value.to_vec());
        Ok(())
    }))
    .unwrap();
    rows
}

/// A stopped member's directory with the rows of a database that etcd wrote, and its log.
fn member(root: &Path) -> Places {
    let places = Places::new(root.join("data"), None);
    for directory in [places.store(), places.snap(), places.wal_dir.clone()] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(places.lock(), b"").unwrap();
    let source = golden("etcd/restored/member");
    for part in ["wal", "snap"] {
        for entry in fs::read_dir(source.join(part)).unwrap().map(Result::unwrap) {
            if entry.file_name() != "db" {
                fs::copy(entry.path(), places.member().join(part).join(entry.file_name())).unwrap();
            }
        }
    }
    let loaded: Vec<RawRow> = rows(&source.join("snap/db"))
        .into_iter()
        .map(|((table, key), value)| {
            let bucket = Bucket::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == table).unwrap();
            RawRow { bucket, key: key.into(), value: Some(value.into()) }
        })
        .collect();
    now(Lmdb::open(&places.store()).unwrap().load(&loaded)).unwrap();
    places
}

fn error(places: &Places, output: &Path) -> String {
    now(export(places, output)).unwrap_err().to_string()
}

#[test]
fn an_export_has_every_row_and_file() {
    let root = tempfile::tempdir().unwrap();
    let (places, output) = (member(root.path()), root.path().join("deep/out"));
    let Exported { digest, applied, logs, snaps } = now(export(&places, &output)).unwrap();
    let source = golden("etcd/restored/member");
    assert_eq!(rows(&output.join("member/snap/db")), rows(&source.join("snap/db")));
    assert_eq!((applied, logs, snaps), (1, 1, 1));
    assert_eq!(digest.hash, now(status(&output.join("member/snap/db"))).unwrap().hash);
    for part in ["wal", "snap"] {
        for entry in fs::read_dir(places.member().join(part)).unwrap().map(Result::unwrap) {
            let copy = output.join("member").join(part).join(entry.file_name());
            assert_eq!(fs::read(copy).unwrap(), fs::read(entry.path()).unwrap());
        }
    }
    let names: Vec<_> = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["member"], "nothing is left over");
}

#[test]
fn what_may_not_be_exported_is_refused_and_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (places, output) = (member(root.path()), root.path().join("out"));
    fs::create_dir(&output).unwrap();
    fs::write(output.join("x"), b"").unwrap();
    assert_eq!(error(&places, &output), format!("{}: is not empty", output.display()));
    fs::remove_file(output.join("x")).unwrap();

    let inside = places.data_dir.join("out");
    assert_eq!(error(&places, &inside), format!("{}: lies in {}", inside.display(), places.data_dir.display()));
    assert!(!inside.exists());

    let elsewhere = Places::new(root.path().join("nothing"), None);
    assert!(error(&elsewhere, &output).ends_with("no member of detcd has run here"));
    fs::create_dir_all(elsewhere.snap()).unwrap();
    fs::write(elsewhere.etcd_store(), b"").unwrap();
    assert!(error(&elsewhere, &output).ends_with("it needs no export"));
    let log_apart = Places::new(places.data_dir.clone(), Some(root.path().join("log")));
    assert!(error(&log_apart, &output).ends_with("there is no log; is --wal-dir missing?"));
    fs::write(places.store().join("importing"), b"").unwrap();
    assert!(error(&places, &output).contains("is not finished; start the member once"));
    fs::remove_file(places.store().join("importing")).unwrap();
    fs::write(places.etcd_store(), b"").unwrap();
    assert!(error(&places, &output).contains("holds a database of etcd"));
    fs::remove_file(places.etcd_store()).unwrap();
    // A store that is behind the log's mark: etcd would not start on it.
    let applied = RawRow {
        bucket: Bucket::Meta,
        key: detcd_io::store::buckets::APPLIED_INDEX.into(),
        value: Some(vec![0; 8].into()),
    };
    let behind = Places::new(root.path().join("behind"), None);
    fs::create_dir_all(behind.store()).unwrap();
    fs::create_dir_all(behind.snap()).unwrap();
    fs::write(behind.lock(), b"").unwrap();
    now(Lmdb::open(&behind.store()).unwrap().load(&[applied])).unwrap();
    let behind = Places { wal_dir: places.wal_dir.clone(), ..behind };
    assert!(error(&behind, &output).contains("ends at entry 0, before the log's newest mark at 1"));

    assert_eq!(fs::read_dir(&output).unwrap().count(), 0);
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (places, output) = (member(root.path()), root.path().join("out"));
    // A directory where a file is to be copied.
    fs::create_dir(places.snap().join("0000000000000009-0000000000000009.snap")).unwrap();
    assert!(error(&places, &output).contains("0000000000000009.snap"));
    assert_eq!(fs::read_dir(&output).unwrap().count(), 0);
}

/// What the real etcdutl 3.7.3 prints of the same files.
#[test]
fn a_status_is_printed_as_etcdutl_prints_it() {
    let mixed = now(status(&golden("bbolt/mixed.db"))).unwrap();
    assert_eq!(mixed.text(Format::Simple), "8a441bc7, 67, 52, 61 kB, 3.7.0\n");
    assert_eq!(
        mixed.text(Format::Json),
        "{\"hash\":2319719367,\"revision\":67,\"totalKey\":52,\"totalSize\":61440,\"version\":\"3.7.0\"}\n"
    );
    assert_eq!(
        mixed.text(Format::Fields),
        "\"Hash\" : 2319719367\n\"Revision\" : 67\n\"Keys\" : 52\n\"Size\" : 61440\n\"Version\" : 3.7.0\n"
    );
    let table = "\
┌──────────┬──────────┬────────────┬────────────┬─────────┐
│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │
├──────────┼──────────┼────────────┼────────────┼─────────┤
│ 8a441bc7 │       67 │         52 │      61 kB │   3.7.0 │
└──────────┴──────────┴────────────┴────────────┴─────────┘
";
    assert_eq!(mixed.text(Format::Table), table);
    assert_eq!(
        now(status(&golden("etcd/restored/member/snap/db"))).unwrap().text(Format::Simple),
        "3b6cb08f, 24, 14, 25 kB, 3.7.0\n"
    );
}
