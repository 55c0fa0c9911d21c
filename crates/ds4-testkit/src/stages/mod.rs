//! Single stages against `unit.safetensors`: inputs and outputs of DeepSeek's released functions.
//!
//! Every function takes a fresh backend and calls one or two stages with weights that make the golden
//! input the stage's input: identities for projections, ones for norms.

use anyhow::{Context, Result, ensure};
use ds4_model::backend::{Backend, PageTables};
use ds4_model::kv_cache::KvFormat;
use ds4_model::rope::RopeFrequencies;
use ds4_model::shape::{Compression, LayerShape, ModelShape, Yarn};
use ds4_model::step::RopeTable;
use ds4_model::weights::{Compressor, FeedForward, HyperConnection, Indexer, Mixture, Selection};
use ds4_quant::TensorType;

use crate::conformance::{Difference, difference};
use crate::golden::Golden;

mod bench;

use bench::{Bench, bytes_of};

/// YaRN of the released models.
pub const YARN: Yarn = Yarn {
    factor: 16.0,
    original_context: 65536.0,
    beta_fast: 32.0,
    beta_slow: 1.0,
};

/// A shape of width `hidden` with one window-only layer; other dimensions as small as the formulas
/// allow, to be changed by the caller.
pub fn shape(hidden: usize) -> ModelShape {
    ModelShape {
        name: String::new(),
        hidden,
        vocabulary: 1,
        heads: 1,
        head_dim: 128,
        rope_dim: 64,
        q_lora: 1,
        output_groups: 1,
        output_lora: 1,
        window: 1,
        index_heads: 1,
        index_dim: 128,
        index_top_k: 1,
        experts: 1,
        experts_used: 1,
        expert_hidden: 1,
        shared_hidden: 1,
        expert_scale: 1.5,
        streams: 4,
        sinkhorn_iterations: 20,
        hyper_epsilon: 1e-6,
        norm_epsilon: 1e-6,
        rope_base: 10_000.0,
        compress_rope_base: 160_000.0,
        yarn: YARN,
        context: 1 << 20,
        layers: vec![LayerShape {
            compression: Compression::None,
            hash_routed: false,
            expert_clamp: 10.0,
            shared_clamp: 10.0,
        }],
    }
}

fn unit() -> Result<Golden> {
    Golden::open("unit.safetensors")
}

/// Rope tables against angles in F64: largest error of a cosine or sine.
///
/// # Errors
/// A table of another shape.
pub fn rope_tables() -> Result<f64> {
    let unit = unit()?;
    let positions = unit.integers("rope.positions")?;
    let tables = [
        ("main", RopeFrequencies::plain(10_000.0, 64)),
        ("compress", RopeFrequencies::yarn(160_000.0, 64, &YARN)),
    ];
    let mut worst: f64 = 0.0;
    for (name, frequencies) in tables {
        let cos = unit.doubles(&format!("rope.{name}.cos_f64"))?;
        let sin = unit.doubles(&format!("rope.{name}.sin_f64"))?;
        ensure!(cos.width() == frequencies.pairs(), "{} pairs", cos.width());
        let mut table = vec![0.0; 2 * frequencies.pairs()];
        for (index, &position) in positions.values.iter().enumerate() {
            frequencies.write_table(u32::try_from(position)?, &mut table);
            for (pair, found) in table.chunks_exact(2).enumerate() {
                worst = worst
                    .max((f64::from(found[0]) - cos.row(index)[pair]).abs())
                    .max((f64::from(found[1]) - sin.row(index)[pair]).abs());
            }
        }
    }
    Ok(worst)
}

/// Hyper-connections: controls, collapsed input and new streams.
///
/// # Errors
/// A stage that fails.
pub fn hyper_connections<B: Backend>(backend: B) -> Result<Difference> {
    let unit = unit()?;
    let streams = unit.floats("hc.streams")?;
    let (rows, hidden) = (streams.shape[0], streams.shape[2]);
    let mut bench = Bench::new(backend, shape(hidden), KvFormat::F32, &vec![0; rows])?;
    let hyper = HyperConnection {
        function: bench.weight(4 * hidden, &unit.floats("hc.fn")?.values)?,
        base: bench.weight(24, &unit.floats("hc.base")?.values)?,
        scale: bench.weight(3, &unit.floats("hc.scale")?.values)?,
    };
    let norm = bench.ones(hidden)?;
    let mut state = bench.buffer(&streams.values)?;
    let output = bench.buffer(&unit.floats("hc.block_out")?.values)?;
    let (mut mix, mut normed) = (bench.zeros(rows * 20)?, bench.zeros(rows * hidden)?);
    bench.run(|backend, context, step| {
        backend.hyper_pre(context, step, &hyper, &norm, &state, &mut mix, &mut normed)?;
        backend.hyper_post(context, step, &mix, &output, &mut state)
    })?;
    let mix = bench.read(&mix, rows * 20)?;
    let part = |from: usize, to: usize| -> Vec<f32> {
        mix.chunks_exact(20)
            .flat_map(|row| &row[from..to])
            .copied()
            .collect()
    };
    // The golden input is not normed yet.
    let collapsed = unit.floats("hc.collapsed")?;
    let expected: Vec<f32> = collapsed
        .values
        .chunks_exact(hidden)
        .flat_map(|row| {
            let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let scale = 1.0 / (square / hidden as f64 + 1e-6).sqrt();
            row.iter().map(move |&x| (f64::from(x) * scale) as f32)
        })
        .collect();
    let normed = bench.read(&normed, rows * hidden)?;
    let state = bench.read(&state, rows * 4 * hidden)?;
    Ok(difference(&part(0, 4), &unit.floats("hc.post")?.values)?
        .worst(difference(&part(4, 20), &unit.floats("hc.comb")?.values)?)
        .worst(difference(&normed, &expected)?)
        .worst(difference(&state, &unit.floats("hc.new_streams")?.values)?))
}

/// Steering, against its formula in F64, for rows of a width that no vector register divides.
///
/// # Errors
/// A stage that fails.
pub fn steering<B: Backend>(backend: B) -> Result<Difference> {
    const ROWS: usize = 3;
    const HIDDEN: usize = 77;
    let mut bench = Bench::new(backend, shape(HIDDEN), KvFormat::F32, &[0; ROWS])?;
    let wave = |step: f64, count: usize| -> Vec<f32> {
        (0..count)
            .map(|index| (step * (index * index + 1) as f64).sin() as f32)
            .collect()
    };
    let (rows, direction) = (wave(0.7, ROWS * HIDDEN), wave(1.3, HIDDEN));
    let scale = -1.75_f32;
    let mut output = bench.buffer(&rows)?;
    let on_device = bench.buffer(&direction)?;
    bench.run(|backend, context, step| {
        backend.steer(context, step, &on_device, scale, &mut output)
    })?;
    let expected: Vec<f32> = rows
        .chunks_exact(HIDDEN)
        .flat_map(|row| {
            let pairs = row.iter().zip(&direction);
            let along: f64 = pairs.map(|(&y, &v)| f64::from(y) * f64::from(v)).sum();
            let moved = row.iter().zip(&direction).map(move |(&y, &v)| {
                (f64::from(y) - f64::from(scale) * f64::from(v) * along) as f32
            });
            moved.collect::<Vec<_>>()
        })
        .collect();
    difference(&bench.read(&output, ROWS * HIDDEN)?, &expected)
}

/// Router: chosen experts must be equal; the difference is that of their weights.
///
/// # Errors
/// A stage that fails, or another choice.
pub fn router<B: Backend>(backend: B) -> Result<Difference> {
    let unit = unit()?;
    let logits = unit.floats("router.logits")?;
    let (rows, experts) = (logits.shape[0], logits.shape[1]);
    let mut dimensions = shape(experts);
    (dimensions.experts, dimensions.experts_used) = (experts, 6);
    let mut bench = Bench::new(backend, dimensions, KvFormat::F32, &vec![0; rows])?;
    let feed_forward = |bench: &mut Bench<B>| -> Result<FeedForward<B::Tensor>> {
        Ok(FeedForward {
            gate: bench.identity(1, experts, 0)?,
            up: bench.identity(1, experts, 0)?,
            down: bench.identity(experts, 1, 0)?,
        })
    };
    let mixture = Mixture {
        norm: bench.ones(experts)?,
        router: bench.identity(experts, experts, 0)?,
        selection: Selection::Score(Some(
            bench.weight(experts, &unit.floats("router.bias")?.values)?,
        )),
        experts: feed_forward(&mut bench)?,
        shared: feed_forward(&mut bench)?,
    };
    let hidden = bench.buffer(&logits.values)?;
    let (mut chosen, mut weights) = (bench.zeros(rows * 6)?, bench.zeros(rows * 6)?);
    bench.run(|backend, context, step| {
        backend.route(context, step, &mixture, &hidden, &mut chosen, &mut weights)
    })?;
    let chosen = bench.read(&chosen, rows * 6)?;
    let weights = bench.read(&weights, rows * 6)?;
    let mut found: Vec<(usize, i64, f32)> = chosen
        .iter()
        .zip(&weights)
        .enumerate()
        .map(|(index, (id, &weight))| (index / 6, id.to_bits().into(), weight))
        .collect();
    found.sort_unstable_by_key(|&(row, id, _)| (row, id));
    let ids: Vec<i64> = found.iter().map(|&(_, id, _)| id).collect();
    ensure!(
        ids == unit.integers("router.top6_sorted_by_id")?.values,
        "other experts"
    );
    let weights: Vec<f32> = found.iter().map(|&(_, _, weight)| weight).collect();
    difference(&weights, &unit.floats("router.weights_scale1.5")?.values)
}

/// Clamped SwiGLU, in the shared expert and in a routed one of weight 1.
///
/// # Errors
/// A stage that fails.
pub fn clamped_swiglu<B: Backend>(backend: B) -> Result<Difference> {
    let unit = unit()?;
    let (gate, up) = (unit.floats("swiglu.gate")?, unit.floats("swiglu.up")?);
    let width = gate.values.len();
    let mut dimensions = shape(2 * width);
    (dimensions.expert_hidden, dimensions.shared_hidden) = (width, width);
    let mut bench = Bench::new(backend, dimensions, KvFormat::F32, &[0])?;
    let feed_forward = FeedForward {
        gate: bench.identity(width, 2 * width, 0)?,
        up: bench.identity(width, 2 * width, width as isize)?,
        down: bench.identity(2 * width, width, 0)?,
    };
    let hidden = bench.buffer(&[gate.values, up.values].concat())?;
    let (experts, weights) = (bench.zeros(1)?, bench.buffer(&[1.0])?);
    let (mut inner, mut output) = (bench.zeros(width)?, bench.zeros(2 * width)?);
    bench.run(|backend, context, step| {
        backend.routed_experts(
            context,
            step,
            &feed_forward,
            10.0,
            &hidden,
            &experts,
            &weights,
            &mut inner,
            &mut output,
        )?;
        // The shared expert adds to the routed ones: twice the same.
        backend.shared_expert(
            context,
            step,
            &feed_forward,
            10.0,
            &hidden,
            &mut inner,
            &mut output,
        )
    })?;
    let found: Vec<f32> = bench.read(&output, 2 * width)?[..width]
        .iter()
        .map(|x| x / 2.0)
        .collect();
    difference(&found, &unit.floats("swiglu.limit10")?.values)
}

fn indexer<B: Backend>(bench: &mut Bench<B>) -> Result<Indexer<B::Tensor>> {
    let (hidden, latent) = (bench.shape.hidden, bench.shape.q_lora);
    let (heads, dim) = (bench.shape.index_heads, bench.shape.index_dim);
    Ok(Indexer {
        query: bench.identity(heads * dim, latent, 0)?,
        head_weights: bench.identity(heads, hidden, 0)?,
        compressor: Compressor {
            content: bench.identity(2 * dim, hidden, 0)?,
            gate: bench.identity(2 * dim, hidden, 0)?,
            position: bench.weight(2 * dim, &vec![0.0; 4 * 2 * dim])?,
            norm: bench.ones(dim)?,
        },
    })
}

/// Queries of the indexer from `latent` `[rows, heads * 128]` by the identity.
fn index_queries<B: Backend>(
    backend: B,
    kv_format: KvFormat,
    positions: &[usize],
    latent: &[f32],
) -> Result<Vec<f32>> {
    let width = latent.len() / positions.len();
    let mut dimensions = shape(1);
    (dimensions.q_lora, dimensions.index_heads) = (width, width / 128);
    let mut bench = Bench::new(backend, dimensions, kv_format, positions)?;
    let indexer = indexer(&mut bench)?;
    let mut inputs = bench.inputs(positions.len())?;
    inputs.query_latent = bench.buffer(latent)?;
    let mut queries = bench.zeros(latent.len())?;
    bench.run(|backend, context, step| {
        backend.index_query_up(context, step, &indexer, &inputs, &mut queries)
    })?;
    bench.read(&queries, latent.len())
}

/// Rotation of the last 64 of 128 dimensions by a token's position.
///
/// # Errors
/// A stage that fails.
pub fn rotation<B: Backend>(backend: B) -> Result<Difference> {
    let unit = unit()?;
    let positions = positions(&unit)?;
    let plain = unit.floats("rope.apply.x")?;
    let rotated = index_queries(backend, KvFormat::F32, &positions, &plain.values)?;
    difference(&rotated, &unit.floats("rope.apply.fwd")?.values)
}

fn positions(unit: &Golden) -> Result<Vec<usize>> {
    let positions = unit.integers("rope.apply.positions")?.values;
    positions
        .iter()
        .map(|&position| usize::try_from(position).context("position"))
        .collect()
}

/// The inverse rotation: attention to a single row gives that row, rotated back.
///
/// # Errors
/// A stage that fails.
pub fn inverse_rotation<B: Backend>(make: impl Fn() -> B) -> Result<Difference> {
    let unit = unit()?;
    let positions = positions(&unit)?;
    let (plain, inverse) = (unit.floats("rope.apply.x")?, unit.floats("rope.apply.inv")?);
    let mut worst = Difference::default();
    for part in 0..plain.shape[1] {
        let pick = |values: &[f32]| -> Vec<f32> {
            let rows = values.chunks_exact(3 * 128);
            rows.flat_map(|row| &row[part * 128..(part + 1) * 128])
                .copied()
                .collect()
        };
        let rows = pick(&plain.values);
        let found =
            attend_single_rows(make(), KvFormat::F32, &positions, 128, 64, &bytes_of(&rows))?;
        worst = worst.worst(difference(&found, &pick(&inverse.values))?);
    }
    Ok(worst)
}

/// Attention of each position to the one stored row of its slot.
fn attend_single_rows<B: Backend>(
    backend: B,
    kv_format: KvFormat,
    positions: &[usize],
    head_dim: usize,
    rope_dim: usize,
    rows: &[u8],
) -> Result<Vec<f32>> {
    let count = positions.len();
    let mut dimensions = shape(1);
    (dimensions.head_dim, dimensions.rope_dim) = (head_dim, rope_dim);
    let mut bench = Bench::new(backend, dimensions, kv_format, positions)?;
    let attention = bench.attention()?;
    let mut kv = bench.window(count)?;
    bench.backend.write(&mut kv.window, 0, rows)?;
    let query = bench.buffer(&vec![0.25; count * head_dim])?;
    let selected = bench.zeros(count)?;
    let pages = PageTables {
        words: bench.zeros(count)?,
        pages: 1,
    };
    let mut attended = bench.zeros(count * head_dim)?;
    bench.run(|backend, context, step| {
        let rope = RopeTable::Compressed;
        backend.attend(
            context,
            step,
            &attention,
            rope,
            &query,
            &selected,
            &pages,
            &kv,
            &mut attended,
        )
    })?;
    bench.read(&attended, count * head_dim)
}

/// Hadamard rotation and E2M1 rounding of indexer queries: the bits must be equal.
///
/// # Errors
/// A stage that fails, or another value.
pub fn index_rounding<B: Backend>(backend: B) -> Result<()> {
    let unit = unit()?;
    let plain = unit.floats("fp4.x")?;
    let positions = vec![0; plain.shape[0]];
    let found = index_queries(backend, KvFormat::Fp8, &positions, &plain.values)?;
    equal("FP4", &found, &unit.floats("fp4.y")?.values)
}

/// Equal as numbers, element by element; 0 and -0 are the same.
fn equal(what: &str, found: &[f32], expected: &[f32]) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} values",
        found.len()
    );
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    match differs {
        None => Ok(()),
        Some(index) => anyhow::bail!(
            "{what}: element {index} is {}, expected {}",
            found[index],
            expected[index]
        ),
    }
}

/// FP8 rows that attention reads from the cache have the golden values.
///
/// # Errors
/// A stage that fails, or another value.
pub fn row_reading<B: Backend>(backend: B) -> Result<()> {
    let unit = unit()?;
    let plain = unit.floats("fp8.x")?;
    let (count, nope) = (plain.shape[0], plain.shape[1]);
    let mut bytes = Vec::new();
    for row in 0..count {
        let mut encoded = vec![0; ds4_quant::kv_rows::fp8_row_bytes(nope + 64, 64)];
        let full = [plain.row(row), &[0.5; 64]].concat();
        ds4_quant::kv_rows::fp8_row_encode(&full, nope, &mut encoded)?;
        bytes.extend(encoded);
    }
    let found = attend_single_rows(
        backend,
        KvFormat::Fp8,
        &vec![0; count],
        nope + 64,
        64,
        &bytes,
    )?;
    let found: Vec<f32> = found
        .chunks_exact(nope + 64)
        .flat_map(|row| &row[..nope])
        .copied()
        .collect();
    equal("FP8", &found, &unit.floats("fp8.y")?.values)
}

/// Window rows that a backend stores as F16 or FP8 are its own F32 rows, rounded as the formats say.
///
/// # Errors
/// A stage that fails, or another byte.
pub fn row_storing<B: Backend>(make: impl Fn() -> B, kv_format: KvFormat) -> Result<()> {
    let unit = unit()?;
    let source = unit.floats("fp8.x")?;
    let (count, nope) = (source.shape[0], source.shape[1]);
    let dim = nope + 64;
    let values: Vec<f32> = (0..count)
        .flat_map(|row| [source.row(row), &source.row(count - 1 - row)[..64]].concat())
        .collect();
    let store = |kv_format: KvFormat| -> Result<Vec<u8>> {
        let mut dimensions = shape(1);
        dimensions.head_dim = dim;
        let positions: Vec<usize> = (0..count).map(|row| 37 * row).collect();
        let mut bench = Bench::new(make(), dimensions, kv_format, &positions)?;
        let attention = bench.attention()?;
        let mut inputs = bench.inputs(count)?;
        inputs.key_value = bench.buffer(&values)?;
        let mut kv = bench.window(count)?;
        let mut stored = vec![0; count * kv.layout.row_bytes];
        bench.run(|backend, context, step| {
            let rope = RopeTable::Compressed;
            backend.append_window(context, step, &attention, rope, &mut inputs, &mut kv)
        })?;
        bench.backend.read(&kv.window, 0, &mut stored)?;
        Ok(stored)
    };
    let full: Vec<f32> = {
        let bytes = store(KvFormat::F32)?;
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|&word| f32::from_le_bytes(word))
            .collect()
    };
    let mut expected = Vec::new();
    for row in full.chunks_exact(dim) {
        let mut encoded = vec![
            0;
            kv_format.row_bytes(&ModelShape {
                head_dim: dim,
                ..shape(1)
            })
        ];
        match kv_format {
            KvFormat::F32 => encoded = bytes_of(row),
            KvFormat::F16 => ds4_quant::encode(TensorType::F16, row, &mut encoded)?,
            KvFormat::Fp8 | KvFormat::Q4 => {
                ds4_quant::kv_rows::fp8_row_encode(row, nope, &mut encoded)?
            }
        }
        expected.extend(encoded);
    }
    ensure!(
        store(kv_format)? == expected,
        "{} rows are stored otherwise",
        kv_format.name()
    );
    Ok(())
}
