//! Decides how much is drafted, so that drafting never costs more than it gains.
//!
//! It counts in *tokens*: the time that a step without drafts takes for one. A drafted row costs a part
//! of that, which is measured for steps of different sizes; it gains a token if it stands, which is as
//! likely as it was lately. What is expected to gain is drafted.
//!
//! Expectations can be wrong, so there is an account. One per cent of the time goes in, and what
//! speculation really gained; what it really lost goes out, the search for drafts included. A step is
//! drafted only if the account could bear its loss, and without credit nothing is searched for. So the
//! whole cannot take more than 1.01 times the time without drafts and one step, whatever texts and
//! machines do, as long as no row takes longer than a step of its own by more than a quarter: beyond that
//! a step counts as disturbed by something else. What does not pay is tried again now and then, in several sizes, at half that cost, if
//! it could pay: how often the text foresees itself is known without a trial.

use super::drafter::DraftSource;

/// Share of the time that may be lost.
const ALLOWANCE: f64 = 0.01;
/// Share of the time for trying what did not pay.
const TRIAL_SHARE: f64 = 0.005;
/// Most steps' time in the account.
const MOST_STEPS: f64 = 16.0;
/// Most steps' time for trials, so that they do not come in bursts.
const MOST_TRIAL_STEPS: f64 = 2.0;
/// Steps after which the time without drafts is measured again.
const FRESH: u64 = 48;
/// What must be expected beyond the cost, in tokens a row.
const MARGIN: f64 = 0.03;
/// What a token costs to draft with the MTP block before it was measured, in tokens.
const UNKNOWN_MTP_COST: f64 = 0.5;
/// Weight of a new measurement.
const NEW: f64 = 0.2;
/// Sizes of trials, in rows.
const TRIALS: [usize; 4] = [1, 4, 2, 8];
/// Upper ends of sizes of steps, in rows, whose costs are measured apart.
const SIZES: [usize; 7] = [2, 3, 5, 9, 17, 33, usize::MAX];

/// What one sequence could draft.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Where drafts come from.
    pub(crate) source: DraftSource,
    /// Most tokens.
    pub(crate) available: usize,
    /// How likely each stands if those before do.
    pub(crate) acceptance: f64,
}

/// A step in which all sequences decode, as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepRecord {
    /// Sequences.
    pub(crate) sequences: usize,
    /// Drafted rows.
    pub(crate) drafted: usize,
    /// Of those, tokens that stand.
    pub(crate) accepted: usize,
    /// Time of the step in seconds, drafting included.
    pub(crate) seconds: f64,
    /// Of that, for drafting: the search in the text and the MTP block.
    pub(crate) drafting_seconds: f64,
    /// Of that, for the MTP block.
    pub(crate) mtp_seconds: f64,
    /// Tokens drafted with it.
    pub(crate) drafted_by_mtp: usize,
}

/// What drafting does at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateState {
    /// Nothing was measured yet.
    #[default]
    Measuring,
    /// It pays.
    Open,
    /// It does not pay, and is tried now and then.
    Closed,
}

/// A step without drafts.
#[derive(Clone, Copy, Debug, Default)]
struct Plain {
    seconds: f64,
    samples: u32,
    /// The step when it was measured.
    at: u64,
}

/// A running mean, of all samples while there are few, later of the last ones. Of the first two the
/// smaller counts: the first of all often meets memory that was never touched.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    mean: f64,
    samples: u32,
}

impl Measured {
    fn mean(&self) -> Option<f64> {
        (self.samples > 0).then_some(self.mean)
    }

    fn blend(&mut self, new: f64) {
        self.samples = self.samples.saturating_add(1);
        self.mean = match self.samples {
            1 => new,
            2 => self.mean.min(new),
            samples => {
                let weight = NEW.max(1.0 / f64::from(samples));
                self.mean + weight * (new - self.mean)
            }
        };
    }
}

/// Times at present, in seconds.
#[derive(Clone, Copy, Debug)]
struct Prices {
    token: f64,
    step: f64,
    account: f64,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    always: bool,
    /// Steps seen.
    steps: u64,
    /// By number of sequences.
    plain: Vec<Plain>,
    /// By size of the step: what a drafted row costs, in tokens.
    row_cost: [Measured; SIZES.len()],
    /// What a token costs to draft with the MTP block, in seconds.
    mtp_seconds: Measured,
    /// In seconds; `None` before the first step.
    account: Option<f64>,
    /// Seconds that trials may cost.
    trial_credit: f64,
    trials: usize,
    state: GateState,
}

impl Gate {
    /// A gate; with `always` one that lets everything pass.
    pub(crate) fn new(always: bool) -> Self {
        Self {
            always,
            steps: 0,
            plain: Vec::new(),
            row_cost: [Measured::default(); SIZES.len()],
            mtp_seconds: Measured::default(),
            account: None,
            trial_credit: 0.0,
            trials: 0,
            state: GateState::Measuring,
        }
    }

    /// What drafting does at present.
    pub(crate) fn state(&self) -> GateState {
        self.state
    }

    /// Whether there is credit to look for drafts.
    pub(crate) fn can_search(&self) -> bool {
        self.always || self.account.is_none_or(|account| account > 0.0)
    }

    /// What a drafted row costs in a step of `rows` rows, in tokens, as far as it is known: measured in
    /// steps of this size, or of the next smaller or larger one.
    pub(crate) fn row_cost(&self, rows: usize) -> Option<f64> {
        let size = size_of(rows);
        let smaller = self.row_cost[..=size].iter().rev().find_map(Measured::mean);
        smaller.or(self.row_cost[size..].iter().find_map(Measured::mean))
    }

    /// How many tokens each wish gets in a step in which `sequences` decode, at most `most` together.
    pub(crate) fn plan(&mut self, sequences: usize, wishes: &[Wish], most: usize) -> Vec<usize> {
        let none = vec![0; wishes.len()];
        if wishes.iter().all(|wish| wish.available == 0) {
            return none;
        }
        if self.always {
            let mut left = most;
            let give = |wish: &Wish| {
                let given = wish.available.min(left);
                left -= given;
                given
            };
            return wishes.iter().map(give).collect();
        }
        let plain = self.plain.get(sequences).copied().unwrap_or_default();
        let is_known = plain.samples >= 2 && self.steps - plain.at < FRESH;
        let (Some(account), true, true) = (self.account, is_known, sequences > 0) else {
            return none;
        };
        let token = plain.seconds / sequences as f64;
        let mtp_cost = self
            .mtp_seconds
            .mean()
            .map_or(UNKNOWN_MTP_COST, |seconds| seconds / token);
        let making = |wish: &Wish| match wish.source {
            DraftSource::PromptLookup(_) => 0.0,
            DraftSource::Mtp => mtp_cost,
        };

        let mut best = (0.0, none.clone());
        let mut counts = none.clone();
        let (mut expected, mut made) = (0.0, 0.0);
        for rows in 1..=most {
            // The likeliest of the rows that could come next.
            let value = |&index: &usize| {
                let wish: &Wish = &wishes[index];
                wish.acceptance.powi(counts[index] as i32 + 1) - making(wish)
            };
            let open = (0..wishes.len()).filter(|&at| counts[at] < wishes[at].available);
            let Some(next) = open.max_by(|a, b| value(a).total_cmp(&value(b))) else {
                break;
            };
            expected += value(&next);
            made += making(&wishes[next]);
            counts[next] += 1;
            let cost = self.row_cost(sequences + rows).unwrap_or(1.0);
            let gain = expected - rows as f64 * (cost + MARGIN);
            let risk = rows as f64 * (1.25 * cost).max(0.1) + made;
            if gain > best.0 && risk * token <= account {
                best = (gain, counts.clone());
            }
        }
        if best.0 > 0.0 {
            self.state = GateState::Open;
            return best.1;
        }
        self.state = GateState::Closed;

        let prices = Prices {
            token,
            step: plain.seconds,
            account,
        };
        let mut counts = none;
        if let Some(longest) = (0..wishes.len()).max_by_key(|&at| wishes[at].available) {
            let wish = &wishes[longest];
            counts[longest] = self.trial(sequences, wish, making(wish), most, prices);
        }
        counts
    }

    /// How many rows of a sequence are drafted only to see whether it pays meanwhile; `making` is what one
    /// costs to draft, in tokens.
    fn trial(
        &mut self,
        sequences: usize,
        wish: &Wish,
        making: f64,
        most: usize,
        prices: Prices,
    ) -> usize {
        let is_seen = matches!(wish.source, DraftSource::PromptLookup(_));
        // Of the MTP block each can be in vain; one says whether more would stand.
        let rows = match is_seen {
            true => TRIALS[self.trials % TRIALS.len()],
            false => 1,
        };
        // At worst none stands and each takes as long as a step.
        let most_lost = (1.0 + making) * prices.token;
        let rows = rows.min(wish.available).min(most);
        let rows = rows.min((prices.account / most_lost).max(0.0) as usize);
        let mut loss = rows as f64 * most_lost;
        if is_seen {
            // Whether drafts from the text would stand was seen; only what rows cost can be wrong.
            let cost = self.row_cost(sequences + rows).unwrap_or(0.0);
            if wish.acceptance < 0.5 * cost.min(1.0) + MARGIN {
                return 0;
            }
            let stand: f64 = (1..=rows as i32).map(|row| wish.acceptance.powi(row)).sum();
            loss = (rows as f64 * cost.max(1.0) - stand).max(0.1) * prices.token;
        }
        let limit = MOST_TRIAL_STEPS * prices.step;
        if rows == 0 || loss.min(limit) > self.trial_credit {
            return 0;
        }
        self.trials += 1;
        self.trial_credit -= loss;
        rows
    }

    /// Learns from a step.
    pub(crate) fn record(&mut self, step: &StepRecord) {
        let StepRecord {
            sequences, drafted, ..
        } = *step;
        if sequences == 0 {
            return;
        }
        self.steps += 1;
        if self.plain.len() <= sequences {
            self.plain.resize(sequences + 1, Plain::default());
        }
        let plain = &mut self.plain[sequences];
        if step.drafted_by_mtp > 0 {
            let seconds = step.mtp_seconds / step.drafted_by_mtp as f64;
            self.mtp_seconds.blend(seconds);
        }
        if drafted == 0 {
            let seconds = (step.seconds - step.drafting_seconds).max(0.0);
            plain.seconds = match plain.samples {
                0 => seconds,
                // One sample that is far off says little: the machine was busy with something else.
                1 => plain.seconds.min(seconds),
                _ => {
                    let seconds = seconds.clamp(0.5 * plain.seconds, 2.0 * plain.seconds);
                    plain.seconds + NEW * (seconds - plain.seconds)
                }
            };
            plain.samples = plain.samples.saturating_add(1);
            plain.at = self.steps;
            let step_seconds = plain.seconds;
            // Drafting in vain is a loss too.
            let change = ALLOWANCE * seconds - step.drafting_seconds;
            self.settle(change, step_seconds, seconds);
            return;
        }
        let step_seconds = plain.seconds;
        let token = step_seconds / sequences as f64;
        if token <= 0.0 {
            return;
        }
        // No row costs much more than a step of its own, so what takes longer was disturbed.
        let longest = 1.25 * token * (sequences + drafted) as f64 + step.drafting_seconds;
        let seconds = step.seconds.min(longest);
        let cost = (seconds - step.drafting_seconds - step_seconds) / (drafted as f64 * token);
        self.row_cost[size_of(sequences + drafted)].blend(cost.clamp(0.0, 2.0));
        let worth = (sequences + step.accepted) as f64 * token;
        self.settle(worth - seconds + ALLOWANCE * worth, step_seconds, worth);
    }

    fn settle(&mut self, change: f64, step_seconds: f64, worth: f64) {
        let is_first = self.account.is_none();
        // At the start it can bear one step.
        let account = self.account.unwrap_or(step_seconds);
        self.account = Some((account + change).min(MOST_STEPS * step_seconds));
        let credit = if is_first {
            step_seconds
        } else {
            self.trial_credit
        };
        let limit = MOST_TRIAL_STEPS * step_seconds;
        self.trial_credit = (credit + TRIAL_SHARE * worth).min(limit);
    }
}

fn size_of(rows: usize) -> usize {
    SIZES.partition_point(|&end| end < rows)
}

#[cfg(test)]
mod tests;
