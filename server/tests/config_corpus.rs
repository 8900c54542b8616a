//! The corpus of the `config` fuzz target, and what is made of it without a fuzzer: cut, spliced and changed in its words.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use detcd_server::config::Request;
use detcd_server::config::fuzz::ask;
use detcd_server::flags::table::{FLAGS, Kind};
use proptest::prelude::*;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/config");
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn the_corpus_keeps_every_promise_and_gets_everywhere() {
    let mut told = Vec::new();
    for (name, bytes) in seeds() {
        told.push(match ask(&bytes).result {
            Ok(Request::Start(config)) => format!("{name}: starts {}", config.asked.name),
            Ok(request) => format!("{name}: {request:?}"),
            Err(refused) => format!("{name}: {refused}"),
        });
    }
    let told = told.join("\n");
    for wanted in [
        "member-by-flags: starts a",
        "member-by-variables: starts b",
        "member-by-file: starts c",
        "help: Help",
        "left-over: \"word\" is not a valid flag",
        "flag-over-variable: conflicting environment variable is shadowed",
        "what-is-refused: ",
    ] {
        assert!(told.contains(wanted), "{wanted} is not in\n{told}");
    }
}

/// What a fuzzer would take long to spell: each flag, the values that a flag chooses from, and a few that rules ask for. `WRITE_SEEDS=1`
/// writes it.
#[test]
fn the_dictionary_has_every_flag() {
    let mut words: Vec<String> = FLAGS.iter().map(|flag| format!("--{}=", flag.name)).collect();
    for flag in FLAGS {
        if let Kind::OneOf(values) | Kind::SomeOf(values) = flag.kind {
            words.extend(values.iter().map(ToString::to_string));
        }
    }
    let asked_for = [
        "capnslog",
        "console",
        "default,",
        "existing",
        "proxy",
        "stdout",
        "TLS1.2",
        "https://",
        "unix://",
        "127.0.0.1:",
        "[::1]:",
    ];
    words.extend(asked_for.map(ToOwned::to_owned));
    words.sort();
    words.dedup();
    let text: String = words.iter().map(|word| format!("{word:?}\n")).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/dict/config");
    if std::env::var_os("WRITE_SEEDS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn lines_of_the_corpus_in_any_mixture_end_well(picks in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 1..12)) {
        let seeds = seeds();
        let lines: Vec<&[u8]> = seeds.iter().flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n')).collect();
        let mut input = Vec::new();
        for (pick, place, byte) in picks {
            let mut line = lines[usize::from(pick) % lines.len()].to_vec();
            // Half of the lines are changed in one byte.
            if place % 2 == 0 && !line.is_empty() {
                let at = usize::from(place / 2) % line.len();
                line[at] = byte;
            }
            input.extend_from_slice(&line);
            input.push(b'\n');
        }
        let _ = ask(&input);
    }
}
