//! Who a member is: ids and the bootstrap entries of a new cluster, exactly as every other member computes them.
//!
//! Invariant: the same names, URLs and token give the same ids on every machine. Each founding member writes the bootstrap
//! entries into its own log without asking the others, so a difference of one byte here would be a different cluster.

use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::membership::Member;
use sha1::{Digest as _, Sha1};

use super::asked::Members;
use super::url::Url;
use crate::codec::member;

/// A cluster: what two members compare before they talk.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterId(pub u64);

/// A founding member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Founder {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<Url>,
}

/// One entry that a new log starts with: the configuration change that adds a founder. It counts as committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Founding {
    /// Its place in the log, from 1.
    pub index: Index,
    /// Always the first term.
    pub term: Term,
    /// Who is added, as a voter.
    pub member: MemberId,
    /// The member as JSON: the context of the configuration change.
    pub context: Vec<u8>,
}

impl core::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The id of a founding member: a hash of its peer URLs in ascending order and the cluster's token.
#[must_use]
pub fn member_id(peer_urls: &[Url], token: &str) -> MemberId {
    let mut texts: Vec<&str> = peer_urls.iter().map(Url::as_str).collect();
    texts.sort_unstable();
    let mut hash = Sha1::new();
    for text in texts {
        hash.update(text.as_bytes());
    }
    hash.update(token.as_bytes());
    MemberId(first_eight(hash))
}

/// The id of a cluster: a hash of its members' ids in ascending order.
#[must_use]
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut ids = members.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.0.to_be_bytes());
    }
    ClusterId(first_eight(hash))
}

/// The founders of a cluster, by ascending id: the order of their entries.
#[must_use]
pub fn founders(members: &Members, token: &str) -> Vec<Founder> {
    let mut founders: Vec<Founder> = members
        .iter()
        .map(|(name, urls)| Founder { id: member_id(urls, token), name: name.clone(), peer_urls: urls.clone() })
        .collect();
    founders.sort_by_key(|founder| founder.id);
    founders
}

/// The entries a new log starts with.
#[must_use]
pub fn founding_entries(founders: &[Founder]) -> Vec<Founding> {
    assert!(founders.is_sorted_by_key(|founder| founder.id), "entries go by ascending id");
    let mut index = Index::ZERO;
    founders
        .iter()
        .map(|founder| {
            index = index.next();
            Founding { index, term: Term(1), member: founder.id, context: founder.context() }
        })
        .collect()
}

impl Founder {
    /// The member as the JSON that etcd puts into a configuration change.
    #[must_use]
    pub fn context(&self) -> Vec<u8> {
        member::encode(&Member {
            id: self.id,
            peer_urls: self.peer_urls.iter().map(ToString::to_string).collect(),
            name: self.name.clone(),
            ..Member::default()
        })
    }
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::super::asked::parse_members;
    use super::*;

    #[test]
    fn the_default_member_has_the_ids_every_etcd_user_has_seen() {
        let founders = founders(&parse_members("default=http://localhost:2380").unwrap(), "etcd-cluster");
        assert_eq!(founders[0].id.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[founders[0].id]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn ids_do_not_depend_on_the_order_of_urls() {
        let forth = parse_members("a=http://h:1,a=http://h:2").unwrap();
        let back = parse_members("a=http://h:2,a=http://h:1").unwrap();
        assert_eq!(founders(&forth, "t"), founders(&back, "t"));
        assert_eq!(cluster_id(&[MemberId(1), MemberId(2)]), cluster_id(&[MemberId(2), MemberId(1)]));
        assert_ne!(member_id(&forth["a"], "t"), member_id(&forth["a"], "u"));
    }

    #[test]
    fn entries_go_by_ascending_id_and_carry_the_member_in_gos_json() {
        // What etcd 3.7.3 wrote into its log when it was started with these flags.
        let flag = "b<&>=http://127.0.0.1:34980?x=\u{2028}y,a=http://127.0.0.1:34981";
        let founders = founders(&parse_members(flag).unwrap(), "t");
        let entries = founding_entries(&founders);
        assert_eq!(entries.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), [1, 2]);
        assert!(entries[0].member < entries[1].member);
        let contexts = entries.iter().map(|entry| String::from_utf8(entry.context.clone()).unwrap());
        assert_eq!(
            contexts.collect::<Vec<_>>(),
            [
                r#"{"id":1680545248063905493,"peerURLs":["http://127.0.0.1:34981"],"name":"a"}"#,
                r#"{"id":14013570894839187133,"peerURLs":["http://127.0.0.1:34980?x=\u2028y"],"name":"b\u003c\u0026\u003e"}"#,
            ]
        );
        let ids: Vec<MemberId> = founders.iter().map(|founder| founder.id).collect();
        assert_eq!(cluster_id(&ids).to_string(), "ff6178820a0bf0b0");
    }
}
