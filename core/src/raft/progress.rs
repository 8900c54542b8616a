//! What the leader knows of one other member, and how much it may send it.
//!
//! Invariant: `matched < next`. A member starts as a *probe*: one append at a time, until the place where the logs agree
//! is found. Then it is a *stream*: appends leave without waiting, up to a window of messages and bytes. Where the entries
//! it needs are gone, it waits for a *snapshot*.

use alloc::collections::VecDeque;

use super::config::Limits;
use crate::ids::Index;

/// One member, as its leader sees it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Progress {
    /// The newest entry known to be on the member's disk and equal to the leader's.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How entries are sent.
    pub flow: Flow,
    /// Heard since the leader last looked for its quorum.
    pub heard: bool,
    /// The newest commit index told.
    pub told: Index,
    /// The newest read token the member has answered.
    pub proved: u64,
}

/// How entries are sent to a member.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Flow {
    /// The place of agreement is being looked for.
    Probe(Probe),
    /// Appends follow each other; these are unanswered.
    Stream(Window),
    /// The entries that the member needs are gone: it gets a snapshot, and no appends until that has arrived.
    Snapshot(Shipment),
}

/// Where a member's snapshot is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Shipment {
    /// It is being made.
    Asked,
    /// It is on its way, and stands at this place.
    Sent(Index),
}

/// Whether a probing append may leave.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Probe {
    /// Yes.
    Ready,
    /// One is under way; the answer or the next heartbeat's answer releases the next.
    Waiting,
}

/// The appends that are under way.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Window {
    messages: VecDeque<InFlight>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct InFlight {
    upto: Index,
    bytes: u64,
}

impl Progress {
    /// A member of which nothing is known but where the leader's log ends.
    #[must_use]
    pub const fn new(next: Index) -> Self {
        Self { matched: Index::ZERO, next, flow: Flow::Probe(Probe::Ready), heard: false, told: Index::ZERO, proved: 0 }
    }

    /// A member that joins a leader whose log ends at `last`. It counts as heard, so that it may get a snapshot at once.
    #[must_use]
    pub fn joined(last: Index) -> Self {
        Self { heard: true, ..Self::new(last.max(Index(1))) }
    }

    /// Whether appends must wait for an answer.
    #[must_use]
    pub fn is_paused(&self, limits: &Limits) -> bool {
        match &self.flow {
            Flow::Probe(probe) => *probe == Probe::Waiting,
            Flow::Stream(window) => window.is_full(limits),
            Flow::Snapshot(_) => true,
        }
    }

    /// Whether more *entries* must wait; a probe may always carry some.
    #[must_use]
    pub fn is_full(&self, limits: &Limits) -> bool {
        match &self.flow {
            Flow::Probe(_) => false,
            Flow::Stream(window) => window.is_full(limits),
            Flow::Snapshot(_) => true,
        }
    }

    /// An append left with entries up to `upto` (`next - 1` if it had none) and told this commit index.
    pub fn on_sent(&mut self, upto: Index, bytes: u64, commit: Index) {
        assert!(self.next.0 <= upto.0 + 1);
        self.told = self.told.max(commit);
        if upto < self.next {
            return;
        }
        match &mut self.flow {
            Flow::Probe(probe) => *probe = Probe::Waiting,
            Flow::Stream(window) => {
                window.push(InFlight { upto, bytes });
                self.next = upto.next();
            }
            Flow::Snapshot(_) => unreachable!("no appends while a snapshot is on its way"),
        }
    }

    /// The member has everything up to `index`, and the log here begins after `base`. Returns whether that is news; an equal
    /// index ends a probe, too. A snapshot ends whichever way the member came to where the log can go on.
    pub fn on_accepted(&mut self, index: Index, base: Index) -> bool {
        let news = self.matched < index || (self.matched == index && matches!(self.flow, Flow::Probe(_)));
        if !news {
            return false;
        }
        self.matched = index;
        match &mut self.flow {
            Flow::Probe(_) => {
                self.next = index.next();
                self.flow = Flow::Stream(Window::default());
            }
            Flow::Stream(window) => {
                window.free(index);
                self.next = self.next.max(index.next());
            }
            Flow::Snapshot(_) => {
                self.next = index.next();
                if base <= index {
                    self.flow = Flow::Stream(Window::default());
                }
            }
        }
        true
    }

    /// The member refused an append after `index`; the logs may agree at `hint`. Returns `false` for an old refusal.
    pub fn on_rejected(&mut self, index: Index, hint: Index) -> bool {
        match &self.flow {
            Flow::Stream(_) => {
                if index <= self.matched {
                    return false;
                }
                self.probe();
            }
            Flow::Probe(_) => {
                if index.0 != self.next.0 - 1 {
                    return false;
                }
                self.next = index.min(hint.next()).max(self.matched.next());
                self.told = self.told.min(Index(self.next.0 - 1));
                self.flow = Flow::Probe(Probe::Ready);
            }
            Flow::Snapshot(_) => return false,
        }
        true
    }

    /// The member answered a heartbeat: a probe that waits may be lost, so another may go.
    pub fn on_heartbeat_answered(&mut self) {
        self.heard = true;
        if let Flow::Probe(probe) = &mut self.flow {
            *probe = Probe::Ready;
        }
    }

    /// A message to the member is known to be lost.
    pub fn on_unreachable(&mut self) {
        if matches!(self.flow, Flow::Stream(_)) {
            self.probe();
        }
    }

    /// The entries that the member needs are gone. Returns whether it gets a snapshot: only if it was heard of late. Else
    /// there is silence until it is.
    pub fn on_entries_gone(&mut self) -> bool {
        self.next = self.matched.next();
        self.flow = if self.heard { Flow::Snapshot(Shipment::Asked) } else { Flow::Probe(Probe::Waiting) };
        self.heard
    }

    /// The snapshot arrived: the log goes on after it, once the member is heard again.
    pub fn on_snapshot_received(&mut self) {
        let Flow::Snapshot(Shipment::Sent(index)) = self.flow else { unreachable!("a snapshot was sent") };
        self.next = self.matched.max(index).next();
        self.flow = Flow::Probe(Probe::Waiting);
    }

    /// There was no snapshot, or it got lost: another one follows when the member is heard again.
    pub fn on_snapshot_failed(&mut self) {
        assert!(matches!(self.flow, Flow::Snapshot(_)));
        self.next = self.matched.next();
        self.flow = Flow::Probe(Probe::Waiting);
    }

    fn probe(&mut self) {
        self.next = self.matched.next();
        self.told = self.told.min(self.matched);
        self.flow = Flow::Probe(Probe::Ready);
    }
}

impl Window {
    /// Whether another message must wait. An empty window takes a message of any size.
    #[must_use]
    pub fn is_full(&self, limits: &Limits) -> bool {
        limits.in_flight_messages_max as usize <= self.messages.len() || limits.in_flight_bytes_max <= self.bytes
    }

    fn push(&mut self, message: InFlight) {
        assert!(self.messages.back().is_none_or(|newest| newest.upto < message.upto));
        self.bytes += message.bytes;
        self.messages.push_back(message);
    }

    fn free(&mut self, upto: Index) {
        while let Some(oldest) = self.messages.front().filter(|oldest| oldest.upto <= upto) {
            self.bytes -= oldest.bytes;
            self.messages.pop_front();
        }
    }
}
