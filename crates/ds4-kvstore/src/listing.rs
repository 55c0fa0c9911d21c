//! What is on disk, and when it was used.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use crate::chain::{CheckpointId, SegmentName};
use crate::format::{CheckpointUsage, Manifest, UsageFile};
use crate::refusal::LockHeld;
use crate::statistics::Statistics;
use crate::storage::{Folder, LockKind};
use crate::store::Inner;

const USAGE_FILE: &str = "usage";
/// Names of a folder that are taken into account.
const MAX_NAMES: usize = 1 << 21;
/// How often a listing is begun again because this process changed files meanwhile.
const ATTEMPTS: usize = 3;

/// The end of temporary names; the beginning is a dot, which no hash has.
const TEMPORARY_END: &str = ".tmp";

/// A name for a file that is being written.
pub(crate) fn temporary_name(number: u64) -> String {
    format!(".{}-{number}{TEMPORARY_END}", std::process::id())
}

/// Whether a file is, or was, being written.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(TEMPORARY_END.as_bytes())
}

/// What is in a folder.
pub(crate) struct Listing<N> {
    pub(crate) names: Vec<N>,
    pub(crate) temporary: Vec<String>,
    /// Names that no store makes.
    pub(crate) unknown: Vec<String>,
}

impl Inner {
    pub(crate) fn list<N: FromStr>(&self, folder: Folder) -> io::Result<Listing<N>> {
        let mut listing = Listing {
            names: Vec::new(),
            temporary: Vec::new(),
            unknown: Vec::new(),
        };
        let mut count = 0;
        self.storage.list(folder, &mut |name| {
            count += 1;
            if count > MAX_NAMES {
                return;
            }
            let text = name.to_str();
            if let Some(name) = text.and_then(|text| text.parse().ok()) {
                listing.names.push(name);
            } else if let Some(text) = text
                && is_temporary(name)
            {
                listing.temporary.push(text.to_owned());
            } else {
                let text: String = name.to_string_lossy().chars().take(80).collect();
                listing.unknown.push(text);
            }
        })?;
        Ok(listing)
    }

    /// Brings the index up to date with the disk; without `always` only if the folders changed.
    ///
    /// Checkpoints are listed before segments: a save writes in the other order, so
    /// whatever is found is whole.
    pub(crate) fn refresh(&self, always: bool, held: LockHeld) {
        for _ in 0..ATTEMPTS {
            let stamps = self.stamps();
            let changes = {
                let state = self.state();
                if !always && stamps.is_some() && state.stamps == stamps {
                    return;
                }
                state.changes
            };
            let Ok(checkpoints) = self.list::<CheckpointId>(Folder::Checkpoints) else {
                return;
            };
            let most = self.limits.max_checkpoints.saturating_mul(4);
            let listed: HashSet<CheckpointId> = checkpoints.names.into_iter().take(most).collect();
            self.read_new_manifests(&listed, held);
            let Ok(segments) = self.list::<SegmentName>(Folder::Segments) else {
                return;
            };
            let segments = segments.names.into_iter().collect();
            let orphans = {
                let mut state = self.state();
                if state.changes != changes {
                    continue;
                }
                let gone: Vec<CheckpointId> = state
                    .index
                    .entries()
                    .map(|entry| entry.manifest.id)
                    .filter(|id| !listed.contains(id))
                    .collect();
                for id in gone {
                    state.index.remove(&id);
                }
                state.stamps = stamps;
                state.index.set_listing(&segments)
            };
            for name in orphans {
                let length = self.storage.length(Folder::Segments, &name.to_string());
                let bytes = length.unwrap_or(0);
                self.state().index.add_orphan(name, bytes);
            }
            return;
        }
    }

    fn stamps(&self) -> Option<(u64, u64)> {
        let checkpoints = self.storage.stamp(Folder::Checkpoints).ok()?;
        Some((checkpoints, self.storage.stamp(Folder::Segments).ok()?))
    }

    fn read_new_manifests(&self, listed: &HashSet<CheckpointId>, held: LockHeld) {
        let new: Vec<CheckpointId> = {
            let state = self.state();
            let is_new =
                |id: &&CheckpointId| state.index.entry(id).is_none() && !state.index.is_refused(id);
            listed.iter().filter(is_new).copied().collect()
        };
        let now = self.storage.now();
        let mut refused = Vec::new();
        for id in new {
            let read = self
                .storage
                .open(Folder::Checkpoints, &id.to_string())
                .map_err(Into::into)
                .and_then(|mut file| Manifest::read(&mut *file));
            match read {
                Ok(manifest) if manifest.id == id => {
                    let mut state = self.state();
                    let usage = state.usage.get(&id).copied();
                    let last_used = usage.map_or(manifest.created, |usage| usage.last_used);
                    let hits = usage.map_or(0, |usage| usage.hits);
                    // A time in the future is from before the clock went back.
                    state.index.insert(manifest, last_used.min(now), hits);
                }
                Ok(_) => refused.push((id, "is another checkpoint by its content".to_owned())),
                Err(error) if error.is_gone() || error.is_transient() => {}
                Err(error) => refused.push((id, error.to_string())),
            }
        }
        self.refuse_checkpoints(&refused, held);
    }

    /// Reads what earlier runs and other processes counted. A damaged file counts nothing.
    pub(crate) fn read_usage(&self) {
        let read = self
            .storage
            .open(Folder::Root, USAGE_FILE)
            .map_err(Into::into)
            .and_then(|mut file| UsageFile::read(&mut *file));
        let usage = match read {
            Ok(usage) => usage,
            Err(error) => {
                if !error.is_gone() && !error.is_transient() {
                    self.report(USAGE_FILE.to_owned(), error.to_string());
                }
                UsageFile::default()
            }
        };
        let mut state = self.state();
        state.earlier = usage.totals;
        state.usage = usage
            .checkpoints
            .into_iter()
            .map(|usage| (usage.id, usage))
            .collect();
    }

    /// Adds what was counted since to the usage file. What cannot be written now is
    /// written the next time.
    pub(crate) fn write_usage(&self, patience: Duration) {
        {
            let state = self.state();
            if state.read_only.is_some() || state.recent == Statistics::default() {
                return;
            }
        }
        let Ok(Some(_lock)) = self.lock(LockKind::Exclusive, patience) else {
            return;
        };
        self.write_usage_locked();
    }

    /// As [`write_usage`](Self::write_usage), under the exclusive lock: others add to the
    /// same file.
    fn write_usage_locked(&self) {
        self.read_usage();
        let (file, recent, new_hits) = {
            let state = self.state();
            let new_hits: Vec<u64> = state.index.entries().map(|entry| entry.new_hits).collect();
            let mut totals = state.earlier;
            totals.add(&state.recent);
            let checkpoints = state
                .index
                .entries()
                .map(|entry| {
                    let id = entry.manifest.id;
                    let earlier = state.usage.get(&id);
                    CheckpointUsage {
                        id,
                        last_used: entry
                            .last_used
                            .max(earlier.map_or(0, |usage| usage.last_used)),
                        hits: earlier
                            .map_or(0, |usage| usage.hits)
                            .saturating_add(entry.new_hits),
                    }
                })
                .collect();
            let file = UsageFile {
                totals,
                checkpoints,
            };
            (file, state.recent, new_hits)
        };
        let bytes = file.to_bytes();
        let written = self.write_file(Folder::Root, USAGE_FILE, &mut |out| out.write_all(&bytes));
        if written.is_err() {
            return;
        }
        let mut state = self.state();
        state.earlier = file.totals;
        // What was counted while the file was written stays for the next time.
        state.recent.subtract(&recent);
        for (usage, written) in file.checkpoints.iter().zip(new_hits) {
            if let Some(entry) = state.index.entry_mut(&usage.id) {
                entry.new_hits = entry.new_hits.saturating_sub(written);
                entry.hits = usage.hits.saturating_add(entry.new_hits);
            }
        }
        state.usage = file
            .checkpoints
            .into_iter()
            .map(|usage| (usage.id, usage))
            .collect();
    }
}
