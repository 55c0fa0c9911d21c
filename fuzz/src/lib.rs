//! What several fuzz targets share.

#![forbid(unsafe_code)]

pub mod json_mutation;
pub mod requests;
