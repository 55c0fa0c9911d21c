//! Prints how fast a tokenizer loads and encodes.
//!
//! `cargo run --release -p ds4-tokenizer --example throughput -- tokenizer.json TEXT [ROUNDS]`

#![expect(
    clippy::print_stdout,
    reason = "a measuring tool reports on its output"
)]

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use ds4_tokenizer::Tokenizer;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: throughput TOKENIZER_JSON TEXT_FILE [ROUNDS]";
    let json = std::fs::read(arguments.next().context(usage)?)?;
    let text = std::fs::read_to_string(arguments.next().context(usage)?)?;
    let rounds: usize = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;

    let mut load = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        black_box(Tokenizer::from_json(&json)?);
        load = load.min(start.elapsed().as_secs_f64());
    }
    println!("load       {:8.1} ms", load * 1e3);

    let tokenizer = Tokenizer::from_json(&json)?;
    let mut ids = Vec::new();
    let measure = |name: &str, ids: &mut Vec<u32>, encode: &dyn Fn(&mut Vec<u32>)| {
        let start = Instant::now();
        encode(ids);
        let first = start.elapsed().as_secs_f64();
        let mut best = first;
        for _ in 1..rounds {
            ids.clear();
            let start = Instant::now();
            encode(ids);
            best = best.min(start.elapsed().as_secs_f64());
        }
        let megabytes = text.len() as f64 / 1e6;
        println!(
            "{name:10} {:8.1} MB/s, first time {:.1} MB/s, {} tokens",
            megabytes / best,
            megabytes / first,
            ids.len()
        );
    };
    measure("encode", &mut ids, &|ids| tokenizer.encode(&text, ids));
    ids.clear();
    measure("specials", &mut ids, &|ids| {
        tokenizer.encode_with_specials(&text, ids)
    });

    let start = Instant::now();
    let bytes = tokenizer.decode(&ids);
    let seconds = start.elapsed().as_secs_f64();
    println!("decode     {:8.1} MB/s", bytes.len() as f64 / 1e6 / seconds);
    Ok(())
}
