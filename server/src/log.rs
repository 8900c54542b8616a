//! Log lines in the shape that etcd's operators and their tools know: one JSON object a line, or tabs for the eye.
//!
//! Invariant: a line is written whole or not at all, by whoever logs it, and a log that cannot be written never stops the member.
//! There are two ways in and one way out: [`Log::write`] for what the composition root says itself (it needs severities and lists
//! that `tracing` does not have), and a `tracing` layer for everybody else.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::panic::Location;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How much a line matters. Ordered: later ones matter more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// For whoever debugs.
    Debug,
    /// What happens.
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    Error,
    /// Only a threshold; nothing is logged at it.
    DPanic,
    /// The process is about to abort.
    Panic,
    /// The process is about to exit.
    Fatal,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Columns with tabs between them.
    Console,
}

/// Where lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// One line, without its time and place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// How much it matters.
    pub severity: Severity,
    /// What happened.
    pub message: String,
    /// The particulars.
    pub fields: Vec<(&'static str, Value)>,
}

/// The log. Clones share it.
#[derive(Clone)]
pub struct Log {
    threshold: Severity,
    format: Format,
    sink: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Severity {
    /// Reads `--log-level`; `None` for a word that is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" | "" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "dpanic" => Self::DPanic,
            "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }

    /// The word in the line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::DPanic => "dpanic",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }

    fn of(level: Level) -> Self {
        match level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warn,
            Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

impl Line {
    /// A line without particulars.
    #[must_use]
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, message: message.into(), fields: Vec::new() }
    }

    /// The same line with one more of them.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

impl Output {
    /// Opens the output for appending.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Stderr => Box::new(io::stderr()),
            Self::Stdout => Box::new(io::stdout()),
            Self::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        })
    }
}

impl Log {
    /// A log of these lines to this sink.
    #[must_use]
    pub fn new(threshold: Severity, format: Format, sink: Box<dyn Write + Send>) -> Self {
        Self { threshold, format, sink: Arc::new(Mutex::new(sink)) }
    }

    /// Writes one line, with the place of the caller.
    #[track_caller]
    pub fn write(&self, line: &Line) {
        let place = Location::caller();
        self.write_at(line, &short_place(place.file(), place.line()), SystemTime::now());
    }

    fn write_at(&self, line: &Line, caller: &str, now: SystemTime) {
        if line.severity < self.threshold {
            return;
        }
        let mut text = match self.format {
            Format::Json => json(line, caller, &timestamp(now)),
            Format::Console => console(line, caller, &timestamp(now)),
        };
        text.push('\n');
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not stop the member, and there is nobody else to tell.
        let _ = sink.write_all(text.as_bytes()).and_then(|()| sink.flush());
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("threshold", &self.threshold).field("format", &self.format).finish_non_exhaustive()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.threshold <= Severity::of(*metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.threshold {
            Severity::Debug => LevelFilter::DEBUG,
            Severity::Info => LevelFilter::INFO,
            Severity::Warn => LevelFilter::WARN,
            Severity::Error => LevelFilter::ERROR,
            Severity::DPanic | Severity::Panic | Severity::Fatal => LevelFilter::OFF,
        })
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(Severity::of(*metadata.level()), "");
        event.record(&mut Fields(&mut line));
        let caller = match metadata.file() {
            Some(file) => short_place(file, metadata.line().unwrap_or(0)),
            None => metadata.target().to_owned(),
        };
        self.write_at(&line, &caller, SystemTime::now());
    }
}

/// Takes the fields of an event into a line.
struct Fields<'a>(&'a mut Line);

impl Fields<'_> {
    fn take(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        match (field.name(), value) {
            ("message", Value::String(text)) => self.0.message = text,
            (name, value) => self.0.fields.push((name, value)),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.take(field, value.to_string());
    }
}

fn json(line: &Line, caller: &str, time: &str) -> String {
    let mut text = format!(
        "{{\"level\":\"{}\",\"ts\":\"{time}\",\"caller\":{},\"msg\":{}",
        line.severity.name(),
        Value::from(caller),
        Value::from(line.message.as_str())
    );
    for (name, value) in &line.fields {
        write!(text, ",{}:{value}", Value::from(*name)).expect("a String takes every write");
    }
    text.push('}');
    text
}

fn console(line: &Line, caller: &str, time: &str) -> String {
    let mut text = format!("{time}\t{}\t{caller}\t{}", line.severity.name(), line.message.replace('\n', "\\n"));
    let fields: Vec<String> =
        line.fields.iter().map(|(name, value)| format!("{}: {value}", Value::from(*name))).collect();
    if !fields.is_empty() {
        write!(text, "\t{{{}}}", fields.join(", ")).expect("a String takes every write");
    }
    text
}

/// The file's name with its folder, and the line: `server/main.rs:64`. The `src` between them says nothing.
fn short_place(file: &str, line: u32) -> String {
    let mut parts = file.rsplit(['/', '\\']).filter(|part| *part != "src" && !part.is_empty());
    let name = parts.next().unwrap_or(file);
    match parts.next() {
        Some(folder) => format!("{folder}/{name}:{line}"),
        None => format!("{name}:{line}"),
    }
}

/// RFC 3339 in UTC, with microseconds. A clock before 1970 counts as 1970.
#[must_use]
pub fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// Year, month and day of a count of days since 1970, in eras of 400 years that begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A sink that remembers.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn log(&self, threshold: Severity, format: Format) -> Log {
            Log::new(threshold, format, Box::new(self.clone()))
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn at(micros: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn lines_have_etcds_shape() {
        let line = Line::new(Severity::Fatal, "say \"no\"\n").with("path", "a\tb").with("args", vec!["x", "y"]);
        let line = line.with("count", 3);
        let memory = Memory::default();
        memory.log(Severity::Info, Format::Json).write_at(&line, "server/main.rs:7", at(1));
        memory.log(Severity::Info, Format::Console).write_at(&line, "server/main.rs:7", at(1));
        assert_eq!(
            memory.text(),
            concat!(
                r#"{"level":"fatal","ts":"1970-01-01T00:00:00.000001Z","caller":"server/main.rs:7","msg":"say \"no\"\n","path":"a\tb","args":["x","y"],"count":3}"#,
                "\n",
                "1970-01-01T00:00:00.000001Z\tfatal\tserver/main.rs:7\tsay \"no\"\\n\t",
                r#"{"path": "a\tb", "args": ["x","y"], "count": 3}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_tracing_says_becomes_lines_above_the_threshold() {
        let memory = Memory::default();
        let subscriber = tracing_subscriber::registry().with(memory.log(Severity::Info, Format::Json));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("not shown");
            tracing::info!(port = 2379_u64, ok = true, who = "me", from = %"display", "serving {}", "clients");
        });
        let text = memory.text();
        let line: Value = serde_json::from_str(&text).expect("exactly one line");
        assert_eq!(line["level"], "info");
        assert_eq!(line["msg"], "serving clients");
        assert_eq!((&line["port"], &line["ok"]), (&Value::from(2379), &Value::from(true)));
        assert_eq!((&line["who"], &line["from"]), (&Value::from("me"), &Value::from("display")));
        assert!(line["caller"].as_str().unwrap().starts_with("server/log.rs:"), "{line}");
    }

    #[test]
    fn a_threshold_hides_what_matters_less() {
        let memory = Memory::default();
        let log = memory.log(Severity::Panic, Format::Json);
        log.write(&Line::new(Severity::Error, "hidden"));
        log.write(&Line::new(Severity::Fatal, "shown"));
        assert!(memory.text().contains("shown") && !memory.text().contains("hidden"));
        assert!(memory.text().contains("\"caller\":\"server/log.rs:"));
        assert_eq!(Severity::parse("WARN"), Some(Severity::Warn));
        assert_eq!(Severity::parse("x"), None);
    }

    #[test]
    fn times_are_civil() {
        let rows = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000000Z"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(timestamp(at(seconds * 1_000_000)), expected);
        }
    }
}
