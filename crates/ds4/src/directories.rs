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
        // The specification has relative paths ignored.
        let absolute = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .context("the user has no data directory")
            .hint(|| "set HOME or XDG_DATA_HOME to an absolute path".to_owned())?;
        Ok(Self {
            path: base.join("ds4"),
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
