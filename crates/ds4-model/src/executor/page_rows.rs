//! The compressed rows of one page as bytes, layer after layer, and back.

use super::Executor;
use crate::backend::Backend;
use crate::error::ModelError;
use crate::kv_cache::PAGE_TOKENS;

impl<B: Backend> Executor<B> {
    /// Copies the rows that the first `tokens` tokens of a page finish into `rows`: for each layer its
    /// attention rows, then its indexer rows, in the cache's format. The bytes depend on the tokens
    /// only, neither on the page nor on the backend's memory.
    ///
    /// # Errors
    /// A page out of range, a slice of another length than
    /// [`page_rows_bytes`](crate::KvLayout::page_rows_bytes), or a backend failure.
    pub fn read_page(
        &mut self,
        page: u32,
        tokens: usize,
        rows: &mut [u8],
    ) -> Result<(), ModelError> {
        self.check_page(page, tokens, rows.len())?;
        let mut rest = rows;
        for kv in &self.kv {
            let lengths = kv.layout.rows_bytes(tokens);
            let sources = [
                (&kv.compressed, kv.layout.page_bytes()),
                (&kv.index, kv.layout.index_page_bytes()),
            ];
            for ((source, page_bytes), length) in sources.into_iter().zip(lengths) {
                if let Some(source) = source
                    && length > 0
                {
                    let (target, tail) = rest.split_at_mut(length);
                    let offset = page as usize * page_bytes;
                    self.backend.read(&source.rows, offset, target)?;
                    rest = tail;
                }
            }
        }
        Ok(())
    }

    /// Fills a page with rows that [`read_page`](Self::read_page) gave.
    ///
    /// # Errors
    /// As [`read_page`](Self::read_page).
    pub fn write_page(&mut self, page: u32, tokens: usize, rows: &[u8]) -> Result<(), ModelError> {
        self.check_page(page, tokens, rows.len())?;
        let mut rest = rows;
        for kv in &mut self.kv {
            let lengths = kv.layout.rows_bytes(tokens);
            let targets = [
                (&mut kv.compressed, kv.layout.page_bytes()),
                (&mut kv.index, kv.layout.index_page_bytes()),
            ];
            for ((target, page_bytes), length) in targets.into_iter().zip(lengths) {
                if let Some(target) = target
                    && length > 0
                {
                    let (source, tail) = rest.split_at(length);
                    let offset = page as usize * page_bytes;
                    self.backend.write(&mut target.rows, offset, source)?;
                    rest = tail;
                }
            }
        }
        Ok(())
    }

    fn check_page(&self, page: u32, tokens: usize, bytes: usize) -> Result<(), ModelError> {
        let pages = self.options.capacity.pages;
        if page as usize >= pages || tokens > PAGE_TOKENS {
            return Err(ModelError::State(format!(
                "{tokens} tokens of page {page}; the cache has {pages} of {PAGE_TOKENS}"
            )));
        }
        let expected = self.layout.page_rows_bytes(tokens);
        if bytes != expected {
            return Err(ModelError::State(format!(
                "a page of {tokens} tokens has {bytes} bytes, expected {expected}"
            )));
        }
        Ok(())
    }
}
