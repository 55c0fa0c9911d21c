//! The scalar reference against independent implementations, with the tolerances of F32 arithmetic.

use ds4_cpu::reference::ReferenceBackend;
use ds4_testkit::GoldenModel::{FlashTiny, KqTiny};
use ds4_testkit::suite::{self, Tolerance};
use ds4_testkit::{GoldenModel, Run};

macro_rules! sequences {
    ($($name:ident: $model:ident $length:literal;)*) => {$(
        #[test]
        fn $name() {
            let run = Run::default();
            suite::sequence(ReferenceBackend, $model, $length, &run, &Tolerance::F32).unwrap();
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
        suite::half_rows(ReferenceBackend, model).unwrap();
    }
}

/// The block in llama.cpp's dialect (`blk.7.nextn`, one fused projection) and in the published one
/// (`mtp.0`, two).
#[test]
fn mtp_block_agrees_in_both_dialects() {
    let run = Run {
        chunks: vec![64, 1, 7],
        ..Run::default()
    };
    for model in GoldenModel::ALL {
        for length in [5, 37, 300] {
            suite::mtp(ReferenceBackend, model, length, &run, &Tolerance::F32).unwrap();
        }
    }
}

fn mtp_700(model: GoldenModel) {
    suite::mtp(
        ReferenceBackend,
        model,
        700,
        &Run::default(),
        &Tolerance::F32,
    )
    .expect("the golden logits");
}

#[test]
fn mtp_block_of_flash_tiny_agrees_at_700() {
    mtp_700(FlashTiny);
}

#[test]
fn mtp_block_of_kq_tiny_agrees_at_700() {
    mtp_700(KqTiny);
}

/// llama.cpp and the published engine compute on the same quantised files with activations rounded
/// to 8 bits; the published engine also rounds its KV rows. The reference rounds nothing. Their
/// distance is what rounding costs on random weights; the bounds are estimates.
#[test]
fn engines_with_rounded_activations_are_near() {
    let cases = [
        (FlashTiny, "llama", [0.15, 0.15, 0.3], 0.99),
        (KqTiny, "llama", [0.15, 0.15, 0.3], 0.99),
        (KqTiny, "ds4c", [0.2, 0.2, 0.45], 0.98),
    ];
    for (model, kind, means, cosine) in cases {
        for (length, mean) in [5, 37, 300].into_iter().zip(means) {
            suite::rounded_activations(ReferenceBackend, model, kind, length, mean, cosine)
                .unwrap();
        }
    }
}
