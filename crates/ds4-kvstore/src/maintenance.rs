//! Eviction, removal, verification.
//!
//! Whatever removes files holds the exclusive lock. A checkpoint goes before its
//! segments, and its removal is durable before they go: no crash leaves a checkpoint
//! without segments.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::chain::{CheckpointId, SegmentName};
use crate::error::MaintenanceError;
use crate::eviction::Candidates;
use crate::format::FileError;
use crate::refusal::LockHeld;
use crate::storage::{Folder, LockGuard};
use crate::store::{Inner, Problem, Store};

/// How long to wait for those who load and save.
const PATIENCE: Duration = Duration::from_secs(3);

/// What pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Checkpoints removed.
    pub checkpoints: usize,
    /// Segments removed.
    pub segments: usize,
    /// Bytes freed.
    pub bytes: u64,
}

impl Store {
    /// Removes a checkpoint, and the segments that only it used. A crash does not bring
    /// it back.
    ///
    /// # Errors
    /// It is unknown, being loaded, or another process is using the store.
    pub fn remove(&self, id: &CheckpointId) -> Result<Pruned, MaintenanceError> {
        let inner = &*self.inner;
        let _lock = inner.exclusive()?;
        inner.refresh(true, LockHeld::Exclusive);
        {
            let state = inner.state();
            let entry = state
                .index
                .entry(id)
                .ok_or(MaintenanceError::Unknown(*id))?;
            if entry.pins > 0 {
                return Err(MaintenanceError::Pinned(*id));
            }
        }
        let mut pruned = Pruned::default();
        inner.remove_checkpoint(id, &mut pruned)?;
        inner.finish_removal(&mut pruned)?;
        Ok(pruned)
    }

    /// Evicts the least valuable checkpoints until at most `bytes` are used, and
    /// removes what crashes left behind and what is in quarantine.
    ///
    /// # Errors
    /// The store is read-only, or another process is using it.
    pub fn prune(&self, bytes: u64) -> Result<Pruned, MaintenanceError> {
        let pruned = self.inner.evict(bytes, usize::MAX)?;
        self.inner.trim_quarantine(0, 0);
        Ok(pruned)
    }

    /// Reads every file whole and checks everything. Damaged files are moved aside, and
    /// checkpoints that lack a segment are removed, if the store can write. `progress` is
    /// called before each file with (bytes read, bytes in all), and can stop the work.
    ///
    /// # Errors
    /// The directory cannot be listed, or `progress` stopped.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Vec<Problem>, MaintenanceError> {
        let inner = &*self.inner;
        let failed = |source| MaintenanceError::Io {
            action: "list the files",
            source,
        };
        inner.refresh(true, LockHeld::No);
        let mut problems: Vec<Problem> = self.problems();
        let checkpoints = inner.list(Folder::Checkpoints).map_err(failed)?;
        let segments = inner.list(Folder::Segments).map_err(failed)?;
        for (folder, unknown) in [
            (Folder::Checkpoints, checkpoints.unknown),
            (Folder::Segments, segments.unknown),
        ] {
            problems.extend(unknown.into_iter().map(|name| Problem {
                file: format!("{}/{name}", folder.name()),
                reason: "is no file of the store; it is left alone".to_owned(),
            }));
        }
        let length = |folder, name: &str| inner.storage.length(folder, name).unwrap_or(0);
        let checkpoints: Vec<(CheckpointId, u64)> = checkpoints
            .names
            .into_iter()
            .map(|id: CheckpointId| (id, length(Folder::Checkpoints, &id.to_string())))
            .collect();
        let segments: Vec<(SegmentName, u64)> = segments
            .names
            .into_iter()
            .map(|name: SegmentName| (name, length(Folder::Segments, &name.to_string())))
            .collect();
        let sizes = checkpoints.iter().map(|(_, bytes)| bytes);
        let total = sizes.chain(segments.iter().map(|(_, bytes)| bytes)).sum();
        let mut done = 0;
        for (id, bytes) in checkpoints {
            stopped(progress(done, total))?;
            if let Some(reason) = damage(inner.check_checkpoint(&id)) {
                inner.refuse_checkpoints(&[(id, reason.clone())], LockHeld::No);
                problems.push(Problem {
                    file: format!("checkpoints/{id}"),
                    reason,
                });
            }
            done += bytes;
        }
        for (name, bytes) in segments {
            stopped(progress(done, total))?;
            if let Some(reason) = damage(inner.check_segment(&name)) {
                inner.refuse_segment(name, &reason);
                problems.push(Problem {
                    file: format!("segments/{name}"),
                    reason,
                });
            }
            done += bytes;
        }
        stopped(progress(total, total))?;
        problems.extend(inner.remove_incomplete());
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.file.clone()));
        Ok(problems)
    }
}

fn stopped(control: ControlFlow<()>) -> Result<(), MaintenanceError> {
    match control {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(MaintenanceError::Stopped),
    }
}

/// What is wrong with a file; one that has gone meanwhile is not.
fn damage(checked: Result<(), FileError>) -> Option<String> {
    match checked {
        Err(error) if !error.is_gone() => Some(error.to_string()),
        _ => None,
    }
}

impl Inner {
    fn exclusive(&self) -> Result<Box<dyn LockGuard>, MaintenanceError> {
        if let Some(reason) = self.state().read_only.clone() {
            return Err(MaintenanceError::ReadOnly { reason });
        }
        self.writable_lock(PATIENCE)
            .map_err(|source| self.removal_error("take the lock", source))?
            .ok_or(MaintenanceError::Busy)
    }

    fn removal_error(&self, action: &'static str, source: io::Error) -> MaintenanceError {
        self.note_write_error(&source);
        MaintenanceError::Io { action, source }
    }

    /// Removes the least valuable until what is needed takes at most `bytes`, in at most
    /// `checkpoints`.
    pub(crate) fn evict(&self, bytes: u64, checkpoints: usize) -> Result<Pruned, MaintenanceError> {
        let _lock = self.exclusive()?;
        self.refresh(true, LockHeld::Exclusive);
        let mut pruned = Pruned::default();
        let (mut candidates, mut used) = {
            let state = self.state();
            let candidates = Candidates::of(&state.index, self.storage.now());
            (candidates, state.index.needed_bytes())
        };
        let mut result = Ok(());
        loop {
            let next = {
                let state = self.state();
                if used <= bytes && state.index.len() <= checkpoints {
                    break;
                }
                candidates.next(&state.index).map(|id| {
                    let entry = state.index.entry(&id);
                    (id, entry.map_or(0, |entry| state.index.own_bytes(entry)))
                })
            };
            let Some((id, own)) = next else {
                break;
            };
            result = self.remove_checkpoint(&id, &mut pruned);
            if result.is_err() {
                break;
            }
            used = used.saturating_sub(own);
        }
        self.state().recent.evicted += pruned.checkpoints as u64;
        // What did go is finished, whatever happened to the others.
        self.finish_removal(&mut pruned)?;
        result.map(|()| pruned)
    }

    /// Removes a checkpoint's file; [`finish_removal`](Self::finish_removal) does the rest.
    fn remove_checkpoint(
        &self,
        id: &CheckpointId,
        pruned: &mut Pruned,
    ) -> Result<(), MaintenanceError> {
        self.state().changes += 1;
        match self.storage.remove(Folder::Checkpoints, &id.to_string()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.removal_error("remove a checkpoint", error)),
        }
        if let Some(entry) = self.state().index.remove(id) {
            pruned.checkpoints += 1;
            pruned.bytes += entry.manifest.file_bytes;
        }
        Ok(())
    }

    /// Makes the removal of checkpoints durable, then removes the segments that nobody
    /// needs any more.
    fn finish_removal(&self, pruned: &mut Pruned) -> Result<(), MaintenanceError> {
        self.storage
            .sync_folder(Folder::Checkpoints)
            .map_err(|source| self.removal_error("sync the checkpoints", source))?;
        self.remove_orphans(pruned)
            .map_err(|source| self.removal_error("remove a segment", source))
    }

    fn remove_orphans(&self, pruned: &mut Pruned) -> io::Result<()> {
        let orphans = self.state().index.orphans();
        if orphans.is_empty() {
            return Ok(());
        }
        self.state().changes += 1;
        for (name, bytes) in orphans {
            match self.storage.remove(Folder::Segments, &name.to_string()) {
                Ok(()) => {
                    pruned.segments += 1;
                    pruned.bytes += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.state().index.segment_removed(&name);
        }
        self.storage.sync_folder(Folder::Segments)
    }

    /// Under the exclusive lock: removes what a crash or a failed save left behind. What
    /// cannot be removed now is removed another time.
    pub(crate) fn tidy(&self) {
        for folder in [Folder::Root, Folder::Checkpoints, Folder::Segments] {
            // Names do not matter, only what is temporary.
            let Ok(listing) = self.list::<SegmentName>(folder) else {
                continue;
            };
            for name in listing.temporary {
                let _ = self.storage.remove(folder, &name);
            }
        }
        // A removal that the crash undid must not come back to segments that are gone.
        if self.storage.sync_folder(Folder::Checkpoints).is_ok() {
            let _ = self.remove_orphans(&mut Pruned::default());
        }
    }

    /// Removes checkpoints that lack a segment: they are never loaded.
    fn remove_incomplete(&self) -> Vec<Problem> {
        let lock = self.exclusive();
        if lock.is_ok() {
            self.refresh(true, LockHeld::Exclusive);
        }
        let incomplete: Vec<CheckpointId> = {
            let state = self.state();
            state
                .index
                .entries()
                .filter(|entry| !state.index.is_complete(entry))
                .filter(|entry| !state.index.is_refused(&entry.manifest.id))
                .map(|entry| entry.manifest.id)
                .collect()
        };
        let mut pruned = Pruned::default();
        let problems = incomplete
            .iter()
            .map(|id| {
                let removed = lock.is_ok() && self.remove_checkpoint(id, &mut pruned).is_ok();
                Problem {
                    file: format!("checkpoints/{id}"),
                    reason: if removed {
                        "lacked a segment and was removed".to_owned()
                    } else {
                        "lacks a segment".to_owned()
                    },
                }
            })
            .collect();
        if pruned.checkpoints > 0 {
            let _ = self.finish_removal(&mut pruned);
        }
        problems
    }
}
