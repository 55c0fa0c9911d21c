//! One file per command: its arguments, and what it does.

pub(crate) mod bench;
pub(crate) mod bench_drafts;
pub(crate) mod bench_serve;
pub(crate) mod bench_soak;
pub(crate) mod cache;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod connect;
pub(crate) mod detokenize;
pub(crate) mod download;
pub(crate) mod eval;
pub(crate) mod eval_official;
pub(crate) mod imatrix;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod parse;
pub(crate) mod plan;
pub(crate) mod quality;
pub(crate) mod quantize;
pub(crate) mod render;
pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod steer;
pub(crate) mod synth;
pub(crate) mod tokenize;
