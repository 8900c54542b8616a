//! Members over HTTP, as etcd's talk to each other: the transport of the binary.
//!
//! Each member hears another on two streams that it opens itself, and posts what has to be said before the other has opened its own. So what a member says leaves through connections that the other
//! one made, and a member that nobody hears loses nothing but messages.
//!
//! Invariants: nobody waits for a slow or dead member but the tasks that are its own; everything that a stranger can send is bounded, in bytes and in time; nothing that arrives is believed before
//! the headers were looked at, in etcd's order.
//!
//! Reading order: this file, [`remote`] (one other member), [`link`] (what is said to it), [`dial`] (what it says), [`post`], [`routes`] and [`receive`] (what others ask), [`about`] and [`forward`] (what members want to know of each other),
//! [`serve`] (sockets), [`wire`] (headers), [`client`], [`times`], [`probe`] and [`counts`] (for those who watch).

pub(crate) mod about;
mod client;
pub(crate) mod counts;
mod dial;
pub(crate) mod forward;
mod link;
pub(crate) mod others;
mod paced;
mod post;
mod probe;
mod receive;
mod remote;
mod routes;
pub(crate) mod serve;
#[cfg(test)]
mod tests;
mod times;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::header::HeaderValue;
use axum::http::request::Builder;
use bytes::Bytes;
use detcd_core::ids::MemberId;
use detcd_core::raft::Message;
use detcd_io::clock::Instant;
use detcd_io::copier::Copied;
use detcd_io::peer::spool::Spooler;
use detcd_io::peer::{Directory, Inbox, Incoming, Peer, Standing, Transport, bounds};
use tokio::sync::Semaphore;

use counts::{Counts, Talk};
use remote::Remote;
pub(crate) use routes::router;

/// The members as etcd's old store would have them, at this moment.
pub(crate) type Membership = Arc<dyn Fn() -> Bytes + Send + Sync>;

/// What every connection needs.
pub(crate) struct Shared {
    directory: Directory,
    inbox: Inbox,
    spooler: Spooler,
    membership: Membership,
    /// Where other members find this one, joined by commas.
    peer_urls: HeaderValue,
    /// Bytes of messages that are being posted to this member.
    posted: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Shared {
    /// A request that says whom it is from.
    fn introduced(&self, request: Builder) -> Builder {
        wire::introduce(request, self.directory.member(), self.directory.cluster(), &self.peer_urls)
    }
}

/// The transport. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    shared: Arc<Shared>,
    others: Arc<RwLock<Others>>,
}

#[derive(Debug, Default)]
struct Others {
    peers: BTreeMap<MemberId, Arc<Remote>>,
    /// Who is not known yet and asked to be answered, oldest first.
    strangers: VecDeque<Arc<Remote>>,
}

impl Network {
    /// A transport that talks to nobody yet. It delivers to `inbox`, writes snapshots by `spooler`, and tells others that this member is at `peer_urls`.
    pub(crate) fn new(
        directory: Directory,
        inbox: Inbox,
        spooler: Spooler,
        membership: Membership,
        peer_urls: &[String],
    ) -> Self {
        let peer_urls =
            HeaderValue::from_str(&peer_urls.join(",")).expect("URLs that were accepted have no control characters");
        let posted = Arc::new(Semaphore::new(bounds::POSTED_BYTES_MAX));
        let counts = Arc::default();
        let shared = Shared { directory, inbox, spooler, membership, peer_urls, posted, counts };
        Self { shared: Arc::new(shared), others: Arc::default() }
    }

    /// What is counted.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.shared.counts
    }

    /// What is counted of the talk with whoever says to be `id`; of nobody known it is forgotten.
    fn talk(&self, id: MemberId) -> Arc<Talk> {
        if self.peer(id).is_some() { self.shared.counts.of(id) } else { Arc::default() }
    }

    fn peer(&self, id: MemberId) -> Option<Arc<Remote>> {
        self.others.read().unwrap_or_else(PoisonError::into_inner).peers.get(&id).cloned()
    }

    fn anybody(&self, id: MemberId) -> Option<Arc<Remote>> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let stranger = || others.strangers.iter().find(|remote| remote.id() == id);
        others.peers.get(&id).or_else(stranger).cloned()
    }

    /// Somebody who is not known here wants answers. A member that is behind meets its leader so.
    fn meet(&self, id: MemberId, urls: &str) {
        let standing = self.shared.directory.standing(id);
        if id.0 == 0 || matches!(standing, Standing::Own | Standing::Removed) || self.anybody(id).is_some() {
            return;
        }
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if others.strangers.iter().any(|remote| remote.id() == id) {
            return;
        }
        if others.strangers.len() == bounds::STRANGERS_MAX
            && let Some(oldest) = others.strangers.pop_front()
        {
            oldest.stop();
        }
        others.strangers.push_back(Remote::start(id, &urls, &self.shared, true));
    }
}

impl Transport for Network {
    fn send(&self, to: MemberId, message: Message) {
        match self.anybody(to) {
            Some(remote) => remote.send(message),
            None => tracing::debug!(%to, what = %message, "nobody of this id is known"),
        }
    }

    fn send_snapshot(&self, to: MemberId, message: Message, copy: Copied) {
        match self.anybody(to) {
            Some(remote) => drop(tokio::spawn(post::send_snapshot(remote, message, copy))),
            None => {
                let inbox = self.shared.inbox.clone();
                // Nobody takes it only if the driver is gone.
                tokio::spawn(async move { inbox.deliver(Incoming::SnapshotSent { to, is_received: false }).await });
            }
        }
    }

    fn set_peers(&self, peers: &[Peer]) {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut others.peers);
        for Peer { id, urls } in peers {
            let remote = match before.remove(id) {
                Some(remote) => {
                    remote.move_to(urls);
                    remote
                }
                None => Remote::start(*id, urls, &self.shared, false),
            };
            others.peers.insert(*id, remote);
        }
        before.values().for_each(|remote| remote.stop());
        let Others { peers, strangers } = &mut *others;
        strangers.retain(|remote| {
            let is_stranger =
                !peers.contains_key(&remote.id()) && self.shared.directory.standing(remote.id()) != Standing::Removed;
            if !is_stranger {
                remote.stop();
            }
            is_stranger
        });
    }

    fn active_since(&self, member: MemberId) -> Option<Instant> {
        self.peer(member)?.active_since()
    }
}
