//! ggml block formats: sizes, layouts, decoders, encoders, dot products and tables; and the 8-bit and
//! 4-bit float rows of the KV cache.
//!
//! [`TensorType`] names a format and its sizes, [`decode`] turns bytes into f32, [`blocks`] has the
//! layouts for kernels.
//!
//! ```
//! use ds4_quant::{TensorType, decode};
//!
//! // One Q8_0 block: scale 0.5 as F16, then 32 signed bytes.
//! let mut block = vec![0x00, 0x38];
//! block.extend(0..32);
//! let mut row = [0.0; 32];
//! decode(TensorType::Q8_0, &block, &mut row)?;
//! assert_eq!(row[3], 1.5);
//! # Ok::<(), ds4_quant::QuantError>(())
//! ```
//!
//! Everything here is scalar and portable: it is what faster kernels are compared with. The crate
//! knows no files, no models and no threads.

#![forbid(unsafe_code)]

pub mod blocks;
mod decode;
mod error;
pub mod float4;
pub mod float8;
pub mod tables;
mod tensor_type;

pub use decode::decode;
pub use error::QuantError;
pub use tensor_type::TensorType;
