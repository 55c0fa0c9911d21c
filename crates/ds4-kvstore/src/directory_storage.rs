//! The files of a store in a directory of the user.
//!
//! Everything is reached from the handle of the directory by single names, and no
//! symbolic link is followed: whoever can write to a parent directory can make the
//! store disappear, but not make it read or write elsewhere.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{self as unix, Access, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::OpenError;
use crate::listing::is_temporary;
use crate::storage::{Folder, LockGuard, LockKind, ReadFile, Storage, WriteFile};

const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const LOCK_FILE: &str = "lock";

/// Seconds after which the time of a folder's last change tells all changes apart.
const SETTLED: u64 = 2;

/// Names that a store makes in its directory. A directory with others in it is somebody's.
const OWN_NAMES: [&str; 7] = [
    // Kept beside the checkpoints by the server.
    "answers",
    "checkpoints",
    "segments",
    "quarantine",
    LOCK_FILE,
    "usage",
    CACHE_TAG_FILE,
];

const CACHE_TAG_FILE: &str = "CACHEDIR.TAG";

/// Says whose directory it is, and tells backup programs to leave it out (Cache Directory Tagging Specification).
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory holds the KV cache of ds4. It can be removed at any time.\n";

/// A directory on disk.
#[derive(Debug)]
pub struct DirectoryStorage {
    root: OwnedFd,
    checkpoints: Option<OwnedFd>,
    segments: Option<OwnedFd>,
    quarantine: Option<OwnedFd>,
    read_only: Option<String>,
}

impl DirectoryStorage {
    /// Opens `directory`, making it if it is missing.
    ///
    /// # Errors
    /// It cannot be read or made, is not a directory of this user, or holds something else.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        // Without a slash at the end, which would follow a symbolic link.
        let path: PathBuf = directory.components().collect();
        let failed = |source: io::Error| OpenError::Io {
            path: path.clone(),
            source,
        };
        make_directory(&path).map_err(failed)?;
        let root = open_directory(unix::CWD, path.as_os_str()).map_err(|errno| {
            if is_link_or_file(errno) {
                OpenError::NotADirectory { path: path.clone() }
            } else {
                failed(errno.into())
            }
        })?;
        let stat = check_owner(&root, &path)?;
        let tagged = has_tag(&root);
        if !tagged && has_foreign_entries(&root).map_err(failed)? {
            return Err(OpenError::NotAStore { path });
        }
        let mut read_only = None;
        if stat.st_mode & 0o077 != 0
            && let Err(errno) = unix::fchmod(&root, PRIVATE_DIRECTORY)
        {
            read_only = Some(format!("its directory is open to others: {errno}"));
        }
        let mut folder = |folder: Folder| -> Result<Option<OwnedFd>, OpenError> {
            let made = match unix::mkdirat(&root, folder.name(), PRIVATE_DIRECTORY) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            };
            let opened = open_directory(&root, OsStr::new(folder.name()));
            match (opened, made) {
                (Ok(handle), _) => {
                    check_owner(&handle, &path.join(folder.name()))?;
                    let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
                    if let Err(errno) = unix::accessat(&handle, ".", rights, AtFlags::EACCESS) {
                        read_only = Some(io::Error::from(errno).to_string());
                    }
                    Ok(Some(handle))
                }
                (Err(errno), _) if is_link_or_file(errno) => Err(OpenError::NotADirectory {
                    path: path.join(folder.name()),
                }),
                (Err(_), Err(errno)) => {
                    read_only = Some(io::Error::from(errno).to_string());
                    Ok(None)
                }
                (Err(errno), Ok(())) => Err(failed(errno.into())),
            }
        };
        let checkpoints = folder(Folder::Checkpoints)?;
        let segments = folder(Folder::Segments)?;
        let quarantine = folder(Folder::Quarantine)?;
        let mut storage = Self {
            root,
            checkpoints,
            segments,
            quarantine,
            read_only,
        };
        if storage.read_only.is_none() {
            storage.read_only = storage.prepare(tagged).err().map(|error| error.to_string());
        }
        Ok(storage)
    }

    /// Makes the lock file and the tag, and all of it durable.
    fn prepare(&self, tagged: bool) -> io::Result<()> {
        self.open_lock(OFlags::RDWR | OFlags::CREATE)?;
        if tagged {
            return Ok(());
        }
        // A crash may have left an empty one.
        match self.remove(Folder::Root, CACHE_TAG_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match self.create(Folder::Root, CACHE_TAG_FILE) {
            Ok(mut file) => {
                file.write_all(CACHE_TAG)?;
                file.sync()?;
                self.sync_folder(Folder::Root)
            }
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn open_lock(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = unix::openat(&self.root, LOCK_FILE, flags, PRIVATE_FILE)?;
        if FileType::from_raw_mode(unix::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("its lock is not a regular file"));
        }
        Ok(File::from(file))
    }

    fn handle(&self, folder: Folder) -> io::Result<&OwnedFd> {
        match folder {
            Folder::Root => Some(&self.root),
            Folder::Checkpoints => self.checkpoints.as_ref(),
            Folder::Segments => self.segments.as_ref(),
            Folder::Quarantine => self.quarantine.as_ref(),
        }
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// Makes a directory for this user only, and those above it.
fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match unix::mkdirat(unix::CWD, path, PRIVATE_DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // It may be there all the same; opening it will tell.
        Err(Errno::ROFS | Errno::ACCESS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn open_directory(at: impl std::os::fd::AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    unix::openat(at, name, flags, Mode::empty())
}

fn is_link_or_file(errno: Errno) -> bool {
    matches!(errno, Errno::LOOP | Errno::NOTDIR | Errno::MLINK)
}

fn check_owner(handle: &OwnedFd, path: &Path) -> Result<Stat, OpenError> {
    let stat = unix::fstat(handle).map_err(|errno| OpenError::Io {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid == user {
        Ok(stat)
    } else {
        Err(OpenError::OtherOwner {
            path: path.to_owned(),
            owner: stat.st_uid,
            user,
        })
    }
}

/// Whether a store was made here.
fn has_tag(root: &OwnedFd) -> bool {
    let read = || -> io::Result<Vec<u8>> {
        let file = open_file(root, CACHE_TAG_FILE)?;
        let mut content = Vec::new();
        file.take(CACHE_TAG.len() as u64 + 1)
            .read_to_end(&mut content)?;
        Ok(content)
    };
    read().is_ok_and(|content| content == CACHE_TAG)
}

/// Whether there is something that no store makes.
fn has_foreign_entries(root: &OwnedFd) -> io::Result<bool> {
    let mut foreign = false;
    list(root, &mut |name| {
        let own = OWN_NAMES.iter().any(|own| name == *own);
        foreign |= !own && !is_temporary(name);
    })?;
    Ok(foreign)
}

/// Opens a regular file of this user.
fn open_file(folder: &OwnedFd, name: &str) -> io::Result<File> {
    // A FIFO must not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = unix::openat(folder, name, flags, Mode::empty());
    let file = file.map_err(|errno| match errno {
        Errno::LOOP | Errno::MLINK => {
            io::Error::new(io::ErrorKind::InvalidData, "it is a symbolic link")
        }
        // What a socket answers.
        Errno::NXIO | Errno::OPNOTSUPP => {
            io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")
        }
        errno => errno.into(),
    })?;
    check_file(&unix::fstat(&file)?)?;
    Ok(File::from(file))
}

fn list(handle: &OwnedFd, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
    for entry in Dir::read_from(handle)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            visit(OsStr::from_bytes(name));
        }
    }
    Ok(())
}

/// A regular file of this user, or what is wrong with it.
fn check_file(stat: &Stat) -> io::Result<u64> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is not a regular file but a {kind:?}"),
        ));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it belongs to user {}", stat.st_uid),
        ));
    }
    Ok(stat.st_size.try_into().unwrap_or(0))
}

impl Storage for DirectoryStorage {
    fn now(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    }

    fn read_only_reason(&self) -> Option<String> {
        self.read_only.clone()
    }

    fn list(&self, folder: Folder, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        match self.handle(folder) {
            Ok(handle) => list(handle, visit),
            Err(_) => Ok(()),
        }
    }

    fn stamp(&self, folder: Folder) -> io::Result<u64> {
        let stat = unix::fstat(self.handle(folder)?)?;
        let seconds = stat.st_mtime as u64;
        // The clock of a file system ticks slowly: another change may get the same time.
        if self.now().saturating_sub(seconds) < SETTLED {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(seconds.wrapping_mul(1_000_000_000) ^ stat.st_mtime_nsec as u64)
    }

    fn open(&self, folder: Folder, name: &str) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(open_file(self.handle(folder)?, name)?))
    }

    fn length(&self, folder: Folder, name: &str) -> io::Result<u64> {
        let stat = unix::statat(self.handle(folder)?, name, AtFlags::SYMLINK_NOFOLLOW)?;
        check_file(&stat)
    }

    fn create(&self, folder: Folder, name: &str) -> io::Result<Box<dyn WriteFile>> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = unix::openat(self.handle(folder)?, name, flags, PRIVATE_FILE)?;
        Ok(Box::new(File::from(file)))
    }

    fn rename(&self, folder: Folder, from: &str, to: &str) -> io::Result<()> {
        let handle = self.handle(folder)?;
        Ok(unix::renameat(handle, from, handle, to)?)
    }

    fn quarantine(&self, folder: Folder, from: &str, to: &str) -> io::Result<()> {
        let quarantine = self.handle(Folder::Quarantine)?;
        Ok(unix::renameat(self.handle(folder)?, from, quarantine, to)?)
    }

    fn remove(&self, folder: Folder, name: &str) -> io::Result<()> {
        let handle = self.handle(folder)?;
        match unix::unlinkat(handle, name, AtFlags::empty()) {
            // Linux says the one, others the other.
            Err(Errno::ISDIR | Errno::PERM) => {
                Ok(unix::unlinkat(handle, name, AtFlags::REMOVEDIR)?)
            }
            result => Ok(result?),
        }
    }

    fn sync_folder(&self, folder: Folder) -> io::Result<()> {
        Ok(unix::fsync(self.handle(folder)?)?)
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        // Each lock has its own open file: that is what flock counts by.
        let file = self.open_lock(OFlags::RDONLY)?;
        let locked = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(Some(Box::new(FileLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Closing the file gives the lock back.
struct FileLock(#[expect(dead_code, reason = "kept open")] File);

impl LockGuard for FileLock {}
