//! Raft's five properties (Raft paper, figure 3), looked at after every turn of every member's driver, before anything of that turn leaves the member.
//!
//! Each entry that any log ever held has a digest of itself and of everything before it. So that two logs agree up to a place is one comparison: *log matching* says that a term and an
//! index have one digest, *leader completeness* that a new leader's log has the digest of what was committed before its term, *state-machine safety* that a committed place has one.
//! *Election safety* and *leader append-only* are what they say. The committed entries that gather here are what the oracles of the run's end replay.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use detcd_core::ids::{Index, Term};
use detcd_core::raft::{Entry, EntryKind, Mark, Raft};
use detcd_io::driver::Probe;

use super::{Promise, Violation};
use crate::leases::{Span, now};
use crate::record::Trace;

/// What was seen of all members. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    members: Vec<Seen>,
    /// What every place that ever was stands for.
    digests: BTreeMap<Mark, u64>,
    leaderships: Vec<Leadership>,
    committed: Vec<Entry>,
    /// The digest of each of them.
    committed_digests: Vec<u64>,
    /// How far the log was committed in each term.
    commits: BTreeMap<Term, Index>,
    trace: Trace,
    violation: Option<Violation>,
}

/// One member, as it was last seen.
#[derive(Default)]
struct Seen {
    base: Mark,
    /// Term and digest of each place after the base.
    log: VecDeque<(Term, u64)>,
    commit: Index,
    term: Term,
    /// The term in which it leads.
    leading: Option<Term>,
}

/// One member's time as a leader.
#[derive(Clone, Copy, Debug)]
struct Leadership {
    term: Term,
    place: usize,
    from: Duration,
    until: Option<Duration>,
}

/// The look at one member's engine.
pub struct Eye {
    place: usize,
    ledger: Ledger,
}

impl Eye {
    /// The look at the member at `place`.
    #[must_use]
    pub const fn new(place: usize, ledger: Ledger) -> Self {
        Self { place, ledger }
    }
}

impl Probe for Eye {
    fn look(&self, raft: &Raft) {
        self.ledger.lock().look(self.place, raft);
    }
}

impl Ledger {
    /// Nothing was seen of so many members.
    #[must_use]
    pub fn new(members: usize, trace: Trace) -> Self {
        let inner = Inner {
            members: (0..members).map(|_| Seen::default()).collect(),
            digests: BTreeMap::new(),
            leaderships: Vec::new(),
            committed: Vec::new(),
            committed_digests: Vec::new(),
            commits: BTreeMap::new(),
            trace,
            violation: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The first broken property.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), Violation> {
        self.lock().violation.clone().map_or(Ok(()), Err)
    }

    /// A life of the member at `place` begins.
    pub fn begin(&self, place: usize) {
        self.end(place);
    }

    /// It is over.
    pub fn end(&self, place: usize) {
        let mut inner = self.lock();
        inner.resign(place);
        inner.members[place] = Seen::default();
    }

    /// Whether the member at `place` takes itself for the leader.
    #[must_use]
    pub fn leads(&self, place: usize) -> bool {
        self.lock().members[place].leading.is_some()
    }

    /// The leader of the newest term that has one.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.lock().leaderships.iter().max_by_key(|each| each.term).map(|each| each.place)
    }

    /// When there was a leader that nobody had replaced yet, as far as it knew.
    #[must_use]
    pub fn reigns(&self) -> Vec<Span> {
        let mut all = self.lock().leaderships.clone();
        all.sort_by_key(|each| each.term);
        let ends = all.iter().skip(1).map(|next| next.from).chain([Duration::MAX]).collect::<Vec<_>>();
        let until = |each: &Leadership, next: Duration| each.until.unwrap_or_else(now).min(next);
        all.iter().zip(ends).map(|(each, next)| (each.from, until(each, next))).filter(|(from, to)| from < to).collect()
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
            self.trace.line(|| format!("member {place}: {what}"));
            self.violation = Some(Violation::new(Promise::Consensus, format!("member {place}: {what}")));
        }
    }

    fn take(&mut self, place: usize, raft: &Raft) -> Result<(), String> {
        let (term, commit) = (raft.term(), raft.commit());
        let seen = &self.members[place];
        if term < seen.term {
            return Err(format!("its term goes back from {} to {term}", seen.term));
        }
        if commit < seen.commit {
            return Err(format!("its commit index goes back from {} to {commit}", seen.commit));
        }
        let led = seen.leading;
        let kept = self.follow_log(place, raft)?;
        if let Some((kept, last)) = kept.filter(|_| raft.is_leader() && led == Some(term)) {
            return Err(format!("a leader keeps only {kept} of {last} entries"));
        }
        self.members[place].term = term;
        match raft.is_leader().then_some(term) {
            Some(term) if led != Some(term) => self.on_leader(place, term)?,
            Some(_) => {}
            None if led.is_some() => self.resign(place),
            None => {}
        }
        if self.members[place].commit < commit {
            self.on_commit(place, raft, commit)?;
        }
        Ok(())
    }

    /// Takes over what changed of a log. Says which place was the last that stayed, and which had been the last, if something went.
    fn follow_log(&mut self, place: usize, raft: &Raft) -> Result<Option<(Index, Index)>, String> {
        let (log, last) = (raft.log(), raft.last());
        let seen = &mut self.members[place];
        if seen.is_new() || seen.last() < log.base().index {
            let base = log.base();
            if base != Mark::ZERO && !self.digests.contains_key(&base) {
                return Err(format!("its log begins at {base}, where nobody ever wrote"));
            }
            seen.log.clear();
            seen.base = base;
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
        }
        let kept = before.min(last.index);
        Ok((kept < before).then_some((kept, before)))
    }

    fn on_leader(&mut self, place: usize, term: Term) -> Result<(), String> {
        self.resign(place);
        if let Some(other) = self.leaderships.iter().find(|each| each.term == term && each.place != place) {
            return Err(format!("leads in term {term}, and so does member {}", other.place));
        }
        self.trace.note(&[place as u64, term.0], || format!("member {place} leads in term {term}"));
        self.members[place].leading = Some(term);
        self.leaderships.push(Leadership { term, place, from: now(), until: None });
        let committed = self.commits.range(..term).map(|(_, index)| *index).max().unwrap_or_default();
        if let Some(at) = committed.0.checked_sub(1) {
            let seen = &self.members[place];
            let is_there =
                seen.digest_at(committed).is_some_and(|digest| digest == self.committed_digests[at as usize]);
            if !is_there && seen.base.index < committed {
                return Err(format!("leads in term {term} without {committed}, which was committed before"));
            }
        }
        Ok(())
    }

    fn on_commit(&mut self, place: usize, raft: &Raft, commit: Index) -> Result<(), String> {
        let seen = &mut self.members[place];
        seen.commit = commit;
        let known = self.committed.len() as u64;
        for index in (known.min(commit.0)..=commit.0).map(Index) {
            let Some(digest) = seen.digest_at(index) else { continue };
            match self.committed_digests.get((index.0 - 1) as usize) {
                Some(other) if *other == digest => {}
                Some(_) => return Err(format!("commits another entry at {index} than was committed there")),
                None if self.committed.len() as u64 + 1 == index.0 => {
                    let entry = raft.log().entry(index).expect("it was just taken over");
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

    fn resign(&mut self, place: usize) {
        self.members[place].leading = None;
        let open = self.leaderships.iter_mut().filter(|each| each.place == place && each.until.is_none());
        open.for_each(|each| each.until = Some(now()));
    }
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
