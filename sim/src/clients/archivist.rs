//! Whoever looks after copies: defragments stores, now of this member, now of that one, and takes snapshots of them, while everybody else works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;

use super::link::Link;
use crate::options::{Options, chance};
use crate::record::{Operation, Recorder, Trace};
use crate::run::newest;

/// How long a defragmentation or a snapshot may take on a slow disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest time between two messages that an archivist leaves unread, in milliseconds.
const LINGERS_MILLIS_MAX: u64 = 30;

/// Bytes of the hash behind the file.
const HASH_BYTES: usize = 32;

/// A snapshot that was taken to its end.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The newest revision that was known to be there when it was asked for.
    pub known: i64,
    /// Its pieces, the hash at the end.
    pub pieces: Vec<pb::SnapshotResponse>,
}

/// All snapshots of a run. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Archive {
    /// The snapshots.
    pub fn taken(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client.
pub struct Archivist {
    link: Link,
    dice: Entropy,
    /// The mean of milliseconds between two of its deeds.
    millis: u64,
    archive: Archive,
    recorder: Recorder,
    trace: Trace,
}

impl Archivist {
    /// The archivist of a run.
    #[must_use]
    pub fn new(link: Link, options: &Options, archive: Archive, (recorder, trace): (Recorder, Trace)) -> Self {
        let dice = Entropy::seeded(options.seed ^ 0x6172_6368_6976);
        Self { link, dice, millis: options.load.upkeep_millis, archive, recorder, trace }
    }

    /// Works until it is told to end.
    pub async fn run(mut self, is_over: Arc<AtomicBool>) {
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.dice.draw(1, 2 * self.millis))).await;
            let places = self.link.places() as u64;
            if places > 1 {
                let place = self.dice.draw(0, places - 1);
                self.link.go_to(usize::try_from(place).expect("a cluster is small"));
            }
            if chance(&mut self.dice, 500) { self.defragment().await } else { self.snapshot().await }
        }
    }

    /// Each once.
    pub async fn run_once(mut self) {
        self.defragment().await;
        self.snapshot().await;
    }

    async fn defragment(&self) {
        let answered = tokio::time::timeout(PATIENCE, self.link.defragment(&pb::DefragmentRequest {})).await;
        self.trace.line(|| format!("archivist: defragment {answered:?}"));
    }

    async fn snapshot(&mut self) {
        let asked = self.recorder.history().events();
        let taken = tokio::time::timeout(PATIENCE, self.take()).await;
        self.trace.line(|| format!("archivist: snapshot {:?}", taken.as_ref().map(|t| t.as_ref().map(Vec::len))));
        if let Ok(Ok(pieces)) = taken {
            self.archive.taken().push(Taken { known: self.known(asked), pieces });
        }
    }

    /// What the member had answered anybody with before `asked`. One of several may have forgotten at a start what others still know.
    fn known(&self, asked: u64) -> i64 {
        let (history, place) = (self.recorder.history(), self.link.place());
        let is_alone = self.link.places() == 1;
        let begin = if is_alone { 0 } else { history.begin_of_life(place) };
        let counts = |told: &&Operation| told.place == place && begin < told.invoked && told.completed <= asked;
        history.operations.iter().filter(counts).map(newest).max().unwrap_or(1)
    }

    async fn take(&mut self) -> Result<Vec<pb::SnapshotResponse>, tonic::Status> {
        let mut stream = self.link.snapshot(&pb::SnapshotRequest {}).await?;
        let mut pieces = Vec::new();
        while let Some(piece) = stream.message().await? {
            pieces.push(piece);
            if chance(&mut self.dice, 200) {
                tokio::time::sleep(Duration::from_millis(self.dice.draw(0, LINGERS_MILLIS_MAX))).await;
            }
        }
        // Behind the door a stream ends without a word when the member does; a connection would break.
        let is_cut = pieces.last().is_none_or(|last| last.blob.len() != HASH_BYTES || last.remaining_bytes > 0);
        if is_cut && matches!(self.link, Link::Doors(_)) {
            return Err(tonic::Status::unavailable("the member is gone"));
        }
        Ok(pieces)
    }
}
