//! What the engine wants done, in the words of a conversation.

use std::fmt;

use detcd_core::raft::{Effect, Entry, HardState, Sync, Write};

/// An effect that is to be read.
pub(super) struct Told<'a>(pub(super) &'a Effect);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Effect::Append(write) => write!(f, "write {}", Writing(write)),
            Effect::Send { to, message } => write!(f, "->{to} {message}"),
            Effect::Arm { timer, within } => write!(f, "arm {timer:?} {}..={}", within.min.0, within.max.0),
            Effect::Apply { entries } => write!(f, "apply {}", List(entries)),
            Effect::MakeSnapshot { to } => write!(f, "make-snapshot for {to}"),
            Effect::Install { snapshot } => write!(f, "install {snapshot}"),
            Effect::ReadReady { ticket, index } => write!(f, "read-ready {} index {index}", ticket.0),
            Effect::Refused { ticket, why } => write!(f, "refused {} {why:?}", ticket.0),
            Effect::LeaderChanged { term, leader: Some(leader) } => write!(f, "leader t{term} is {leader}"),
            Effect::LeaderChanged { term, leader: None } => write!(f, "leader t{term} unknown"),
            Effect::Ignored { from: Some(from), why } => write!(f, "ignored {from}: {why:?}"),
            Effect::Ignored { from: None, why } => write!(f, "ignored: {why:?}"),
        }
    }
}

struct Writing<'a>(&'a Write);

impl fmt::Display for Writing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Write { snapshot, entries, hard_state, sync } = self.0;
        if let Some(snapshot) = snapshot {
            write!(f, "snapshot {snapshot} then ")?;
        }
        write!(f, "{}", List(entries))?;
        if let Some(HardState { term, vote, commit }) = hard_state {
            let vote = vote.map_or_else(|| "-".to_owned(), |vote| vote.to_string());
            write!(f, " hard t{term} vote {vote} commit {commit}")?;
        }
        match sync {
            Sync::Required => write!(f, " sync"),
            Sync::NotNeeded => Ok(()),
        }
    }
}

/// Entries in brackets.
struct List<'a>(&'a [Entry]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", entries.join(", "))
    }
}
