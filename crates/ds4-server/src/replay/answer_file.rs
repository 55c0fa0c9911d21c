//! A file of sampled answers.
//!
//! In the [frame](crate::disk) of all files there is, with numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 32 | fingerprint of the model that sampled them |
//! | 4 | answers `n` |
//! | … | `n` answers |
//!
//! An answer is its owner (16), its place (16), the tokens of its reasoning (4), the number of its
//! calls (2) and for each the length of its id (2) and the id in UTF-8, the number of its tokens (4)
//! and the tokens (4 each).

use std::sync::Arc;

use thiserror::Error;

use super::{RememberedAnswer, SampledAnswer, VisibleHash};
use crate::disk::{FileKind, FrameError, Reader};
use crate::owner::Owner;

/// Most bytes of a file.
pub(super) const MAX_FILE_BYTES: usize = 8 << 20;
const KIND: FileKind = FileKind {
    magic: *b"DS4A",
    version: 1,
    max_bytes: MAX_FILE_BYTES,
};
/// Bytes of a file without answers.
const EMPTY: usize = FileKind::FRAME + 32 + 4;
/// Bytes of the shortest answer.
const SHORTEST: usize = Owner::BYTES + VisibleHash::BYTES + 4 + 2 + 4;

/// Why bytes are no file of answers.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnswerFileError {
    /// It is damaged, or something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The checksum is right, but what it says cannot be.
    #[error("answer {0} of it makes no sense")]
    Answer(usize),
}

/// The answers of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFile {
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
            && EMPTY + Self::bytes_of(answer) <= MAX_FILE_BYTES
    }

    /// The bytes of the file, whose answers all have a place in one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length: usize = self.answers.iter().map(|one| Self::bytes_of(one)).sum();
        let mut out = KIND.begin(32 + 4 + length);
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
        FileKind::end(out)
    }

    /// The file in `bytes`.
    ///
    /// # Errors
    /// Anything but a whole file as [`to_bytes`](Self::to_bytes) makes it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnswerFileError> {
        let mut reader = KIND.open(bytes)?;
        let too_short = FrameError::Length;
        let fingerprint = reader.array().ok_or(too_short)?;
        let count = reader.number().ok_or(too_short)? as usize;
        // Before room is made for them.
        if count > reader.left() / SHORTEST {
            return Err(too_short.into());
        }
        let mut answers = Vec::with_capacity(count);
        for index in 0..count {
            let answer = read_answer(&mut reader).ok_or(AnswerFileError::Answer(index))?;
            answers.push(Arc::new(answer));
        }
        if reader.left() > 0 {
            return Err(FrameError::Length.into());
        }
        Ok(Self {
            fingerprint,
            answers,
        })
    }
}

fn read_answer(reader: &mut Reader<'_>) -> Option<RememberedAnswer> {
    let owner = Owner::from_bytes(reader.array()?);
    let place = VisibleHash::from_bytes(reader.array()?);
    let reasoning = reader.number()? as usize;
    let mut calls = Vec::new();
    for _ in 0..reader.short_number()? {
        let length = reader.short_number()?;
        calls.push(reader.text(length)?.to_owned());
    }
    let count = reader.number()? as usize;
    let ids = reader.take(count.checked_mul(4)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::with_right_checksum;

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
        assert_eq!(bytes.len(), EMPTY + answers.sum::<usize>());
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
                let damaged = with_right_checksum(damaged);
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
        assert_eq!(
            AnswerFile::from_bytes(&with_right_checksum(bytes)),
            Err(FrameError::Length.into())
        );
        assert!(AnswerFile::from_bytes(&vec![0; MAX_FILE_BYTES + 1]).is_err());
    }
}
