//! The command line, by the rules of Go's flag package.
//!
//! Invariant: what Go refuses is refused here with the same line, and what Go takes means the same. The rules differ from those of a
//! GNU-like parser in ways that scripts rely on – one dash or two, `-x=v` or `-x v`, a switch takes its value only behind `=`, the
//! last of a repeated flag wins, the first bare word ends it all – and clap cannot be talked into them. So the table is walked by these
//! few lines, and clap only prints the help (`help.rs`).

use super::settings::{Settings, Source};
use super::table::{FLAGS, Kind, position};

/// What the command line asks for besides values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asks {
    /// `-h`, `-help`: the help, and nothing else.
    Help,
    /// A start, unless a word was left over.
    Start {
        /// The first word that is no flag.
        left_over: Option<String>,
    },
}

/// A command line that Go's flag package refuses. Exit code 2.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FlagFault {
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    NotDefined(String),
    /// Three dashes, or no name before `=`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The last word is a flag that wants a value.
    #[error("flag needs an argument: -{0}")]
    NoValue(&'static str),
    /// A value of the wrong kind.
    #[error("invalid value {value:?} for flag -{name}: {cause}")]
    Value {
        /// The value.
        value: String,
        /// The flag.
        name: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// A switch that is neither true nor false.
    #[error("invalid boolean value {value:?} for -{name}: {cause}")]
    Switch {
        /// The value.
        value: String,
        /// The flag.
        name: &'static str,
        /// What is wrong.
        cause: String,
    },
}

/// Reads the words after the program's name into the settings.
///
/// # Errors
/// The first word that cannot be taken.
pub fn read(words: &[String], settings: &mut Settings) -> Result<Asks, FlagFault> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            return Ok(Asks::Start { left_over: Some(word.clone()) });
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            return Ok(Asks::Start { left_over: words.next().cloned() });
        }
        if flag.starts_with(['-', '=']) {
            return Err(FlagFault::Syntax(word.clone()));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let Some(place) = position(name) else {
            let is_help = name == "h" || name == "help";
            return if is_help { Ok(Asks::Help) } else { Err(FlagFault::NotDefined(name.to_owned())) };
        };
        let flag = &FLAGS[place];
        let value = match value {
            Some(value) => value,
            None if flag.is_switch() => "true",
            None => words.next().map(String::as_str).ok_or(FlagFault::NoValue(flag.name))?,
        };
        settings.set(place, value, Source::CommandLine).map_err(|cause| {
            let value = value.to_owned();
            if flag.kind == Kind::Bool {
                FlagFault::Switch { value, name: flag.name, cause }
            } else {
                FlagFault::Value { value, name: flag.name, cause }
            }
        })?;
    }
    Ok(Asks::Start { left_over: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let mut settings = Settings::default();
        match read(&words, &mut settings) {
            Err(fault) => fault.to_string(),
            Ok(Asks::Help) => "help".to_owned(),
            Ok(Asks::Start { left_over: Some(word) }) => format!("left {word}"),
            Ok(Asks::Start { left_over: None }) => {
                format!("name {} pre-vote {}", settings.text("name"), settings.switch("pre-vote"))
            }
        }
    }

    #[test]
    fn words_are_read_as_go_reads_them() {
        let rows = [
            ("", "name default pre-vote true"),
            ("-name a", "name a pre-vote true"),
            ("--name a", "name a pre-vote true"),
            ("--name=a", "name a pre-vote true"),
            ("-name=a -name b", "name b pre-vote true"),
            ("--name=a=b", "name a=b pre-vote true"),
            ("--name --pre-vote", "name --pre-vote pre-vote true"),
            ("--name=", "name  pre-vote true"),
            ("--pre-vote=false", "name default pre-vote false"),
            ("--pre-vote=F --pre-vote", "name default pre-vote true"),
            ("--pre-vote false", "left false"),
            ("--force --snapshot=9 --name a", "name a pre-vote true"),
            ("-v --name a", "name a pre-vote true"),
            ("word --name a", "left word"),
            ("- --name a", "left -"),
            ("-- --name", "left --name"),
            ("--", "name default pre-vote true"),
            ("-h --nonsense", "help"),
            ("--name a --help", "help"),
            ("--nonsense=1", "flag provided but not defined: -nonsense"),
            ("-nonsense -h", "flag provided but not defined: -nonsense"),
            (
                "--experimental-initial-corrupt-check",
                "flag provided but not defined: -experimental-initial-corrupt-check",
            ),
            ("---name a", "bad flag syntax: ---name"),
            ("--=a", "bad flag syntax: --=a"),
            ("--name", "flag needs an argument: -name"),
            ("--pre-vote=no", "invalid boolean value \"no\" for -pre-vote: parse error"),
            ("--max-txn-ops x", "invalid value \"x\" for flag -max-txn-ops: parse error"),
            (
                "--max-txn-ops 99999999999999999999",
                "invalid value \"99999999999999999999\" for flag -max-txn-ops: value out of range",
            ),
            ("--backend-batch-interval 5", "invalid value \"5\" for flag -backend-batch-interval: parse error"),
            ("--initial-cluster-state=old", "invalid value \"old\" for flag -initial-cluster-state: invalid value"),
            ("--v2-deprecation=x", "invalid value \"x\" for flag -v2-deprecation: invalid value \"x\""),
            (
                "--listen-client-urls 127.0.0.1:1",
                "invalid value \"127.0.0.1:1\" for flag -listen-client-urls: parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
            ),
            (
                "--feature-gates=X=true",
                "invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X",
            ),
        ];
        for (line, expected) in rows {
            assert_eq!(told(line), expected, "{line}");
        }
    }
}
