//! Scores against what follows from transformers' logits for the same tokens.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and clippy.toml knows only its functions"
)]

use std::sync::atomic::AtomicBool;

use ds4_engine::{Engine, EngineOptions};
use ds4_model::{KvFormat, TokenId};
use ds4_testkit::GoldenModel;
use ds4_workshop::score::{ScoreOptions, Summary, TokenScore, score};
use ds4_workshop::{Control, WindowSizes, WorkshopError};

fn engine(model: GoldenModel, context: usize) -> Engine {
    let options = EngineOptions {
        threads: Some(1),
        context,
        kv_format: KvFormat::F32,
        prefill_chunk: 16,
        max_outputs: 16,
        exact: true,
        ..EngineOptions::default()
    };
    Engine::open(&model.open().unwrap(), None, &options, &mut |_| {}).unwrap()
}

fn run(
    model: &mut Engine,
    against: Option<&mut Engine>,
    documents: &[Vec<TokenId>],
    (context, stride): (usize, usize),
    max_tokens: Option<usize>,
) -> Result<Vec<TokenScore>, WorkshopError> {
    let options = ScoreOptions {
        sizes: WindowSizes {
            context,
            stride,
            begin: Some(0),
        },
        max_tokens,
    };
    let mut last = (0, 0);
    let mut control = Control {
        cancel: &AtomicBool::new(false),
        progress: &mut |done, total| last = (done, total),
    };
    let scores = score(model, against, documents, &options, &mut control)?;
    assert_eq!(last, (scores.len(), scores.len()));
    Ok(scores)
}

/// Probabilities by the definition; the logits are small enough for it.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let exponentials: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

fn likeliest(probabilities: &[f64]) -> usize {
    (0..probabilities.len())
        .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
        .unwrap()
}

#[test]
fn likelihoods_are_those_of_golden_logits() {
    for model in GoldenModel::ALL {
        let golden = model.golden("tf").unwrap();
        for length in [37, 300] {
            let ids = model.tokens(length).unwrap();
            let logits = golden.floats(&format!("seq{length}.logits")).unwrap();
            let mut engine = engine(model, 512);
            let scores = run(
                &mut engine,
                None,
                std::slice::from_ref(&ids),
                (512, 256),
                None,
            )
            .unwrap();
            assert_eq!(scores.len(), length - 1);
            let certain = model.first_uncertain(length).unwrap_or(length);
            let mut sum = 0.0;
            for (index, score) in scores.iter().enumerate() {
                let (token, p) = (ids[index + 1], softmax(logits.row(index)));
                let expected = -p[token as usize].ln();
                sum += expected;
                assert_eq!((score.position, score.token), (index + 1, token));
                if index < certain {
                    let error = (score.nll - expected).abs();
                    assert!(error < 1e-3, "{model:?} {length} at {index}: {error}");
                    assert_eq!(score.top, likeliest(&p) == token as usize);
                }
            }
            let mean = Summary::new(&scores).nll.mean();
            let expected = sum / (length - 1) as f64;
            println!("{model:?} {length}: NLL {mean:.6}, expected {expected:.6}");
            assert!((mean - expected).abs() < 1e-3, "{mean} {expected}");
        }
    }
}

/// The models differ in weights and shape, but share a vocabulary; both have golden logits, for sequences
/// of their own. The first tokens of both are the same, so the first prediction is of one and the same.
#[test]
fn divergence_is_that_of_golden_logits() {
    let models = GoldenModel::ALL;
    let [p, q] = models.map(|model| {
        assert_eq!(model.tokens(37).unwrap()[0], 0);
        softmax(
            model
                .golden("tf")
                .unwrap()
                .floats("seq37.logits")
                .unwrap()
                .row(0),
        )
    });
    let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    let [mut against, mut model] = models.map(|model| engine(model, 64));
    let documents = [vec![0, 17]];
    let scores = run(&mut model, Some(&mut against), &documents, (64, 32), None).unwrap();
    let found = scores[0].against.unwrap();
    println!("KL {:.6}, expected {kl:.6}", found.kl);
    assert!((found.kl - kl).abs() < 1e-3 * kl);
    assert!((found.nll + p[17].ln()).abs() < 1e-3);
    assert!((scores[0].nll + q[17].ln()).abs() < 1e-3);
    assert_eq!(found.same_top, likeliest(&p) == likeliest(&q));
}

#[test]
fn a_model_does_not_diverge_from_itself_and_windows_are_documents() {
    let model = GoldenModel::FlashTiny;
    let ids = model.tokens(37).unwrap();
    let [mut first, mut second] = [(), ()].map(|()| engine(model, 16));
    let documents = [ids.clone(), vec![5], ids[3..9].to_vec()];
    let scores = run(&mut first, Some(&mut second), &documents, (16, 6), None).unwrap();
    assert_eq!(scores.len(), 36 + 5);
    let summary = Summary::new(&scores);
    let against = summary.against.as_ref().unwrap();
    assert_eq!((against.kl_max, against.same_top.mean()), (0.0, 1.0));
    assert_eq!(against.nll_difference.mean(), 0.0);
    // The second window ends six tokens after the first; before it stands the token that begins.
    let window = [&[0][..], &ids[7..22]].concat();
    let alone = run(&mut first, None, &[window], (16, 6), None).unwrap();
    for (window, alone) in scores[15..21].iter().zip(&alone[9..]) {
        assert_eq!((window.token, window.nll), (alone.token, alone.nll));
    }
    // A limit leaves the first ones as they are.
    let limited = run(&mut first, None, &documents, (16, 6), Some(20)).unwrap();
    let pairs = limited.iter().zip(&scores);
    assert!(limited.len() == 20 && pairs.into_iter().all(|(a, b)| a.nll == b.nll));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let mut engine = engine(GoldenModel::FlashTiny, 16);
    let nothing = run(&mut engine, None, &[vec![1], vec![]], (16, 8), None);
    assert!(matches!(nothing, Err(WorkshopError::NothingToScore)));
    let stride = run(&mut engine, None, &[vec![1, 2]], (16, 16), None);
    assert!(matches!(stride, Err(WorkshopError::Setting { .. })));
    // A failure closes the session: the engine has one.
    let outside = run(&mut engine, None, &[vec![1, 512, 3]], (16, 8), None);
    assert!(matches!(outside, Err(WorkshopError::Engine(_))));
    assert!(run(&mut engine, None, &[vec![1, 2]], (16, 8), None).is_ok());
}
