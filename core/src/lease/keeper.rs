//! The leader's clockwork: when each lease ends, which to revoke now, and what to remember of the time left.
//!
//! A value without a clock: every call is told the time, in milliseconds of one monotonic clock. It keeps three promises.
//!
//! - **Never early.** A lease is not revoked before its time to live has passed since the last renewal that was answered. A leader that was
//!   voted out may still answer for at most [`Pace::extension`] after the last proof that it leads, and a new leader adds as much to
//!   every lease; so no answer promises more than the new leader gives.
//! - **Late within bounds.** By at most one tick per [`Pace::revokes_max`] leases that end together; a change of leader adds at most the
//!   extension and the time since the last checkpoint, which is at most the smaller of time to live and checkpoint interval.
//! - **A renewal that waits goes first.** After a gap – a pause, a starved machine – renewals are waiting that could not be taken while
//!   the clock went on (etcd issue 15247). So nothing is revoked until leadership is proved anew and the renewals had their time.
//!
//! Invariant: a renewal is confirmed only while no checkpoint of the lease is stored or on its way, since that would outlive this leader.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::table::LeaseRow;
use crate::command::LeaseCheckpoint;
use crate::ids::{LeaseId, Term};

/// The durations and bounds of a keeper, durations in milliseconds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Pace {
    /// What a new leader adds to every lease, and how long a proof of leadership is good for: the election timeout.
    pub extension: u64,
    /// Two ticks that lie further apart than this have a gap between them.
    pub gap: u64,
    /// How long waiting renewals get after a gap.
    pub grace: u64,
    /// How long a lease is spared whose renewal waits for the log.
    pub hold: u64,
    /// How often the time left of a long lease is remembered.
    pub checkpoint_interval: u64,
    /// How long a revocation that may be in the log, or a checkpoint, waits to be asked for again.
    pub retry: u64,
    /// Revocations of one tick.
    pub revokes_max: usize,
    /// Checkpoints of one tick.
    pub checkpoints_max: usize,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<Mutant>,
}

/// Known bugs, for builds that prove the checkers can fail.
#[cfg(mutants)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mutant {
    /// Leases are revoked right after a gap, without a proof (etcd issue 15247).
    NoGrace,
    /// A leader renews leases without a proof that it still leads (etcd issue 15247).
    RenewedUnproved,
    /// A renewal does not clear what a checkpoint stored.
    RemainderKept,
    /// A new leader gives every lease its whole time to live again (etcd issues 9395 and 17132).
    RemainderForgotten,
    /// A lease that is being revoked is renewed (etcd issue 20590).
    EndingRenewed,
    /// A key stays attached when it is written without a lease. (Lives in the store.)
    AttachmentKept,
    /// A revocation holds in any term, whoever leads in it (etcd issue 15247). (Lives in the shell's keeper.)
    RevokedInAnyTerm,
}

macro_rules! mutated {
    ($pace:expr, $mutant:ident) => {{
        #[cfg(mutants)]
        let mutated = $pace.mutant == Some(Mutant::$mutant);
        #[cfg(not(mutants))]
        let mutated = false;
        mutated
    }};
}

/// What a tick asks for.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Duties {
    /// Prove that this member leads in this term, from now on.
    pub prove: Option<Term>,
    /// Revoke these in this term.
    pub revoke: Vec<LeaseId>,
    /// Remember these in this term.
    pub checkpoint: Vec<LeaseCheckpoint>,
}

/// How a revocation or checkpoint failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Failure {
    /// It never reached the log, and never will: to ask again costs nothing.
    Refused,
    /// It came through the log and had no effect, as long as an alarm stands.
    Rejected,
    /// Nobody said: it may come yet.
    Unanswered,
}

/// What comes of a renewal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Renewal {
    /// It lives for its whole time to live, in seconds.
    Renewed {
        /// What was granted.
        ttl: i64,
    },
    /// There is no such lease.
    Missing,
    /// It is being revoked: ask again when that is over.
    Ending,
    /// What is stored of its time left must be cleared through the log in this term; ask again then.
    Clear(Term),
    /// Leadership in this term must be proved first; ask again then.
    Prove(Term),
    /// This member keeps no leases.
    NotLeading,
}

/// The keeper of one member.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Keeper {
    pace: Pace,
    role: Role,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Role {
    /// Another leads, or nobody.
    Following,
    /// This member was chosen and has not proved it.
    Gaining(Term),
    Leading(Leading),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Leading {
    term: Term,
    /// A moment at which this member was the leader for certain.
    proved: u64,
    /// The last tick.
    ticked: u64,
    /// Since the end of the last gap; nothing is revoked until it is resolved.
    doubt: Option<u64>,
    leases: BTreeMap<LeaseId, Kept>,
    /// When each lease is to be revoked, but for those that are being revoked.
    ends: BTreeSet<(u64, LeaseId)>,
    /// When each lease is to be remembered.
    checkpoints: BTreeSet<(u64, LeaseId)>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Kept {
    /// What was granted, in seconds.
    ttl: i64,
    /// The promise: it lives until then.
    deadline: u64,
    /// When it is revoked, if nothing else happens; never before the deadline. `None`: that is under way.
    end: Option<u64>,
    /// A revocation had no answer: it may come yet.
    doomed: bool,
    checkpoint: Option<u64>,
    /// Whether the table holds a time left.
    stored: bool,
    /// Checkpoints that may still reach the table.
    under_way: u32,
}

impl Keeper {
    /// A keeper that has no leases.
    #[must_use]
    pub const fn new(pace: Pace) -> Self {
        Self { pace, role: Role::Following }
    }

    /// The term in which it keeps leases.
    #[must_use]
    pub const fn leading(&self) -> Option<Term> {
        match &self.role {
            Role::Leading(leading) => Some(leading.term),
            Role::Following | Role::Gaining(_) => None,
        }
    }

    /// Whether ticks are of no use until another one leads or a lease is granted.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        match &self.role {
            Role::Following => true,
            Role::Gaining(_) => false,
            Role::Leading(leading) => leading.leases.is_empty(),
        }
    }

    /// Time went on. `chosen` is the term in which this member leads, as far as it knows.
    pub fn tick(&mut self, now: u64, chosen: Option<Term>) -> Duties {
        let Some(term) = chosen else {
            self.role = Role::Following;
            return Duties::default();
        };
        if self.leading() != Some(term) {
            self.role = Role::Gaining(term);
            return Duties { prove: Some(term), ..Duties::default() };
        }
        let pace = self.pace;
        let Role::Leading(leading) = &mut self.role else { unreachable!("it leads in this term") };
        leading.note_tick(now, &pace);
        let prove = leading.wants_proof(now, &pace).then_some(term);
        let revoke = if leading.may_revoke(now, &pace) { leading.revoke(now, &pace) } else { Vec::new() };
        let checkpoint = leading.checkpoint(now, &pace);
        Duties { prove, revoke, checkpoint }
    }

    /// Leadership in `term` was proved, by a question that was asked at `asked`. Says whether [`Self::promote`] must follow.
    pub fn on_proof(&mut self, term: Term, asked: u64) -> bool {
        match &mut self.role {
            Role::Gaining(gaining) => *gaining == term,
            Role::Leading(leading) if leading.term == term => {
                leading.proved = leading.proved.max(asked);
                false
            }
            Role::Leading(_) | Role::Following => false,
        }
    }

    /// Takes up all leases of the table, which holds everything from before `term`.
    pub fn promote(&mut self, term: Term, asked: u64, now: u64, rows: impl Iterator<Item = LeaseRow>) {
        assert!(self.role == Role::Gaining(term), "a keeper is promoted once, by its own proof");
        assert!(asked <= now, "time goes on");
        let pace = self.pace;
        let kept = |row: LeaseRow| {
            let allowance = if mutated!(pace, RemainderForgotten) { row.ttl } else { row.allowance() };
            let deadline = now.saturating_add(millis(allowance)).saturating_add(pace.extension);
            (row.id, Kept::new(row.ttl, deadline, 0 < row.remaining))
        };
        let leases: BTreeMap<LeaseId, Kept> = rows.map(kept).collect();
        let ends = leases.iter().map(|(id, kept)| (kept.deadline, *id)).collect();
        let checkpoints = BTreeSet::new();
        let mut leading = Leading { term, proved: asked, ticked: now, doubt: None, leases, ends, checkpoints };
        let ids: Vec<LeaseId> = leading.leases.keys().copied().collect();
        for id in ids {
            leading.schedule_checkpoint(id, now, &self.pace);
        }
        self.role = Role::Leading(leading);
    }

    /// Apply created a lease, or changed what is stored of it.
    pub fn on_lease(&mut self, row: LeaseRow, now: u64) {
        let pace = self.pace;
        let Role::Leading(leading) = &mut self.role else { return };
        match leading.leases.get_mut(&row.id) {
            Some(kept) => {
                kept.stored = 0 < row.remaining;
                if kept.stored {
                    kept.under_way = kept.under_way.saturating_sub(1);
                }
            }
            None => {
                let deadline = now.saturating_add(millis(row.ttl));
                leading.leases.insert(row.id, Kept::new(row.ttl, deadline, false));
                leading.ends.insert((deadline, row.id));
            }
        }
        leading.schedule_checkpoint(row.id, now, &pace);
    }

    /// Apply removed a lease.
    pub fn on_removed(&mut self, id: LeaseId) {
        let Role::Leading(leading) = &mut self.role else { return };
        if let Some(kept) = leading.leases.remove(&id) {
            leading.forget_moments(id, &kept);
        }
    }

    /// A client renews a lease. `now` must be read after the renewal was received.
    pub fn renew(&mut self, id: LeaseId, now: u64) -> Renewal {
        let pace = self.pace;
        let leading = match &mut self.role {
            Role::Leading(leading) => leading,
            Role::Gaining(term) => return Renewal::Prove(*term),
            Role::Following => return Renewal::NotLeading,
        };
        if leading.proved.saturating_add(pace.extension) < now && !mutated!(pace, RenewedUnproved) {
            // A proof may take long under a slow disk, and the client was in time.
            leading.spare(id, now.saturating_add(pace.hold));
            return Renewal::Prove(leading.term);
        }
        let Some(kept) = leading.leases.get_mut(&id) else { return Renewal::Missing };
        let Some(end) = kept.end.filter(|_| !kept.doomed) else {
            let ttl = kept.ttl;
            return if mutated!(pace, EndingRenewed) { Renewal::Renewed { ttl } } else { Renewal::Ending };
        };
        let needs_clear = (kept.stored || 0 < kept.under_way) && !mutated!(pace, RemainderKept);
        if needs_clear {
            // A renewal that waits for its clearing is not overtaken by the lease's end.
            leading.spare(id, now.saturating_add(pace.hold));
            return Renewal::Clear(leading.term);
        }
        let ttl = kept.ttl;
        let deadline = now.saturating_add(millis(ttl)).max(kept.deadline);
        (kept.deadline, kept.end) = (deadline, Some(deadline));
        leading.ends.remove(&(end, id));
        leading.ends.insert((deadline, id));
        leading.schedule_checkpoint(id, now, &pace);
        Renewal::Renewed { ttl }
    }

    /// A revocation failed in `term`. One that was refused is due again on the next tick, or the time of a refusal – a handover to a member
    /// that is not there – would be added to the lease's.
    pub fn on_revoke_failed(&mut self, term: Term, id: LeaseId, why: Failure, now: u64) {
        let again = if why == Failure::Refused { now } else { now.saturating_add(self.pace.retry) };
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.term == term
            && let Some(kept) = leading.leases.get_mut(&id)
            && kept.end.is_none()
        {
            kept.end = Some(again);
            kept.doomed |= why == Failure::Unanswered;
            leading.ends.insert((again, id));
        }
    }

    /// A checkpoint failed in `term`.
    pub fn on_checkpoint_failed(&mut self, term: Term, id: LeaseId, why: Failure, now: u64) {
        let retry = now.saturating_add(self.pace.retry);
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.term == term
            && let Some(kept) = leading.leases.get_mut(&id)
            && 0 < kept.under_way
        {
            kept.under_way -= 1;
            kept.stored |= why == Failure::Unanswered;
            // One that may come yet is waited for: with two of them, nobody could say which one a clearing came behind.
            leading.set_checkpoint(id, (why != Failure::Unanswered).then_some(retry));
        }
    }

    /// How long a lease has left, in milliseconds: zero if it is over and not revoked yet. `None`: there is none, or this member does not lead.
    #[must_use]
    pub fn remaining(&self, id: LeaseId, now: u64) -> Option<u64> {
        let Role::Leading(leading) = &self.role else { return None };
        leading.leases.get(&id).map(|kept| kept.deadline.saturating_sub(now))
    }

    /// All leases, the one that ends first in front. `None`: this member does not lead.
    #[must_use]
    pub fn by_deadline(&self) -> Option<Vec<LeaseId>> {
        let Role::Leading(leading) = &self.role else { return None };
        let mut all: Vec<(u64, LeaseId)> = leading.leases.iter().map(|(id, kept)| (kept.deadline, *id)).collect();
        all.sort_unstable();
        Some(all.into_iter().map(|(_, id)| id).collect())
    }
}

impl Kept {
    const fn new(ttl: i64, deadline: u64, stored: bool) -> Self {
        Self { ttl, deadline, end: Some(deadline), doomed: false, checkpoint: None, stored, under_way: 0 }
    }
}

impl Leading {
    /// Puts the end of a lease off until then, if it is earlier and nobody is revoking it yet. It promises nobody anything.
    fn spare(&mut self, id: LeaseId, until: u64) {
        let Some(kept) = self.leases.get_mut(&id).filter(|kept| !kept.doomed) else { return };
        if let Some(end) = kept.end.filter(|end| *end < until) {
            kept.end = Some(until);
            self.ends.remove(&(end, id));
            self.ends.insert((until, id));
        }
    }

    fn note_tick(&mut self, now: u64, pace: &Pace) {
        assert!(self.ticked <= now, "time goes on");
        if pace.gap < now - self.ticked && !mutated!(pace, NoGrace) {
            self.doubt = Some(now);
        }
        self.ticked = now;
        if self.doubt.is_some_and(|since| since <= self.proved && pace.grace <= now - since) {
            self.doubt = None;
        }
    }

    fn wants_proof(&self, now: u64, pace: &Pace) -> bool {
        let is_old = self.proved.saturating_add(pace.extension / 2) <= now && !self.leases.is_empty();
        is_old || self.doubt.is_some_and(|since| self.proved < since)
    }

    fn may_revoke(&self, now: u64, pace: &Pace) -> bool {
        let is_proved = now <= self.proved.saturating_add(pace.extension) || mutated!(pace, NoGrace);
        self.doubt.is_none() && is_proved
    }

    fn revoke(&mut self, now: u64, pace: &Pace) -> Vec<LeaseId> {
        let due: Vec<(u64, LeaseId)> =
            self.ends.iter().take_while(|(end, _)| *end <= now).take(pace.revokes_max).copied().collect();
        for (end, id) in &due {
            self.ends.remove(&(*end, *id));
            let kept = self.leases.get_mut(id).expect("only leases end");
            assert!(kept.deadline <= now, "never early");
            kept.end = None;
            self.set_checkpoint(*id, None);
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn checkpoint(&mut self, now: u64, pace: &Pace) -> Vec<LeaseCheckpoint> {
        let is_due = |(at, _): &&(u64, LeaseId)| *at <= now;
        let due: Vec<LeaseId> =
            self.checkpoints.iter().take_while(is_due).take(pace.checkpoints_max).map(|(_, id)| *id).collect();
        let mut checkpoints = Vec::with_capacity(due.len());
        for id in due {
            self.set_checkpoint(id, None);
            let kept = self.leases.get_mut(&id).expect("only leases are remembered");
            // Rounded up, since what is stored may become the promise.
            let remaining_ttl = seconds_up(kept.deadline.saturating_sub(now));
            if 0 < remaining_ttl && remaining_ttl < kept.ttl {
                kept.under_way += 1;
                checkpoints.push(LeaseCheckpoint { id, remaining_ttl });
            } else {
                self.schedule_checkpoint(id, now, pace);
            }
        }
        checkpoints
    }

    /// A lease that has more left than the interval is remembered after it.
    fn schedule_checkpoint(&mut self, id: LeaseId, now: u64, pace: &Pace) {
        let Some(kept) = self.leases.get(&id) else { return };
        let is_long = pace.checkpoint_interval < kept.deadline.saturating_sub(now);
        let is_wanted = is_long && kept.end.is_some();
        self.set_checkpoint(id, is_wanted.then(|| now.saturating_add(pace.checkpoint_interval)));
    }

    fn set_checkpoint(&mut self, id: LeaseId, at: Option<u64>) {
        let Some(kept) = self.leases.get_mut(&id) else { return };
        if let Some(old) = core::mem::replace(&mut kept.checkpoint, at) {
            self.checkpoints.remove(&(old, id));
        }
        if let Some(at) = at {
            self.checkpoints.insert((at, id));
        }
    }

    fn forget_moments(&mut self, id: LeaseId, kept: &Kept) {
        if let Some(end) = kept.end {
            self.ends.remove(&(end, id));
        }
        if let Some(at) = kept.checkpoint {
            self.checkpoints.remove(&(at, id));
        }
    }
}

/// Seconds of the wire as milliseconds; none for less than zero.
fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn seconds_up(millis: u64) -> i64 {
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}
