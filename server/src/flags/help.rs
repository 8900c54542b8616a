//! What `--help`, `--version` and a mistyped flag print.
//!
//! Invariant: the help is made from the table, so no flag can be missing from it. clap lays it out; it parses nothing here
//! (`command_line.rs` says why).

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::table::{FLAGS, Flag, Support};

/// The version of etcd whose behaviour this is.
pub const ETCD_VERSION: &str = "3.7.3";

/// All flags, for stdout.
#[must_use]
pub fn help() -> String {
    let listed = FLAGS.iter().filter(|flag| !flag.help.is_empty());
    let mut command = Command::new("detcd")
        .about("A member of an etcd cluster")
        .after_help("Every flag but --version can also be set by an environment variable: --data-dir by ETCD_DATA_DIR.")
        .override_usage("detcd [flags]")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .term_width(120)
        .args(listed.map(argument));
    command.render_help().to_string()
}

/// What to do instead, for stderr after a mistake.
#[must_use]
pub fn usage() -> &'static str {
    "Usage:

  detcd [flags]
    Start a member.

  detcd --version
    Show the version.

  detcd -h | --help
    Show the flags.

  detcd --config-file
    Path to the configuration file. Where one is given, other flags and environment variables are ignored.
"
}

/// The four lines of `--version`, in etcd's shape. `arch` is Go's name of the architecture.
#[must_use]
pub fn version(arch: &str) -> String {
    let mut text = format!("etcd Version: {ETCD_VERSION}\n");
    let sha = option_env!("DETCD_GIT_SHA").unwrap_or("unknown");
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let ours = env!("CARGO_PKG_VERSION");
    writeln!(text, "Git SHA: {sha}\nGo Version: none (detcd {ours}, Rust)\nGo OS/Arch: {os}/{arch}")
        .expect("a String takes every write");
    text
}

fn argument(flag: &'static Flag) -> Arg {
    let help = match flag.support {
        Support::Built | Support::Never => flag.help.to_owned(),
        Support::Later => format!("{} (only the default is built yet)", flag.help),
    };
    let argument = Arg::new(flag.name).long(flag.name).help(help).help_heading(flag.group.title());
    let argument = argument.value_name(if flag.is_switch() { "true|false" } else { "value" });
    if flag.default.is_empty() { argument } else { argument.default_value(flag.default) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_flag_once() {
        let help = help();
        for flag in FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
            let option = format!("--{} <", flag.name);
            assert_eq!(help.matches(&option).count(), 1, "{option}");
        }
        assert!(!help.contains("--cluster-active-size"));
        assert!(help.contains("[default: http://localhost:2379]"));
    }

    #[test]
    fn the_version_has_etcds_four_lines() {
        let text = version("amd64");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "etcd Version: 3.7.3");
        assert!(lines[1].starts_with("Git SHA: "));
        assert!(lines[2].starts_with("Go Version: "));
        assert!(lines[3].ends_with("/amd64") && lines[3].starts_with("Go OS/Arch: "));
    }
}
