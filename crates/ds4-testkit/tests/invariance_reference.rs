//! The scalar reference gives the same bits however a sequence is cut, batched, moved or rewound.

#![expect(clippy::unwrap_used, reason = "functions that tests share")]

use ds4_cpu::reference::ReferenceBackend;
use ds4_model::{KvFormat, TokenId};
use ds4_testkit::GoldenModel::{self, FlashTiny, KqTiny};
use ds4_testkit::suite;

const FORMATS: [KvFormat; 4] = KvFormat::ALL;

/// Crosses a dense row at 128 and ends inside a sparse window.
const LENGTH: usize = 142;

fn tokens(model: GoldenModel, length: usize) -> Vec<TokenId> {
    model.tokens(300).unwrap()[..length].to_vec()
}

fn chunking(model: GoldenModel, kv_format: KvFormat, cuts: &[&[usize]]) {
    let file = model.open().unwrap();
    let tokens = tokens(model, LENGTH);
    suite::chunking(|| ReferenceBackend, &file, &tokens, kv_format, cuts, 0.0).unwrap();
}

#[test]
fn flash_tiny_small_chunks() {
    chunking(FlashTiny, KvFormat::F32, &[&[1], &[2], &[3], &[7]]);
}

#[test]
fn flash_tiny_large_and_irregular_chunks() {
    chunking(
        FlashTiny,
        KvFormat::F32,
        &[&[16], &[49], &[5, 1, 31, 2, 47, 13, 4, 128]],
    );
}

#[test]
fn flash_tiny_chunks_of_half_rows() {
    chunking(FlashTiny, KvFormat::F16, &[&[1], &[7], &[11, 49, 3]]);
}

#[test]
fn flash_tiny_chunks_of_fp8_rows() {
    chunking(FlashTiny, KvFormat::Fp8, &[&[1], &[7], &[11, 49, 3]]);
}

#[test]
fn kq_tiny_chunks() {
    chunking(KqTiny, KvFormat::F32, &[&[1], &[19, 2, 60]]);
}

#[test]
fn flash_tiny_chunks_of_q4_rows() {
    chunking(FlashTiny, KvFormat::Q4, &[&[1], &[11, 49, 3]]);
}

#[test]
fn kq_tiny_chunks_of_fp8_rows() {
    chunking(KqTiny, KvFormat::Fp8, &[&[16], &[3, 50]]);
}

#[test]
fn sequences_in_one_step_do_not_meet() {
    let file = FlashTiny.open().unwrap();
    let all = FlashTiny.tokens(300).unwrap();
    let sequences = [
        all[..133].to_vec(),
        all[100..157].to_vec(),
        all[40..44].to_vec(),
    ];
    for kv_format in FORMATS {
        suite::batching(|| ReferenceBackend, &file, &sequences, kv_format, 0.0).unwrap();
    }
}

#[test]
fn saved_sequences_continue_elsewhere() {
    let file = FlashTiny.open().unwrap();
    for kv_format in FORMATS {
        // Inside and at the end of windows of both compressors, before and behind the first ring.
        for prefix in [3, 14, 64, 130] {
            let tokens = tokens(FlashTiny, prefix + 9);
            suite::restoring(|| ReferenceBackend, &file, &tokens, prefix, kv_format).unwrap();
        }
    }
}

#[test]
fn sequences_go_back_to_a_kept_frontier() {
    let file = FlashTiny.open().unwrap();
    for kv_format in FORMATS {
        for back_to in [2, 61, 127] {
            let tokens = tokens(FlashTiny, back_to + 12);
            suite::rewinding(|| ReferenceBackend, &file, &tokens, back_to, kv_format).unwrap();
            suite::forking(|| ReferenceBackend, &file, &tokens, back_to, kv_format).unwrap();
        }
    }
}

#[test]
fn steering_follows_its_formula() {
    let file = FlashTiny.open().unwrap();
    let tokens = tokens(FlashTiny, 17);
    suite::steering(|| ReferenceBackend, &file, &tokens, true, 1e-5).unwrap();
}
