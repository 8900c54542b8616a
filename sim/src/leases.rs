//! What a run leaves about leases: what was done with each, when, and what disturbed the member meanwhile.
//!
//! Other than in the history of keys, time counts here: every moment is virtual time since the beginning of the run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

/// What a client did with a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Did {
    /// Created it, for so many seconds.
    Grant(i64),
    /// Renewed it.
    Renew,
    /// Asked what it has left.
    Look,
    /// Looked for it in the list of all.
    List,
    /// Ended it.
    Revoke,
    /// Hung a key on it.
    Attach,
}

/// What it was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Saw {
    /// It is there, for so many seconds.
    Alive(i64),
    /// It was done.
    Done,
    /// There is no such lease.
    Gone,
    /// The client cannot know.
    Unknown,
}

/// One operation on one lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseOperation {
    /// Which lease.
    pub id: i64,
    /// What.
    pub did: Did,
    /// When it was sent.
    pub sent: Duration,
    /// When it ended.
    pub ended: Duration,
    /// How.
    pub saw: Saw,
}

/// What a look at a lease told besides the time that it has left.
#[derive(Clone, Debug)]
pub struct Look {
    /// Which lease.
    pub id: i64,
    /// The seconds that it was granted for.
    pub granted: i64,
    /// The keys that hang on it.
    pub keys: BTreeSet<Bytes>,
    /// A revision that its client knew of when it asked, and the one that it was told.
    pub revisions: (i64, i64),
}

/// A time from one moment to another.
pub type Span = (Duration, Duration);

/// Everything about leases.
#[derive(Clone, Debug, Default)]
pub struct LeaseHistory {
    /// What clients did, in the order of the ends.
    pub operations: Vec<LeaseOperation>,
    /// What looks told.
    pub looks: Vec<Look>,
    /// When the member served; of several, when one led.
    pub lives: Vec<Span>,
    /// Whether there are several.
    pub is_of_several: bool,
    /// When it was slow, out of room, or paused.
    pub troubles: Vec<Span>,
    pub(crate) life: Option<Duration>,
    /// Since when something has been wrong, and with whom.
    pub(crate) trouble: Option<Duration>,
    pub(crate) troubled: BTreeSet<usize>,
}

/// A history that clients and the world share.
#[derive(Clone, Default)]
pub struct LeaseRecorder {
    history: Arc<Mutex<LeaseHistory>>,
    /// Which of several members tells of itself.
    place: usize,
}

/// Virtual time since the beginning of the run.
#[must_use]
pub fn now() -> Duration {
    madsim::time::TimeHandle::current().elapsed()
}

impl LeaseRecorder {
    /// An operation that was sent at `sent` ended now.
    pub fn end(&self, id: i64, did: Did, sent: Duration, saw: Saw) {
        self.lock().operations.push(LeaseOperation { id, did, sent, ended: now(), saw });
    }

    /// A look was answered.
    pub fn looked(&self, look: Look) {
        self.lock().looks.push(look);
    }

    /// The member serves.
    pub fn up(&self) {
        self.lock().life = Some(now());
    }

    /// It serves no more.
    pub fn down(&self) {
        let mut history = self.lock();
        if let Some(up) = history.life.take() {
            history.lives.push((up, now()));
        }
    }

    /// The same history, for what happens to the member at this place, or between members.
    #[must_use]
    pub fn of_member(&self, place: usize) -> Self {
        Self { place, ..self.clone() }
    }

    /// Something is wrong with the machine from now on.
    pub fn trouble(&self) {
        let mut history = self.lock();
        history.troubled.insert(self.place);
        history.trouble.get_or_insert_with(now);
    }

    /// Nothing is, any more.
    pub fn relief(&self) {
        let mut history = self.lock();
        history.troubled.remove(&self.place);
        if !history.troubled.is_empty() {
            return;
        }
        if let Some(since) = history.trouble.take() {
            history.troubles.push((since, now()));
        }
    }

    /// What was recorded, the present life included.
    #[must_use]
    pub fn history(&self) -> LeaseHistory {
        let mut history = self.lock().clone();
        if let Some(up) = history.life {
            history.lives.push((up, now()));
        }
        history
    }

    fn lock(&self) -> MutexGuard<'_, LeaseHistory> {
        self.history.lock().expect("a panic ends the run")
    }
}
