//! A configuration that is refused, and how the process ends then.
//!
//! Invariant: nothing was touched. Exit codes are etcd's: 2 for what its flag parser (or its logger, which panics) refuses, 1 for the rest.

use crate::config::validate::Invalid;
use crate::flags::command_line::FlagFault;
use crate::flags::environment::EnvironmentFault;
use crate::flags::file::FileFault;
use crate::flags::help;
use crate::log::{Line, Severity};

/// Why there is no configuration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The command line does not parse.
    #[error(transparent)]
    Flag(#[from] FlagFault),
    /// A word on the command line belongs to no flag.
    #[error("{0:?} is not a valid flag")]
    LeftOver(String),
    /// The environment cannot be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentFault),
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileFault),
    /// The values contradict themselves, each other, or etcd's rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// etcd can do it and detcd cannot yet.
    #[error("{what} is not built yet in detcd")]
    NotBuilt {
        /// The flag, with its dashes.
        what: String,
    },
    /// detcd will not do it.
    #[error("--{flag} is not offered by detcd: {reason}")]
    Never {
        /// The flag.
        flag: &'static str,
        /// Why.
        reason: &'static str,
    },
}

/// What to print and how to exit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Text for standard error.
    pub stderr: String,
    /// Lines for the log, after those that reading the configuration returned.
    pub lines: Vec<Line>,
    /// The exit code.
    pub exit_code: u8,
}

impl Refused {
    /// What to print and how to exit.
    #[must_use]
    pub fn report(&self) -> Report {
        let text = self.to_string();
        let failed = |severity, message: &str| vec![Line::new(severity, message).with("error", text.as_str())];
        let lines = match self {
            Self::Flag(_) | Self::Invalid(Invalid::LogLevel(_)) | Self::File(FileFault::Url { .. }) => Vec::new(),
            Self::Environment(EnvironmentFault::Shadowed { variable }) => {
                vec![Line::new(Severity::Fatal, text.as_str()).with("environment-variable", variable.as_str())]
            }
            Self::Invalid(invalid) if invalid.is_found_at_start() => failed(Severity::Fatal, "discovery failed"),
            Self::Invalid(Invalid::AdvertiseClientUnset) => {
                let mut lines = failed(Severity::Warn, "failed to verify flags");
                lines.extend(failed(Severity::Warn, "advertise client URLs are not set"));
                lines
            }
            Self::LeftOver(_)
            | Self::Environment(EnvironmentFault::Value { .. })
            | Self::File(_)
            | Self::Invalid(_)
            | Self::NotBuilt { .. }
            | Self::Never { .. } => failed(Severity::Warn, "failed to verify flags"),
        };
        let stderr = match self {
            Self::Flag(_) => format!("{text}\n{}", help::usage()),
            Self::Invalid(Invalid::LogLevel(_)) | Self::File(FileFault::Url { .. }) => format!("{text}\n"),
            _ => String::new(),
        };
        Report { stderr, lines, exit_code: self.exit_code() }
    }

    /// The exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Flag(_) | Self::Invalid(Invalid::LogLevel(_)) => 2,
            _ => 1,
        }
    }
}
