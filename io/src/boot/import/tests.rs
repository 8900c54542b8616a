//! A copy that is not what was read is refused, and so is a store that is not what its sender says.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::snapshot::Snapshot;
use detcd_core::raft::{Configuration, Mark};

use super::{receive, stage};
use crate::boot::execute::BootError;
use crate::boot::fuzz::input::what_is_asked;
use crate::boot::import::source::Source;
use crate::disk::MemoryDisk;
use crate::fault::Fault;
use crate::peer::snapshot_fuzz::described;
use crate::store::backend::{Backend, Committed, RawRow, Size, Slice, Visit};
use crate::store::batch::Batch;
use crate::store::buckets::Bucket;
use crate::store::memory::{MemoryBackend, MemoryFrozen};
use crate::wal::fuzz::ready;

const DATABASE: &str = "db";

/// What becomes of the last row of a transaction.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Nothing,
    TheRow,
    ItsValue,
}

/// A store in memory that does not keep what it was given, and says that it did.
#[derive(Clone)]
struct Losing(MemoryBackend, Loss);

impl Losing {
    fn new(loss: Loss) -> Self {
        Self(MemoryBackend::default(), loss)
    }
}

impl Backend for Losing {
    type Frozen = MemoryFrozen;

    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.0.get(bucket, key)
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        self.0.scan(slice, visit)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        self.0.commit(batch).await
    }

    async fn size(&self) -> Result<Size, Fault> {
        self.0.size().await
    }

    fn freeze(&self) -> Result<MemoryFrozen, Fault> {
        self.0.freeze()
    }

    async fn load(&self, rows: &[RawRow]) -> Result<Committed, Fault> {
        let mut rows: Vec<RawRow> =
            rows.iter().map(|row| RawRow { key: row.key.clone(), value: row.value.clone(), ..*row }).collect();
        match (self.1, rows.pop()) {
            (Loss::Nothing, Some(last)) => rows.push(last),
            (Loss::ItsValue, Some(last)) => rows.push(RawRow { value: Some(Bytes::from_static(b"?")), ..last }),
            (Loss::TheRow, _) | (_, None) => {}
        }
        self.0.load(&rows).await
    }

    async fn beside(&self) -> Result<Self, Fault> {
        Ok(Self::new(self.1))
    }

    async fn replace(&self, copy: Self) -> Result<(), Fault> {
        self.0.replace(copy.0).await
    }

    async fn detach(&self, copy: Self, to: &Path) -> Result<(), Fault> {
        self.0.detach(copy.0, to).await
    }

    async fn discard(&self, copy: Self) {
        self.0.discard(copy.0).await;
    }
}

/// A disk with a database that etcd wrote.
fn disk() -> MemoryDisk {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/etcd/young/member/snap/db");
    let disk = MemoryDisk::new();
    disk.put(Path::new(DATABASE), std::fs::read(path).expect("the corpus is there"));
    disk
}

#[test]
fn an_import_that_loses_something_is_refused() {
    let import = |loss: Loss| {
        let disk = disk();
        let source = ready(Source::open(&disk, DATABASE.into())).expect("a database");
        let open = |_: PathBuf| async move { Ok(Losing::new(loss)) };
        ready(stage(&disk, &what_is_asked(0), &source, &open))
    };
    assert!(import(Loss::Nothing).is_ok());
    for loss in [Loss::TheRow, Loss::ItsValue] {
        let Err(BootError::Fault(Fault::Unfit { cause, .. })) = import(loss) else { panic!("{loss:?} is not noticed") };
        assert!(cause.starts_with("the import does not hold what was read"), "{cause}");
    }
}

#[test]
fn a_store_that_was_sent_is_what_its_sender_says_or_is_refused() {
    let disk = disk();
    let told = |loss: Loss, snapshot: &Snapshot| {
        let taken = ready(receive(&disk, Path::new(DATABASE), &Losing::new(loss), what_is_asked(0).leases, snapshot));
        taken.map_err(|fault| match fault {
            Fault::Unfit { cause, .. } => cause,
            fault => panic!("{fault}"),
        })
    };
    let said = described(&disk.bytes(Path::new(DATABASE)).expect("it is there")).expect("a store");
    let Snapshot { mark, configuration } = said.clone();
    assert!(told(Loss::Nothing, &said).is_ok_and(|membership| Configuration::of(&membership) == configuration));
    for mark in [Mark::new(Index(mark.index.0 + 1), mark.term), Mark::new(mark.index, Term(mark.term.0 + 1))] {
        let cause = told(Loss::Nothing, &Snapshot { mark, ..said.clone() }).expect_err("it stands elsewhere");
        assert!(cause.ends_with(&format!("not at {mark}")), "{cause}");
    }
    let others = Snapshot { configuration: Configuration::of_voters([MemberId(7)]), ..said.clone() };
    let cause = told(Loss::Nothing, &others).expect_err("it has other members");
    assert!(cause.starts_with("its members are"), "{cause}");
    for loss in [Loss::TheRow, Loss::ItsValue] {
        assert_eq!(told(loss, &said).err().as_deref(), Some("what was copied is not what was read"), "{loss:?}");
    }
}
