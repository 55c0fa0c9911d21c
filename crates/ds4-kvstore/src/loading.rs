//! Loading a checkpoint: everything is read and checked before anything is given out.
//!
//! Files are read, not mapped: a mapped file that another program truncates ends the
//! process, and the rows are copied to the device anyway.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::chain::SegmentName;
use crate::checkpoint::{CheckpointKind, Loaded};
use crate::error::LoadError;
use crate::format::{CheckpointFile, FileError, Manifest, SegmentFile};
use crate::refusal::LockHeld;
use crate::storage::{Folder, LockKind};
use crate::store::{Hit, Inner, Store};

/// How long a load waits for those who remove. Without the lock it may find that a file
/// has gone, nothing worse.
const PATIENCE: Duration = Duration::from_secs(1);
/// Below this many bytes another thread is not worth starting.
const BYTES_PER_THREAD: u64 = 4 << 20;

impl Store {
    /// Reads the checkpoint: the segments from `first_span` on (the engine may have
    /// those before in memory), frontier and attachment. Checks every checksum and
    /// every token first.
    ///
    /// # Errors
    /// The checkpoint is gone, damaged or does not fit memory. It will not be found
    /// again; look up once more for a shorter one, or compute.
    pub fn load(&self, hit: &Hit, first_span: usize) -> Result<Loaded, LoadError> {
        let inner = &*self.inner;
        let lock = inner.lock(LockKind::Shared, PATIENCE).ok().flatten();
        let result = inner.read_checkpoint(hit, first_span);
        drop(lock);
        match result {
            Ok(loaded) => {
                inner.count_hit(hit);
                Ok(loaded)
            }
            Err(failure) => Err(inner.load_error(hit, failure)),
        }
    }

    /// Moves a checkpoint aside that was loaded but that the engine cannot use, so that
    /// it is not found, loaded and refused for ever.
    pub fn reject(&self, hit: &Hit, reason: &str) {
        self.inner
            .reject_checkpoint(hit.id(), format!("is not usable: {reason}"));
    }
}

/// Which file could not be used.
enum Failure {
    Checkpoint(FileError),
    Segment(SegmentName, FileError),
}

impl Inner {
    fn read_checkpoint(&self, hit: &Hit, first_span: usize) -> Result<Loaded, Failure> {
        let file = self
            .storage
            .open(Folder::Checkpoints, &hit.id().to_string())
            .map_err(Into::into)
            .and_then(|mut file| CheckpointFile::read(&mut *file))
            .map_err(Failure::Checkpoint)?;
        if file.manifest.id != hit.id() {
            return Err(Failure::Checkpoint(FileError::Mismatch { what: "id" }));
        }
        let first_span = first_span.min(file.manifest.segments.len());
        let segments = self.read_segments(&file.manifest, first_span)?;
        Ok(Loaded {
            tokens: file.tokens,
            first_span,
            segments,
            frontier: file.frontier,
            attachment: file.attachment,
        })
    }

    /// Reads segments with several threads: hashing takes longer than reading.
    fn read_segments(
        &self,
        manifest: &Manifest,
        first_span: usize,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let names = &manifest.segments[first_span..];
        let bytes = manifest.segment_bytes.saturating_mul(names.len() as u64);
        let useful = usize::try_from(bytes / BYTES_PER_THREAD).unwrap_or(usize::MAX);
        let threads = self.limits.load_threads.min(useful).min(names.len()).max(1);
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let work = || -> Result<Vec<(usize, Vec<u8>)>, Failure> {
            let mut read = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(at) else {
                    break;
                };
                match self.read_segment(name, manifest) {
                    Ok(rows) => read.push((at, rows)),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        return Err(Failure::Segment(*name, error));
                    }
                }
            }
            Ok(read)
        };
        let parts = thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let mut parts = vec![work()];
            parts.extend(others.into_iter().filter_map(|other| other.join().ok()));
            parts
        });
        let mut segments = vec![None; names.len()];
        for part in parts {
            for (at, rows) in part? {
                segments[at] = Some(rows);
            }
        }
        // A thread that panicked leaves a gap.
        segments
            .into_iter()
            .zip(names)
            .map(|(rows, name)| {
                let gap = || Failure::Segment(*name, FileError::Memory { bytes: 0 });
                rows.ok_or_else(gap)
            })
            .collect()
    }

    fn read_segment(&self, name: &SegmentName, manifest: &Manifest) -> Result<Vec<u8>, FileError> {
        let mut file = self.storage.open(Folder::Segments, &name.to_string())?;
        // The file says its own name, and the name is a hash of all its tokens: if it is
        // the right one, so are they.
        let segment = SegmentFile::read(&mut *file)?;
        if segment.name != *name {
            return Err(FileError::Mismatch { what: "name" });
        }
        if segment.key != manifest.key {
            return Err(FileError::Mismatch {
                what: "model or format",
            });
        }
        if segment.rows.len() as u64 != manifest.segment_bytes {
            return Err(FileError::Mismatch {
                what: "size of its rows",
            });
        }
        Ok(segment.rows)
    }

    fn count_hit(&self, hit: &Hit) {
        let now = self.storage.now();
        let mut state = self.state();
        let Some(entry) = state.index.entry_mut(&hit.id()) else {
            return;
        };
        entry.hits += 1;
        entry.new_hits += 1;
        entry.last_used = now;
        let kind = entry.manifest.kind;
        let seconds = entry.manifest.prefill_seconds;
        let recent = &mut state.recent;
        if let Some(at) = CheckpointKind::ALL.iter().position(|other| *other == kind) {
            recent.hits[at] += 1;
        }
        recent.tokens_restored += hit.tokens() as u64;
        recent.seconds_saved += seconds;
    }

    fn load_error(&self, hit: &Hit, failure: Failure) -> LoadError {
        let id = hit.id();
        let (file, error) = match failure {
            Failure::Checkpoint(error) => (format!("checkpoints/{id}"), error),
            Failure::Segment(name, error) => {
                if error.is_gone() {
                    self.state().index.segment_removed(&name);
                } else if !error.is_transient() {
                    self.refuse_segment(name, &error.to_string());
                }
                (format!("segments/{name}"), error)
            }
        };
        let is_checkpoint = file.starts_with("checkpoints/");
        if error.is_gone() {
            if is_checkpoint {
                self.state().index.remove(&id);
            }
            return LoadError::Gone(id);
        }
        if !error.is_transient() {
            let reason = error.to_string();
            if is_checkpoint {
                self.refuse_checkpoints(&[(id, reason.clone())], LockHeld::No);
            }
            return LoadError::Refused { id, file, reason };
        }
        match error {
            FileError::Io(source) => LoadError::Io(source),
            FileError::Memory { bytes } => LoadError::Memory { bytes },
            other => LoadError::Io(std::io::Error::other(other)),
        }
    }
}
