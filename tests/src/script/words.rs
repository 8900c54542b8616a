//! A line of a script as words: quoted text is one word, brackets and commas only separate.

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Configuration, Entry, EntryKind, Mark};

/// The rest of a line.
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) const fn new(line: &'a str) -> Self {
        Self { rest: line }
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let mut quoted = false;
        let end = self
            .rest
            .find(|c: char| {
                quoted ^= c == '"';
                c == ' ' && !quoted
            })
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// What has not been read yet.
    pub(super) const fn rest(&self) -> &'a str {
        self.rest
    }

    /// Leaves nothing to read.
    pub(super) const fn finish(&mut self) {
        self.rest = "";
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        Self { rest: self.rest }.next()
    }

    /// The next word if it is this one.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn word(&mut self) -> Result<&'a str, String> {
        self.next().ok_or_else(|| "a word is missing".into())
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.take(word) { Ok(()) } else { Err(format!("`{word}` expected")) }
    }

    pub(super) fn number(&mut self) -> Result<u64, String> {
        number(self.word()?)
    }

    pub(super) fn member(&mut self) -> Result<MemberId, String> {
        self.number().map(MemberId)
    }

    pub(super) fn index(&mut self) -> Result<Index, String> {
        self.number().map(Index)
    }

    /// `t3`.
    pub(super) fn term(&mut self) -> Result<Term, String> {
        let word = self.word()?;
        number(word.strip_prefix('t').ok_or("a term like t3 expected")?).map(Term)
    }

    /// `5@2`.
    pub(super) fn mark(&mut self) -> Result<Mark, String> {
        mark(self.word()?)
    }

    /// `conf`, `conf-v2` or nothing.
    pub(super) fn kind(&mut self) -> EntryKind {
        if self.take("conf") {
            EntryKind::ConfChange
        } else if self.take("conf-v2") {
            EntryKind::ConfChangeV2
        } else {
            EntryKind::Normal
        }
    }

    /// Numbers as far as there are any.
    pub(super) fn members(&mut self) -> BTreeSet<MemberId> {
        let mut members = BTreeSet::new();
        while let Some(member) = self.peek().and_then(|word| number(word).ok()) {
            members.insert(MemberId(member));
            self.next();
        }
        members
    }

    /// `of 1 2 3 learners 4`.
    pub(super) fn configuration(&mut self) -> Result<Configuration, String> {
        self.expect("of")?;
        let voters = self.members();
        let learners = if self.take("learners") { self.members() } else { BTreeSet::new() };
        Ok(Configuration { voters, learners })
    }

    /// `"x"`.
    pub(super) fn text(&mut self) -> Result<Bytes, String> {
        let word = self.word()?;
        let inner = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
        inner.map(|inner| Bytes::copy_from_slice(inner.as_bytes())).ok_or_else(|| "quoted text expected".into())
    }

    /// Eight bytes in hexadecimal after `token`, or nothing.
    pub(super) fn token(&mut self) -> Result<Bytes, String> {
        if !self.take("token") {
            return Ok(Bytes::new());
        }
        let word = self.word()?;
        let byte = |at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..word.len()).step_by(2).map(byte).collect();
        bytes.map(Bytes::from).ok_or_else(|| "a token in hexadecimal expected".into())
    }

    /// `[5@2 "x", 6@2 conf "y"]`.
    pub(super) fn entries(&mut self) -> Result<Vec<Entry>, String> {
        let rest = self.rest.trim_start().strip_prefix('[').ok_or("entries in brackets expected")?;
        let (inside, rest) = rest.split_once(']').ok_or("a closing bracket expected")?;
        self.rest = rest;
        inside.split(", ").filter(|entry| !entry.is_empty()).map(entry).collect()
    }
}

fn entry(text: &str) -> Result<Entry, String> {
    let mut words = Words::new(text);
    let mark = words.mark()?;
    Ok(Entry { term: mark.term, index: mark.index, kind: words.kind(), payload: words.text()? })
}

fn mark(word: &str) -> Result<Mark, String> {
    let (index, term) = word.split_once('@').ok_or("a place like 5@2 expected")?;
    Ok(Mark::new(Index(number(index)?), Term(number(term)?)))
}

pub(super) fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}
