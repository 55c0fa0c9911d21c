//! GGUF container: validated memory-mapped reader, writer, tensor directory.
