//! The page of the scoreboard as text: two tables, of which a hunt writes one and leaves the other as it is. A build that holds no bugs only tests it.

use std::collections::BTreeMap;

use crate::options::Kind;

/// The commit of a row that nobody has told.
pub(crate) const UNKNOWN: &str = "-";
/// Cells of a row.
const CELLS: usize = 6;

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
        let rows = mine.lines().filter_map(|row| Some((name(row)?, whole(row)))).collect();
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
many seeds until the first broken promise – in the hunt in the middle, and in the quickest and the longest one –, which promises they were, the most frequent first, and the virtual time of the runs together, in the middle. The
commit is the one at which the bug was looked for last.

| Bug | What it is | Seeds | Oracle | Virtual time | Commit |
|---|---|---|---|---|---|
";

const CLUSTERS: &str = "## Between members\n";
const CLUSTERS_HEAD: &str = "
The same, looked for by cluster runs (`make mutants KIND=cluster`).

| Bug | What it is | Seeds | Oracle | Virtual time | Commit |
|---|---|---|---|---|---|
";

/// A row that stays: one from before rows had a commit gets the cell for it.
fn whole(row: &str) -> String {
    let is_older = row.matches('|').count() == CELLS;
    if is_older { format!("{row} {UNKNOWN} |") } else { row.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: &str = "| `Second` | a bug | 1 (1 to 2) | Watch | 3 s |";

    #[test]
    fn rows_from_before_they_had_a_commit_stay() {
        let page = format!("# Scoreboard\n\n| Bug |\n|---|\n{OLDER}\n\nA note.\n\n{CLUSTERS}\n{OLDER}\n");
        let mut board = Board::read(&page, Kind::Engine);
        let hunted = "| `First` | a bug | not found in 9, 5 times of 5 | |  | c0ffee |".to_owned();
        board.rows.insert("First".to_owned(), hunted.clone());
        let page = board.page(Kind::Engine, &["First".to_owned(), "Second".to_owned()]);
        let (mine, other) = page.split_once(CLUSTERS).expect("both tables");
        assert!(mine.contains(&format!("|\n{hunted}\n{OLDER} - |\n\nA note.\n")), "{mine}");
        assert_eq!(other.trim(), OLDER, "the other table stays as it is");
        // What was written is read.
        let again = Board::read(&page, Kind::Engine).page(Kind::Engine, &["First".to_owned(), "Second".to_owned()]);
        assert_eq!(again, page);
    }

    #[test]
    fn every_row_has_the_cells_of_its_head() {
        for head in [HEAD, CLUSTERS_HEAD] {
            let lines: Vec<&str> = head.lines().filter(|line| line.starts_with('|')).collect();
            assert!(lines.iter().all(|line| line.matches('|').count() == CELLS + 1), "{lines:?}");
        }
        assert_eq!(whole(OLDER).matches('|').count(), CELLS + 1);
    }
}
