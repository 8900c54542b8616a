//! The directories that etcd wrote, and a start on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use detcd_core::ids::MemberId;
use detcd_core::mvcc::index::Gathering;
use detcd_core::raft::Config;
use detcd_io::boot::asked::{Asked, ClusterState, Recovery};
use detcd_io::boot::execute::Start;
use detcd_io::boot::inspect::Places;
use detcd_io::boot::machine::Machine;
use detcd_io::disk::MemoryDisk;
use detcd_io::store::leases::LeaseRules;

/// A directory of etcd's.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) expect: Expect,
}

/// What etcd answers on it, or what we say.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Expect {
    pub(crate) refused: String,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) hashes: Option<BTreeMap<String, u32>>,
    pub(crate) keys: usize,
    pub(crate) leases: usize,
    pub(crate) alarms: usize,
}

/// All of them, by name.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/etcd");
    let mut directories: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    directories.iter().map(|directory| Case::read(directory)).collect()
}

impl Case {
    fn read(directory: &Path) -> Self {
        let expect = serde_json::from_slice(&fs::read(directory.join("expect.json")).unwrap()).unwrap();
        let mut files = BTreeMap::new();
        for part in ["wal", "snap"] {
            for entry in fs::read_dir(directory.join("member").join(part)).unwrap() {
                let path = entry.unwrap().path();
                files.insert(path.strip_prefix(directory).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
        Self { name: directory.file_name().unwrap().to_str().unwrap().to_owned(), files, expect }
    }

    /// The case with this name.
    pub(crate) fn named(name: &str) -> Self {
        cases().into_iter().find(|case| case.name == name).unwrap()
    }

    /// The directory on a disk in memory, as `d`.
    pub(crate) fn in_memory(&self) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for (path, bytes) in &self.files {
            disk.put(&Path::new("d").join(path), bytes.clone());
        }
        disk
    }
}

/// A start on a data directory.
pub(crate) fn start(data_dir: &Path) -> Start {
    Start {
        places: Places::new(data_dir.to_owned(), None),
        asked: Asked {
            name: "a".to_owned(),
            initial_cluster: String::new(),
            token: String::new(),
            state: ClusterState::New,
            advertise_peer_urls: Vec::new(),
            learners_max: 1,
            recovery: Recovery::Ordinary,
            others: None,
            resolved: BTreeMap::new(),
        },
        machine: Machine { arch: "amd64".to_owned(), unsupported_arch: None, fd_limit: 1024 },
        segment_bytes: 16_384,
        raft: Config::new(MemberId(0)),
        leases: LeaseRules::new(Duration::from_millis(100), 10),
        gathered_rows_max: Gathering::ROWS_MAX,
    }
}
