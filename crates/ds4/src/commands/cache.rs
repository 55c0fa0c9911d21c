//! `ds4 cache`: the KV cache on disk.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ds4_kvstore::{
    Access, CheckpointId, CheckpointInfo, CheckpointKind, Limits, MaintenanceError, Problem,
    Pruned, Statistics, Store,
};
use serde_json::{Value, json};

use crate::byte_size::ByteSize;
use crate::directories::CacheDirectory;
use crate::failure::{Hint, Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::output::{Output, visible};
use crate::progress::ByteBar;
use crate::table::{Table, bytes, grouped};

/// Digits of an id in the table, and the fewest that `rm` takes.
const SHOWN_DIGITS: usize = 12;
const FEWEST_DIGITS: usize = 4;

/// Arguments of `ds4 cache`.
#[derive(Debug, Args)]
pub(crate) struct CacheArguments {
    #[command(subcommand)]
    command: CacheCommand,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Directory of the cache [default: ds4/kv in the user's cache directory]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    dir: Option<PathBuf>,
    /// Write JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// List the checkpoints, the most recently used first
    Ls,
    /// Remove checkpoints
    Rm {
        /// Their ids, or the first digits of them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Read everything and check it; damaged files are moved aside. Fails if there was damage
    Verify,
    /// Remove the least valuable checkpoints, and what crashes left behind
    Prune {
        /// How much may stay, such as 10GiB; 0 removes everything
        #[arg(long, value_name = "SIZE")]
        to: ByteSize,
    },
}

/// Does what the sub-command says.
pub(crate) fn run(
    arguments: &CacheArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let options = &arguments.options;
    let directory = match &options.dir {
        Some(directory) => directory.clone(),
        None => CacheDirectory::of_user()?.kv(),
    };
    let store = open(&directory, output)?;
    match &arguments.command {
        CacheCommand::Ls => list(store.as_ref(), &directory, options.json, output),
        CacheCommand::Rm { ids } => remove(store.as_ref(), ids, options.json, output),
        CacheCommand::Verify => verify(store.as_ref(), options.json, output, interrupt),
        CacheCommand::Prune { to } => {
            let pruned = match &store {
                Some(store) => store.prune(to.0)?,
                None => Pruned::default(),
            };
            // Answers have nothing left to go on from, and everything is to go.
            if to.0 == 0 && store.is_some() {
                ds4_server::remove_kept(&directory)?;
            }
            print_pruned(pruned, options.json, output)
        }
    }
}

/// The store, if there is one: looking at it does not make it.
fn open(directory: &Path, output: &mut Output) -> anyhow::Result<Option<Store>> {
    let missing = directory
        .symlink_metadata()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if missing {
        return Ok(None);
    }
    // The quota is the server's business; here nothing is evicted unasked.
    let limits = Limits {
        max_bytes: u64::MAX,
        ..Limits::default()
    };
    let store = Store::open(directory, limits)?;
    if let Access::ReadOnly { reason } = store.access() {
        output.warning(&format!("the KV cache cannot be changed: {reason}"));
    }
    Ok(Some(store))
}

fn list(
    store: Option<&Store>,
    directory: &Path,
    json: bool,
    output: &mut Output,
) -> anyhow::Result<()> {
    let checkpoints = store.map(Store::list).unwrap_or_default();
    let usage = store.map(Store::usage).unwrap_or_default();
    let statistics = store.map(Store::statistics).unwrap_or_default();
    let problems = store.map(Store::problems).unwrap_or_default();
    if json {
        let document = json!({
            "directory": directory.to_string_lossy(),
            "bytes": usage.bytes,
            "segments": usage.segments,
            "checkpoints": checkpoints.iter().map(checkpoint_json).collect::<Vec<_>>(),
            "statistics": statistics_json(&statistics),
            "problems": problems_json(&problems),
        });
        output.line(&document.to_string())?;
        return Ok(());
    }
    warn_of(&problems, output);
    if checkpoints.is_empty() {
        output.note(&format!(
            "no checkpoints in {}",
            visible(&directory.to_string_lossy())
        ));
        return Ok(());
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let mut table = Table::new([
        "id",
        "model",
        "kind",
        "tokens",
        "size",
        "own",
        "saves",
        "last used",
        "hits",
    ]);
    for info in &checkpoints {
        let id = info.id.to_string();
        let model: String = info.model_name.chars().take(32).collect();
        table.row([
            id[..SHOWN_DIGITS].to_owned(),
            visible(&model).replace(['\n', '\t'], " "),
            if info.complete {
                info.kind.name()
            } else {
                "incomplete"
            }
            .to_owned(),
            grouped(info.tokens as u64),
            bytes(info.bytes),
            bytes(info.own_bytes),
            duration(info.prefill_seconds),
            format!(
                "{} ago",
                duration(now.saturating_sub(info.last_used) as f64)
            ),
            info.hits.to_string(),
        ]);
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    output.line("")?;
    output.line(&format!(
        "{} checkpoints in {} shared segments, {}; {} hits in {} lookups saved {}",
        grouped(usage.checkpoints as u64),
        grouped(usage.segments as u64),
        bytes(usage.bytes),
        grouped(statistics.hits.iter().sum()),
        grouped(statistics.lookups),
        duration(statistics.seconds_saved),
    ))?;
    Ok(())
}

fn remove(
    store: Option<&Store>,
    ids: &[String],
    json: bool,
    output: &mut Output,
) -> anyhow::Result<()> {
    let known = store.map(Store::list).unwrap_or_default();
    // All of them are found before any of them goes.
    let chosen = ids
        .iter()
        .map(|id| find(&known, id))
        .collect::<anyhow::Result<Vec<CheckpointId>>>()?;
    let mut all = Pruned::default();
    if let Some(store) = store {
        for id in chosen {
            match store.remove(&id) {
                Ok(pruned) => {
                    all.checkpoints += pruned.checkpoints;
                    all.segments += pruned.segments;
                    all.bytes += pruned.bytes;
                }
                // Named twice, or somebody was quicker.
                Err(MaintenanceError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    print_pruned(all, json, output)
}

/// The one checkpoint whose id begins so.
fn find(known: &[CheckpointInfo], start: &str) -> anyhow::Result<CheckpointId> {
    let start = start.to_ascii_lowercase();
    if start.len() < FEWEST_DIGITS || !start.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let error = UsageError(format!(
            "`{}` is no id, expected {FEWEST_DIGITS} or more digits of one from `ds4 cache ls`",
            start.escape_debug()
        ));
        return Err(error.into());
    }
    let mut found = known
        .iter()
        .map(|info| info.id)
        .filter(|id| id.to_string().starts_with(&start));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(anyhow::anyhow!("no checkpoint `{start}` in the KV cache"))
            .hint(|| "`ds4 cache ls` lists the ids".to_owned()),
        (Some(_), Some(_)) => bail!("several checkpoints begin with `{start}`; give more digits"),
    }
}

fn verify(
    store: Option<&Store>,
    json: bool,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let mut read = 0;
    if let Some(store) = store {
        let armed = interrupt.arm();
        let mut bar = ByteBar::new("checking", output);
        let checked = store.verify(&mut |done, total| {
            read = done;
            bar.update(done, total);
            if armed.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        problems = match checked {
            Err(MaintenanceError::Stopped) => return Err(Interrupted.into()),
            checked => checked?,
        };
    }
    let usage = store.map(Store::usage).unwrap_or_default();
    if json {
        let document = json!({
            "bytes_read": read,
            "checkpoints": usage.checkpoints,
            "segments": usage.segments,
            "problems": problems_json(&problems),
        });
        output.line(&document.to_string())?;
    } else {
        for problem in &problems {
            output.line(&visible(&format!("{} {}", problem.file, problem.reason)))?;
        }
        output.line(&format!(
            "{} read; {} checkpoints and {} segments are sound",
            bytes(read),
            grouped(usage.checkpoints as u64),
            grouped(usage.segments as u64),
        ))?;
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("1 file was not as it should be")),
        count => Err(anyhow::anyhow!("{count} files were not as they should be")),
    }
    .context("the KV cache was damaged")
}

fn print_pruned(pruned: Pruned, json: bool, output: &mut Output) -> anyhow::Result<()> {
    if json {
        let document = json!({
            "checkpoints_removed": pruned.checkpoints,
            "segments_removed": pruned.segments,
            "bytes_freed": pruned.bytes,
        });
        output.line(&document.to_string())?;
    } else {
        output.line(&format!(
            "{} checkpoints and {} segments removed, {} freed",
            grouped(pruned.checkpoints as u64),
            grouped(pruned.segments as u64),
            bytes(pruned.bytes),
        ))?;
    }
    Ok(())
}

fn warn_of(problems: &[Problem], output: &mut Output) {
    for problem in problems {
        output.warning(&visible(&format!("{} {}", problem.file, problem.reason)));
    }
}

fn checkpoint_json(info: &CheckpointInfo) -> Value {
    let fingerprint: String = info
        .key
        .fingerprint
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({
        "id": info.id.to_string(),
        "model": info.model_name,
        "fingerprint": fingerprint,
        "format": info.key.format,
        "span_tokens": info.key.span_tokens,
        "kind": info.kind.name(),
        "complete": info.complete,
        "tokens": info.tokens,
        "bytes": info.bytes,
        "own_bytes": info.own_bytes,
        "seconds_saved": info.prefill_seconds,
        "created": info.created,
        "last_used": info.last_used,
        "hits": info.hits,
        "value": info.value,
    })
}

fn statistics_json(statistics: &Statistics) -> Value {
    let hits: serde_json::Map<String, Value> = CheckpointKind::ALL
        .iter()
        .zip(statistics.hits)
        .map(|(kind, hits)| (kind.name().to_owned(), hits.into()))
        .collect();
    json!({
        "lookups": statistics.lookups,
        "misses": statistics.misses,
        "hits": hits,
        "tokens_restored": statistics.tokens_restored,
        "seconds_saved": statistics.seconds_saved,
        "saved": statistics.saved,
        "evicted": statistics.evicted,
        "refused": statistics.refused,
    })
}

fn problems_json(problems: &[Problem]) -> Vec<Value> {
    problems
        .iter()
        .map(|problem| json!({"file": problem.file, "reason": problem.reason}))
        .collect()
}

/// A duration in one unit, two digits or more.
fn duration(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (0.0, "s")];
    for (length, unit) in units {
        if seconds >= 2.0 * length {
            let value = if length > 0.0 {
                seconds / length
            } else {
                seconds
            };
            let digits = usize::from(value < 9.95 && value.fract() >= 0.05);
            return format!("{value:.digits$} {unit}");
        }
    }
    "0 s".to_owned()
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_one_unit() {
        for (seconds, expected) in [
            (0.0, "0 s"),
            (3.52, "3.5 s"),
            (100.0, "100 s"),
            (150.0, "2.5 min"),
            (7_200.0, "2 h"),
            (1e6, "12 d"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
