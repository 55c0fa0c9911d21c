//! The list of continuations, in the reference engine's form.

use std::collections::HashSet;
use std::path::PathBuf;

use thiserror::Error;

/// Most entries of a manifest.
const MOST_ENTRIES: usize = 100_000;

/// Longest id in characters.
const LONGEST_ID: usize = 128;

/// A prompt and how the official service went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Name, unique in its manifest.
    pub id: String,
    /// File with the user's message.
    pub prompt: PathBuf,
    /// File with the answer's beginning.
    pub continuation: PathBuf,
}

/// The entries of a manifest, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// In the order of the file.
    pub entries: Vec<ManifestEntry>,
}

/// A manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// A line lacks a column.
    #[error(
        "line {line} has {found} columns, expected an id, a prompt file and a continuation file with tabs between"
    )]
    Columns {
        /// Which, from 1.
        line: usize,
        /// How many it has.
        found: usize,
    },
    /// An id that cannot be shown.
    #[error("line {line}: the id has control characters or is longer than {LONGEST_ID} characters")]
    Id {
        /// Which, from 1.
        line: usize,
    },
    /// An id that an earlier line has.
    #[error("line {line}: the id `{id}` is there twice")]
    DuplicateId {
        /// Which, from 1.
        line: usize,
        /// The id.
        id: String,
    },
    /// Too many entries.
    #[error("the manifest has more than {MOST_ENTRIES} entries")]
    TooMany,
    /// No entry.
    #[error("the manifest has no entry")]
    Empty,
}

impl Manifest {
    /// Reads a manifest: an id, a prompt file and a continuation file a line, with tabs between. More
    /// columns are left to others; blank lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// The first line that is none of these, or no entry at all.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut entries = Vec::new();
        let mut ids = HashSet::new();
        for (index, content) in text.lines().enumerate() {
            let line = index + 1;
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let columns: Vec<&str> = content.split('\t').collect();
            let [id, prompt, continuation, ..] = columns[..] else {
                let found = columns.len();
                return Err(ManifestError::Columns { line, found });
            };
            if let Some(empty) = columns[..3].iter().position(|column| column.is_empty()) {
                return Err(ManifestError::Columns { line, found: empty });
            }
            if id.chars().any(char::is_control) || id.chars().count() > LONGEST_ID {
                return Err(ManifestError::Id { line });
            }
            if !ids.insert(id) {
                let id = id.to_owned();
                return Err(ManifestError::DuplicateId { line, id });
            }
            if entries.len() == MOST_ENTRIES {
                return Err(ManifestError::TooMany);
            }
            entries.push(ManifestEntry {
                id: id.to_owned(),
                prompt: prompt.into(),
                continuation: continuation.into(),
            });
        }
        if entries.is_empty() {
            return Err(ManifestError::Empty);
        }
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: &str, prompt: &str, continuation: &str) -> ManifestEntry {
        ManifestEntry {
            id: id.to_owned(),
            prompt: prompt.into(),
            continuation: continuation.into(),
        }
    }

    #[test]
    fn comments_and_further_columns_are_passed_over() {
        let text = "# id\tprompt_file\tcontinuation_file\tresponse_file\r\n\
                    case_000\tp/0.txt\tc/0.txt\tr/0.json\r\n\
                    \n\
                    case 1\ta b.txt\tc.txt\n";
        let expected = vec![
            entry("case_000", "p/0.txt", "c/0.txt"),
            entry("case 1", "a b.txt", "c.txt"),
        ];
        assert_eq!(Manifest::parse(text).unwrap().entries, expected);
    }

    #[test]
    fn malformed_lines_are_refused_with_their_number() {
        let columns = |line, found| ManifestError::Columns { line, found };
        for (text, expected) in [
            ("", ManifestError::Empty),
            ("# nothing\n\n", ManifestError::Empty),
            ("a\tp\tc\nb p c\n", columns(2, 1)),
            ("a\tp\n", columns(1, 2)),
            ("a\t\tc\n", columns(1, 1)),
            ("\tp\tc\n", columns(1, 0)),
            ("a\u{1b}\tp\tc\n", ManifestError::Id { line: 1 }),
            (
                "a\tp\tc\na\tq\td\n",
                ManifestError::DuplicateId {
                    line: 2,
                    id: "a".to_owned(),
                },
            ),
        ] {
            assert_eq!(Manifest::parse(text), Err(expected), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a#\t\n\r\u{0}é]{0,60}") {
            let _ = Manifest::parse(&text);
        }
    }
}
