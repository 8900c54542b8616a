//! Messages in the form that members give them, read in one go. There are many of these, and nearly no others: snapshots, and what somebody made up.

use bytes::Bytes;
use detcd_proto::raftpb;

use super::bounds;
use crate::codec::wire::{self, Value};

/// The message, unless it takes a closer look.
pub(super) fn parse(bytes: &Bytes) -> Option<raftpb::Message> {
    let mut message = raftpb::Message::default();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match wire::field(&mut rest)? {
            (1, Value::Number(kind)) => message.r#type = Some(i32::try_from(kind).ok()?),
            (2, Value::Number(to)) => message.to = Some(to),
            (3, Value::Number(from)) => message.from = Some(from),
            (4, Value::Number(term)) => message.term = Some(term),
            (5, Value::Number(term)) => message.log_term = Some(term),
            (6, Value::Number(index)) => message.index = Some(index),
            (7, Value::Bytes(of)) if message.entries.len() < bounds::FRAME_ENTRIES_MAX => {
                message.entries.push(entry(bytes, of)?);
            }
            (8, Value::Number(commit)) => message.commit = Some(commit),
            (10, Value::Number(is_refused @ 0..=1)) => message.reject = Some(is_refused == 1),
            (11, Value::Number(hint)) => message.reject_hint = Some(hint),
            (12, Value::Bytes(context)) => message.context = Some(bytes.slice_ref(context)),
            _ => return None,
        }
    }
    Some(message)
}

/// An entry that lies in `bytes`.
fn entry(bytes: &Bytes, of: &[u8]) -> Option<raftpb::Entry> {
    let mut entry = raftpb::Entry::default();
    let mut rest = of;
    while !rest.is_empty() {
        match wire::field(&mut rest)? {
            (1, Value::Number(kind)) => entry.r#type = Some(i32::try_from(kind).ok()?),
            (2, Value::Number(term)) => entry.term = Some(term),
            (3, Value::Number(index)) => entry.index = Some(index),
            (4, Value::Bytes(data)) => entry.data = Some(bytes.slice_ref(data)),
            _ => return None,
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn entries() -> impl Strategy<Value = raftpb::Entry> {
        use proptest::option::of;
        (of(any::<i32>()), of(any::<u64>()), of(any::<u64>()), of(proptest::collection::vec(any::<u8>(), 0..20)))
            .prop_map(|(r#type, term, index, data)| raftpb::Entry { r#type, term, index, data: data.map(Bytes::from) })
    }

    fn messages() -> impl Strategy<Value = raftpb::Message> {
        use proptest::option::of;
        let numbers = proptest::collection::vec(of(any::<u64>()), 7);
        let bytes = of(proptest::collection::vec(any::<u8>(), 0..20));
        let rest = (of(0_i32..30), numbers, of(any::<bool>()), bytes, proptest::collection::vec(entries(), 0..4));
        rest.prop_map(|(r#type, numbers, reject, context, entries)| raftpb::Message {
            r#type,
            to: numbers[0],
            from: numbers[1],
            term: numbers[2],
            log_term: numbers[3],
            index: numbers[4],
            commit: numbers[5],
            reject_hint: numbers[6],
            reject,
            context: context.map(Bytes::from),
            entries,
            ..raftpb::Message::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_read_in_one_go_is_what_the_generated_code_reads(message in messages(), cut in 0usize..200, wrong in any::<(u16, u8)>()) {
            let bytes = message.encode_to_vec();
            let is_odd = message.entries.iter().any(|entry| entry.r#type.is_some_and(|kind| kind < 0));
            prop_assert_eq!(parse(&bytes.clone().into()), (!is_odd).then_some(message));
            // Whatever else it takes it reads in the same way.
            let mut bytes = bytes;
            bytes.truncate(cut.max(1));
            if let Some(byte) = bytes.len().checked_sub(1).map(|last| usize::from(wrong.0).min(last)) {
                bytes[byte] = wrong.1;
            }
            if let Some(read) = parse(&bytes.clone().into()) {
                prop_assert_eq!(raftpb::Message::decode(&bytes[..]), Ok(read));
            }
        }
    }

    #[test]
    fn what_takes_a_closer_look_is_left_alone() {
        let entries = |count: usize| Bytes::from([0x3a, 0].repeat(count));
        assert_eq!(parse(&entries(bounds::FRAME_ENTRIES_MAX)).unwrap().entries.len(), bounds::FRAME_ENTRIES_MAX);
        assert_eq!(parse(&entries(bounds::FRAME_ENTRIES_MAX + 1)), None);
        for odd in [&[0x4a, 0][..], &[0x72, 0], &[0x50, 2], &[0x0a, 0], &[0x78, 1], &[0x3a, 2, 0x28, 1]] {
            assert_eq!(parse(&Bytes::copy_from_slice(odd)), None, "{odd:?}");
        }
    }
}
