//! Collected importance against mean squares computed by hand, in doubles, from the hidden states that
//! transformers gave for the same tokens (golden `hc_out`, `attn_out`, `route_expert`).
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print, and clippy.toml knows only its functions"
)]

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use ds4_engine::BackendKind;
use ds4_gguf::GgufFile;
use ds4_model::{KvFormat, ModelShape, TokenId};
use ds4_quantize::CollectedImportance;
use ds4_testkit::{Golden, GoldenModel};
use ds4_workshop::Control;
use ds4_workshop::imatrix::{ImatrixOptions, collect};

const TOKENS: usize = 37;
const EPSILON: f64 = 1e-6;

/// A weight as doubles, `[matrices * rows, columns]`.
struct Weight {
    columns: usize,
    values: Vec<f64>,
}

impl Weight {
    fn of(file: &GgufFile, name: &str) -> Self {
        let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
        let mut values = vec![0.0; tensor.elements() as usize];
        ds4_quant::decode(tensor.ty, &file.bytes(tensor), &mut values).unwrap();
        Self {
            columns: tensor.dims[0] as usize,
            values: values.into_iter().map(f64::from).collect(),
        }
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// Rows `first..first + count` times `x`.
    fn times(&self, first: usize, count: usize, x: &[f64]) -> Vec<f64> {
        (first..first + count)
            .map(|row| self.row(row).iter().zip(x).map(|(w, x)| w * x).sum())
            .collect()
    }

    fn all_times(&self, x: &[f64]) -> Vec<f64> {
        self.times(0, self.values.len() / self.columns, x)
    }
}

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64
}

fn rms(x: &[f64], weight: &Weight) -> Vec<f64> {
    let scale = 1.0 / (mean_square(x) + EPSILON).sqrt();
    x.iter()
        .zip(&weight.values)
        .map(|(x, w)| x * scale * w)
        .collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Weights of the hyper-connections before normalisation (model-spec section 4).
fn controls(file: &GgufFile, prefix: &str, streams: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let of = |part: &str| Weight::of(file, &format!("{prefix}_{part}.weight"));
    let scale = 1.0 / (mean_square(streams) + EPSILON).sqrt();
    let normed: Vec<f64> = streams.iter().map(|x| x * scale).collect();
    let (scales, base) = (of("scale").values, of("base").values);
    let mixed = of("fn").all_times(&normed);
    let raw = |i: usize, scale: usize| mixed[i] * scales[scale] + base[i];
    let pre = (0..4).map(|j| sigmoid(raw(j, 0)) + EPSILON).collect();
    if mixed.len() == 4 {
        return (pre, Vec::new(), Vec::new());
    }
    let post = (4..8).map(|k| 2.0 * sigmoid(raw(k, 1))).collect();
    let mut comb: Vec<f64> = (8..24).map(|i| raw(i, 2)).collect();
    for row in comb.chunks_exact_mut(4) {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter_mut().for_each(|x| *x = x.exp() / sum + EPSILON);
    }
    for pass in 0..39 {
        for i in 0..4 {
            // Columns first, then rows and columns in turn.
            let at = |j: usize| if pass % 2 == 0 { 4 * j + i } else { 4 * i + j };
            let sum: f64 = (0..4).map(|j| comb[at(j)]).sum::<f64>() + EPSILON;
            (0..4).for_each(|j| comb[at(j)] /= sum);
        }
    }
    (pre, post, comb)
}

fn weighted(streams: &[f64], weights: &[f64], width: usize) -> Vec<f64> {
    (0..width)
        .map(|c| (0..4).map(|j| weights[j] * streams[j * width + c]).sum())
        .collect()
}

fn swiglu(gate: &[f64], up: &[f64], clamp: f64) -> Vec<f64> {
    gate.iter()
        .zip(up)
        .map(|(gate, up)| {
            let gate = gate.min(clamp);
            gate * sigmoid(gate) * up.clamp(-clamp, clamp)
        })
        .collect()
}

/// Mean squares of what met each weight, by name: sums and counts of each matrix.
#[derive(Default)]
struct Expected(BTreeMap<String, (Vec<f64>, Vec<u64>)>);

impl Expected {
    fn add(&mut self, name: &str, matrix: usize, matrices: usize, input: &[f64]) {
        let width = input.len();
        let (sums, counts) = self
            .0
            .entry(name.to_owned())
            .or_insert_with(|| (vec![0.0; width * matrices], vec![0; matrices]));
        for (sum, x) in sums[matrix * width..].iter_mut().zip(input) {
            *sum += x * x;
        }
        counts[matrix] += 1;
    }

    /// Largest difference from what was collected, relative to the matrix's mean of mean squares.
    fn compare(&self, collected: &CollectedImportance) -> f64 {
        let mut worst = 0.0_f64;
        for (name, (sums, counts)) in &self.0 {
            let found = collected
                .inputs
                .iter()
                .find(|inputs| inputs.names.contains(name))
                .unwrap_or_else(|| panic!("{name} was not collected"));
            assert_eq!(&found.counts, counts, "{name}");
            assert_eq!(found.sums.len(), sums.len(), "{name}");
            for (found, expected) in found
                .sums
                .chunks_exact(found.columns)
                .zip(sums.chunks_exact(found.columns))
            {
                let typical = expected.iter().sum::<f64>() / expected.len() as f64;
                for (found, expected) in found.iter().zip(expected) {
                    worst = worst.max((found - expected).abs() / typical.max(1e-12));
                }
            }
        }
        worst
    }
}

fn run(file: &GgufFile, tokens: &[TokenId], backend: BackendKind) -> CollectedImportance {
    let options = ImatrixOptions {
        backend,
        threads: Some(1),
        kv_format: KvFormat::F32,
        context: 64,
        begin: None,
        max_tokens: None,
    };
    let mut control = Control {
        cancel: &AtomicBool::new(false),
        progress: &mut |_, _| {},
    };
    collect(file, &[tokens.to_vec()], "golden", &options, &mut control).unwrap()
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// `[4 * D]`: the streams that enter `layer` at `token`.
fn entering(
    golden: &Golden,
    embedding: &Weight,
    ids: &[TokenId],
    layer: usize,
    token: usize,
) -> Vec<f64> {
    match layer.checked_sub(1) {
        None => embedding.row(ids[token] as usize).repeat(4),
        Some(before) => {
            let streams = golden.floats(&format!("seq{TOKENS}.layer{before}.hc_out"));
            doubles(streams.unwrap().row(token))
        }
    }
}

fn check(model: GoldenModel) {
    let (file, golden) = (model.open().unwrap(), model.golden("tf").unwrap());
    let shape = ModelShape::from_file(&file).unwrap();
    let ids = model.tokens(TOKENS).unwrap();
    let embedding = Weight::of(&file, "token_embd.weight");
    let chosen = golden
        .integers(&format!("seq{TOKENS}.route_expert"))
        .unwrap();
    let used = shape.experts_used;
    let mut expected = Expected::default();
    for layer in 0..shape.layers.len() {
        let prefix = format!("blk.{layer}.");
        let weight = |part: &str| Weight::of(&file, &format!("{prefix}{part}.weight"));
        let (attention_norm, mixture_norm) = (weight("attn_norm"), weight("ffn_norm"));
        let (query, query_norm) = (weight("attn_q_a"), weight("attn_q_a_norm"));
        let experts = ["gate", "up"].map(|part| weight(&format!("ffn_{part}_exps")));
        let shared = ["gate", "up"].map(|part| weight(&format!("ffn_{part}_shexp")));
        let output = golden
            .floats(&format!("seq{TOKENS}.layer{layer}.attn_out"))
            .unwrap();
        for token in 0..TOKENS {
            let streams = entering(&golden, &embedding, &ids, layer, token);
            let (pre, post, comb) = controls(&file, &format!("{prefix}hc_attn"), &streams);
            let a = rms(&weighted(&streams, &pre, shape.hidden), &attention_norm);
            for name in ["attn_q_a", "attn_kv"] {
                expected.add(&format!("{prefix}{name}.weight"), 0, 1, &a);
            }
            if shape.layers[layer].compression.ratio().is_some() {
                for name in ["attn_compressor_kv", "attn_compressor_gate"] {
                    expected.add(&format!("{prefix}{name}.weight"), 0, 1, &a);
                }
            }
            let latent = rms(&query.all_times(&a), &query_norm);
            expected.add(&format!("{prefix}attn_q_b.weight"), 0, 1, &latent);
            if shape.layers[layer].compression.overlap() == 2 {
                expected.add(&format!("{prefix}indexer.attn_q_b.weight"), 0, 1, &latent);
                for name in [
                    "indexer.proj",
                    "indexer_compressor_kv",
                    "indexer_compressor_gate",
                ] {
                    expected.add(&format!("{prefix}{name}.weight"), 0, 1, &a);
                }
            }
            // The streams between the halves of the layer.
            let y = doubles(output.row(token));
            let mut between = Vec::new();
            for k in 0..4 {
                let column: Vec<f64> = (0..4).map(|j| comb[4 * j + k]).collect();
                let mixed = weighted(&streams, &column, shape.hidden);
                between.extend(mixed.iter().zip(&y).map(|(mixed, y)| post[k] * y + mixed));
            }
            let (pre, _, _) = controls(&file, &format!("{prefix}hc_ffn"), &between);
            let b = rms(&weighted(&between, &pre, shape.hidden), &mixture_norm);
            for name in ["ffn_gate_inp", "ffn_gate_shexp", "ffn_up_shexp"] {
                expected.add(&format!("{prefix}{name}.weight"), 0, 1, &b);
            }
            let [gate, up] = shared.each_ref().map(|weight| weight.all_times(&b));
            let clamp = f64::from(shape.layers[layer].shared_clamp);
            let inner = swiglu(&gate, &up, clamp);
            expected.add(&format!("{prefix}ffn_down_shexp.weight"), 0, 1, &inner);
            let row = (layer * TOKENS + token) * used;
            for &expert in &chosen.values[row..row + used] {
                let expert = expert as usize;
                let mut add = |name: &str, input: &[f64]| {
                    expected.add(&format!("{prefix}{name}"), expert, shape.experts, input);
                };
                add("ffn_gate_exps.weight", &b);
                add("ffn_up_exps.weight", &b);
                let width = shape.expert_hidden;
                let [gate, up] = experts
                    .each_ref()
                    .map(|weight| weight.times(expert * width, width, &b));
                let clamp = f64::from(shape.layers[layer].expert_clamp);
                add("ffn_down_exps.weight", &swiglu(&gate, &up, clamp));
            }
        }
    }
    let norm = Weight::of(&file, "output_norm.weight");
    for token in 0..TOKENS {
        let streams = entering(&golden, &embedding, &ids, shape.layers.len(), token);
        let (pre, _, _) = controls(&file, "output_hc", &streams);
        let x = rms(&weighted(&streams, &pre, shape.hidden), &norm);
        expected.add("output.weight", 0, 1, &x);
    }
    let collected = run(&file, &ids, BackendKind::Reference);
    let worst = expected.compare(&collected);
    println!("{model:?}: {} weights, worst {worst:.2e}", expected.0.len());
    assert!(worst < 1e-3, "{model:?}: {worst}");

    // Every matrix of the file that blocks could store is there, but those that have no such input.
    for tensor in file.tensors() {
        let is_matrix = tensor.dims.len() > 1
            && !["token_embd", "hc_", "_ape", "tid2eid"]
                .iter()
                .any(|part| tensor.name.contains(part));
        let found = collected
            .inputs
            .iter()
            .any(|inputs| inputs.names.contains(&tensor.name));
        assert_eq!(found, is_matrix, "{}", tensor.name);
    }
    // The fast backend rounds activations to 8 bits; routing and size stay.
    let fast = run(&file, &ids, BackendKind::Cpu);
    for (fast, exact) in fast.inputs.iter().zip(&collected.inputs) {
        let totals = [fast, exact].map(|inputs| inputs.sums.iter().sum::<f64>());
        assert!(
            (totals[0] / totals[1] - 1.0).abs() < 0.1,
            "{:?}: {totals:?}",
            fast.names
        );
    }
}

#[test]
fn collected_means_are_those_of_golden_hidden_states() {
    check(GoldenModel::FlashTiny);
    check(GoldenModel::KqTiny);
}

/// Rotates the last dimensions by `position`, window-only layers' frequencies.
fn rotate(x: &mut [f64], rope_dim: usize, position: f64) {
    let nope = x.len() - rope_dim;
    for (i, pair) in x[nope..].chunks_exact_mut(2).enumerate() {
        let angle = position * 10_000_f64.powf(-2.0 * i as f64 / rope_dim as f64);
        let (sin, cos) = angle.sin_cos();
        (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
    }
}

/// The inputs of the output projection lie behind attention itself: two tokens of the layers without
/// compression, in full.
#[test]
fn inputs_of_the_output_projection_are_attention_by_hand() {
    let model = GoldenModel::FlashTiny;
    let (file, golden) = (model.open().unwrap(), model.golden("tf").unwrap());
    let shape = ModelShape::from_file(&file).unwrap();
    let ids = model.tokens(TOKENS).unwrap();
    let embedding = Weight::of(&file, "token_embd.weight");
    let (heads, width, groups) = (shape.heads, shape.head_dim, shape.output_groups);
    let mut expected = Expected::default();
    for layer in [0, 1] {
        assert_eq!(shape.layers[layer].compression.ratio(), None);
        let prefix = format!("blk.{layer}.");
        let weight = |part: &str| Weight::of(&file, &format!("{prefix}{part}.weight"));
        let (sinks, down) = (weight("attn_sinks").values, weight("attn_output_a"));
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for token in 0..2 {
            let streams = entering(&golden, &embedding, &ids, layer, token);
            let (pre, _, _) = controls(&file, &format!("{prefix}hc_attn"), &streams);
            let a = rms(
                &weighted(&streams, &pre, shape.hidden),
                &weight("attn_norm"),
            );
            let mut row = rms(&weight("attn_kv").all_times(&a), &weight("attn_kv_a_norm"));
            rotate(&mut row, shape.rope_dim, token as f64);
            rows.push(row);
            let latent = rms(&weight("attn_q_a").all_times(&a), &weight("attn_q_a_norm"));
            let queries = weight("attn_q_b").all_times(&latent);
            let mut attended = Vec::new();
            for (head, query) in queries.chunks_exact(width).enumerate() {
                let scale = 1.0 / (mean_square(query) + EPSILON).sqrt();
                let mut query: Vec<f64> = query.iter().map(|x| x * scale).collect();
                rotate(&mut query, shape.rope_dim, token as f64);
                let scores: Vec<f64> = rows
                    .iter()
                    .map(|row| row.iter().zip(&query).map(|(r, q)| r * q).sum::<f64>())
                    .map(|score| (score / (width as f64).sqrt()).exp())
                    .collect();
                let sum = scores.iter().sum::<f64>() + sinks[head].exp();
                let mut output = vec![0.0; width];
                for (score, row) in scores.iter().zip(&rows) {
                    for (output, row) in output.iter_mut().zip(row) {
                        *output += score / sum * row;
                    }
                }
                rotate(&mut output, shape.rope_dim, -(token as f64));
                attended.extend(output);
            }
            let mut latent = Vec::new();
            for (group, input) in attended.chunks_exact(heads / groups * width).enumerate() {
                expected.add(&format!("{prefix}attn_output_a.weight"), 0, 1, input);
                let lora = shape.output_lora;
                latent.extend(down.times(group * lora, lora, input));
            }
            expected.add(&format!("{prefix}attn_output_b.weight"), 0, 1, &latent);
        }
    }
    let worst = expected.compare(&run(&file, &ids[..2], BackendKind::Reference));
    println!("worst {worst:.2e}");
    assert!(worst < 1e-3, "{worst}");
}
