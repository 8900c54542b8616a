//! The driver's line to other members: what is said goes to the transport, what arrives comes from its queue, and both follow the membership.

use std::sync::Arc;

use detcd_core::ids::MemberId;
use detcd_core::membership::Membership;
use detcd_core::raft::Message;

use crate::peer::{Alone, Arrivals, Directory, Incoming, Peer, Transport, inbox};

/// Both ends of the line.
pub struct Peers {
    /// What carries messages away.
    pub transport: Arc<dyn Transport>,
    /// What others said.
    pub arrivals: Arrivals,
    /// Whom the transport lets speak.
    pub directory: Directory,
    /// Whom a member talks to that does not know its cluster yet.
    pub first: Vec<Peer>,
}

impl Peers {
    /// The line of one who has nobody to talk to.
    #[must_use]
    pub fn alone(cluster: u64, member: MemberId) -> Self {
        let (_, arrivals) = inbox();
        Self { transport: Arc::new(Alone), arrivals, directory: Directory::new(cluster, member), first: Vec::new() }
    }

    /// The next thing that arrives. Waits for ever once nobody can send any more.
    pub(super) async fn recv(&mut self) -> Incoming {
        match self.arrivals.recv().await {
            Some(incoming) => incoming,
            None => std::future::pending().await,
        }
    }

    pub(super) fn send(&self, to: MemberId, message: Message) {
        self.transport.send(to, message);
    }

    /// Talks to these members from now on, and to nobody else.
    pub(super) fn follow(&self, membership: &Membership) {
        if membership.iter().len() == 0 {
            self.directory.set(self.first.iter().map(|peer| peer.id), []);
            return self.transport.set_peers(&self.first);
        }
        let own = self.directory.member();
        self.directory.set(membership.iter().map(|member| member.id), membership.removed());
        let others = membership.iter().filter(|member| member.id != own);
        let peers: Vec<Peer> = others.map(|member| Peer { id: member.id, urls: member.peer_urls.clone() }).collect();
        self.transport.set_peers(&peers);
    }
}
