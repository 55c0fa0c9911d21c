//! Refusing a large file before its first byte, where the disk has no room for it.

use std::path::Path;

use anyhow::anyhow;

use crate::failure::Hint;
use crate::table::bytes;

/// Refuses to write `needed` bytes to `path` where the disk has less. Where the system does not tell,
/// nothing is refused.
///
/// # Errors
/// What is needed, free and missing.
pub(crate) fn check(path: &Path, needed: u64) -> anyhow::Result<()> {
    match free(path) {
        Some(free) => check_against(path, needed, free),
        None => Ok(()),
    }
}

fn check_against(path: &Path, needed: u64, free: u64) -> anyhow::Result<()> {
    if needed <= free {
        return Ok(());
    }
    Err(anyhow!(
        "`{}` needs {}, the disk has {} free, {} are missing",
        path.display(),
        bytes(needed),
        bytes(free),
        bytes(needed - free)
    ))
    .hint(|| "free some space, or write to another disk".to_owned())
}

/// Bytes that are free for the folder of `path`.
fn free(path: &Path) -> Option<u64> {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let space = rustix::fs::statvfs(folder).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_figure_is_named() {
        assert!(check_against(Path::new("x"), 3 << 30, 3 << 30).is_ok());
        let error = check_against(Path::new("x"), 3 << 30, 1 << 30).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("3.00 GiB") && text.contains("2.00 GiB are missing"),
            "{text}"
        );
        assert!(free(Path::new("x")).is_some_and(|free| free > 0));
    }
}
