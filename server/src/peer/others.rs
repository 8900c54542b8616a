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
pub(crate) async fn others(asked: &Asked) -> Option<Others> {
    let members = parse_members(&asked.initial_cluster).ok()?;
    let urls: BTreeSet<Url> =
        members.into_iter().filter(|(name, _)| *name != asked.name).flat_map(|(_, urls)| urls).collect();
    for url in urls {
        match ask(&url).await {
            Ok(others) => return Some(others),
            Err(error) if asked.state == ClusterState::Existing => {
                tracing::warn!(url = url.as_str(), %error, "failed to get cluster response");
            }
            // Nobody runs yet, most likely.
            Err(error) => tracing::debug!(url = url.as_str(), %error, "no member there"),
        }
    }
    None
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
