//! Formats against independent validators, on the vocabulary of DeepSeek V4.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod formats;
mod generation;
mod suite;
mod support;
mod tool_properties;
mod tools;
