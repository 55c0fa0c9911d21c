//! Speed over the depth of the context.
//!
//! A repetition fills an empty session up to each depth in turn, which times prefill *at* that depth, then
//! generates some tokens, which times decode *behind* it, and goes back before it fills further. What
//! goes back and what warms up is not timed.

use std::sync::atomic::Ordering;
use std::time::Instant;

use ds4_engine::{Engine, Session, SyncControl};
use ds4_model::TokenId;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::error::WorkshopError;
use crate::statistics::median;

/// Tokens of the warm-up: a step of prefill, and some of decode.
const WARM_UP: (usize, usize) = (256, 2);

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepOptions {
    /// Depths in tokens, ascending.
    pub contexts: Vec<usize>,
    /// Tokens generated at each depth.
    pub gen_tokens: usize,
    /// Repetitions.
    pub repeat: usize,
    /// A token that is never generated: nothing goes on behind the end of a sentence.
    pub eos: Option<TokenId>,
}

/// Speeds of one repetition at one depth, in tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Prefill of the tokens since the depth before.
    #[serde(rename = "prefill_tps")]
    pub prefill: f64,
    /// Decode behind them.
    #[serde(rename = "decode_tps")]
    pub decode: f64,
}

/// All repetitions at one depth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Tokens in the session before the first generated one.
    pub context: usize,
    /// Tokens of the prefill: those since the depth before.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub gen_tokens: usize,
    /// The repetitions.
    pub runs: Vec<Run>,
}

/// Median, least and largest of some speeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The largest.
    pub largest: f64,
}

impl Spread {
    /// Of these values; zeros of none.
    pub fn of(values: &[f64]) -> Self {
        let ends = values
            .iter()
            .fold(None, |ends: Option<(f64, f64)>, &value| {
                let (least, largest) = ends.unwrap_or((value, value));
                Some((least.min(value), largest.max(value)))
            });
        let (least, largest) = ends.unwrap_or((0.0, 0.0));
        Self {
            median: median(values),
            least,
            largest,
        }
    }
}

impl Row {
    fn speeds(&self, of: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    /// Speed of prefill in tokens per second.
    pub fn prefill(&self) -> Spread {
        Spread::of(&self.speeds(|run| run.prefill))
    }

    /// Speed of decode in tokens per second.
    pub fn decode(&self) -> Spread {
        Spread::of(&self.speeds(|run| run.decode))
    }
}

/// Token ids that look like nothing in particular: a linear congruential sequence (Knuth's MMIX).
pub fn pseudo_random_prompt(tokens: usize, vocabulary: usize) -> Vec<TokenId> {
    let mut state: u64 = 1;
    (0..tokens)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary.max(1) as u64) as TokenId
        })
        .collect()
}

/// Measures a row for each depth. The engine must hold the deepest and `gen_tokens` more.
///
/// # Errors
/// Options out of range, a failure of the engine, or [`WorkshopError::Cancelled`].
pub fn sweep(
    engine: &mut Engine,
    options: &SweepOptions,
    control: &mut Control<'_>,
) -> Result<Vec<Row>, WorkshopError> {
    check(options)?;
    let deepest = options.contexts.last().copied().unwrap_or(0);
    let prompt = pseudo_random_prompt(deepest, engine.shape().vocabulary);
    let mut rows: Vec<Row> = Vec::new();
    for &context in &options.contexts {
        rows.push(Row {
            context,
            prompt_tokens: context - rows.last().map_or(0, |row| row.context),
            gen_tokens: options.gen_tokens,
            runs: Vec::new(),
        });
    }
    let total = options.repeat * (deepest + options.contexts.len() * options.gen_tokens);
    let mut sweep = Sweep {
        engine,
        options,
        prompt: &prompt,
        done: 0,
        total,
    };
    sweep.in_session(control, |sweep, session, control| {
        let (fill, generate) = (WARM_UP.0.min(options.contexts[0]), WARM_UP.1);
        sweep.fill(session, fill, None, control)?;
        for _ in 0..generate.min(options.gen_tokens) {
            sweep.generate(session)?;
        }
        Ok(())
    })?;
    for _ in 0..options.repeat {
        sweep.in_session(control, |sweep, session, control| {
            rows.iter_mut()
                .try_for_each(|row| sweep.measure(session, row, control))
        })?;
    }
    Ok(rows)
}

fn check(options: &SweepOptions) -> Result<(), WorkshopError> {
    let ascending = options.contexts.windows(2).all(|pair| pair[0] < pair[1]);
    if options.contexts.first().is_none_or(|&first| first == 0) || !ascending {
        return Err(WorkshopError::Setting {
            name: "the list of contexts",
            found: format!("{:?}", options.contexts),
            expected: "numbers of at least 1, ascending".to_owned(),
        });
    }
    for (name, value) in [
        ("the number of generated tokens", options.gen_tokens),
        ("the number of repetitions", options.repeat),
    ] {
        if value == 0 {
            return Err(WorkshopError::Setting {
                name,
                found: "0".to_owned(),
                expected: "at least 1".to_owned(),
            });
        }
    }
    Ok(())
}

struct Sweep<'a> {
    engine: &'a mut Engine,
    options: &'a SweepOptions,
    prompt: &'a [TokenId],
    done: usize,
    total: usize,
}

impl Sweep<'_> {
    /// Does `work` in a new session and closes it.
    fn in_session(
        &mut self,
        control: &mut Control<'_>,
        work: impl FnOnce(&mut Self, &mut Session, &mut Control<'_>) -> Result<(), WorkshopError>,
    ) -> Result<(), WorkshopError> {
        // What an earlier run computed is not to be found.
        self.engine.forget_kept();
        let mut session = self.engine.session()?;
        let result = work(self, &mut session, control);
        self.engine.close(session);
        result
    }

    /// Makes the session hold the first `context` tokens of the prompt. Progress counts from `done` on.
    fn fill(
        &mut self,
        session: &mut Session,
        context: usize,
        done: Option<usize>,
        control: &mut Control<'_>,
    ) -> Result<(), WorkshopError> {
        let (progress, total) = (&mut *control.progress, self.total);
        let mut sync = SyncControl {
            cancel: control.cancel,
            progress: &mut |tokens, _| {
                if let Some(done) = done {
                    progress(done + tokens, total);
                }
            },
        };
        let report = self
            .engine
            .sync(session, &self.prompt[..context], &mut sync)?;
        if report.cancelled {
            return Err(WorkshopError::Cancelled);
        }
        Ok(())
    }

    /// Appends the likeliest token but the end of the sentence.
    fn generate(&mut self, session: &mut Session) -> Result<(), WorkshopError> {
        let (mut best, mut largest) = (0, f32::NEG_INFINITY);
        for (id, &logit) in session.logits().iter().enumerate() {
            if logit > largest && Some(id as TokenId) != self.options.eos {
                (best, largest) = (id, logit);
            }
        }
        Ok(self.engine.append(session, best as TokenId)?)
    }

    fn measure(
        &mut self,
        session: &mut Session,
        row: &mut Row,
        control: &mut Control<'_>,
    ) -> Result<(), WorkshopError> {
        let start = Instant::now();
        self.fill(session, row.context, Some(self.done), control)?;
        let prefill = row.prompt_tokens as f64 / start.elapsed().as_secs_f64();
        self.done += row.prompt_tokens;
        let start = Instant::now();
        for _ in 0..row.gen_tokens {
            if control.cancel.load(Ordering::Relaxed) {
                return Err(WorkshopError::Cancelled);
            }
            self.generate(session)?;
        }
        let decode = row.gen_tokens as f64 / start.elapsed().as_secs_f64();
        self.done += row.gen_tokens;
        (control.progress)(self.done, self.total);
        row.runs.push(Run { prefill, decode });
        self.fill(session, row.context, None, control)
    }
}

/// How one speed became another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// New median over old median.
    pub ratio: f64,
    /// Slowest new repetition over fastest old one.
    pub least: f64,
    /// Fastest new repetition over slowest old one.
    pub largest: f64,
}

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every new repetition was faster than every old one.
    Faster,
    /// Every new repetition was slower than every old one.
    Slower,
    /// The repetitions overlap.
    Noise,
}

impl Change {
    /// From `old` to `new`.
    pub fn new(old: Spread, new: Spread) -> Self {
        let ratio = |new: f64, old: f64| if old > 0.0 { new / old } else { f64::NAN };
        Self {
            ratio: ratio(new.median, old.median),
            least: ratio(new.least, old.largest),
            largest: ratio(new.largest, old.least),
        }
    }

    /// Whether it is more than noise.
    pub fn verdict(&self) -> Verdict {
        if self.least > 1.0 {
            Verdict::Faster
        } else if self.largest < 1.0 {
            Verdict::Slower
        } else {
            Verdict::Noise
        }
    }
}

/// The changes at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RowChange {
    /// Depth in tokens.
    pub context: usize,
    /// Prefill.
    pub prefill: Change,
    /// Decode.
    pub decode: Change,
}

/// Compares the rows that both measurements have: equal depth, and equal numbers of tokens.
pub fn compare(old: &[Row], new: &[Row]) -> Vec<RowChange> {
    let same = |old: &Row, new: &Row| {
        old.context == new.context
            && old.prompt_tokens == new.prompt_tokens
            && old.gen_tokens == new.gen_tokens
    };
    new.iter()
        .filter_map(|new| {
            let old = old.iter().find(|old| same(old, new))?;
            Some(RowChange {
                context: new.context,
                prefill: Change::new(old.prefill(), new.prefill()),
                decode: Change::new(old.decode(), new.decode()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(context: usize, speeds: &[f64]) -> Row {
        let runs = speeds.iter().map(|&speed| Run {
            prefill: 10.0 * speed,
            decode: speed,
        });
        Row {
            context,
            prompt_tokens: context,
            gen_tokens: 4,
            runs: runs.collect(),
        }
    }

    #[test]
    fn a_change_beyond_the_spread_is_no_noise() {
        let old = [row(8, &[1.0, 1.2, 1.1]), row(16, &[2.0])];
        let new = [row(8, &[1.5, 1.3, 1.4]), row(32, &[1.0])];
        let changes = compare(&old, &new);
        assert_eq!(changes.len(), 1);
        let decode = changes[0].decode;
        assert!((decode.ratio - 1.4 / 1.1).abs() < 1e-12);
        assert!((decode.least - 1.3 / 1.2).abs() < 1e-12);
        assert!((decode.largest - 1.5).abs() < 1e-12);
        assert_eq!(decode.verdict(), Verdict::Faster);
        assert_eq!(compare(&new, &old)[0].prefill.verdict(), Verdict::Slower);
        let overlapping = compare(&old, &[row(8, &[1.19, 1.4])]);
        assert_eq!(overlapping[0].decode.verdict(), Verdict::Noise);
    }

    #[test]
    fn prompts_stay_inside_the_vocabulary_and_vary() {
        let prompt = pseudo_random_prompt(1000, 512);
        assert!(prompt.iter().all(|&id| id < 512));
        let distinct: std::collections::BTreeSet<_> = prompt.iter().collect();
        assert!(distinct.len() > 256);
    }
}
