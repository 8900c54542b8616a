//! What members put into the headers of everything they ask each other, and what they make of it.
//!
//! The order of the checks is etcd's: versions, then the cluster. A version that is none ends the connection without a word.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::request::Builder;
use detcd_core::ids::MemberId;
use detcd_core::membership::Version;
use detcd_server::member::VERSION;

pub(super) const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(super) const FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(super) const TO: HeaderName = HeaderName::from_static("x-raft-to");
pub(super) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
const CLUSTER_VERSION_MIN: HeaderName = HeaderName::from_static("x-min-cluster-version");

/// The oldest version that is talked to.
const VERSION_MIN: &str = "3.0.0";
/// What a header that is absent means: members of that version had none.
const VERSION_ABSENT: &str = "2.0.0";

/// Why a member is not talked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unwelcome {
    /// Its headers are nonsense: the connection ends.
    Nonsense,
    /// One of both is too old for the other.
    Incompatible,
    /// It is of another cluster.
    OtherCluster,
}

impl Unwelcome {
    /// What it is told, if anything.
    pub(super) const fn text(self) -> Option<&'static str> {
        match self {
            Self::Nonsense => None,
            Self::Incompatible => Some("incompatible version\n"),
            Self::OtherCluster => Some("cluster ID mismatch\n"),
        }
    }
}

/// Whether a request is from a member that this one, of `cluster`, talks to.
pub(super) fn check(headers: &HeaderMap, cluster: u64) -> Result<(), Unwelcome> {
    let (remote, least) = (version(headers, &SERVER_VERSION)?, version(headers, &CLUSTER_VERSION_MIN)?);
    let ours = |text| parse_version(text).expect("our own version");
    if remote < ours(VERSION_MIN) || ours(VERSION) < least {
        return Err(Unwelcome::Incompatible);
    }
    if text(headers, &CLUSTER) == Some(&format!("{cluster:x}")) { Ok(()) } else { Err(Unwelcome::OtherCluster) }
}

/// Whether a reply is from a member that can open streams.
pub(super) fn has_streams(headers: &HeaderMap) -> bool {
    version(headers, &SERVER_VERSION).is_ok_and(|(major, minor)| (2, 1) <= (major, minor))
}

/// Major and minor of the version in a header.
fn version(headers: &HeaderMap, name: &HeaderName) -> Result<(u64, u64), Unwelcome> {
    let text = match headers.get(name) {
        None => VERSION_ABSENT,
        Some(value) if value.is_empty() => VERSION_ABSENT,
        Some(value) => value.to_str().map_err(|_| Unwelcome::Nonsense)?,
    };
    parse_version(text).ok_or(Unwelcome::Nonsense)
}

/// Major and minor of `x.y.z`, `x.y.z-before` or `x.y.z+build`.
fn parse_version(text: &str) -> Option<(u64, u64)> {
    let (text, build) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, before) = text.split_once('-').unwrap_or((text, ""));
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let numbers = Version::parse(numbers).filter(|_| is_name(build) && is_name(before))?;
    Some((numbers.major, numbers.minor))
}

/// The text of a header, if it has one.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An id as members write it: hexadecimal.
pub(super) fn parse_id(text: &str) -> Option<MemberId> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_plain { u64::from_str_radix(text, 16).ok().map(MemberId) } else { None }
}

/// The header value of an id.
pub(super) fn id_value(id: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:x}")).expect("hexadecimal digits")
}

/// Adds what every request of `member` says of itself.
pub(super) fn introduce(request: Builder, member: MemberId, cluster: u64, peer_urls: &HeaderValue) -> Builder {
    request
        .header(FROM, id_value(member.0))
        .header(SERVER_VERSION, HeaderValue::from_static(VERSION))
        .header(CLUSTER_VERSION_MIN, HeaderValue::from_static(VERSION_MIN))
        .header(CLUSTER, id_value(cluster))
        .header(PEER_URLS, peer_urls.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(version: &str, least: &str, cluster: &str) -> HeaderMap {
        let pairs = [(SERVER_VERSION, version), (CLUSTER_VERSION_MIN, least), (CLUSTER, cluster)];
        let given = pairs.into_iter().filter(|(_, text)| *text != "absent");
        given.map(|(name, text)| (name, HeaderValue::from_str(text).unwrap())).collect()
    }

    #[test]
    fn versions_come_before_the_cluster_and_nonsense_before_both() {
        let check = |version, least, cluster| check(&headers(version, least, cluster), 0xab);
        assert_eq!(check("3.7.3", "3.0.0", "ab"), Ok(()));
        assert_eq!(check("3.0.0-rc.1+build", "3.7.9", "ab"), Ok(()));
        assert_eq!(check("4.0.0", "absent", "ab"), Ok(()));
        assert_eq!(check("2.3.8", "2.0.0", "0"), Err(Unwelcome::Incompatible));
        assert_eq!(check("absent", "absent", "ab"), Err(Unwelcome::Incompatible));
        assert_eq!(check("3.8.0", "3.8.0", "0"), Err(Unwelcome::Incompatible));
        assert_eq!(check("3.7.3", "3.0.0", "0ab"), Err(Unwelcome::OtherCluster));
        assert_eq!(check("3.7.3", "3.0.0", "AB"), Err(Unwelcome::OtherCluster));
        assert_eq!(check("3.7.3", "3.0.0", "absent"), Err(Unwelcome::OtherCluster));
        for nonsense in ["3.7", "3.7.3.1", "v3.7.3", "3.7.x", "3.7.3-é", "3.-1.0", "3.7.3-a_b"] {
            assert_eq!(check(nonsense, "3.0.0", "0"), Err(Unwelcome::Nonsense), "{nonsense}");
            assert_eq!(check("2.0.0", nonsense, "0"), Err(Unwelcome::Nonsense), "{nonsense}");
        }
    }

    #[test]
    fn ids_are_plain_hexadecimal_numbers() {
        assert_eq!(parse_id("8e9e05c52164694d"), Some(MemberId(0x8e9e_05c5_2164_694d)));
        assert_eq!(parse_id("00000000000000000A"), Some(MemberId(10)));
        for text in ["", "+1", "-1", "0x1", "g", "1 ", "10000000000000000"] {
            assert_eq!(parse_id(text), None, "{text}");
        }
    }
}
