//! Pages of the KV cache, shared by reference.

use crate::error::EngineError;

/// Hands out page ids and counts who uses them.
#[derive(Debug)]
pub(crate) struct PagePool {
    free: Vec<u32>,
    references: Vec<u32>,
}

impl PagePool {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            free: (0..pages as u32).rev().collect(),
            references: vec![0; pages],
        }
    }

    /// Pages that nobody uses.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// A free page, with one reference.
    pub(crate) fn take(&mut self) -> Result<u32, EngineError> {
        let page = self.free.pop().ok_or(EngineError::NoFreePage {
            pages: self.references.len(),
        })?;
        self.references[page as usize] = 1;
        Ok(page)
    }

    /// Drops one reference; the page is free again after the last.
    pub(crate) fn release(&mut self, page: u32) {
        let references = &mut self.references[page as usize];
        debug_assert!(*references > 0, "page {page} is not in use");
        *references = references.saturating_sub(1);
        if *references == 0 {
            self.free.push(page);
        }
    }
}
