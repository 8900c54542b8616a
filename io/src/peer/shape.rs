//! A look at a message's bytes before they are decoded: what two bytes each would turn into something a hundred times as large is counted first.

use super::bounds;
use super::codec::Malformed;
use crate::codec::wire::{self, Value};

const ENTRIES: u64 = 7;
const SNAPSHOT: u64 = 9;
const RESPONSES: u64 = 14;
/// In a snapshot.
const METADATA: u64 = 2;

/// Refuses what would decode into much more than its bytes.
pub(super) fn check(message: &[u8]) -> Result<(), Malformed> {
    let (mut entries, mut configuration) = (0, 0);
    for field in Fields(message) {
        let (number, body) = field?;
        match number {
            ENTRIES => entries += 1,
            SNAPSHOT => configuration += metadata_bytes(body)?,
            // Messages in messages are local to a process.
            RESPONSES => return Err(Malformed::Field(RESPONSES)),
            _ => {}
        }
    }
    at_most("entries", entries, bounds::FRAME_ENTRIES_MAX)?;
    at_most("bytes of a configuration", configuration, bounds::CONFIGURATION_BYTES_MAX)
}

fn metadata_bytes(snapshot: &[u8]) -> Result<usize, Malformed> {
    let mut bytes = 0;
    for field in Fields(snapshot) {
        let (number, body) = field?;
        if number == METADATA {
            bytes += body.len();
        }
    }
    Ok(bytes)
}

pub(super) const fn at_most(what: &'static str, found: usize, most: usize) -> Result<(), Malformed> {
    if found <= most { Ok(()) } else { Err(Malformed::TooLarge { what, found: found as u64, most: most as u64 }) }
}

/// The fields of a protobuf message: their numbers, and their bytes if they have a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = wire::field(&mut self.0).map(|(number, value)| match value {
            Value::Bytes(bytes) => (number, bytes),
            Value::Number(_) | Value::Fixed(_) => (number, &[][..]),
        });
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| Malformed::Protobuf("cut off".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_from_little_is_refused_before_it_is_decoded() {
        let entries = |count: usize| [0x3a, 0].repeat(count);
        assert_eq!(check(&entries(bounds::FRAME_ENTRIES_MAX)), Ok(()));
        assert!(matches!(
            check(&entries(bounds::FRAME_ENTRIES_MAX + 1)),
            Err(Malformed::TooLarge { what: "entries", .. })
        ));
        assert_eq!(check(&[0x72, 0]), Err(Malformed::Field(14)));
        // Many snapshots with a little configuration each are one when they are merged.
        let metadata = [&[0x4a, 0x84, 0x01, 0x12, 0x81, 0x01][..], &[0; 129]].concat();
        assert_eq!(check(&metadata), Ok(()));
        assert!(check(&metadata.repeat(600)).is_err());
    }

    #[test]
    fn cut_off_bytes_and_groups_are_refused() {
        for bytes in [&[0x08][..], &[0x3a, 5, 1], &[0xff], &[0x0b, 0x0c], &[0x09, 1], &[0x0d, 1], &[0x08; 1]] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
        assert!(check(&[[0x80; 10].as_slice(), &[1]].concat()).is_err());
        assert_eq!(check(&[0x08, 3, 0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8]), Ok(()));
    }
}
