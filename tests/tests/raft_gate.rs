//! Whatever peers send, in whatever order: a member never panics, its commit index never goes back, and what it hands to
//! the state machine has no gap.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::raft::{
    Cause, Change, Config, Configuration, Effect, Effects, Entry, EntryKind, Input, Mark, Message, Proposal, Raft,
    Snapshot, Timer,
};
use detcd_tests::disk::first_life;
use proptest::prelude::*;

/// Mostly sensible, sometimes at the very end.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..8_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => u64::MAX / 2 - 1..=u64::MAX / 2 + 1]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let token = number().prop_map(|token| Bytes::copy_from_slice(&token.to_le_bytes()));
    prop_oneof![Just(Bytes::new()), token, prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)]
}

fn mark() -> impl Strategy<Value = Mark> {
    (number(), number()).prop_map(|(index, term)| Mark::new(Index(index), Term(term)))
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![4 => Just(EntryKind::Normal), 1 => Just(EntryKind::ConfChange), 1 => Just(EntryKind::ConfChangeV2)]
}

/// Entries that follow a place, unless they do not.
fn append() -> impl Strategy<Value = Message> {
    let entries = prop::collection::vec((0..2_u64, kind(), bytes(), prop::bool::weighted(0.05)), 0..4);
    (number(), mark(), entries, number()).prop_map(|(term, previous, entries, commit)| {
        let mut last = previous;
        let entry = |(step, kind, payload, odd)| {
            last =
                Mark::new(Index(last.index.0.wrapping_add(1 + u64::from(odd))), Term(last.term.0.wrapping_add(step)));
            Entry { term: last.term, index: last.index, kind, payload }
        };
        let entries = entries.into_iter().map(entry).collect();
        Message::Append { term: Term(term), previous, entries, commit: Index(commit) }
    })
}

/// A snapshot that mostly has the member under test in it.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let members = || prop::collection::btree_set(prop_oneof![8 => 1..5_u64, 1 => Just(0)].prop_map(MemberId), 0..4);
    (mark(), members(), members(), prop::bool::weighted(0.8)).prop_map(|(mark, mut voters, learners, sensible)| {
        if sensible {
            voters.insert(MemberId(1));
            voters.remove(&MemberId(0));
        }
        let learners = learners.into_iter().filter(|id| !sensible || (!voters.contains(id) && id.0 != 0)).collect();
        Snapshot { mark, configuration: Configuration { voters, learners } }
    })
}

fn change() -> impl Strategy<Value = Option<Change>> {
    (1..5_u64, 0..4_u8).prop_map(|(id, kind)| match kind {
        0 => Some(Change::AddVoter(MemberId(id))),
        1 => Some(Change::AddLearner(MemberId(id))),
        2 => Some(Change::Remove(MemberId(id))),
        _ => None,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let proposals = prop::collection::vec((kind(), bytes()), 0..3);
    let cause = prop_oneof![Just(Cause::Timeout), Just(Cause::Transfer)];
    let term = || number().prop_map(Term);
    let index = || number().prop_map(Index);
    prop_oneof![
        6 => append(),
        2 => (term(), index()).prop_map(|(term, index)| Message::AppendAccepted { term, index }),
        2 => (term(), index(), mark()).prop_map(|(term, index, hint)| Message::AppendRejected { term, index, hint }),
        1 => (term(), mark(), cause).prop_map(|(term, last, cause)| Message::VoteRequest { term, last, cause }),
        3 => term().prop_map(|term| Message::VoteGranted { term }),
        1 => term().prop_map(|term| Message::VoteRefused { term }),
        1 => (term(), mark()).prop_map(|(term, last)| Message::PreVoteRequest { term, last }),
        3 => term().prop_map(|term| Message::PreVoteGranted { term }),
        1 => term().prop_map(|term| Message::PreVoteRefused { term }),
        2 => (term(), index(), bytes()).prop_map(|(term, commit, context)| Message::Heartbeat { term, commit, context }),
        2 => (term(), bytes()).prop_map(|(term, context)| Message::HeartbeatAnswered { term, context }),
        1 => proposals.prop_map(|proposals| Message::Propose {
            proposals: proposals.into_iter().map(|(kind, payload)| Proposal { kind, payload }).collect(),
        }),
        1 => (number(), bytes()).prop_map(|(origin, token)| Message::ReadIndex { origin: MemberId(origin), token }),
        2 => (term(), snapshot()).prop_map(|(term, snapshot)| Message::Snapshot { term, snapshot }),
        1 => Just(Message::TransferLeader),
        1 => term().prop_map(|term| Message::TimeoutNow { term }),
        1 => (term(), index(), bytes()).prop_map(|(term, index, token)| Message::ReadIndexAnswered { term, index, token }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        12 => (0..5_u64, message()).prop_map(|(from, message)| Input::Received { from: MemberId(from), message }),
        3 => prop::sample::select(Timer::ALL.to_vec()).prop_map(Input::Expired),
        4 => (1..4_u32).prop_map(|writes| Input::Persisted { writes }),
        1 => (kind(), bytes()).prop_map(|(kind, payload)| Input::Proposed { ticket: Ticket(1), kind, payload, only_in: None }),
        1 => (0..5_u64).prop_map(|to| Input::TransferAsked { to: MemberId(to) }),
        1 => (0..5_u64).prop_map(|to| Input::SnapshotMade { to: MemberId(to), snapshot: None }),
        1 => (0..5_u64, any::<bool>()).prop_map(|(to, is_received)| Input::SnapshotSent { to: MemberId(to), is_received }),
        1 => number().prop_map(|ticket| Input::ReadAsked { ticket: Ticket(ticket) }),
        1 => number().prop_map(|upto| Input::Trimmed { upto: Index(upto) }),
        1 => number().prop_map(|member| Input::Unreachable { member: MemberId(member) }),
    ]
}

/// The message as somebody of this very term would send it.
fn of_term(present: Term, message: Message) -> Message {
    match message {
        Message::Append { previous, entries, commit, .. } => {
            Message::Append { term: present, previous, entries, commit }
        }
        Message::AppendAccepted { index, .. } => Message::AppendAccepted { term: present, index },
        Message::AppendRejected { index, hint, .. } => Message::AppendRejected { term: present, index, hint },
        Message::VoteGranted { .. } => Message::VoteGranted { term: present },
        Message::TimeoutNow { .. } => Message::TimeoutNow { term: present },
        Message::Snapshot { mut snapshot, .. } => {
            snapshot.mark.term = snapshot.mark.term.min(present);
            Message::Snapshot { term: present, snapshot }
        }
        Message::PreVoteGranted { .. } => Message::PreVoteGranted { term: present.next() },
        Message::Heartbeat { commit, context, .. } => Message::Heartbeat { term: present, commit, context },
        Message::HeartbeatAnswered { context, .. } => Message::HeartbeatAnswered { term: present, context },
        Message::ReadIndexAnswered { index, token, .. } => Message::ReadIndexAnswered { term: present, index, token },
        message => message,
    }
}

/// A member and the shell around it.
struct Shell {
    raft: Raft,
    effects: Effects,
    /// How far entries or snapshots were handed to the state machine.
    handed: Index,
    /// What the changes of the membership come to, over and over.
    changes: Vec<Option<Change>>,
}

impl Shell {
    fn step(&mut self, input: Input) {
        let commit = self.raft.commit();
        self.raft.step(input, &mut self.effects);
        assert!(commit <= self.raft.commit());
    }

    /// Carries out what is asked for, and what follows from that.
    fn settle(&mut self) {
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Apply { entries } => self.apply(&entries),
                Effect::Install { snapshot } => {
                    assert!(self.handed < snapshot.mark.index);
                    assert!(snapshot.mark.index <= self.raft.persisted());
                    self.handed = snapshot.mark.index;
                    self.step(Input::Applied { upto: self.handed });
                }
                Effect::MakeSnapshot { to } => {
                    let mark = Mark::new(self.handed, self.raft.log().term_at(self.handed).unwrap());
                    let snapshot = Some(Snapshot { mark, configuration: self.raft.configuration().clone() });
                    self.step(Input::SnapshotMade { to, snapshot });
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            assert_eq!(entry.index, self.handed.next());
            self.handed = entry.index;
            if entry.kind == EntryKind::ConfChange && !self.changes.is_empty() {
                self.changes.rotate_left(1);
                self.step(Input::ConfigurationChanged { index: entry.index, change: self.changes[0] });
            }
        }
        assert!(self.handed <= self.raft.persisted());
        self.step(Input::Applied { upto: self.handed });
    }
}

fn live(voters: u64, pre_vote: bool, changes: Vec<Option<Change>>, inputs: Vec<(Input, bool)>) {
    let config = Config { pre_vote, ..Config::new(MemberId(1)) };
    let configuration = Configuration::of_voters((1..=voters).map(MemberId));
    let raft = Raft::restore(config, first_life(configuration)).unwrap();
    let mut shell = Shell { raft, effects: Vec::new(), handed: Index::ZERO, changes };
    shell.raft.start(&mut shell.effects);
    for (input, sensible) in inputs {
        shell.settle();
        let input = match input {
            Input::Received { from, message } if sensible => {
                Input::Received { from, message: of_term(shell.raft.term(), message) }
            }
            Input::Persisted { writes } => {
                let writes = writes.min(u32::try_from(shell.raft.writing()).unwrap());
                if writes == 0 {
                    continue;
                }
                Input::Persisted { writes }
            }
            input => input,
        };
        shell.step(input);
    }
    shell.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_stops_a_member(
        voters in 0..4_u64,
        pre_vote in any::<bool>(),
        changes in prop::collection::vec(change(), 0..5),
        inputs in prop::collection::vec((input(), prop::bool::weighted(0.8)), 0..60),
    ) {
        live(voters, pre_vote, changes, inputs);
    }
}
