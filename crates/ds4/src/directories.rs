//! Where the user's files lie.

use std::env;
use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::failure::Hint;

/// `$XDG_DATA_HOME/ds4`, or `~/.local/share/ds4` (XDG base directory specification).
#[derive(Debug, Clone)]
pub(crate) struct DataDirectory {
    path: PathBuf,
}

impl DataDirectory {
    /// The directory of the user who runs the program; it need not exist.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        Ok(Self {
            path: user_directory("data", "XDG_DATA_HOME", ".local/share")?,
        })
    }

    /// Model files that `--model NAME` finds.
    pub(crate) fn models(&self) -> PathBuf {
        self.path.join("models")
    }

    /// Saved sessions.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.path.join("sessions")
    }

    /// Lines typed in the chat.
    pub(crate) fn history(&self) -> PathBuf {
        self.path.join("history")
    }

    /// Creates the data directory itself.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        create_private(&self.path)
    }
}

/// `$XDG_CACHE_HOME/ds4`, or `~/.cache/ds4`: what can be removed at any time.
#[derive(Debug, Clone)]
pub(crate) struct CacheDirectory {
    path: PathBuf,
}

impl CacheDirectory {
    /// The directory of the user who runs the program; it need not exist.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        Ok(Self {
            path: user_directory("cache", "XDG_CACHE_HOME", ".cache")?,
        })
    }

    /// Checkpoints of the KV cache.
    pub(crate) fn kv(&self) -> PathBuf {
        self.path.join("kv")
    }
}

/// `ds4` in the directory that the `variable` names, or else in that one below the home.
fn user_directory(kind: &str, variable: &str, below_home: &str) -> anyhow::Result<PathBuf> {
    // The specification has relative paths ignored.
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .with_context(|| format!("the user has no {kind} directory"))
        .hint(|| format!("set HOME or {variable} to an absolute path"))?;
    Ok(base.join("ds4"))
}

/// Creates a directory, and those above it, that only the user may enter.
pub(crate) fn create_private(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create directory `{}`", parent.display()))?;
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .with_context(|| format!("cannot create directory `{}`", path.display()))
}
