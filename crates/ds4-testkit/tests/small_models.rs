//! Random small shapes: the backends agree and no way of cutting a sequence matters.

#![expect(clippy::unwrap_used, reason = "functions that tests share")]

use ds4_cpu::reference::ReferenceBackend;
use ds4_model::{KvFormat, ModelShape, Step, StepSequence, TokenId};
use ds4_quant::TensorType;
use ds4_testkit::device::{DeviceBackend, Mode};
use ds4_testkit::synthetic::{Dialect, Random, WeightTypes};
use ds4_testkit::{Run, Session, SmallModel, suite};

fn tokens(model: &SmallModel, count: usize) -> Vec<TokenId> {
    let mut random = Random::new(!model.seed);
    (0..count)
        .map(|_| random.below(model.vocabulary) as TokenId)
        .collect()
}

/// Logits of `tokens` and, behind them, those of the MTP block.
fn logits<B: ds4_model::Backend>(
    backend: B,
    model: &SmallModel,
    run: &Run,
    tokens: &[TokenId],
) -> Vec<f32> {
    let (file, mtp_file) = (model.file().unwrap(), model.mtp_file().unwrap());
    let mut session = Session::new(backend, &file, Some(&mtp_file), run, tokens.len()).unwrap();
    let mut all = Vec::new();
    for &chunk in run.chunks.iter().cycle() {
        let start = session.position;
        // The last token has no next one for the MTP block.
        let rows = chunk.min(tokens.len() - 1 - start);
        if rows == 0 {
            break;
        }
        all.extend(session.step(&tokens[start..start + rows], false).unwrap());
        let next = StepSequence {
            slot: session.slot,
            position: start,
            tokens: tokens[start + 1..start + rows + 1].to_vec(),
            outputs: 0..rows,
        };
        let behind: Vec<usize> = (0..rows).collect();
        let step = Step::single(next);
        session.executor.run_mtp(&step, &behind).unwrap();
        all.extend(session.logits(rows).unwrap());
    }
    all
}

fn backends_agree(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let fp8 = seed % 2 == 1;
        let model = SmallModel::random(seed, fp8);
        let kv_format = if fp8 { KvFormat::Fp8 } else { KvFormat::F32 };
        let mut random = Random::new(seed);
        let chunks: Vec<usize> = (0..5).map(|_| random.between(1, 17)).collect();
        let run = Run {
            kv_format,
            chunks,
            observe: false,
        };
        let tokens = tokens(&model, random.between(20, 60));
        let expected = logits(ReferenceBackend, &model, &run, &tokens);
        assert!(expected.iter().all(|x| x.is_finite()), "{model:?}");
        let found = logits(DeviceBackend::new(Mode::Verify), &model, &run, &tokens);
        assert!(found == expected, "{model:?}");
    }
}

#[test]
fn device_and_reference_agree_on_random_shapes() {
    backends_agree(0..12);
}

#[test]
fn device_and_reference_agree_on_more_random_shapes() {
    backends_agree(12..24);
}

fn cutting_does_not_matter(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let fp8 = seed % 2 == 0;
        let model = SmallModel::random(seed, fp8);
        let kv_format = if fp8 { KvFormat::Fp8 } else { KvFormat::F16 };
        let mut random = Random::new(seed);
        let tokens = tokens(&model, random.between(120, 140));
        let cuts: Vec<Vec<usize>> = (0..2)
            .map(|_| (0..7).map(|_| random.between(1, 40)).collect())
            .collect();
        let cuts: Vec<&[usize]> = cuts.iter().map(Vec::as_slice).chain([&[1][..]]).collect();
        let file = model.file().unwrap();
        suite::chunking(|| ReferenceBackend, &file, &tokens, kv_format, &cuts, 0.0)
            .unwrap_or_else(|error| panic!("{model:?}: {error}"));
    }
}

#[test]
fn cutting_random_shapes_does_not_matter() {
    cutting_does_not_matter(100..108);
}

#[test]
fn cutting_more_random_shapes_does_not_matter() {
    cutting_does_not_matter(108..116);
}

fn drafts_leave_no_trace<B: ds4_model::Backend>(
    make: impl Fn() -> B,
    seeds: std::ops::Range<u64>,
    length: usize,
) {
    for seed in seeds {
        let fp8 = seed % 2 == 0;
        let model = SmallModel::random(seed, fp8);
        let kv_format = if fp8 { KvFormat::Fp8 } else { KvFormat::F16 };
        let mut random = Random::new(seed);
        let sequences = [
            tokens(&model, random.between(length, length + 20)),
            tokens(&model, random.between(length / 3, length / 2)),
        ];
        let drafting = suite::Drafting {
            seed,
            longest: random.between(1, 9),
            chunk: random.between(1, 40),
            prompt: random.between(1, 30),
        };
        let file = model.file().unwrap();
        suite::taking_back(&make, &file, &sequences, kv_format, drafting)
            .unwrap_or_else(|error| panic!("{model:?}: {error}"));
    }
}

#[test]
fn drafts_leave_no_trace_in_random_shapes() {
    drafts_leave_no_trace(|| ReferenceBackend, 200..208, 135);
}

#[test]
fn drafts_leave_no_trace_on_a_device() {
    drafts_leave_no_trace(|| DeviceBackend::new(Mode::Verify), 208..210, 40);
}

#[test]
fn files_hold_the_shape_that_was_asked_for() {
    for dialect in [Dialect::Published, Dialect::LlamaCpp] {
        for types in [
            WeightTypes::F32,
            WeightTypes::LLAMA_CPP,
            WeightTypes::PUBLISHED,
        ] {
            let model = SmallModel {
                dialect,
                types,
                hidden: 256,
                expert_hidden: 256,
                ..SmallModel::default()
            };
            let file = model.file().unwrap();
            let shape = ModelShape::from_file(&file).unwrap();
            assert_eq!(
                (shape.hidden, shape.vocabulary, shape.window),
                (256, 512, 16)
            );
            assert_eq!(shape.layers.len(), 4);
            let gate = file.tensor("blk.2.ffn_gate_exps.weight").unwrap();
            assert_eq!(gate.ty, types.expert_in);
            // The embedding's rows have no part in it: 512 is a multiple of no other width.
            assert_eq!(file.tensor("token_embd.weight").unwrap().dims, [256, 512]);
        }
    }
    let again = SmallModel::default().bytes().unwrap();
    assert!(
        SmallModel::default().bytes().unwrap() == again,
        "another file"
    );
    let types = WeightTypes::all(TensorType::Q4K);
    let odd = SmallModel {
        types,
        ..SmallModel::default()
    };
    // Rows of 64 hold no block of 256.
    let gate = odd.file().unwrap();
    assert_eq!(
        gate.tensor("blk.2.ffn_gate_exps.weight").unwrap().ty,
        TensorType::F16
    );
}
