//! Saving a checkpoint.
//!
//! Order of events: segments are written, each under a temporary name, synced and
//! renamed; the segments' folder is synced; then the checkpoint's file, in the same
//! way. A crash before the last rename leaves segments that no checkpoint needs; they
//! are removed later, or used by the next save. The shared lock is held all the time,
//! so that nobody removes a segment that was found on disk.

use std::io::{self, Write};
use std::sync::PoisonError;
use std::time::Duration;

use crate::chain::{self, CheckpointId};
use crate::checkpoint::{
    CheckpointData, MAX_ATTACHMENT_BYTES, MAX_FRONTIER_BYTES, MAX_MODEL_NAME_BYTES,
    MAX_SEGMENT_BYTES, SegmentSource,
};
use crate::error::{MaintenanceError, SaveError};
use crate::format::{Manifest, SegmentIdentity, checkpoint_file_bytes, segment_file_bytes};
use crate::listing::temporary_name;
use crate::refusal::LockHeld;
use crate::storage::{Folder, LockKind, is_full};
use crate::store::{Inner, SavePlan, Store};

/// How long a save waits for those who remove.
const PATIENCE: Duration = Duration::from_secs(10);
/// Temporary names that are tried; processes in other containers may have the same numbers.
const NAMES: usize = 100;

/// What a save wrote. It is on disk when this is returned: a crash does not lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The checkpoint's name.
    pub id: CheckpointId,
    /// Segments that were written; the others were there.
    pub segments_written: usize,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Checkpoints that had to go.
    pub evicted: usize,
}

impl Store {
    /// Saves a checkpoint, evicting others if there is no room. Writes only segments
    /// that are missing. Takes as long as the disk: call it from a
    /// [`BackgroundWriter`](crate::BackgroundWriter).
    ///
    /// # Errors
    /// Nothing was saved; what was there before still is, except what was evicted.
    pub fn save(
        &self,
        plan: &SavePlan,
        data: &CheckpointData,
        source: &mut dyn SegmentSource,
    ) -> Result<Saved, SaveError> {
        let inner = &*self.inner;
        check_data(data)?;
        if let Some(reason) = inner.state().read_only.clone() {
            return Err(SaveError::ReadOnly { reason });
        }
        let _turn = inner.saving.lock().unwrap_or_else(PoisonError::into_inner);
        inner.refresh(false, LockHeld::No);
        let evicted = inner.make_room(plan, data)?;
        let result = inner.save_locked(plan, data, source);
        match result {
            Ok(mut saved) => {
                saved.evicted = evicted;
                inner.state().recent.saved += 1;
                inner.write_usage(Duration::ZERO);
                Ok(saved)
            }
            Err(error) => {
                // Segments that were written are of no use now.
                if let Ok(Some(_lock)) = inner.writable_lock(Duration::from_millis(100)) {
                    inner.refresh(true, LockHeld::Exclusive);
                    inner.tidy();
                }
                Err(error)
            }
        }
    }
}

fn check_data(data: &CheckpointData) -> Result<(), SaveError> {
    let sizes = [
        (
            "the size of the frontier in bytes",
            data.frontier.len() as u64,
            MAX_FRONTIER_BYTES,
            "at most 4 GiB",
        ),
        (
            "the size of the attachment in bytes",
            data.attachment.len() as u64,
            MAX_ATTACHMENT_BYTES,
            "at most 256 MiB",
        ),
        (
            "the size of a segment in bytes",
            data.segment_bytes,
            MAX_SEGMENT_BYTES,
            "at most 1 GiB",
        ),
    ];
    for (name, found, most, expected) in sizes {
        if found > most {
            return Err(SaveError::Setting {
                name,
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// The name as far as it fits.
fn model_name(data: &CheckpointData) -> &str {
    let end = data.model_name.floor_char_boundary(MAX_MODEL_NAME_BYTES);
    &data.model_name[..end]
}

impl Inner {
    /// Evicts until the checkpoint fits; says how many had to go.
    fn make_room(&self, plan: &SavePlan, data: &CheckpointData) -> Result<usize, SaveError> {
        let checkpoint = checkpoint_file_bytes(
            &plan.key,
            plan.tokens.len(),
            model_name(data),
            data.attachment.len() as u64,
            data.frontier.len() as u64,
        );
        let segment = segment_file_bytes(plan.key.span_tokens, data.segment_bytes);
        let limit = self.limits.max_bytes;
        let (bytes, held, needed, checkpoints) = {
            let state = self.state();
            let missing = state.index.count_missing(&plan.names) as u64;
            let needed = checkpoint.saturating_add(missing.saturating_mul(segment));
            let held = state.index.held_bytes(&plan.names);
            (state.index.bytes(), held, needed, state.index.len())
        };
        if held.saturating_add(needed) > limit {
            return Err(SaveError::NoRoom {
                needed,
                available: limit.saturating_sub(held),
                limit,
            });
        }
        let most = self.limits.max_checkpoints - 1;
        if bytes.saturating_add(needed) <= limit && checkpoints <= most {
            return Ok(0);
        }
        match self.evict(limit - needed, most) {
            Ok(pruned) => Ok(pruned.checkpoints),
            Err(MaintenanceError::Io { action, source }) => Err(SaveError::Io { action, source }),
            Err(MaintenanceError::ReadOnly { reason }) => Err(SaveError::ReadOnly { reason }),
            Err(_) => Err(SaveError::Busy),
        }
    }

    fn save_locked(
        &self,
        plan: &SavePlan,
        data: &CheckpointData,
        source: &mut dyn SegmentSource,
    ) -> Result<Saved, SaveError> {
        let failed = |action| move |source| self.save_error(action, source);
        let lock = self
            .lock(LockKind::Shared, PATIENCE)
            .map_err(failed("take the lock"))?;
        let Some(_lock) = lock else {
            return Err(SaveError::Busy);
        };
        let mut segments_written = 0;
        let mut bytes_written = 0;
        let root = chain::root(&plan.key);
        let file_bytes = segment_file_bytes(plan.key.span_tokens, data.segment_bytes);
        let spans = plan.tokens.chunks_exact(plan.key.span());
        for (span, (name, tokens)) in plan.names.iter().zip(spans).enumerate() {
            let refused = self.state().index.is_refused_segment(name);
            let file_name = name.to_string();
            let there = self
                .is_there(Folder::Segments, &file_name, file_bytes)
                .map_err(failed("look for a segment"))?;
            if there && !refused {
                continue;
            }
            let rows = source
                .segment(span)
                .map_err(|source| SaveError::Source { span, source })?
                .ok_or(SaveError::SegmentGone { span })?;
            if rows.len() as u64 != data.segment_bytes {
                return Err(SaveError::SegmentSize {
                    span,
                    found: rows.len(),
                    expected: data.segment_bytes,
                });
            }
            let identity = SegmentIdentity {
                name: *name,
                parent: if span == 0 {
                    root
                } else {
                    plan.names[span - 1]
                },
                key: plan.key,
                tokens,
            };
            self.write_file(Folder::Segments, &file_name, &mut |file| {
                identity.write(&rows, file)
            })
            .map_err(failed("write a segment"))?;
            self.state().changes += 1;
            segments_written += 1;
            bytes_written += file_bytes;
        }
        // Those that were there, too: another process may have renamed them only just now.
        if !plan.names.is_empty() {
            self.storage
                .sync_folder(Folder::Segments)
                .map_err(failed("sync the segments"))?;
        }
        let now = self.storage.now();
        let prefill_seconds = data.prefill_seconds;
        let mut manifest = Manifest {
            id: plan.id,
            key: plan.key,
            kind: data.kind,
            model_name: model_name(data).to_owned(),
            tokens: plan.tokens.len(),
            segment_bytes: data.segment_bytes,
            created: now,
            prefill_seconds: if prefill_seconds.is_finite() {
                prefill_seconds.max(0.0)
            } else {
                0.0
            },
            segments: plan.names.clone(),
            tail: plan.tokens[plan.names.len() * plan.key.span()..].to_vec(),
            file_bytes: 0,
        };
        manifest.file_bytes = checkpoint_file_bytes(
            &plan.key,
            plan.tokens.len(),
            &manifest.model_name,
            data.attachment.len() as u64,
            data.frontier.len() as u64,
        );
        bytes_written += manifest.file_bytes;
        let file_name = plan.id.to_string();
        self.is_there(Folder::Checkpoints, &file_name, 0)
            .map_err(failed("look for the checkpoint"))?;
        self.write_file(Folder::Checkpoints, &file_name, &mut |file| {
            manifest.write(&plan.tokens, &data.attachment, &data.frontier, file)
        })
        .and_then(|()| self.storage.sync_folder(Folder::Checkpoints))
        .map_err(failed("write the checkpoint"))?;

        let mut state = self.state();
        state.changes += 1;
        let hits = state.index.entry(&plan.id).map_or(0, |entry| entry.hits);
        state.index.insert(manifest, now, hits);
        for name in &plan.names {
            state.index.segment_written(name);
        }
        Ok(Saved {
            id: plan.id,
            segments_written,
            bytes_written,
            evicted: 0,
        })
    }

    /// Whether a file of this size is there. What is no file is moved out of the way.
    fn is_there(&self, folder: Folder, name: &str, bytes: u64) -> io::Result<bool> {
        match self.storage.length(folder, name) {
            Ok(found) => Ok(found == bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.report(format!("{}/{name}", folder.name()), error.to_string());
                self.move_aside(folder, name)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a file so that it is there whole or not at all, also after a crash. Its name
    /// becomes durable when its folder is synced.
    pub(crate) fn write_file(
        &self,
        folder: Folder,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let (temporary, mut file) = self.create_temporary(folder)?;
        let written = write(&mut *file).and_then(|()| file.sync());
        drop(file);
        let renamed = written.and_then(|()| self.storage.rename(folder, &temporary, name));
        if renamed.is_err() {
            // What is left of it would only take up space.
            let _ = self.storage.remove(folder, &temporary);
        }
        renamed
    }

    fn create_temporary(
        &self,
        folder: Folder,
    ) -> io::Result<(String, Box<dyn crate::storage::WriteFile>)> {
        for _ in 0..NAMES {
            let name = temporary_name(self.next_number());
            match self.storage.create(folder, &name) {
                Ok(file) => return Ok((name, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn save_error(&self, action: &'static str, source: io::Error) -> SaveError {
        self.note_write_error(&source);
        if is_full(&source) {
            SaveError::DiskFull(source)
        } else {
            SaveError::Io { action, source }
        }
    }
}
