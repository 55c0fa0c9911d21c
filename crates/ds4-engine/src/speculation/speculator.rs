//! Drafts for the steps of one engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

#[cfg(test)]
use ds4_model::TokenId;

use super::acceptance::Acceptance;
use super::drafter::{Candidate, DraftSource, Drafter};
use super::gate::{Gate, GateState, StepRecord, Wish};
use super::prompt_lookup::MatchLength;
use super::{SpeculationOptions, mtp_drafter};
use crate::sequences::Sequences;

/// What speculation does and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SpeculationStatus {
    /// Whether drafting pays at present.
    pub gate: GateState,
    /// What a drafted row costs, as a share of the time of a token without drafts; `None` before it
    /// was measured.
    pub row_cost: Option<f64>,
    /// Tokens drafted from the text itself.
    pub lookup_drafted: u64,
    /// Of those, accepted.
    pub lookup_accepted: u64,
    /// Tokens drafted by the MTP block.
    pub mtp_drafted: u64,
    /// Of those, accepted.
    pub mtp_accepted: u64,
    /// The MTP block failed and is not used any more.
    pub mtp_failed: bool,
}

impl SpeculationStatus {
    /// Tokens drafted.
    pub fn drafted(&self) -> u64 {
        self.lookup_drafted + self.mtp_drafted
    }

    /// Of those, accepted.
    pub fn accepted(&self) -> u64 {
        self.lookup_accepted + self.mtp_accepted
    }
}

/// Plans and makes drafts, and learns from what becomes of them.
pub(crate) struct Speculator {
    options: SpeculationOptions,
    gate: Gate,
    /// Over all sequences, by source: a first guess for new ones.
    acceptance: [Acceptance; DraftSource::COUNT],
    status: SpeculationStatus,
    /// Most drafted rows of one step.
    most: usize,
    /// Of the step in preparation.
    drafting_seconds: f64,
    mtp_seconds: f64,
    drafted_by_mtp: usize,
    /// Drafts in the place of those from the text, after the tokens known and the next.
    #[cfg(test)]
    pub(crate) oracle: Option<Oracle>,
}

#[cfg(test)]
pub(crate) type Oracle = Box<dyn FnMut(&[TokenId], TokenId) -> Vec<TokenId> + Send>;

impl Speculator {
    /// For an engine with so many sessions.
    pub(crate) fn new(options: SpeculationOptions, sessions: usize) -> Self {
        Self {
            options,
            gate: Gate::new(options.always),
            acceptance: [Acceptance::UNKNOWN; DraftSource::COUNT],
            status: SpeculationStatus::default(),
            most: options.rows(sessions).1,
            drafting_seconds: 0.0,
            mtp_seconds: 0.0,
            drafted_by_mtp: 0,
            #[cfg(test)]
            oracle: None,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.options.is_on()
    }

    /// Most tokens of one draft.
    pub(crate) fn longest_draft(&self) -> usize {
        self.options.longest_draft
    }

    pub(crate) fn status(&self) -> SpeculationStatus {
        SpeculationStatus {
            gate: self.gate.state(),
            row_cost: self.gate.row_cost(2),
            ..self.status
        }
    }

    /// Drafts for a step in which all of the candidates decode, and nobody else.
    pub(crate) fn draft(&mut self, sequences: &mut Sequences, candidates: &mut [Candidate<'_>]) {
        let start = Instant::now();
        (self.mtp_seconds, self.drafted_by_mtp) = (0.0, 0);
        if self.gate.can_search() {
            self.draft_as_planned(sequences, candidates);
        } else {
            for candidate in candidates.iter_mut() {
                candidate.draft.clear();
                candidate.drafter.source = None;
            }
        }
        self.drafting_seconds = start.elapsed().as_secs_f64();
    }

    fn draft_as_planned(&mut self, sequences: &mut Sequences, candidates: &mut [Candidate<'_>]) {
        let mut wishes = Vec::with_capacity(candidates.len());
        for candidate in candidates.iter_mut() {
            wishes.push(self.wish(sequences, candidate));
            #[cfg(test)]
            if let (Some(oracle), Some(wish)) = (&mut self.oracle, wishes.last_mut()) {
                *candidate.draft = oracle(candidate.known, candidate.next);
                candidate.draft.truncate(candidate.most);
                candidate.drafter.lookup.foresee(candidate.draft);
                wish.source = DraftSource::PromptLookup(MatchLength::default());
                wish.available = candidate.draft.len();
            }
        }
        let counts = self.gate.plan(candidates.len(), &wishes, self.most);
        let mut by_mtp = Vec::new();
        for (index, (candidate, (wish, count))) in candidates
            .iter_mut()
            .zip(wishes.iter().zip(counts))
            .enumerate()
        {
            candidate.drafter.source = (count > 0).then_some(wish.source);
            match wish.source {
                DraftSource::PromptLookup(_) => candidate.draft.truncate(count),
                DraftSource::Mtp => {
                    candidate.draft.clear();
                    if count > 0 {
                        by_mtp.push((index, count));
                    }
                }
            }
        }
        if by_mtp.is_empty() {
            return;
        }
        let start = Instant::now();
        // What goes wrong here is no reason to fail a request: nothing but guesses is missing.
        let result = catch_unwind(AssertUnwindSafe(|| {
            mtp_drafter::draft(sequences, candidates, &mut by_mtp)
        }));
        self.mtp_seconds = start.elapsed().as_secs_f64();
        self.status.mtp_failed |= !matches!(result, Ok(Ok(())));
        self.drafted_by_mtp = by_mtp.iter().map(|&(_, count)| count).sum();
    }

    /// What the candidate could draft, by the source that promises more. The draft from the text is made at
    /// once; whether it stands will be seen, also if it is not drafted.
    fn wish(&mut self, sequences: &Sequences, candidate: &mut Candidate<'_>) -> Wish {
        candidate.draft.clear();
        let mut length = MatchLength::default();
        if self.options.prompt_lookup {
            let drafter = &mut *candidate.drafter;
            if let Some(seen) = drafter.lookup.follow(candidate.known, candidate.next) {
                let source = DraftSource::PromptLookup(seen.length);
                let all = &mut self.acceptance[source.index()];
                drafter.record(source, seen.judged, seen.accepted, *all);
                all.record(seen.judged, seen.accepted);
            }
            length = drafter.lookup.draft(candidate.most, candidate.draft);
        }
        let acceptance = |source: DraftSource| {
            let known = candidate.drafter.acceptance(source);
            known.unwrap_or(self.acceptance[source.index()])
        };
        let source = DraftSource::PromptLookup(length);
        let lookup = Wish {
            source,
            available: candidate.draft.len(),
            acceptance: acceptance(source).probability(),
        };
        let is_possible = self.options.mtp
            && !self.status.mtp_failed
            && mtp_drafter::can_draft(sequences, candidate);
        if !is_possible {
            return lookup;
        }
        let mtp = Wish {
            source: DraftSource::Mtp,
            available: candidate.most,
            acceptance: acceptance(DraftSource::Mtp).probability(),
        };
        let promise = |wish: &Wish| -> f64 {
            let rows = 1..=wish.available as i32;
            rows.map(|row| wish.acceptance.powi(row)).sum()
        };
        if promise(&lookup) >= promise(&mtp) {
            lookup
        } else {
            mtp
        }
    }

    /// Takes note of how a draft of `drafted` tokens fared: `judged` of them were compared with what was
    /// sampled, and `accepted` were the same.
    pub(crate) fn verified(
        &mut self,
        drafter: &mut Drafter,
        drafted: usize,
        judged: usize,
        accepted: usize,
    ) {
        let Some(source) = drafter.source.take() else {
            return;
        };
        if source == DraftSource::Mtp && judged > 0 {
            let all = &mut self.acceptance[source.index()];
            drafter.record(source, judged, accepted, *all);
            all.record(judged, accepted);
        }
        let (drafted, accepted) = (drafted as u64, accepted as u64);
        let status = &mut self.status;
        let (all_drafted, all_accepted) = match source {
            DraftSource::PromptLookup(_) => {
                (&mut status.lookup_drafted, &mut status.lookup_accepted)
            }
            DraftSource::Mtp => (&mut status.mtp_drafted, &mut status.mtp_accepted),
        };
        *all_drafted += drafted;
        *all_accepted += accepted;
    }

    /// Learns from a step in which all sequences decoded.
    pub(crate) fn record(
        &mut self,
        sequences: usize,
        drafted: usize,
        accepted: usize,
        seconds: f64,
    ) {
        if !self.is_on() {
            return;
        }
        self.gate.record(&StepRecord {
            sequences,
            drafted,
            accepted,
            seconds,
            drafting_seconds: std::mem::take(&mut self.drafting_seconds),
            mtp_seconds: std::mem::take(&mut self.mtp_seconds),
            drafted_by_mtp: std::mem::take(&mut self.drafted_by_mtp),
        });
    }
}
