//! Every clever function of Raft beside an obvious one: quorums, the search for agreement, the leader's view of a member.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::raft::entry::Run;
use detcd_core::raft::log::Log;
use detcd_core::raft::progress::{Flow, Progress, Shipment};
use detcd_core::raft::quorum::{self, Answer, Verdict, Votes};
use detcd_core::raft::{Config, Configuration, Effects, Entry, EntryKind, Input, Limits, Mark, Message, Raft, Timer};
use detcd_tests::disk::first_life;
use proptest::prelude::*;

fn voters(count: u64) -> BTreeSet<MemberId> {
    (1..=count).map(MemberId).collect()
}

/// Sorts the values: what the middle one has reached, a majority has.
fn reached_slow(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) / 2]
}

#[test]
fn a_quorum_has_reached_what_the_middle_has() {
    for count in 1..=5_u32 {
        for code in 0..6_u64.pow(count) {
            let values: Vec<u64> = (0..count).map(|at| code / 6_u64.pow(at) % 6).collect();
            let value = |member: MemberId| values[usize::try_from(member.0).unwrap() - 1];
            assert_eq!(quorum::reached(&voters(count.into()), value), reached_slow(&values), "{values:?}");
        }
    }
}

/// A member that was elected by its voters, with a log of this length.
fn leader(configuration: Configuration, length: u64) -> Raft {
    let mut effects = Effects::new();
    let config = Config { pre_vote: false, ..Config::new(MemberId(1)) };
    let mut raft = Raft::restore(config, first_life(configuration.clone())).unwrap();
    raft.step(Input::Expired(Timer::Election), &mut effects);
    raft.step(Input::Persisted { writes: 1 }, &mut effects);
    for &from in configuration.voters.iter().filter(|voter| **voter != MemberId(1)) {
        raft.step(Input::Received { from, message: Message::VoteGranted { term: Term(1) } }, &mut effects);
    }
    for _ in 1..length {
        let (ticket, payload) = (Ticket(7), Bytes::from_static(b"x"));
        raft.step(Input::Proposed { ticket, kind: EntryKind::Normal, payload, only_in: None }, &mut effects);
    }
    assert!(raft.is_leader());
    raft
}

proptest! {
    /// Whatever learners acknowledge, a leader commits what the middle of the voters has.
    #[test]
    fn learners_count_for_nothing(
        voters in 1..6_u64,
        learners in 0..4_u64,
        answers in prop::collection::vec((2..9_u64, 1..6_u64), 0..30),
        own in 0..5_u32,
    ) {
        let mut configuration = Configuration::of_voters((1..=voters).map(MemberId));
        configuration.learners.extend((voters + 1..=voters + learners).map(MemberId));
        let mut raft = leader(configuration, 5);
        let mut has = vec![0; usize::try_from(voters).unwrap()];
        let mut effects = Effects::new();
        for (from, index) in answers {
            let message = Message::AppendAccepted { term: Term(1), index: Index(index) };
            raft.step(Input::Received { from: MemberId(from), message }, &mut effects);
            if from <= voters {
                let at = usize::try_from(from - 1).unwrap();
                has[at] = index.max(has[at]);
            }
        }
        if 0 < own {
            raft.step(Input::Persisted { writes: own }, &mut effects);
            has[0] = u64::from(own);
        }
        prop_assert_eq!(raft.commit().0, reached_slow(&has));
    }
}

/// Tries all ways in which the missing answers may turn out.
fn verdict_slow(answers: &[Option<Answer>]) -> Verdict {
    let missing = answers.iter().filter(|answer| answer.is_none()).count();
    let granted = answers.iter().filter(|answer| **answer == Some(Answer::Granted)).count();
    let wins: BTreeSet<bool> = (0..=missing).map(|more| answers.len() < (granted + more) * 2).collect();
    match (wins.contains(&true), wins.contains(&false)) {
        (true, false) => Verdict::Won,
        (false, true) => Verdict::Lost,
        _ => Verdict::Open,
    }
}

#[test]
fn an_election_is_decided_when_no_answer_can_change_it() {
    for count in 1..=7_u32 {
        for code in 0..3_u32.pow(count) {
            let answer = |at| [None, Some(Answer::Granted), Some(Answer::Refused)][(code / 3_u32.pow(at) % 3) as usize];
            let answers: Vec<_> = (0..count).map(answer).collect();
            let mut votes = Votes::default();
            for (member, answer) in (1..).zip(&answers) {
                assert!(answer.is_none_or(|answer| votes.note(MemberId(member), answer)));
                // A second answer and a stranger's answer change nothing.
                assert!(answer.is_none() || !votes.note(MemberId(member), Answer::Granted));
                votes.note(MemberId(100 + member), Answer::Granted);
            }
            assert_eq!(votes.verdict(&voters(count.into())), verdict_slow(&answers), "{answers:?}");
        }
    }
}

prop_compose! {
    /// A log after a base; terms never go back.
    fn some_log()(base in 0..5_u64, base_term in 1..4_u64, steps in prop::collection::vec((0..3_u64, 0..4_usize), 0..12)) -> Log {
        let base_term = if base == 0 { 0 } else { base_term };
        let mut term = base_term.max(1);
        let entries = (base + 1..).zip(steps).map(|(index, (step, size))| {
            term += step;
            Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, payload: Bytes::from(vec![7; size * 8]) }
        });
        Log::new(Run::parse(Mark::new(Index(base), Term(base_term)), entries.collect()).unwrap())
    }
}

/// Walks back, place by place.
fn newest_within_slow(log: &Log, index: Index, term: Term) -> Option<Mark> {
    let newest = index.0.min(log.last().index.0);
    let mut places = (log.base().index.0..=newest).rev();
    let found = places.find(|&place| log.term_at(Index(place)).unwrap() <= term)?;
    Some(Mark::new(Index(found), log.term_at(Index(found)).unwrap()))
}

/// Takes entry after entry until one does not fit.
fn slice_slow(log: &Log, after: u64, upto: u64, entries_max: usize, bytes_max: u64) -> Vec<Entry> {
    let mut taken: Vec<Entry> = Vec::new();
    for entry in log.entries().filter(|entry| after < entry.index.0 && entry.index.0 <= upto) {
        let bytes: u64 = taken.iter().map(Entry::size).sum();
        if taken.len() == entries_max || (!taken.is_empty() && bytes_max < bytes + entry.size()) {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

proptest! {
    #[test]
    fn the_place_where_logs_may_agree_is_found(log in some_log(), index in 0..20_u64, term in 0..25_u64) {
        let found = log.newest_within(Index(index), Term(term));
        prop_assert_eq!(found, newest_within_slow(&log, Index(index), Term(term)));
    }

    #[test]
    fn a_slice_is_as_long_as_it_may_be(log in some_log(), a in 0..13_u64, b in 0..13_u64, count in 1..6_usize, eighths in 0..40_u64) {
        let (base, last) = (log.base().index.0, log.last().index.0);
        let (after, upto) = ((base + a).min(last), (base + b).min(last));
        // Small units, so that entries often fit exactly.
        let bytes = eighths * 8;
        let slice = log.slice(Index(after), Index(upto), count, bytes);
        prop_assert_eq!(slice, slice_slow(&log, after, upto, count, bytes));
    }

    #[test]
    fn a_trimmed_and_truncated_log_keeps_its_middle(log in some_log(), a in 0..13_u64, b in 0..13_u64) {
        let (base, last) = (log.base().index.0, log.last().index.0);
        let (one, other) = ((base + a).min(last), (base + b).min(last));
        let (from, upto) = (one.min(other), one.max(other));
        let middle: Vec<_> = log.entries().filter(|e| from < e.index.0 && e.index.0 <= upto).cloned().collect();
        let (base, last) = (log.term_at(Index(from)), log.term_at(Index(upto)));
        let mut cut = log;
        cut.truncate(Index(upto));
        cut.trim(Index(from));
        prop_assert_eq!(cut.entries().cloned().collect::<Vec<_>>(), middle);
        prop_assert_eq!((cut.base().index, Some(cut.base().term)), (Index(from), base));
        prop_assert_eq!((cut.last().index, Some(cut.last().term)), (Index(upto), last));
    }
}

/// A member as its leader sees it, with everything ever sent kept in a list.
#[derive(Debug)]
struct SlowProgress {
    matched: u64,
    next: u64,
    probing: bool,
    waiting: bool,
    sent: Vec<(u64, u64)>,
    /// What is known of a snapshot for the member: nothing, that it is being made, or where it stands.
    snapshot: Option<Option<u64>>,
    heard: bool,
}

impl SlowProgress {
    fn is_full(&self, limits: &Limits) -> bool {
        let open: Vec<_> = self.sent.iter().filter(|(upto, _)| self.matched < *upto).collect();
        let bytes: u64 = open.iter().map(|(_, bytes)| bytes).sum();
        self.snapshot.is_some()
            || !self.probing
                && (limits.in_flight_messages_max as usize <= open.len() || limits.in_flight_bytes_max <= bytes)
    }

    fn probe(&mut self, next: u64) {
        *self = Self { next, probing: true, waiting: false, sent: Vec::new(), snapshot: None, ..*self };
    }

    fn stream(&mut self) {
        *self = Self { probing: false, waiting: false, sent: Vec::new(), snapshot: None, ..*self };
    }

    fn on_sent(&mut self, entries: u64, bytes: u64) {
        if 0 < entries && self.probing {
            self.waiting = true;
        } else if 0 < entries {
            self.next += entries;
            self.sent.push((self.next - 1, bytes));
        }
    }

    fn on_accepted(&mut self, index: u64, base: u64) -> bool {
        if index < self.matched || (index == self.matched && !self.probing) {
            return false;
        }
        self.matched = index;
        if self.snapshot.is_some() || self.probing {
            self.next = index + 1;
        }
        if self.probing || (self.snapshot.is_some() && base <= index) {
            self.stream();
        }
        self.next = self.next.max(index + 1);
        true
    }

    fn on_rejected(&mut self, index: u64, hint: u64) -> bool {
        if self.snapshot.is_some() {
            return false;
        }
        if self.probing {
            if index + 1 != self.next {
                return false;
            }
            self.probe(index.min(hint + 1).max(self.matched + 1));
        } else {
            if index <= self.matched {
                return false;
            }
            self.probe(self.matched + 1);
        }
        true
    }

    fn on_entries_gone(&mut self) -> bool {
        self.probe(self.matched + 1);
        self.waiting = true;
        if self.heard {
            (self.probing, self.snapshot) = (false, Some(None));
        }
        self.heard
    }

    /// Only what is on its way can arrive, and only what is asked for can be made.
    fn on_snapshot(&mut self, arrived: Option<u64>) {
        self.probe(arrived.unwrap_or(0).max(self.matched) + 1);
        self.waiting = true;
    }
}

#[derive(Clone, Debug)]
enum Event {
    Sent {
        entries: u64,
        bytes: u64,
    },
    Accepted {
        upto: u64,
        base: u64,
    },
    Rejected {
        back: u64,
        hint: u64,
    },
    HeartbeatAnswered,
    Unreachable,
    /// The leader looked for its quorum.
    Looked,
    EntriesGone,
    SnapshotMade {
        at: u64,
    },
    SnapshotSent {
        is_received: bool,
    },
}

fn some_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_u64, 0..50_u64).prop_map(|(entries, bytes)| Event::Sent { entries, bytes }),
        3 => (0..20_u64, 0..20_u64).prop_map(|(upto, base)| Event::Accepted { upto, base }),
        2 => (0..4_u64, 0..20_u64).prop_map(|(back, hint)| Event::Rejected { back, hint }),
        1 => Just(Event::HeartbeatAnswered),
        1 => Just(Event::Unreachable),
        1 => Just(Event::Looked),
        2 => Just(Event::EntriesGone),
        2 => (0..20_u64).prop_map(|at| Event::SnapshotMade { at }),
        2 => any::<bool>().prop_map(|is_received| Event::SnapshotSent { is_received }),
    ]
}

proptest! {
    #[test]
    fn a_member_is_seen_as_by_someone_who_forgets_nothing(
        start in 1..6_u64,
        events in prop::collection::vec(some_event(), 0..60),
    ) {
        let limits = Limits { in_flight_messages_max: 3, in_flight_bytes_max: 80, ..Limits::DEFAULT };
        let mut quick = Progress::new(Index(start));
        let mut slow = SlowProgress { matched: 0, next: start, probing: true, waiting: false, sent: Vec::new(), snapshot: None, heard: false };
        for event in events {
            match event {
                Event::Sent { entries, bytes } if !quick.is_full(&limits) => {
                    quick.on_sent(Index(quick.next.0 - 1 + entries), bytes, Index(0));
                    slow.on_sent(entries, bytes);
                }
                Event::Sent { .. } => {}
                Event::Accepted { upto, base } => {
                    prop_assert_eq!(quick.on_accepted(Index(upto), Index(base)), slow.on_accepted(upto, base));
                }
                Event::Rejected { back, hint } => {
                    let index = (quick.next.0 - 1).saturating_sub(back);
                    prop_assert_eq!(quick.on_rejected(Index(index), Index(hint)), slow.on_rejected(index, hint));
                }
                Event::HeartbeatAnswered => {
                    quick.on_heartbeat_answered();
                    (slow.waiting, slow.heard) = (false, true);
                }
                Event::Unreachable => {
                    quick.on_unreachable();
                    if !slow.probing && slow.snapshot.is_none() {
                        slow.probe(slow.matched + 1);
                    }
                }
                Event::Looked => (quick.heard, slow.heard) = (false, false),
                Event::EntriesGone if slow.snapshot.is_none() => {
                    prop_assert_eq!(quick.on_entries_gone(), slow.on_entries_gone());
                }
                Event::SnapshotMade { at } if slow.snapshot == Some(None) => {
                    quick.flow = Flow::Snapshot(Shipment::Sent(Index(at)));
                    slow.snapshot = Some(Some(at));
                }
                Event::SnapshotSent { is_received } if slow.snapshot.flatten().is_some() => {
                    if is_received { quick.on_snapshot_received() } else { quick.on_snapshot_failed() }
                    slow.on_snapshot(slow.snapshot.flatten().filter(|_| is_received));
                }
                Event::EntriesGone | Event::SnapshotMade { .. } | Event::SnapshotSent { .. } => {}
            }
            prop_assert_eq!((quick.matched.0, quick.next.0), (slow.matched, slow.next));
            prop_assert_eq!(matches!(quick.flow, Flow::Probe(_)), slow.probing);
            prop_assert_eq!(matches!(quick.flow, Flow::Snapshot(_)), slow.snapshot.is_some());
            prop_assert_eq!(quick.is_full(&limits), slow.is_full(&limits));
            prop_assert_eq!(quick.is_paused(&limits), slow.is_full(&limits) || (slow.probing && slow.waiting));
            prop_assert!(quick.matched < quick.next);
        }
    }
}
