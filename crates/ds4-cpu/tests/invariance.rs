//! The fast backend gives the same bits however a sequence is cut, batched, moved or rewound, and with any
//! number of threads and any instruction set.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::{Isa, Precision};
use ds4_model::{KvFormat, TokenId};
use ds4_testkit::GoldenModel::{self, FlashTiny, KqTiny};
use ds4_testkit::suite;
use ds4_testkit::{Run, Session};

const FORMATS: [KvFormat; 4] = KvFormat::ALL;

/// Crosses a dense row at 128 and ends inside a sparse window.
const LENGTH: usize = 142;

fn fast() -> CpuBackend {
    CpuBackend::new(2, Precision::Fast).unwrap()
}

fn tokens(model: GoldenModel, length: usize) -> Vec<TokenId> {
    model.tokens(300).unwrap()[..length].to_vec()
}

#[test]
fn chunks_of_any_size_give_the_same_bits() {
    let cuts: [&[usize]; 5] = [&[1], &[2], &[7], &[49], &[5, 1, 31, 2, 47, 13, 4, 128]];
    for model in [FlashTiny, KqTiny] {
        let file = model.open().unwrap();
        let tokens = tokens(model, LENGTH);
        for kv_format in FORMATS {
            suite::chunking(fast, &file, &tokens, kv_format, &cuts, 0.0).unwrap();
        }
        let exact = || CpuBackend::new(3, Precision::Exact).unwrap();
        suite::chunking(exact, &file, &tokens, KvFormat::F32, &cuts, 0.0).unwrap();
    }
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
        suite::batching(fast, &file, &sequences, kv_format, 0.0).unwrap();
    }
}

#[test]
fn saved_sequences_continue_elsewhere() {
    let file = FlashTiny.open().unwrap();
    for kv_format in FORMATS {
        for prefix in [3, 14, 64, 130] {
            let tokens = tokens(FlashTiny, prefix + 9);
            suite::restoring(fast, &file, &tokens, prefix, kv_format).unwrap();
        }
    }
}

#[test]
fn sequences_go_back_to_a_kept_frontier() {
    let file = FlashTiny.open().unwrap();
    for kv_format in FORMATS {
        for back_to in [2, 61, 127] {
            let tokens = tokens(FlashTiny, back_to + 12);
            suite::rewinding(fast, &file, &tokens, back_to, kv_format).unwrap();
            suite::forking(fast, &file, &tokens, back_to, kv_format).unwrap();
        }
        // One whole page is shared, and one copied.
        suite::forking(fast, &file, &tokens(FlashTiny, 290), 269, kv_format).unwrap();
    }
}

#[test]
fn drafts_that_are_taken_back_leave_no_trace() {
    let file = FlashTiny.open().unwrap();
    let all = FlashTiny.tokens(300).unwrap();
    // Across dense rows at 128 and 256, and the border of a page.
    let sequences = [all[..290].to_vec(), all[100..243].to_vec()];
    for (seed, kv_format) in FORMATS.into_iter().enumerate() {
        let drafting = suite::Drafting {
            seed: seed as u64,
            longest: [8, 3, 15, 6][seed],
            chunk: [1, 64, 7, 33][seed],
            prompt: [20, 1, 120, 57][seed],
        };
        suite::taking_back(fast, &file, &sequences, kv_format, drafting).unwrap();
    }
}

#[test]
fn threads_and_instruction_sets_give_the_same_bits() {
    for model in [FlashTiny, KqTiny] {
        let file = model.open().unwrap();
        let tokens = tokens(model, 70);
        let run = Run {
            chunks: vec![23, 1, 9],
            observe: false,
            ..Run::default()
        };
        let logits = |backend: CpuBackend| {
            let mut session = Session::new(backend, &file, None, &run, tokens.len()).unwrap();
            let logits = session.feed(&tokens, &run).unwrap();
            logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let expected = logits(fast());
        for threads in [1, 3, 5] {
            let backend = CpuBackend::new(threads, Precision::Fast).unwrap();
            assert!(
                logits(backend) == expected,
                "{model:?} with {threads} threads"
            );
        }
        for isa in Isa::ALL {
            if let Some(backend) = CpuBackend::with_isa(2, Precision::Fast, isa).unwrap() {
                assert!(logits(backend) == expected, "{model:?} with {isa}");
            }
        }
    }
}

#[test]
fn steering_follows_its_formula() {
    let file = FlashTiny.open().unwrap();
    let tokens = tokens(FlashTiny, 17);
    suite::steering(fast, &file, &tokens, true, 1e-5).unwrap();
}
