//! The ledger of campaigns (`docs/campaigns.tsv`): one line each, with the commit, the kind, the seeds and what came of them.
//!
//! It speaks for the product as it is. So nothing is entered of a campaign with a known bug in it, or with less than the seeds draw (`asked.rs` refuses both).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const HEAD: &str = "commit\tkind\tseeds\tverdict";

/// What a campaign came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) commit: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// The seeds that broke a promise, in their order.
    pub(crate) failed: &'a [u64],
}

/// Opens a ledger, before the campaign: hours of it are not to end with a path that was wrong.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

impl Entry<'_> {
    /// Adds the line, and the head if there is none yet.
    pub(crate) fn write(&self, ledger: &mut File) -> io::Result<()> {
        let head = if ledger.metadata()?.len() == 0 { format!("{HEAD}\n") } else { String::new() };
        ledger.write_all(format!("{head}{}\n", self.line()).as_bytes())
    }

    fn line(&self) -> String {
        let Self { commit, kind, first, count, failed } = self;
        let last = first.wrapping_add(count.saturating_sub(1));
        let verdict = match failed {
            [] => format!("{count} passed"),
            [earliest, ..] => format!("{} failed, first {earliest}", failed.len()),
        };
        format!("{commit}\t{kind}\t{first}..={last}\t{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_is_a_line_below_one_head() {
        let path = std::env::temp_dir().join(format!("detcd-ledger-{}", std::process::id()));
        let entry = Entry { commit: "c0ffee", kind: "engine", first: 7, count: 20, failed: &[] };
        for failed in [&[][..], &[9, 12][..]] {
            Entry { failed, ..entry }.write(&mut open(&path).expect("it opens")).expect("it is written");
        }
        let text = std::fs::read_to_string(&path).expect("it is there");
        std::fs::remove_file(&path).expect("it is there");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, [HEAD, "c0ffee\tengine\t7..=26\t20 passed", "c0ffee\tengine\t7..=26\t2 failed, first 9"]);
    }

    #[test]
    fn a_ledger_that_cannot_be_written_is_an_error() {
        assert!(open(Path::new("/proc/nope")).is_err());
    }
}
