//! Refusing what this machine cannot hold, rather than being killed by the system later.

use std::fs;

use anyhow::anyhow;
use ds4_engine::MemoryPlan;

use crate::failure::Hint;
use crate::table::bytes;

/// Refuses a plan that allocates more than the machine has. Weights are not counted: they are mapped and
/// come and go as memory allows.
///
/// # Errors
/// Both numbers, and what to do.
pub(crate) fn check(plan: &MemoryPlan) -> anyhow::Result<()> {
    match total() {
        Some(total) => check_against(plan.used() as u64, total),
        None => Ok(()),
    }
}

fn check_against(needed: u64, total: u64) -> anyhow::Result<()> {
    if needed <= total {
        return Ok(());
    }
    Err(anyhow!(
        "the KV cache and activations need {}, this machine has {} of memory",
        bytes(needed),
        bytes(total)
    ))
    .hint(|| "choose a smaller context with `--ctx N`; `ds4 plan` shows what each takes".to_owned())
}

/// Physical memory in bytes, where the system tells (Linux).
fn total() -> Option<u64> {
    parse_total(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        assert!(check_against(1 << 30, 1 << 30).is_ok());
        let error = check_against(3 << 30, 2 << 30).unwrap_err();
        let text = failure::describe(&error);
        assert!(
            text.contains("3.00 GiB") && text.contains("2.00 GiB"),
            "{text}"
        );
        assert!(failure::hint(&error).unwrap().contains("--ctx"));
    }

    #[test]
    fn the_total_is_read() {
        let meminfo = "MemFree:  1 kB\nMemTotal:       16384 kB\nX: 1\n";
        assert_eq!(parse_total(meminfo), Some(16 << 20));
        assert_eq!(parse_total("MemTotal: many\n"), None);
    }
}
