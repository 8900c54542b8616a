//! URLs as etcd's flags spell them: a scheme, a host with a port, and nothing else that counts.
//!
//! Invariant: a [`Url`] that exists was accepted by [`Url::parse`], so every http(s) URL has a `host:port` authority and no path.
//! The general URL grammar is much wider than what names a member; a member's id is a hash of these very characters, so the
//! text is kept as given (the scheme in lower case) and never normalised.

use core::fmt;
use std::net::IpAddr;

/// How a listener or a peer is reached.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scheme {
    /// TCP in the clear.
    Http,
    /// TCP under TLS.
    Https,
    /// A socket in the file system.
    Unix,
    /// A socket in the file system, under TLS.
    Unixs,
}

/// One accepted URL. Ordered by its text, which is the order etcd hashes and prints lists in.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Url {
    text: String,
    scheme: Scheme,
    authority: String,
}

/// Why a text is not a URL of a member, in etcd's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlFault {
    /// Not a URL at all.
    #[error("parse {input:?}: {cause}")]
    Syntax {
        /// The text as given.
        input: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A scheme that no listener and no peer has.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// Host or port is missing.
    #[error("URL address does not have the form \"host:port\": {0}")]
    Address(String),
    /// Something follows the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

impl Url {
    /// Parses one URL. Blanks around it are dropped.
    ///
    /// # Errors
    /// Tells what is wrong in the words that etcd uses.
    pub fn parse(input: &str) -> Result<Self, UrlFault> {
        let input = input.trim();
        let syntax = |cause: &str| UrlFault::Syntax { input: input.to_owned(), cause: cause.to_owned() };
        if input.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err(syntax("net/url: invalid control character in URL"));
        }
        let (scheme, rest) = split_scheme(input).map_err(syntax)?;
        let unknown = || UrlFault::Scheme(input.to_owned());
        if scheme.is_empty() {
            let segment = rest.split('/').next().unwrap_or_default();
            if !rest.starts_with('/') && segment.contains(':') {
                return Err(syntax("first path segment in URL cannot contain colon"));
            }
            return Err(unknown());
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(unknown()),
        };
        let text = format!("{}:{rest}", scheme.name());
        let Some(after) = rest.strip_prefix("//") else {
            return match scheme {
                Scheme::Unix | Scheme::Unixs => Ok(Self { text, scheme, authority: rest.to_owned() }),
                Scheme::Http | Scheme::Https => Err(UrlFault::Address(input.to_owned())),
            };
        };
        let (authority, tail) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
        check_authority(authority).map_err(|cause| syntax(&cause))?;
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            return Ok(Self { text, scheme, authority: after.to_owned() });
        }
        if split_host_port(authority).is_err() {
            return Err(UrlFault::Address(input.to_owned()));
        }
        if tail.starts_with('/') {
            return Err(UrlFault::Path(input.to_owned()));
        }
        Ok(Self { text, scheme, authority: authority.to_owned() })
    }

    /// The URL as it is hashed, sent and printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or the path of a socket.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Host (without brackets) and port; `None` for a socket path.
    #[must_use]
    pub fn host_port(&self) -> Option<(&str, &str)> {
        match self.scheme {
            Scheme::Http | Scheme::Https => split_host_port(&self.authority).ok(),
            Scheme::Unix | Scheme::Unixs => None,
        }
    }

    /// A host that has to be looked up before it can be compared with another one: neither an address nor `localhost`.
    #[must_use]
    pub fn named_host(&self) -> Option<&str> {
        let (host, _port) = self.host_port()?;
        let is_name = host != "localhost" && !host.is_empty() && host.parse::<IpAddr>().is_err();
        is_name.then_some(host)
    }
}

impl Scheme {
    /// The scheme as written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses a comma separated list and sorts it. Repetitions stay: whoever needs a set removes them.
///
/// # Errors
/// The first part that is not a URL.
pub fn parse_list(list: &str) -> Result<Vec<Url>, UrlFault> {
    let mut urls = list.split(',').map(Url::parse).collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    Ok(urls)
}

/// The texts of a list, joined by commas.
#[must_use]
pub fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

/// Splits `host:port`, `[v6]:port`, `:port`.
///
/// # Errors
/// The reason in the words of Go's network library, which is what etcd prints.
pub fn split_host_port(address: &str) -> Result<(&str, &str), String> {
    let fault = |why: &str| Err(format!("address {address}: {why}"));
    let Some(colon) = address.rfind(':') else {
        return fault("missing port in address");
    };
    let port = &address[colon + 1..];
    let host = if let Some(inner) = address.strip_prefix('[') {
        let Some(end) = inner.find(']') else {
            return fault("missing ']' in address");
        };
        let after = end + 2;
        if after != colon {
            let too_many = address[after..].starts_with(':');
            return fault(if too_many { "too many colons in address" } else { "missing port in address" });
        }
        &inner[..end]
    } else {
        let host = &address[..colon];
        if host.contains(':') {
            return fault("too many colons in address");
        }
        host
    };
    if host.contains('[') || port.contains('[') {
        return fault("unexpected '[' in address");
    }
    if host.contains(']') || port.contains(']') {
        return fault("unexpected ']' in address");
    }
    Ok((host, port))
}

/// Scheme and the rest behind its colon; an empty scheme where there is none.
fn split_scheme(input: &str) -> Result<(&str, &str), &'static str> {
    for (at, character) in input.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&input[..at], &input[at + 1..])),
            _ => break,
        }
    }
    Ok(("", input))
}

/// What Go's URL parser refuses in an authority before anybody asks for a port.
fn check_authority(authority: &str) -> Result<(), String> {
    if let Some(bad) =
        authority.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
    {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    let after_host = if let Some(end) = authority.rfind(']') {
        &authority[end + 1..]
    } else if authority.starts_with('[') {
        return Err("missing ']' in host".to_owned());
    } else {
        authority.rfind(':').map_or("", |colon| &authority[colon..])
    };
    let digits = after_host.strip_prefix(':');
    if !after_host.is_empty() && !digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("invalid port {after_host:?} after host"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_accepted_and_refused_in_etcds_words() {
        let rows = [
            ("http://localhost:2380", "http://localhost:2380"),
            (" HTTP://a:1 ", "http://a:1"),
            ("https://[::1]:2379", "https://[::1]:2379"),
            ("unix:/run/etcd.sock", "unix:/run/etcd.sock"),
            ("unix://localhost:2379", "unix://localhost:2379"),
            ("unix:///run/etcd.sock", "unix:///run/etcd.sock"),
            ("unix://a b/c", "! parse \"unix://a b/c\": invalid character \" \" in host name"),
            ("localhost:2380", "! URL scheme must be http, https, unix, or unixs: localhost:2380"),
            ("127.0.0.1:2380", "! parse \"127.0.0.1:2380\": first path segment in URL cannot contain colon"),
            ("", "! URL scheme must be http, https, unix, or unixs: "),
            ("ftp://a:1", "! URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("http://a", "! URL address does not have the form \"host:port\": http://a"),
            ("http:a:1", "! URL address does not have the form \"host:port\": http:a:1"),
            ("http://a:1/", "! URL must not contain a path: http://a:1/"),
            ("http://a:b", "! parse \"http://a:b\": invalid port \":b\" after host"),
            ("http://a b:1", "! parse \"http://a b:1\": invalid character \" \" in host name"),
            ("http://[::1", "! parse \"http://[::1\": missing ']' in host"),
            ("http://[::1]x:1", "! parse \"http://[::1]x:1\": invalid port \"x:1\" after host"),
            (":1", "! parse \":1\": missing protocol scheme"),
            ("http://a:1\u{1}x", "! parse \"http://a:1\\u{1}x\": net/url: invalid control character in URL"),
        ];
        for (input, expected) in rows {
            let seen = match Url::parse(input) {
                Ok(url) => url.to_string(),
                Err(fault) => format!("! {fault}"),
            };
            assert_eq!(seen, expected, "{input:?}");
        }
    }

    #[test]
    fn host_and_port_are_split_as_go_splits_them() {
        let rows = [
            ("a:1", Ok(("a", "1"))),
            (":1", Ok(("", "1"))),
            ("[::1]:2", Ok(("::1", "2"))),
            ("a", Err("address a: missing port in address")),
            ("[::1]", Err("address [::1]: missing port in address")),
            ("::1", Err("address ::1: too many colons in address")),
            ("[::1", Err("address [::1: missing ']' in address")),
            ("[::1]:1:2", Err("address [::1]:1:2: too many colons in address")),
            ("[::1]x:1", Err("address [::1]x:1: missing port in address")),
            ("[a[b]:1", Err("address [a[b]:1: unexpected '[' in address")),
            ("a:[1", Err("address a:[1: unexpected '[' in address")),
            ("a]:1", Err("address a]:1: unexpected ']' in address")),
            ("a:1]", Err("address a:1]: unexpected ']' in address")),
        ];
        for (input, expected) in rows {
            assert_eq!(split_host_port(input), expected.map_err(str::to_owned), "{input}");
        }
    }

    #[test]
    fn only_names_have_to_be_looked_up() {
        let named = |text: &str| Url::parse(text).unwrap().named_host().map(str::to_owned);
        assert_eq!(named("http://localhost:1"), None);
        assert_eq!(named("http://10.0.0.1:1"), None);
        assert_eq!(named("http://[::1]:1"), None);
        assert_eq!(named("http://node-a:1"), Some("node-a".to_owned()));
    }
}
