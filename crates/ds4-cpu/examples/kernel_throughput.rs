//! Prints the speed of every matrix kernel beside this machine's memory bandwidth and, on AVX-512, its
//! peak of byte products. Absolute numbers depend on the machine and its load; compare within one run.
//!
//! `cargo run --release -p ds4-cpu --example kernel_throughput -- [threads] [type]`
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::sync::Mutex;

use ds4_cpu::bandwidth::measure_memory_bandwidth;
use ds4_cpu::kernels::{Activations, Inputs, Isa, Kernels, Matrix, Precision, Workspace};
use ds4_cpu::team::{Member, Team, default_thread_count};
use ds4_quant::TensorType;

const TYPES: [TensorType; 15] = [
    TensorType::Q8_0,
    TensorType::Iq2Xxs,
    TensorType::Q2K,
    TensorType::F16,
    TensorType::Mxfp4,
    TensorType::Q4K,
    TensorType::Bf16,
    TensorType::Q4_0,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::Q3K,
    TensorType::Iq2Xs,
    TensorType::Iq3Xxs,
    TensorType::Nvfp4,
    TensorType::F32,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = match arguments.next() {
        Some(text) => text.parse()?,
        None => default_thread_count(),
    };
    let only: Option<TensorType> = arguments.next().map(|name| name.parse()).transpose()?;
    let mut team = Team::new(threads)?;
    team.pin_caller();
    let bandwidth = measure_memory_bandwidth(&mut team);
    println!("{threads} threads, memory {:.1} GB/s", bandwidth / 1e9);
    for isa in Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available() && *isa != Isa::Scalar)
    {
        let Some(kernels) = Kernels::new(isa, Precision::Fast) else {
            continue;
        };
        let peak = peak_multiply_adds(isa, &mut team);
        match peak {
            Some(peak) => println!("\n{isa}; peak {:.0} G byte products/s", peak / 1e9),
            None => println!("\n{isa}"),
        }
        println!(
            "{:8} {:>22} {:>46}",
            "", "decode, from memory", "prefill, G products/s (of peak)"
        );
        println!(
            "{:8} {:>8} {:>13} {:>11}   n=2     n=4     n=8    n=16   n=128",
            "type", "GB/s", "of bandwidth", "from cache"
        );
        for ty in TYPES
            .into_iter()
            .filter(|ty| only.is_none_or(|only| only == *ty))
        {
            let decode = decode_bytes_per_second(&kernels, ty, 160 << 20, 1, &mut team);
            let cached = decode_bytes_per_second(&kernels, ty, 384 << 10, 100, &mut team);
            print!(
                "{ty:8} {:8.2} {:12.0}% {:11.2}",
                decode / 1e9,
                100.0 * decode / bandwidth,
                cached / 1e9
            );
            for n in [2, 4, 8, 16, 128] {
                let rate = prefill_products_per_second(&kernels, ty, n, &mut team);
                match peak {
                    Some(peak) => print!(" {:4.0}({:2.0}%)", rate / 1e9, 100.0 * rate / peak),
                    None => print!(" {:4.0}     ", rate / 1e9),
                }
            }
            println!();
        }
    }
    Ok(())
}

/// Weights with ordinary scales; the values do not matter for the speed.
fn weights(ty: TensorType, elements: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let bytes = elements / ty.block_elements() * ty.block_bytes();
    let mut weights = vec![0; bytes];
    for chunk in weights.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Small exponents in every 16-bit word, so that no scale is infinite.
        let word = state & 0xbfff_bfff_bfff_bfff;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    weights
}

struct Problem {
    x: Vec<f32>,
    quantized: Activations,
    picked: Vec<u32>,
}

impl Problem {
    fn new(kernels: &Kernels, n: usize, columns: usize) -> Self {
        let x: Vec<f32> = (0..n * columns)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
            .collect();
        let mut quantized = Activations::new(n, columns);
        quantized.set_shape(n, columns);
        for (row, values) in x.chunks_exact(columns).enumerate() {
            kernels.quantize(values, &mut quantized, row);
        }
        Self {
            x,
            quantized,
            picked: (0..n as u32).collect(),
        }
    }

    fn multiply(
        &self,
        kernels: &Kernels,
        matrix: &Matrix<'_>,
        rows: std::ops::Range<usize>,
        workspace: &mut Workspace,
    ) -> f32 {
        let mut check = 0.0;
        let inputs = Inputs {
            values: &self.x,
            stride: matrix.columns(),
            quantized: Some(&self.quantized),
            rows: &self.picked,
        };
        kernels.multiply(matrix, rows, inputs, workspace, |_, _, values| {
            check += values[0]
        });
        check
    }
}

/// Best of several runs of `work` in all members, in seconds of the slowest member's processor time: what
/// else runs on the machine counts as little as possible.
fn fastest(repeats: usize, team: &mut Team, work: impl Fn(&Member<'_>) + Sync) -> f64 {
    let one = |team: &mut Team| {
        let slowest = Mutex::new(0.0_f64);
        team.run(|member| {
            let start = processor_seconds();
            work(member);
            let seconds = processor_seconds() - start;
            if let Ok(mut slowest) = slowest.lock() {
                *slowest = slowest.max(seconds);
            }
        });
        slowest.into_inner().unwrap_or(f64::NAN)
    };
    (0..repeats)
        .map(|_| one(team))
        .fold(f64::INFINITY, f64::min)
}

/// Time that the calling thread has run so far.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a clock that std does not offer")]
fn processor_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a writable timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Time that has passed.
#[cfg(not(unix))]
fn processor_seconds() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START
        .get_or_init(std::time::Instant::now)
        .elapsed()
        .as_secs_f64()
}

/// One row of activations, 4096 columns, `bytes` of weights read `repeats` times.
fn decode_bytes_per_second(
    kernels: &Kernels,
    ty: TensorType,
    bytes: usize,
    repeats: usize,
    team: &mut Team,
) -> f64 {
    let columns = 4096;
    let rows = bytes / (columns / ty.block_elements() * ty.block_bytes()) / 32 * 32;
    let weights = weights(ty, rows * columns);
    let Ok(matrix) = Matrix::new(ty, rows, columns, &weights) else {
        return 0.0;
    };
    let problem = Problem::new(kernels, 1, columns);
    let seconds = fastest(4, team, |member| {
        let mut workspace = Workspace::new(1, columns);
        for _ in 0..repeats {
            let rows = member.share(0..rows, 16);
            problem.multiply(kernels, &matrix, rows, &mut workspace);
        }
    });
    (weights.len() * repeats) as f64 / seconds
}

fn prefill_products_per_second(
    kernels: &Kernels,
    ty: TensorType,
    n: usize,
    team: &mut Team,
) -> f64 {
    let (rows, columns) = (1024, 4096);
    let weights = weights(ty, rows * columns);
    let Ok(matrix) = Matrix::new(ty, rows, columns, &weights) else {
        return 0.0;
    };
    let problem = Problem::new(kernels, n, columns);
    let seconds = fastest(3, team, |member| {
        let mut workspace = Workspace::new(n, columns);
        problem.multiply(kernels, &matrix, member.share(0..rows, 16), &mut workspace);
    });
    (rows * columns * n) as f64 / seconds
}

/// Products per second of the byte dot product instruction alone, all members together; measured for
/// AVX-512 only.
fn peak_multiply_adds(isa: Isa, team: &mut Team) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        let rounds = 500_000;
        let seconds = fastest(3, team, |_| {
            #[expect(unsafe_code, reason = "one instruction is measured")]
            // SAFETY: the instruction set is available, says the caller.
            std::hint::black_box(unsafe { byte_dots(rounds) });
        });
        return Some((rounds * 12 * 64 * team.thread_count()) as f64 / seconds);
    }
    let _ = (isa, team);
    None
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "one instruction is measured")]
#[target_feature(enable = "avx512vnni,avx512bw")]
unsafe fn byte_dots(rounds: usize) -> i32 {
    use std::arch::x86_64::*;
    let a = std::hint::black_box(_mm512_set1_epi8(3));
    let mut sums = [_mm512_setzero_si512(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, a);
        }
    }
    sums.into_iter()
        .map(|sum| _mm512_reduce_add_epi32(sum))
        .fold(0, i32::wrapping_add)
}
