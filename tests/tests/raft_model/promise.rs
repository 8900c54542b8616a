//! What must hold in every state, with the memory that it takes to see it broken.
//!
//! The names are those of the Raft paper's figure 3, where it has one.

use std::collections::BTreeMap;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Change, Configuration, Entry, EntryKind, Mark, Raft};

use super::world::Member;

/// A promise of the engine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Promise {
    /// At most one leader per term.
    ElectionSafety,
    /// Two logs with the same entry agree on everything before it.
    LogMatching,
    /// A leader has everything that was committed in earlier terms.
    LeaderCompleteness,
    /// Nobody commits another entry at the same place, or installs a store that stands elsewhere.
    StateMachineSafety,
    /// What is committed is on the disks of a majority of those who vote then.
    CommittedIsDurable,
    /// What is acknowledged is on the own disk.
    AcknowledgedIsDurable,
    /// What is applied is on the own disk, in order.
    AppliedIsDurable,
    /// Members that have applied the same know the same members.
    SameConfiguration,
    /// An heir has the whole log when it is told to campaign.
    HeirIsComplete,
    /// A read sees everything that was committed before it was asked.
    FreshReads,
    /// The engine's own facts hold.
    NoAssertionFails,
}

/// What has happened so far, as an outsider sees it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct History {
    leaders: BTreeMap<Term, MemberId>,
    /// Where the story begins, and the members there.
    begin: (Mark, Configuration),
    /// Committed entries from there on, each with the term of the member that first said so.
    committed: Vec<(Entry, Term)>,
}

impl History {
    pub(crate) const fn new(base: Mark, configuration: Configuration) -> Self {
        Self { leaders: BTreeMap::new(), begin: (base, configuration), committed: Vec::new() }
    }

    /// The newest committed place.
    pub(crate) fn committed(&self) -> u64 {
        self.begin.0.index.0 + self.committed.len() as u64
    }

    pub(crate) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn has_client_entry(&self) -> bool {
        self.committed.iter().any(|(entry, _)| entry.kind == EntryKind::Normal && !entry.payload.is_empty())
    }

    pub(crate) fn changes(&self) -> usize {
        self.committed.iter().filter(|(entry, _)| entry.kind == EntryKind::ConfChange).count()
    }

    /// The members as of a place.
    pub(crate) fn configuration(&self, index: Index) -> Configuration {
        let mut configuration = self.begin.1.clone();
        let applied = self.committed.iter().filter(|(entry, _)| entry.index <= index);
        for change in applied.filter_map(|(entry, _)| change_of(entry)) {
            configuration.take(change);
        }
        configuration
    }

    /// Whether this is a committed place.
    pub(crate) fn has(&self, mark: Mark) -> bool {
        mark == self.begin.0 || self.committed.iter().any(|(entry, _)| entry.mark() == mark)
    }

    /// Looks at a member after its step. Returns the first promise that is broken.
    pub(crate) fn note<'a>(
        &mut self,
        raft: &Raft,
        members: impl Iterator<Item = &'a Member> + Clone,
    ) -> Result<(), Promise> {
        if raft.is_leader() {
            self.note_leader(raft)?;
        }
        let floor = self.begin.0.index.0;
        for index in raft.log().base().index.0.max(floor) + 1..=raft.commit().0 {
            let entry = raft.log().entry(Index(index)).expect("the log goes on after its base");
            match self.committed.get(offset(index - floor)) {
                Some((committed, _)) if committed == entry => {}
                Some(_) => return Err(Promise::StateMachineSafety),
                None => {
                    assert_eq!(index, self.committed() + 1, "a snapshot is of what is committed");
                    self.committed.push((entry.clone(), raft.term()));
                    is_durable(entry, &raft.configuration().voters, members.clone())?;
                }
            }
        }
        Ok(())
    }

    fn note_leader(&mut self, raft: &Raft) -> Result<(), Promise> {
        let leader = *self.leaders.entry(raft.term()).or_insert_with(|| raft.id());
        if leader != raft.id() {
            return Err(Promise::ElectionSafety);
        }
        // A leader of an older term may be elected late; it need not know what later terms committed.
        let earlier = self.committed.iter().filter(|(_, term)| *term < raft.term());
        for (entry, _) in earlier.filter(|(entry, _)| raft.log().base().index < entry.index) {
            if raft.log().entry(entry.index) != Some(entry) {
                return Err(Promise::LeaderCompleteness);
            }
        }
        Ok(())
    }
}

/// Looks at all members together.
pub(crate) fn survey<'a>(members: impl Iterator<Item = &'a Member> + Clone) -> Result<(), Promise> {
    for (at, one) in members.clone().enumerate() {
        for other in members.clone().skip(at + 1) {
            logs_match(&one.raft, &other.raft)?;
        }
    }
    Ok(())
}

/// What an entry does to the members: the first byte says how, the second whom.
pub(crate) fn change_of(entry: &Entry) -> Option<Change> {
    let (EntryKind::ConfChange, [kind, id]) = (entry.kind, entry.payload.as_ref()) else { return None };
    let member = MemberId(u64::from(*id));
    Some(match kind {
        b'+' => Change::AddVoter(member),
        b'~' => Change::AddLearner(member),
        _ => Change::Remove(member),
    })
}

/// How an entry says so.
pub(crate) fn payload_of(change: Change) -> Vec<u8> {
    let (kind, member) = match change {
        Change::AddVoter(member) => (b'+', member),
        Change::AddLearner(member) => (b'~', member),
        Change::Remove(member) => (b'-', member),
    };
    vec![kind, u8::try_from(member.0).unwrap()]
}

fn is_durable<'a>(
    entry: &Entry,
    voters: &std::collections::BTreeSet<MemberId>,
    members: impl Iterator<Item = &'a Member>,
) -> Result<(), Promise> {
    let copies = members.filter(|member| voters.contains(&member.raft.id()) && member.disk.has(entry)).count();
    if copies <= voters.len() / 2 { Err(Promise::CommittedIsDurable) } else { Ok(()) }
}

fn logs_match(one: &Raft, other: &Raft) -> Result<(), Promise> {
    let base = one.log().base().index.max(other.log().base().index);
    let last = one.last().index.min(other.last().index);
    let pair = |index| one.log().entry(Index(index)).zip(other.log().entry(Index(index)));
    let pairs: Vec<_> = (base.0 + 1..=last.0).filter_map(pair).collect();
    let agreed = pairs.iter().rposition(|(one, other)| one.mark() == other.mark());
    match agreed {
        Some(last) if pairs[..=last].iter().any(|(one, other)| one != other) => Err(Promise::LogMatching),
        Some(_) | None => Ok(()),
    }
}

fn offset(place: u64) -> usize {
    usize::try_from(place - 1).expect("the models' logs are short")
}
