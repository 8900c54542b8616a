//! The fields of protobuf messages, for what is read too often to go the long way round a generated message.
//!
//! Whoever reads by these takes only what every member writes, and leaves everything else to the generated code, errors included.

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Value<'a> {
    /// A number of one to ten bytes.
    Number(u64),
    /// Bytes, or a message in it.
    Bytes(&'a [u8]),
    /// Four or eight bytes; no message between members has any.
    Fixed(&'a [u8]),
}

/// Takes a number off the front; `None` if there is none.
pub(crate) fn number(bytes: &mut &[u8]) -> Option<u64> {
    if let [byte @ ..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            // The tenth has room for one bit.
            let fits = at < 9 || *byte < 2;
            *bytes = &bytes[at + 1..];
            return fits.then_some(value);
        }
    }
    None
}

/// Takes a field off the front, its number first; `None` if there is none. Groups are no part of any message.
pub(crate) fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = number(bytes)?;
    let value = match key & 7 {
        0 => Value::Number(number(bytes)?),
        1 => Value::Fixed(take(bytes, 8)?),
        2 => {
            let length = usize::try_from(number(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => Value::Fixed(take(bytes, 4)?),
        _ => return None,
    };
    Some((key >> 3, value))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// How many bytes a number takes where it is written as short as can be.
pub(crate) const fn number_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use prost::encoding::encode_varint;

    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1, u64::MAX - shift] {
                let mut written = Vec::new();
                encode_varint(value, &mut written);
                assert_eq!(written.len(), number_bytes(value), "{value}");
                written.push(0x80);
                let mut rest = &written[..];
                assert_eq!(number(&mut rest), Some(value));
                assert_eq!(rest, [0x80]);
                assert_eq!(number(&mut &written[..number_bytes(value) - 1]), None, "{value} cut off");
            }
        }
        assert_eq!(number(&mut &[&[0xff; 9][..], &[2]].concat()[..]), None, "more than 64 bits");
        assert_eq!(number(&mut &[&[0x80; 10][..], &[1]].concat()[..]), None, "more than ten bytes");
    }

    #[test]
    fn fields_are_read_one_after_the_other() {
        let mut rest = &[0x08, 3, 0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x3a, 2, 7, 9, 0x0b][..];
        assert_eq!(field(&mut rest), Some((1, Value::Number(3))));
        assert_eq!(field(&mut rest), Some((1, Value::Fixed(&[1, 2, 3, 4]))));
        assert_eq!(field(&mut rest), Some((1, Value::Fixed(&[1, 2, 3, 4, 5, 6, 7, 8]))));
        assert_eq!(field(&mut rest), Some((7, Value::Bytes(&[7, 9]))));
        assert_eq!(field(&mut rest), None, "a group");
        for cut_off in [&[0x08][..], &[0x3a, 5, 1], &[0xff], &[0x09, 1], &[0x0d, 1], &[]] {
            assert_eq!(field(&mut &*cut_off), None, "{cut_off:?}");
        }
    }
}
