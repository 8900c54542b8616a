//! The whole road from a command line and an environment to a configuration.
//!
//! Invariant: this is the only place that knows the order of the sources – help, leftovers, version, then either the configuration file alone
//! or the environment under the command line – and it reads nothing but what it is given.

use std::io;
use std::path::Path;

use super::validate::{Road, validate};
use super::{Outcome, Refused, Request, build};
use crate::flags::command_line::{self, Asks};
use crate::flags::file::FileFault;
use crate::flags::settings::{Settings, Source};
use crate::flags::{environment, file};
use crate::log::{Line, Severity};

/// Reads the configuration. `words` is the command line without the program's name, `open` reads a file.
pub fn read(
    words: &[String],
    variables: &[(String, String)],
    open: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
) -> Outcome {
    let mut lines = Vec::new();
    let result = request(words, variables, open, &mut lines);
    Outcome { lines, result }
}

fn request(
    words: &[String],
    variables: &[(String, String)],
    open: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
    lines: &mut Vec<Line>,
) -> Result<Request, Refused> {
    let mut typed = Settings::default();
    match command_line::read(words, &mut typed)? {
        Asks::Help => return Ok(Request::Help),
        Asks::Start { left_over: Some(word) } => return Err(Refused::LeftOver(word)),
        Asks::Start { left_over: None } => {}
    }
    if typed.switch("version") {
        return Ok(Request::Version);
    }
    let path = match typed.text("config-file") {
        "" => variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE").map_or("", |(_, path)| path.as_str()),
        path => path,
    };
    let (settings, road) = if path.is_empty() {
        environment::read(variables, &mut typed, lines)?;
        raise_timeouts(&typed, lines);
        (typed, Road::Typed)
    } else {
        (from_file(path, open, lines)?, Road::File)
    };
    validate(&settings, road, lines)?;
    deprecations(&settings, lines);
    let config = build::build(&settings, lines)?;
    Ok(Request::Start(Box::new(config)))
}

fn from_file(
    path: &str,
    open: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
    lines: &mut Vec<Line>,
) -> Result<Settings, Refused> {
    let bytes = open(Path::new(path)).map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        FileFault::Open { path: path.to_owned(), cause }
    })?;
    let mut settings = Settings::default();
    file::read(&bytes, &mut settings, lines)?;
    let message = "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided";
    lines.push(Line::new(Severity::Info, message).with("path", path));
    Ok(settings)
}

fn raise_timeouts(settings: &Settings, lines: &mut Vec<Line>) {
    for name in ["raft-read-timeout", "raft-write-timeout"] {
        if settings.nanos(name) < 5_000_000_000 {
            lines.push(Line::new(Severity::Info, format!("{name} increased to minimum value: 5s")));
        }
    }
}

fn deprecations(settings: &Settings, lines: &mut Vec<Line>) {
    let deprecated = [
        ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
        (
            "v2-deprecation",
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
        ),
    ];
    for (name, message) in deprecated {
        if settings.source(name) != Source::Default {
            lines.push(Line::new(Severity::Warn, message));
        }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
