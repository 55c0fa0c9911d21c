//! Formats against independent validators, on the vocabulary of DeepSeek V4.

mod formats;
mod generation;
mod suite;
mod support;
mod tool_properties;
mod tools;
