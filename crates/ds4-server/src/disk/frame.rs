//! The frame of a file: what it is, and a checksum over everything.
//!
//! Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | what kind of file it is |
//! | 4 | version |
//! | … | content |
//! | 32 | BLAKE3 of all before |

use thiserror::Error;

const HASH: usize = 32;

/// Why bytes are no file of a kind.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// More bytes than a file can have.
    #[error("it has {bytes} bytes, more than {most}")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// Most bytes of a file of this kind.
        most: usize,
    },
    /// It ends in the middle, or goes on after its end.
    #[error("it does not end where it says")]
    Length,
    /// It begins otherwise.
    #[error("it is another kind of file")]
    Magic,
    /// Another program's.
    #[error("its version is {found}, this program reads {known}")]
    Version {
        /// Its version.
        found: u32,
        /// The one that this program reads.
        known: u32,
    },
    /// A bit has changed.
    #[error("its checksum is wrong")]
    Checksum,
}

/// A kind of file.
#[derive(Debug)]
pub(crate) struct FileKind {
    /// Its first bytes.
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    /// Most bytes of a file.
    pub(crate) max_bytes: usize,
}

impl FileKind {
    /// Bytes of a file without content.
    pub(crate) const FRAME: usize = 4 + 4 + HASH;

    /// The start of a file with so many bytes of content, which follow it.
    pub(crate) fn begin(&self, content: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::FRAME + content);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out
    }

    /// The file, after its start and its content.
    pub(crate) fn end(mut out: Vec<u8>) -> Vec<u8> {
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// The content of a file.
    ///
    /// # Errors
    /// Anything but what [`begin`](Self::begin) and [`end`](Self::end) made.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8]) -> Result<Reader<'a>, FrameError> {
        if bytes.len() > self.max_bytes {
            return Err(FrameError::TooLong {
                bytes: bytes.len(),
                most: self.max_bytes,
            });
        }
        let (content, hash) = bytes.split_last_chunk::<HASH>().ok_or(FrameError::Length)?;
        let mut reader = Reader(content);
        if reader.array() != Some(self.magic) {
            return Err(FrameError::Magic);
        }
        let found = reader.number().ok_or(FrameError::Length)?;
        if found != self.version {
            return Err(FrameError::Version {
                found,
                known: self.version,
            });
        }
        if blake3::hash(content) != *hash {
            return Err(FrameError::Checksum);
        }
        Ok(reader)
    }
}

/// What is not read yet of a content.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Text of so many bytes.
    pub(crate) fn text(&mut self, length: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn short_number(&mut self) -> Option<usize> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }
}

/// Right checksums for damaged bytes, so that what is behind the checksum can be tested.
#[cfg(test)]
pub(crate) fn with_right_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - HASH);
    FileKind::end(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: FileKind = FileKind {
        magic: *b"TEST",
        version: 3,
        max_bytes: 100,
    };

    #[test]
    fn only_a_whole_file_of_the_kind_is_opened() {
        let mut bytes = KIND.begin(5);
        bytes.extend_from_slice(b"hello");
        let bytes = FileKind::end(bytes);
        assert_eq!(bytes.len(), FileKind::FRAME + 5);
        let mut content = KIND.open(&bytes).unwrap();
        assert_eq!((content.left(), content.text(5)), (5, Some("hello")));
        assert_eq!((content.left(), content.take(1)), (0, None));
        let open = |bytes: &[u8]| KIND.open(bytes).map(|content| content.left());
        assert_eq!(open(&[]), Err(FrameError::Length));
        assert_eq!(open(&bytes[..bytes.len() - 1]), Err(FrameError::Checksum));
        let turned = |at: usize| {
            let mut turned = bytes.clone();
            turned[at] ^= 1;
            open(&turned)
        };
        assert_eq!(turned(0), Err(FrameError::Magic));
        assert_eq!(turned(4), Err(FrameError::Version { found: 2, known: 3 }));
        assert_eq!(turned(8), Err(FrameError::Checksum));
        assert_eq!(
            open(&[0; 101]),
            Err(FrameError::TooLong {
                bytes: 101,
                most: 100
            })
        );
    }
}
