//! What must hold in every state, with the memory that it takes to see it broken.
//!
//! The names are those of the Raft paper's figure 3, where it has one.

use std::collections::BTreeMap;

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, Raft};

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
    /// Nobody commits another entry at the same place.
    StateMachineSafety,
    /// What is committed is on the disks of a majority.
    CommittedIsDurable,
    /// What is applied is on the own disk, in order.
    AppliedIsDurable,
    /// A read sees everything that was committed before it was asked.
    FreshReads,
    /// The engine's own facts hold.
    NoAssertionFails,
}

/// What has happened so far, as an outsider sees it.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct History {
    leaders: BTreeMap<Term, MemberId>,
    /// Committed entries from the first on, each with the term of the member that first said so.
    committed: Vec<(Entry, Term)>,
}

impl History {
    pub(crate) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(crate) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn has_client_entry(&self) -> bool {
        self.committed.iter().any(|(entry, _)| !entry.payload.is_empty())
    }

    /// Looks at a member after its step. Returns the first promise that is broken.
    pub(crate) fn note(&mut self, raft: &Raft) -> Result<(), Promise> {
        if raft.is_leader() {
            self.note_leader(raft)?;
        }
        for index in 1..=raft.commit().0 {
            let entry = raft.log().entry(Index(index)).expect("the models trim nothing");
            match self.committed.get(offset(index)) {
                Some((committed, _)) if committed == entry => {}
                Some(_) => return Err(Promise::StateMachineSafety),
                None => self.committed.push((entry.clone(), raft.term())),
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
        for (entry, _) in earlier {
            if raft.log().entry(entry.index) != Some(entry) {
                return Err(Promise::LeaderCompleteness);
            }
        }
        Ok(())
    }

    /// Looks at all members together.
    pub(crate) fn survey<'a>(&self, members: impl Iterator<Item = &'a Member> + Clone) -> Result<(), Promise> {
        let voters = members.clone().count();
        for (entry, _) in &self.committed {
            let copies = members.clone().filter(|member| member.disk.entry(entry.index) == Some(entry)).count();
            if copies <= voters / 2 {
                return Err(Promise::CommittedIsDurable);
            }
        }
        for (at, one) in members.clone().enumerate() {
            for other in members.clone().skip(at + 1) {
                logs_match(&one.raft, &other.raft)?;
            }
        }
        Ok(())
    }
}

fn logs_match(one: &Raft, other: &Raft) -> Result<(), Promise> {
    let pairs: Vec<_> = one.log().entries().zip(other.log().entries()).collect();
    let agreed = pairs.iter().rposition(|(one, other)| one.mark() == other.mark());
    match agreed {
        Some(last) if pairs[..=last].iter().any(|(one, other)| one != other) => Err(Promise::LogMatching),
        Some(_) | None => Ok(()),
    }
}

fn offset(index: u64) -> usize {
    usize::try_from(index - 1).expect("the models' logs are short")
}
