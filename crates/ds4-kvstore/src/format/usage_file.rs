//! What was used when, and totals. Losing it costs nothing but good choices in eviction.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `DS4KVUS` and version 1 |
//! | 12 × 8 | totals, in the order of [`Statistics`] |
//! | 8 | checkpoints `c` |
//! | 48 `c` | id (32), last used in seconds since 1970 (8), hits (8) |
//! | 32 | BLAKE3 of everything before |

use super::fields::Fields;
use super::{FileError, HASH_BYTES, VERSION, check, check_magic, read_exactly};
use crate::chain::CheckpointId;
use crate::statistics::Statistics;
use crate::storage::ReadFile;

const MAGIC: &[u8; 7] = b"DS4KVUS";
const TOTALS: usize = 12;
const FIXED_BYTES: usize = 8 + 8 * TOTALS + 8 + HASH_BYTES;
const ENTRY_BYTES: usize = 32 + 8 + 8;
/// Most checkpoints in a usage file.
const MAX_ENTRIES: u64 = 1 << 20;

/// When and how often a checkpoint was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointUsage {
    /// Which checkpoint.
    pub id: CheckpointId,
    /// When it was last loaded or saved, in seconds since 1970.
    pub last_used: u64,
    /// How often it was loaded.
    pub hits: u64,
}

/// The usage file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageFile {
    /// Totals since the directory was made.
    pub totals: Statistics,
    /// Use of each checkpoint.
    pub checkpoints: Vec<CheckpointUsage>,
}

impl UsageFile {
    /// Reads the file and checks all of it.
    ///
    /// # Errors
    /// The file is damaged, foreign or cannot be read.
    pub fn read(file: &mut dyn ReadFile) -> Result<Self, FileError> {
        let length = file.length();
        let most = FIXED_BYTES as u64 + MAX_ENTRIES * ENTRY_BYTES as u64;
        if length < FIXED_BYTES as u64 || length > most {
            return Err(FileError::Length {
                found: length,
                expected: FIXED_BYTES as u64,
            });
        }
        let bytes = read_exactly(file, length)?;
        check_magic(&bytes[..8], MAGIC, "usage file")?;
        let (content, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        check(content, &Fields::of(hash).array(), "content")?;
        let mut fields = Fields::of(&content[8..]);
        let totals = Statistics {
            lookups: fields.u64(),
            misses: fields.u64(),
            hits: std::array::from_fn(|_| fields.u64()),
            tokens_restored: fields.u64(),
            seconds_saved: Some(fields.f64())
                .filter(|seconds| seconds.is_finite())
                .unwrap_or(0.0),
            saved: fields.u64(),
            evicted: fields.u64(),
            refused: fields.u64(),
        };
        let count = fields.u64();
        if count != ((length as usize - FIXED_BYTES) / ENTRY_BYTES) as u64
            || !(length as usize - FIXED_BYTES).is_multiple_of(ENTRY_BYTES)
        {
            return Err(FileError::Field {
                field: "checkpoints",
                found: count,
            });
        }
        let checkpoints = (0..count)
            .map(|_| CheckpointUsage {
                id: CheckpointId(fields.array()),
                last_used: fields.u64(),
                hits: fields.u64(),
            })
            .collect();
        Ok(Self {
            totals,
            checkpoints,
        })
    }

    /// The file's bytes; checkpoints beyond the limit are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let checkpoints = &self.checkpoints[..self.checkpoints.len().min(MAX_ENTRIES as usize)];
        let mut bytes = Vec::with_capacity(FIXED_BYTES + checkpoints.len() * ENTRY_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        let totals = &self.totals;
        let fields = [totals.lookups, totals.misses]
            .into_iter()
            .chain(totals.hits)
            .chain([
                totals.tokens_restored,
                totals.seconds_saved.to_bits(),
                totals.saved,
                totals.evicted,
                totals.refused,
                checkpoints.len() as u64,
            ]);
        for field in fields {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for usage in checkpoints {
            bytes.extend_from_slice(&usage.id.0);
            bytes.extend_from_slice(&usage.last_used.to_le_bytes());
            bytes.extend_from_slice(&usage.hits.to_le_bytes());
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }
}
