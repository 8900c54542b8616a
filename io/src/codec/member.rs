//! A member as JSON, in the bytes that Go's encoder would write: the rows of bucket `members` and the context of membership changes.

use std::fmt::Write as _;

use detcd_core::ids::MemberId;
use detcd_core::membership::Member;
use serde::{Deserialize, Deserializer};

/// A membership change's context: a member, or the promotion of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Context {
    /// The member.
    pub member: Member,
    /// Whether a learner gets its vote.
    pub is_promote: bool,
}

#[derive(Deserialize)]
struct Json {
    id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "null_as_default")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default, deserialize_with = "null_as_default")]
    client_urls: Vec<String>,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

impl From<Json> for Member {
    fn from(json: Json) -> Self {
        Self {
            id: MemberId(json.id),
            peer_urls: json.peer_urls,
            is_learner: json.is_learner,
            name: json.name,
            client_urls: json.client_urls,
        }
    }
}

/// Go writes a nil list as `null`.
fn null_as_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a context.
///
/// # Errors
/// The bytes are no such JSON.
pub fn decode_context(bytes: &[u8]) -> Result<Context, serde_json::Error> {
    let json: Json = serde_json::from_slice(bytes)?;
    let is_promote = json.is_promote;
    Ok(Context { member: json.into(), is_promote })
}

/// Reads a row of bucket `members`.
///
/// # Errors
/// The bytes are no such JSON.
pub fn decode(bytes: &[u8]) -> Result<Member, serde_json::Error> {
    Ok(decode_context(bytes)?.member)
}

/// Reads a list of members, as other members answer it.
///
/// # Errors
/// The bytes are no such JSON.
pub fn decode_list(bytes: &[u8]) -> Result<Vec<Member>, serde_json::Error> {
    let list: Vec<Json> = serde_json::from_slice(bytes)?;
    Ok(list.into_iter().map(Member::from).collect())
}

/// The JSON of `member`: fields in etcd's order, empty ones left out except the peer URLs.
#[must_use]
pub fn encode(member: &Member) -> Vec<u8> {
    let mut text = format!("{{\"id\":{},\"peerURLs\":{}", member.id.0, list(&member.peer_urls));
    if member.is_learner {
        text.push_str(",\"isLearner\":true");
    }
    if !member.name.is_empty() {
        text.push_str(",\"name\":");
        text.push_str(&go_json(&member.name));
    }
    if !member.client_urls.is_empty() {
        text.push_str(",\"clientURLs\":");
        text.push_str(&list(&member.client_urls));
    }
    text.push('}');
    text.into_bytes()
}

/// The JSON of the promotion of a learner, as etcd writes it.
#[must_use]
pub fn encode_promotion(id: MemberId) -> Vec<u8> {
    format!("{{\"id\":{},\"peerURLs\":null,\"isPromote\":true}}", id.0).into_bytes()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| go_json(text)).collect();
    format!("[{}]", texts.join(","))
}

/// A JSON string as Go's encoder writes it: HTML's three characters and two line separators are escaped as well.
pub(super) fn go_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("a String takes every write");
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_survives_the_way_through_json() {
        let member = Member {
            id: MemberId(0x8e9e_05c5_2164_694d),
            peer_urls: vec!["http://a&b:1".into()],
            is_learner: true,
            name: "é<\"".into(),
            client_urls: vec!["http://c:2".into(), "http://d:3".into()],
        };
        let bytes = encode(&member);
        assert_eq!(decode(&bytes).expect("our own JSON"), member);
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert!(text.contains(r#""peerURLs":["http://a\u0026b:1"],"isLearner":true,"name":"é\u003c\"""#), "{text}");
    }

    #[test]
    fn a_promotion_has_no_urls() {
        let context = decode_context(br#"{"id":5,"peerURLs":null,"isPromote":true}"#).expect("etcd's JSON");
        assert!(context.is_promote);
        assert_eq!(context.member.id, MemberId(5));
    }

    #[test]
    fn control_characters_are_escaped_as_go_escapes_them() {
        assert_eq!(go_json("\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}é"), "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}é\"");
    }
}
