//! Where a published file lies: repository, revision and path on a hub.

use std::fmt;
use std::str::FromStr;

use crate::digest::Sha256Hash;
use crate::error::DownloadError;

/// Longest name of a file, with room for the endings of unfinished files.
const LONGEST_NAME: usize = 240;

/// A file in a repository of a hub. Its text form is `OWNER/REPOSITORY[@REVISION]:FILE.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `OWNER/REPOSITORY`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Path in the repository, ending in `.gguf`.
    pub file: String,
    /// Size in bytes, if it is known beforehand.
    pub length: Option<u64>,
    /// SHA-256, if it is known beforehand; otherwise the hub must state it.
    pub sha256: Option<Sha256Hash>,
}

impl Source {
    /// Name of the file on disk: the last part of its path.
    pub fn local_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or(&self.file)
    }

    /// Checks every part before it becomes part of a URL or a path.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let Some((owner, name)) = self.repository.split_once('/') else {
            return Err("expected OWNER/REPOSITORY before the colon");
        };
        if !is_plain_name(owner) || !is_plain_name(name) {
            return Err("owner and repository have letters, digits, `-`, `_` and `.` only");
        }
        if !self.revision.split('/').all(is_plain_name) {
            return Err("the revision is no branch, tag or commit");
        }
        if !self.file.split('/').all(is_path_part) {
            return Err("the path of the file has a part that cannot name a file");
        }
        if !self.local_name().to_ascii_lowercase().ends_with(".gguf") {
            return Err("the file must end in .gguf");
        }
        if self.local_name().len() > LONGEST_NAME {
            return Err("the name of the file is too long");
        }
        Ok(())
    }

    /// The path of the file's URL, as the hub spells it.
    pub(crate) fn url_path(&self) -> String {
        format!(
            "/{}/resolve/{}/{}",
            encode(&self.repository),
            encode(&self.revision).replace('/', "%2F"),
            encode(&self.file)
        )
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.repository)?;
        if self.revision != "main" {
            write!(formatter, "@{}", self.revision)?;
        }
        write!(formatter, ":{}", self.file)
    }
}

impl FromStr for Source {
    type Err = DownloadError;

    fn from_str(text: &str) -> Result<Self, DownloadError> {
        let wrong = |problem| {
            Err(DownloadError::Source {
                text: text.to_owned(),
                problem,
            })
        };
        let Some((place, file)) = text.split_once(':') else {
            return wrong("expected OWNER/REPOSITORY:FILE.gguf");
        };
        let (repository, revision) = place.split_once('@').unwrap_or((place, "main"));
        let source = Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file: file.to_owned(),
            length: None,
            sha256: None,
        };
        match source.check() {
            Ok(()) => Ok(source),
            Err(problem) => wrong(problem),
        }
    }
}

fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    is_path_part(name) && name.chars().all(plain)
}

/// A part of a path that is neither empty nor leads elsewhere on any system.
fn is_path_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && !part
            .chars()
            .any(|c| c.is_control() || matches!(c, '\\' | ':' | '/'))
}

/// Percent-encodes all but unreserved characters and slashes (RFC 3986).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_spelt_as_its_parts() {
        let source: Source = "me/models@v1.0:q2/Größe 1.gguf".parse().unwrap();
        assert_eq!(source.local_name(), "Größe 1.gguf");
        assert_eq!(
            source.url_path(),
            "/me/models/resolve/v1.0/q2/Gr%C3%B6%C3%9Fe%201.gguf"
        );
        assert_eq!(source.to_string(), "me/models@v1.0:q2/Größe 1.gguf");
        let source: Source = "me/models@refs/pr/1:a.gguf".parse().unwrap();
        assert_eq!(source.url_path(), "/me/models/resolve/refs%2Fpr%2F1/a.gguf");
        let source: Source = "me/models:a.GGUF".parse().unwrap();
        assert_eq!(
            (source.revision.as_str(), source.to_string().as_str()),
            ("main", "me/models:a.GGUF")
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for text in [
            "",
            "a",
            "a/b",
            "a/b:",
            "a/b:x",
            "b:x.gguf",
            "a/b/c:x.gguf",
            "/b:x.gguf",
            "a/:x.gguf",
            "../b:x.gguf",
            "a/..:x.gguf",
            "a/b:../x.gguf",
            "a/b:/x.gguf",
            "a/b:x/../../y.gguf",
            "a/b:..\\x.gguf",
            "a/b:x/.gguf",
            "a/b:.x.gguf",
            "a/b:x\n.gguf",
            "a/b@:x.gguf",
            "a/b@..:x.gguf",
            "a/b@x/../y:x.gguf",
            "a/b@m?x=1:x.gguf",
            "a b/c:x.gguf",
            "a/b:c:x.gguf",
            "a/b:\u{1b}[2J.gguf",
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(
                matches!(error, DownloadError::Source { .. }),
                "{text}: {error}"
            );
        }
        let long = format!("a/b:{}.gguf", "x".repeat(LONGEST_NAME));
        assert!(long.parse::<Source>().is_err());
    }
}
