//! The environment: a variable for each flag, and a warning for every other variable that looks like one.
//!
//! Invariant: a variable and a flag never contradict each other silently. Unknown variables are only warned about, because
//! orchestrators inject them; their values are not logged, since nobody knows what they hold.

use super::redact::shown;
use super::settings::{Settings, Source};
use super::table::FLAGS;
use crate::log::{Line, Severity};

/// A variable that cannot be used. Exit code 1.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EnvironmentFault {
    /// The flag is on the command line as well.
    #[error(
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))"
    )]
    Shadowed {
        /// The variable.
        variable: String,
    },
    /// A value of the wrong kind.
    #[error("invalid value {value:?} for {variable}: {cause}")]
    Value {
        /// The value.
        value: String,
        /// The variable.
        variable: String,
        /// What is wrong.
        cause: String,
    },
}

/// Reads the environment into the settings. `--version` cannot come from there.
///
/// # Errors
/// A variable that contradicts a flag, or else the last one (by its flag's name) whose value is wrong.
pub fn read(
    variables: &[(String, String)],
    settings: &mut Settings,
    lines: &mut Vec<Line>,
) -> Result<(), EnvironmentFault> {
    let value_of = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if let Some(value) = value_of(VERSION).filter(|value| !value.is_empty()) {
        let line = Line::new(Severity::Warn, "cannot set special environment variable");
        lines.push(line.with("key", VERSION).with("value", value));
    }
    let mut by_name: Vec<usize> = (0..FLAGS.len()).collect();
    by_name.sort_by_key(|&place| FLAGS[place].name);
    let (mut used, mut shadowed) = (Vec::new(), Vec::new());
    let mut fault = Ok(());
    for place in by_name {
        let flag = &FLAGS[place];
        let variable = flag.variable();
        if settings.source(flag.name) == Source::CommandLine {
            shadowed.push(variable);
            continue;
        }
        let Some(value) = value_of(&variable).filter(|value| !value.is_empty() && variable != VERSION) else {
            continue;
        };
        match settings.set(place, value, Source::Environment) {
            Ok(()) => {
                let line = Line::new(Severity::Info, "recognized and used environment variable");
                lines.push(
                    line.with("variable-name", variable.as_str()).with("variable-value", shown(flag.name, value)),
                );
            }
            Err(cause) => {
                let value = shown(flag.name, value);
                fault = Err(EnvironmentFault::Value { value, variable: variable.clone(), cause });
            }
        }
        used.push(variable);
    }
    for (variable, _) in variables {
        if used.contains(variable) || variable == VERSION {
            continue;
        }
        if shadowed.contains(variable) {
            return Err(EnvironmentFault::Shadowed { variable: variable.clone() });
        }
        if variable.starts_with("ETCD_") {
            let line = Line::new(Severity::Warn, "unrecognized environment variable");
            lines.push(line.with("environment-variable", variable.as_str()));
        }
    }
    fault
}

/// Would print the version and exit, if it were taken.
const VERSION: &str = "ETCD_VERSION";
