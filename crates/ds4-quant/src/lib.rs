//! ggml block formats: sizes, layouts, decoders, encoders, dot products and tables; and the 8-bit and
//! 4-bit float rows of the KV cache.
//!
//! [`TensorType`] names a format and its sizes, [`decode`] and [`encode`] go between bytes and f32,
//! [`blocks`] has the layouts for kernels. [`activations`] and [`vec_dot`] are integer dot products,
//! [`kv_rows`] the cache rows, [`checkpoint`] the forms of DeepSeek's own files.
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

pub mod activations;
pub mod blocks;
pub mod checkpoint;
mod decode;
mod dot;
mod encode;
mod error;
pub mod float4;
pub mod float8;
pub mod kv_rows;
pub mod tables;
mod tensor_type;

pub use decode::decode;
pub use dot::vec_dot;
pub use encode::{encode, encode_weighted};
pub use error::QuantError;
pub use tensor_type::TensorType;
