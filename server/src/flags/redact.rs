//! What may be logged of the command line and the environment.
//!
//! Invariant: a value that opens something is not written to a log, whether the flag that carries it is spelled well or not: names decide,
//! not the table. A user and password inside a URL go as well.

/// Stands where a secret was.
const REDACTED: &str = "<redacted>";

/// The words of a command line, fit for a log.
#[must_use]
pub fn redacted_args(words: &[String]) -> Vec<String> {
    let mut follows = false;
    words
        .iter()
        .map(|word| {
            let is_value = core::mem::take(&mut follows);
            let Some(flag) = word.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) else {
                return if is_value { REDACTED.to_owned() } else { without_user(word) };
            };
            if is_value {
                return REDACTED.to_owned();
            }
            let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            if !is_secret(name) {
                return without_user(word);
            }
            follows = value.is_none();
            match value {
                Some(value) => format!("{}{REDACTED}", &word[..word.len() - value.len()]),
                None => word.clone(),
            }
        })
        .collect()
}

/// The value of a flag, fit for a log.
#[must_use]
pub fn shown(name: &str, value: &str) -> String {
    if is_secret(name) { REDACTED.to_owned() } else { without_user(value) }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "secret", "discovery-token", "discovery-user"].iter().any(|part| name.contains(part))
}

/// Replaces `user:password` in each URL of a list.
fn without_user(text: &str) -> String {
    let parts = text.split(',').map(|part| {
        let Some((scheme, rest)) = part.split_once("://") else {
            return part.to_owned();
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        match rest[..end].rfind('@') {
            Some(at) => format!("{scheme}://{REDACTED}{}", &rest[at..]),
            None => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_reach_the_log() {
        let rows = [
            ("--name a --data-dir=/d", "--name a --data-dir=/d"),
            ("--discovery-password=x --name a", "--discovery-password=<redacted> --name a"),
            ("--discovery-password x --name a", "--discovery-password <redacted> --name a"),
            ("-discovery-password --x y", "-discovery-password <redacted> y"),
            ("--discovery-user=u:p", "--discovery-user=<redacted>"),
            ("--no-such-PASSWORD=x", "--no-such-PASSWORD=<redacted>"),
            ("--listen-client-urls=http://u:p@h:1,http://h:2", "--listen-client-urls=http://<redacted>@h:1,http://h:2"),
            ("--initial-cluster a=http://u:p@h:1/x@y", "--initial-cluster a=http://<redacted>@h:1/x@y"),
            ("--initial-cluster-token t", "--initial-cluster-token t"),
        ];
        for (line, expected) in rows {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(redacted_args(&words).join(" "), expected);
        }
        assert_eq!(shown("discovery-password", "x"), "<redacted>");
        assert_eq!(shown("name", "x"), "x");
    }
}
