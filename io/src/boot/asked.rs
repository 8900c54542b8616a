//! What was asked of this start: the part of the configuration that decides which member of which cluster this is.
//!
//! Invariant: nothing here is checked yet. etcd looks at the initial cluster only when there is no log, so a member that
//! already exists must start whatever these flags say by now; checking belongs to the plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use detcd_core::membership::Member;

use super::identity::ClusterId;
use super::url::{self, Url, UrlFault};

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ClusterState {
    /// All members start together.
    New,
    /// This member joins one that runs.
    Existing,
}

/// How much of the old cluster is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Recovery {
    /// All of it: the ordinary start.
    Ordinary,
    /// `--force-new-cluster`: only this member. A member that has never run is founded as always.
    ForceNewCluster,
}

/// Everything the plan needs from flags, environment and configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// `--name`.
    pub name: String,
    /// `--initial-cluster`, as text.
    pub initial_cluster: String,
    /// `--initial-cluster-token`.
    pub token: String,
    /// `--initial-cluster-state`.
    pub state: ClusterState,
    /// `--initial-advertise-peer-urls`.
    pub advertise_peer_urls: Vec<Url>,
    /// `--max-learners`: how many members may only listen.
    pub learners_max: usize,
    /// Whether the rest of the cluster is given up.
    pub recovery: Recovery,
    /// What members of the initial cluster say that run already. Asked only where nothing is on the disk.
    pub others: Option<Others>,
    /// What the host names of [`Asked::to_resolve`] stand for, by `host:port`. A name that is missing could not be found.
    pub resolved: BTreeMap<String, SocketAddr>,
}

/// A cluster that runs, as one of its members tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Others {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members.
    pub members: Vec<Member>,
}

/// The members of an initial cluster by name, each with its sorted peer URLs.
pub type Members = BTreeMap<String, Vec<Url>>;

/// Reads `name=url,name=url,…`. A name may come more than once; empty parts are skipped.
///
/// # Errors
/// The first URL that is none.
pub fn parse_members(text: &str) -> Result<Members, UrlFault> {
    let mut members = Members::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    Ok(members)
}

/// `name=url` for each URL: the initial cluster of a member that was told nothing else.
#[must_use]
pub fn cluster_of_one(name: &str, urls: &[Url]) -> String {
    urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

impl Asked {
    /// The `host:port`s the caller has to look up before planning: those that decide whether the advertised URLs and the
    /// initial cluster name the same places. Usually none, since usually both are the same text.
    #[must_use]
    pub fn to_resolve(&self) -> Vec<String> {
        let Ok(members) = parse_members(&self.initial_cluster) else {
            return Vec::new();
        };
        let Some(in_cluster) = members.get(&self.name) else {
            return Vec::new();
        };
        let mut advertised = self.advertise_peer_urls.clone();
        advertised.sort();
        if &advertised == in_cluster || advertised.len() != in_cluster.len() {
            return Vec::new();
        }
        let mut names: Vec<String> = advertised
            .iter()
            .chain(in_cluster)
            .filter(|url| url.named_host().is_some())
            .map(|url| url.authority().to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The advertised URLs joined by commas, sorted.
    #[must_use]
    pub fn advertised(&self) -> String {
        let mut urls = self.advertise_peer_urls.clone();
        urls.sort();
        url::join(&urls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(cluster: &str, advertise: &str) -> Asked {
        Asked {
            name: "a".to_owned(),
            initial_cluster: cluster.to_owned(),
            token: "t".to_owned(),
            state: ClusterState::New,
            advertise_peer_urls: url::parse_list(advertise).unwrap(),
            learners_max: 1,
            recovery: Recovery::Ordinary,
            resolved: BTreeMap::new(),
            others: None,
        }
    }

    #[test]
    fn members_are_read_by_name_and_sorted() {
        let members = parse_members("b=http://h:2,,a=http://h:9,b=http://h:1").unwrap();
        assert_eq!(members.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(url::join(&members["b"]), "http://h:1,http://h:2");
        assert!(parse_members("a").is_err());
        assert_eq!(parse_members(""), Ok(Members::new()));
        assert_eq!(cluster_of_one("a", &members["b"]), "a=http://h:1,a=http://h:2");
    }

    #[test]
    fn names_are_looked_up_only_when_the_texts_differ() {
        assert_eq!(asked("a=http://node:1", "http://node:1").to_resolve(), Vec::<String>::new());
        assert_eq!(asked("a=http://node:1", "http://10.0.0.1:1").to_resolve(), ["node:1"]);
        assert_eq!(asked("b=http://node:1", "http://10.0.0.1:1").to_resolve(), Vec::<String>::new());
        assert_eq!(asked("a=http://localhost:1", "http://127.0.0.1:1").to_resolve(), Vec::<String>::new());
    }
}
