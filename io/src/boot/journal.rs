//! Counters that outlive a start: a start that fails serves no metrics, so its failure is counted in a small file that the next
//! start reads and shows.
//!
//! Invariant: the journal is best effort in both directions. A damaged or foreign file counts as an empty one, and a journal that
//! cannot be written never stops a start. It lies beside the data directory and is the only thing a refused start writes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What happened in the starts so far.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Journal {
    /// `etcd_bootstrap_errors_total` by reason.
    pub bootstrap_errors: BTreeMap<String, u64>,
    /// `etcd_listener_failure_total`.
    pub listener_failures: u64,
    /// `etcd_unsupported_arch_runs_total`.
    pub unsupported_arch_runs: u64,
    /// `etcd_bootstrap_ready_seconds` of the last start that became ready.
    pub ready_seconds: Option<f64>,
}

/// No journal is longer than this; a longer file is not ours.
const JOURNAL_BYTES_MAX: u64 = 16 * 1024;

/// Reasons become labels of a metric, so a file cannot bring in more, or longer ones, than we could ever write.
const REASONS_MAX: usize = 32;
const REASON_BYTES_MAX: usize = 32;

impl Journal {
    /// A start was refused or failed.
    pub fn on_bootstrap_error(&mut self, reason: &str) {
        if is_reason(reason)
            && (self.bootstrap_errors.len() < REASONS_MAX || self.bootstrap_errors.contains_key(reason))
        {
            let count = self.bootstrap_errors.entry(reason.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// A listener could not be bound or broke.
    pub fn on_listener_failure(&mut self) {
        self.listener_failures = self.listener_failures.saturating_add(1);
    }

    /// A start went on although the architecture is not supported.
    pub fn on_unsupported_arch(&mut self) {
        self.unsupported_arch_runs = self.unsupported_arch_runs.saturating_add(1);
    }

    /// Clients are served, so many seconds after the start.
    pub fn on_ready(&mut self, seconds: f64) {
        self.ready_seconds = Some(seconds);
    }

    /// The journal's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("maps with text keys and numbers always encode");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a journal. Anything that is none is an empty one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        if bytes.len() as u64 > JOURNAL_BYTES_MAX {
            return Self::default();
        }
        let mut journal: Self = serde_json::from_slice(bytes).unwrap_or_default();
        journal.bootstrap_errors.retain(|reason, _| is_reason(reason));
        while journal.bootstrap_errors.len() > REASONS_MAX {
            journal.bootstrap_errors.pop_last();
        }
        journal.ready_seconds = journal.ready_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        journal
    }
}

/// Where the journal of a data directory lies: beside it. `None` for a directory without a name of its own, such as `/` or `..`.
#[must_use]
pub fn path_beside(data_dir: &Path) -> Option<PathBuf> {
    let mut name = data_dir.file_name()?.to_owned();
    name.push(".boot.json");
    Some(data_dir.with_file_name(name))
}

/// Reads the journal at a path. A missing or unreadable file is an empty journal.
#[must_use]
pub fn load(path: &Path) -> Journal {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= JOURNAL_BYTES_MAX => {
            fs::read(path).map(|bytes| Journal::decode(&bytes)).unwrap_or_default()
        }
        _ => Journal::default(),
    }
}

/// Writes the journal whole or not at all.
///
/// # Errors
/// What the system said. The caller logs it and goes on.
pub fn save(path: &Path, journal: &Journal) -> io::Result<()> {
    let mut staged: OsString = path.as_os_str().to_owned();
    staged.push(".tmp");
    let mut file = fs::File::create(&staged)?;
    file.write_all(&journal.encode())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&staged, path)
}

fn is_reason(reason: &str) -> bool {
    !reason.is_empty()
        && reason.len() <= REASON_BYTES_MAX
        && reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Journal {
        let mut journal = Journal::default();
        journal.on_bootstrap_error("locked");
        journal.on_bootstrap_error("locked");
        journal.on_bootstrap_error("fd_limit");
        journal.on_listener_failure();
        journal.on_unsupported_arch();
        journal.on_ready(0.25);
        journal
    }

    #[test]
    fn a_journal_survives_its_bytes() {
        let text = String::from_utf8(some().encode()).unwrap();
        assert_eq!(
            text,
            "{\"bootstrap_errors\":{\"fd_limit\":1,\"locked\":2},\"listener_failures\":1,\"unsupported_arch_runs\":1,\"ready_seconds\":0.25}\n"
        );
        assert_eq!(Journal::decode(text.as_bytes()), some());
    }

    #[test]
    fn damaged_and_foreign_bytes_are_an_empty_journal() {
        let mut long = br#"{"listener_failures":1}"#.to_vec();
        assert_eq!(Journal::decode(&long).listener_failures, 1);
        long.resize(16 * 1024 + 1, b' ');
        for bytes in
            ["", "{", "[]", "nul", r#"{"listener_failures":-1}"#].map(str::as_bytes).iter().chain([&long.as_slice()])
        {
            assert_eq!(Journal::decode(bytes), Journal::default());
        }
        let foreign =
            Journal::decode(br#"{"bootstrap_errors":{"ok":1,"Not a label":2},"later":3,"ready_seconds":-1.0}"#);
        assert_eq!(foreign.bootstrap_errors.keys().collect::<Vec<_>>(), ["ok"]);
        assert_eq!(foreign.ready_seconds, None);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut journal = Journal::default();
        for first in b'a'..=b'z' {
            for second in b'a'..=b'b' {
                journal.on_bootstrap_error(&String::from_utf8(vec![first, second]).unwrap());
            }
        }
        journal.on_bootstrap_error("aa");
        assert_eq!(journal.bootstrap_errors.len(), REASONS_MAX);
        assert_eq!(journal.bootstrap_errors["aa"], 2);
    }

    #[test]
    fn the_journal_lies_beside_the_directory() {
        let beside = |path: &str| path_beside(Path::new(path)).map(|path| path.display().to_string());
        assert_eq!(beside("/var/lib/etcd"), Some("/var/lib/etcd.boot.json".to_owned()));
        assert_eq!(beside("default.etcd/"), Some("default.etcd.boot.json".to_owned()));
        assert_eq!(beside("/"), None);
        assert_eq!(beside(".."), None);
    }

    #[test]
    fn files_are_written_whole_and_missing_ones_are_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.boot.json");
        assert_eq!(load(&path), Journal::default());
        save(&path, &some()).unwrap();
        assert_eq!(load(&path), some());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
        assert_eq!(load(dir.path()), Journal::default());
    }
}
