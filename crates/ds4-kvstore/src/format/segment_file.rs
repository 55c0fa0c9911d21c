//! The rows of one span of tokens.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `DS4KVSG` and version 1 |
//! | 32 | name of the segment |
//! | 32 | name of the segment before, or of the root |
//! | 32 | fingerprint of the model |
//! | 4 | row format |
//! | 4 | span `s` in tokens |
//! | 8 | length of the rows `r` |
//! | 32 | BLAKE3 of the rows |
//! | 32 | BLAKE3 of everything before, followed by the tokens |
//! | 4 `s` | token ids |
//! | `r` | rows: one blob for all layers |

use std::io::{self, Write};

use super::fields::Fields;
use super::{
    FileError, HASH_BYTES, VERSION, check, check_magic, read_exactly, tokens_from_bytes,
    tokens_to_bytes,
};
use crate::chain::{self, MAX_SPAN_TOKENS, ModelKey, SegmentName, TokenId};
use crate::checkpoint::MAX_SEGMENT_BYTES;
use crate::storage::ReadFile;

const MAGIC: &[u8; 7] = b"DS4KVSG";
const FIXED_BYTES: usize = 8 + 3 * 32 + 4 + 4 + 8 + 2 * HASH_BYTES;

/// A segment that was read; its checksums are right, and its name is that of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its name.
    pub name: SegmentName,
    /// The name of the segment before, or of the root.
    pub parent: SegmentName,
    /// What its rows are valid for.
    pub key: ModelKey,
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// Its rows.
    pub rows: Vec<u8>,
}

/// Size of a segment's file.
pub fn segment_file_bytes(span_tokens: u32, segment_bytes: u64) -> u64 {
    (FIXED_BYTES as u64 + 4 * u64::from(span_tokens)).saturating_add(segment_bytes)
}

/// What a segment is, without its rows.
pub(crate) struct SegmentIdentity<'a> {
    pub(crate) name: SegmentName,
    pub(crate) parent: SegmentName,
    pub(crate) key: ModelKey,
    pub(crate) tokens: &'a [TokenId],
}

impl SegmentIdentity<'_> {
    /// Writes the file with these rows.
    pub(crate) fn write(&self, rows: &[u8], file: &mut dyn Write) -> io::Result<()> {
        let mut header = Vec::with_capacity(FIXED_BYTES + 4 * self.tokens.len());
        header.extend_from_slice(MAGIC);
        header.push(VERSION);
        header.extend_from_slice(&self.name.0);
        header.extend_from_slice(&self.parent.0);
        header.extend_from_slice(&self.key.fingerprint);
        header.extend_from_slice(&self.key.format.to_le_bytes());
        header.extend_from_slice(&self.key.span_tokens.to_le_bytes());
        header.extend_from_slice(&(rows.len() as u64).to_le_bytes());
        header.extend_from_slice(blake3::hash(rows).as_bytes());
        let tokens = tokens_to_bytes(self.tokens);
        let hash = header_hash(&header, &tokens);
        header.extend_from_slice(&hash);
        header.extend_from_slice(&tokens);
        file.write_all(&header)?;
        file.write_all(rows)
    }
}

fn header_hash(before: &[u8], tokens: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(tokens);
    *hasher.finalize().as_bytes()
}

impl SegmentFile {
    /// Reads a segment and checks all of it.
    ///
    /// # Errors
    /// The file is damaged, foreign or cannot be read.
    pub fn read(file: &mut dyn ReadFile) -> Result<Self, FileError> {
        let length = file.length();
        let fixed = FIXED_BYTES as u64;
        if length < fixed {
            return Err(FileError::Length {
                found: length,
                expected: fixed,
            });
        }
        let header = read_exactly(file, fixed)?;
        check_magic(&header[..8], MAGIC, "KV segment")?;
        let mut fields = Fields::of(&header[8..]);
        let name = SegmentName(fields.array());
        let parent = SegmentName(fields.array());
        let key = ModelKey {
            fingerprint: fields.array(),
            format: fields.u32(),
            span_tokens: fields.u32(),
        };
        let rows = fields.u64();
        let rows_hash = fields.array();
        let hash: [u8; HASH_BYTES] = fields.array();
        // The lengths are not trusted before the header's checksum, which needs the tokens.
        if key.span_tokens == 0 || key.span_tokens > MAX_SPAN_TOKENS {
            return Err(FileError::Field {
                field: "a span of",
                found: u64::from(key.span_tokens),
            });
        }
        if rows > MAX_SEGMENT_BYTES {
            return Err(FileError::Field {
                field: "rows of bytes",
                found: rows,
            });
        }
        let expected = segment_file_bytes(key.span_tokens, rows);
        if length != expected {
            return Err(FileError::Length {
                found: length,
                expected,
            });
        }
        let tokens = read_exactly(file, 4 * u64::from(key.span_tokens))?;
        if header_hash(&header[..FIXED_BYTES - HASH_BYTES], &tokens) != hash {
            return Err(FileError::Checksum { section: "header" });
        }
        let tokens = tokens_from_bytes(&tokens);
        if chain::next(&parent, &tokens) != name {
            return Err(FileError::Mismatch { what: "name" });
        }
        let rows = read_exactly(file, rows)?;
        check(&rows, &rows_hash, "rows")?;
        Ok(Self {
            name,
            parent,
            key,
            tokens,
            rows,
        })
    }
}
