//! The tidy test: what the project promises about its own text, held as ratchets that may only tighten.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Functions longer than 70 lines. May only go down.
const LONG_FUNCTIONS_ALLOWED: usize = 0;
/// Files longer than 600 lines, tests apart. May only go down.
const LONG_FILES_ALLOWED: usize = 0;
/// Structs with more than 12 fields, wire messages apart. May only go down.
const WIDE_STRUCTS_ALLOWED: usize = 1;

const PACKAGES: [&str; 8] = ["proto", "core", "io", "sim", "server", "ctl", "bench", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Every Rust file of a package, with its text.
fn sources(package: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root().join(package), &mut found);
    found.sort();
    let rust = found.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    })
    .collect()
}

fn all_sources() -> Vec<(String, String)> {
    PACKAGES.iter().flat_map(|package| sources(package)).collect()
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests.rs")
}

/// The part of a file before its inline tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

#[test]
fn every_file_says_why_it_exists() {
    let silent: Vec<_> = all_sources()
        .into_iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn files_stay_within_their_budget() {
    let long: Vec<_> = all_sources()
        .into_iter()
        .filter(|(name, _)| !is_test(name))
        .map(|(name, text)| (production(&text).lines().count(), name))
        .filter(|(lines, _)| *lines > 600)
        .collect();
    assert_eq!(long.len(), LONG_FILES_ALLOWED, "{long:?}");
}

/// Functions of more than 70 lines: from the line with `fn` to the brace that closes at its indentation.
fn long_functions(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let is_function = trimmed.starts_with("fn ") || trimmed.contains(" fn ") && !trimmed.starts_with("//");
        if !is_function || trimmed.contains('"') || trimmed.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|line| *line == close)
            && length + 1 > 70
        {
            found.push(format!("{name}:{} ({} lines)", start + 1, length + 1));
        }
    }
    found
}

#[test]
fn functions_fit_on_a_screen() {
    let long: Vec<_> = all_sources()
        .iter()
        .filter(|(name, _)| !is_test(name))
        .flat_map(|(name, text)| long_functions(name, production(text)))
        .collect();
    assert_eq!(long.len(), LONG_FUNCTIONS_ALLOWED, "{long:#?}");
}

#[test]
fn structs_have_few_fields() {
    let mut wide = Vec::new();
    for (name, text) in all_sources().iter().filter(|(name, _)| !is_test(name)) {
        let mut open: Option<(usize, String, usize)> = None;
        for line in production(text).lines() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            if let Some((at, title, fields)) = &mut open {
                if trimmed.starts_with('}') && indent == *at {
                    if *fields > 12 {
                        wide.push(format!("{name}: {title} ({fields} fields)"));
                    }
                    open = None;
                } else if indent == *at + 4
                    && trimmed.contains(": ")
                    && !trimmed.starts_with("//")
                    && !trimmed.starts_with('#')
                {
                    *fields += 1;
                }
            } else if trimmed.contains("struct ") && trimmed.ends_with('{') && !trimmed.starts_with("//") {
                open = Some((indent, trimmed.to_owned(), 0));
            }
        }
    }
    assert_eq!(wide.len(), WIDE_STRUCTS_ALLOWED, "{wide:#?}");
}

/// Words that must not appear in the code of some packages, and the files that may use them all the same.
const BANNED: &[(&str, &[&str], &[&str])] = &[
    ("cfg(madsim)", &["proto", "core", "io", "server", "bench", "tests"], &["tests/tests/tidy.rs"]),
    ("spawn_blocking", &["core", "io", "server"], &[]),
    ("tokio::fs", &["core", "io", "server"], &[]),
    ("thread::spawn", &["core", "io", "server"], &[]),
    ("thread::Builder", &["core", "io", "server"], &["server/src/run.rs"]),
    ("runtime::Builder", &["core", "io", "server"], &["server/src/run.rs"]),
    ("process::exit", &["core", "io", "server", "sim", "ctl", "bench"], &[]),
    ("HashMap", &["core", "io"], &[]),
    ("HashSet", &["core", "io"], &[]),
    ("Instant::now", &["core"], &[]),
    ("SystemTime", &["core", "io"], &["io/src/clock.rs"]),
    ("thread_rng", &["core", "io", "server", "sim"], &[]),
    ("rand::random", &["core", "io", "server", "sim"], &[]),
    ("println!", &["core", "io", "server"], &[]),
    ("todo!(", &["core", "io", "server", "sim", "bench", "tests"], &["tests/tests/tidy.rs"]),
    ("unimplemented!(", &["core", "io", "server", "sim", "bench", "tests"], &["tests/tests/tidy.rs"]),
    ("FIXME", &["core", "io", "server", "sim", "bench", "tests"], &["tests/tests/tidy.rs"]),
    ("#[ignore", &["core", "io", "server", "sim", "bench", "tests"], &["tests/tests/tidy.rs"]),
];

#[test]
fn banned_words_stay_out() {
    let mut found = Vec::new();
    for (word, packages, exempt) in BANNED {
        for (name, text) in packages.iter().flat_map(|package| sources(package)) {
            let counts = |line: &&str| !line.trim_start().starts_with("//") && line.contains(word);
            if !exempt.contains(&name.as_str())
                && !is_test(&name)
                && production(&text).lines().any(|line| counts(&line))
            {
                found.push(format!("{name}: {word}"));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// The packages of ours that a package's production code may use.
const EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("core", &[]),
    ("io", &["core", "proto"]),
    ("sim", &["core", "io", "proto", "server"]),
    ("server", &["core", "io", "proto"]),
    ("ctl", &["io", "proto"]),
    ("bench", &["proto"]),
];

/// The names in the dependency tables of a manifest, development apart.
fn dependencies(package: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies") && !line.contains("dev-") && !line.contains("build-");
        } else if inside && let Some(name) = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty()) {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn packages_use_only_what_the_map_allows() {
    for (package, allowed) in EDGES {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| format!("detcd-{name}")).collect();
        let ours: BTreeSet<String> =
            dependencies(package).into_iter().filter(|name| name.starts_with("detcd-")).collect();
        assert!(ours.is_subset(&allowed), "{package} uses {ours:?}, allowed are {allowed:?}");
    }
    assert_eq!(dependencies("core"), BTreeSet::from(["bytes".to_owned()]), "the engine uses bytes only");
    let core = fs::read_to_string(root().join("core/src/lib.rs")).unwrap();
    assert!(core.contains("#![no_std]"));
}

/// Paths in backquotes in a document.
fn named_paths(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains('/') && name.ends_with(".rs")).map(str::to_owned).collect()
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut documents = Vec::new();
    walk(&root().join("docs"), &mut documents);
    documents.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let mut missing = Vec::new();
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(document).unwrap();
        missing.extend(named_paths(&text).into_iter().filter(|name| !root().join(name).exists()));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_known_bug_that_is_planted_is_on_the_scoreboard() {
    let page = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (bugs, scoreboard) = (page("known-bugs.md"), page("scoreboard.md"));
    let is_name = |word: &&str| word.starts_with(char::is_uppercase) && word.chars().all(char::is_alphanumeric);
    let rows = bugs.lines().filter_map(|line| line.rsplit_once(" | ")).map(|(_, here)| here);
    let planted: Vec<&str> = rows.flat_map(|here| here.split('`').skip(1).step_by(2)).filter(is_name).collect();
    assert!(planted.len() > 20, "{planted:?}");
    let missing: Vec<_> = planted.iter().filter(|name| !scoreboard.contains(&format!("| `{name}` |"))).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}

#[test]
fn every_link_of_the_readme_leads_somewhere() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let broken: Vec<_> = links.filter(|link| !link.contains("://") && !root().join(link).exists()).collect();
    assert_eq!(broken, Vec::<&str>::new());
}
