//! Saved sessions: names and places.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::directories::{DataDirectory, create_private};

/// Longest name in bytes; file systems take 255 with the ending.
const LONGEST_NAME: usize = 64;

/// The name of a saved session: letters, digits, `-`, `_` and `.`, not at the start. It is safe as
/// a file name and cannot lead out of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionName(String);

/// A name that cannot be one of a session.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` cannot name a session, expected 1 to 64 letters, digits, `-`, `_` or `.`, beginning \
     with a letter or digit",
    .0.escape_debug()
)]
pub(crate) struct InvalidName(String);

impl FromStr for SessionName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let starts_well = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && name.len() <= LONGEST_NAME && name.bytes().all(plain) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidName(name.chars().take(2 * LONGEST_NAME).collect()))
        }
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl SessionName {
    /// Where the session is or will be.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(DataDirectory::of_user()?
            .sessions()
            .join(format!("{self}.ds4session")))
    }

    /// As [`path`](Self::path), with the directory made.
    pub(crate) fn path_to_write(&self) -> anyhow::Result<PathBuf> {
        create_private(&DataDirectory::of_user()?.sessions())?;
        self.path()
    }
}

/// Names of the saved sessions, in order.
pub(crate) fn saved_names() -> Vec<String> {
    let entries = DataDirectory::of_user()
        .ok()
        .and_then(|data| data.sessions().read_dir().ok());
    let names = entries
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".ds4session")?.to_owned())
        });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_out_of_the_directory() {
        for name in ["a", "trip-2", "V4_flash.1", &"x".repeat(64)] {
            assert_eq!(name.parse::<SessionName>().unwrap().to_string(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            ".hidden",
            "-x",
            "a b",
            "é",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(name.parse::<SessionName>().is_err(), "{name:?}");
        }
    }
}
