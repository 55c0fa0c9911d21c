//! Golden rows, as committed in `tests/data`.

use std::io::Read;

/// Rows of one compressed JSON-lines file.
#[expect(clippy::unwrap_used, reason = "called by tests only")]
pub(crate) fn rows(name: &str) -> Vec<serde_json::Value> {
    let path = format!("{}/tests/data/{name}.jsonl.gz", env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let rows: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!rows.is_empty(), "{path}");
    rows
}
