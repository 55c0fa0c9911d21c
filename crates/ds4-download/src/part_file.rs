//! The unfinished file on disk: opened without following links, its space reserved, written at positions.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::error::{DownloadError, io as io_error};

/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Opens a regular file for reading and writing, or creates it. A symbolic link is refused: what it leads to
/// was not meant.
pub(crate) fn open(path: &Path) -> Result<File, DownloadError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    regular(&mut options, path)
}

/// Opens a regular file for reading.
pub(crate) fn open_existing(path: &Path) -> Result<File, DownloadError> {
    regular(OpenOptions::new().read(true), path)
}

fn regular(options: &mut OpenOptions, path: &Path) -> Result<File, DownloadError> {
    // Without O_NONBLOCK, opening a pipe waits for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let not_a_file = |kind| DownloadError::NotAFile {
        path: path.to_owned(),
        kind,
    };
    let file = match options.custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => file,
        Err(error) => {
            return Err(match path.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => not_a_file("a symbolic link"),
                Ok(metadata) if metadata.is_dir() => not_a_file("a directory"),
                Ok(metadata) if !metadata.is_file() => not_a_file("a special file"),
                _ => io_error(path, "open")(error),
            });
        }
    };
    let metadata = file.metadata().map_err(io_error(path, "look at"))?;
    if metadata.is_dir() {
        return Err(not_a_file("a directory"));
    }
    if !metadata.is_file() {
        return Err(not_a_file("a special file"));
    }
    Ok(file)
}

/// Whether `path` still is this file.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool, DownloadError> {
    let ours = file.metadata().map_err(io_error(path, "look at"))?;
    match path.symlink_metadata() {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(path, "look at")(error)),
    }
}

/// Brings a directory's entries to disk.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), DownloadError> {
    let result = File::open(directory).and_then(|file| file.sync_all());
    match result {
        // Some network file systems have no such thing.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result.map_err(io_error(directory, "sync")),
    }
}

/// Whether this is the system's way of saying that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Bytes that this user can still write to the file system of `directory`, which need not exist yet.
pub fn free_space(directory: &Path) -> Option<u64> {
    let absolute = std::path::absolute(directory).ok()?;
    let space = absolute
        .ancestors()
        .find_map(|existing| statvfs(existing).ok())?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The unfinished file.
#[derive(Debug)]
pub(crate) struct PartFile {
    path: PathBuf,
    file: File,
    /// Where the pretended disk of a test ends.
    #[cfg(test)]
    pub(crate) disk_end: std::sync::atomic::AtomicU64,
}

impl PartFile {
    /// Opens the file at `path`, or creates it.
    pub(crate) fn open(path: &Path) -> Result<Self, DownloadError> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            #[cfg(test)]
            disk_end: u64::MAX.into(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn length(&self) -> Result<u64, DownloadError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(io_error(&self.path, "look at"))?.len())
    }

    /// Throws away what is in it.
    pub(crate) fn clear(&self) -> Result<(), DownloadError> {
        self.file
            .set_len(0)
            .map_err(io_error(&self.path, "shorten"))
    }

    /// Checks that the disk has room for `length` bytes, and keeps it free for this file if the file system
    /// can do so.
    pub(crate) fn reserve(&self, length: u64) -> Result<(), DownloadError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(io_error(&self.path, "look at"))?;
        let allocated = metadata.blocks().saturating_mul(BLOCK_BYTES);
        let needed = length.saturating_sub(allocated);
        let space = statvfs(directory)
            .map_err(|error| io_error(directory, "find the free space of")(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let too_little = |missing| DownloadError::DiskSpace {
            directory: directory.to_owned(),
            needed,
            free,
            missing,
        };
        if needed > free {
            return Err(too_little(needed - free));
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // Not every file system can.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self
                .file
                .set_len(length)
                .map_err(io_error(&self.path, "lengthen")),
            Err(error) => {
                let error = io::Error::from(error);
                // A quota, or blocks that the file system needs for itself.
                if is_full(&error) {
                    return Err(too_little(needed));
                }
                Err(io_error(&self.path, "reserve space for")(error))
            }
        }
    }

    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if at + bytes.len() as u64 > self.disk_end.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(bytes, at)
    }

    pub(crate) fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// Brings what was written to disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives the file its name, for good.
    pub(crate) fn rename(&self, target: &Path) -> Result<(), DownloadError> {
        self.file.sync_all().map_err(io_error(&self.path, "sync"))?;
        std::fs::rename(&self.path, target).map_err(io_error(&self.path, "rename"))?;
        sync_directory(target.parent().unwrap_or(Path::new(".")))
    }

    /// Removes the file.
    pub(crate) fn remove(&self) -> Result<(), DownloadError> {
        std::fs::remove_file(&self.path).map_err(io_error(&self.path, "remove"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_directories_and_pipes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        let pipe = at("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for name in ["link", "dangling", "directory", "pipe"] {
            let error = PartFile::open(&at(name)).unwrap_err();
            assert!(
                matches!(error, DownloadError::NotAFile { .. }),
                "{name}: {error}"
            );
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        assert!(!at("nowhere").exists());
    }

    #[test]
    fn more_than_the_disk_has_is_refused_with_the_figure() {
        let directory = tempfile::tempdir().unwrap();
        let part = PartFile::open(&directory.path().join("x")).unwrap();
        let error = part.reserve(1 << 60).unwrap_err();
        let DownloadError::DiskSpace {
            needed,
            free,
            missing,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((needed, missing), (1 << 60, (1 << 60) - free));
        assert_eq!(part.length().unwrap(), 0);
        part.reserve(1 << 20).unwrap();
        assert_eq!(part.length().unwrap(), 1 << 20);
    }
}
