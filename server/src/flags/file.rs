//! The configuration file: YAML whose keys are the flags' names, some of them under a section.
//!
//! Invariant: where there is a file, it is the only source. Unknown keys are warned about and otherwise without effect, as in etcd; a
//! known key with a value of the wrong type is refused, since it would not mean what its author thinks.

use serde_yaml_ng::{Mapping, Value as Yaml};

use super::settings::{Settings, Source};
use super::table::{FLAGS, Flag, Kind};
use super::value::Value;
use crate::log::{Line, Severity};

/// A configuration file that cannot be used. Exit code 1.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FileFault {
    /// It cannot be read.
    #[error("open {path}: {cause}")]
    Open {
        /// Its path.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// It is not YAML.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// It is YAML, but no mapping.
    #[error(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {0} into Go value of type embed.configYAML"
    )]
    Shape(&'static str),
    /// A value of the wrong type.
    #[error(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go struct field configYAML.Config.{key} of type {wanted}"
    )]
    Type {
        /// What is there.
        found: String,
        /// Where it is.
        key: String,
        /// What has to be there.
        wanted: &'static str,
    },
    /// A URL that is none.
    #[error("unexpected error setting up {key}: {cause}")]
    Url {
        /// The key.
        key: String,
        /// What is wrong.
        cause: String,
    },
    /// A feature gate that is none.
    #[error("{0}")]
    Gate(String),
}

/// Reads a file's bytes into the settings.
///
/// # Errors
/// The first thing that cannot be taken.
pub fn read(bytes: &[u8], settings: &mut Settings, lines: &mut Vec<Line>) -> Result<(), FileFault> {
    if bytes.trim_ascii().is_empty() {
        return Ok(());
    }
    match serde_yaml_ng::from_slice::<Yaml>(bytes).map_err(|error| FileFault::Yaml(error.to_string()))? {
        Yaml::Null => Ok(()),
        Yaml::Mapping(mapping) => section("", &mapping, settings, lines),
        other => Err(FileFault::Shape(kind_of(&other))),
    }
}

/// Reads one level. The names in the table bound the depth.
fn section(above: &str, mapping: &Mapping, settings: &mut Settings, lines: &mut Vec<Line>) -> Result<(), FileFault> {
    for (name, value) in mapping {
        let name = name.as_str().map_or_else(|| kind_of(name).to_owned(), str::to_owned);
        let key = if above.is_empty() { name } else { format!("{above}.{name}") };
        let inside = format!("{key}.");
        if let Some(place) = FLAGS.iter().position(|flag| flag.yaml == Some(key.as_str())) {
            set(place, value, settings)?;
        } else if FLAGS.iter().any(|flag| flag.yaml.is_some_and(|known| known.starts_with(&inside))) {
            match value {
                Yaml::Null => {}
                Yaml::Mapping(mapping) => section(&key, mapping, settings, lines)?,
                other => {
                    let found = kind_of(other).to_owned();
                    return Err(FileFault::Type { found, key, wanted: "struct" });
                }
            }
        } else {
            let line = Line::new(Severity::Warn, "unrecognized key in the configuration file");
            lines.push(line.with("key", key));
        }
    }
    Ok(())
}

fn set(place: usize, yaml: &Yaml, settings: &mut Settings) -> Result<(), FileFault> {
    let flag = &FLAGS[place];
    let key = flag.yaml.unwrap_or(flag.name).to_owned();
    let wrong = |yaml: &Yaml| {
        let found = match yaml {
            Yaml::Number(number) => format!("number {number}"),
            other => kind_of(other).to_owned(),
        };
        FileFault::Type { found, key: key.clone(), wanted: type_of(flag) }
    };
    let value = match flag.kind {
        _ if *yaml == Yaml::Null => return Ok(()),
        Kind::Bool | Kind::Ignored => Value::Bool(yaml.as_bool().ok_or_else(|| wrong(yaml))?),
        Kind::Uint | Kind::Uint64 => Value::Unsigned(yaml.as_u64().ok_or_else(|| wrong(yaml))?),
        Kind::Uint32 => {
            let number = yaml.as_u64().filter(|number| *number <= u64::from(u32::MAX));
            Value::Unsigned(number.ok_or_else(|| wrong(yaml))?)
        }
        Kind::Int | Kind::Int64 => Value::Signed(yaml.as_i64().ok_or_else(|| wrong(yaml))?),
        Kind::Duration => Value::Duration(yaml.as_i64().ok_or_else(|| wrong(yaml))?),
        Kind::Texts | Kind::UniqueTexts if is_list(flag) => Value::Texts(texts(yaml).ok_or_else(|| wrong(yaml))?),
        // Whether a choice is one of the lawful ones is looked at with everything else, later.
        Kind::OneOf(_) | Kind::SomeOf(_) => match scalar(yaml).ok_or_else(|| wrong(yaml))? {
            text if text.is_empty() => return Ok(()),
            text => Value::Text(text),
        },
        Kind::Text | Kind::Urls | Kind::Origins | Kind::Texts | Kind::UniqueTexts | Kind::Gates => {
            let text = scalar(yaml).ok_or_else(|| wrong(yaml))?;
            // An empty text is a text; anywhere else it leaves the default alone.
            if text.is_empty() && flag.kind != Kind::Text {
                return Ok(());
            }
            return settings.set(place, &text, Source::File).map_err(|cause| match flag.kind {
                Kind::Gates => FileFault::Gate(cause),
                _ => FileFault::Url { key: key.clone(), cause },
            });
        }
    };
    settings.put(place, value, Source::File);
    Ok(())
}

/// Lists that are lists in YAML too. The host list is one text, as on the command line.
fn is_list(flag: &Flag) -> bool {
    flag.name != "host-whitelist"
}

/// A text; numbers and truths are taken for the text they were written as.
fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn texts(yaml: &Yaml) -> Option<Vec<String>> {
    yaml.as_sequence()?.iter().map(scalar).collect()
}

fn kind_of(yaml: &Yaml) -> &'static str {
    match yaml {
        Yaml::Null => "null",
        Yaml::Bool(_) => "bool",
        Yaml::Number(_) => "number",
        Yaml::String(_) => "string",
        Yaml::Sequence(_) => "array",
        Yaml::Mapping(_) | Yaml::Tagged(_) => "object",
    }
}

fn type_of(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Bool | Kind::Ignored => "bool",
        Kind::Uint => "uint",
        Kind::Uint64 => "uint64",
        Kind::Uint32 => "uint32",
        Kind::Int => "int",
        Kind::Int64 => "int64",
        Kind::Duration => "time.Duration",
        Kind::Texts | Kind::UniqueTexts if is_list(flag) => "[]string",
        _ => "string",
    }
}
