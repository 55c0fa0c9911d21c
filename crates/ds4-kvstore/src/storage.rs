//! The file operations that a store uses.
//!
//! [`DirectoryStorage`](crate::directory_storage::DirectoryStorage) does them on disk;
//! tests put failures and crashes between them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};

/// A folder of the store. There is nothing below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Folder {
    /// The directory itself: usage file and lock.
    Root,
    /// Checkpoints by id.
    Checkpoints,
    /// Segments by name.
    Segments,
    /// Files that were refused.
    Quarantine,
}

impl Folder {
    /// Its name below the directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => ".",
            Self::Checkpoints => "checkpoints",
            Self::Segments => "segments",
            Self::Quarantine => "quarantine",
        }
    }
}

/// Who else may work on the store at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Others who load and save: nothing is removed meanwhile.
    Shared,
    /// Nobody: for removing.
    Exclusive,
}

/// A lock, released when it is dropped.
pub trait LockGuard: Send {}

/// A file that is read from start to end.
pub trait ReadFile: Read + Send {
    /// Its size when it was opened.
    fn length(&self) -> u64;
}

/// A new file.
pub trait WriteFile: Write + Send {
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// It may not be durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file operations that a store uses. Names have no `/` in them and never lead
/// anywhere else; symbolic links are not followed.
pub trait Storage: Send + Sync {
    /// Seconds since 1970. May jump.
    fn now(&self) -> u64;

    /// Why the store cannot write, if it cannot.
    fn read_only_reason(&self) -> Option<String>;

    /// Calls `visit` with the name of each entry of `folder`.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn list(&self, folder: Folder, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()>;

    /// A number that changes when entries of `folder` come and go.
    ///
    /// # Errors
    /// The folder cannot be read, or changed so recently that a further change might not show.
    fn stamp(&self, folder: Folder) -> io::Result<u64>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) if it is not there;
    /// [`InvalidData`](io::ErrorKind::InvalidData) if it is no regular file of this user.
    fn open(&self, folder: Folder, name: &str) -> io::Result<Box<dyn ReadFile>>;

    /// Size of a file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn length(&self, folder: Folder, name: &str) -> io::Result<u64>;

    /// Makes a new file, for this user only.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it is there.
    fn create(&self, folder: Folder, name: &str) -> io::Result<Box<dyn WriteFile>>;

    /// Renames a file in a folder, in one step, replacing what has the new name.
    ///
    /// # Errors
    /// Nothing is changed.
    fn rename(&self, folder: Folder, from: &str, to: &str) -> io::Result<()>;

    /// Moves whatever has this name to the quarantine.
    ///
    /// # Errors
    /// Nothing is changed.
    fn quarantine(&self, folder: Folder, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// Nothing is changed.
    fn remove(&self, folder: Folder, name: &str) -> io::Result<()>;

    /// Makes new names, renames and removals in a folder durable.
    ///
    /// # Errors
    /// They may not be durable.
    fn sync_folder(&self, folder: Folder) -> io::Result<()>;

    /// Takes the lock if it is free; `None` if another has it. Locks of the same
    /// process exclude each other, too.
    ///
    /// # Errors
    /// There is no lock to be had, as on a read-only disk without a lock file.
    fn try_lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>>;
}

/// A file in memory.
impl ReadFile for io::Cursor<Vec<u8>> {
    fn length(&self) -> u64 {
        self.get_ref().len() as u64
    }
}

impl ReadFile for File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl WriteFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The process or the system has no file descriptors left.
pub(crate) fn out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let codes = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
        error
            .raw_os_error()
            .is_some_and(|code| codes.iter().any(|errno| errno.raw_os_error() == code))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// The disk, or the user's share of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Writing is not allowed here, now or later.
pub(crate) fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}
