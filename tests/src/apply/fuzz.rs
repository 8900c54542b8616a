//! Any requests, applied by the engine in slices and by the slow twin at once.
//!
//! A request that the door refuses is applied too, without being carried out: it may come to anything but a panic, since
//! another member's log may hold it. After every other one the answer, the changes and the whole state are the twin's; at
//! the end every revision that is still readable is.

use std::collections::{BTreeMap, BTreeSet};

use detcd_core::apply::{Application, Outcome, Step};
use detcd_core::command::{
    Command, CompactionRequest, LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, Op, RangeRequest,
    TxnRequest,
};
use detcd_core::ids::LeaseId;
use detcd_core::lease::{LeaseRow, TTL_SECONDS_MAX};
use detcd_core::mvcc::hash::RowKind;
use detcd_core::mvcc::{ReadPoint, View, validate};
use detcd_core::reply::{LeaseGranted, OpReply, Rejected, Reply, TxnReply};

use super::slow::{History, State};
use super::slow_txn::{Change, Told, changes, slowly, tell};
use super::store::{Slices, Store, range};

/// So many requests of an input are applied; each keeps a copy of the whole state.
const REQUESTS_MAX: usize = 96;
/// etcd's default for operations in a transaction.
const TXN_OPS_MAX: usize = 128;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Requests that were carried out.
    pub applied: usize,
    /// Requests that the engine refused when they were applied.
    pub refused: usize,
    /// Requests that the door refused.
    pub turned_away: usize,
}

/// Applies requests; `pace` chooses how large the slices are.
///
/// # Panics
/// If the engine and its slow twin differ.
pub fn run(commands: impl IntoIterator<Item = Command>, pace: u8) -> Tally {
    let slices = [usize::from(pace % 7) + 1, usize::from(pace / 7 % 7) + 1, usize::from(pace) + 1];
    let mut pair = Pair { store: Store::default(), twin: Twin::default(), slices };
    let mut tally = Tally::default();
    for command in commands.into_iter().take(REQUESTS_MAX) {
        if turns_away(&command) {
            pair.try_only(command);
            tally.turned_away += 1;
        } else if pair.apply(command) {
            tally.applied += 1;
        } else {
            tally.refused += 1;
        }
        pair.compare_now();
    }
    pair.compare_history();
    tally
}

/// Whether the door refuses a request.
fn turns_away(command: &Command) -> bool {
    match command {
        Command::Range(request) => validate::range(request).is_err(),
        Command::Put(request) => validate::put(request).is_err(),
        Command::DeleteRange(request) => validate::delete_range(request).is_err(),
        Command::Txn(request) => validate::txn(request, TXN_OPS_MAX).is_err(),
        _ => false,
    }
}

/// What the twin says that a client is told.
#[derive(Debug, PartialEq)]
enum Answer {
    Empty,
    Told(Told),
    Granted(LeaseGranted),
    /// Not the twin's affair; no key changes.
    Any,
}

/// The engine's store and the twin, which have applied the same.
struct Pair {
    store: Store,
    twin: Twin,
    slices: [usize; 3],
}

impl Pair {
    /// Applies a request without carrying it out.
    fn try_only(&self, command: Command) {
        let mut application = Application::begin(command);
        let mut slices = Slices::new(&self.slices);
        while application.advance(&self.store, slices.step()).expect("every row is there") == Step::More {}
    }

    /// Applies a request on both sides and compares; whether it was accepted.
    fn apply(&mut self, command: Command) -> bool {
        let mut application = Application::begin(command.clone());
        let mut slices = Slices::new(&self.slices);
        let outcome = loop {
            match application.advance(&self.store, slices.step()).expect("every row is there") {
                Step::More => {}
                Step::Done(outcome) => break outcome,
                Step::Unbuilt(_) => return false,
            }
        };
        self.store.carry_out(&outcome);
        let (expected, expected_changes) = self.twin.apply(&command);
        assert_eq!(changes(&self.store, &outcome), expected_changes, "{command:?}");
        let accepted = outcome.reply.is_ok();
        match expected {
            Ok(Answer::Any) => {}
            expected => assert_eq!(self.answer(&command, outcome), expected, "{command:?}"),
        }
        if let (true, Command::Compaction(request)) = (accepted, command) {
            self.sweep(request.revision);
        }
        accepted
    }

    /// What a client is told, all rows read.
    fn answer(&self, command: &Command, outcome: Outcome) -> Result<Answer, Rejected> {
        let one = |reply| {
            let reply = TxnReply { revision: 0, succeeded: true, responses: vec![reply] };
            match tell(&self.store, &reply, &self.slices) {
                Told::Txn { mut responses, .. } => Answer::Told(responses.remove(0)),
                told => panic!("a transaction is told as {told:?}"),
            }
        };
        Ok(match outcome.reply? {
            // A range alone may ask for a revision that is not there: reading it says so.
            Reply::Range(read) => {
                let at = *read;
                Answer::Told(Told::Range(self.store.range_at(&at.request, &at.point, &self.slices)?))
            }
            Reply::Put(reply) => one(OpReply::Put(reply)),
            Reply::DeleteRange(reply) => one(OpReply::DeleteRange(reply)),
            Reply::Txn(reply) => Answer::Told(tell(&self.store, &reply, &self.slices)),
            Reply::LeaseGrant(granted) => Answer::Granted(granted),
            Reply::Empty => Answer::Empty,
            reply => panic!("{command:?} was answered with {reply:?}"),
        })
    }

    /// Drops what a compaction leaves behind, in slices.
    fn sweep(&mut self, revision: i64) {
        let mut slices = Slices::new(&self.slices);
        let mut after = None;
        loop {
            let swept = self.store.index.compact(revision, after.as_deref(), slices.step());
            for (at, kind) in swept.dead {
                let row = self.store.rows.remove(&at);
                assert_eq!(row.is_some(), kind == RowKind::Put, "{at:?}");
            }
            after = swept.resume;
            if after.is_none() {
                return;
            }
        }
    }

    /// The keys, the leases and what hangs on them are the same.
    fn compare_now(&self) {
        let state = self.twin.state();
        assert_eq!(self.store.current, self.twin.history.current());
        assert_eq!(self.store.compacted, self.twin.history.compacted);
        let all = self.store.range(&range("\0", "\0")).expect("the present is readable").kvs;
        assert_eq!(all, state.values().cloned().collect::<Vec<_>>());
        let leases: BTreeMap<LeaseId, LeaseRow> = self.store.leases.rows().map(|row| (row.id, row)).collect();
        assert_eq!(leases, self.twin.leases);
        for id in leases.into_keys() {
            let keys = self.store.lease_keys(id, None, usize::MAX);
            assert_eq!(keys, self.twin.keys_of(id), "{id:?}");
        }
    }

    /// Every revision that is still readable holds what it held.
    fn compare_history(&self) {
        let history = &self.twin.history;
        for revision in history.compacted.max(1)..=history.current() {
            let request = RangeRequest { revision, ..range("\0", "\0") };
            let reply = self.store.range_at(&request, &ReadPoint::now(&self.store), &self.slices);
            assert_eq!(reply, history.range(&request), "at revision {revision}");
        }
    }
}

/// The slow twin of a whole store.
struct Twin {
    history: History,
    leases: BTreeMap<LeaseId, LeaseRow>,
}

impl Default for Twin {
    fn default() -> Self {
        let leases = Store::default().leases.rows().map(|row| (row.id, row)).collect();
        Self { history: History::default(), leases }
    }
}

type Expected = (Result<Answer, Rejected>, Vec<Change>);

impl Twin {
    fn state(&self) -> &State {
        self.history.states.last().expect("a state")
    }

    fn keys_of(&self, id: LeaseId) -> Vec<bytes::Bytes> {
        self.state().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    fn apply(&mut self, command: &Command) -> Expected {
        match command {
            Command::Range(request) => {
                (self.history.range(request).map(|reply| Answer::Told(Told::Range(reply))), vec![])
            }
            Command::Put(request) => self.alone(Op::Put(request.clone())),
            Command::DeleteRange(request) => self.alone(Op::DeleteRange(request.clone())),
            Command::Txn(request) => {
                let (told, changed) = self.txn(request);
                (told.map(Answer::Told), changed)
            }
            Command::Compaction(request) => (self.compact(request), vec![]),
            Command::LeaseGrant(request) => (self.grant(request), vec![]),
            Command::LeaseCheckpoint(request) => {
                self.checkpoint(request);
                (Ok(Answer::Empty), vec![])
            }
            Command::LeaseRevoke(request) => self.revoke(request),
            _ => (Ok(Answer::Any), vec![]),
        }
    }

    fn txn(&mut self, request: &TxnRequest) -> (Result<Told, Rejected>, Vec<Change>) {
        let leases: BTreeSet<LeaseId> = self.leases.keys().copied().collect();
        let (told, changed, state) = slowly(&self.history, &leases, request);
        if !changed.is_empty() {
            self.history.states.push(state);
        }
        (told, changed)
    }

    /// One operation is a transaction of one.
    fn alone(&mut self, op: Op) -> Expected {
        let (told, changed) = self.txn(&TxnRequest { success: vec![op], ..TxnRequest::default() });
        let told = told.map(|told| match told {
            Told::Txn { mut responses, .. } => Answer::Told(responses.remove(0)),
            told => panic!("a transaction is told as {told:?}"),
        });
        (told, changed)
    }

    fn compact(&mut self, request: &CompactionRequest) -> Result<Answer, Rejected> {
        if request.revision <= self.history.compacted {
            return Err(Rejected::Compacted);
        }
        if request.revision > self.history.current() {
            return Err(Rejected::FutureRevision);
        }
        self.history.compacted = request.revision;
        Ok(Answer::Empty)
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Result<Answer, Rejected> {
        match request.id {
            LeaseId(0) => return Err(Rejected::LeaseNotFound),
            _ if request.ttl > TTL_SECONDS_MAX => return Err(Rejected::LeaseTtlTooLarge),
            id if self.leases.contains_key(&id) => return Err(Rejected::LeaseExists),
            _ => {}
        }
        let row = LeaseRow { id: request.id, ttl: request.ttl.max(Store::default().lease_ttl_min()), remaining: 0 };
        self.leases.insert(row.id, row);
        Ok(Answer::Granted(LeaseGranted { id: row.id, ttl: row.ttl }))
    }

    fn checkpoint(&mut self, request: &LeaseCheckpointRequest) {
        for each in &request.checkpoints {
            if let Some(row) = self.leases.get_mut(&each.id) {
                row.remaining = each.remaining_ttl;
            }
        }
    }

    fn revoke(&mut self, request: &LeaseRevokeRequest) -> Expected {
        if self.leases.remove(&request.id).is_none() {
            return (Err(Rejected::LeaseNotFound), vec![]);
        }
        let before = self.state().clone();
        let (mut state, mut changed) = (before.clone(), Vec::new());
        for key in self.keys_of(request.id) {
            state.remove(&key);
            changed.push((None, key.clone(), before.get(&key).cloned()));
        }
        if !changed.is_empty() {
            self.history.states.push(state);
        }
        (Ok(Answer::Empty), changed)
    }
}
