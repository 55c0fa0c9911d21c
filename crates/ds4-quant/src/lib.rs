//! ggml block formats: sizes, decode, encode, tables.
