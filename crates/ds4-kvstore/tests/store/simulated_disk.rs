//! A disk in memory that can fail and lose power at every operation.
//!
//! It promises no more than POSIX does: what was written to a file is safe after the
//! file was synced, what was done to names after their folder was synced. What happens
//! to the rest in a crash is up to [`Crash`].

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ds4_kvstore::storage::{Folder, LockGuard, LockKind, ReadFile, Storage, WriteFile};

const FOLDERS: [Folder; 4] = [
    Folder::Root,
    Folder::Checkpoints,
    Folder::Segments,
    Folder::Quarantine,
];

/// What a crash does to operations that were not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// They are lost: the power went out.
    Lost,
    /// They are kept: only the process died.
    Kept,
    /// Any of them may be lost, and files may have holes. The number chooses which.
    Torn(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    current: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Names {
    current: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<NameChange>,
    stamp: u64,
}

impl Names {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.current);
        self.pending.push(change);
        self.stamp += 1;
    }
}

/// When operations that change something fail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failures {
    /// The power goes out instead of this operation, counted from 1.
    pub(crate) crash_at: Option<u64>,
    /// This operation fails.
    pub(crate) fail_at: Option<(u64, io::ErrorKind)>,
    /// From this operation on nothing can be created or written: the disk is full.
    pub(crate) full_from: Option<u64>,
    /// Everything that changes something fails.
    pub(crate) read_only: bool,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    folders: HashMap<Folder, Names>,
    operations: u64,
    failures: Failures,
    crashed: bool,
    clock: u64,
    shared_locks: usize,
    exclusive_lock: bool,
}

impl Disk {
    fn names(&mut self, folder: Folder) -> &mut Names {
        self.folders.entry(folder).or_default()
    }

    fn check_power(&self) -> io::Result<()> {
        if self.crashed {
            Err(io::Error::other("the power is out"))
        } else {
            Ok(())
        }
    }

    /// Counts an operation that changes something; `grows` if it needs room.
    fn operation(&mut self, grows: bool) -> io::Result<()> {
        self.check_power()?;
        self.operations += 1;
        if self.failures.crash_at == Some(self.operations) {
            self.crashed = true;
            return self.check_power();
        }
        if self.failures.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some((at, kind)) = self.failures.fail_at
            && at == self.operations
        {
            return Err(kind.into());
        }
        if grows
            && self
                .failures
                .full_from
                .is_some_and(|from| from <= self.operations)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&mut self, folder: Folder, name: &str) -> io::Result<usize> {
        self.check_power()?;
        let inode = self.names(folder).current.get(name).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A handle to a simulated disk.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    disk: Arc<Mutex<Disk>>,
}

impl SimulatedDisk {
    pub(crate) fn new() -> Self {
        let disk = Disk {
            clock: 1_000_000,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_failures(&self, failures: Failures) {
        self.disk().failures = failures;
    }

    pub(crate) fn set_clock(&self, seconds: u64) {
        self.disk().clock = seconds;
    }

    /// Operations so far that changed something.
    pub(crate) fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// What is on the disk after a crash now.
    pub(crate) fn after(&self, crash: Crash) -> Self {
        let old = self.disk();
        let mut random = match crash {
            Crash::Torn(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        };
        let mut chance = move |of: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) % of
        };
        let mut new = Disk {
            clock: old.clock,
            ..Disk::default()
        };
        for inode in &old.inodes {
            let content = match crash {
                Crash::Lost => inode.synced.clone(),
                Crash::Kept => inode.current.clone(),
                Crash::Torn(_) if inode.current == inode.synced => inode.synced.clone(),
                Crash::Torn(_) => {
                    let mut content = inode.current.clone();
                    content.truncate(chance(content.len() as u64 + 1) as usize);
                    for block in content.chunks_mut(64) {
                        if chance(4) == 0 {
                            block.fill(0);
                        }
                    }
                    content
                }
            };
            new.inodes.push(Inode {
                current: content.clone(),
                synced: content,
            });
        }
        for folder in FOLDERS {
            let Some(names) = old.folders.get(&folder) else {
                continue;
            };
            let mut durable = names.durable.clone();
            for change in &names.pending {
                let applied = match crash {
                    Crash::Lost => false,
                    Crash::Kept => true,
                    Crash::Torn(_) => chance(2) == 0,
                };
                if applied {
                    change.apply(&mut durable);
                }
            }
            let after = new.names(folder);
            after.current = durable.clone();
            after.durable = durable;
            after.stamp = names.stamp + 1;
        }
        Self {
            disk: Arc::new(Mutex::new(new)),
        }
    }

    /// Names in a folder.
    pub(crate) fn names(&self, folder: Folder) -> Vec<String> {
        self.disk().names(folder).current.keys().cloned().collect()
    }

    /// The content of a file.
    pub(crate) fn content(&self, folder: Folder, name: &str) -> Vec<u8> {
        let mut disk = self.disk();
        let inode = disk.inode(folder, name).unwrap();
        disk.inodes[inode].current.clone()
    }

    /// Puts a file there, as if by another program.
    pub(crate) fn put(&self, folder: Folder, name: &str, content: Vec<u8>) {
        let mut disk = self.disk();
        let inode = disk.inodes.len();
        disk.inodes.push(Inode {
            current: content.clone(),
            synced: content,
        });
        let names = disk.names(folder);
        names.change(NameChange::Link(name.to_owned(), inode));
        names.durable = names.current.clone();
        names.pending.clear();
    }

    /// Removes a file, as if by another program.
    pub(crate) fn delete(&self, folder: Folder, name: &str) {
        self.disk()
            .names(folder)
            .change(NameChange::Unlink(name.to_owned()));
    }

    /// A copy that goes on by itself.
    pub(crate) fn copy(&self) -> Self {
        self.after(Crash::Kept)
    }
}

impl Storage for SimulatedDisk {
    fn now(&self) -> u64 {
        self.disk().clock
    }

    fn read_only_reason(&self) -> Option<String> {
        self.disk()
            .failures
            .read_only
            .then(|| "the disk is read-only".to_owned())
    }

    fn list(&self, folder: Folder, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.disk().check_power()?;
        for name in self.names(folder) {
            visit(OsStr::new(&name));
        }
        Ok(())
    }

    fn stamp(&self, folder: Folder) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.check_power()?;
        Ok(disk.names(folder).stamp)
    }

    fn open(&self, folder: Folder, name: &str) -> io::Result<Box<dyn ReadFile>> {
        let mut disk = self.disk();
        let inode = disk.inode(folder, name)?;
        Ok(Box::new(Cursor::new(disk.inodes[inode].current.clone())))
    }

    fn length(&self, folder: Folder, name: &str) -> io::Result<u64> {
        let mut disk = self.disk();
        let inode = disk.inode(folder, name)?;
        Ok(disk.inodes[inode].current.len() as u64)
    }

    fn create(&self, folder: Folder, name: &str) -> io::Result<Box<dyn WriteFile>> {
        let mut disk = self.disk();
        disk.operation(true)?;
        if disk.names(folder).current.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.names(folder)
            .change(NameChange::Link(name.to_owned(), inode));
        Ok(Box::new(NewFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn rename(&self, folder: Folder, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation(false)?;
        let inode = disk.inode(folder, from)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        disk.names(folder).change(change);
        Ok(())
    }

    fn quarantine(&self, folder: Folder, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation(false)?;
        let inode = disk.inode(folder, from)?;
        // Two folders: a crash may keep either change without the other.
        disk.names(folder)
            .change(NameChange::Unlink(from.to_owned()));
        disk.names(Folder::Quarantine)
            .change(NameChange::Link(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, folder: Folder, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation(false)?;
        disk.inode(folder, name)?;
        disk.names(folder)
            .change(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, folder: Folder) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation(false)?;
        let names = disk.names(folder);
        names.durable = names.current.clone();
        names.pending.clear();
        Ok(())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        let mut disk = self.disk();
        disk.check_power()?;
        let free = match kind {
            LockKind::Shared => !disk.exclusive_lock,
            LockKind::Exclusive => !disk.exclusive_lock && disk.shared_locks == 0,
        };
        if !free {
            return Ok(None);
        }
        match kind {
            LockKind::Shared => disk.shared_locks += 1,
            LockKind::Exclusive => disk.exclusive_lock = true,
        }
        Ok(Some(Box::new(Lock {
            disk: self.clone(),
            kind,
        })))
    }
}

struct Lock {
    disk: SimulatedDisk,
    kind: LockKind,
}

impl LockGuard for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut disk = self.disk.disk();
        match self.kind {
            LockKind::Shared => disk.shared_locks -= 1,
            LockKind::Exclusive => disk.exclusive_lock = false,
        }
    }
}

struct NewFile {
    disk: SimulatedDisk,
    inode: usize,
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        disk.operation(true)?;
        // Short writes happen.
        let taken = bytes.len().min(300);
        disk.inodes[self.inode]
            .current
            .extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for NewFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.operation(false)?;
        let inode = &mut disk.inodes[self.inode];
        inode.synced = inode.current.clone();
        Ok(())
    }
}
