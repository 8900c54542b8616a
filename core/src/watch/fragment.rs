//! How a large response is cut into pieces, by etcd's rule: a piece may reach the limit only if it holds a single event.

use alloc::vec;
use alloc::vec::Vec;

/// Cuts a response of these events: how many go into each piece.
///
/// `events` are the bytes that each event adds; `whole` and `piece` are the bytes of a response without events, the latter with the mark that more follows.
#[must_use]
pub fn pieces(events: &[usize], whole: usize, piece: usize, limit: usize) -> Vec<usize> {
    if events.len() < 2 || whole + events.iter().sum::<usize>() < limit {
        return vec![events.len()];
    }
    let mut pieces = Vec::new();
    let (mut count, mut bytes) = (0, piece);
    for event in events {
        if 0 < count && limit <= bytes + event {
            pieces.push(count);
            (count, bytes) = (0, piece);
        }
        count += 1;
        bytes += event;
    }
    pieces.push(count);
    pieces
}
