//! The machine under a member: its disk, its store, its power. It outlives the member.
//!
//! Every call that changes or waits for something has a running number, and one point – before or after one call – can be chosen for a crash. The
//! invariant: after a crash no task of the member runs another step and no call of it has another effect. Point reads and scans of the store are not
//! numbered: they change nothing, so a crash at one of them is a crash at the next call.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use detcd_io::entropy::Entropy;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use tokio::sync::Notify;

use crate::disk::image::{Image, Node};
use crate::record::{Recorder, Trace};
use crate::store::{Stores, Tables};

/// How a member ends without being asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crash {
    /// SIGKILL: the system keeps what was written.
    Kill,
    /// The power fails: the system keeps what was synced, and some of the rest.
    PowerCut,
}

/// Which side of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The call has no effect.
    Before,
    /// It has its effect, but nobody learns of it.
    After,
}

/// Which call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// The one with this number.
    Call(u64),
    /// The next rename: where a crash is rare by chance, and hurts most.
    Rename,
    /// The next one that gives a received store its name.
    Received,
    /// The next one that puts a received store in the place of the present one.
    Installed,
}

/// Where to crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CrashPoint {
    /// The call.
    pub at: At,
    /// Which side of it.
    pub side: Side,
    /// How.
    pub crash: Crash,
}

/// What is wrong with the machine at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trouble {
    /// Syncs of files that will fail.
    pub failing_syncs: u64,
    /// Bytes that the disk can hold, if it is short of room.
    pub room: Option<u64>,
    /// The longest a call may take, in milliseconds; a sync takes up to four times as long.
    pub slow_millis: u64,
    /// The longest that a commit of the store takes besides, in milliseconds.
    pub slow_commit_millis: u64,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// Reads and looks.
    Read,
    /// Changes that the system only remembers.
    Write,
    /// Waits for the disk.
    Sync,
    /// Makes a transaction of the store durable.
    Commit,
    /// Gives another name.
    Rename,
    /// Gives a received store its name.
    Receive,
    /// Puts a received store in the place of the present one.
    Install,
}

/// A machine. Clones share it.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Mutex<Inner>>,
    crashed: Arc<Notify>,
}

/// What the lock guards.
pub struct Inner {
    /// The files.
    pub image: Image,
    /// What the transactions of each store made durable.
    pub stores: Stores,
    /// What is wrong at the moment.
    pub trouble: Trouble,
    /// What is left to chance.
    pub dice: Dice,
    /// What happened.
    pub trace: Trace,
    /// What clients saw, and how large the store was then.
    pub recorder: Recorder,
    /// What is counted.
    pub counts: Counts,
    /// Counts the lives of the member; calls of an earlier one never return.
    life: u64,
    point: Option<CrashPoint>,
    node: Option<NodeId>,
    /// Troubles that the member met in this life: it may end with a fault.
    excuses: u64,
}

/// What happened how often on the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    calls: u64,
    handles: u64,
    /// The most rows of the history that were read at once.
    pub rows_at_once: usize,
}

/// What the machine leaves to chance.
pub struct Dice {
    /// Delays.
    pub delays: Entropy,
    /// What a power cut or a failed sync leaves; apart, so that a crash changes nothing before it.
    pub fate: Entropy,
}

/// One life of a member on the machine: what its disk and store are opened with.
#[derive(Clone)]
pub struct Life {
    machine: Machine,
    number: u64,
}

impl Machine {
    /// A machine with an empty disk whose dice are seeded.
    #[must_use]
    pub fn new(seed: u64, fate: u64, trace: Trace) -> Self {
        let inner = Inner {
            image: Image::default(),
            stores: Stores::default(),
            trouble: Trouble::default(),
            dice: Dice { delays: Entropy::seeded(seed), fate: Entropy::seeded(fate) },
            trace,
            recorder: Recorder::default(),
            counts: Counts::default(),
            life: 0,
            point: None,
            node: None,
            excuses: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), crashed: Arc::new(Notify::new()) }
    }

    /// Everything there is, for a look between two steps.
    pub fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a life on `node`.
    #[must_use]
    pub fn begin_life(&self, node: NodeId) -> Life {
        let mut inner = self.look();
        inner.life += 1;
        inner.node = Some(node);
        inner.excuses = 0;
        let number = inner.life;
        drop(inner);
        Life { machine: self.clone(), number }
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.look().counts.calls
    }

    /// Whether the member of this life met trouble that lets it end with a fault.
    #[must_use]
    pub fn has_excuse(&self) -> bool {
        self.look().excuses > 0
    }

    /// Chooses where to crash next.
    pub fn crash_at(&self, point: Option<CrashPoint>) {
        self.look().point = point;
    }

    /// Crashes now, if a member lives.
    pub fn crash(&self, crash: Crash) {
        self.strike(crash);
    }

    /// The same; says whether one lived.
    pub(crate) fn strike(&self, crash: Crash) -> bool {
        let mut inner = self.look();
        let Some(node) = inner.node.take() else { return false };
        inner.life += 1;
        inner.point = None;
        inner.trace.line(|| format!("crash: {crash:?}"));
        match crash {
            Crash::Kill => inner.image.end_process(),
            Crash::PowerCut => {
                let Inner { image, dice, .. } = &mut *inner;
                image.cut_power(&mut dice.fate);
            }
        }
        drop(inner);
        Handle::current().kill(node);
        self.crashed.notify_one();
        true
    }

    /// Another machine takes its place, with an empty disk. Nobody lives on it.
    pub fn replace(&self) {
        let mut inner = self.look();
        assert!(inner.node.is_none(), "nobody lives here");
        inner.trace.line(|| "replaced".to_owned());
        (inner.image, inner.stores) = (Image::default(), Stores::default());
        (inner.trouble.failing_syncs, inner.trouble.room) = (0, None);
    }

    /// The member ended by itself: its locks are free, nothing else changes.
    pub fn end_process(&self) {
        let mut inner = self.look();
        if inner.node.take().is_some() {
            inner.life += 1;
            inner.image.end_process();
        }
    }

    /// Waits for the next crash.
    pub async fn crashed(&self) {
        self.crashed.notified().await;
    }
}

impl Inner {
    /// The tables of the store that the next start will find.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        static EMPTY: Tables = Tables::new();
        match self.image.node(Path::new(crate::world::STORE_FILE)) {
            Ok(Node::File(inode)) => self.stores.get(&inode).unwrap_or(&EMPTY),
            _ => &EMPTY,
        }
    }

    /// A number for an open file.
    pub fn next_handle(&mut self) -> u64 {
        self.counts.handles += 1;
        self.counts.handles
    }

    /// Notes that the member meets trouble now.
    pub fn excuse(&mut self) {
        self.excuses += 1;
    }

    /// Whether files may take so many bytes more; if not, it is the error of a full disk.
    pub fn check_room(&mut self, more: u64) -> io::Result<()> {
        let Some(room) = self.trouble.room else { return Ok(()) };
        if self.image.used_bytes() + more <= room {
            return Ok(());
        }
        self.excuse();
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl Life {
    /// One call: its number, its delay, its effect, with the chosen crash before or after.
    pub async fn call<T>(&self, work: Work, name: impl FnOnce() -> String, effect: impl FnOnce(&mut Inner) -> T) -> T {
        let Some((number, millis)) = self.take_number(work, name) else { return std::future::pending().await };
        self.crash_if(work, number, Side::Before).await;
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        let Some(value) = self.while_alive(effect) else { return std::future::pending().await };
        self.crash_if(work, number, Side::After).await;
        value
    }

    /// Like [`Self::call`], for what sees only what was there when it began: `before` tells what that is.
    pub async fn sync<M, T>(
        &self,
        name: impl FnOnce() -> String,
        before: impl FnOnce(&mut Inner) -> M,
        effect: impl FnOnce(&mut Inner, M) -> T,
    ) -> T {
        let Some(mark) = self.while_alive(before) else { return std::future::pending().await };
        self.call(Work::Sync, name, |inner| effect(inner, mark)).await
    }

    fn while_alive<T>(&self, effect: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        let mut inner = self.machine.look();
        if inner.life == self.number { Some(effect(&mut inner)) } else { None }
    }

    /// A look without a number, for what must not wait.
    pub fn peek(&self) -> MutexGuard<'_, Inner> {
        self.machine.look()
    }

    /// Whether this life goes on.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.machine.look().life == self.number
    }

    /// The number of the next call and how long it takes. `None`: this life is over.
    fn take_number(&self, work: Work, name: impl FnOnce() -> String) -> Option<(u64, u64)> {
        self.while_alive(|inner| {
            inner.counts.calls += 1;
            let number = inner.counts.calls;
            let slow = inner.trouble.slow_millis;
            let millis = match work {
                Work::Sync | Work::Rename | Work::Receive | Work::Install => inner.dice.delays.draw(0, 1 + 4 * slow),
                Work::Commit => inner.dice.delays.draw(0, 1 + 4 * slow + inner.trouble.slow_commit_millis),
                Work::Read | Work::Write if slow > 0 => inner.dice.delays.draw(0, slow),
                Work::Read | Work::Write => 0,
            };
            inner.trace.note(&[number, work as u64, millis], || format!("call {number}: {}", name()));
            (number, millis)
        })
    }

    async fn crash_if(&self, work: Work, number: u64, side: Side) {
        let point = self.machine.look().point;
        let is_here = |at: At| match at {
            At::Call(call) => call == number,
            At::Rename => matches!(work, Work::Rename | Work::Receive | Work::Install),
            At::Received => work == Work::Receive,
            At::Installed => work == Work::Install,
        };
        if let Some(point) = point.filter(|point| is_here(point.at) && point.side == side) {
            self.machine.crash(point.crash);
            std::future::pending().await
        }
    }
}
