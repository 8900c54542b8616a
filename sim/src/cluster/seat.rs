//! A member's place in a cluster: its name and address, its line to the others, and who looks at its engine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use detcd_core::membership::Member;
use detcd_io::driver::{Driver, Peers};
use detcd_io::peer::spool::Spooler;
use detcd_io::store::backend::Backend;
use detcd_io::wal::Metadata;
use detcd_server::forward::Forward;
use detcd_server::member;
use madsim::runtime::NodeHandle;

use super::forward::SimForward;
use super::net::Net;
use crate::check::Violation;
use crate::check::consensus::{Eye, Ledger};
use crate::store::SimBackend;

/// The place.
#[derive(Clone)]
pub struct Seat {
    /// Counted from zero.
    pub place: usize,
    /// How many members found the cluster: those at the first places.
    pub founders: usize,
    /// Whether members ask before they stand for election.
    pub pre_vote: bool,
    /// What is between the members.
    pub net: Net,
    /// What was seen of their engines.
    pub ledger: Ledger,
}

/// The address of the member at `place`.
#[must_use]
pub fn ip(place: usize) -> IpAddr {
    let last = u8::try_from(place + 1).expect("a cluster is small");
    Ipv4Addr::new(10, 0, 0, last).into()
}

/// Where other members find it.
#[must_use]
pub fn peer_url(place: usize) -> String {
    format!("http://{}:2380", ip(place))
}

/// The name of the member at `place`.
#[must_use]
pub fn name(place: usize) -> String {
    format!("m{place}")
}

/// `--initial-cluster` of so many members.
#[must_use]
pub fn initial_cluster(members: usize) -> String {
    (0..members).map(|place| format!("{}={}", name(place), peer_url(place))).collect::<Vec<_>>().join(",")
}

impl Seat {
    /// The member's name.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.place)
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        ip(self.place)
    }

    /// The flags that tell it who it is, as a founder.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        // Whoever comes later is told other flags when it comes.
        let founders = self.founders.max(self.place + 1);
        self.words_of(&initial_cluster(founders), "new")
    }

    /// The flags of one that joins these members, itself among them.
    #[must_use]
    pub fn joining_words(&self, members: &[Member]) -> Vec<String> {
        let urls = members.iter().filter_map(|member| member.peer_urls.first());
        let named = urls.filter_map(|url| Some(format!("{}={url}", name(self.net.place_of(url)?))));
        self.words_of(&named.collect::<Vec<_>>().join(","), "existing")
    }

    fn words_of(&self, cluster: &str, state: &str) -> Vec<String> {
        [
            format!("--name={}", self.name()),
            format!("--initial-cluster={cluster}"),
            format!("--initial-cluster-state={state}"),
            format!("--initial-advertise-peer-urls={}", peer_url(self.place)),
            format!("--listen-peer-urls={}", peer_url(self.place)),
            format!("--pre-vote={}", self.pre_vote),
        ]
        .into()
    }

    /// A new life's line to the others; the stores that they send go to `spooler`. One that joins was told of `others`.
    #[must_use]
    pub fn line(&self, who: Metadata, spooler: Spooler, others: &[Member]) -> (Peers, Arc<dyn Forward>) {
        let peers = self.net.join(self.place, who, spooler, others);
        self.ledger.end(self.place);
        (peers, Arc::new(SimForward::new(self.net.clone(), self.place)))
    }

    /// The member is there, on `node`: others may ask it, and its engine is looked at.
    #[must_use]
    pub fn take<B: Backend>(
        &self,
        driver: Driver<B>,
        member: &member::Member<SimBackend>,
        node: &NodeHandle,
    ) -> Driver<B> {
        self.net.house(self.place, member.clone(), node.clone());
        driver.with_probe(Arc::new(Eye::new(self.place, self.ledger.clone())))
    }

    /// The first thing that members did and must not do.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), Violation> {
        self.ledger.check().and_then(|()| self.net.check())
    }

    /// It is gone.
    pub fn leave(&self) {
        self.net.leave(self.place);
        self.ledger.end(self.place);
    }
}
