//! Stores that leaders send: checked, made into a store of ours beside the present one, and put in its place by the next start.
//!
//! A received file becomes `member/lmdb.received-<index>-<term>`, whole and durable, before Raft hears of the snapshot. When the log's record of the snapshot is durable, the member
//! starts again, and boot renames the file into the store (`settle`). So an installation is nothing but a recovery: until the record is durable the file is an orphan that
//! boot throws away, from then on it is the store, whatever crashes in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::snapshot::Snapshot;
use detcd_core::raft::{Mark, Message};
use tokio::sync::{mpsc, oneshot};

use crate::boot::import::receive;
use crate::boot::inspect::Places;
use crate::disk::shrink::shrink;
use crate::disk::{Access, Disk, exists};
use crate::driver::Carried;
use crate::driver::ask::Gauges;
use crate::fault::Fault;
use crate::peer::SnapshotRefused;
use crate::snap;
use crate::store::backend::Backend;
use crate::store::leases::LeaseRules;
use crate::wal;

/// What a received store is called, up to its mark.
const PREFIX: &str = "lmdb.received-";

/// A file that was received, with the message that it came with.
#[derive(Debug)]
pub struct Received {
    /// The sender.
    pub from: MemberId,
    /// The message of the snapshot.
    pub message: Message,
    /// Where it stands.
    pub snapshot: Snapshot,
    /// The file.
    pub path: PathBuf,
    /// What the sender is told.
    pub answer: oneshot::Sender<Result<(), SnapshotRefused>>,
    /// Counts it among those under way.
    pub under_way: UnderWay,
}

/// A store that is being taken over. It is one as long as this is kept.
#[derive(Debug)]
pub struct UnderWay(Arc<Gauges>);

impl UnderWay {
    /// One more, counted in `gauges`.
    #[must_use]
    pub fn new(gauges: Arc<Gauges>) -> Self {
        gauges.counted().installing.fetch_add(1, Ordering::Relaxed);
        Self(gauges)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.counted().installing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the driver asks for.
#[derive(Debug)]
pub enum Job {
    /// Make a store of this file.
    Stage(Received),
    /// Remove a file that was received and is not wanted.
    Drop(PathBuf),
    /// Remove the store that was made of a file, which is not wanted after all.
    Forget(Mark),
}

/// A store that can take the present one's place.
#[derive(Debug)]
pub struct Staged {
    /// What it was made of; the file is gone.
    pub received: Received,
}

/// The task that makes stores of received files, one at a time. Its calls block.
pub struct Installer<B: Backend, D: Disk> {
    store: B,
    disk: D,
    places: Places,
    rules: LeaseRules,
    jobs: mpsc::Receiver<Job>,
    staged: mpsc::Sender<Carried>,
}

impl<B: Backend, D: Disk> Installer<B, D> {
    /// An installer beside `store`.
    pub fn new(
        store: B,
        disk: D,
        places: Places,
        rules: LeaseRules,
        (jobs, staged): (mpsc::Receiver<Job>, mpsc::Sender<Carried>),
    ) -> Self {
        Self { store, disk, places, rules, jobs, staged }
    }

    /// Works until nobody sends files any more.
    pub async fn run(mut self) {
        while let Some(job) = self.jobs.recv().await {
            match job {
                Job::Stage(received) => {
                    let made = self.stage(&received).await;
                    self.remove_large(&received.path).await;
                    match made {
                        Ok(()) => {
                            if self.staged.send(Carried::Staged(Staged { received })).await.is_err() {
                                return;
                            }
                        }
                        Err(fault) => {
                            tracing::error!(%fault, from = %received.from, "a snapshot cannot be taken over");
                            let _ = received.answer.send(Err(SnapshotRefused::Refused(fault.to_string())));
                        }
                    }
                }
                Job::Drop(path) => self.remove(&path).await,
                Job::Forget(mark) => self.remove(&file(&self.places, mark)).await,
            }
        }
    }

    /// Removes a file as large as a store bit by bit, so that nobody's sync waits for all of it.
    async fn remove_large(&self, path: &Path) {
        let emptied = async { shrink(self.disk.open(path, Access::Write).await?).await };
        if let Err(error) = emptied.await {
            tracing::warn!(%error, path = %path.display(), "cannot give back the room of a received store bit by bit");
        }
        self.remove(path).await;
    }

    /// Best effort: the next start removes what stays.
    async fn remove(&self, path: &Path) {
        if let Err(error) = self.disk.remove_file(path).await {
            tracing::warn!(%error, path = %path.display(), "cannot remove a received store");
        }
    }

    async fn stage(&self, received: &Received) -> Result<(), Fault> {
        let copy = self.store.beside().await?;
        match self.fill(&copy, received).await {
            Ok(()) => self.store.detach(copy, &file(&self.places, received.snapshot.mark)).await,
            Err(fault) => {
                self.store.discard(copy).await;
                Err(fault)
            }
        }
    }

    /// Makes `copy` the store that was received, and the `.snap` file that goes with it.
    async fn fill(&self, copy: &B, received: &Received) -> Result<(), Fault> {
        let Snapshot { mark, configuration } = &received.snapshot;
        let membership = receive(&self.disk, &received.path, copy, self.rules, &received.snapshot).await?;
        // Before the log's record of it, as in etcd: a record without its file would be worse than a file without a record.
        let conf_state = wal::entry::conf_state(configuration);
        let data = snap::membership::json(&membership).into();
        snap::save(&self.disk, &self.places.snap(), &snap::Snapshot { mark: *mark, conf_state, data }).await
    }
}

/// Where a received store waits.
fn file(places: &Places, mark: Mark) -> PathBuf {
    places.member().join(format!("{PREFIX}{:016x}-{:016x}", mark.index.0, mark.term.0))
}

fn parse(name: &str) -> Option<Mark> {
    let (index, term) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Mark::new(Index(number(index)?), Term(number(term)?)))
}

/// Puts a received store in the place of the present one if the log says that it counts, and removes those that do not. Nobody else uses the directory.
///
/// `takes_newest` is a known bug: the newest file counts, whatever the log says.
pub(crate) async fn settle<D: Disk>(disk: &D, places: &Places, takes_newest: bool) -> Result<(), Fault> {
    remove_unfinished(disk, &places.snap()).await?;
    let member = places.member();
    let names = disk.list(&member).await.map_err(Fault::disk("list", &member))?;
    let found = names.iter().filter_map(|name| parse(&name.to_string_lossy()));
    let found: Vec<Mark> = found.collect();
    let Some(oldest) = found.iter().map(|mark| mark.index).min() else { return Ok(()) };
    // A log that cannot be read is told of where it is opened, and until then nothing is thrown away; so no more of it is read than is needed there.
    let Ok(marks) = wal::marks_from(disk, &places.wal_dir, oldest).await else { return Ok(()) };
    let newest = if takes_newest { found.iter().max().copied() } else { marks.last().map(|marked| marked.mark) };
    for mark in found {
        let waiting = file(places, mark);
        if newest == Some(mark) {
            let store = places.store();
            disk.create_dir_all(&store).await.map_err(Fault::disk("create", &store))?;
            let home = store.join("data.mdb");
            disk.rename(&waiting, &home).await.map_err(Fault::disk("rename", &waiting))?;
            sync(disk, &store).await?;
            tracing::info!(index = mark.index.0, term = mark.term.0, "installed the store that a leader sent");
        } else {
            disk.remove_file(&waiting).await.map_err(Fault::disk("remove", &waiting))?;
        }
    }
    sync(disk, &member).await
}

/// Removes files whose receiving was cut short: nobody names them.
async fn remove_unfinished<D: Disk>(disk: &D, directory: &Path) -> Result<(), Fault> {
    if !exists(disk, directory).await.map_err(Fault::disk("look for", directory))? {
        return Ok(());
    }
    for name in disk.list(directory).await.map_err(Fault::disk("list", directory))? {
        let text = name.to_string_lossy();
        if text.starts_with("tmp.") && text.ends_with(".snap.db") {
            let path = directory.join(&name);
            disk.remove_file(&path).await.map_err(Fault::disk("remove", &path))?;
        }
    }
    Ok(())
}

async fn sync<D: Disk>(disk: &D, directory: &Path) -> Result<(), Fault> {
    disk.sync_dir(directory).await.map_err(Fault::disk("sync", directory))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use detcd_core::raft::{Configuration, HardState, Sync, Write};

    use super::*;
    use crate::disk::{MemoryDisk, write_whole};
    use crate::wal::{Metadata, NOTHING, Options, Wal};

    #[test]
    fn a_name_says_where_the_store_stands() {
        let places = Places::new(PathBuf::from("/d"), None);
        let mark = Mark::new(Index(0x12ab), Term(7));
        let path = file(&places, mark);
        assert_eq!(parse(path.file_name().unwrap().to_str().unwrap()), Some(mark));
        assert_eq!(parse("lmdb.received-12"), None);
        assert_eq!(parse("lmdb"), None);
    }

    /// A member whose log has the record of a snapshot at 10, and a received store at `index`.
    async fn member(index: u64) -> (MemoryDisk, Places, Mark) {
        let (disk, places) = (MemoryDisk::new(), Places::new(PathBuf::from("/d"), None));
        disk.create_dir_all(&places.member()).await.unwrap();
        let options = Options { segment_bytes: 4096, ..Options::new(places.wal_dir.clone()) };
        let metadata = Metadata { member: MemberId(7), cluster: 3 };
        let mut wal = Wal::create(disk.clone(), options, metadata, &NOTHING).await.unwrap();
        let mark = |index| Mark::new(Index(index), Term(2));
        let snapshot = Some(Snapshot { mark: mark(10), configuration: Configuration::of_voters([MemberId(7)]) });
        let hard_state = Some(HardState { term: Term(2), vote: None, commit: Index(10) });
        wal.append(&Write { snapshot, entries: Vec::new(), hard_state, sync: Sync::Required });
        wal.sync().await.unwrap();
        let received = file(&places, mark(index));
        let name = received.file_name().unwrap().to_str().unwrap().to_owned();
        write_whole(&disk, &places.member(), &name, &Bytes::from_static(b"the leader's")).await.unwrap();
        disk.create_dir_all(&places.store()).await.unwrap();
        write_whole(&disk, &places.store(), "data.mdb", &Bytes::from_static(b"the old one")).await.unwrap();
        (disk, places, mark(index))
    }

    #[tokio::test]
    async fn damage_in_a_file_that_no_start_reads_is_in_nobodys_way() {
        let (disk, places, mark) = member(10).await;
        let first = places.wal_dir.join("0000000000000000-0000000000000000.wal");
        let mut bytes = disk.bytes(&first).unwrap();
        // A second file that begins with the record, and a first one with nothing lawful.
        disk.put(&places.wal_dir.join("0000000000000001-000000000000000a.wal"), bytes.clone());
        bytes[30] ^= 1;
        disk.put(&first, bytes);
        assert!(wal::marks(&disk, &places.wal_dir).await.is_err());
        settle(&disk, &places, false).await.unwrap();
        assert!(!exists(&disk, &file(&places, mark)).await.unwrap());
        assert_eq!(disk.bytes(&places.store().join("data.mdb")).unwrap(), b"the leader's"[..]);
    }

    #[tokio::test]
    async fn what_the_log_names_takes_the_stores_place_and_what_it_does_not_goes() {
        for (index, store) in [(10, &b"the leader's"[..]), (11, b"the old one"), (9, b"the old one")] {
            let (disk, places, mark) = member(index).await;
            disk.create_dir_all(&places.snap()).await.unwrap();
            for name in ["tmp.0a.3.snap.db", "kept.snap"] {
                write_whole(&disk, &places.snap(), name, b"-").await.unwrap();
            }
            // Twice, as after a crash.
            for _ in 0..2 {
                settle(&disk, &places, false).await.unwrap();
                assert_eq!(disk.list(&places.snap()).await.unwrap(), ["kept.snap"]);
                assert!(!exists(&disk, &file(&places, mark)).await.unwrap(), "{index}");
                assert_eq!(disk.bytes(&places.store().join("data.mdb")).unwrap(), store, "{index}");
            }
        }
    }
}
