//! Any requests, applied by the engine in slices and by the slow twin at once.
//!
//! An input is a pace and either the requests of a log, framed, or choices ([`super::drawn`]): the first reach what no choice
//! does, the second go deep. A request that the door refuses is applied too, without being carried out: it may come to anything but a panic, since
//! another member's log may hold it. After every other one the answer, the changes and the whole state are the twin's; at
//! the end every revision that is still readable is. In the middle and at the end the store starts anew, from its rows alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::apply::{Application, Outcome, Step, Write};
use detcd_core::command::{Command, RangeRequest, TxnRequest};
use detcd_core::ids::{LeaseId, MemberId, Revision};
use detcd_core::lease::{LeaseRow, LeaseTable};
use detcd_core::membership::{Member, Membership};
use detcd_core::mvcc::hash::RowKind;
use detcd_core::mvcc::index::{Gathering, RowFacts};
use detcd_core::mvcc::{KeyValue, ReadPoint, View, validate};
use detcd_core::reply::{OpReply, Rejected, Reply, TxnReply};

use super::drawn::Draw;
use super::slow_txn::{Told, changes, tell};
use super::store::{Slices, Store, advance_to_end, range};
use super::twin::{Answer, MEMBER, Twin};

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

/// In an input's first byte: choices follow, instead of framed requests. The other bits are the pace.
const DRAWN: u8 = 0x80;

/// An input that is this pace and these choices.
#[must_use]
pub fn drawn_input(pace: u8, choices: &[u8]) -> Vec<u8> {
    [&[pace | DRAWN], choices].concat()
}

/// Applies the requests of an input; `framed` reads the one way of writing them.
///
/// # Panics
/// If the engine and its slow twin differ.
pub fn play(input: &[u8], framed: impl FnOnce(&[u8]) -> (u8, Vec<Command>)) -> Tally {
    match input.split_first() {
        Some((first, choices)) if *first & DRAWN != 0 => {
            let mut draw = Draw::new(choices);
            run(*first & !DRAWN, |current| draw.command(current))
        }
        _ => {
            let (pace, commands) = framed(input);
            let mut commands = commands.into_iter();
            run(pace, |_| commands.next())
        }
    }
}

/// Applies the requests that `next` has for the present revision; `pace` chooses how large the slices are.
fn run(pace: u8, mut next: impl FnMut(i64) -> Option<Command>) -> Tally {
    let slices = [usize::from(pace % 7) + 1, usize::from(pace / 7 % 7) + 1, usize::from(pace) + 1];
    let mut pair = Pair::new(slices);
    let mut tally = Tally::default();
    for place in 0..REQUESTS_MAX {
        let Some(command) = next(pair.twin.history.current()) else { break };
        if place == usize::from(pace / 2) {
            pair.store = pair.restarted(usize::from(pace) + 1);
        }
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
    pair.store = pair.restarted(usize::from(pace) + 1);
    pair.compare_history();
    pair.compare_now();
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

/// The engine's store and the twin, which have applied the same.
struct Pair {
    store: Store,
    /// The rows that the store has for deleted keys.
    tombstones: BTreeMap<Revision, Bytes>,
    twin: Twin,
    /// The revisions, present and compacted, whose keys were compared; while they stand no key changes.
    compared: (i64, i64),
    slices: [usize; 3],
}

impl Pair {
    fn new(slices: [usize; 3]) -> Self {
        let member = Member { id: MEMBER, ..Member::default() };
        let membership = Membership::restore([member], [MemberId(0)], None).expect("one is there, one has left");
        let (store, twin) = (Store { membership, ..Store::default() }, Twin::default());
        Self { store, tombstones: BTreeMap::new(), twin, compared: (0, 0), slices }
    }

    /// Applies a request without carrying it out.
    fn try_only(&self, command: Command) {
        let _ = advance_to_end(&self.store, Application::begin(command), &self.slices);
    }

    /// A transaction that only reads is read outside the log, too, where no alarm forbids it.
    fn compare_read(&self, request: &TxnRequest) {
        let step = advance_to_end(&self.store, Application::begin_read(request.clone()), &self.slices);
        let Step::Done(outcome) = step else { panic!("{request:?} was read as {step:?}") };
        assert!(outcome.writes.is_empty() && outcome.events.is_empty(), "{request:?}");
        let (expected, ..) = self.twin.txn(request);
        assert_eq!(self.answer(&Command::Txn(request.clone()), outcome), expected.map(Answer::Told));
    }

    /// Applies a request on both sides and compares; whether it was accepted.
    fn apply(&mut self, command: Command) -> bool {
        if let Command::Txn(request) = &command
            && request.is_read_only()
        {
            self.compare_read(request);
        }
        let step = advance_to_end(&self.store, Application::begin(command.clone()), &self.slices);
        assert_eq!(matches!(step, Step::Unbuilt(_)), self.twin.stops(&command), "{command:?}");
        let Step::Done(outcome) = step else { return false };
        self.store.carry_out(&outcome);
        self.tombstones.extend(outcome.writes.iter().filter_map(|write| match write {
            Write::Tombstone { revision, key } => Some((*revision, key.clone())),
            _ => None,
        }));
        let (expected, expected_changes) = self.twin.apply(&command);
        assert_eq!(changes(&self.store, &outcome), expected_changes, "{command:?}");
        let accepted = outcome.reply.is_ok();
        assert_eq!(self.answer(&command, outcome), expected, "{command:?}");
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
            Reply::Alarms(listed) => Answer::Alarms(listed),
            Reply::Empty => Answer::Empty,
            reply => panic!("{command:?} was answered with {reply:?}"),
        })
    }

    /// Drops what a compaction leaves behind, in slices.
    fn sweep(&mut self, revision: i64) {
        let mut slices = Slices::new(&self.slices);
        let mut from = None;
        loop {
            let swept = self.store.index.compact(revision, from.as_deref(), slices.step());
            for (at, kind) in swept.dead {
                let (row, tombstone) = (self.store.rows.remove(&at), self.tombstones.remove(&at));
                assert_eq!(
                    (row.is_some(), tombstone.is_some()),
                    (kind == RowKind::Put, kind != RowKind::Put),
                    "{at:?}"
                );
            }
            from = swept.resume;
            if from.is_none() {
                return;
            }
        }
    }

    /// The keys, the alarms, the leases, what hangs on them, and what the cluster says of itself are the same.
    fn compare_now(&mut self) {
        let revisions = (self.store.current, self.store.compacted);
        assert_eq!(revisions, (self.twin.history.current(), self.twin.history.compacted));
        if self.compared != revisions {
            let all = self.store.range(&range("\0", "\0")).expect("the present is readable").kvs;
            assert_eq!(all, self.twin.state().values().cloned().collect::<Vec<_>>());
            self.compared = revisions;
        }
        let member = |member: &Member| (member.id, (member.name.clone(), member.client_urls.clone()));
        let members = self.store.membership.iter().map(member).collect();
        let (version, downgrade) = (self.store.membership.cluster_version(), self.store.membership.downgrade().clone());
        assert_eq!((members, version, downgrade), self.twin.cluster);
        assert_eq!(self.store.alarms.iter().collect::<Vec<_>>(), self.twin.alarms());
        let leases: BTreeMap<LeaseId, LeaseRow> = self.store.leases.rows().map(|row| (row.id, row)).collect();
        assert_eq!(leases, self.twin.leases);
        for id in leases.into_keys() {
            let keys = self.store.lease_keys(id, None, usize::MAX);
            assert_eq!(keys, self.twin.keys_of(id), "{id:?}");
        }
    }

    /// The store after a start: an index and what hangs on leases made from the rows alone, so many at a time.
    fn restarted(&self, rows_max: usize) -> Store {
        let puts = self.store.rows.iter().map(|(at, kv)| (*at, (&kv.key, Some(kv))));
        let tombstones = self.tombstones.iter().map(|(at, key)| (*at, (key, None)));
        let rows: BTreeMap<Revision, (&Bytes, Option<&KeyValue>)> = puts.chain(tombstones).collect();
        let mut gathering = Gathering::in_steps_of(rows_max);
        let mut leases = LeaseTable::default();
        self.store.leases.rows().for_each(|row| leases.on_write(&Write::Lease(row)));
        for (at, (key, kv)) in rows {
            let row = match kv {
                Some(kv) => {
                    leases.attach(key, kv.lease);
                    RowFacts::Put { key, created: kv.created, version: kv.version }
                }
                None => {
                    leases.detach(key);
                    RowFacts::Tombstone { key }
                }
            };
            gathering.add(at, row).expect("rows in order");
        }
        Store { index: gathering.finish().expect("rows in order"), leases, ..self.store.clone() }
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
