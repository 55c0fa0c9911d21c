//! What the engine needs of an executor, whatever its backend.

use ds4_model::{
    Backend, Executor, ExecutorBytes, KvLayout, ModelError, ModelShape, SequenceState, Steering,
    Step,
};

/// An [`Executor`] behind a pointer.
pub(crate) trait Runner: Send {
    fn shape(&self) -> &ModelShape;
    fn layout(&self) -> &KvLayout;
    fn allocated(&self) -> ExecutorBytes;
    fn set_pages(&mut self, slot: usize, first: usize, pages: &[u32]) -> Result<(), ModelError>;
    fn steer(&mut self, steering: &Steering) -> Result<(), ModelError>;
    fn run(&mut self, step: &Step, is_unwanted: &dyn Fn() -> bool) -> Result<(), ModelError>;
    fn run_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError>;
    fn chain_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError>;
    fn logits(&mut self, output: usize, logits: &mut [f32]) -> Result<(), ModelError>;
    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), ModelError>;
    fn copy_frontier(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), ModelError>;
    fn sequence_bytes(&self, tokens: usize) -> Result<Vec<usize>, ModelError>;
    fn save_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
    ) -> Result<SequenceState, ModelError>;
    fn restore_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
        state: &SequenceState,
    ) -> Result<(), ModelError>;
    fn read_page(&mut self, page: u32, tokens: usize, rows: &mut [u8]) -> Result<(), ModelError>;
    fn write_page(&mut self, page: u32, tokens: usize, rows: &[u8]) -> Result<(), ModelError>;
    fn save_frontier(&mut self, slot: usize, tokens: usize) -> Result<SequenceState, ModelError>;
    fn restore_frontier(
        &mut self,
        slot: usize,
        tokens: usize,
        state: &SequenceState,
    ) -> Result<(), ModelError>;
}

impl<B> Runner for Executor<B>
where
    B: Backend + Send,
    B::Tensor: Send,
    B::Buffer: Send,
{
    fn shape(&self) -> &ModelShape {
        Self::shape(self)
    }

    fn layout(&self) -> &KvLayout {
        Self::layout(self)
    }

    fn allocated(&self) -> ExecutorBytes {
        Self::allocated(self)
    }

    fn set_pages(&mut self, slot: usize, first: usize, pages: &[u32]) -> Result<(), ModelError> {
        Self::set_pages(self, slot, first, pages)
    }

    fn steer(&mut self, steering: &Steering) -> Result<(), ModelError> {
        Self::steer(self, steering)
    }

    fn run(&mut self, step: &Step, is_unwanted: &dyn Fn() -> bool) -> Result<(), ModelError> {
        Self::run_unless(self, step, is_unwanted)
    }

    fn run_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError> {
        Self::run_mtp(self, step, rows)
    }

    fn chain_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError> {
        Self::chain_mtp(self, step, rows)
    }

    fn logits(&mut self, output: usize, logits: &mut [f32]) -> Result<(), ModelError> {
        Self::logits(self, output, logits)
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        Self::copy_page(self, from, to)
    }

    fn copy_frontier(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), ModelError> {
        Self::copy_frontier(self, from, to, tokens)
    }

    fn sequence_bytes(&self, tokens: usize) -> Result<Vec<usize>, ModelError> {
        Self::sequence_bytes(self, tokens)
    }

    fn save_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
    ) -> Result<SequenceState, ModelError> {
        Self::save_sequence(self, slot, tokens, pages)
    }

    fn restore_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        Self::restore_sequence(self, slot, tokens, pages, state)
    }

    fn read_page(&mut self, page: u32, tokens: usize, rows: &mut [u8]) -> Result<(), ModelError> {
        Self::read_page(self, page, tokens, rows)
    }

    fn write_page(&mut self, page: u32, tokens: usize, rows: &[u8]) -> Result<(), ModelError> {
        Self::write_page(self, page, tokens, rows)
    }

    fn save_frontier(&mut self, slot: usize, tokens: usize) -> Result<SequenceState, ModelError> {
        Self::save_frontier(self, slot, tokens)
    }

    fn restore_frontier(
        &mut self,
        slot: usize,
        tokens: usize,
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        Self::restore_frontier(self, slot, tokens, state)
    }
}
