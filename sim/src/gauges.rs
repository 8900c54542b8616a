//! What the member's queues and caches hold, read at every few milliseconds of its life: the fullest that each has been.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use detcd_server::member::Member;

use crate::cluster::net::Net;
use crate::record::Recorder;
use crate::store::SimBackend;

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The most that was ever there, over all lives of the member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fullest {
    /// Changes applied and not yet durable.
    pub overlay_operations: usize,
    /// Their bytes.
    pub overlay_bytes: usize,
    /// Bytes of recent revisions that are kept for watchers.
    pub recent_bytes: usize,
    /// Bytes that wait on one watch stream, one message alone apart.
    pub outbox_bytes: u64,
    /// Messages that wait on one watch stream, answers apart.
    pub outbox_messages: u64,
    /// Rows of the history that were read at once.
    pub rows_at_once: usize,
}

/// A record that all lives share.
#[derive(Clone)]
pub struct Gauges {
    fullest: Arc<Mutex<Fullest>>,
    /// Who is told which size the member goes by.
    recorder: Recorder,
}

impl Gauges {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self { fullest: Arc::default(), recorder }
    }

    /// What was seen so far.
    #[must_use]
    pub fn fullest(&self) -> Fullest {
        *self.lock()
    }

    /// Looks again and again at a member that is alone. Ends with its node.
    pub async fn watch(self, member: Member<SimBackend>) {
        loop {
            self.look(&member);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks again and again at whoever is there, by the gauges of their places.
    pub async fn watch_all(all: Vec<Self>, net: Net) {
        loop {
            net.visit(|place, member| all[place].look(member));
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn look(&self, member: &Member<SimBackend>) {
        self.recorder.told(member.store().size().allocated);
        let (operations, bytes) = member.store().pending();
        let (recent, counts) = (member.store().recent_bytes(), member.fanout().counts());
        let mut fullest = self.lock();
        fullest.overlay_operations = fullest.overlay_operations.max(operations);
        fullest.overlay_bytes = fullest.overlay_bytes.max(bytes);
        fullest.recent_bytes = fullest.recent_bytes.max(recent);
        fullest.outbox_bytes = fullest.outbox_bytes.max(counts.fullest_bytes.load(Ordering::Relaxed));
        fullest.outbox_messages = fullest.outbox_messages.max(counts.fullest_messages.load(Ordering::Relaxed));
    }

    fn lock(&self) -> MutexGuard<'_, Fullest> {
        self.fullest.lock().expect("a panic ends the run")
    }
}
