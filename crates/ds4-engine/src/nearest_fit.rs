//! What to change when a plan does not fit the memory.

use ds4_model::{KvFormat, ModelShape, PAGE_TOKENS};

use crate::engine::EngineOptions;
use crate::memory_plan::MemoryPlan;

/// The settings nearest to `options` whose [`MemoryPlan::used`] is at most `limit`, in bytes: for each
/// of KV format, pages, sessions and context the largest value that fits with all else as asked. If
/// none suffices alone, the largest context with the least of everything else; nothing if not even a
/// page of tokens fits, or if `options` fit as they are.
///
/// Where the number of pages is set, a smaller context has its share of them.
pub fn nearest_fits(
    shape: &ModelShape,
    options: &EngineOptions,
    limit: usize,
) -> Vec<EngineOptions> {
    let fits = |options: &EngineOptions| {
        MemoryPlan::without_weights(shape, options).is_ok_and(|plan| plan.used() <= limit)
    };
    if fits(options) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let formats = smaller_formats(shape, options.kv_format);
    let mut formats = formats.map(|kv_format| EngineOptions {
        kv_format,
        ..*options
    });
    found.extend(formats.find(|options| fits(options)));
    if let Some(tokens) = options.cache_tokens {
        let with_pages = |pages: usize| EngineOptions {
            cache_tokens: Some((pages * PAGE_TOKENS).max(options.context)),
            ..*options
        };
        let least = options.context.div_ceil(PAGE_TOKENS);
        let most = tokens.div_ceil(PAGE_TOKENS);
        found.extend(largest(least, most, |pages| fits(&with_pages(pages))).map(with_pages));
    }
    let with_sessions = |sessions: usize| EngineOptions {
        sessions,
        ..*options
    };
    let sessions = largest(1, options.sessions, |count| fits(&with_sessions(count)));
    found.extend(sessions.map(with_sessions));
    found.extend(with_largest_context(options, &fits));
    if found.is_empty() {
        let smallest = |kv_format: KvFormat| {
            let least = EngineOptions {
                kv_format,
                sessions: 1,
                cache_tokens: options.cache_tokens.map(|_| options.context),
                ..*options
            };
            if fits(&least) {
                return Some(least);
            }
            with_largest_context(&least, &fits)
        };
        let formats = smaller_formats(shape, options.kv_format).rev();
        found.extend(formats.chain([options.kv_format]).find_map(smallest));
    }
    found
}

/// Smaller row formats that the model's rows have, the largest first.
fn smaller_formats(
    shape: &ModelShape,
    format: KvFormat,
) -> impl DoubleEndedIterator<Item = KvFormat> {
    let bytes = |format: KvFormat| format.compressed_row_bytes(shape);
    let all = KvFormat::ALL.into_iter();
    all.filter(move |other| other.fits(shape) && bytes(*other) < bytes(format))
}

fn with_largest_context(
    options: &EngineOptions,
    fits: &dyn Fn(&EngineOptions) -> bool,
) -> Option<EngineOptions> {
    let with_pages = |pages: usize| {
        let context = pages * PAGE_TOKENS;
        let share = |tokens: usize| {
            let share = tokens as f64 * context as f64 / options.context as f64;
            (share as usize).max(context)
        };
        EngineOptions {
            context,
            cache_tokens: options.cache_tokens.map(share),
            ..*options
        }
    };
    let most = options.context.div_ceil(PAGE_TOKENS);
    largest(1, most, |pages| fits(&with_pages(pages))).map(with_pages)
}

/// The largest number from `least` on, but below `most`, for which something holds that holds for all
/// smaller ones.
fn largest(least: usize, most: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    if least >= most || !holds(least) {
        return None;
    }
    let (mut low, mut high) = (least, most);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ds4_gguf::GgufFile;

    use super::*;

    fn shape() -> ModelShape {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../ds4-testkit/data/flash-tiny-native.gguf");
        ModelShape::from_file(&GgufFile::open(&path).unwrap()).unwrap()
    }

    fn used(options: &EngineOptions) -> usize {
        let plan = MemoryPlan::without_weights(&shape(), options).unwrap();
        plan.used()
    }

    fn options() -> EngineOptions {
        EngineOptions {
            context: 2048,
            sessions: 8,
            kv_format: KvFormat::F16,
            cache_tokens: Some(16_384),
            kept_bytes: Some(1 << 20),
            prefill_chunk: 64,
            ..EngineOptions::default()
        }
    }

    #[test]
    fn what_fits_needs_no_change_and_nothing_fits_nowhere() {
        let options = options();
        assert_eq!(nearest_fits(&shape(), &options, used(&options)), []);
        assert_eq!(nearest_fits(&shape(), &options, 0), []);
    }

    #[test]
    fn each_proposal_fits_and_nothing_larger_does() {
        let asked = options();
        for percent in [99, 90, 75, 60, 40] {
            let limit = used(&asked) / 100 * percent;
            let found = nearest_fits(&shape(), &asked, limit);
            assert!(!found.is_empty(), "{percent}");
            for fit in found {
                assert!(used(&fit) <= limit, "{percent}: {fit:?}");
                if fit.sessions != asked.sessions && fit.kv_format != asked.kv_format {
                    // Nothing suffices alone; the context is the last to give way.
                    let next = EngineOptions {
                        context: fit.context + PAGE_TOKENS,
                        cache_tokens: Some(fit.context + PAGE_TOKENS),
                        ..fit
                    };
                    assert!(
                        fit.context == asked.context || used(&next) > limit,
                        "{fit:?}"
                    );
                    continue;
                }
                let next = if fit.sessions != asked.sessions {
                    EngineOptions {
                        sessions: fit.sessions + 1,
                        ..fit
                    }
                } else if fit.context != asked.context {
                    let context = fit.context + PAGE_TOKENS;
                    EngineOptions {
                        context,
                        cache_tokens: Some(16_384 / 2048 * context),
                        ..fit
                    }
                } else if fit.cache_tokens != asked.cache_tokens {
                    EngineOptions {
                        cache_tokens: fit.cache_tokens.map(|tokens| tokens + PAGE_TOKENS),
                        ..fit
                    }
                } else {
                    let KvFormat::Q4 = fit.kv_format else {
                        assert_eq!(fit.kv_format, KvFormat::Fp8);
                        continue;
                    };
                    EngineOptions {
                        kv_format: KvFormat::Fp8,
                        ..fit
                    }
                };
                assert!(used(&next) > limit, "{percent}: {fit:?} could be more");
            }
        }
    }

    #[test]
    fn if_nothing_suffices_alone_everything_gives_way() {
        let asked = options();
        let least = EngineOptions {
            context: 512,
            sessions: 1,
            cache_tokens: Some(512),
            kv_format: KvFormat::Q4,
            ..asked
        };
        let found = nearest_fits(&shape(), &asked, used(&least));
        assert_eq!(found, [least]);
    }
}
