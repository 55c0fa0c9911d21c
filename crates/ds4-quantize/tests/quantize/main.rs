//! The converter against llama.cpp's, against the published recipe, on hostile input, and killed.

mod checkpoint;
mod golden;
mod hostile;
mod interruption;
mod options;
