//! `ds4 bench`: prefill and decode speed over the context, and how close decode is to the memory's limit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use ds4_engine::{Engine, EngineOptions};
use ds4_model::ModelShape;
use ds4_workshop::bench::{Change, Row, RowChange, Run, SweepOptions, Verdict, compare, sweep};
use ds4_workshop::plot::{Chart, Panel, Point, Series};
use ds4_workshop::{Control, WorkshopError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::{EngineArguments, ModelArgument};
use crate::commands::bench_drafts::{self, BenchDraftsArguments};
use crate::commands::bench_serve::{self, BenchServeArguments};
use crate::commands::bench_soak::{self, BenchSoakArguments};
use crate::failure::{Hint, Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::{Output, visible};
use crate::output_file;
use crate::progress::TokenBar;
use crate::settings;
use crate::table::{Table, bytes, grouped};
use crate::token_bytes;

/// Arguments of `ds4 bench`.
///
/// Every repetition fills an empty session with the same pseudo-random tokens, up to each context in turn,
/// and generates greedily there. The first step of each kind is a warm-up and not timed. Medians of the
/// repetitions count. Memory bandwidth is measured in the same process, on as many threads.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    model: ModelArgument,
    /// Tokens of the prompt: a single context
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt_tokens: usize,
    /// Several contexts, ascending: prefill up to each, decode behind it
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        conflicts_with = "prompt_tokens"
    )]
    contexts: Vec<usize>,
    /// Tokens to generate at each context
    #[arg(long, value_name = "N", default_value_t = 64)]
    gen_tokens: usize,
    /// Tokens computed in one prefill step
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().prefill_chunk)]
    chunk: usize,
    /// Number of repetitions
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write CSV, a line per context and repetition
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Draw speeds over the context
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Compare with an earlier run, as --json wrote it; two files are compared without measuring
    #[arg(long, value_name = "FILE.json", num_args = 1..=2, conflicts_with = "csv")]
    compare: Vec<PathBuf>,
    #[command(flatten)]
    engine: EngineArguments,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Compare decoding with and without drafted tokens
    Drafts(BenchDraftsArguments),
    /// Measure throughput and latency for several sessions at a time
    Serve(BenchServeArguments),
    /// Load the engine at random for a long time, and check that nothing is lost, mixed up or leaked
    Soak(BenchSoakArguments),
}

/// A measurement and what it was made with.
struct Report {
    model: String,
    backend: String,
    threads: usize,
    kv_type: String,
    chunk: usize,
    /// Bytes per second.
    bandwidth: f64,
    rows: Vec<MeasuredRow>,
}

/// A row and what follows from the model's shape.
struct MeasuredRow {
    row: Row,
    /// Bytes that decoding a token reads, in the middle of the generated tokens.
    bytes_per_token: u64,
    /// Bytes that the KV cache of the context takes.
    kv_cache_bytes: u64,
}

/// An earlier measurement, as far as it is compared.
#[derive(Deserialize)]
struct SavedReport {
    #[serde(default)]
    model: String,
    rows: Vec<Row>,
}

/// Measures, compares and prints.
pub(crate) fn run(
    arguments: &BenchArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    match &arguments.command {
        None => {}
        Some(BenchCommand::Drafts(drafts)) => return bench_drafts::run(drafts, output, interrupt),
        Some(BenchCommand::Serve(serve)) => return bench_serve::run(serve, output, interrupt),
        Some(BenchCommand::Soak(soak)) => return bench_soak::run(soak, output, interrupt),
    }
    if let [old, new] = &arguments.compare[..] {
        return compare_files(old, new, arguments, output);
    }
    // Before hours of measuring, not after.
    let old = arguments.compare.first().map(|path| read(path));
    let old = old.transpose()?;
    let contexts = contexts(arguments)?;
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let report = measure(&model, contexts, arguments, output, interrupt)?;
    model.check_unchanged()?;
    if let Some(path) = &arguments.svg {
        let chart = chart(
            &report.model,
            &report.describe(),
            &report.rows(),
            old.as_ref(),
        );
        output_file::write(path, chart.svg().as_bytes())?;
    }
    let changes = old.as_ref().map(|old| compare(&old.rows, &report.rows()));
    if arguments.json {
        let mut document = report.to_json();
        if let Some(changes) = &changes {
            document["comparison"] = json!(changes);
        }
        output.line(&document.to_string())?;
    } else if arguments.csv {
        report.write_csv(output)?;
    } else {
        report.write_table(output)?;
        if let (Some(old), Some(changes)) = (&old, &changes) {
            output.line("")?;
            write_changes(&old.model, "this run", changes, output)?;
        }
    }
    Ok(())
}

/// The depths to measure at.
fn contexts(arguments: &BenchArguments) -> anyhow::Result<Vec<usize>> {
    let usage = |text: String| Err(UsageError(text).into());
    for (name, value) in [
        ("--prompt-tokens", arguments.prompt_tokens),
        ("--gen-tokens", arguments.gen_tokens),
        ("--repeat", arguments.repeat),
    ] {
        if value == 0 {
            return usage(format!("{name} must be at least 1"));
        }
    }
    if arguments.contexts.is_empty() {
        return Ok(vec![arguments.prompt_tokens]);
    }
    let ascending = arguments.contexts.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || arguments.contexts[0] == 0 {
        return usage("--contexts must be ascending numbers of at least 1".to_owned());
    }
    Ok(arguments.contexts.clone())
}

fn measure(
    model: &ModelFile,
    contexts: Vec<usize>,
    arguments: &BenchArguments,
    output: &Output,
    interrupt: &Interrupt,
) -> anyhow::Result<Report> {
    let shape = ModelShape::from_file(&model.file)?;
    let threads = arguments
        .engine
        .threads
        .unwrap_or_else(ds4_cpu::team::default_thread_count);
    let bandwidth = bandwidth(threads)?;
    let deepest = contexts.last().copied().unwrap_or(0);
    let context = deepest
        .checked_add(arguments.gen_tokens)
        .ok_or_else(|| anyhow!("the tokens overflow"))?;
    let options = EngineOptions {
        context,
        prefill_chunk: arguments.chunk,
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        ..settings::engine_options(&arguments.engine)
    };
    let mut engine = Engine::open(&model.file, None, &options, &mut |_| {})?;
    let sweep_options = SweepOptions {
        contexts,
        gen_tokens: arguments.gen_tokens,
        repeat: arguments.repeat,
        eos: Vocabulary::of_file(&model.file)?.tokenizer.eos(),
    };
    let armed = interrupt.arm();
    let mut bar = TokenBar::new("bench", output);
    let mut control = Control {
        cancel: armed.cancel(),
        progress: &mut |done, total| bar.update(done, total),
    };
    let rows = sweep(&mut engine, &sweep_options, &mut control);
    bar.finish();
    let rows = match rows {
        Err(WorkshopError::Cancelled) => return Err(Interrupted.into()),
        rows => rows?,
    };
    let weights = token_bytes::weights(&model.file, &shape);
    let rows = rows.into_iter().map(|row| {
        let middle = row.context + row.gen_tokens / 2;
        MeasuredRow {
            bytes_per_token: weights + token_bytes::kv_cache(&shape, options.kv_format, middle),
            kv_cache_bytes: token_bytes::kv_cache_size(&shape, options.kv_format, row.context),
            row,
        }
    });
    Ok(Report {
        model: model.title(),
        backend: engine.backend_name().to_owned(),
        threads,
        kv_type: options.kv_format.name().to_owned(),
        chunk: arguments.chunk,
        bandwidth,
        rows: rows.collect(),
    })
}

/// What the memory gives `threads` threads together, in bytes per second.
fn bandwidth(threads: usize) -> anyhow::Result<f64> {
    let mut team = ds4_cpu::team::Team::new(threads)?;
    Ok(ds4_cpu::bandwidth::measure_memory_bandwidth(&mut team))
}

fn read(path: &Path) -> anyhow::Result<SavedReport> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`{}` is no measurement", path.display()))
        .hint(|| "`ds4 bench --json` writes what --compare reads".to_owned())
}

fn compare_files(
    old: &Path,
    new: &Path,
    arguments: &BenchArguments,
    output: &mut Output,
) -> anyhow::Result<()> {
    let (old, new) = (read(old)?, read(new)?);
    if let Some(path) = &arguments.svg {
        let chart = chart(&new.model, "two measurements", &new.rows, Some(&old));
        output_file::write(path, chart.svg().as_bytes())?;
    }
    let changes = compare(&old.rows, &new.rows);
    if arguments.json {
        let document = json!({ "old": old.model, "new": new.model, "comparison": changes });
        output.line(&document.to_string())?;
        return Ok(());
    }
    write_changes(&old.model, &new.model, &changes, output)
}

fn write_changes(
    old: &str,
    new: &str,
    changes: &[RowChange],
    output: &mut Output,
) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Err(anyhow!("the measurements have no row in common"))
            .hint(|| "measure with the same --contexts and --gen-tokens".to_owned());
    }
    output.headline(&format!("{} → {}, new / old", visible(old), visible(new)))?;
    let mut table = Table::new(["context", "prefill", "range", "", "decode", "range", ""]);
    let range = |change: &Change| format!("{:.3} to {:.3}", change.least, change.largest);
    let verdict = |change: &Change| match change.verdict() {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::Noise => "within noise",
    };
    for change in changes {
        table.row([
            grouped(change.context as u64),
            format!("{:.3}", change.prefill.ratio),
            range(&change.prefill),
            verdict(&change.prefill).to_owned(),
            format!("{:.3}", change.decode.ratio),
            range(&change.decode),
            verdict(&change.decode).to_owned(),
        ]);
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    output.line(
        "Ratios of medians; the range is from slowest over fastest to fastest over slowest.",
    )?;
    Ok(())
}

fn chart(title: &str, subtitle: &str, rows: &[Row], old: Option<&SavedReport>) -> Chart {
    let panel = |label: &str, of: &dyn Fn(&Row) -> ds4_workshop::bench::Spread| {
        let series = |name: &str, rows: &[Row]| Series {
            name: name.to_owned(),
            points: rows
                .iter()
                .map(|row| {
                    let speed = of(row);
                    Point {
                        x: row.context as f64,
                        y: speed.median,
                        least: speed.least,
                        largest: speed.largest,
                    }
                })
                .collect(),
        };
        let mut all = vec![series("new", rows)];
        all.extend(old.map(|old| series("old", &old.rows)));
        Panel {
            label: label.to_owned(),
            series: all,
        }
    };
    Chart {
        title: title.to_owned(),
        subtitle: subtitle.to_owned(),
        x_label: "context, tokens".to_owned(),
        panels: vec![
            panel("prefill, tokens per second", &Row::prefill),
            panel("decode, tokens per second", &Row::decode),
        ],
    }
}

impl Report {
    fn rows(&self) -> Vec<Row> {
        self.rows.iter().map(|row| row.row.clone()).collect()
    }

    fn describe(&self) -> String {
        format!(
            "backend {}, {} threads, KV type {}, chunks of {}",
            self.backend, self.threads, self.kv_type, self.chunk
        )
    }

    /// Bytes read per second, as a share of what the memory can give.
    fn share(&self, decode: f64, bytes_per_token: u64) -> f64 {
        decode * bytes_per_token as f64 / self.bandwidth
    }

    fn row_to_json(&self, measured: &MeasuredRow) -> Value {
        let row = &measured.row;
        let (prefill, decode) = (row.prefill(), row.decode());
        json!({
            "context": row.context,
            "prompt_tokens": row.prompt_tokens,
            "gen_tokens": row.gen_tokens,
            "prefill_tps": prefill.median,
            "prefill_tps_min": prefill.least,
            "prefill_tps_max": prefill.largest,
            "decode_tps": decode.median,
            "decode_tps_min": decode.least,
            "decode_tps_max": decode.largest,
            "bytes_per_token": measured.bytes_per_token,
            "bandwidth_share": self.share(decode.median, measured.bytes_per_token),
            "kv_cache_bytes": measured.kv_cache_bytes,
            "runs": row.runs,
        })
    }

    /// With a single context its figures stand at the top, too.
    fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_to_json(row)).collect();
        let mut document = json!({
            "model": self.model,
            "backend": self.backend,
            "threads": self.threads,
            "kv_cache_type": self.kv_type,
            "chunk": self.chunk,
            "memory_bandwidth": self.bandwidth,
        });
        if let ([row], Some(document)) = (&rows[..], document.as_object_mut()) {
            document.extend(row.as_object().cloned().unwrap_or_default());
        }
        document["rows"] = rows.into();
        document
    }

    /// A sweep has two columns more than a single context.
    fn write_csv(&self, output: &mut Output) -> anyhow::Result<()> {
        let is_sweep = self.rows.len() > 1;
        output.line(&format!(
            "run,threads,prompt_tokens,prefill_tps,gen_tokens,decode_tps,bytes_per_token,\
             memory_bandwidth,bandwidth_share{}",
            if is_sweep {
                ",context,kv_cache_bytes"
            } else {
                ""
            }
        ))?;
        for measured in &self.rows {
            let row = &measured.row;
            for (index, Run { prefill, decode }) in row.runs.iter().enumerate() {
                let mut line = format!(
                    "{},{},{},{prefill:.3},{},{decode:.3},{},{:.0},{:.4}",
                    index + 1,
                    self.threads,
                    row.prompt_tokens,
                    row.gen_tokens,
                    measured.bytes_per_token,
                    self.bandwidth,
                    self.share(*decode, measured.bytes_per_token),
                );
                if is_sweep {
                    line.push_str(&format!(",{},{}", row.context, measured.kv_cache_bytes));
                }
                output.line(&line)?;
            }
        }
        Ok(())
    }

    fn write_table(&self, output: &mut Output) -> anyhow::Result<()> {
        output.headline(&format!("{}, {}", visible(&self.model), self.describe()))?;
        let mut table = Table::new([
            "context",
            "prefill tokens",
            "median t/s",
            "min to max",
            "decode tokens",
            "median t/s",
            "min to max",
            "read per token",
            "of bandwidth",
            "KV cache",
        ]);
        for measured in &self.rows {
            let row = &measured.row;
            let (prefill, decode) = (row.prefill(), row.decode());
            let share = self.share(decode.median, measured.bytes_per_token);
            table.row([
                grouped(row.context as u64),
                grouped(row.prompt_tokens as u64),
                format!("{:.2}", prefill.median),
                format!("{:.2} to {:.2}", prefill.least, prefill.largest),
                grouped(row.gen_tokens as u64),
                format!("{:.2}", decode.median),
                format!("{:.2} to {:.2}", decode.least, decode.largest),
                bytes(measured.bytes_per_token),
                format!("{:.0}%", 100.0 * share),
                bytes(measured.kv_cache_bytes),
            ]);
        }
        for line in table.lines() {
            output.line(&line)?;
        }
        let runs = self.rows.first().map_or(0, |row| row.row.runs.len());
        output.line(&format!(
            "Medians of {runs} repetitions after a warm-up; memory bandwidth {:.1} GB/s, measured.",
            self.bandwidth / 1e9
        ))?;
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
            backend: "cpu".to_owned(),
            threads: 2,
            kv_type: "fp8".to_owned(),
            chunk: 8,
            bandwidth: 4000.0,
            rows: vec![MeasuredRow {
                row: Row {
                    context: 8,
                    prompt_tokens: 8,
                    gen_tokens: 4,
                    runs: vec![run(1.0), run(3.0), run(2.0)],
                },
                bytes_per_token: 1000,
                kv_cache_bytes: 5,
            }],
        };
        let json = report.to_json();
        for json in [&json, &json["rows"][0]] {
            assert_eq!(json["decode_tps"], 2.0);
            assert_eq!(json["prefill_tps"], 20.0);
            assert_eq!(json["bandwidth_share"], 0.5);
            assert_eq!(json["decode_tps_max"], 3.0);
        }
        // What is written can be compared with.
        let saved: SavedReport = serde_json::from_value(json).unwrap();
        assert_eq!(saved.rows, report.rows());
    }
}
