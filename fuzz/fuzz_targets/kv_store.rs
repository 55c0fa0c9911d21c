//! Any bytes as each file of the KV cache: an error, or a file whose parts are in the bytes.
//!
//! They are read as they are, and with their checksums made right: nothing would get
//! past them otherwise.

#![no_main]

use std::io::Cursor;

use ds4_kvstore::format::{CheckpointFile, FileError, Manifest, SegmentFile, UsageFile};
use libfuzzer_sys::fuzz_target;

const HASH: usize = 32;
/// Offsets in a checkpoint's header, as documented in `checkpoint_file`.
const CHECKPOINT_HEADER: usize = 296;
const CHECKPOINT_HASHES: usize = 136;
/// Offsets in a segment's header, as documented in `segment_file`.
const SEGMENT_HEADER: usize = 184;
const SEGMENT_ROWS_HASH: usize = 120;

fuzz_target!(|data: &[u8]| {
    let checkpoint = with_checkpoint_hashes(data).unwrap_or_default();
    let segment = with_segment_hashes(data).unwrap_or_default();
    for bytes in [data, &checkpoint, &segment] {
        read_all(bytes);
    }
    if let Some(place) = data.len().checked_sub(HASH) {
        let hash = blake3::hash(&data[..place]);
        read_all(&[&data[..place], hash.as_bytes().as_slice()].concat());
    }
});

fn read_all(bytes: &[u8]) {
    let file = || Cursor::new(bytes.to_vec());
    match CheckpointFile::read(&mut file()) {
        Ok(read) => {
            assert_eq!(read.manifest.tokens, read.tokens.len());
            assert!(read.tokens.ends_with(&read.manifest.tail));
            let parts = 4 * read.tokens.len() + read.attachment.len() + read.frontier.len();
            assert!(parts < bytes.len());
            assert_eq!(Manifest::read(&mut file()).ok(), Some(read.manifest));
        }
        Err(error) => check_error(&error),
    }
    match SegmentFile::read(&mut file()) {
        Ok(read) => {
            assert_eq!(read.tokens.len(), read.key.span_tokens as usize);
            assert!(bytes.ends_with(&read.rows));
        }
        Err(error) => check_error(&error),
    }
    match UsageFile::read(&mut file()) {
        Ok(read) => assert!(48 * read.checkpoints.len() < bytes.len()),
        Err(error) => check_error(&error),
    }
}

fn check_error(error: &FileError) {
    assert!(!error.to_string().is_empty());
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let mut word = [0; 8];
    word[..N].copy_from_slice(bytes.get(at..at + N)?);
    usize::try_from(u64::from_le_bytes(word)).ok()
}

/// The bytes with right checksums, if they are long enough for the sections of a checkpoint.
fn with_checkpoint_hashes(data: &[u8]) -> Option<Vec<u8>> {
    let span = number::<4>(data, 76)?;
    let name = number::<4>(data, 84)?;
    let tokens = number::<8>(data, 88)?;
    let directory = name
        .checked_add(32_usize.checked_mul(tokens.checked_div(span)?)?)?
        .checked_add(4 * (tokens % span))?;
    let lengths = [
        directory,
        tokens.checked_mul(4)?,
        number::<8>(data, 120)?,
        number::<8>(data, 128)?,
    ];
    let mut bytes = data.to_vec();
    let mut rest = data.get(CHECKPOINT_HEADER..)?;
    for (section, length) in lengths.into_iter().enumerate() {
        let (content, behind) = rest.split_at_checked(length)?;
        let at = CHECKPOINT_HASHES + HASH * section;
        bytes[at..at + HASH].copy_from_slice(blake3::hash(content).as_bytes());
        rest = behind;
    }
    let hash = blake3::hash(&bytes[..CHECKPOINT_HEADER - HASH]);
    bytes[CHECKPOINT_HEADER - HASH..CHECKPOINT_HEADER].copy_from_slice(hash.as_bytes());
    Some(bytes)
}

/// The bytes with right checksums, if they are long enough for the tokens of a segment.
fn with_segment_hashes(data: &[u8]) -> Option<Vec<u8>> {
    let tokens = number::<4>(data, 108)?.checked_mul(4)?;
    let (tokens, rows) = data.get(SEGMENT_HEADER..)?.split_at_checked(tokens)?;
    let mut bytes = data.to_vec();
    bytes[SEGMENT_ROWS_HASH..SEGMENT_ROWS_HASH + HASH]
        .copy_from_slice(blake3::hash(rows).as_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..SEGMENT_HEADER - HASH]);
    hasher.update(tokens);
    bytes[SEGMENT_HEADER - HASH..SEGMENT_HEADER].copy_from_slice(hasher.finalize().as_bytes());
    Some(bytes)
}
