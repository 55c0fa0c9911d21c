//! SHA-256.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{DownloadError, io};

/// Bytes hashed at a time.
pub(crate) const BLOCK: usize = 1 << 20;

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Hash([u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct NotAHash;

impl Sha256Hash {
    /// From 64 hexadecimal digits, for constants.
    pub(crate) const fn from_hex(hex: &str) -> Self {
        match Self::parse(hex.as_bytes()) {
            Some(hash) => hash,
            None => panic!("expected 64 hexadecimal digits"),
        }
    }

    const fn parse(hex: &[u8]) -> Option<Self> {
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        let mut index = 0;
        while index < 32 {
            let (Some(high), Some(low)) = (digit(hex[2 * index]), digit(hex[2 * index + 1])) else {
                return None;
            };
            bytes[index] = high << 4 | low;
            index += 1;
        }
        Some(Self(bytes))
    }

    pub(crate) fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

impl FromStr for Sha256Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        Self::parse(text.as_bytes()).ok_or(NotAHash)
    }
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The hash of a file; `progress` is told the bytes that are done.
pub(crate) fn hash_file(
    path: &Path,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Sha256Hash, DownloadError> {
    let mut file = File::open(path).map_err(io(path, "open"))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut done = 0;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(DownloadError::Cancelled);
        }
        let count = file.read(&mut block).map_err(io(path, "read"))?;
        if count == 0 {
            return Ok(Sha256Hash::finish(hasher));
        }
        hasher.update(&block[..count]);
        done += count as u64;
        progress(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FIPS 180-4 for the message "abc".
    #[test]
    fn a_file_has_the_hash_of_the_standard() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let mut told = 0;
        let hash = hash_file(file.path(), &AtomicBool::new(false), &mut |done| {
            told = done
        })
        .unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash.to_string().as_str(), told), (expected, 3));
        assert_eq!(expected.to_uppercase().parse(), Ok(hash));
        for wrong in ["", "ba78", &expected[1..], &expected.replace('b', "g")] {
            assert_eq!(wrong.parse::<Sha256Hash>(), Err(NotAHash));
        }
    }
}
