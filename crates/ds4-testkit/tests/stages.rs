//! Stages of the scalar reference and of the device against DeepSeek's released functions.

#![expect(clippy::unwrap_used, reason = "functions that tests share")]

use ds4_cpu::reference::ReferenceBackend;
use ds4_model::{Backend, KvFormat};
use ds4_quant::kv_rows;
use ds4_testkit::device::{DeviceBackend, Mode};
use ds4_testkit::{Golden, GoldenModel, Run, Trace, conformance, stages};

fn all_stages<B: Backend>(make: impl Fn() -> B) {
    let cases = [
        ("hyper-connections", stages::hyper_connections(make()), 3e-6),
        ("steering", stages::steering(make()), 1e-5),
        ("router", stages::router(make()), 1e-6),
        ("clamped SwiGLU", stages::clamped_swiglu(make()), 2e-5),
        ("rotation", stages::rotation(make()), 5e-5),
        ("inverse rotation", stages::inverse_rotation(&make), 5e-5),
    ];
    for (name, result, tolerance) in cases {
        let difference = result.unwrap();
        assert!(difference.max_abs <= tolerance, "{name}: {difference}");
    }
    stages::index_rounding(make()).unwrap();
    stages::row_reading(make()).unwrap();
    for kv_format in KvFormat::ALL {
        stages::row_storing(&make, kv_format).unwrap();
    }
}

#[test]
fn stages_of_the_reference() {
    all_stages(|| ReferenceBackend);
}

#[test]
fn stages_of_the_device() {
    all_stages(|| DeviceBackend::new(Mode::Replay));
    all_stages(|| DeviceBackend::new(Mode::Immediate));
}

#[test]
fn rope_tables_are_exact() {
    // Half a unit in the last place of a cosine near 1.
    assert!(stages::rope_tables().unwrap() <= 6e-8);
}

#[test]
fn row_formats_have_the_golden_values() {
    let unit = Golden::open("unit.safetensors").unwrap();
    let (plain, rounded) = (unit.floats("fp8.x").unwrap(), unit.floats("fp8.y").unwrap());
    for row in 0..plain.shape[0] {
        let mut bytes = vec![0; kv_rows::fp8_row_bytes(448, 0)];
        let mut found = vec![0.0; 448];
        kv_rows::fp8_row_encode(plain.row(row), 448, &mut bytes).unwrap();
        kv_rows::fp8_row_decode(&bytes, 448, &mut found).unwrap();
        assert_eq!(found, rounded.row(row), "row {row}");
    }
    let (plain, rotated) = (
        unit.floats("fp4.x").unwrap(),
        unit.floats("fp4.hadamard").unwrap(),
    );
    let rounded = unit.floats("fp4.y").unwrap();
    for row in 0..plain.shape[0] {
        let mut values: [f32; 128] = plain.row(row).try_into().unwrap();
        kv_rows::hadamard_128(&mut values);
        let difference = conformance::difference(&values, rotated.row(row)).unwrap();
        assert!(difference.max_abs < 1e-5, "row {row}: {difference}");
        let mut bytes = vec![0; kv_rows::fp4_row_bytes(128)];
        kv_rows::fp4_row_encode(rotated.row(row), &mut bytes).unwrap();
        kv_rows::fp4_row_decode(&bytes, &mut values).unwrap();
        assert_eq!(values, rounded.row(row), "row {row}");
    }
}

fn rows_of_official_code(mut check: impl FnMut(GoldenModel, usize, usize, &str, &[f32], usize)) {
    for model in GoldenModel::ALL {
        let golden = model.golden("official-qat").unwrap();
        for length in [37, 300] {
            for layer in 2..7 {
                for kind in ["compressor", "indexer_hadamard_fp4"] {
                    let key = format!("seq{length}.layer{layer}.comp_kv.{kind}");
                    if golden.has(&key).unwrap() {
                        let rows = golden.floats(&key).unwrap();
                        check(model, length, layer, kind, &rows.values, rows.width());
                    }
                }
            }
        }
    }
}

/// Every row that DeepSeek's code stored lies on the grids of our formats: encoding loses nothing.
/// (That code leaves the rotated dimensions of a row in F32; we store BF16.)
#[test]
fn official_rows_are_kept_bit_by_bit() {
    let mut seen = 0;
    rows_of_official_code(|model, length, layer, kind, rows, width| {
        for (index, row) in rows.chunks_exact(width).enumerate() {
            let mut found = vec![0.0; width];
            let kept = if kind == "compressor" {
                let mut bytes = vec![0; kv_rows::fp8_row_bytes(width, 64)];
                kv_rows::fp8_row_encode(row, width - 64, &mut bytes).unwrap();
                kv_rows::fp8_row_decode(&bytes, width - 64, &mut found).unwrap();
                for (found, expected) in found.iter().zip(row).skip(width - 64) {
                    assert!((found - expected).abs() <= expected.abs() / 256.0);
                }
                width - 64
            } else {
                let mut bytes = vec![0; kv_rows::fp4_row_bytes(width)];
                kv_rows::fp4_row_encode(row, &mut bytes).unwrap();
                kv_rows::fp4_row_decode(&bytes, &mut found).unwrap();
                width
            };
            assert_eq!(
                found[..kept],
                row[..kept],
                "{model:?} {length} {layer} {kind} {index}"
            );
            seen += 1;
        }
    });
    assert_eq!(seen, 848);
}

/// The rows of the first layer with compression, whose inputs went through two layers only: what
/// differs comes from rotated dimensions in BF16 and from roundings that fell to the other side.
/// Deeper layers and logits drift apart on random weights and prove nothing.
#[test]
fn first_compressed_rows_are_near_the_official_ones() {
    for model in GoldenModel::ALL {
        let run = Run {
            kv_format: KvFormat::Fp8,
            ..Run::default()
        };
        let trace = Trace::record(ReferenceBackend, model, 37, &run).unwrap();
        let golden = model.golden("official-qat").unwrap();
        let state = &trace.state[2];
        for (kind, rows, limit) in [
            ("compressor", &state.compressed.rows, 0.03),
            ("indexer_hadamard_fp4", &state.index.rows, 0.08),
        ] {
            let expected = golden
                .floats(&format!("seq37.layer2.comp_kv.{kind}"))
                .unwrap();
            let difference = conformance::difference(rows, &expected.values).unwrap();
            assert!(
                difference.relative_rms <= limit,
                "{model:?} {kind}: {difference}"
            );
        }
    }
}
