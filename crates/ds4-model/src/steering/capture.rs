//! What a model computes at the end of a prompt, layer by layer.

use crate::backend::Backend;
use crate::error::{BackendError, ModelError};
use crate::executor::Executor;
use crate::forward::{Activations, Observer};
use crate::kv_cache::KvLayout;
use crate::step::{Step, StepSequence, TokenId};

/// Which sub-layer's output counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Attention's.
    Attention,
    /// That of routed and shared experts together.
    Mixture,
}

/// Runs a prompt from position 0 in slot 0, whatever is there, and gives the output rows of its last
/// token, `[layers, D]`. The backend must run stages at once.
///
/// # Errors
/// No tokens, more than the context, or a backend failure.
pub fn capture<B: Backend>(
    executor: &mut Executor<B>,
    tokens: &[TokenId],
    component: Component,
) -> Result<Vec<f32>, ModelError> {
    let pages = u32::try_from(KvLayout::pages_for(tokens.len()))
        .map_err(|_| ModelError::Step("too many tokens".to_owned()))?;
    executor.set_pages(0, 0, &(0..pages).collect::<Vec<_>>())?;
    let chunk = executor.options().max_rows;
    let (layers, hidden) = (executor.shape().layers.len(), executor.shape().hidden);
    let mut rows = Vec::new();
    for (index, part) in tokens.chunks(chunk).enumerate() {
        let step = Step::single(StepSequence {
            slot: 0,
            position: index * chunk,
            tokens: part.to_vec(),
            outputs: 0..0,
        });
        rows.clear();
        let mut last_row = LastRow {
            component,
            offset: 4 * (part.len() - 1) * hidden,
            hidden,
            rows: &mut rows,
        };
        executor.run_observed(&step, &mut last_row)?;
    }
    if rows.len() != layers * hidden {
        return Err(ModelError::Step(
            "a prompt needs at least one token".to_owned(),
        ));
    }
    Ok(rows)
}

/// Reads the last row of a step's outputs.
struct LastRow<'a> {
    component: Component,
    /// Byte at which the row begins.
    offset: usize,
    hidden: usize,
    rows: &'a mut Vec<f32>,
}

impl LastRow<'_> {
    fn read<B: Backend>(
        &mut self,
        component: Component,
        backend: &mut B,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        if component != self.component {
            return Ok(());
        }
        let start = self.rows.len();
        self.rows.resize(start + self.hidden, 0.0);
        let bytes = bytemuck::cast_slice_mut(&mut self.rows[start..]);
        backend.read(&activations.output, self.offset, bytes)
    }
}

impl<B: Backend> Observer<B> for LastRow<'_> {
    fn after_attention(
        &mut self,
        backend: &mut B,
        _: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        self.read(Component::Attention, backend, activations)
    }

    fn after_layer(
        &mut self,
        backend: &mut B,
        _: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        self.read(Component::Mixture, backend, activations)
    }
}
