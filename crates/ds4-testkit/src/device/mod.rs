//! A backend built like a GPU: opaque memory, commands recorded once and replayed.
//!
//! The host has [`DeviceBuffer`] handles without contents. A stage call outside
//! [`Backend::run`](ds4_model::Backend::run) is refused; inside, it only appends a command that
//! holds handles, weights and the dimensions of the model. After the first step of a bucket, later
//! ones replay its commands: whatever a stage needs to know of a token can only come from the
//! step's words. Commands compute with the scalar reference, so results are bit-equal to it.
//!
//! Misuse is an error: memory used after it was freed, read while a recording is made, allocated
//! in a step, lent twice to one stage, or another sequence of calls for a bucket that is recorded.

mod backend;
mod bundle;
mod memory;
mod recorder;

pub use memory::DeviceBuffer;
pub use recorder::{Counts, DeviceBackend, Mode};
