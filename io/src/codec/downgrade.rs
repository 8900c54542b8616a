//! The way to an older version as JSON: a row of bucket `cluster`, in the bytes that Go's encoder would write.

use detcd_core::membership::Downgrade;
use serde::Deserialize;

use super::member::go_json;

#[derive(Deserialize)]
struct Json {
    #[serde(rename = "target-version", default)]
    target: String,
    #[serde(default)]
    enabled: bool,
}

/// Reads the row.
///
/// # Errors
/// The bytes are no such JSON.
pub fn decode(bytes: &[u8]) -> Result<Downgrade, serde_json::Error> {
    let Json { target, enabled } = serde_json::from_slice(bytes)?;
    Ok(Downgrade { enabled, target })
}

/// The row.
#[must_use]
pub fn encode(downgrade: &Downgrade) -> Vec<u8> {
    let Downgrade { enabled, target } = downgrade;
    format!("{{\"target-version\":{},\"enabled\":{enabled}}}", go_json(target)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_etcds() {
        for (enabled, target, row) in [
            (true, "3.6.0", r#"{"target-version":"3.6.0","enabled":true}"#),
            (false, "", r#"{"target-version":"","enabled":false}"#),
        ] {
            let downgrade = Downgrade { enabled, target: target.to_owned() };
            assert_eq!(encode(&downgrade), row.as_bytes());
            assert_eq!(decode(row.as_bytes()).ok(), Some(downgrade));
        }
        assert!(decode(b"{").is_err());
    }
}
