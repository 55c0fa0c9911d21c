//! `ds4 bench`: prefill and decode speed, and how close decode is to the memory's limit.

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use clap::Args;
use ds4_engine::{Engine, EngineOptions, Sampler, SamplerSettings, SyncControl};
use ds4_model::{ModelShape, TokenId};
use serde_json::{Value, json};

use crate::arguments::{EngineArguments, ModelArgument};
use crate::failure::Interrupted;
use crate::interrupt::{ArmedInterrupt, Interrupt};
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::progress::PrefillBar;
use crate::settings;
use crate::table::{Table, bytes, grouped};
use crate::token_bytes;

/// Arguments of `ds4 bench`.
///
/// Every run computes the same pseudo-random prompt in an empty session, then decodes greedily. The
/// median of the runs counts. Memory bandwidth is measured in the same process, on as many threads.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    gen_tokens: usize,
    /// Tokens computed in one prefill step
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().prefill_chunk)]
    chunk: usize,
    /// Number of runs
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write CSV, a line per run
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Speeds of one run in tokens per second.
#[derive(Debug, Clone, Copy)]
struct Run {
    prefill: f64,
    decode: f64,
}

/// What is the same for all runs.
struct Report {
    model: String,
    backend: &'static str,
    threads: usize,
    kv_type: &'static str,
    prompt_tokens: usize,
    gen_tokens: usize,
    chunk: usize,
    /// Bytes that decoding a token reads, in the middle of the generated tokens.
    bytes_per_token: u64,
    /// Bytes per second.
    bandwidth: f64,
    runs: Vec<Run>,
}

/// Measures and prints.
pub(crate) fn run(
    arguments: &BenchArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    for (name, value) in [
        ("--prompt-tokens", arguments.prompt_tokens),
        ("--gen-tokens", arguments.gen_tokens),
        ("--repeat", arguments.repeat),
    ] {
        if value == 0 {
            return Err(crate::failure::UsageError(format!("{name} must be at least 1")).into());
        }
    }
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let eos = Vocabulary::of_file(&model.file)?.tokenizer.eos();
    let threads = arguments
        .engine
        .threads
        .unwrap_or_else(ds4_cpu::team::default_thread_count);
    let bandwidth = bandwidth(threads)?;
    let context = arguments
        .prompt_tokens
        .checked_add(arguments.gen_tokens)
        .ok_or_else(|| anyhow!("the tokens overflow"))?;
    let options = EngineOptions {
        context,
        prefill_chunk: arguments.chunk,
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        ..settings::engine_options(&arguments.engine)
    };
    let mut engine = Engine::open(&model.file, None, &options, &mut |_| {})?;
    let prompt = prompt(arguments.prompt_tokens, shape.vocabulary);
    let armed = interrupt.arm();
    let mut runs = Vec::new();
    for number in 1..=arguments.repeat {
        runs.push(measure(
            &mut engine,
            &prompt,
            arguments.gen_tokens,
            eos,
            &armed,
            output,
        )?);
        output.note(&format!("run {number} of {} done", arguments.repeat));
    }
    let middle = arguments.prompt_tokens + arguments.gen_tokens / 2;
    let report = Report {
        model: model.label.clone(),
        backend: engine.backend_name(),
        threads,
        kv_type: options.kv_format.name(),
        prompt_tokens: arguments.prompt_tokens,
        gen_tokens: arguments.gen_tokens,
        chunk: arguments.chunk,
        bytes_per_token: token_bytes::weights(&model.file, &shape)
            + token_bytes::kv_cache(&shape, options.kv_format, middle),
        bandwidth,
        runs,
    };
    if arguments.json {
        output.line(&report.to_json().to_string())?;
    } else if arguments.csv {
        report.write_csv(output)?;
    } else {
        report.write_table(output)?;
    }
    Ok(())
}

/// What the memory gives `threads` threads together, in bytes per second.
fn bandwidth(threads: usize) -> anyhow::Result<f64> {
    let mut team = ds4_cpu::team::Team::new(threads)?;
    Ok(ds4_cpu::bandwidth::measure_memory_bandwidth(&mut team))
}

/// Token ids that look like nothing in particular: a linear congruential sequence (Knuth's MMIX).
fn prompt(tokens: usize, vocabulary: usize) -> Vec<TokenId> {
    let mut state: u64 = 1;
    (0..tokens)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary as u64) as TokenId
        })
        .collect()
}

fn measure(
    engine: &mut Engine,
    prompt: &[TokenId],
    gen_tokens: usize,
    eos: Option<TokenId>,
    interrupt: &ArmedInterrupt<'_>,
    output: &Output,
) -> anyhow::Result<Run> {
    // What an earlier run computed is not to be found.
    engine.forget_kept();
    let mut session = engine.session()?;
    let mut bar = PrefillBar::new(prompt.len(), output);
    let mut progress = |done, _| bar.update(done);
    let mut control = SyncControl {
        cancel: interrupt.cancel(),
        progress: &mut progress,
    };
    let start = Instant::now();
    let report = engine.sync(&mut session, prompt, &mut control)?;
    let prefill = prompt.len() as f64 / start.elapsed().as_secs_f64();
    bar.finish();
    if report.cancelled {
        return Err(Interrupted.into());
    }
    let mut logits = Vec::new();
    let mut sampler = Sampler::new(SamplerSettings {
        temperature: 0.0,
        ..Default::default()
    })?;
    let start = Instant::now();
    for _ in 0..gen_tokens {
        if interrupt.is_cancelled() {
            return Err(Interrupted.into());
        }
        logits.clear();
        logits.extend_from_slice(session.logits());
        // The end of the sentence would be no place to go on from.
        if let Some(logit) = eos.and_then(|eos| logits.get_mut(eos as usize)) {
            *logit = f32::NEG_INFINITY;
        }
        engine.append(&mut session, sampler.sample(&logits))?;
    }
    let decode = gen_tokens as f64 / start.elapsed().as_secs_f64();
    engine.close(session);
    Ok(Run { prefill, decode })
}

impl Report {
    fn median(&self, speed: impl Fn(&Run) -> f64) -> f64 {
        let mut speeds: Vec<f64> = self.runs.iter().map(speed).collect();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len() / 2).copied().unwrap_or(0.0)
    }

    fn best(&self, speed: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(speed).fold(0.0, f64::max)
    }

    /// Bytes read per second, as a share of what the memory can give.
    fn share(&self, decode: f64) -> f64 {
        decode * self.bytes_per_token as f64 / self.bandwidth
    }

    fn to_json(&self) -> Value {
        let decode = self.median(|run| run.decode);
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| json!({ "prefill_tps": run.prefill, "decode_tps": run.decode }))
            .collect();
        json!({
            "model": self.model,
            "backend": self.backend,
            "threads": self.threads,
            "kv_cache_type": self.kv_type,
            "prompt_tokens": self.prompt_tokens,
            "gen_tokens": self.gen_tokens,
            "chunk": self.chunk,
            "prefill_tps": self.median(|run| run.prefill),
            "decode_tps": decode,
            "bytes_per_token": self.bytes_per_token,
            "memory_bandwidth": self.bandwidth,
            "bandwidth_share": self.share(decode),
            "runs": runs,
        })
    }

    fn write_csv(&self, output: &mut Output) -> anyhow::Result<()> {
        output.line(
            "run,threads,prompt_tokens,prefill_tps,gen_tokens,decode_tps,bytes_per_token,\
             memory_bandwidth,bandwidth_share",
        )?;
        for (index, run) in self.runs.iter().enumerate() {
            output.line(&format!(
                "{},{},{},{:.3},{},{:.3},{},{:.0},{:.4}",
                index + 1,
                self.threads,
                self.prompt_tokens,
                run.prefill,
                self.gen_tokens,
                run.decode,
                self.bytes_per_token,
                self.bandwidth,
                self.share(run.decode),
            ))?;
        }
        Ok(())
    }

    fn write_table(&self, output: &mut Output) -> anyhow::Result<()> {
        output.headline(&format!(
            "{}, backend {}, {} threads, KV type {}, chunks of {}",
            self.model, self.backend, self.threads, self.kv_type, self.chunk
        ))?;
        let mut table = Table::new(["", "tokens", "median t/s", "best t/s"]);
        let mut row = |name: &str, tokens: usize, median: f64, best: f64| {
            table.row([
                name.to_owned(),
                grouped(tokens as u64),
                format!("{median:.2}"),
                format!("{best:.2}"),
            ]);
        };
        let decode = self.median(|run| run.decode);
        let prefill = self.median(|run| run.prefill);
        row(
            "prefill",
            self.prompt_tokens,
            prefill,
            self.best(|run| run.prefill),
        );
        row(
            "decode",
            self.gen_tokens,
            decode,
            self.best(|run| run.decode),
        );
        for line in table.lines() {
            output.line(&line)?;
        }
        let mut facts = Table::new(["read per decoded token", &bytes(self.bytes_per_token)]);
        facts.row([
            "memory bandwidth",
            &format!("{:.1} GB/s, measured", self.bandwidth / 1e9),
        ]);
        facts.row([
            "share of it in decode",
            &format!("{:.0}% (median)", 100.0 * self.share(decode)),
        ]);
        for line in facts.facts() {
            output.line(&line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts_and_the_share_follows_from_it() {
        let run = |decode| Run {
            prefill: 10.0 * decode,
            decode,
        };
        let report = Report {
            model: "m".to_owned(),
            backend: "cpu",
            threads: 2,
            kv_type: "fp8",
            prompt_tokens: 8,
            gen_tokens: 4,
            chunk: 8,
            bytes_per_token: 1000,
            bandwidth: 4000.0,
            runs: vec![run(1.0), run(3.0), run(2.0)],
        };
        let json = report.to_json();
        assert_eq!(json["decode_tps"], 2.0);
        assert_eq!(json["prefill_tps"], 20.0);
        assert_eq!(json["bandwidth_share"], 0.5);
        assert_eq!(report.best(|run| run.decode), 3.0);
    }

    #[test]
    fn prompts_stay_inside_the_vocabulary_and_vary() {
        let prompt = prompt(1000, 512);
        assert!(prompt.iter().all(|&id| id < 512));
        let distinct: std::collections::BTreeSet<_> = prompt.iter().collect();
        assert!(distinct.len() > 256);
    }
}
