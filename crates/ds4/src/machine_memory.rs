//! Refusing what this machine cannot hold, rather than being killed by the system later.

use std::fs;

use anyhow::anyhow;
use ds4_engine::{EngineOptions, MemoryPlan, nearest_fits};
use ds4_gguf::GgufFile;
use ds4_model::ModelShape;

use crate::failure::Hint;
use crate::table::bytes;

/// Refuses settings that allocate more than the machine has. Weights are not counted: they are mapped and
/// come and go as memory allows.
///
/// # Errors
/// Both numbers, and the nearest settings that fit.
pub(crate) fn check(file: &GgufFile, options: &EngineOptions) -> anyhow::Result<()> {
    let shape = ModelShape::from_file(file)?;
    let plan = MemoryPlan::without_weights(&shape, options)?;
    match total() {
        Some(total) => check_against(&shape, options, plan.used() as u64, total),
        None => Ok(()),
    }
}

fn check_against(
    shape: &ModelShape,
    options: &EngineOptions,
    needed: u64,
    total: u64,
) -> anyhow::Result<()> {
    if needed <= total {
        return Ok(());
    }
    let limit = usize::try_from(total).unwrap_or(usize::MAX);
    let fits = nearest_fits(shape, options, limit);
    Err(anyhow!(
        "the KV cache and activations need {}, this machine has {} of memory",
        bytes(needed),
        bytes(total)
    ))
    .hint(|| advice(options, &fits))
}

/// What to say on the command line instead.
fn advice(asked: &EngineOptions, fits: &[EngineOptions]) -> String {
    let flags: Vec<String> = fits.iter().map(|fit| flags(asked, fit)).collect();
    let Some((last, others)) = flags.split_last() else {
        return "no context of this model fits; `ds4 plan` shows what each takes".to_owned();
    };
    let choice = if others.is_empty() {
        last.clone()
    } else {
        format!("{} or {last}", others.join(", "))
    };
    format!("it fits with {choice}; `ds4 plan` shows what each takes")
}

/// The options by which settings differ from those asked for.
fn flags(asked: &EngineOptions, fit: &EngineOptions) -> String {
    let mut flags = Vec::new();
    if fit.context != asked.context {
        flags.push(format!("--ctx {}", fit.context));
    }
    if fit.sessions != asked.sessions {
        flags.push(format!("--sessions {}", fit.sessions));
    }
    if let Some(tokens) = fit.cache_tokens
        && fit.cache_tokens != asked.cache_tokens
    {
        flags.push(format!("--cache-tokens {tokens}"));
    }
    if fit.kv_format != asked.kv_format {
        flags.push(format!("--kv-cache-type {}", fit.kv_format.name()));
    }
    format!("`{}`", flags.join(" "))
}

/// Physical memory in bytes, where the system tells (Linux).
fn total() -> Option<u64> {
    parse_line(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Memory of this process in bytes, where the system tells (Linux).
pub(crate) fn resident() -> Option<u64> {
    parse_line(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

fn parse_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure;
    use crate::model_file::ModelFile;
    use crate::settings;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers_and_what_does() {
        let model = ModelFile::open(None).unwrap();
        let shape = ModelShape::from_file(&model.file).unwrap();
        let options = EngineOptions {
            context: 4096,
            sessions: 8,
            kv_format: settings::kv_format(&shape, None, false),
            ..EngineOptions::default()
        };
        let plan = MemoryPlan::without_weights(&shape, &options).unwrap();
        let needed = plan.used() as u64;
        assert!(check_against(&shape, &options, needed, needed).is_ok());
        let error = check_against(&shape, &options, needed, needed / 2).unwrap_err();
        let text = failure::describe(&error);
        assert!(
            text.contains(&bytes(needed)) && text.contains(&bytes(needed / 2)),
            "{text}"
        );
        let hint = failure::hint(&error).unwrap();
        assert!(hint.contains("`--sessions "), "{hint}");
        let error = check_against(&shape, &options, needed, 1).unwrap_err();
        let hint = failure::hint(&error).unwrap();
        assert!(hint.starts_with("no context"), "{hint}");
    }

    #[test]
    fn the_total_is_read() {
        let meminfo = "MemFree:  1 kB\nMemTotal:       16384 kB\nX: 1\n";
        assert_eq!(parse_line(meminfo, "MemTotal:"), Some(16 << 20));
        assert_eq!(parse_line("MemTotal: many\n", "MemTotal:"), None);
    }
}
