//! Drafting tokens and having the model confirm several of them in one step.
//!
//! A step holds, behind the last token of a sequence, what a drafter thinks comes next, and gives
//! logits for each of these rows. The sampler goes over them in order, as it would over steps with
//! one row each: while it picks what was drafted, the next row is right too. So the tokens are
//! those of plain decoding at any temperature, with any grammar, whatever was drafted; only the
//! number of steps differs.
//!
//! Drafts come from the text itself ([`PromptLookup`](prompt_lookup)) or from the model's MTP block
//! ([`mtp_drafter`]). The [gate](gate) measures whether they pay.

mod acceptance;
pub(crate) mod drafter;
mod gate;
mod mtp_drafter;
mod options;
mod prompt_lookup;
mod speculator;

pub use gate::GateState;
pub use options::SpeculationOptions;
#[cfg(test)]
pub(crate) use speculator::Oracle;
pub use speculator::SpeculationStatus;
pub(crate) use speculator::Speculator;
