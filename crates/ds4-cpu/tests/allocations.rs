//! A decode step of the backend allocates nothing, whatever it finishes: windows of both compressors, indexer choices.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::Precision;
use ds4_model::{Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, Step, StepSequence};
use ds4_testkit::GoldenModel;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decode_steps_allocate_nothing() {
    for model in GoldenModel::ALL {
        let file = model.open().unwrap();
        let tokens = model.tokens(300).unwrap();
        for kv_format in KvFormat::ALL {
            for precision in [Precision::Fast, Precision::Exact] {
                let pages = KvLayout::pages_for(300);
                let options = ExecutorOptions {
                    kv_format,
                    capacity: KvCapacity {
                        slots: 1,
                        context: 300,
                        pages,
                    },
                    max_rows: 100,
                    max_outputs: 1,
                    draft_rows: 0,
                    mtp: false,
                };
                let backend = CpuBackend::new(2, precision).unwrap();
                let mut executor =
                    Executor::new(backend, &file, None, options, &mut |_| ()).unwrap();
                let ids: Vec<u32> = (0..pages as u32).collect();
                executor.set_pages(0, 0, &ids).unwrap();
                let step = |start: usize, end: usize| {
                    let tokens = tokens[start..end].to_vec();
                    Step::single(StepSequence::last_output(0, start, tokens))
                };
                executor.run(&step(0, 100)).unwrap();
                executor.run(&step(100, 101)).unwrap();
                let steps: Vec<Step> = (101..260)
                    .map(|position| step(position, position + 1))
                    .collect();
                let mut logits = vec![0.0; executor.shape().vocabulary];
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                for step in &steps {
                    executor.run(step).unwrap();
                    executor.logits(0, &mut logits).unwrap();
                }
                let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
                assert_eq!(allocations, 0, "{model:?} {kv_format:?} {precision:?}");
            }
        }
    }
}
