//! The page of the scoreboard as text: two tables, of which a hunt writes one and leaves the other as it is. A build that holds no bugs only tests it.

use std::collections::BTreeMap;

use crate::options::Kind;

/// The page: the half that is hunted for, and the other one as it was.
pub(crate) struct Board {
    /// The half of one member, or of several, that stays.
    other: String,
    /// Rows by the names of their bugs.
    pub(crate) rows: BTreeMap<String, String>,
    /// What stands behind them.
    notes: String,
}

impl Board {
    pub(crate) fn read(page: &str, kind: Kind) -> Self {
        let (alone, together) = page.split_once(CLUSTERS).unwrap_or((page, ""));
        let (mine, other) = if kind.is_of_several() { (together, alone) } else { (alone, together) };
        let name =
            |row: &str| row.strip_prefix("| `").and_then(|row| row.split_once('`')).map(|(name, _)| name.to_owned());
        let rows = mine.lines().filter_map(|row| Some((name(row)?, row.to_owned()))).collect();
        let lines: Vec<&str> = mine.lines().collect();
        let behind = lines.iter().rposition(|line| line.starts_with('|')).map_or(lines.len(), |last| last + 1);
        let notes = lines[behind..].join("\n").trim().to_owned();
        Self { other: other.trim().to_owned(), rows, notes }
    }

    /// The page, with the rows of these bugs, in this order.
    pub(crate) fn page(&self, kind: Kind, hunted: &[String]) -> String {
        let rows = hunted.iter().filter_map(|name| self.rows.get(name));
        let rows: String = rows.map(|row| format!("{row}\n")).collect();
        let notes = if self.notes.is_empty() { String::new() } else { format!("\n{}\n", self.notes) };
        let other = &self.other;
        match (kind.is_of_several(), other.is_empty()) {
            (true, true) => format!("{HEAD}\n{CLUSTERS}{CLUSTERS_HEAD}{rows}{notes}"),
            (true, false) => format!("{other}\n\n{CLUSTERS}{CLUSTERS_HEAD}{rows}{notes}"),
            (false, true) => format!("{HEAD}{rows}{notes}"),
            (false, false) => format!("{HEAD}{rows}{notes}\n{CLUSTERS}\n{other}\n"),
        }
    }
}

const HEAD: &str = "# Scoreboard: known bugs and what finds them

Written by `make mutants`. Each bug is put back into the member, in a build that holds them all, and engine runs of the simulator look for it, five times from different seeds on: how
many seeds until the first broken promise – in the hunt in the middle, and in the quickest and the longest one –, which promises they were, the most frequent first, and the virtual time of the runs together, in the middle.

| Bug | What it is | Seeds | Oracle | Virtual time |
|---|---|---|---|---|
";

const CLUSTERS: &str = "## Between members\n";
const CLUSTERS_HEAD: &str = "
The same, looked for by cluster runs (`make mutants KIND=cluster`).

| Bug | What it is | Seeds | Oracle | Virtual time |
|---|---|---|---|---|
";
