//! The values of all flags and where each came from.
//!
//! Invariant: there is a value for every row of the table at any time – the default until a source says otherwise – so nobody
//! downstream asks whether something was set, except where etcd's rules themselves do.

use std::collections::BTreeMap;

use detcd_io::boot::url::Url;

use super::table::{FLAGS, Flag, position};
use super::value::{Value, defaults};

/// Who said it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Nobody: the default.
    Default,
    /// The command line.
    CommandLine,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
}

/// A value for each flag.
#[derive(Clone, Debug)]
pub struct Settings {
    values: Vec<Value>,
    sources: Vec<Source>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { values: defaults(), sources: vec![Source::Default; FLAGS.len()] }
    }
}

impl Settings {
    /// Reads a text as the value of a flag and keeps it.
    ///
    /// # Errors
    /// The cause, in etcd's words; the value stays what it was.
    pub fn set(&mut self, place: usize, text: &str, source: Source) -> Result<(), String> {
        let value = Value::parse(&FLAGS[place], text, &self.values[place])?;
        self.put(place, value, source);
        Ok(())
    }

    /// Keeps a value.
    pub fn put(&mut self, place: usize, value: Value, source: Source) {
        self.values[place] = value;
        self.sources[place] = source;
    }

    /// Each flag with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Flag, &Value)> {
        FLAGS.iter().zip(&self.values)
    }

    /// Who set a flag.
    #[must_use]
    pub fn source(&self, name: &str) -> Source {
        self.sources[place_of(name)]
    }

    /// Whether anybody set a flag.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.source(name) != Source::Default
    }

    /// The value of a flag.
    #[must_use]
    pub fn value(&self, name: &str) -> &Value {
        &self.values[place_of(name)]
    }

    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => unreachable!("--{name} is no text: {other:?}"),
        }
    }

    /// A switch.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(on) => *on,
            other => unreachable!("--{name} is no switch: {other:?}"),
        }
    }

    /// A number without a sign.
    #[must_use]
    pub fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Unsigned(number) => *number,
            other => unreachable!("--{name} is no unsigned number: {other:?}"),
        }
    }

    /// A number with a sign.
    #[must_use]
    pub fn signed(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Signed(number) => *number,
            other => unreachable!("--{name} is no signed number: {other:?}"),
        }
    }

    /// Nanoseconds.
    #[must_use]
    pub fn nanos(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Duration(nanos) => *nanos,
            other => unreachable!("--{name} is no duration: {other:?}"),
        }
    }

    /// URLs.
    #[must_use]
    pub fn urls(&self, name: &str) -> &[Url] {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => unreachable!("--{name} is no list of URLs: {other:?}"),
        }
    }

    /// Texts.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::Texts(texts) => texts,
            other => unreachable!("--{name} is no list of texts: {other:?}"),
        }
    }

    /// The feature gates.
    #[must_use]
    pub fn gates(&self) -> &BTreeMap<&'static str, bool> {
        match self.value("feature-gates") {
            Value::Gates(gates) => gates,
            other => unreachable!("--feature-gates holds no gates: {other:?}"),
        }
    }
}

fn place_of(name: &str) -> usize {
    position(name).expect("our own code asks only for flags of the table")
}
