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
        println!("{model:?}: {}", suite::half_rows(ReferenceBackend, model).unwrap());
    }
}

/// llama.cpp and the published engine round activations to 8 bits inside matrix products, the
/// reference does not. Their distance bounds what any correct backend with rounding shows.
#[test]
fn engines_with_rounded_activations_are_near() {
    let cases = [
        (FlashTiny, "llama"),
        (KqTiny, "llama"),
        (KqTiny, "ds4c"),
    ];
    for (model, kind) in cases {
        for (length, mean) in [(5, 0.15), (37, 0.15), (300, 0.3)] {
            let difference =
                suite::rounded_activations(ReferenceBackend, model, kind, length, mean);
            println!("{model:?} {kind} {length}: {}", match difference { Ok(d) => d.to_string(), Err(e) => format!("ERR {e}") });
        }
    }
}

#[test]
fn mtp_block_agrees() {
    for length in [5, 37, 300] {
        let run = Run { chunks: vec![64], ..Run::default() };
        let difference =
            suite::mtp(ReferenceBackend, FlashTiny, length, &run, &Tolerance::F32);
        println!("mtp {length}: {}", match difference { Ok(d) => d.to_string(), Err(e) => format!("ERR {e}") });
    }
}
