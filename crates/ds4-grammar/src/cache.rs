//! Prepared formats by the hash of their source, the least recently used dropped first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::GrammarError;

type Slot<T> = Arc<OnceLock<Result<T, GrammarError>>>;

/// A bounded cache that prepares each format once, refusals included.
pub(crate) struct Cache<T> {
    entries: Mutex<Entries<T>>,
    capacity: usize,
}

struct Entries<T> {
    slots: HashMap<[u8; 32], (u64, Slot<T>)>,
    clock: u64,
}

impl<T: Clone> Cache<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: Mutex::new(Entries {
                slots: HashMap::new(),
                clock: 0,
            }),
            capacity: capacity.max(1),
        }
    }

    /// The value for `key`. Those who ask for the same at the same time wait for one `prepare`.
    pub(crate) fn get(
        &self,
        key: [u8; 32],
        prepare: impl FnOnce() -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        let slot = self.slot(key);
        let result = slot.get_or_init(prepare).clone();
        if result.as_ref().is_err_and(GrammarError::is_passing) {
            let mut entries = self.lock();
            let is_this = |(_, other): &(u64, Slot<T>)| Arc::ptr_eq(other, &slot);
            if entries.slots.get(&key).is_some_and(is_this) {
                entries.slots.remove(&key);
            }
        }
        result
    }

    fn slot(&self, key: [u8; 32]) -> Slot<T> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        if let Some((used, slot)) = entries.slots.get_mut(&key) {
            *used = now;
            return slot.clone();
        }
        if entries.slots.len() >= self.capacity {
            let oldest = entries.slots.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                entries.slots.remove(&oldest);
            }
        }
        let slot = Slot::default();
        entries.slots.insert(key, (now, slot.clone()));
        slot
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries<T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let cache = Cache::new(2);
        let mut prepared = Vec::new();
        for key in [1, 2, 1, 3, 1, 2] {
            let value = cache.get([key; 32], || {
                prepared.push(key);
                Ok(key)
            });
            assert_eq!(value, Ok(key));
        }
        assert_eq!(prepared, [1, 2, 3, 2]);
    }

    #[test]
    fn refusals_are_kept_but_not_passing_ones() {
        let cache = Cache::<()>::new(2);
        let refused = GrammarError::Unsupported {
            keyword: "not".to_owned(),
            place: "#".to_owned(),
        };
        for (error, expected) in [(refused, 1), (GrammarError::Busy, 3)] {
            let mut prepared = 0;
            for _ in 0..3 {
                let result = cache.get([expected; 32], || {
                    prepared += 1;
                    Err(error.clone())
                });
                assert_eq!(result, Err(error.clone()));
            }
            assert_eq!(prepared, expected);
        }
    }
}
