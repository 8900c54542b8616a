//! Before a first start: what members that run already say of the cluster.

use std::collections::BTreeSet;
use std::io;

use axum::http::Request;
use bytes::Bytes;
use detcd_io::boot::asked::{Asked, ClusterState, Others, parse_members};
use detcd_io::boot::identity::ClusterId;
use detcd_io::boot::url::Url;
use detcd_io::codec::member;

use super::client::{Connection, rest, says};
use super::times;

/// Asks the other members of the initial cluster, one after the other, until one answers. A start that founds a cluster asks, too: a member that was lost must not found it again.
/// One that joins asks on as long as it hears of an earlier member at its own place, which has served: whoever tells of that one may not have heard yet that it was removed and another one added.
pub(crate) async fn others(asked: &Asked) -> Option<Others> {
    let members = parse_members(&asked.initial_cluster).ok()?;
    let own = members.get(&asked.name).cloned().unwrap_or_default();
    let urls: BTreeSet<Url> =
        members.into_iter().filter(|(name, _)| *name != asked.name).flat_map(|(_, urls)| urls).collect();
    let mut first = None;
    for url in urls {
        match ask(&url).await {
            Ok(others) if asked.state == ClusterState::Existing && has_served(&others, &own) => {
                first.get_or_insert(others);
            }
            Ok(others) => return Some(others),
            Err(error) if asked.state == ClusterState::Existing => {
                tracing::warn!(url = url.as_str(), %error, "failed to get cluster response");
            }
            // Nobody runs yet, most likely.
            Err(error) => tracing::debug!(url = url.as_str(), %error, "no member there"),
        }
    }
    first
}

/// Whether a member at these URLs has told where clients reach it.
fn has_served(others: &Others, own: &[Url]) -> bool {
    let is_at_own = |url: &String| own.iter().any(|own| own.as_str() == url);
    others.members.iter().any(|member| !member.client_urls.is_empty() && member.peer_urls.iter().any(is_at_own))
}

async fn ask(url: &Url) -> io::Result<Others> {
    let mut connection = Connection::open(url).await?;
    let request = Request::get("/members").body(says(Bytes::new())).map_err(io::Error::other)?;
    let reply = connection.ask(request, times::READ).await?;
    if !reply.status().is_success() {
        return Err(io::Error::other(format!("status {}", reply.status())));
    }
    let header =
        reply.headers().get("X-Etcd-Cluster-ID").and_then(|id| u64::from_str_radix(id.to_str().ok()?, 16).ok());
    let cluster = ClusterId(header.ok_or_else(|| io::Error::other("no cluster id"))?);
    let members = member::decode_list(&rest(reply).await?)?;
    Ok(Others { cluster, members })
}

#[cfg(test)]
mod tests {
    use super::*;
    use detcd_core::membership::Member;
    use detcd_io::boot::url;

    #[test]
    fn a_member_that_has_served_is_known_by_its_place() {
        let member = |url: &str, clients: &[&str]| Member {
            peer_urls: vec![url.to_owned()],
            client_urls: clients.iter().map(|&url| url.to_owned()).collect(),
            ..Member::default()
        };
        let told = |members| Others { cluster: ClusterId(1), members };
        let own = url::parse_list("http://1.1.1.1:1").unwrap();
        let (here, elsewhere) = ("http://1.1.1.1:1", "http://2.2.2.2:2");
        assert!(has_served(&told(vec![member(here, &["http://c:1"])]), &own));
        assert!(!has_served(&told(vec![member(here, &[]), member(elsewhere, &["http://c:1"])]), &own));
    }
}
