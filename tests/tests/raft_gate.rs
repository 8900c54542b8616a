//! Whatever peers send, in whatever order: a member never panics, its commit index never goes back, and what it hands to
//! the state machine has no gap.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::raft::{
    Cause, Config, Configuration, Effect, Entry, EntryKind, Input, Mark, Message, Proposal, Raft, Restored, Timer,
};
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
        1 => (term(), index(), bytes()).prop_map(|(term, index, token)| Message::ReadIndexAnswered { term, index, token }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        12 => (0..5_u64, message()).prop_map(|(from, message)| Input::Received { from: MemberId(from), message }),
        3 => prop::sample::select(Timer::ALL.to_vec()).prop_map(Input::Expired),
        4 => (1..4_u32).prop_map(|writes| Input::Persisted { writes }),
        1 => (kind(), bytes()).prop_map(|(kind, payload)| Input::Proposed { ticket: Ticket(1), kind, payload, only_in: None }),
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
        Message::PreVoteGranted { .. } => Message::PreVoteGranted { term: present.next() },
        Message::Heartbeat { commit, context, .. } => Message::Heartbeat { term: present, commit, context },
        Message::HeartbeatAnswered { context, .. } => Message::HeartbeatAnswered { term: present, context },
        Message::ReadIndexAnswered { index, token, .. } => Message::ReadIndexAnswered { term: present, index, token },
        message => message,
    }
}

fn live(voters: u64, pre_vote: bool, inputs: Vec<(Input, bool)>) {
    let config = Config { pre_vote, ..Config::new(MemberId(1)) };
    let mut raft =
        Raft::restore(config, Restored::empty(Configuration::of_voters((1..=voters).map(MemberId)))).unwrap();
    let mut effects = Vec::new();
    raft.start(&mut effects);
    let mut handed = Index::ZERO;
    for (input, sensible) in inputs {
        let commit = raft.commit();
        let input = match input {
            Input::Received { from, message } if sensible => {
                Input::Received { from, message: of_term(raft.term(), message) }
            }
            Input::Persisted { writes } => {
                let writes = writes.min(u32::try_from(raft.writing()).unwrap());
                if writes == 0 {
                    continue;
                }
                Input::Persisted { writes }
            }
            input => input,
        };
        effects.clear();
        raft.step(input, &mut effects);
        assert!(commit <= raft.commit());
        while let Some(batch) = effects.iter().find_map(|effect| match effect {
            Effect::Apply { entries } => Some(entries.clone()),
            _ => None,
        }) {
            for entry in batch {
                assert_eq!(entry.index, handed.next());
                handed = entry.index;
            }
            assert!(handed <= raft.persisted());
            effects.clear();
            raft.step(Input::Applied { upto: handed }, &mut effects);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_stops_a_member(
        voters in 1..4_u64,
        pre_vote in any::<bool>(),
        inputs in prop::collection::vec((input(), prop::bool::weighted(0.8)), 0..60),
    ) {
        live(voters, pre_vote, inputs);
    }
}
