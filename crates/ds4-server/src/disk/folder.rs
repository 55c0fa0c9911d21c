//! A directory of numbered files, and what may be in it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Digits of a file's number, which tells its age, and of its mark, which tells it from others.
const DIGITS: usize = 16;
/// Ends the name of a file that is being written.
const UNFINISHED: &str = ".new";
/// Ends the name of a file that was found damaged.
const DAMAGED: &str = ".damaged";
/// How old a file must be to be what a crash left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How much may be in a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// Most files.
    pub(crate) files: usize,
    /// Most bytes of all of them.
    pub(crate) bytes: u64,
    /// Most bytes of one.
    pub(crate) file_bytes: usize,
}

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Sound, whether it is of use here or not.
    Stays,
    /// Not what it should be.
    Damaged,
}

/// A directory for this user only. Its files are numbered in the order in which they were begun; the
/// oldest are removed first. Several processes can write to it: the marks of their files differ.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    bounds: Bounds,
}

/// A file in it, or what is left of one.
#[derive(Debug)]
struct Entry {
    name: String,
    bytes: u64,
}

impl Folder {
    /// Opens the directory; makes it if it is missing.
    ///
    /// # Errors
    /// It cannot be made, or is something else.
    pub(crate) fn open(path: &Path, bounds: Bounds) -> io::Result<Self> {
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
            bounds,
        };
        folder.remove_abandoned();
        Ok(folder)
    }

    /// Most bytes of a file that is written.
    pub(crate) fn max_file_bytes(&self) -> usize {
        let all = usize::try_from(self.bounds.bytes).unwrap_or(usize::MAX);
        self.bounds.file_bytes.min(all)
    }

    /// Has the files looked at, oldest first: their marks and their bytes. Damaged ones are moved
    /// aside.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn read(&self, mut look: impl FnMut(u64, &[u8]) -> Verdict) -> io::Result<()> {
        for entry in self.entries()? {
            if !is_whole(&entry.name) {
                continue;
            }
            let verdict = match self.read_file(&entry.name) {
                Ok(Some(bytes)) => look(mark(&entry.name), &bytes),
                Ok(None) => Verdict::Damaged,
                // Another process removed it, or the disk is at fault: not the file's damage.
                Err(_) => Verdict::Stays,
            };
            if verdict == Verdict::Damaged {
                let from = self.path.join(&entry.name);
                let to = self.path.join(format!("{}{DAMAGED}", entry.name));
                // On a read-only disk it stays where it is.
                let _ = fs::rename(from, to);
            }
        }
        Ok(())
    }

    /// The bytes of a file; `None` if it is something else, or too long to be looked at.
    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let most = self.bounds.file_bytes as u64;
        let metadata = path.symlink_metadata()?;
        // No link is followed, and no pipe waited for.
        if !metadata.is_file() || metadata.len() > most {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// A name with this mark that sorts behind all others.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn next_name(&self, mark: u64) -> io::Result<String> {
        let last = self.entries()?.last().map(|entry| number(&entry.name));
        let next = last.map_or(0, |number| number.saturating_add(1));
        Ok(format!("{next:016x}-{mark:016x}"))
    }

    /// Writes a file, whole or not at all, in the place of what has the name; then removes the oldest
    /// files if there are too many.
    ///
    /// # Errors
    /// It is not written. What was there before is.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let written = self.write_new(&unfinished, bytes);
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
            if count <= self.bounds.files && bytes <= self.bounds.bytes {
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

    /// Removes all files, also damaged ones. Returns how many there were.
    ///
    /// # Errors
    /// One cannot be removed.
    pub(crate) fn clear(&self) -> io::Result<usize> {
        self.remove_those(|_| true)
    }

    /// Removes the files with a mark, for good. Returns how many there were.
    ///
    /// # Errors
    /// One cannot be removed.
    pub(crate) fn remove_marked(&self, mark: u64) -> io::Result<usize> {
        self.remove_those(|other| other == mark)
    }

    fn remove_those(&self, is_so: impl Fn(u64) -> bool) -> io::Result<usize> {
        let mut entries = self.entries()?;
        entries.retain(|entry| is_so(mark(&entry.name)));
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

/// The name, if it is `NUMBER-MARK`, perhaps with an ending of ours.
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
        .is_some_and(|(number, mark)| is_number(number) && is_number(mark))
}

/// The number at the start of a name.
fn number(name: &str) -> u64 {
    hexadecimal(name.get(..DIGITS))
}

/// The mark behind it.
fn mark(name: &str) -> u64 {
    hexadecimal(name.get(DIGITS + 1..2 * DIGITS + 1))
}

fn hexadecimal(digits: Option<&str>) -> u64 {
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or(0)
}
