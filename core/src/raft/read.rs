//! Reads without the log (Raft thesis, section 6.4): an index such that a state that includes it is not stale.
//!
//! Invariants: no read is answered before an entry of the leader's own term is committed, since only that proves the
//! commit index to be the newest – not even by a sole voter, whose disk may know an older one. And no read is answered
//! before a majority has answered a heartbeat that was sent after the read arrived. A token counts the rounds of one
//! leadership; an answer to it proves all earlier rounds, too (etcd issue 20418).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use super::config::mutated;
use super::effect::{Effect, Effects, Ignored, Refusal};
use super::message::Message;
use super::role::Role;
use super::{Raft, quorum};
use crate::ids::{Index, MemberId, Ticket};

/// The reads that wait at a leader.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Reads {
    /// Waiting for a round.
    gathered: Vec<Reader>,
    /// Waiting for their quorum, oldest first.
    rounds: VecDeque<Round>,
    /// How many rounds this leadership has started.
    issued: u64,
}

/// Who reads.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Reader {
    /// A client of this member.
    Own(Ticket),
    /// Another member for its clients.
    Other {
        /// The member.
        origin: MemberId,
        /// What the answer repeats.
        token: Bytes,
    },
}

/// Reads that one token proves.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Round {
    token: u64,
    index: Index,
    readers: Vec<Reader>,
}

impl Raft {
    /// A client of this member wants an index to read at.
    pub(super) fn on_read_asked(&mut self, ticket: Ticket, effects: &mut Effects) {
        match self.role {
            Role::Leader(_) => self.gather(Reader::Own(ticket), effects),
            Role::Follower(_) => self.forward_read(ticket, effects),
            Role::PreCandidate(_) | Role::Candidate(_) => {
                effects.push(Effect::Refused { ticket, why: Refusal::NoLeader });
            }
        }
    }

    /// Takes a read in, as a leader.
    pub(super) fn gather(&mut self, reader: Reader, effects: &mut Effects) {
        let limit = self.config.limits.reads_open_max as usize;
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader answers reads") };
        if limit <= leader.reads.open() {
            return effects.push(match reader {
                Reader::Own(ticket) => Effect::Refused { ticket, why: Refusal::TooMany },
                Reader::Other { origin, .. } => Effect::Ignored { from: Some(origin), why: Ignored::TooMany },
            });
        }
        leader.reads.gathered.push(reader);
        self.start_round(effects);
    }

    /// Starts a round for all that have gathered, unless enough rounds are under way.
    pub(super) fn start_round(&mut self, effects: &mut Effects) {
        if !self.committed_in_term() && !mutated!(self.config, ReadBeforeOwnCommit) {
            return;
        }
        let index = self.hard_state.commit;
        let alone = self.is_sole_voter() || mutated!(self.config, ReadWithoutQuorum);
        let rounds_max = self.config.limits.read_rounds_max as usize;
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader answers reads") };
        let reads = &mut leader.reads;
        if reads.gathered.is_empty() || rounds_max <= reads.rounds.len() {
            return;
        }
        let readers = core::mem::take(&mut reads.gathered);
        if alone {
            return self.answer(readers, index, effects);
        }
        reads.issued = if mutated!(self.config, ReadTokenReused) { 1 } else { reads.issued + 1 };
        reads.rounds.push_back(Round { token: reads.issued, index, readers });
        self.broadcast_heartbeat(effects);
    }

    /// A member answered a heartbeat that carried a token.
    pub(super) fn on_proof(&mut self, from: MemberId, context: &Bytes, effects: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { unreachable!("only a leader asks for proof") };
        let token = <[u8; 8]>::try_from(context.as_ref()).map(u64::from_le_bytes);
        let (Ok(token), Some(progress)) = (token, leader.members.get_mut(&from)) else {
            return self.ignore(Some(from), Ignored::Malformed, effects);
        };
        if leader.reads.issued < token {
            return self.ignore(Some(from), Ignored::Malformed, effects);
        }
        progress.proved = progress.proved.max(token);
        self.release_reads(effects);
    }

    /// Answers the reads that a majority has proved, and goes on with those that gathered meanwhile.
    pub(super) fn release_reads(&mut self, effects: &mut Effects) {
        let Role::Leader(leader) = &self.role else { unreachable!("only a leader answers reads") };
        let proved = quorum::reached(&self.configuration.voters, |voter| {
            leader.members.get(&voter).map_or(leader.reads.issued, |progress| progress.proved)
        });
        while let Some(round) = self.take_proved(proved) {
            self.answer(round.readers, round.index, effects);
        }
        self.start_round(effects);
    }

    fn take_proved(&mut self, proved: u64) -> Option<Round> {
        let Role::Leader(leader) = &mut self.role else { return None };
        leader.reads.rounds.pop_front_if(|round| round.token <= proved)
    }

    fn answer(&self, readers: Vec<Reader>, index: Index, effects: &mut Effects) {
        let term = self.hard_state.term;
        effects.extend(readers.into_iter().map(|reader| match reader {
            Reader::Own(ticket) => Effect::ReadReady { ticket, index },
            Reader::Other { origin, token } => {
                Effect::Send { to: origin, message: Message::ReadIndexAnswered { term, index, token } }
            }
        }));
    }
}

impl Reads {
    /// What a heartbeat carries: the newest token while a round is open, else nothing.
    #[must_use]
    pub(super) fn context(&self) -> Bytes {
        match self.rounds.back() {
            Some(round) => Bytes::copy_from_slice(&round.token.to_le_bytes()),
            None => Bytes::new(),
        }
    }

    /// How many reads wait.
    fn open(&self) -> usize {
        self.gathered.len() + self.rounds.iter().map(|round| round.readers.len()).sum::<usize>()
    }

    /// The own clients among those who wait.
    pub(super) fn into_tickets(self) -> impl Iterator<Item = Ticket> {
        let readers = self.rounds.into_iter().flat_map(|round| round.readers).chain(self.gathered);
        readers.filter_map(|reader| match reader {
            Reader::Own(ticket) => Some(ticket),
            Reader::Other { .. } => None,
        })
    }
}
