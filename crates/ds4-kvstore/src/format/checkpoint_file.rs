//! A checkpoint without its segments.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `DS4KVCP` and version 1 |
//! | 32 | id of the checkpoint |
//! | 32 | fingerprint of the model |
//! | 4 | row format |
//! | 4 | span `s` in tokens |
//! | 4 | kind: 0 prompt, 1 interval, 2 evicted, 3 shutdown, 4 named |
//! | 4 | length of the model's name `m` |
//! | 8 | tokens `n` |
//! | 8 | bytes of each segment's rows |
//! | 8 | when it was saved, seconds since 1970 |
//! | 8 | seconds of prefill it saves, F64 |
//! | 8 | length of the attachment `a` |
//! | 8 | length of the frontier `f` |
//! | 4 × 32 | BLAKE3 of directory, tokens, attachment, frontier |
//! | 32 | BLAKE3 of everything before |
//! | | directory: |
//! | `m` | the model's name, UTF-8 |
//! | 32 ⌊`n`/`s`⌋ | names of the segments |
//! | 4 (`n` mod `s`) | token ids behind the last segment |
//! | 4 `n` | tokens: all token ids |
//! | `a` | attachment |
//! | `f` | frontier |
//!
//! The directory is what the index reads; it repeats the last tokens so that the others,
//! which are most of it, need not be read.

use std::io::{self, Write};

use super::fields::Fields;
use super::{
    FileError, HASH_BYTES, VERSION, check, check_magic, read_exactly, read_section,
    tokens_from_bytes, tokens_to_bytes,
};
use crate::chain::{
    self, CheckpointId, MAX_SPAN_TOKENS, MAX_TOKENS, ModelKey, SegmentName, TokenId,
};
use crate::checkpoint::{
    CheckpointKind, MAX_ATTACHMENT_BYTES, MAX_FRONTIER_BYTES, MAX_MODEL_NAME_BYTES,
    MAX_SEGMENT_BYTES,
};
use crate::storage::ReadFile;

const MAGIC: &[u8; 7] = b"DS4KVCP";
const FIXED_BYTES: usize = 8 + 2 * 32 + 4 * 4 + 6 * 8 + 5 * HASH_BYTES;

/// Most segments of a checkpoint; bounds the directory.
pub(crate) const MAX_SPANS: usize = 1 << 17;

/// What is known of a checkpoint without reading its tokens, attachment and frontier.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its name.
    pub id: CheckpointId,
    /// What it is valid for.
    pub key: ModelKey,
    /// Why it was saved.
    pub kind: CheckpointKind,
    /// The model's name, for people.
    pub model_name: String,
    /// Number of tokens.
    pub tokens: usize,
    /// Bytes of each segment's rows.
    pub segment_bytes: u64,
    /// When it was saved, in seconds since 1970.
    pub created: u64,
    /// Seconds of prefill that it saves.
    pub prefill_seconds: f64,
    /// Names of its segments.
    pub segments: Vec<SegmentName>,
    /// Tokens behind the last segment, less than a span.
    pub tail: Vec<TokenId>,
    /// Size of its file.
    pub file_bytes: u64,
}

/// A checkpoint's file that was read; its checksums are right, and its id and the names
/// of its segments are those of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointFile {
    /// What the index knows.
    pub manifest: Manifest,
    /// All tokens.
    pub tokens: Vec<TokenId>,
    /// The caller's own bytes.
    pub attachment: Vec<u8>,
    /// The engine's bytes.
    pub frontier: Vec<u8>,
}

/// Lengths and checksums of the sections that a manifest does not contain.
struct Rest {
    attachment: u64,
    frontier: u64,
    tokens_hash: [u8; HASH_BYTES],
    attachment_hash: [u8; HASH_BYTES],
    frontier_hash: [u8; HASH_BYTES],
}

/// Size of a checkpoint's file. All parts are within their limits.
pub(crate) fn checkpoint_file_bytes(
    key: &ModelKey,
    tokens: usize,
    model_name: &str,
    attachment: u64,
    frontier: u64,
) -> u64 {
    let directory = directory_bytes(model_name.len() as u64, tokens as u64, key);
    FIXED_BYTES as u64 + directory + 4 * tokens as u64 + attachment + frontier
}

fn directory_bytes(model_name: u64, tokens: u64, key: &ModelKey) -> u64 {
    let span = u64::from(key.span_tokens);
    model_name + 32 * (tokens / span) + 4 * (tokens % span)
}

impl Manifest {
    /// Reads what the index needs, and checks that part.
    ///
    /// # Errors
    /// The file is damaged, foreign or cannot be read.
    pub fn read(file: &mut dyn ReadFile) -> Result<Self, FileError> {
        Ok(Self::read_with_rest(file)?.0)
    }

    fn read_with_rest(file: &mut dyn ReadFile) -> Result<(Self, Rest), FileError> {
        let length = file.length();
        let fixed = FIXED_BYTES as u64;
        if length < fixed {
            return Err(FileError::Length {
                found: length,
                expected: fixed,
            });
        }
        let header = read_exactly(file, fixed)?;
        check_magic(&header[..8], MAGIC, "KV checkpoint")?;
        let (content, hash) = header.split_at(FIXED_BYTES - HASH_BYTES);
        check(content, &Fields::of(hash).array(), "header")?;

        let mut fields = Fields::of(&content[8..]);
        let id = CheckpointId(fields.array());
        let key = ModelKey {
            fingerprint: fields.array(),
            format: fields.u32(),
            span_tokens: fields.u32(),
        };
        let kind = fields.u32();
        let name_bytes = u64::from(fields.u32());
        let tokens = fields.u64();
        let segment_bytes = fields.u64();
        let created = fields.u64();
        let prefill_seconds = fields.f64();
        let attachment = fields.u64();
        let frontier = fields.u64();
        let directory_hash = fields.array();
        let rest = Rest {
            attachment,
            frontier,
            tokens_hash: fields.array(),
            attachment_hash: fields.array(),
            frontier_hash: fields.array(),
        };
        let span = u64::from(key.span_tokens);
        let ranges = [
            ("a span of", span, 1, u64::from(MAX_SPAN_TOKENS)),
            ("tokens", tokens, 1, MAX_TOKENS as u64),
            ("segments of bytes", segment_bytes, 0, MAX_SEGMENT_BYTES),
            (
                "a model name of bytes",
                name_bytes,
                0,
                MAX_MODEL_NAME_BYTES as u64,
            ),
            (
                "an attachment of bytes",
                attachment,
                0,
                MAX_ATTACHMENT_BYTES,
            ),
            ("a frontier of bytes", frontier, 0, MAX_FRONTIER_BYTES),
        ];
        for (field, found, least, most) in ranges {
            if found < least || found > most {
                return Err(FileError::Field { field, found });
            }
        }
        if tokens / span > MAX_SPANS as u64 {
            return Err(FileError::Field {
                field: "segments",
                found: tokens / span,
            });
        }
        let kind = CheckpointKind::from_code(kind).ok_or(FileError::Field {
            field: "kind",
            found: u64::from(kind),
        })?;
        if !prefill_seconds.is_finite() || prefill_seconds < 0.0 {
            return Err(FileError::Field {
                field: "prefill seconds (as bits)",
                found: prefill_seconds.to_bits(),
            });
        }
        // All parts are far below 2^60: the sums do not overflow.
        let directory = directory_bytes(name_bytes, tokens, &key);
        let expected = fixed + directory + 4 * tokens + attachment + frontier;
        if length != expected {
            return Err(FileError::Length {
                found: length,
                expected,
            });
        }

        let bytes = read_section(file, directory, &directory_hash, "directory")?;
        let (name, bytes) = bytes.split_at(name_bytes as usize);
        let model_name = String::from_utf8(name.to_vec()).map_err(|_| FileError::Field {
            field: "a model name that is not UTF-8, of bytes",
            found: name_bytes,
        })?;
        let (names, tail) = bytes.split_at(32 * (tokens / span) as usize);
        let segments: Vec<_> = names
            .chunks_exact(32)
            .map(|name| SegmentName(Fields::of(name).array()))
            .collect();
        let tail = tokens_from_bytes(tail);
        let last = segments
            .last()
            .copied()
            .unwrap_or_else(|| chain::root(&key));
        if chain::checkpoint(&last, &tail) != id {
            return Err(FileError::Mismatch { what: "id" });
        }
        let manifest = Self {
            id,
            key,
            kind,
            model_name,
            tokens: tokens as usize,
            segment_bytes,
            created,
            prefill_seconds,
            segments,
            tail,
            file_bytes: length,
        };
        Ok((manifest, rest))
    }

    /// Writes the checkpoint's file. `tokens` are those of the manifest; its `file_bytes`
    /// is not used.
    pub(crate) fn write(
        &self,
        tokens: &[TokenId],
        attachment: &[u8],
        frontier: &[u8],
        file: &mut dyn Write,
    ) -> io::Result<()> {
        let mut directory = self.model_name.as_bytes().to_vec();
        for name in &self.segments {
            directory.extend_from_slice(&name.0);
        }
        directory.extend_from_slice(&tokens_to_bytes(&self.tail));
        let tokens = tokens_to_bytes(tokens);

        let mut header = Vec::with_capacity(FIXED_BYTES);
        header.extend_from_slice(MAGIC);
        header.push(VERSION);
        header.extend_from_slice(&self.id.0);
        header.extend_from_slice(&self.key.fingerprint);
        for field in [
            self.key.format,
            self.key.span_tokens,
            self.kind.code(),
            self.model_name.len() as u32,
        ] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        for field in [
            self.tokens as u64,
            self.segment_bytes,
            self.created,
            self.prefill_seconds.to_bits(),
            attachment.len() as u64,
            frontier.len() as u64,
        ] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        for section in [&directory, &tokens, attachment, frontier] {
            header.extend_from_slice(blake3::hash(section).as_bytes());
        }
        let hash = blake3::hash(&header);
        header.extend_from_slice(hash.as_bytes());

        header.extend_from_slice(&directory);
        file.write_all(&header)?;
        for section in [&tokens, attachment, frontier] {
            file.write_all(section)?;
        }
        Ok(())
    }
}

impl CheckpointFile {
    /// Reads a checkpoint's file and checks all of it.
    ///
    /// # Errors
    /// The file is damaged, foreign or cannot be read.
    pub fn read(file: &mut dyn ReadFile) -> Result<Self, FileError> {
        let (manifest, rest) = Manifest::read_with_rest(file)?;
        let bytes = 4 * manifest.tokens as u64;
        let tokens = tokens_from_bytes(&read_section(file, bytes, &rest.tokens_hash, "tokens")?);
        let mut names = manifest.segments.iter();
        let same =
            chain::segment_names(&manifest.key, &tokens).all(|name| names.next() == Some(&name));
        if !same || !tokens.ends_with(&manifest.tail) {
            return Err(FileError::Mismatch {
                what: "token sequence",
            });
        }
        let attachment = read_section(file, rest.attachment, &rest.attachment_hash, "attachment")?;
        let frontier = read_section(file, rest.frontier, &rest.frontier_hash, "frontier")?;
        Ok(Self {
            manifest,
            tokens,
            attachment,
            frontier,
        })
    }
}
