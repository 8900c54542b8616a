//! Messages in scripts, in the very form in which they are shown.

use detcd_core::raft::{Cause, Message, Proposal, Snapshot};

use super::words::Words;

/// The message that the rest of a line shows.
pub(super) fn parse(words: &mut Words<'_>) -> Result<Message, String> {
    Ok(match words.word()? {
        "propose" => {
            let mut proposals = Vec::new();
            while words.peek().is_some() {
                proposals.push(Proposal { kind: words.kind(), payload: words.text()? });
            }
            Message::Propose { proposals }
        }
        "transfer-leader" => Message::TransferLeader,
        "read-index" => {
            words.expect("for")?;
            Message::ReadIndex { origin: words.member()?, token: words.token()? }
        }
        kind => with_term(kind, words)?,
    })
}

fn with_term(kind: &str, words: &mut Words<'_>) -> Result<Message, String> {
    let term = words.term()?;
    Ok(match kind {
        "append" => {
            words.expect("after")?;
            let (previous, entries) = (words.mark()?, words.entries()?);
            words.expect("commit")?;
            Message::Append { term, previous, entries, commit: words.index()? }
        }
        "append-accepted" => {
            words.expect("upto")?;
            Message::AppendAccepted { term, index: words.index()? }
        }
        "append-rejected" => {
            words.expect("at")?;
            let index = words.index()?;
            words.expect("hint")?;
            Message::AppendRejected { term, index, hint: words.mark()? }
        }
        "vote-request" => {
            words.expect("last")?;
            let last = words.mark()?;
            let cause = if words.take("transfer") { Cause::Transfer } else { Cause::Timeout };
            Message::VoteRequest { term, last, cause }
        }
        "vote-granted" => Message::VoteGranted { term },
        "vote-refused" => Message::VoteRefused { term },
        "pre-vote-request" => {
            words.expect("last")?;
            Message::PreVoteRequest { term, last: words.mark()? }
        }
        "pre-vote-granted" => Message::PreVoteGranted { term },
        "pre-vote-refused" => Message::PreVoteRefused { term },
        "heartbeat" => {
            words.expect("commit")?;
            Message::Heartbeat { term, commit: words.index()?, context: words.token()? }
        }
        "heartbeat-answered" => Message::HeartbeatAnswered { term, context: words.token()? },
        "snapshot" => {
            let mark = words.mark()?;
            Message::Snapshot { term, snapshot: Snapshot { mark, configuration: words.configuration()? } }
        }
        "timeout-now" => Message::TimeoutNow { term },
        "read-index-answered" => {
            words.expect("index")?;
            Message::ReadIndexAnswered { term, index: words.index()?, token: words.token()? }
        }
        _ => return Err(format!("`{kind}` is no message")),
    })
}
