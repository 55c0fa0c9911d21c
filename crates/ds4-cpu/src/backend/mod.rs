//! The fast backend: every stage as one region of the thread team, or as plain code where a region would
//! cost more than the work.
//!
//! Weights stay where the file is mapped. Matrix products go through [`kernels`](crate::kernels); what is
//! around them (norms, rotations, mixing, softmax) through row operations that are compiled for each
//! instruction set. Every stage divides *rows* of weights, tokens, heads or experts among the threads,
//! never a sum, and sums in an order that does not depend on the other rows of the step: prefill in one go,
//! in chunks, and token by token give the same bits, on any number of threads.
//!
//! Scratch memory is made when the first step of a size arrives; after that no stage allocates.

#![expect(unsafe_code, reason = "buffers whose parts several threads write")]

mod attention;
mod compressor;
mod head;
mod hyper;
mod indexer;
mod kv_rows;
mod memory;
mod mixture;
mod project;
mod scratch;
mod stages;
mod tensor;

pub use memory::CpuBuffer;
pub use stages::CpuBackend;
pub use tensor::CpuTensor;

/// Name for people and errors.
const NAME: &str = "cpu";
