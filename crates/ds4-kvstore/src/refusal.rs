//! Files that are refused: they are never found again, and moved aside if possible.

use std::io;
use std::time::Duration;

use crate::chain::{CheckpointId, SegmentName};
use crate::format::{CheckpointFile, FileError, SegmentFile};
use crate::storage::{Folder, LockGuard};
use crate::store::Inner;

/// How long moving a file aside waits for others. If they take longer, it stays, and
/// only this process knows that it is damaged.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether the caller holds the exclusive lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockHeld {
    /// It does not.
    No,
    /// It does.
    Exclusive,
}

impl Inner {
    /// Never finds these checkpoints again, and moves their files aside.
    pub(crate) fn refuse_checkpoints(&self, refused: &[(CheckpointId, String)], held: LockHeld) {
        if refused.is_empty() {
            return;
        }
        for (id, reason) in refused {
            self.state().index.refuse(*id);
            self.report(format!("checkpoints/{id}"), reason.clone());
        }
        let Some(_lock) = self.lock_to_move(held) else {
            return;
        };
        for (id, _) in refused {
            // Another process may have saved it anew.
            if self.check_checkpoint(id).is_ok() {
                self.state().index.accept(id);
            } else if self
                .move_aside(Folder::Checkpoints, &id.to_string())
                .is_ok()
            {
                self.state().index.remove(id);
            }
        }
    }

    /// Never finds this checkpoint again and moves its file aside, whatever is in it.
    pub(crate) fn reject_checkpoint(&self, id: CheckpointId, reason: String) {
        self.state().index.refuse(id);
        self.report(format!("checkpoints/{id}"), reason);
        let Some(_lock) = self.lock_to_move(LockHeld::No) else {
            return;
        };
        if self
            .move_aside(Folder::Checkpoints, &id.to_string())
            .is_ok()
        {
            self.state().index.remove(&id);
        }
    }

    /// Takes a segment as missing and moves its file aside.
    pub(crate) fn refuse_segment(&self, name: SegmentName, reason: &str) {
        self.state().index.refuse_segment(name);
        self.report(format!("segments/{name}"), reason.to_owned());
        let Some(_lock) = self.lock_to_move(LockHeld::No) else {
            return;
        };
        if self.check_segment(&name).is_ok() {
            self.state().index.segment_written(&name);
        } else if self.move_aside(Folder::Segments, &name.to_string()).is_ok() {
            self.state().index.segment_removed(&name);
        }
    }

    fn lock_to_move(&self, held: LockHeld) -> Option<Option<Box<dyn LockGuard>>> {
        match held {
            LockHeld::Exclusive => Some(None),
            LockHeld::No => self.writable_lock(PATIENCE).ok().flatten().map(Some),
        }
    }

    /// Reads a checkpoint's file whole.
    pub(crate) fn check_checkpoint(&self, id: &CheckpointId) -> Result<(), FileError> {
        let mut file = self.storage.open(Folder::Checkpoints, &id.to_string())?;
        let file = CheckpointFile::read(&mut *file)?;
        if file.manifest.id != *id {
            return Err(FileError::Mismatch { what: "id" });
        }
        Ok(())
    }

    /// Reads a segment's file whole.
    pub(crate) fn check_segment(&self, name: &SegmentName) -> Result<(), FileError> {
        let mut file = self.storage.open(Folder::Segments, &name.to_string())?;
        if SegmentFile::read(&mut *file)?.name != *name {
            return Err(FileError::Mismatch { what: "name" });
        }
        Ok(())
    }

    /// Moves a file to the quarantine, and keeps that within its limits.
    pub(crate) fn move_aside(&self, folder: Folder, name: &str) -> io::Result<()> {
        let limits = &self.limits;
        if limits.max_quarantine_files == 0 {
            return self.storage.remove(folder, name);
        }
        // In order of time; the start of the name says what it was.
        let start: String = name.chars().take(16).collect();
        let to = format!(
            "{:012}-{}-{:06}-{}-{start}",
            self.storage.now(),
            std::process::id(),
            self.next_number(),
            folder.name(),
        );
        self.state().changes += 1;
        self.storage.quarantine(folder, name, &to)?;
        self.trim_quarantine(limits.max_quarantine_files, limits.max_quarantine_bytes);
        Ok(())
    }

    /// Removes the oldest of the quarantine until the rest is within these limits.
    pub(crate) fn trim_quarantine(&self, max_files: usize, max_bytes: u64) {
        let mut names = Vec::new();
        let listed = self.storage.list(Folder::Quarantine, &mut |name| {
            names.extend(name.to_str().map(str::to_owned));
        });
        if listed.is_err() {
            return;
        }
        names.sort();
        let lengths = names
            .iter()
            .map(|name| self.storage.length(Folder::Quarantine, name).unwrap_or(0));
        let lengths: Vec<u64> = lengths.collect();
        let mut bytes: u64 = lengths.iter().sum();
        let mut files = names.len();
        for (name, length) in names.iter().zip(lengths) {
            if files <= max_files && bytes <= max_bytes {
                return;
            }
            if self.storage.remove(Folder::Quarantine, name).is_ok() {
                files -= 1;
                bytes -= length;
            }
        }
    }
}
