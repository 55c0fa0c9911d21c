//! The fast backend against independent implementations: with exact weights and activations as close as
//! the scalar reference, with 8-bit activations as close as other engines that round.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::Precision;
use ds4_cpu::reference::ReferenceBackend;
use ds4_model::KvFormat;
use ds4_testkit::GoldenModel::{FlashTiny, KqTiny};
use ds4_testkit::sequence_state::LayerState;
use ds4_testkit::suite::{self, Tolerance};
use ds4_testkit::{GoldenModel, Run, Trace, conformance, stages};

fn exact() -> CpuBackend {
    CpuBackend::new(2, Precision::Exact).unwrap()
}

fn fast() -> CpuBackend {
    CpuBackend::new(2, Precision::Fast).unwrap()
}

macro_rules! sequences {
    ($($name:ident: $model:ident $length:literal;)*) => {$(
        #[test]
        fn $name() {
            let run = Run::default();
            suite::sequence(exact(), $model, $length, &run, &Tolerance::F32).unwrap();
        }
    )*};
}

sequences! {
    flash_tiny_5: FlashTiny 5;
    flash_tiny_37: FlashTiny 37;
    flash_tiny_300: FlashTiny 300;
    flash_tiny_700: FlashTiny 700;
    kq_tiny_5: KqTiny 5;
    kq_tiny_37: KqTiny 37;
    kq_tiny_300: KqTiny 300;
    kq_tiny_700: KqTiny 700;
}

#[test]
fn half_rows_move_logits_little() {
    for model in GoldenModel::ALL {
        suite::half_rows(exact(), model).unwrap();
    }
}

#[test]
fn mtp_block_agrees() {
    let run = Run {
        chunks: vec![64, 1, 7],
        ..Run::default()
    };
    for model in GoldenModel::ALL {
        for length in [5, 37, 300] {
            suite::mtp(exact(), model, length, &run, &Tolerance::F32).unwrap();
        }
    }
    suite::mtp(exact(), FlashTiny, 700, &Run::default(), &Tolerance::F32).unwrap();
}

/// Against F32 arithmetic, with the bounds that the golden data's description gives for 8-bit activations;
/// and against llama.cpp, which rounds its activations more coarsely.
#[test]
fn rounded_activations_cost_what_they_may() {
    for model in GoldenModel::ALL {
        for (kind, length, mean, cosine) in [
            ("tf", 5, 0.15, 0.99),
            ("tf", 37, 0.15, 0.99),
            ("tf", 300, 0.3, 0.98),
            ("llama", 5, 0.15, 0.99),
            ("llama", 37, 0.15, 0.99),
            ("llama", 300, 0.3, 0.98),
        ] {
            let difference =
                suite::rounded_activations(fast(), model, kind, length, mean, cosine).unwrap();
            println!("{model:?} {kind} {length}: {difference}");
        }
    }
}

/// Hidden states of every layer at 37 tokens: every layer adds an error near 1e-2, independent of those
/// before it.
#[test]
fn rounded_activations_move_hidden_states_little() {
    for model in GoldenModel::ALL {
        let trace = Trace::record(fast(), model, 37, &Run::default()).unwrap();
        for layer in 0..trace.layers.len() {
            let hidden = conformance::hidden(&trace, layer).unwrap();
            println!("{model:?} layer {layer}: {hidden}");
            let limit = 2e-2 * ((layer + 1) as f64).sqrt();
            assert!(
                hidden.relative_rms < limit,
                "{model:?} layer {layer}: {hidden}"
            );
        }
    }
}

#[test]
fn single_stages_agree_with_the_released_functions() {
    for make in [exact, fast] {
        let cases = [
            ("hyper-connections", stages::hyper_connections(make()), 3e-6),
            ("steering", stages::steering(make()), 1e-5),
            ("router", stages::router(make()), 1e-6),
            ("clamped SwiGLU", stages::clamped_swiglu(make()), 2e-5),
            ("rotation", stages::rotation(make()), 5e-5),
            ("inverse rotation", stages::inverse_rotation(make), 5e-5),
        ];
        for (name, result, tolerance) in cases {
            let difference = result.unwrap();
            assert!(difference.max_abs <= tolerance, "{name}: {difference}");
        }
        stages::index_rounding(make()).unwrap();
        stages::row_reading(make()).unwrap();
        for kv_format in KvFormat::ALL {
            stages::row_storing(make, kv_format).unwrap();
        }
    }
}

/// The fast backend rotates the query once, the reference rotates every row back; beside that both
/// differ by roundings, of which a few end in another code.
#[test]
fn attention_to_q4_rows_agrees_with_the_reference() {
    let run = Run {
        kv_format: KvFormat::Q4,
        observe: false,
        ..Run::default()
    };
    for model in GoldenModel::ALL {
        let expected = Trace::record(ReferenceBackend, model, 37, &run).unwrap();
        let found = Trace::record(exact(), model, 37, &run).unwrap();
        let (mut rows, mut equal) = (0, 0);
        for (found, expected) in found.state.iter().zip(&expected.state) {
            let bytes = |state: &LayerState| state.compressed.row_bytes.clone();
            let pairs = bytes(found).into_iter().zip(bytes(expected));
            pairs.for_each(|(a, b)| {
                rows += 1;
                equal += usize::from(a == b);
            });
        }
        let logits = conformance::difference(&found.logits, &expected.logits).unwrap();
        println!("{model:?}: {equal} of {rows} bytes equal, logits {logits}");
        assert!(100 * equal >= 99 * rows, "{model:?}: {equal} of {rows}");
        assert!(logits.relative_rms < 2e-2, "{model:?}: {logits}");
    }
}
