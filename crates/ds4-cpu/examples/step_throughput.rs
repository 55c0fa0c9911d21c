//! Prefill and decode speed of a model file on the fast CPU backend, beside the time that reading its
//! weights from memory takes at least.
//!
//! `cargo run --release -p ds4-cpu --example step_throughput -- FILE [threads] [prompt] [generated]`
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::path::Path;
use std::time::Instant;

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::bandwidth::measure_memory_bandwidth;
use ds4_cpu::kernels::Precision;
use ds4_cpu::team::default_thread_count;
use ds4_gguf::GgufFile;
use ds4_model::{Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, Step, StepSequence};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected a model file")?;
    let mut number = |default: usize| -> Result<usize, std::num::ParseIntError> {
        arguments.next().map_or(Ok(default), |text| text.parse())
    };
    let (threads, prompt, generated) = (number(default_thread_count())?, number(128)?, number(16)?);

    let mut backend = CpuBackend::new(threads, Precision::Fast)?;
    backend.pin_caller();
    let bandwidth = measure_memory_bandwidth(backend.team_mut());
    println!(
        "{threads} threads, {}, memory {:.1} GB/s",
        backend.kernels().isa(),
        bandwidth / 1e9
    );

    let file = GgufFile::open(Path::new(&path))?;
    let context = prompt + generated;
    let pages = KvLayout::pages_for(context);
    let options = ExecutorOptions {
        kv_format: KvFormat::Fp8,
        capacity: KvCapacity {
            slots: 1,
            context,
            pages,
        },
        max_rows: prompt.max(1),
        max_outputs: 1,
        draft_rows: 0,
        mtp: false,
    };
    let mut executor = Executor::new(backend, &file, None, options, &mut |_| ())?;
    let ids: Vec<u32> = (0..pages as u32).collect();
    executor.set_pages(0, 0, &ids)?;
    let vocabulary = executor.shape().vocabulary as u32;
    let token = |position: usize| (position as u32 * 7919 + 13) % vocabulary;

    let tokens: Vec<u32> = (0..prompt).map(token).collect();
    // The first time every page of the file is touched; the second time they are mapped.
    for round in ["first", "again"] {
        let start = Instant::now();
        executor.run(&Step::single(StepSequence::last_output(
            0,
            0,
            tokens.clone(),
        )))?;
        let speed = prompt as f64 / start.elapsed().as_secs_f64();
        println!("prefill of {prompt} tokens, {round}: {speed:.2} tokens/s");
    }

    let mut times = Vec::new();
    for position in prompt..prompt + generated {
        let start = Instant::now();
        let step = StepSequence::last_output(0, position, vec![token(position)]);
        executor.run(&Step::single(step))?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    println!(
        "decode: median {:.3} tokens/s, best {:.3}; bandwidth allows {:.1} GB in the median token",
        1.0 / median,
        1.0 / best,
        bandwidth * median / 1e9
    );
    Ok(())
}
