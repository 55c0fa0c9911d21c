//! Pages of the KV cache, shared by reference.

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

    /// Pages in all.
    pub(crate) fn len(&self) -> usize {
        self.references.len()
    }

    /// Pages that nobody uses.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// A free page, with one reference.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.references[page as usize] = 1;
        Some(page)
    }

    /// One reference more to each of `pages`, which are in use.
    pub(crate) fn retain(&mut self, pages: &[u32]) {
        for &page in pages {
            debug_assert!(self.references[page as usize] > 0, "page {page} is free");
            self.references[page as usize] += 1;
        }
    }

    /// Whether more than one uses the page: nobody may write to it then.
    pub(crate) fn is_shared(&self, page: u32) -> bool {
        self.references[page as usize] > 1
    }

    /// Drops one reference to each of `pages`; a page is free again after the last.
    pub(crate) fn release(&mut self, pages: &[u32]) {
        for &page in pages {
            let references = &mut self.references[page as usize];
            debug_assert!(*references > 0, "page {page} is free already");
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.free.push(page);
            }
        }
    }
}
