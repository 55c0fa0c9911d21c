//! Measures saving and restoring a checkpoint of 100,000 tokens of a model shaped like
//! V4 Flash, with synthetic bytes:
//!
//! ```sh
//! cargo run --release -p ds4-kvstore --example restore_speed -- [DIRECTORY]
//! ```
//!
//! Without a directory it uses a temporary one.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use ds4_kvstore::{
    CheckpointData, CheckpointKind, Limits, ModelKey, SegmentSource, Store, TokenId,
};

/// Flash: 2 layers without compressed rows, 21 with one row for 4 tokens and one of the
/// indexer, 20 with one for 128. A row is 448 E4M3 bytes, 7 scales and 64 BF16 (583 bytes),
/// one of the indexer 128 E2M1 and 4 scales (68 bytes).
const SEGMENT_BYTES: u64 = 21 * 64 * (583 + 68) + 20 * 2 * 583;
/// Windows of 43 layers, open contributions, logits.
const FRONTIER_BYTES: usize =
    43 * 127 * 583 + 21 * 8 * 2 * 4 * (1024 + 256) + 20 * 128 * 2 * 4 * 512 + 4 * 129_280;
const TOKENS: usize = 100_000;
const SPAN: u32 = 256;

/// Bytes that do not repeat.
struct Synthetic {
    rows: Vec<u8>,
}

impl SegmentSource for Synthetic {
    fn segment(&mut self, span: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        self.rows[..8].copy_from_slice(&(span as u64).to_le_bytes());
        Ok(Some(Cow::Borrowed(&self.rows)))
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut output = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut output);
    output
}

#[expect(clippy::print_stdout, reason = "an example prints its results")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().join("kv"), PathBuf::from);
    let key = ModelKey {
        fingerprint: [1; 32],
        format: 2,
        span_tokens: SPAN,
    };
    let tokens: Vec<TokenId> = (0..TOKENS as u32)
        .map(|at| at.wrapping_mul(7919) % 129_280)
        .collect();
    let data = CheckpointData {
        kind: CheckpointKind::Prompt,
        model_name: "synthetic".to_owned(),
        prefill_seconds: 200.0,
        segment_bytes: SEGMENT_BYTES,
        frontier: noise(FRONTIER_BYTES),
        attachment: Vec::new(),
    };
    let mut source = Synthetic {
        rows: noise(SEGMENT_BYTES as usize),
    };
    let planned = (TOKENS / SPAN as usize) as u64 * SEGMENT_BYTES + FRONTIER_BYTES as u64;

    let store = Store::open(&directory, Limits::default())?;
    let start = Instant::now();
    let plan = store.plan(&key, &tokens)?;
    let saved = store.save(&plan, &data, &mut source)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = store.usage().bytes;
    println!(
        "save: {} segments, {:.1} MB in {seconds:.2} s ({:.2} GB/s), synced",
        saved.segments_written,
        saved.bytes_written as f64 / 1e6,
        saved.bytes_written as f64 / 1e9 / seconds,
    );
    println!(
        "size: {:.1} MB on disk, {:.1} MB of rows and frontier ({:+.2}%)",
        bytes as f64 / 1e6,
        planned as f64 / 1e6,
        100.0 * (bytes as f64 / planned as f64 - 1.0),
    );
    drop(plan);
    drop(store);

    for threads in [1, 2] {
        let limits = Limits {
            load_threads: threads,
            ..Limits::default()
        };
        for run in 1..=3 {
            let start = Instant::now();
            let store = Store::open(&directory, limits)?;
            let opened = start.elapsed().as_secs_f64();
            let hit = store.longest_prefix(&key, &tokens).ok_or("not found")?;
            let found = start.elapsed().as_secs_f64();
            let loaded = store.load(&hit, 0)?;
            let seconds = start.elapsed().as_secs_f64() - found;
            if loaded.frontier != data.frontier || loaded.segments.len() != saved.segments_written {
                return Err("it is not what was saved".into());
            }
            println!(
                "load, {threads} threads, run {run}: {seconds:.3} s ({:.2} GB/s); open {:.1} ms, lookup {:.2} ms",
                bytes as f64 / 1e9 / seconds,
                1e3 * opened,
                1e3 * (found - opened),
            );
        }
    }
    let rows = noise(SEGMENT_BYTES as usize);
    let start = Instant::now();
    for _ in 0..390 {
        std::hint::black_box(blake3::hash(std::hint::black_box(&rows)));
    }
    println!(
        "BLAKE3 alone, 1 thread: {:.2} GB/s",
        390.0 * SEGMENT_BYTES as f64 / 1e9 / start.elapsed().as_secs_f64()
    );
    Ok(())
}
