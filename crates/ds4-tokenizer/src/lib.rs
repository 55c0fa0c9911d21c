//! Byte-level BPE tokenizer with special tokens and a streaming detokeniser.
