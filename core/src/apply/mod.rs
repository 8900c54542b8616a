//! The one door between the log and the store: a view and a command in, an outcome out.
//!
//! Every member runs this same code for every committed entry, whether it leads, follows or replays its log. An outcome
//! is data: the reply, the rows to write, the events to tell. The shell puts the writes and the applied index into one
//! transaction of the store. Invariants: apply is a function of the view and the command; a command that is not finished
//! has changed nothing; one that this version cannot carry out stops the member instead of being skipped.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::alarm::Alarm;
use crate::command::{Command, CompactionRequest, DowngradeInfoSetRequest, PutRequest, TxnRequest};
use crate::ids::{LeaseId, MemberId, Revision};
use crate::lease::LeaseRow;
use crate::membership::{ConfChange, Downgrade, Member, Version};
use crate::mvcc::delete::DeleteRun;
use crate::mvcc::draft::{Draft, Reread};
use crate::mvcc::txn::TxnRun;
use crate::mvcc::{KeyValue, ReadPoint, View, put};
use crate::reply::{RangeAt, Rejected, Reply};

mod alarm;
mod lease;
mod member;

pub use member::conf_change;

use lease::RevokeRun;

/// What applying one command comes to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Outcome {
    /// The answer, the same on every member.
    pub reply: Result<Reply, Rejected>,
    /// What changes in the store, in order. Rows and tombstones come in the order of their revisions.
    pub writes: Vec<Write>,
    /// What watchers learn, in order: one event for each row or tombstone.
    pub events: Vec<Event>,
}

/// One change of the store.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Write {
    /// A key has a new row.
    Row {
        /// Where.
        revision: Revision,
        /// What.
        kv: KeyValue,
    },
    /// A key is gone.
    Tombstone {
        /// Where.
        revision: Revision,
        /// Which.
        key: Bytes,
    },
    /// A member is new or has changed.
    Member(Member),
    /// A member has left for good.
    MemberRemoved(MemberId),
    /// The version that all members speak.
    ClusterVersion(Version),
    /// The cluster sets out for an older version, or gives that up.
    Downgrade(Downgrade),
    /// History before this revision is no longer readable, and its rows may be removed.
    Compacted(i64),
    /// An alarm is raised.
    AlarmRaised(Alarm),
    /// An alarm is lowered.
    AlarmLowered(Alarm),
    /// A lease is new, or has less left.
    Lease(LeaseRow),
    /// A lease is gone. Its keys went before it, in the same outcome.
    LeaseRemoved(LeaseId),
}

/// A change of one key. Its row or tombstone is the write with the same revision.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub revision: Revision,
    /// The row that held the key before the command.
    pub prev: Option<Revision>,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// How far an application has come.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Step {
    /// Advance it again; nothing is visible yet.
    More,
    /// It is done.
    Done(Outcome),
    /// This version cannot carry the command out: the member must stop. The text names it.
    Unbuilt(&'static str),
}

/// One command being applied. Between its slices the view must not change.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Application {
    task: Task,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Task {
    Begun(Command),
    Once(Command),
    ConfChange(ConfChange),
    Delete(DeleteRun, Option<Draft>),
    Txn(Box<TxnRun>, Option<Draft>),
    Revoke(RevokeRun, Option<Draft>),
    Finished,
}

impl Application {
    /// Begins to apply a command; nothing is looked at yet.
    #[must_use]
    pub fn begin(command: Command) -> Self {
        Self { task: Task::Begun(command) }
    }

    /// Begins a transaction that only reads, outside the log: no alarm forbids it.
    #[must_use]
    pub fn begin_read(request: TxnRequest) -> Self {
        assert!(request.is_read_only(), "what writes goes through the log");
        Self { task: Task::of(Command::Txn(request)) }
    }

    /// Begins to apply a membership change.
    #[must_use]
    pub const fn begin_conf_change(change: ConfChange) -> Self {
        Self { task: Task::ConfChange(change) }
    }

    /// Works on up to `budget` keys or operations. Must not be called again once it is done.
    pub fn advance<V: View>(&mut self, view: &V, mut budget: usize) -> Result<Step, V::Fault> {
        assert!(0 < budget, "a step without budget would never end");
        if let Task::Begun(command) = &mut self.task {
            if let Some(why) = alarm::refuse(view.alarms(), command) {
                self.task = Task::Finished;
                return Ok(Step::refuse(why));
            }
            let command = core::mem::replace(command, Command::DowngradeVersionTest(Default::default()));
            self.task = Task::of(command);
        }
        match &mut self.task {
            Task::Delete(run, draft) => {
                let draft = draft.get_or_insert_with(|| Draft::new(view, Reread::Never));
                let Some(reply) = run.advance(view, draft, &mut budget) else {
                    return Ok(Step::More);
                };
                Ok(self.finish(Ok(Reply::DeleteRange(reply))))
            }
            Task::Txn(run, draft) => {
                let draft = draft.get_or_insert_with(|| Draft::new(view, Reread::Later));
                let Some(reply) = run.advance(view, draft, &mut budget)? else {
                    return Ok(Step::More);
                };
                Ok(self.finish(reply.map(Reply::Txn)))
            }
            Task::Revoke(run, draft) => {
                let draft = draft.get_or_insert_with(|| Draft::new(view, Reread::Never));
                let Some(reply) = run.advance(view, draft, &mut budget) else {
                    return Ok(Step::More);
                };
                Ok(self.finish(reply))
            }
            Task::Once(_) | Task::ConfChange(_) => match core::mem::replace(&mut self.task, Task::Finished) {
                Task::Once(command) => apply_once(view, command),
                Task::ConfChange(change) => Ok(conf_change(view.membership(), change)),
                Task::Begun(_) | Task::Delete(..) | Task::Txn(..) | Task::Revoke(..) | Task::Finished => {
                    unreachable!("just matched")
                }
            },
            Task::Begun(_) => unreachable!("begun above"),
            Task::Finished => unreachable!("an application that is done is advanced no more"),
        }
    }

    /// Hands out the draft, or drops it if the command was refused.
    fn finish(&mut self, reply: Result<Reply, Rejected>) -> Step {
        let (draft, revoked) = match core::mem::replace(&mut self.task, Task::Finished) {
            Task::Delete(_, draft) | Task::Txn(_, draft) => (draft, None),
            Task::Revoke(run, draft) => (draft, Some(run.id())),
            Task::Begun(_) | Task::Once(_) | Task::ConfChange(_) | Task::Finished => {
                unreachable!("only tasks in slices have a draft")
            }
        };
        let draft = draft.expect("an advanced task has its draft");
        let mut outcome = outcome(draft, reply);
        if outcome.reply.is_ok() {
            outcome.writes.extend(revoked.map(Write::LeaseRemoved));
        }
        Step::Done(outcome)
    }
}

impl Task {
    fn of(command: Command) -> Self {
        match command {
            Command::DeleteRange(request) => Self::Delete(DeleteRun::new(&request), None),
            Command::Txn(request) => Self::Txn(Box::new(TxnRun::new(request)), None),
            Command::LeaseRevoke(request) => Self::Revoke(RevokeRun::new(&request), None),
            command => Self::Once(command),
        }
    }
}

/// Carries out a command that touches a bounded number of keys.
fn apply_once<V: View>(view: &V, command: Command) -> Result<Step, V::Fault> {
    Ok(match command {
        Command::Put(request) => apply_put(view, &request)?,
        Command::Range(request) => {
            let read = RangeAt { request, point: ReadPoint::now(view) };
            Step::answer(Reply::Range(read.into()))
        }
        Command::ClusterVersionSet(request) => Step::wrote(Reply::Empty, Write::ClusterVersion(request.version)),
        Command::ClusterMemberAttrSet(request) => member::attributes(view.membership(), request),
        Command::DowngradeVersionTest(_) => Step::answer(Reply::Empty),
        Command::Compaction(request) => compact(view, &request),
        Command::LeaseGrant(request) => lease::grant(view, &request),
        Command::LeaseCheckpoint(request) => lease::checkpoint(view, &request),
        Command::Alarm(request) => alarm::apply(view.alarms(), &request),
        Command::Auth(_) => Step::Unbuilt("authentication"),
        Command::DowngradeInfoSet(request) => downgrade(request),
        Command::DeleteRange(_) | Command::Txn(_) | Command::LeaseRevoke(_) => {
            unreachable!("these are worked off in slices")
        }
    })
}

fn downgrade(request: DowngradeInfoSetRequest) -> Step {
    let DowngradeInfoSetRequest { enabled, version } = request;
    let target = if enabled { version } else { String::new() };
    Step::wrote(Reply::Empty, Write::Downgrade(Downgrade { enabled, target }))
}

fn compact(view: &impl View, request: &CompactionRequest) -> Step {
    if request.revision <= view.compacted() {
        return Step::refuse(Rejected::Compacted);
    }
    if request.revision > view.current() {
        return Step::refuse(Rejected::FutureRevision);
    }
    Step::wrote(Reply::Empty, Write::Compacted(request.revision))
}

fn apply_put<V: View>(view: &V, request: &PutRequest) -> Result<Step, V::Fault> {
    let mut draft = Draft::new(view, Reread::Never);
    let reply = put::run_alone(view, &mut draft, request)?;
    Ok(Step::Done(outcome(draft, reply.map(Reply::Put))))
}

fn outcome(draft: Draft, reply: Result<Reply, Rejected>) -> Outcome {
    if reply.is_err() {
        return Outcome { reply, writes: Vec::new(), events: Vec::new() };
    }
    let (writes, events) = draft.finish();
    assert_eq!(writes.len(), events.len(), "each change is told");
    Outcome { reply, writes, events }
}

impl Step {
    const fn answer(reply: Reply) -> Self {
        Self::Done(Outcome { reply: Ok(reply), writes: Vec::new(), events: Vec::new() })
    }

    const fn refuse(rejected: Rejected) -> Self {
        Self::Done(Outcome { reply: Err(rejected), writes: Vec::new(), events: Vec::new() })
    }

    fn wrote(reply: Reply, write: Write) -> Self {
        Self::Done(Outcome { reply: Ok(reply), writes: alloc::vec![write], events: Vec::new() })
    }
}
