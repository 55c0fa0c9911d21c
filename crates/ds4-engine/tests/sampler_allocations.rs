//! Once warm, a sample allocates nothing.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ds4_engine::{Distribution, Penalties, Sampler, SamplerSettings, TokenMask, Verdict, logprobs};

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
fn warm_samples_allocate_nothing() {
    let vocabulary = 5000;
    // From peaked to flat, so that every later step keeps more than the first.
    let logits: Vec<Vec<f32>> = (0..20)
        .map(|step| {
            let scale = 20.0 / (step * step + 1) as f32;
            (0..vocabulary)
                .map(|id| scale * ((id * 7919 % vocabulary) as f32 / vocabulary as f32))
                .collect()
        })
        .collect();
    let mut mask = TokenMask::new(vocabulary);
    (0..vocabulary as u32)
        .filter(|id| id % 3 > 0)
        .for_each(|id| mask.allow(id));
    let mut sampler = Sampler::new(SamplerSettings {
        temperature: 1.1,
        top_k: 4000,
        min_p: 0.0,
        typical_p: 0.99,
        top_p: 0.99,
        penalties: Penalties {
            repetition: 1.1,
            window: 8,
            ..Penalties::default()
        },
        logit_bias: Some(Arc::new([(3, 1.0)])),
        seed: 5,
    })
    .unwrap();
    sampler.begin(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let mut alternatives = Vec::new();
    let mut draft = Distribution::default();
    let mut step = |logits: &[f32]| {
        let drafted = sampler.sample(logits);
        draft.set_certain(drafted);
        let token = match sampler
            .verify(logits, Some(&mask), &draft, drafted)
            .unwrap()
        {
            Verdict::Accepted => drafted,
            Verdict::Replaced(token) => token,
        };
        logprobs(logits, token, 20, &mut alternatives);
        sampler.sample_masked(logits, &mask).unwrap()
    };
    step(&logits[0]);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for logits in &logits {
        step(logits);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
