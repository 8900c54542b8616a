//! Logs for fuzzers whose frames check out: since each frame carries a checksum, changed bytes hardly ever say something else.
//!
//! An item of an input is three bytes – what, and two small numbers – and a rest. Entries follow each other, and a mark is, as members write
//! them, of an entry that is committed and stays, or of one behind the end; what else the log says is free.

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term, Ticket};
use detcd_core::membership::Member;
use detcd_core::raft::{Configuration, Entry, EntryKind, HardState, Mark};

use super::entry::{self, Marked, Metadata};
use super::record;
use crate::codec::conf_change::{self, Proposed};

/// A log of one file under way.
pub(crate) struct Made {
    bytes: Vec<u8>,
    crc: u32,
    /// The newest mark, and the terms of the entries behind it.
    marked: Mark,
    terms: Vec<Term>,
    /// Whom numbers mean.
    members: [Member; 4],
}

impl Made {
    /// A log of the first of these members that holds nothing yet.
    pub(crate) fn begin(members: [Member; 4], cluster: u64) -> Self {
        let (mut bytes, mut crc) = (Vec::new(), 0);
        record::encode_crc(&mut bytes, crc);
        entry::put_metadata(&mut bytes, &mut crc, Metadata { member: members[0].id, cluster });
        entry::put_mark(&mut bytes, &mut crc, &Marked { mark: Mark::ZERO, conf_state: None });
        Self { bytes, crc, marked: Mark::ZERO, terms: Vec::new(), members }
    }

    /// A log of nobody in particular, made of items with one byte of length each.
    pub(crate) fn of(input: &[u8]) -> Self {
        let members = [1, 2, 3, 4].map(|id| Member { id: MemberId(id), ..Member::default() });
        let (mut made, mut rest) = (Self::begin(members, 9), input);
        while let Some((length, behind)) = rest.split_first() {
            let (item, behind) = behind.split_at(usize::from(*length).min(behind.len()));
            made.put(item);
            rest = behind;
        }
        made
    }

    /// Adds what an item says. One too short says nothing.
    pub(crate) fn put(&mut self, item: &[u8]) {
        let [what, first, second, rest @ ..] = item else { return };
        let member = self.members[usize::from(*first) % self.members.len()].clone();
        let change = |change: Proposed<'_>| conf_change::encode(Ticket(7), member.id, &change);
        match what % 11 {
            0 | 1 => self.entry(*second, EntryKind::Normal, Bytes::copy_from_slice(rest)),
            2 => self.entry(*second, EntryKind::ConfChange, change(Proposed::AddVoter(&member))),
            3 => self.entry(*second, EntryKind::ConfChange, change(Proposed::AddLearner(&member))),
            4 => self.entry(*second, EntryKind::ConfChange, change(Proposed::Promote)),
            5 => self.entry(*second, EntryKind::ConfChange, change(Proposed::Remove)),
            6 => self.entry(*second, EntryKind::ConfChange, change(Proposed::Update(&member))),
            7 => self.entry(*second, EntryKind::ConfChange, Bytes::copy_from_slice(rest)),
            8 => self.mark(*first, *second),
            9 => self.overwrite(*first),
            _ => self.state(member.id, *second),
        }
    }

    /// The file.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn last(&self) -> Mark {
        let term = self.terms.last().copied().unwrap_or(self.marked.term);
        Mark::new(Index(self.marked.index.0 + self.terms.len() as u64), term)
    }

    /// The next entry; seldom in a later term.
    fn entry(&mut self, later: u8, kind: EntryKind, payload: Bytes) {
        let last = self.last();
        let (index, term) = (last.index.next(), Term(last.term.0.max(1) + u64::from(later % 8 == 7)));
        self.terms.push(term);
        entry::put_entry(&mut self.bytes, &mut self.crc, &Entry { term, index, kind, payload });
    }

    /// A snapshot at one of the newest entries, or at one that this log never had.
    fn mark(&mut self, back: u8, voters: u8) {
        let back = usize::from(back % 8);
        if back == 7 {
            self.marked = Mark::new(Index(self.last().index.0 + 3), Term(self.last().term.0.max(1)));
            self.terms.clear();
        } else if let Some(place) = self.terms.len().checked_sub(back + 1) {
            self.marked = Mark::new(Index(self.marked.index.0 + place as u64 + 1), self.terms[place]);
            self.terms.drain(..=place);
        }
        self.state(self.members[0].id, 0);
        let voters = self.members[..usize::from(voters) % self.members.len()].iter().map(|member| member.id).collect();
        let conf_state = Some(entry::conf_state(&Configuration { voters, ..Configuration::default() }));
        entry::put_mark(&mut self.bytes, &mut self.crc, &Marked { mark: self.marked, conf_state });
    }

    /// The entries that follow take the place of some.
    fn overwrite(&mut self, back: u8) {
        self.terms.truncate(self.terms.len().saturating_sub(usize::from(back % 8)));
    }

    /// A hard state that commits all, or nearly all, or more, but nothing less than what is marked.
    fn state(&mut self, vote: MemberId, back: u8) {
        let last = self.last();
        let commit = match back % 8 {
            7 => Index(last.index.0 + 1),
            back => Index(last.index.0.saturating_sub(back.into())).max(self.marked.index),
        };
        let state = HardState { term: last.term, vote: Some(vote), commit };
        entry::put_state(&mut self.bytes, &mut self.crc, &state);
    }
}
