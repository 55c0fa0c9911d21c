//! What a store may grow to.

/// Limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Quota: bytes of all checkpoints and segments together. Eviction keeps to it.
    pub max_bytes: u64,
    /// Most checkpoints; bounds the index in memory.
    pub max_checkpoints: usize,
    /// Bytes of damaged files that are kept for inspection, beside the quota.
    pub max_quarantine_bytes: u64,
    /// Number of damaged files that are kept for inspection.
    pub max_quarantine_files: usize,
    /// Threads that read and check a checkpoint.
    pub load_threads: usize,
}

impl Default for Limits {
    /// 64 GiB, 16,384 checkpoints, 2 threads.
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_checkpoints: 16_384,
            max_quarantine_bytes: 256 << 20,
            max_quarantine_files: 64,
            load_threads: 2,
        }
    }
}
