//! One message for several that say the same in pieces.
//!
//! An engine speaks input by input: a hundred proposals of one turn are a hundred appends to each member. The shell carries
//! out a turn's effects together, so that appends which follow each other can travel as one, and acknowledgements as their
//! newest. Invariant: nothing else to the same member is overtaken, and what arrives is what the single messages would have
//! come to, all in a row.

use alloc::vec::Vec;

use super::effect::{Effect, Effects};
use super::entry::Entry;
use super::message::Message;
use crate::ids::{Index, MemberId};

/// The newest message to a member: where it stands, and the bytes of entries that it carries by now.
struct Newest {
    to: MemberId,
    at: usize,
    bytes: u64,
}

/// Joins messages to the same member that follow each other, up to `bytes_max` of entries in one.
pub fn gather(effects: &mut Effects, bytes_max: u64) {
    if effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count() < 2 {
        return;
    }
    let mut newest: Vec<Newest> = Vec::new();
    let mut gathered = Effects::with_capacity(effects.len());
    for effect in effects.drain(..) {
        let Effect::Send { to, message } = effect else {
            gathered.push(effect);
            continue;
        };
        let (bytes, at) = (size(&message), gathered.len());
        let Some(last) = newest.iter_mut().find(|newest| newest.to == to) else {
            newest.push(Newest { to, at, bytes });
            gathered.push(Effect::Send { to, message });
            continue;
        };
        let Effect::Send { message: earlier, .. } = &mut gathered[last.at] else {
            unreachable!("a message stood there")
        };
        let fits = last.bytes + bytes <= bytes_max;
        match if fits { join(earlier, message) } else { Err(message) } {
            Ok(()) => last.bytes += bytes,
            Err(message) => {
                (last.at, last.bytes) = (at, bytes);
                gathered.push(Effect::Send { to, message });
            }
        }
    }
    *effects = gathered;
}

/// The bytes of entries in a message.
fn size(message: &Message) -> u64 {
    match message {
        Message::Append { entries, .. } => entries.iter().map(Entry::size).sum(),
        Message::Propose { proposals } => proposals.iter().map(|proposal| proposal.payload.len() as u64).sum(),
        _ => 0,
    }
}

/// Lets `earlier` say what `later` says, too, or gives it back.
fn join(earlier: &mut Message, later: Message) -> Result<(), Message> {
    match (&mut *earlier, later) {
        (
            Message::Append { term, previous, entries, commit },
            Message::Append { term: later_term, previous: follows, entries: more, commit: later_commit },
        ) if *term == later_term && entries.last().map_or(*previous, Entry::mark) == follows => {
            entries.extend(more);
            *commit = later_commit;
            Ok(())
        }
        (Message::Propose { proposals }, Message::Propose { proposals: more }) => {
            proposals.extend(more);
            Ok(())
        }
        (Message::AppendAccepted { term, index }, Message::AppendAccepted { term: later_term, index: later_index })
            if *term == later_term && Index::ZERO < *index && *index <= later_index =>
        {
            *index = later_index;
            Ok(())
        }
        (_, later) => Err(later),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;

    use super::super::entry::{EntryKind, Mark};
    use super::super::message::Proposal;
    use super::*;
    use crate::ids::{Term, Ticket};
    use crate::raft::{Refusal, Sync, Write};

    const HERE: MemberId = MemberId(2);
    const THERE: MemberId = MemberId(3);

    fn append(previous: u64, entries: u64, commit: u64) -> Message {
        let entry = |i| Entry {
            term: Term(2),
            index: Index(previous + i),
            kind: EntryKind::Normal,
            payload: Bytes::from_static(b"0123456789"),
        };
        Message::Append {
            term: Term(2),
            previous: Mark::new(Index(previous), Term(2)),
            entries: (1..=entries).map(entry).collect(),
            commit: Index(commit),
        }
    }

    fn accepted(index: u64) -> Message {
        Message::AppendAccepted { term: Term(2), index: Index(index) }
    }

    fn propose(payloads: &[&'static str]) -> Message {
        let proposal = |payload: &&'static str| Proposal {
            kind: EntryKind::Normal,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        Message::Propose { proposals: payloads.iter().map(proposal).collect() }
    }

    fn gathered(messages: Vec<(MemberId, Message)>) -> Vec<(MemberId, Message)> {
        let mut effects = messages.into_iter().map(|(to, message)| Effect::Send { to, message }).collect();
        gather(&mut effects, 1 << 20);
        let sent = |effect| match effect {
            Effect::Send { to, message } => (to, message),
            other => panic!("{other:?}"),
        };
        effects.into_iter().map(sent).collect()
    }

    #[test]
    fn appends_in_a_row_travel_as_one_with_the_newest_commit() {
        let said = vec![
            (HERE, append(4, 1, 3)),
            (THERE, append(4, 1, 3)),
            (HERE, append(5, 2, 3)),
            (HERE, append(7, 0, 5)),
            (THERE, append(5, 2, 3)),
        ];
        assert_eq!(gathered(said), [(HERE, append(4, 3, 5)), (THERE, append(4, 3, 3))]);
    }

    #[test]
    fn appends_with_a_gap_an_overlap_or_another_term_stay_apart() {
        let other_term = |message| match message {
            Message::Append { previous, entries, commit, .. } => {
                Message::Append { term: Term(3), previous, entries, commit }
            }
            other => other,
        };
        for later in [append(6, 1, 3), append(4, 2, 3), other_term(append(5, 1, 3))] {
            let said = vec![(HERE, append(4, 1, 3)), (HERE, later)];
            assert_eq!(gathered(said.clone()), said);
        }
    }

    #[test]
    fn nothing_else_is_overtaken() {
        let beat = Message::Heartbeat { term: Term(2), commit: Index(3), context: Bytes::new() };
        let said = vec![(HERE, append(4, 1, 3)), (HERE, beat), (HERE, append(5, 1, 3)), (HERE, append(6, 1, 3))];
        let [first, second, ..] = said.clone().try_into().map(|said: [_; 4]| said).expect("four");
        assert_eq!(gathered(said), [first, second, (HERE, append(5, 2, 3))]);
    }

    #[test]
    fn acknowledgements_end_in_their_newest_unless_they_only_tell_a_term() {
        let said = vec![(HERE, accepted(3)), (HERE, accepted(5)), (HERE, accepted(5))];
        assert_eq!(gathered(said), [(HERE, accepted(5))]);
        for said in [[accepted(0), accepted(5)], [accepted(5), accepted(3)]] {
            let said: Vec<_> = said.map(|message| (HERE, message)).into();
            assert_eq!(gathered(said.clone()), said);
        }
    }

    #[test]
    fn proposals_go_together_in_their_order() {
        let said = vec![(HERE, propose(&["a"])), (HERE, propose(&["b", "c"])), (HERE, propose(&["a"]))];
        assert_eq!(gathered(said), [(HERE, propose(&["a", "b", "c", "a"]))]);
    }

    #[test]
    fn a_message_grows_up_to_its_bound() {
        let each = size(&append(0, 1, 0));
        let mut effects: Effects = (0..5).map(|i| Effect::Send { to: HERE, message: append(i, 1, 0) }).collect();
        gather(&mut effects, each * 2);
        let expected = [append(0, 2, 0), append(2, 2, 0), append(4, 1, 0)];
        assert_eq!(effects, expected.map(|message| Effect::Send { to: HERE, message }));
    }

    #[test]
    fn what_is_not_a_message_keeps_its_place() {
        let write =
            || Effect::Append(Write { snapshot: None, entries: vec![], hard_state: None, sync: Sync::NotNeeded });
        let refused = || Effect::Refused { ticket: Ticket(1), why: Refusal::NoLeader };
        let send = |message| Effect::Send { to: HERE, message };
        let mut effects = vec![write(), send(append(0, 1, 0)), refused(), send(append(1, 1, 0)), write()];
        gather(&mut effects, 1 << 20);
        assert_eq!(effects, [write(), send(append(0, 2, 0)), refused(), write()]);
    }
}
