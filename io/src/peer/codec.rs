//! The engine's messages as etcd's protobuf bytes, and back.
//!
//! What is written is written as etcd 3.7 writes it: the fields of a kind always, zero or not, and no others. Readers take an absent field as zero, and older members write zeros everywhere.
//!
//! What is read is something a member could have said, or an error: no term that nobody can follow, no entries with a gap, nothing that decodes into much more than its bytes. The kinds that etcd's
//! library uses inside one process are dropped when they come from outside, as etcd does.

use std::collections::BTreeSet;

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::entry::{Broken, Run};
use detcd_core::raft::{Cause, Configuration, Entry, EntryKind, Mark, Message, Proposal, Snapshot};
use detcd_proto::raftpb;
use detcd_proto::raftpb::MessageType;
use prost::Message as _;

use super::{bounds, plain, shape};

/// A message with both of its ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Envelope {
    /// Who said it, or began it: a read that is passed on keeps its first sender.
    pub from: MemberId,
    /// Who is meant.
    pub to: MemberId,
    /// What was said.
    pub message: Message,
}

/// What bytes from another member came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Received {
    /// Something for the engine.
    Message(Envelope),
    /// The connection lives; nothing is said.
    LinkHeartbeat,
    /// Something that no member acts on.
    Dropped(Dropped),
}

/// Why a message is dropped although it can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Dropped {
    /// A kind that never leaves a process.
    #[error("a message of a local kind, {0}")]
    Local(i32),
    /// A kind of a later version.
    #[error("a message of an unknown kind, {0}")]
    UnknownKind(i32),
    /// A snapshot that comes without the store that it speaks of.
    #[error("a snapshot without its store")]
    SnapshotAlone,
    /// It does not say who sent it.
    #[error("a message of nobody, of kind {0}")]
    OfNobody(i32),
    /// It is for another member.
    #[error("a message for member {0}")]
    ForAnother(MemberId),
    /// It came over the connection of one member and claims to be another's.
    #[error("a message of member {0} over the connection of another")]
    OfAnother(MemberId),
}

/// Why bytes are no message that a member could have sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Not the protobuf message at all.
    #[error("no message: {0}")]
    Protobuf(String),
    /// Longer than anything that is sent.
    #[error("{what} of {found} where {most} are the most")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// What was announced or found.
        found: u64,
        /// What is taken.
        most: u64,
    },
    /// A field that no member sets.
    #[error("a message with field {0}, which is never sent")]
    Field(u64),
    /// A term that no cluster came to, or none where there must be one.
    #[error("term {0} in a message of kind {1}")]
    Term(u64, i32),
    /// A place that no log came to.
    #[error("index {0}")]
    Index(u64),
    /// Entries that no leader wrote.
    #[error("entries that no leader wrote: {0}")]
    Entries(Broken),
    /// An entry's term is beyond the message's.
    #[error("entries of a later term than the message's")]
    EntryTerm,
    /// An entry that nobody proposes.
    #[error("an entry of kind {0} with {1} bytes")]
    Entry(i32, usize),
    /// A snapshot of nothing, or of no configuration that the log can come to.
    #[error("a snapshot without {0}")]
    Snapshot(&'static str),
    /// A proposal or a read with too few or too many entries.
    #[error("{0} entries in a message of kind {1}")]
    EntryCount(usize, i32),
    /// Something else than an append on the stream of appends.
    #[error("a message of kind {0} on the stream of appends")]
    NotAnAppend(i32),
    /// A frame of a kind that there is not.
    #[error("a frame of kind {0}")]
    Frame(u8),
    /// The stream of appends began with a frame that continues.
    #[error("a frame that continues nothing")]
    NothingToContinue,
}

/// Terms and places beyond this come from no cluster that ever ran; refusing them keeps the next one countable.
const NUMBER_MAX: u64 = u64::MAX / 2;
/// What a candidate says whose leader asked it to stand.
const TRANSFER: &[u8] = b"CampaignTransfer";

/// The message as it goes over the wire.
#[must_use]
pub fn wire(from: MemberId, to: MemberId, message: &Message) -> raftpb::Message {
    let blank = |kind: MessageType, term: Option<Term>| raftpb::Message {
        r#type: Some(kind.into()),
        to: Some(to.0),
        from: Some(from.0),
        term: term.map(|term| term.0),
        ..raftpb::Message::default()
    };
    let of = |kind| blank(kind, message.term());
    let refused = |kind| raftpb::Message { reject: Some(true), ..of(kind) };
    let last =
        |kind, last: &Mark| raftpb::Message { log_term: Some(last.term.0), index: Some(last.index.0), ..of(kind) };
    let context = |bytes: &Bytes| (!bytes.is_empty()).then(|| bytes.clone());
    let token = |bytes: &Bytes| vec![raftpb::Entry { data: Some(bytes.clone()), ..raftpb::Entry::default() }];
    match message {
        Message::Propose { proposals } => {
            raftpb::Message { entries: proposals.iter().map(proposed).collect(), ..of(MessageType::MsgProp) }
        }
        Message::Append { previous, entries, commit, .. } => raftpb::Message {
            entries: entries.iter().map(entry).collect(),
            commit: Some(commit.0),
            ..last(MessageType::MsgApp, previous)
        },
        Message::AppendAccepted { index, .. } => {
            raftpb::Message { index: Some(index.0), ..of(MessageType::MsgAppResp) }
        }
        Message::AppendRejected { index, hint, .. } => raftpb::Message {
            index: Some(index.0),
            log_term: Some(hint.term.0),
            reject_hint: Some(hint.index.0),
            ..refused(MessageType::MsgAppResp)
        },
        Message::VoteRequest { last: mark, cause, .. } => raftpb::Message {
            context: (*cause == Cause::Transfer).then(|| Bytes::from_static(TRANSFER)),
            ..last(MessageType::MsgVote, mark)
        },
        Message::VoteGranted { .. } => of(MessageType::MsgVoteResp),
        Message::VoteRefused { .. } => refused(MessageType::MsgVoteResp),
        Message::PreVoteRequest { last: mark, .. } => last(MessageType::MsgPreVote, mark),
        Message::PreVoteGranted { .. } => of(MessageType::MsgPreVoteResp),
        Message::PreVoteRefused { .. } => refused(MessageType::MsgPreVoteResp),
        Message::Heartbeat { commit, context: bytes, .. } => {
            raftpb::Message { commit: Some(commit.0), context: context(bytes), ..of(MessageType::MsgHeartbeat) }
        }
        Message::HeartbeatAnswered { context: bytes, .. } => {
            raftpb::Message { context: context(bytes), ..of(MessageType::MsgHeartbeatResp) }
        }
        Message::Snapshot { snapshot: of_log, .. } => {
            raftpb::Message { snapshot: Some(snapshot(of_log)), ..of(MessageType::MsgSnap) }
        }
        Message::TransferLeader => of(MessageType::MsgTransferLeader),
        Message::TimeoutNow { .. } => of(MessageType::MsgTimeoutNow),
        Message::ReadIndex { origin, token: bytes } => {
            raftpb::Message { from: Some(origin.0), entries: token(bytes), ..of(MessageType::MsgReadIndex) }
        }
        Message::ReadIndexAnswered { index, token: bytes, .. } => {
            raftpb::Message { index: Some(index.0), entries: token(bytes), ..of(MessageType::MsgReadIndexResp) }
        }
    }
}

/// What says that a connection lives.
#[must_use]
pub fn link_heartbeat() -> raftpb::Message {
    raftpb::Message { r#type: Some(MessageType::MsgHeartbeat.into()), ..raftpb::Message::default() }
}

/// An entry as it goes over the wire: as it is in the log.
pub(super) fn entry(entry: &Entry) -> raftpb::Entry {
    raftpb::Entry {
        r#type: kind_number(entry.kind),
        term: Some(entry.term.0),
        index: Some(entry.index.0),
        data: (!entry.payload.is_empty()).then(|| entry.payload.clone()),
    }
}

/// A snapshot as it goes over the wire, without the data that etcd's old store would have.
fn snapshot(snapshot: &Snapshot) -> raftpb::Snapshot {
    let list = |members: &BTreeSet<MemberId>| members.iter().map(|member| member.0).collect();
    let Configuration { voters, learners } = &snapshot.configuration;
    let conf_state = raftpb::ConfState {
        voters: list(voters),
        learners: list(learners),
        auto_leave: Some(false),
        ..raftpb::ConfState::default()
    };
    let metadata = raftpb::SnapshotMetadata {
        conf_state: Some(conf_state),
        index: Some(snapshot.mark.index.0),
        term: Some(snapshot.mark.term.0),
    };
    raftpb::Snapshot { data: None, metadata: Some(metadata) }
}

fn proposed(proposal: &Proposal) -> raftpb::Entry {
    let data = Some(proposal.payload.clone());
    raftpb::Entry { r#type: kind_number(proposal.kind), data, ..raftpb::Entry::default() }
}

/// etcd's number of an entry's kind; the normal one is left out.
const fn kind_number(kind: EntryKind) -> Option<i32> {
    match kind {
        EntryKind::Normal => None,
        EntryKind::ConfChange => Some(1),
        EntryKind::ConfChangeV2 => Some(2),
    }
}

/// Reads a message.
///
/// # Errors
/// The bytes are nothing that a member could have sent.
pub fn read(bytes: Bytes) -> Result<Received, Malformed> {
    meaning(parse(bytes)?)
}

/// Reads the protobuf message, if its shape is one that a member sends.
///
/// # Errors
/// The bytes are no such message.
pub fn parse(bytes: Bytes) -> Result<raftpb::Message, Malformed> {
    if let Some(message) = plain::parse(&bytes) {
        return Ok(message);
    }
    shape::check(&bytes)?;
    raftpb::Message::decode(bytes).map_err(|error| Malformed::Protobuf(error.to_string()))
}

/// Reads an entry of the log.
pub(super) fn parse_entry(bytes: Bytes) -> Result<Entry, Malformed> {
    raftpb::Entry::decode(bytes).map_err(|error| Malformed::Protobuf(error.to_string())).and_then(logged)
}

/// What a message says.
///
/// # Errors
/// It is nothing that a member could have said.
pub fn meaning(mut wire: raftpb::Message) -> Result<Received, Malformed> {
    let number = wire.r#type.unwrap_or_default();
    let Ok(kind) = MessageType::try_from(number) else {
        return Ok(Received::Dropped(Dropped::UnknownKind(number)));
    };
    let (from, to) = (MemberId(wire.from.unwrap_or_default()), MemberId(wire.to.unwrap_or_default()));
    if kind == MessageType::MsgHeartbeat && from.0 == 0 && to.0 == 0 {
        return Ok(Received::LinkHeartbeat);
    }
    if from.0 == 0 {
        return Ok(Received::Dropped(Dropped::OfNobody(number)));
    }
    let entries = std::mem::take(&mut wire.entries);
    let is_refused = wire.reject.unwrap_or_default();
    let index = index(wire.index)?;
    let message = match kind {
        MessageType::MsgProp => propose(&wire, entries)?,
        MessageType::MsgReadIndex => {
            no_term(&wire)?;
            Message::ReadIndex { origin: from, token: token(entries, number)? }
        }
        MessageType::MsgApp => {
            let previous = Mark::new(index, later_term(wire.log_term, number)?);
            let entries = entries.into_iter().map(logged).collect::<Result<_, _>>()?;
            append(term(&wire)?, previous, entries, self::index(wire.commit)?)?
        }
        MessageType::MsgAppResp if is_refused => {
            let hint = Mark::new(self::index(wire.reject_hint)?, later_term(wire.log_term, number)?);
            Message::AppendRejected { term: term(&wire)?, index, hint }
        }
        MessageType::MsgAppResp => Message::AppendAccepted { term: term(&wire)?, index },
        MessageType::MsgVote | MessageType::MsgPreVote => ballot(&wire, kind, index)?,
        MessageType::MsgVoteResp if is_refused => Message::VoteRefused { term: term(&wire)? },
        MessageType::MsgVoteResp => Message::VoteGranted { term: term(&wire)? },
        MessageType::MsgPreVoteResp if is_refused => Message::PreVoteRefused { term: term(&wire)? },
        MessageType::MsgPreVoteResp => Message::PreVoteGranted { term: term(&wire)? },
        MessageType::MsgHeartbeat => {
            Message::Heartbeat { term: term(&wire)?, commit: self::index(wire.commit)?, context: context(&wire)? }
        }
        MessageType::MsgHeartbeatResp => Message::HeartbeatAnswered { term: term(&wire)?, context: context(&wire)? },
        MessageType::MsgReadIndexResp => {
            Message::ReadIndexAnswered { term: term(&wire)?, index, token: token(entries, number)? }
        }
        MessageType::MsgSnap => Message::Snapshot { term: term(&wire)?, snapshot: of_log(&wire)? },
        MessageType::MsgTimeoutNow => Message::TimeoutNow { term: term(&wire)? },
        MessageType::MsgTransferLeader => {
            no_term(&wire)?;
            Message::TransferLeader
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp
        | MessageType::MsgForgetLeader => return Ok(Received::Dropped(Dropped::Local(number))),
    };
    Ok(Received::Message(Envelope { from, to, message }))
}

impl Received {
    /// As far as it may come to this member, `local`, over a connection of `remote`: who said it, and what.
    ///
    /// A proposal or a read may be passed on and name its first sender, but whoever passed it on is who said it.
    ///
    /// # Errors
    /// It is dropped.
    pub fn over_link(self, remote: MemberId, local: MemberId) -> Result<Option<Message>, Dropped> {
        match self {
            Self::LinkHeartbeat => Ok(None),
            Self::Dropped(why) => Err(why),
            Self::Message(Envelope { message: Message::Snapshot { .. }, .. }) => Err(Dropped::SnapshotAlone),
            Self::Message(Envelope { to, .. }) if to != local => Err(Dropped::ForAnother(to)),
            Self::Message(Envelope { from, message, .. }) if from != remote && !is_passed_on(&message) => {
                Err(Dropped::OfAnother(from))
            }
            Self::Message(Envelope { message, .. }) => Ok(Some(message)),
        }
    }
}

/// Whether members hand such a message on without changing who it is from.
const fn is_passed_on(message: &Message) -> bool {
    matches!(message, Message::Propose { .. } | Message::ReadIndex { .. })
}

/// An append of a leader of `term`, if it could have been one.
pub(super) fn append(term: Term, previous: Mark, entries: Vec<Entry>, commit: Index) -> Result<Message, Malformed> {
    let run = Run::parse(previous, entries).map_err(Malformed::Entries)?;
    if term < run.last().term {
        return Err(Malformed::EntryTerm);
    }
    Ok(Message::Append { term, previous, entries: run.into_entries(), commit })
}

fn propose(wire: &raftpb::Message, entries: Vec<raftpb::Entry>) -> Result<Message, Malformed> {
    no_term(wire)?;
    if entries.is_empty() {
        return Err(Malformed::EntryCount(0, MessageType::MsgProp.into()));
    }
    let proposals = entries.into_iter().map(|entry| {
        let (kind, payload) = content(entry.r#type, entry.data)?;
        if payload.is_empty() {
            return Err(Malformed::Entry(entry.r#type.unwrap_or_default(), 0));
        }
        Ok(Proposal { kind, payload })
    });
    Ok(Message::Propose { proposals: proposals.collect::<Result<_, _>>()? })
}

fn ballot(wire: &raftpb::Message, kind: MessageType, index: Index) -> Result<Message, Malformed> {
    let (term, last) = (term(wire)?, Mark::new(index, later_term(wire.log_term, kind.into())?));
    if kind == MessageType::MsgPreVote {
        return Ok(Message::PreVoteRequest { term, last });
    }
    let is_transfer = wire.context.as_deref() == Some(TRANSFER);
    Ok(Message::VoteRequest { term, last, cause: if is_transfer { Cause::Transfer } else { Cause::Timeout } })
}

/// What a snapshot says of the log.
fn of_log(wire: &raftpb::Message) -> Result<Snapshot, Malformed> {
    let without = Malformed::Snapshot;
    let metadata = wire.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let metadata = metadata.ok_or_else(|| without("metadata"))?;
    let mark = Mark::new(index(metadata.index)?, later_term(metadata.term, MessageType::MsgSnap.into())?);
    if mark.index == Index::ZERO || mark.term == Term(0) || term(wire)? < mark.term {
        return Err(without("a place in the log"));
    }
    let members = metadata.conf_state.as_ref().ok_or_else(|| without("members"))?;
    let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
    let configuration = Configuration { voters: set(&members.voters), learners: set(&members.learners) };
    let Configuration { voters, learners } = &configuration;
    let is_sound = !voters.is_empty()
        && voters.len() + learners.len() == members.voters.len() + members.learners.len()
        && voters.is_disjoint(learners)
        && !configuration.contains(MemberId(0))
        // etcd never enters a joint configuration.
        && members.voters_outgoing.is_empty()
        && members.learners_next.is_empty();
    if is_sound { Ok(Snapshot { mark, configuration }) } else { Err(without("a configuration of one step")) }
}

fn logged(wire: raftpb::Entry) -> Result<Entry, Malformed> {
    let (kind, payload) = content(wire.r#type, wire.data)?;
    let term = later_term(wire.term, MessageType::MsgApp.into())?;
    Ok(Entry { term, index: index(wire.index)?, kind, payload })
}

/// The kind of an entry and its payload. A change of the configuration always says something, or the log could not be read again.
fn content(kind: Option<i32>, data: Option<Bytes>) -> Result<(EntryKind, Bytes), Malformed> {
    let (number, payload) = (kind.unwrap_or_default(), data.unwrap_or_default());
    match number {
        0 => Ok((EntryKind::Normal, payload)),
        1 if !payload.is_empty() => Ok((EntryKind::ConfChange, payload)),
        2 if !payload.is_empty() => Ok((EntryKind::ConfChangeV2, payload)),
        _ => Err(Malformed::Entry(number, payload.len())),
    }
}

/// The token of a read: all that its one entry says.
fn token(entries: Vec<raftpb::Entry>, kind: i32) -> Result<Bytes, Malformed> {
    let [entry] =
        <[raftpb::Entry; 1]>::try_from(entries).map_err(|entries| Malformed::EntryCount(entries.len(), kind))?;
    small(entry.data.unwrap_or_default())
}

fn context(wire: &raftpb::Message) -> Result<Bytes, Malformed> {
    small(wire.context.clone().unwrap_or_default())
}

/// Bytes that will be kept or repeated: a copy, so that they do not hold the buffer they came in.
fn small(bytes: Bytes) -> Result<Bytes, Malformed> {
    let most = bounds::CONTEXT_BYTES_MAX;
    if most < bytes.len() {
        return Err(Malformed::TooLarge { what: "opaque bytes", found: bytes.len() as u64, most: most as u64 });
    }
    Ok(Bytes::copy_from_slice(&bytes))
}

/// The term of a message that must have one.
fn term(wire: &raftpb::Message) -> Result<Term, Malformed> {
    let kind = wire.r#type.unwrap_or_default();
    let term = later_term(wire.term, kind)?;
    if term.0 == 0 { Err(Malformed::Term(0, kind)) } else { Ok(term) }
}

fn no_term(wire: &raftpb::Message) -> Result<(), Malformed> {
    match wire.term.unwrap_or_default() {
        0 => Ok(()),
        term => Err(Malformed::Term(term, wire.r#type.unwrap_or_default())),
    }
}

/// A term that may be zero.
const fn later_term(term: Option<u64>, kind: i32) -> Result<Term, Malformed> {
    match term {
        None => Ok(Term(0)),
        Some(term) if term <= NUMBER_MAX => Ok(Term(term)),
        Some(term) => Err(Malformed::Term(term, kind)),
    }
}

pub(super) const fn index(index: Option<u64>) -> Result<Index, Malformed> {
    match index {
        None => Ok(Index::ZERO),
        Some(index) if index <= NUMBER_MAX => Ok(Index(index)),
        Some(index) => Err(Malformed::Index(index)),
    }
}
