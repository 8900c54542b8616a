//! Raft's five properties (Raft paper, figure 3), looked at whenever a member's engine has stepped, before anything of that leaves the member.
//!
//! Each entry that any log ever held has a digest of itself and of everything before it. So that two logs agree up to a place is one comparison: *log matching* says that a term and an
//! index have one digest, *leader completeness* that a new leader's log has the digest of what was committed before its term, *state-machine safety* that a committed place has one.
//! *Election safety* and *leader append-only* are what they say. The committed entries that gather here are what the oracles of the run's end replay.
//!
//! Behind them stand the rules that make them true, each looked at where it could be broken first: a vote and an acknowledgement are on the disk before they are said, and a member
//! votes once per term, over all its lives; a leader is elected, and an entry of its term committed, by a majority of voters that have it on their disks, learners not among
//! them; who belongs to the cluster is what the committed changes make of it ([`roster`]), and no log holds two that are not known to be committed.

pub mod roster;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::role::Role;
use detcd_core::raft::{Configuration, Entry, EntryKind, Mark, Message, Raft};
use detcd_io::driver::Probe;

use self::roster::Roster;
use super::{Promise, Violation};
use crate::film::Scene;
use crate::leases::{Span, now};
use crate::record::Trace;

/// What was seen of all members. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    members: BTreeMap<MemberId, Seen>,
    /// Votes that were on the disk, by their voters and terms.
    votes: BTreeMap<(MemberId, Term), MemberId>,
    roster: Roster,
    /// What every place that ever was stands for.
    digests: BTreeMap<Mark, u64>,
    leaderships: Vec<Leadership>,
    committed: Vec<Entry>,
    /// The digest of each of them.
    committed_digests: Vec<u64>,
    /// How far the log was committed in each term.
    commits: BTreeMap<Term, Index>,
    /// Who has accepted what a leader appends since everything is healed, and in which term.
    in_step: BTreeSet<(MemberId, Term)>,
    is_healed: bool,
    trace: Trace,
    violation: Option<Violation>,
}

/// One member, as it was last seen.
#[derive(Default)]
struct Seen {
    place: usize,
    /// Whether that life is over. What was on the disk counts until the next one has read it.
    is_over: bool,
    base: Mark,
    /// Term and digest of each place after the base.
    log: VecDeque<(Term, u64)>,
    /// The membership changes among them.
    changes: VecDeque<Index>,
    commit: Index,
    /// The newest entry on its disk, and the newest term and vote.
    persisted: Index,
    ballot: (Term, Option<MemberId>),
    term: Term,
    /// The term in which it leads.
    leading: Option<Term>,
    configuration: Configuration,
    /// The number that the roster has for it.
    cluster: Option<usize>,
}

/// One member's time as a leader.
#[derive(Clone, Copy, Debug)]
struct Leadership {
    term: Term,
    member: MemberId,
    place: usize,
    from: Duration,
    /// When it first committed an entry of its term: before that it cannot keep leases.
    commits: Option<Duration>,
    until: Option<Duration>,
}

/// The look at one member's engine in one of its lives.
pub struct Eye {
    place: usize,
    ledger: Ledger,
    last: Mutex<Option<(Glance, Configuration)>>,
}

/// What must have changed of an engine, or its configuration, if anything has that is looked at. (A log changes with its last entry.)
#[derive(Clone, Copy, Eq, PartialEq)]
struct Glance {
    role: Discriminant<Role>,
    term: Term,
    ballot: (Term, Option<MemberId>),
    commit: Index,
    applied: Index,
    persisted: Index,
    base: Mark,
    last: Mark,
}

impl Glance {
    fn of(raft: &Raft) -> Self {
        let ballot = raft.ballot();
        Self {
            role: discriminant(raft.role()),
            term: raft.term(),
            ballot: (ballot.term, ballot.vote),
            commit: raft.commit(),
            applied: raft.applied(),
            persisted: raft.persisted(),
            base: raft.log().base(),
            last: raft.last(),
        }
    }
}

impl Eye {
    /// The look at the member at `place`.
    #[must_use]
    pub const fn new(place: usize, ledger: Ledger) -> Self {
        Self { place, ledger, last: Mutex::new(None) }
    }
}

impl Probe for Eye {
    fn look(&self, raft: &Raft) {
        let (glance, configuration) = (Glance::of(raft), raft.configuration());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| last.0 != glance || last.1 != *configuration) {
            *last = Some((glance, configuration.clone()));
            self.ledger.lock().look(self.place, raft);
        }
    }
}

impl Ledger {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        let inner = Inner {
            members: BTreeMap::new(),
            votes: BTreeMap::new(),
            roster: Roster::default(),
            digests: BTreeMap::new(),
            leaderships: Vec::new(),
            committed: Vec::new(),
            committed_digests: Vec::new(),
            commits: BTreeMap::new(),
            in_step: BTreeSet::new(),
            is_healed: false,
            trace,
            violation: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// From now on nothing is lost, and nothing overtaken.
    pub fn heal(&self) {
        self.lock().is_healed = true;
    }

    /// The first broken property.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), Violation> {
        self.lock().violation.clone().map_or(Ok(()), Err)
    }

    /// The life of the member at `place` is over, if there is one.
    pub fn end(&self, place: usize) {
        let mut inner = self.lock();
        let here = inner.members.iter_mut().filter(|(_, seen)| seen.place == place && !seen.is_over);
        let ended: Vec<MemberId> = here.map(|(id, seen)| (*id, seen.is_over = true).0).collect();
        ended.into_iter().for_each(|id| inner.resign(id));
    }

    /// Whether the member at `place` takes itself for the leader.
    #[must_use]
    pub fn leads(&self, place: usize) -> bool {
        self.lock().members.values().any(|seen| seen.place == place && seen.leading.is_some())
    }

    /// Whether this member was removed, as far as anybody knows.
    #[must_use]
    pub fn has_removed(&self, id: MemberId) -> bool {
        self.lock().roster.has_removed(id)
    }

    /// Where the member of this id was seen.
    #[must_use]
    pub fn place_of(&self, id: MemberId) -> Option<usize> {
        self.lock().members.get(&id).map(|seen| seen.place)
    }

    /// How many members there ever were.
    #[must_use]
    pub fn members(&self) -> usize {
        self.lock().members.len()
    }

    /// A member says this to another one: a vote and an acknowledgement are promises about its disk. Answers whether all properties still hold.
    pub fn on_said(&self, from: MemberId, to: MemberId, message: &Message) -> bool {
        let mut inner = self.lock();
        if let Some(broken) = inner.hear(from, to, message) {
            inner.break_off(from, broken);
        }
        inner.violation.is_none()
    }

    /// The leader of the newest term that has one.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.lock().leaderships.iter().max_by_key(|each| each.term).map(|each| each.place)
    }

    /// When there was a leader that could commit, and that nobody had replaced yet, as far as it knew.
    #[must_use]
    pub fn reigns(&self) -> Vec<Span> {
        let mut all = self.lock().leaderships.clone();
        all.sort_by_key(|each| each.term);
        let ends = all.iter().skip(1).map(|next| next.from).chain([Duration::MAX]).collect::<Vec<_>>();
        let until = |each: &Leadership, next: Duration| each.until.unwrap_or_else(now).min(next);
        let reigns = all.iter().zip(ends).filter_map(|(each, next)| Some((each.commits?, until(each, next))));
        reigns.filter(|(from, to)| from < to).collect()
    }

    /// Everything that is committed, from the first entry on.
    #[must_use]
    pub fn committed(&self) -> Vec<Entry> {
        self.lock().committed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn look(&mut self, place: usize, raft: &Raft) {
        if self.violation.is_none()
            && let Err(what) = self.take(place, raft)
        {
            self.break_off(raft.id(), what);
        }
        self.trace.show_at(Some(place), || Scene::Role {
            term: raft.term().0,
            leads: raft.is_leader(),
            id: raft.id().0,
        });
    }

    /// Whether a member has the whole log of another one on its disk.
    fn has_all_of(&self, member: MemberId, other: &Seen) -> bool {
        let (last, whole) = (other.last(), other.log.back().map(|(_, digest)| *digest));
        let digest = whole.or_else(|| self.digests.get(&other.base).copied()).unwrap_or_default();
        self.members.get(&member).is_some_and(|seen| seen.holds(last, digest))
    }

    /// What is wrong with it that a member says this.
    fn hear(&mut self, from: MemberId, to: MemberId, message: &Message) -> Option<String> {
        let seen = self.members.get(&from)?;
        let broken = match message {
            Message::VoteGranted { term } if seen.ballot.0 < *term => {
                format!("says that it votes for {to} in term {term}, which is not on its disk")
            }
            // Several votes may reach the disk at once, of which only the last was seen there.
            Message::VoteGranted { term } => match *self.votes.entry((from, *term)).or_insert(to) {
                vote if vote == to => return None,
                vote => format!("says that it votes for {to} in term {term}, and has voted for {vote}"),
            },
            // What was written in an older term may have been overwritten since: nobody counts it any more.
            Message::AppendAccepted { term, index } if *term == seen.term && seen.persisted < *index => {
                format!("says that it has {index}, and only {} is on its disk", seen.persisted)
            }
            Message::AppendAccepted { term, index } if self.is_healed && Index::ZERO < *index => {
                self.in_step.insert((from, *term));
                return None;
            }
            // Whoever is in step stays so while messages arrive in order (etcd 3.7.3, where those of a step left in reverse).
            Message::AppendRejected { term, index, .. } if self.in_step.contains(&(from, *term)) => {
                format!("has no {index}, and nothing was lost since it was in step with its leader")
            }
            // One that leads no more may have been in a hurry.
            Message::TimeoutNow { term } if seen.leading == Some(*term) && !self.has_all_of(to, seen) => {
                format!("makes room for {to}, which does not have its whole log on its disk")
            }
            _ => return None,
        };
        Some(broken)
    }

    fn break_off(&mut self, member: MemberId, what: String) {
        let place = self.members.get(&member).map_or(0, |seen| seen.place);
        let what = format!("member {place} ({member}): {what}");
        self.trace.line(|| what.clone());
        self.violation.get_or_insert_with(|| Violation::new(Promise::Consensus, what).at(now()));
    }

    fn take(&mut self, place: usize, raft: &Raft) -> Result<(), String> {
        let (id, term, commit) = (raft.id(), raft.term(), raft.commit());
        let seen = self.members.entry(id).or_default();
        if seen.is_over {
            *seen = Seen::default();
        }
        seen.place = place;
        if term < seen.term {
            return Err(format!("its term goes back from {} to {term}", seen.term));
        }
        if commit < seen.commit {
            return Err(format!("its commit index goes back from {} to {commit}", seen.commit));
        }
        let led = seen.leading;
        let kept = self.follow_log(raft)?;
        if let Some((kept, last)) = kept.filter(|_| raft.is_leader() && led == Some(term)) {
            return Err(format!("a leader keeps only {kept} of {last} entries"));
        }
        let (seen, ballot) = (self.members.get_mut(&id).expect("it was just made"), raft.ballot());
        (seen.term, seen.persisted) = (term, raft.persisted());
        if seen.ballot != (ballot.term, ballot.vote) {
            seen.ballot = (ballot.term, ballot.vote);
            self.take_ballot(raft)?;
        }
        match raft.is_leader().then_some(term) {
            Some(term) if led != Some(term) => self.on_leader(id, term, raft.configuration())?,
            Some(_) => {}
            None if led.is_some() => self.resign(id),
            None => {}
        }
        if self.members[&id].commit < commit {
            if led == Some(term) && raft.is_leader() {
                self.check_commit(raft)?;
                let reign = self.leaderships.iter_mut().rev().find(|each| each.term == term);
                let reign = reign.expect("a leader was seen when it became one");
                reign.commits.get_or_insert_with(now);
            }
            self.on_commit(id, raft, commit)?;
        }
        self.check_changes(raft)
    }

    /// A vote that is on the disk stays what it is.
    fn take_ballot(&mut self, raft: &Raft) -> Result<(), String> {
        let ballot = raft.ballot();
        let Some(vote) = ballot.vote else { return Ok(()) };
        match *self.votes.entry((raft.id(), ballot.term)).or_insert(vote) {
            before if before == vote => Ok(()),
            before => Err(format!("votes for {vote} in term {}, and has voted for {before}", ballot.term)),
        }
    }

    /// A leader commits entries of its own term, once a majority has them (Raft paper, section 5.4.2). Which one counts may have changed in this very turn.
    fn check_commit(&self, raft: &Raft) -> Result<(), String> {
        let (commit, seen) = (raft.commit(), &self.members[&raft.id()]);
        let Some((term, digest)) = seen.at(commit) else { return Ok(()) };
        if term != raft.term() {
            return Err(format!("commits {commit} of term {term}, counting copies in term {}", raft.term()));
        }
        let has = |voter: &MemberId| self.members.get(voter).is_some_and(|seen| seen.holds(commit, digest));
        if is_majority(raft.configuration(), has) || is_majority(&seen.configuration, has) {
            return Ok(());
        }
        let who: Vec<_> = self.members.iter().filter(|(id, _)| has(id)).map(|(id, _)| id.to_string()).collect();
        Err(format!("commits {commit}, which is on the disks of {who:?} alone, as a leader {}", raft.configuration()))
    }

    /// Who belongs to the cluster is what was committed; at most one change is not known to be; and nobody campaigns without one that is.
    fn check_changes(&mut self, raft: &Raft) -> Result<(), String> {
        let (commit, applied) = (raft.commit(), raft.applied().max(raft.log().base().index));
        let configuration = raft.configuration();
        let seen = self.members.get_mut(&raft.id()).expect("it was just made");
        if seen.configuration != *configuration {
            (seen.configuration, seen.cluster) = (configuration.clone(), None);
        }
        let Ok(number) = self.roster.number(configuration, seen.cluster, (applied, commit)) else {
            return Err(format!(
                "is a member of a cluster {configuration}, which nobody made, at {applied} to {commit}"
            ));
        };
        seen.cluster = number;
        if seen.changes.iter().filter(|index| commit < **index).count() > 1 {
            return Err(format!("has changes at {:?} in its log, and {commit} is committed", seen.changes));
        }
        let stands = matches!(raft.role(), Role::PreCandidate(_) | Role::Candidate(_));
        match seen.changes.iter().find(|index| applied < **index && **index <= commit) {
            Some(index) if stands => Err(format!("campaigns, and has not applied the change at {index}")),
            _ => Ok(()),
        }
    }

    /// Takes over what changed of a log. Says which place was the last that stayed, and which had been the last, if something went.
    fn follow_log(&mut self, raft: &Raft) -> Result<Option<(Index, Index)>, String> {
        let (log, last) = (raft.log(), raft.last());
        let seen = self.members.get_mut(&raft.id()).expect("it was just made");
        if seen.is_new() || seen.last() < log.base().index {
            let base = log.base();
            let committed = base.index.0.checked_sub(1).and_then(|at| self.committed_digests.get(at as usize));
            if base != Mark::ZERO && self.digests.get(&base).is_none_or(|digest| Some(digest) != committed) {
                return Err(format!("its log begins at {base}, which nobody committed"));
            }
            seen.log.clear();
            seen.changes.clear();
            seen.base = base;
        }
        while seen.changes.front().is_some_and(|index| *index <= log.base().index) {
            seen.changes.pop_front();
        }
        while seen.base.index < log.base().index {
            let (term, _) = seen.log.pop_front().expect("the base is within the log");
            seen.base = Mark::new(seen.base.index.next(), term);
        }
        let before = seen.last();
        let mut agreed = before.min(last.index);
        while seen.base.index < agreed && log.term_at(agreed) != seen.term_at(agreed) {
            agreed = Index(agreed.0 - 1);
        }
        if agreed < seen.commit {
            return Err(format!("{} is committed, and its log changes after {agreed}", seen.commit));
        }
        seen.log.truncate(agreed.distance_from(seen.base.index) as usize);
        while seen.changes.back().is_some_and(|index| agreed < *index) {
            seen.changes.pop_back();
        }
        let mut digest = match seen.log.back() {
            Some((_, digest)) => *digest,
            None => self.digests.get(&seen.base).copied().unwrap_or_default(),
        };
        while agreed < last.index {
            agreed = agreed.next();
            let entry = log.entry(agreed).ok_or("its log has a gap")?;
            digest = mix(digest, entry);
            if *self.digests.entry(entry.mark()).or_insert(digest) != digest {
                return Err(format!("another log holds {} and something else there or before", entry.mark()));
            }
            seen.log.push_back((entry.term, digest));
            if entry.kind != EntryKind::Normal {
                seen.changes.push_back(agreed);
            }
        }
        let kept = before.min(last.index);
        Ok((kept < before).then_some((kept, before)))
    }

    fn on_leader(&mut self, id: MemberId, term: Term, configuration: &Configuration) -> Result<(), String> {
        self.resign(id);
        if let Some(other) = self.leaderships.iter().find(|each| each.term == term && each.member != id) {
            return Err(format!("leads in term {term}, and so does {}", other.member));
        }
        let place = self.members[&id].place;
        self.trace.note(&[place as u64, term.0], || format!("member {place} leads in term {term}"));
        self.members.get_mut(&id).expect("it was just made").leading = Some(term);
        self.leaderships.push(Leadership { term, member: id, place, from: now(), commits: None, until: None });
        let voted = |voter: &MemberId| self.votes.get(&(*voter, term)) == Some(&id);
        let seen = &self.members[&id];
        if !is_majority(configuration, voted) && !is_majority(&seen.configuration, voted) {
            return Err(format!("leads in term {term} a cluster {configuration}, without the votes for it"));
        }
        let committed = self.commits.range(..term).map(|(_, index)| *index).max().unwrap_or_default();
        if let Some(at) = committed.0.checked_sub(1) {
            let is_there =
                seen.digest_at(committed).is_some_and(|digest| digest == self.committed_digests[at as usize]);
            if !is_there && seen.base.index < committed {
                return Err(format!("leads in term {term} without {committed}, which was committed before"));
            }
        }
        Ok(())
    }

    fn on_commit(&mut self, id: MemberId, raft: &Raft, commit: Index) -> Result<(), String> {
        let seen = self.members.get_mut(&id).expect("it was just made");
        seen.commit = commit;
        let known = self.committed.len() as u64;
        for index in (known.min(commit.0)..=commit.0).map(Index) {
            let Some(digest) = seen.digest_at(index) else { continue };
            match self.committed_digests.get((index.0 - 1) as usize) {
                Some(other) if *other == digest => {}
                Some(_) => return Err(format!("commits another entry at {index} than was committed there")),
                None if self.committed.len() as u64 + 1 == index.0 => {
                    let entry = raft.log().entry(index).expect("it was just taken over");
                    self.roster.on_committed(entry)?;
                    self.committed.push(entry.clone());
                    self.committed_digests.push(digest);
                }
                None => return Err(format!("commits {index}, and nobody committed what is before it")),
            }
        }
        let upto = self.commits.entry(raft.term()).or_default();
        *upto = commit.max(*upto);
        Ok(())
    }

    fn resign(&mut self, id: MemberId) {
        if let Some(seen) = self.members.get_mut(&id) {
            seen.leading = None;
        }
        let open = self.leaderships.iter_mut().filter(|each| each.member == id && each.until.is_none());
        open.for_each(|each| each.until = Some(now()));
    }
}

/// Whether this is so of more than half of the voters.
fn is_majority(configuration: &Configuration, is_so: impl Fn(&MemberId) -> bool) -> bool {
    configuration.voters.len() < 2 * configuration.voters.iter().filter(|voter| is_so(voter)).count()
}

impl Seen {
    fn is_new(&self) -> bool {
        self.term == Term(0) && self.log.is_empty()
    }

    fn last(&self) -> Index {
        self.base.index.plus(self.log.len() as u64)
    }

    fn at(&self, index: Index) -> Option<(Term, u64)> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        self.log.get(offset as usize).copied()
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        self.at(index).map(|(term, _)| term)
    }

    fn digest_at(&self, index: Index) -> Option<u64> {
        self.at(index).map(|(_, digest)| digest)
    }

    /// Whether this place, with all before it, is on its disk.
    fn holds(&self, index: Index, digest: u64) -> bool {
        index <= self.persisted && (index <= self.base.index || self.digest_at(index) == Some(digest))
    }
}

/// The digest of an entry and of everything before it.
fn mix(before: u64, entry: &Entry) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    };
    let facts = [entry.term.0, entry.index.0, kind, u64::from(crc32c::crc32c(&entry.payload))];
    facts.into_iter().fold(before, |digest, fact| (digest ^ fact).wrapping_mul(PRIME).rotate_left(29))
}
