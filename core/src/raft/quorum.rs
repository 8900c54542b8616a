//! Majorities: any two of them share a member. Pure functions, with a slow twin in the tests.

use alloc::collections::BTreeSet;

use crate::ids::MemberId;

/// The least number of members that is more than half.
#[must_use]
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority of the voters has reached.
///
/// Voters are few, so comparing each with each beats sorting a copy.
pub fn reached<V: Copy + Default + Ord>(voters: &BTreeSet<MemberId>, value: impl Fn(MemberId) -> V) -> V {
    let quorum = majority(voters.len());
    let mut best = V::default();
    for candidate in voters.iter().map(|&voter| value(voter)) {
        if best < candidate && quorum <= voters.iter().filter(|&&voter| candidate <= value(voter)).count() {
            best = candidate;
        }
    }
    best
}

/// What voters have answered so far. The first answer of each counts.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Votes {
    granted: BTreeSet<MemberId>,
    refused: BTreeSet<MemberId>,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// A majority agreed.
    Won,
    /// A majority can no longer agree.
    Lost,
    /// Neither yet.
    Open,
}

/// One voter's answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Answer {
    /// Yes.
    Granted,
    /// No.
    Refused,
}

impl Votes {
    /// Notes an answer; `false` if this voter had answered before.
    pub fn note(&mut self, voter: MemberId, answer: Answer) -> bool {
        if self.granted.contains(&voter) || self.refused.contains(&voter) {
            return false;
        }
        match answer {
            Answer::Granted => self.granted.insert(voter),
            Answer::Refused => self.refused.insert(voter),
        }
    }

    /// How the election stands among these voters; answers of others do not count.
    #[must_use]
    pub fn verdict(&self, voters: &BTreeSet<MemberId>) -> Verdict {
        let quorum = majority(voters.len());
        let granted = self.granted.intersection(voters).count();
        let refused = self.refused.intersection(voters).count();
        if quorum <= granted {
            Verdict::Won
        } else if voters.len() - refused < quorum {
            Verdict::Lost
        } else {
            Verdict::Open
        }
    }
}
