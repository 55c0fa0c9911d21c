//! A file of sampled answers.
//!
//! Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `DS4A` |
//! | 4 | version, 1 |
//! | 32 | fingerprint of the model that sampled them |
//! | 4 | answers `n` |
//! | … | `n` answers |
//! | 32 | BLAKE3 of all before |
//!
//! An answer is its owner (16), its place (16), the tokens of its reasoning (4), the number of its
//! calls (2) and for each the length of its id (2) and the id in UTF-8, the number of its tokens (4)
//! and the tokens (4 each).

use std::sync::Arc;

use thiserror::Error;

use super::{RememberedAnswer, SampledAnswer, VisibleHash};
use crate::owner::Owner;

const MAGIC: [u8; 4] = *b"DS4A";
const VERSION: u32 = 1;
const HASH: usize = 32;
/// Bytes of a file without answers.
const FRAME: usize = 4 + 4 + 32 + 4 + HASH;
/// Bytes of the shortest answer.
const SHORTEST: usize = Owner::BYTES + VisibleHash::BYTES + 4 + 2 + 4;
/// Most bytes of a file.
pub(super) const MAX_FILE_BYTES: usize = 8 << 20;

/// Why bytes are no file of answers.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum AnswerFileError {
    /// More bytes than a file can have.
    #[error("it has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLong(usize),
    /// It ends in the middle, or goes on after its end.
    #[error("it does not end where it says")]
    Length,
    /// It begins like another kind of file.
    #[error("it is not a file of answers")]
    Magic,
    /// Another program's.
    #[error("its version is {0}, this program reads {VERSION}")]
    Version(u32),
    /// A bit has changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, but what it says cannot be.
    #[error("answer {0} of it makes no sense")]
    Answer(usize),
}

/// The answers of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerFile {
    pub(super) fingerprint: [u8; 32],
    pub(super) answers: Vec<Arc<RememberedAnswer>>,
}

impl AnswerFile {
    /// Bytes that an answer takes.
    pub(super) fn bytes_of(answer: &RememberedAnswer) -> usize {
        let calls: usize = answer.calls.iter().map(|call| 2 + call.len()).sum();
        SHORTEST + calls + 4 * answer.sampled.ids.len()
    }

    /// Whether an answer can be in a file: its numbers fit, and it is not too long.
    pub(super) fn takes(answer: &RememberedAnswer) -> bool {
        let word = usize::from(u16::MAX);
        answer.calls.len() <= word
            && answer.calls.iter().all(|call| call.len() <= word)
            && FRAME + Self::bytes_of(answer) <= MAX_FILE_BYTES
    }

    /// The bytes of the file. Every answer is one that it [takes](Self::takes).
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let length: usize = self.answers.iter().map(|one| Self::bytes_of(one)).sum();
        let mut out = Vec::with_capacity(FRAME + length);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(&(self.answers.len() as u32).to_le_bytes());
        for answer in &self.answers {
            out.extend_from_slice(answer.owner.as_bytes());
            out.extend_from_slice(answer.place.as_bytes());
            out.extend_from_slice(&(answer.sampled.reasoning as u32).to_le_bytes());
            out.extend_from_slice(&(answer.calls.len() as u16).to_le_bytes());
            for call in &answer.calls {
                out.extend_from_slice(&(call.len() as u16).to_le_bytes());
                out.extend_from_slice(call.as_bytes());
            }
            out.extend_from_slice(&(answer.sampled.ids.len() as u32).to_le_bytes());
            for id in &answer.sampled.ids {
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// The file in `bytes`.
    ///
    /// # Errors
    /// Anything but a whole file as [`to_bytes`](Self::to_bytes) makes it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, AnswerFileError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(AnswerFileError::TooLong(bytes.len()));
        }
        let (content, hash) = bytes
            .split_last_chunk::<HASH>()
            .ok_or(AnswerFileError::Length)?;
        let mut reader = Reader(content);
        if reader.array::<4>() != Some(MAGIC) {
            return Err(AnswerFileError::Magic);
        }
        match reader.number() {
            Some(VERSION) => {}
            Some(other) => return Err(AnswerFileError::Version(other)),
            None => return Err(AnswerFileError::Length),
        }
        if blake3::hash(content) != *hash {
            return Err(AnswerFileError::Checksum);
        }
        let fingerprint = reader.array::<32>().ok_or(AnswerFileError::Length)?;
        let count = reader.number().ok_or(AnswerFileError::Length)? as usize;
        // Before room is made for them.
        if count > reader.0.len() / SHORTEST {
            return Err(AnswerFileError::Length);
        }
        let mut answers = Vec::with_capacity(count);
        for index in 0..count {
            let answer = reader.answer().ok_or(AnswerFileError::Answer(index))?;
            answers.push(Arc::new(answer));
        }
        if !reader.0.is_empty() {
            return Err(AnswerFileError::Length);
        }
        Ok(Self {
            fingerprint,
            answers,
        })
    }
}

/// What is not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn short_number(&mut self) -> Option<usize> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }

    fn answer(&mut self) -> Option<RememberedAnswer> {
        let owner = Owner::from_bytes(self.array()?);
        let place = VisibleHash::from_bytes(self.array()?);
        let reasoning = self.number()? as usize;
        let mut calls = Vec::new();
        for _ in 0..self.short_number()? {
            let length = self.short_number()?;
            calls.push(std::str::from_utf8(self.take(length)?).ok()?.to_owned());
        }
        let count = self.number()? as usize;
        let ids = self.take(count.checked_mul(4)?)?;
        let ids: Vec<u32> = ids
            .chunks_exact(4)
            .map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
            .collect();
        if reasoning > ids.len() {
            return None;
        }
        Some(RememberedAnswer {
            owner,
            place,
            calls,
            sampled: SampledAnswer { ids, reasoning },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> AnswerFile {
        let answer = |n: u8, calls: &[&str], ids: &[u32], reasoning| {
            Arc::new(RememberedAnswer {
                owner: Owner::of_key(&n.to_string()),
                place: VisibleHash::from_bytes([n; 16]),
                calls: calls.iter().map(|&call| call.to_owned()).collect(),
                sampled: SampledAnswer {
                    ids: ids.to_vec(),
                    reasoning,
                },
            })
        };
        AnswerFile {
            fingerprint: [7; 32],
            answers: vec![
                answer(1, &["call_a", "call_ü"], &[1, 2, 300_000], 2),
                answer(2, &[], &[], 0),
                answer(3, &[""], &[9], 1),
            ],
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let file = file();
        let bytes = file.to_bytes();
        let answers = file.answers.iter().map(|one| AnswerFile::bytes_of(one));
        assert_eq!(bytes.len(), FRAME + answers.sum::<usize>());
        assert_eq!(AnswerFile::from_bytes(&bytes), Ok(file));
    }

    /// Cut anywhere, or with any bit turned, it is refused; with the checksum made right it is
    /// refused or read, but nothing worse.
    #[test]
    fn damage_is_seen() {
        let bytes = file().to_bytes();
        for length in 0..bytes.len() {
            assert!(
                AnswerFile::from_bytes(&bytes[..length]).is_err(),
                "{length}"
            );
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(AnswerFile::from_bytes(&damaged).is_err(), "{at} {bit}");
                let content = damaged.len() - HASH;
                let hash = blake3::hash(&damaged[..content]);
                damaged[content..].copy_from_slice(hash.as_bytes());
                if let Ok(read) = AnswerFile::from_bytes(&damaged) {
                    assert_eq!(read.to_bytes(), damaged, "{at} {bit}");
                }
            }
        }
    }

    #[test]
    fn counts_are_checked_before_room_is_made() {
        let mut bytes = file().to_bytes();
        bytes[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        let content = bytes.len() - HASH;
        let hash = blake3::hash(&bytes[..content]);
        bytes[content..].copy_from_slice(hash.as_bytes());
        assert_eq!(AnswerFile::from_bytes(&bytes), Err(AnswerFileError::Length));
        assert_eq!(
            AnswerFile::from_bytes(&vec![0; MAX_FILE_BYTES + 1]),
            Err(AnswerFileError::TooLong(MAX_FILE_BYTES + 1))
        );
    }
}
