//! The directory of the files of answers, and what may be in it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::RememberedAnswer;
use super::answer_file::{AnswerFile, AnswerFileError, MAX_FILE_BYTES};

/// Most files.
pub(super) const MAX_FILES: usize = 1024;
/// Digits of a file's number, which tells its age, and of what tells its writer from others.
const DIGITS: usize = 16;
/// Ends the name of a file that is being written.
const UNFINISHED: &str = ".new";
/// Ends the name of a file that was found damaged.
const DAMAGED: &str = ".damaged";
/// How old a file must be to be what a crash left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A directory for this user only. Its files are numbered in the order in which they were begun; the
/// oldest are removed first. Several processes can write to it: their names differ.
#[derive(Debug)]
pub(super) struct AnswerFolder {
    path: PathBuf,
    max_bytes: u64,
}

/// A file in it, or what is left of one.
#[derive(Debug)]
struct Entry {
    name: String,
    bytes: u64,
}

impl AnswerFolder {
    /// Opens the directory; makes it if it is missing.
    ///
    /// # Errors
    /// It cannot be made, or is something else.
    pub(super) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(path) {
            Ok(()) => {}
            // A read-only disk says that first.
            Err(_) if path.symlink_metadata().is_ok() => {}
            Err(error) => return Err(error),
        }
        if !path.symlink_metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if path.metadata()?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
        }
        let folder = Self {
            path: path.to_owned(),
            max_bytes,
        };
        folder.remove_abandoned();
        Ok(folder)
    }

    /// The answers of the model with this fingerprint, oldest first. Damaged files are moved aside;
    /// those of other models and other versions stay.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn read(&self, fingerprint: &[u8; 32]) -> io::Result<Vec<Arc<RememberedAnswer>>> {
        let mut answers = Vec::new();
        for entry in self.entries()? {
            if !is_whole(&entry.name) {
                continue;
            }
            match self.read_file(&entry.name) {
                Ok(Ok(file)) if file.fingerprint == *fingerprint => answers.extend(file.answers),
                Ok(Ok(_) | Err(AnswerFileError::Version(_))) => {}
                Ok(Err(_)) => {
                    let from = self.path.join(&entry.name);
                    let to = self.path.join(format!("{}{DAMAGED}", entry.name));
                    // On a read-only disk it stays where it is.
                    let _ = fs::rename(from, to);
                }
                // Another process removed it, or the disk is at fault: not the file's damage.
                Err(_) => {}
            }
        }
        Ok(answers)
    }

    fn read_file(&self, name: &str) -> io::Result<Result<AnswerFile, AnswerFileError>> {
        let path = self.path.join(name);
        // No link is followed, and no pipe waited for.
        if !path.symlink_metadata()?.is_file() {
            return Ok(Err(AnswerFileError::Length));
        }
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(AnswerFile::from_bytes(&bytes))
    }

    /// A name that sorts behind all others and that no other process uses.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn next_name(&self) -> io::Result<String> {
        let last = self.entries()?.last().map(|entry| number(&entry.name));
        let next = last.map_or(0, |number| number.saturating_add(1));
        Ok(format!("{next:016x}-{:016x}", crate::random_bits()))
    }

    /// Writes a file, whole or not at all, in the place of what has the name; then removes the oldest
    /// files if there are too many.
    ///
    /// # Errors
    /// It is not written. What was there before is.
    pub(super) fn write(&self, name: &str, file: &AnswerFile) -> io::Result<()> {
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let written = self.write_new(&unfinished, &file.to_bytes());
        let written = written.and_then(|()| fs::rename(&unfinished, self.path.join(name)));
        if let Err(error) = written {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        self.sync()?;
        self.evict(name)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Makes names durable.
    fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }

    /// Removes the oldest files, but never the newest of this process.
    fn evict(&self, newest: &str) -> io::Result<()> {
        let entries = self.entries()?;
        let mut count = entries.len();
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in &entries {
            if count <= MAX_FILES && bytes <= self.max_bytes {
                break;
            }
            if entry.name == newest {
                continue;
            }
            // What cannot be removed must not stop what can.
            if remove(&self.path.join(&entry.name)).is_ok() {
                count -= 1;
                bytes -= entry.bytes;
            }
        }
        Ok(())
    }

    /// What a crash left in the middle of writing.
    fn remove_abandoned(&self) {
        for entry in self.entries().unwrap_or_default() {
            let path = self.path.join(&entry.name);
            let changed = path.metadata().and_then(|metadata| metadata.modified());
            let is_old = changed.is_ok_and(|changed| {
                SystemTime::now()
                    .duration_since(changed)
                    .is_ok_and(|age| age > ABANDONED)
            });
            if entry.name.ends_with(UNFINISHED) && is_old {
                let _ = remove(&path);
            }
        }
    }

    /// Removes all files of answers.
    ///
    /// # Errors
    /// One cannot be removed.
    pub(super) fn clear(&self) -> io::Result<usize> {
        let entries = self.entries()?;
        for entry in &entries {
            remove(&self.path.join(&entry.name))?;
        }
        self.sync()?;
        Ok(entries.len())
    }

    /// Everything with a name of ours, oldest first. Other things are not touched.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(name) = own_name(&entry.file_name()) else {
                continue;
            };
            // Without following a link. It may be gone by now.
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            entries.push(Entry { name, bytes });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// Removes a file, or an empty directory; what is gone already is no failure.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name, if it is `NUMBER-WRITER`, perhaps with an ending of ours.
fn own_name(name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    let stem = name.strip_suffix(UNFINISHED).unwrap_or(name);
    let stem = stem.strip_suffix(DAMAGED).unwrap_or(stem);
    is_whole(stem).then(|| name.to_owned())
}

fn is_whole(name: &str) -> bool {
    let is_number = |text: &str| {
        text.len() == DIGITS
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    name.split_once('-')
        .is_some_and(|(number, writer)| is_number(number) && is_number(writer))
}

/// The number at the start of a name.
fn number(name: &str) -> u64 {
    name.get(..DIGITS)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or(0)
}
