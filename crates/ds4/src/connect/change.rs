//! A change to a settings file: shown first, then written whole, with a copy of what was there.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use similar::TextDiff;
use tempfile::NamedTempFile;

use crate::directories::create_private;

/// Larger files are no settings.
const MAX_BYTES: u64 = 4 << 20;
/// Most copies that are kept beside a file.
const MAX_BACKUPS: usize = 1000;

/// What a file holds, and what it will hold.
#[derive(Debug)]
pub(crate) struct Change {
    path: PathBuf,
    /// `None` if there is no file.
    before: Option<String>,
    after: String,
}

impl Change {
    /// The change that `edit` makes to the file at `path`; a file that does not exist is empty.
    ///
    /// # Errors
    /// A file that cannot be read, or that `edit` refuses.
    pub(crate) fn new(
        path: PathBuf,
        edit: impl FnOnce(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let before = read(&path)?;
        let after = edit(before.as_deref().unwrap_or_default())
            .with_context(|| format!("cannot change `{}`", path.display()))?;
        Ok(Self {
            path,
            before,
            after,
        })
    }

    /// Whether there is something to write.
    pub(crate) fn is_needed(&self) -> bool {
        self.before.as_deref() != Some(&self.after)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The change as a unified diff.
    pub(crate) fn diff(&self) -> String {
        let before = self.before.as_deref().unwrap_or_default();
        let name = self.path.display().to_string();
        let old_name = match self.before {
            Some(_) => name.as_str(),
            None => "/dev/null",
        };
        TextDiff::from_lines(before, self.after.as_str())
            .unified_diff()
            .context_radius(3)
            .header(old_name, &name)
            .to_string()
    }

    /// Writes the file, and gives the copy of what it held before.
    ///
    /// # Errors
    /// The file was changed since it was read, or cannot be written.
    pub(crate) fn write(&self) -> anyhow::Result<Option<PathBuf>> {
        // Settings that are linked from elsewhere stay linked.
        let path = match fs::canonicalize(&self.path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.path.clone(),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot find `{}`", self.path.display()));
            }
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        create_private(directory)?;
        if read(&path)? != self.before {
            bail!(
                "`{}` was changed in the meantime; run the command again",
                path.display()
            );
        }
        let backup = match &self.before {
            Some(before) => Some(backup(&path, before)?),
            None => None,
        };
        let file = written(directory, &path, &self.after)?;
        file.persist(&path)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(backup)
    }
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let cannot_read = || format!("cannot read `{}`", path.display());
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(cannot_read),
    };
    if !file.metadata().with_context(cannot_read)?.is_file() {
        bail!("`{}` is no file", path.display());
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(cannot_read)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("`{}` is too large for a settings file", path.display());
    }
    Ok(Some(text))
}

/// A finished file beside `path`, readable by whom `path` is, or only by the user.
fn written(directory: &Path, path: &Path, text: &str) -> anyhow::Result<NamedTempFile> {
    let cannot_write = || format!("cannot write in `{}`", directory.display());
    let mut file = NamedTempFile::new_in(directory).with_context(cannot_write)?;
    if let Ok(metadata) = fs::metadata(path) {
        file.as_file()
            .set_permissions(metadata.permissions())
            .with_context(cannot_write)?;
    }
    file.write_all(text.as_bytes()).with_context(cannot_write)?;
    file.as_file().sync_all().with_context(cannot_write)?;
    Ok(file)
}

/// Puts a copy beside the file under a name that nothing has.
fn backup(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = written(directory, path, text)?;
    for number in 1..=MAX_BACKUPS {
        let copy = directory.join(format!("{name}.before-ds4-{number}"));
        match file.persist_noclobber(&copy) {
            Ok(_) => return Ok(copy),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => file = error.file,
            Err(error) => {
                return Err(error.error)
                    .with_context(|| format!("cannot write `{}`", copy.display()));
            }
        }
    }
    bail!(
        "`{}` has {MAX_BACKUPS} copies already; remove some",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_kept_and_earlier_copies_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings");
        for (number, text) in ["one\n", "two\n", "three\n"].iter().enumerate() {
            let change = Change::new(path.clone(), |_| Ok((*text).to_owned())).unwrap();
            assert!(change.is_needed());
            let copy = change.write().unwrap();
            let expected = (number > 0).then(|| {
                directory
                    .path()
                    .canonicalize()
                    .unwrap()
                    .join(format!("settings.before-ds4-{number}"))
            });
            assert_eq!(copy, expected);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let copy = |number| {
            let name = format!("settings.before-ds4-{number}");
            fs::read_to_string(directory.path().join(name)).unwrap()
        };
        assert_eq!((copy(1), copy(2)), ("one\n".to_owned(), "two\n".to_owned()));
    }

    #[test]
    fn a_file_that_changed_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings");
        let change = Change::new(path.clone(), |_| Ok("mine\n".to_owned())).unwrap();
        fs::write(&path, "theirs\n").unwrap();
        assert!(change.write().is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "old\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();
        let change = Change::new(link.clone(), |_| Ok("new\n".to_owned())).unwrap();
        change.write().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new\n");
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let fresh = directory.path().join("fresh");
        let change = Change::new(fresh.clone(), |_| Ok("new\n".to_owned())).unwrap();
        change.write().unwrap();
        assert_eq!(
            fs::metadata(&fresh).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn the_diff_shows_what_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings");
        fs::write(&path, "a\nb\nc\n").unwrap();
        let change = Change::new(path, |text| Ok(text.replace('b', "B"))).unwrap();
        assert!(
            change.diff().contains("\n-b\n+B\n c\n"),
            "{}",
            change.diff()
        );
    }
}
