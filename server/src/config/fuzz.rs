//! What the fuzzer calls, and the stable tests too: any text as a command line, an environment and a configuration file.
//!
//! The invariants it checks, whatever the text: reading ends, without a panic, in a request or a typed refusal that says something and ends the process with 1 or 2; the same again is read
//! the same; where there is a file, nothing else counts; and what the flags ask for comes to the same when it is said again by flags, by variables, or in a file.
//!
//! The text: a line that begins with `-` is a word of the command line, one with `=` in it a variable, any other a word, up to a line `---`. What is behind that is the file, whatever its name.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_yaml_ng::{Mapping, Value as Yaml};

use super::validate::Invalid;
use super::{Config, Outcome, Refused, Request, read};
use crate::flags::command_line::{self, Asks};
use crate::flags::redact::redacted_args;
use crate::flags::settings::{Settings, Source};
use crate::flags::table::{Flag, Kind};
use crate::flags::value::Value;

/// Between the words and the file.
const FILE_FOLLOWS: &str = "---";

/// What an operator said.
#[derive(Debug, Default)]
struct Said {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    file: Vec<u8>,
}

/// Reads the text.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
#[must_use]
pub fn ask(input: &[u8]) -> Outcome {
    let said = parse(input);
    let outcome = said.read();
    assert_eq!(said.read(), outcome, "read again");
    let _ = redacted_args(&said.words);
    match &outcome.result {
        Ok(Request::Start(config)) => check(config),
        Ok(Request::Help | Request::Version) => {}
        Err(refused) => check_refusal(refused),
    }
    check_file_alone(&said, &outcome);
    check_roads(&said.words);
    outcome
}

fn parse(input: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = input;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = rest.get(end + 1..).unwrap_or_default();
        match line.split_once('=') {
            _ if line == FILE_FOLLOWS => {
                said.file = rest.to_vec();
                break;
            }
            Some((name, value)) if !line.starts_with('-') => said.variables.push((name.to_owned(), value.to_owned())),
            _ => said.words.push(line),
        }
    }
    said
}

impl Said {
    fn read(&self) -> Outcome {
        read(&self.words, &self.variables, |path| {
            // A name that no system takes.
            if path.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Ok(self.file.clone())
        })
    }
}

/// What holds for every configuration.
fn check(config: &Config) {
    let urls = &config.urls;
    for list in [&urls.listen_peer, &urls.listen_client, &urls.advertise_peer, &urls.advertise_client] {
        assert!(list.is_sorted_by(|one, next| one < next), "{list:?}");
    }
    assert!(config.raft.heartbeat * 5 <= config.raft.election && config.raft.election_ticks >= 5);
    assert!(config.watch.progress_interval.as_millis() >= 100);
    assert!(config.limits.quota_bytes != 0 && config.store.batch_ops_max > 0 && config.store.sweeps.rows > 0);
    assert!(!config.store.batch_interval.is_zero() && !config.store.sweeps.pause.is_zero());
}

fn check_refusal(refused: &Refused) {
    let report = refused.report();
    assert!(matches!(report.exit_code, 1 | 2));
    assert!(!report.stderr.is_empty() || !report.lines.is_empty(), "it says why: {refused:?}");
    assert!(report.stderr.is_empty() || report.stderr.ends_with('\n'));
}

/// Where there is a file, the command line and the environment have no effect.
fn check_file_alone(said: &Said, outcome: &Outcome) {
    let mut typed = Settings::default();
    let Ok(Asks::Start { left_over: None }) = command_line::read(&said.words, &mut typed) else { return };
    let is_named = |(name, path): &&(String, String)| name == "ETCD_CONFIG_FILE" && !path.is_empty();
    let by_variable = said.variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE").filter(is_named).is_some();
    let path = typed.text("config-file");
    if typed.switch("version") || path.is_empty() && !by_variable || path.contains('\0') {
        return;
    }
    let alone = read(&["--config-file=f".to_owned()], &[], |_: &Path| Ok(said.file.clone()));
    if !matches!(&outcome.result, Err(Refused::File(crate::flags::file::FileFault::Open { .. }))) {
        assert_eq!(alone.result, outcome.result, "a file, and something beside it");
    }
}

/// What the flags ask for, said again by each source.
fn check_roads(words: &[String]) {
    let mut typed = Settings::default();
    let Ok(Asks::Start { left_over: None }) = command_line::read(words, &mut typed) else { return };
    if typed.switch("version") || !typed.text("config-file").is_empty() {
        return;
    }
    let set =
        || typed.iter().filter(|(flag, _)| typed.source(flag.name) != Source::Default && flag.kind != Kind::Ignored);
    let set = || set().filter(|(flag, _)| !matches!(flag.name, "version" | "config-file"));
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let first = read(words, &[], nothing).result;
    let again: Vec<String> = set().map(|(flag, value)| format!("--{}={}", flag.name, text(value))).collect();
    assert_eq!(read(&again, &[], nothing).result, first, "said again: {again:?}");
    // An empty variable is none, and an empty value in a file leaves the default.
    if set().any(|(_, value)| text(value).is_empty()) {
        return;
    }
    let variables: Vec<(String, String)> = set().map(|(flag, value)| (flag.variable(), text(value))).collect();
    assert_eq!(read(&[], &variables, nothing).result, first, "by variables: {variables:?}");
    if set().all(|(flag, _)| flag.yaml.is_some()) && !is_of_one_road(&first) {
        let file = file(set());
        let by_file = read(&["--config-file=f".to_owned()], &[], |_: &Path| Ok(file.clone().into_bytes())).result;
        assert_eq!(by_file, first, "by a file: {file}");
    }
}

/// Rules of etcd that ask what was typed.
const fn is_of_one_road(result: &Result<Request, Refused>) -> bool {
    matches!(result, Err(Refused::Invalid(Invalid::AdvertiseClientUnset | Invalid::BootstrapConflict)))
}

/// A value as it may be typed.
fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(on) => on.to_string(),
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Duration(nanos) => format!("{nanos}ns"),
        Value::Urls(urls) => urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        Value::Texts(texts) => texts.join(","),
        Value::Gates(gates) => gates.iter().fold(String::new(), |mut text, (name, on)| {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}={on}");
            text
        }),
    }
}

/// A file that sets these.
fn file<'a>(set: impl Iterator<Item = (&'static Flag, &'a Value)>) -> String {
    let mut root = Mapping::new();
    for (flag, value) in set {
        let yaml = match value {
            Value::Bool(on) => Yaml::from(*on),
            Value::Unsigned(number) => Yaml::from(*number),
            Value::Signed(number) | Value::Duration(number) => Yaml::from(*number),
            Value::Texts(texts)
                if matches!(flag.kind, Kind::Texts | Kind::UniqueTexts) && flag.name != "host-whitelist" =>
            {
                Yaml::from(texts.clone())
            }
            other => Yaml::from(text(other)),
        };
        let key = flag.yaml.unwrap_or(flag.name);
        let mut parts: Vec<&str> = key.split('.').collect();
        let name = parts.pop().unwrap_or(key);
        let section = parts.into_iter().fold(&mut root, |section, part| {
            let inner = section.entry(Yaml::from(part)).or_insert_with(|| Yaml::Mapping(Mapping::new()));
            inner.as_mapping_mut().expect("a section is no value")
        });
        section.insert(Yaml::from(name), yaml);
    }
    serde_yaml_ng::to_string(&root).expect("a mapping of plain values")
}
