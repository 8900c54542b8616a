//! What a database file holds, as `etcdutl snapshot status` tells it.

use std::collections::BTreeSet;
use std::path::Path;

use detcd_io::disk::RealDisk;
use detcd_io::fault::Fault;
use detcd_io::store::buckets::{self, Bucket, RevisionKey, RowKind};
use serde::Serialize;

use crate::database;

/// The facts of a database.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Over all tables and rows.
    pub hash: u32,
    /// The newest one.
    pub revision: i64,
    /// Keys that are alive at the end.
    pub total_key: usize,
    /// Bytes of all pages ever used.
    pub total_size: u64,
    /// The version of the layout; empty if there is none.
    pub version: String,
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// One line.
    Simple,
    /// A line for each fact.
    Fields,
    /// One object.
    Json,
    /// A table.
    Table,
}

/// Reads the database at `path` to its end.
///
/// # Errors
/// It cannot be read, is damaged, or holds what is no row of etcd's.
pub async fn status(path: &Path) -> Result<Status, Fault> {
    let (mut keys, mut revision, mut version) = (BTreeSet::new(), 0, String::new());
    let (total_size, digest) = database::read(&RealDisk, path, &mut |table, key, value| {
        if table == Bucket::Meta.name().as_bytes() && key == buckets::STORAGE_VERSION {
            version = String::from_utf8_lossy(value).into_owned();
        }
        if table != Bucket::Key.name().as_bytes() {
            return Ok(());
        }
        let (at, kind) = RevisionKey::parse(key).ok_or("a row of table key that is under no revision")?;
        let row = buckets::decode_key_value(value.to_vec().into()).map_err(|error| error.to_string())?;
        revision = at.main;
        match kind {
            RowKind::Put => keys.insert(row.key),
            RowKind::Tombstone => keys.remove(&row.key),
        };
        Ok(())
    })
    .await?;
    Ok(Status { hash: digest.hash, revision, total_key: keys.len(), total_size, version })
}

impl Status {
    /// The text that `etcdutl` prints, the last line's end included.
    ///
    /// # Panics
    /// Never: numbers and text always encode.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        let Self { hash, revision, total_key, total_size, version } = self;
        let row =
            [format!("{hash:x}"), revision.to_string(), total_key.to_string(), size(*total_size), version.clone()];
        match format {
            Format::Simple => row.join(", ") + "\n",
            Format::Fields => format!(
                "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}\n\"Size\" : {total_size}\n\"Version\" : {version}\n"
            ),
            Format::Json => serde_json::to_string(self).expect("numbers and text always encode") + "\n",
            Format::Table => table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &row),
        }
    }
}

/// A length as people say it: three digits at most and a decimal unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut scale) = (0, 1_u64);
    while bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    // In tenths, rounded half up.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        // Ten and more are shown without tenths, rounded half to even.
        _ => {
            let whole = tenths / 10 + u128::from(tenths % 10 > 5 || (tenths % 10 == 5 && tenths / 10 % 2 == 1));
            format!("{whole} {}", UNITS[unit])
        }
    }
}

/// A head in the middle of its columns and a row at their right.
fn table(head: &[&str], row: &[String]) -> String {
    let widths: Vec<usize> = head.iter().zip(row).map(|(head, cell)| head.len().max(cell.len())).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let line = |cells: Vec<String>| format!("│{}│\n", cells.join("│"));
    let head = head.iter().zip(&widths).map(|(head, width)| format!(" {head:^width$} ")).collect();
    let row = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:>width$} ")).collect();
    rule("┌", "┬", "┐") + &line(head) + &rule("├", "┼", "┤") + &line(row) + &rule("└", "┴", "┘")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_as_etcd_tells_them() {
        let told =
            [0, 9, 10, 999, 1000, 9_949, 9_950, 24_576, 61_440, 999_999, 1_000_000, 16_801_792, u64::MAX].map(size);
        let expected = [
            "0 B", "9 B", "10 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "25 kB", "61 kB", "1000 kB", "1.0 MB", "17 MB",
            "18 EB",
        ];
        assert_eq!(told, expected);
    }
}
