//! The store: a directory of checkpoints.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::chain::{
    self, CheckpointId, MAX_SPAN_TOKENS, MAX_TOKENS, ModelKey, SegmentName, TokenId,
};
use crate::checkpoint::CheckpointInfo;
use crate::error::{OpenError, SaveError};
use crate::eviction;
use crate::format::{CheckpointUsage, MAX_SPANS};
use crate::index::Index;
use crate::limits::Limits;
use crate::refusal::LockHeld;
use crate::statistics::Statistics;
use crate::storage::{LockGuard, LockKind, Storage};

/// Problems that are remembered.
const MAX_PROBLEMS: usize = 64;

/// A directory of checkpoints. Clones are handles to the same store; every method can
/// be called from any thread.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones of a store share.
pub(crate) struct Inner {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) limits: Limits,
    pub(crate) state: Mutex<State>,
    /// Held while a checkpoint is saved: one at a time.
    pub(crate) saving: Mutex<()>,
    /// Makes temporary names unique in this process.
    pub(crate) counter: AtomicU64,
}

/// What changes.
pub(crate) struct State {
    pub(crate) index: Index,
    /// Counted in earlier runs and by other processes.
    pub(crate) earlier: Statistics,
    /// Counted since the usage file was written.
    pub(crate) recent: Statistics,
    /// The usage file as it was last read.
    pub(crate) usage: HashMap<CheckpointId, CheckpointUsage>,
    pub(crate) problems: VecDeque<Problem>,
    pub(crate) read_only: Option<String>,
    /// Stamps of the folders of checkpoints and segments when they were last listed.
    pub(crate) stamps: Option<(u64, u64)>,
    /// Counts changes to files by this process, which a listing in progress may have missed.
    pub(crate) changes: u64,
}

/// What the store can do at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Only read.
    ReadOnly {
        /// Why: for the user.
        reason: String,
    },
}

/// A checkpoint that was found. While it exists, eviction by this process spares it.
pub struct Hit {
    inner: Arc<Inner>,
    id: CheckpointId,
    tokens: usize,
}

impl Hit {
    /// Which checkpoint.
    pub fn id(&self) -> CheckpointId {
        self.id
    }

    /// How many tokens it restores.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hit")
            .field("id", &self.id)
            .field("tokens", &self.tokens)
            .finish()
    }
}

impl Drop for Hit {
    fn drop(&mut self) {
        if let Some(entry) = self.inner.state().index.entry_mut(&self.id) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }
}

/// What saving a token sequence needs. While it exists, the segments that are on disk
/// already are spared by eviction of this process.
pub struct SavePlan {
    inner: Arc<Inner>,
    pub(crate) id: CheckpointId,
    pub(crate) key: ModelKey,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) names: Vec<SegmentName>,
    pinned: SegmentName,
    missing: Vec<usize>,
    already_saved: bool,
}

impl SavePlan {
    /// Spans whose segments are not on disk, in ascending order: the source must have them.
    pub fn missing(&self) -> &[usize] {
        &self.missing
    }

    /// A checkpoint of just these tokens is there; saving replaces it.
    pub fn already_saved(&self) -> bool {
        self.already_saved
    }

    /// The name that the checkpoint will have.
    pub fn id(&self) -> CheckpointId {
        self.id
    }

    /// The tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }
}

impl fmt::Debug for SavePlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SavePlan")
            .field("id", &self.id)
            .field("tokens", &self.tokens.len())
            .field("missing", &self.missing.len())
            .finish()
    }
}

impl Drop for SavePlan {
    fn drop(&mut self) {
        self.inner.state().index.unpin_chain(self.pinned);
    }
}

/// How full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Checkpoints.
    pub checkpoints: usize,
    /// Segments.
    pub segments: usize,
    /// Bytes of both.
    pub bytes: u64,
    /// The quota.
    pub max_bytes: u64,
}

/// A file that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name in the store.
    pub file: String,
    /// What is wrong with it, to be read after the name.
    pub reason: String,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is missing, for this user
    /// only. Reads manifests, no segments.
    ///
    /// A read-only directory opens with [`Access::ReadOnly`]; damaged files are moved
    /// aside and listed by [`problems`](Self::problems).
    ///
    /// # Errors
    /// The directory cannot be read, belongs to another user, is a symbolic link, or
    /// holds something else.
    #[cfg(unix)]
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        let storage = crate::directory_storage::DirectoryStorage::open(directory)?;
        Self::with_storage(Arc::new(storage), limits)
    }

    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// There is none on this system: it has no operations on directory handles.
    #[cfg(not(unix))]
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        let _ = limits;
        Err(OpenError::Io {
            path: directory.to_owned(),
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    /// Opens the store in any storage: for tests.
    ///
    /// # Errors
    /// A limit is out of range.
    pub fn with_storage(storage: Arc<dyn Storage>, limits: Limits) -> Result<Self, OpenError> {
        for (name, found) in [
            ("the number of checkpoints", limits.max_checkpoints),
            ("the number of load threads", limits.load_threads),
        ] {
            if found == 0 || found > 1 << 20 {
                return Err(OpenError::Limit {
                    name,
                    found: found as u64,
                    expected: "1 to 1048576",
                });
            }
        }
        let read_only = storage.read_only_reason();
        let store = Self {
            inner: Arc::new(Inner {
                storage,
                limits,
                state: Mutex::new(State {
                    index: Index::default(),
                    earlier: Statistics::default(),
                    recent: Statistics::default(),
                    usage: HashMap::new(),
                    problems: VecDeque::new(),
                    read_only,
                    stamps: None,
                    changes: 0,
                }),
                saving: Mutex::new(()),
                counter: AtomicU64::new(0),
            }),
        };
        store.inner.read_usage();
        store.inner.refresh(true, LockHeld::No);
        // What a crash left behind, unless somebody is at work.
        if let Ok(Some(_lock)) = store.inner.writable_lock(Duration::ZERO) {
            store.inner.tidy();
        }
        Ok(store)
    }

    /// Whether the store can write, and if not, why.
    pub fn access(&self) -> Access {
        match &self.inner.state().read_only {
            None => Access::ReadWrite,
            Some(reason) => Access::ReadOnly {
                reason: reason.clone(),
            },
        }
    }

    /// The checkpoint of `key` with the most tokens that is a prefix of `tokens`.
    /// Only memory is read. What other processes saved since is found after
    /// [`refresh`](Self::refresh).
    pub fn longest_prefix(&self, key: &ModelKey, tokens: &[TokenId]) -> Option<Hit> {
        let mut state = self.inner.state();
        state.recent.lookups += 1;
        let found = is_valid(key)
            .then(|| state.index.longest_prefix(key, tokens))
            .flatten();
        let entry = found.and_then(|id| state.index.entry_mut(&id));
        let Some(entry) = entry else {
            state.recent.misses += 1;
            return None;
        };
        entry.pins += 1;
        Some(Hit {
            inner: self.inner.clone(),
            id: entry.manifest.id,
            tokens: entry.manifest.tokens,
        })
    }

    /// How many tokens [`longest_prefix`](Self::longest_prefix) would restore, without counting as a
    /// lookup.
    pub fn known_tokens(&self, key: &ModelKey, tokens: &[TokenId]) -> usize {
        let state = self.inner.state();
        let found = is_valid(key)
            .then(|| state.index.longest_prefix(key, tokens))
            .flatten();
        let entry = found.and_then(|id| state.index.entry(&id));
        entry.map_or(0, |entry| entry.manifest.tokens)
    }

    /// Looks up what of `tokens` is on disk already, before saving. Only memory is read.
    ///
    /// # Errors
    /// No tokens, too many, or a span size out of range.
    pub fn plan(&self, key: &ModelKey, tokens: &[TokenId]) -> Result<SavePlan, SaveError> {
        if !is_valid(key) {
            return Err(SaveError::Setting {
                name: "the number of tokens in a span",
                found: u64::from(key.span_tokens),
                expected: "1 to 65536",
            });
        }
        if tokens.is_empty() || tokens.len() > MAX_TOKENS || tokens.len() / key.span() > MAX_SPANS {
            return Err(SaveError::Setting {
                name: "the number of tokens",
                found: tokens.len() as u64,
                expected: "1 to 16777216, in at most 131072 spans",
            });
        }
        let names: Vec<_> = chain::segment_names(key, tokens).collect();
        let root = chain::root(key);
        let tail = &tokens[names.len() * key.span()..];
        let id = chain::checkpoint(names.last().unwrap_or(&root), tail);
        let mut state = self.inner.state();
        let already_saved = state
            .index
            .entry(&id)
            .is_some_and(|entry| state.index.is_complete(entry));
        let spot = state.index.pin_chain(root, &names);
        Ok(SavePlan {
            inner: self.inner.clone(),
            id,
            key: *key,
            tokens: tokens.to_vec(),
            names,
            pinned: spot.pinned,
            missing: spot.missing,
            already_saved,
        })
    }

    /// Finds what other processes saved and removed. Cheap when nothing changed.
    pub fn refresh(&self) {
        self.inner.refresh(false, LockHeld::No);
    }

    /// All checkpoints, the most recently used first.
    pub fn list(&self) -> Vec<CheckpointInfo> {
        let now = self.inner.storage.now();
        let state = self.inner.state();
        let index = &state.index;
        let mut list: Vec<_> = index
            .entries()
            .map(|entry| CheckpointInfo {
                id: entry.manifest.id,
                key: entry.manifest.key,
                model_name: entry.manifest.model_name.clone(),
                kind: entry.manifest.kind,
                tokens: entry.manifest.tokens,
                bytes: index.whole_bytes(entry),
                own_bytes: index.own_bytes(entry),
                prefill_seconds: entry.manifest.prefill_seconds,
                created: entry.manifest.created,
                last_used: entry.last_used,
                hits: entry.hits,
                complete: index.is_complete(entry),
                value: eviction::value(index, entry, now),
            })
            .collect();
        list.sort_by_key(|info| (std::cmp::Reverse(info.last_used), info.id));
        list
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let state = self.inner.state();
        Usage {
            checkpoints: state.index.len(),
            segments: state.index.segments(),
            bytes: state.index.bytes(),
            max_bytes: self.inner.limits.max_bytes,
        }
    }

    /// What the store was good for, since its directory was made.
    pub fn statistics(&self) -> Statistics {
        let state = self.inner.state();
        let mut statistics = state.earlier;
        statistics.add(&state.recent);
        statistics
    }

    /// Files that were refused since the store was opened, the newest last; bounded.
    pub fn problems(&self) -> Vec<Problem> {
        self.inner.state().problems.iter().cloned().collect()
    }

    /// Writes hit counts and times to disk. Saving and dropping the store do it too.
    pub fn flush_statistics(&self) {
        self.inner.write_usage(Duration::from_secs(1));
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("usage", &self.usage())
            .field("access", &self.access())
            .finish()
    }
}

fn is_valid(key: &ModelKey) -> bool {
    (1..=MAX_SPAN_TOKENS).contains(&key.span_tokens)
}

impl Inner {
    /// The state. A panic elsewhere leaves it usable: no method panics halfway through a change.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock, waiting for others at most so long; `None` if they keep it.
    ///
    /// The lock is what keeps a segment that a save found on disk from being removed
    /// before the checkpoint is written. It is asked for again and again rather than
    /// waited for, so that a stopped process cannot hold up another for ever.
    pub(crate) fn lock(
        &self,
        kind: LockKind,
        patience: Duration,
    ) -> std::io::Result<Option<Box<dyn LockGuard>>> {
        let start = Instant::now();
        loop {
            if let Some(guard) = self.storage.try_lock(kind)? {
                return Ok(Some(guard));
            }
            if start.elapsed() >= patience {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The exclusive lock, if the store can write.
    pub(crate) fn writable_lock(
        &self,
        patience: Duration,
    ) -> std::io::Result<Option<Box<dyn LockGuard>>> {
        if self.state().read_only.is_some() {
            return Ok(None);
        }
        self.lock(LockKind::Exclusive, patience)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers a file that is not as it should be.
    pub(crate) fn report(&self, file: String, reason: String) {
        let mut state = self.state();
        state.recent.refused += 1;
        if state.problems.len() == MAX_PROBLEMS {
            state.problems.pop_front();
        }
        state.problems.push_back(Problem { file, reason });
    }

    /// The store became read-only, if that is what this error says.
    pub(crate) fn note_write_error(&self, error: &std::io::Error) {
        if crate::storage::is_forbidden(error) {
            self.state()
                .read_only
                .get_or_insert_with(|| error.to_string());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.write_usage(Duration::from_millis(200));
    }
}
