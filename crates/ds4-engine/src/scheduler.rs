//! Who runs when: continuous batching of many requests in one model.
//!
//! Every step holds one row of each request that decodes, and beside them a bounded number of rows
//! of prompts. A request is nothing but its tokens, prompt and answer; its sequence in the KV cache
//! holds a prefix of them. To prefill and to decode is the same: compute tokens that the sequence
//! lacks, and when none is left, pick the next from the logits. So a request can give up its place
//! at any time and come back later.
//!
//! [`Scheduler::step`] is the whole of it: requests that must end leave, waiting ones enter, rows
//! are chosen, the model runs, and each request gets its result. Code of one request (grammar,
//! sampler, sink) that panics ends that request alone.

pub(crate) mod job;
pub(crate) mod masks;
mod speed;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cmp::Reverse;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ds4_kvstore::CheckpointKind;
use ds4_model::{BackendError, KvLayout, ModelError};

use crate::disk_cache::DiskCache;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::{CachedTokens, FinishReason, GenerationError};
use crate::sequences::{Reused, Sequences};
use crate::service::{CacheMemory, EngineStatus, EngineTotals, RequestId};
use crate::speculation::drafter::ComputedRows;
use job::{Ending, Job};
use masks::MaskThread;
use speed::SpeedMeter;

/// Settings of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Requests that can wait before new ones are refused.
    pub queue: usize,
    /// Rows of prompts in a step in which others decode. Fewer make the gaps between tokens
    /// shorter, more make prompts faster.
    pub prefill_quantum: usize,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            queue: 64,
            prefill_quantum: 64,
        }
    }
}

/// The requests, waiting and running, and the engine that they run on.
pub(crate) struct Scheduler {
    engine: Engine,
    /// Most tokens of a request.
    context: usize,
    options: ServiceOptions,
    /// By [`Job::rank`].
    waiting: Vec<Job>,
    /// Each has a sequence.
    running: Vec<Job>,
    masks: MaskThread,
    disk: Option<DiskCache>,
    /// The running jobs that take part in the step, and where their rows end.
    served: Vec<Served>,
    /// A job found no page for its rows.
    is_short_of_pages: bool,
    watch: Watch,
    totals: EngineTotals,
    speed: SpeedMeter,
    /// How long a request is worked on, a running mean.
    mean_work: Duration,
}

/// Rows of one job in a step: its tokens `start..end`.
#[derive(Clone, Copy, Debug)]
struct Served {
    /// Index into the running jobs.
    index: usize,
    start: usize,
    end: usize,
    /// Drafted rows behind them.
    drafted: usize,
    /// The first of its rows in the step.
    first: usize,
    /// The row of logits of its last token; those of the drafts follow.
    output: Option<usize>,
}

/// Why a step has no result.
enum StepError {
    /// All its requests were cancelled meanwhile.
    Unwanted,
    Failed(GenerationError),
}

/// Says whether a request was cancelled since the step began.
type Watch = Box<dyn Fn(RequestId) -> bool + Send>;

/// What becomes of a running job after a step, if it does not go on.
enum Fate {
    End(Ending),
    /// It goes back to the queue, and runs alone then.
    Suspect,
}

impl Scheduler {
    /// A scheduler on `engine`, which has no open sessions, with checkpoints on disk or without.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn new(
        engine: Engine,
        options: ServiceOptions,
        disk: Option<DiskCache>,
    ) -> Result<Self, EngineError> {
        let masks = MaskThread::start().map_err(EngineError::Thread)?;
        Ok(Self {
            context: engine.options().context,
            engine,
            options,
            waiting: Vec::new(),
            running: Vec::new(),
            masks,
            disk,
            served: Vec::new(),
            is_short_of_pages: false,
            watch: Box::new(|_| false),
            totals: EngineTotals::default(),
            speed: SpeedMeter::default(),
            mean_work: Duration::from_secs(1),
        })
    }

    /// Asks `watch` during steps whether a request was cancelled.
    pub(crate) fn watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// The engine, after the last request. Waits until what is being saved is on disk.
    pub(crate) fn into_engine(self) -> Engine {
        let Self {
            mut engine, disk, ..
        } = self;
        if let Some(mut disk) = disk {
            disk.give_pages_back(&mut engine.sequences);
        }
        engine
    }

    /// Whether there is anything to do.
    pub(crate) fn has_work(&self) -> bool {
        self.has_requests() || self.disk.as_ref().is_some_and(DiskCache::is_busy)
    }

    /// Whether there are requests that have not ended.
    pub(crate) fn has_requests(&self) -> bool {
        !self.waiting.is_empty() || !self.running.is_empty()
    }

    /// After the last request: what is being saved has a limited time.
    pub(crate) fn finish_saving(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.finish();
        }
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a request.
    pub(crate) fn submit(&mut self, job: Job) {
        self.totals.requests += 1;
        self.wait(job);
    }

    /// Ends a request at the next step.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        let jobs = self.waiting.iter_mut().chain(&mut self.running);
        jobs.filter(|job| job.id == id)
            .for_each(|job| job.cancelled = true);
    }

    /// Ends all requests at the next step.
    pub(crate) fn cancel_all(&mut self) {
        let jobs = self.waiting.iter_mut().chain(&mut self.running);
        jobs.for_each(|job| job.cancelled = true);
    }

    /// Ends all requests now, because the engine cannot go on.
    pub(crate) fn fail_all(&mut self, message: &str) {
        for job in self.waiting.drain(..).chain(self.running.drain(..)) {
            let error = GenerationError::Internal(message.to_owned());
            let _ = catch_unwind(AssertUnwindSafe(|| job.end(Err(error))));
        }
    }

    /// What the engine is doing.
    pub(crate) fn status(&self) -> EngineStatus {
        let sequences = &self.engine.sequences;
        let used = self.used_pages().iter().filter(|&&used| used).count();
        EngineStatus {
            queued: self.waiting.len(),
            queue_capacity: self.options.queue,
            running: self.running.iter().map(Job::summary).collect(),
            slots: self.engine.options().sessions,
            memory: CacheMemory {
                pages: sequences.pages().len(),
                free_pages: sequences.pages().free(),
                running_pages: used,
                kept_points: sequences.kept().len(),
                kept_bytes: sequences.kept().bytes(),
                kept_bytes_limit: sequences.kept().limit(),
            },
            disk: self.disk.as_ref().map(DiskCache::status),
            totals: self.totals,
            speed: self.speed.speed(Instant::now()),
            speculation: self.engine.speculation(),
        }
    }

    /// When one of the waiting requests will have found its turn, by the time requests took so far.
    pub(crate) fn retry_after(&self) -> Duration {
        self.mean_work / self.engine.options().sessions.max(1) as u32
    }

    /// One step of the model for whoever is ready.
    pub(crate) fn step(&mut self) {
        self.retire();
        self.preempt();
        self.use_disk();
        self.admit();
        let start = Instant::now();
        let all_decode = self.draft();
        let mut fates = self.compose();
        if self.served.is_empty() {
            self.wait_for_disk();
        } else {
            match self.run() {
                Ok(()) => self.deliver(&mut fates, all_decode.then_some(start)),
                Err(StepError::Unwanted) => self.give_up(),
                Err(StepError::Failed(error)) => self.blame(&error, &mut fates),
            }
        }
        self.settle(fates);
    }

    /// Ends what was cancelled or is too late.
    fn retire(&mut self) {
        let now = Instant::now();
        for index in (0..self.waiting.len()).rev() {
            if let Some(reason) = self.waiting[index].must_end(now) {
                let job = self.waiting.remove(index);
                self.end(job, Ok(reason));
            }
        }
        for index in (0..self.running.len()).rev() {
            if let Some(reason) = self.running[index].must_end(now) {
                let job = self.running.swap_remove(index);
                self.end(job, Ok(reason));
            }
        }
    }

    /// If a job found no page in the last step, the last in rank gives its place to the others. It
    /// comes back later and starts from what it leaves behind.
    fn preempt(&mut self) {
        if !std::mem::take(&mut self.is_short_of_pages) {
            return;
        }
        let sequences = &mut self.engine.sequences;
        let disk = self.disk.as_mut();
        if disk.is_some_and(|disk| disk.give_pages_back(sequences)) {
            return;
        }
        let last = (0..self.running.len()).max_by_key(|&index| self.running[index].rank());
        let Some(mut job) = last.map(|index| self.running.swap_remove(index)) else {
            return;
        };
        if self.running.is_empty() {
            let pages = self.engine.sequences.pages().len();
            let needed = KvLayout::pages_for(job.tokens.len());
            return self.end(job, Err(GenerationError::NoMemory { needed, pages }));
        }
        self.totals.preempted += 1;
        self.leave(&mut job);
        self.wait(job);
    }

    /// Moves a piece of what goes to and comes from disk.
    fn use_disk(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.advance(&mut self.engine.sequences, self.running.is_empty());
        }
    }

    /// Without rows to compute: looks away for a moment if all wait for the disk.
    fn wait_for_disk(&self) {
        if let Some(disk) = self.disk.as_ref().filter(|disk| disk.is_busy()) {
            disk.wait();
        }
    }

    /// Lets waiting jobs in while there are slots and pages for them, in rank order.
    fn admit(&mut self) {
        let mut next = 0;
        while next < self.waiting.len() && self.engine.sequences.has_free_slot() {
            if self.is_being_computed(&self.waiting[next]) {
                next += 1;
            } else if self.running.is_empty() || self.has_pages_for(&self.waiting[next]) {
                if self.is_being_restored(next) {
                    next += 1;
                    continue;
                }
                let mut job = self.waiting.remove(next);
                // Ahead of who was served in the last step.
                job.served = self.totals.steps.saturating_sub(1);
                self.start(job);
            } else {
                // Whoever comes after does not overtake, or a long prompt would wait forever.
                break;
            }
        }
        for (position, job) in self.waiting.iter_mut().enumerate() {
            job.report_position(position);
        }
    }

    fn start(&mut self, mut job: Job) {
        let sequences = &mut self.engine.sequences;
        let Some(mut sequence) = sequences.open() else {
            return self.wait(job);
        };
        let reused = sequences.rewind(&mut sequence, &job.tokens);
        let is_first = job.start(sequence);
        match reused {
            Err(error) => self.end(job, Err(GenerationError::Model(error.to_string()))),
            Ok(reused) => {
                if is_first {
                    self.count_cached(&mut job, reused);
                    self.save_branch(&job, reused);
                }
                job.report_prefill();
                self.running.push(job);
            }
        }
    }

    fn count_cached(&mut self, job: &mut Job, reused: Reused) {
        let tokens = reused.tokens;
        job.cached = match reused {
            Reused {
                is_from_disk: true, ..
            } => CachedTokens {
                disk: tokens,
                ..CachedTokens::default()
            },
            Reused { is_end: true, .. } => CachedTokens {
                live: tokens,
                ..CachedTokens::default()
            },
            Reused { .. } => CachedTokens {
                kept: tokens,
                ..CachedTokens::default()
            },
        };
        self.totals.prompt_tokens += job.prompt as u64;
        self.totals.cached_live += job.cached.live as u64;
        self.totals.cached_kept += job.cached.kept as u64;
        self.totals.cached_disk += job.cached.disk as u64;
    }

    /// A point inside an earlier request from which another branches off is worth saving: more will
    /// do so.
    fn save_branch(&mut self, job: &Job, reused: Reused) {
        if let Some(disk) = &mut self.disk
            && !reused.is_end
        {
            let tokens = &job.tokens[..reused.tokens];
            disk.save(&mut self.engine.sequences, tokens, CheckpointKind::Prompt);
        }
    }

    /// Saves where a request stopped, and the last kept position of its prompt, from which others
    /// can branch off and the same prompt can be asked again. Both are kept already.
    fn save_end(&mut self, job: &Job, position: usize) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        if let Some(seconds) = job.prefill_seconds_per_token() {
            disk.measured(seconds);
        }
        let sequences = &mut self.engine.sequences;
        let inside = sequences.kept_position(job.prompt.min(position));
        disk.save(sequences, &job.tokens[..inside], CheckpointKind::Prompt);
        disk.save(sequences, &job.tokens[..position], CheckpointKind::Interval);
    }

    /// Whether a prefix of a waiting job is on its way from disk.
    fn is_being_restored(&mut self, index: usize) -> bool {
        let Some(disk) = &mut self.disk else {
            return false;
        };
        let job = &mut self.waiting[index];
        disk.is_worth_waiting(&mut self.engine.sequences, &job.tokens, &mut job.lookup)
    }

    /// Whether a running job is about to compute a long prefix of `job` that is not known yet:
    /// to wait for it costs less than to compute it twice.
    fn is_being_computed(&self, job: &Job) -> bool {
        let sequences = &self.engine.sequences;
        if sequences.kept().limit() == 0 {
            return false;
        }
        let known = sequences.kept().longest(&job.tokens);
        let known = known.map_or(0, |(length, _)| length);
        self.running.iter().any(|other| {
            let pairs = job.tokens.iter().zip(&other.tokens[..other.prompt]);
            let common = pairs.take_while(|(a, b)| a == b).count();
            let will_be_kept = if common == other.prompt {
                common
            } else {
                sequences.kept_position(common)
            };
            will_be_kept >= known + sequences.keep_every() && other.position() < will_be_kept
        })
    }

    /// Whether the pages that running jobs do not use suffice for all tokens of `job`, and a page
    /// more for every running job to grow. What kept points hold counts as free: they make room.
    fn has_pages_for(&self, job: &Job) -> bool {
        let used = self.used_pages();
        let left = used.iter().filter(|&&used| !used).count();
        let is_used = |page| used[page as usize];
        let needed = self.engine.sequences.pages_needed(&job.tokens, &is_used);
        needed + self.running.len() <= left
    }

    /// Which pages running jobs use.
    fn used_pages(&self) -> Vec<bool> {
        let mut used = vec![false; self.engine.sequences.pages().len()];
        for sequence in self.running.iter().filter_map(|job| job.sequence.as_ref()) {
            for &page in sequence.pages() {
                used[page as usize] = true;
            }
        }
        used
    }

    /// Drafts for the step if all that it is for decode: beside prompts a row costs too much. Whether they
    /// do.
    fn draft(&mut self) -> bool {
        let decodes = |job: &Job| job.missing() == 1 && !job.runs_alone();
        let all_decode = self.running.iter().all(decodes);
        let Engine {
            sequences,
            speculator,
            ..
        } = &mut self.engine;
        self.running.iter_mut().for_each(|job| job.draft.clear());
        if all_decode && speculator.is_on() {
            let (context, longest) = (self.context, speculator.longest_draft());
            let jobs = self.running.iter_mut();
            let candidates = jobs.filter_map(|job| job.candidate(context, longest));
            speculator.draft(sequences, &mut candidates.collect::<Vec<_>>());
            self.running.iter_mut().for_each(Job::cut_draft);
        }
        all_decode
    }

    /// Chooses the rows of the step: who lacks one token gets it; the rest is shared by those who
    /// lack more, in the order of [`Job::prefill_rank`].
    fn compose(&mut self) -> Vec<(usize, Fate)> {
        self.served.clear();
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        if let Some(suspect) = self.running.iter().position(Job::runs_alone) {
            order = vec![suspect];
        }
        let step = self.totals.steps + 1;
        order.sort_by_key(|&index| {
            let job = &self.running[index];
            (job.missing() > 1, job.prefill_rank(step))
        });
        let decodes = |&index: &usize| self.running[index].missing() == 1;
        let decoding = order.iter().filter(|&index| decodes(index)).count();
        let mut quantum = self.engine.max_rows - decoding;
        if decoding > 0 {
            quantum = quantum.min(self.options.prefill_quantum);
        }

        let sequences = &mut self.engine.sequences;
        let mut outputs = 0;
        let mut fates = Vec::new();
        for index in order {
            let job = &mut self.running[index];
            let (start, all) = (job.position(), job.tokens.len());
            let rows = if job.missing() == 1 { 1 } else { quantum };
            let end = sequences.next_stop(start, all, rows);
            let (Some(sequence), true) = (&mut job.sequence, end > start || start == all) else {
                continue;
            };
            let mut served = Served {
                index,
                start,
                end,
                drafted: 0,
                first: 0,
                output: None,
            };
            // Without rows if all is known: an equal prompt was kept with its logits.
            if end > start {
                let wants = usize::from(end == all);
                let rows = end - start;
                let drafted = job.draft.len();
                let outputs_of = rows - wants..rows + drafted;
                let tokens = &job.tokens[start..end];
                match sequences.add(sequence, tokens, &job.draft, outputs_of) {
                    Ok(first) => served.first = first,
                    Err(EngineError::NoFreePage { .. }) => {
                        self.is_short_of_pages = true;
                        continue;
                    }
                    Err(error) => {
                        let error = GenerationError::Model(error.to_string());
                        fates.push((index, Fate::End(Err(error))));
                        continue;
                    }
                }
                if job.tokens.len() - start > 1 {
                    quantum -= rows;
                }
                served.output = (wants == 1).then_some(outputs);
                served.drafted = drafted;
                outputs += wants + drafted;
            }
            job.served = step;
            self.served.push(served);
        }
        fates
    }

    /// Runs the model, and beside it the grammars of those who will pick a token. A step of prompts
    /// alone, which can be long, ends when nobody wants it any more.
    fn run(&mut self) -> Result<(), StepError> {
        let vocabulary = self.engine.shape().vocabulary;
        for served in &self.served {
            let job = &mut self.running[served.index];
            if served.end == job.tokens.len()
                && let Some(task) = job.mask_task(vocabulary)
            {
                self.masks.submit(task);
            }
        }
        self.totals.steps += 1;
        let sequences = &mut self.engine.sequences;
        let (served, running, watch) = (&self.served, &self.running, &self.watch);
        let is_unwanted = || {
            let now = Instant::now();
            served.iter().all(|served| {
                let job = &running[served.index];
                let is_prompt = served.end > served.start + 1;
                is_prompt && (job.must_end(now).is_some() || watch(job.id))
            })
        };
        let result = catch_unwind(AssertUnwindSafe(|| sequences.run(&is_unwanted)));
        sequences.discard();
        while let Some(task) = self.masks.take() {
            let id = task.job;
            if let Some(job) = self.running.iter_mut().find(|job| job.id == id) {
                job.take_mask(task);
            }
        }
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(EngineError::Model(ModelError::Backend(BackendError::Interrupted)))) => {
                Err(StepError::Unwanted)
            }
            Ok(Err(error)) => {
                let error = GenerationError::Model(error.to_string());
                Err(StepError::Failed(error))
            }
            Err(panic) => {
                let error = GenerationError::Internal(panic_message(&*panic));
                Err(StepError::Failed(error))
            }
        }
    }

    /// After a step that nobody wanted: its jobs end before the next one, with what was kept.
    fn give_up(&mut self) {
        for served in self.served.drain(..) {
            if let Some(sequence) = &mut self.running[served.index].sequence {
                // Some layers have seen the rows, others not.
                self.engine.sequences.reset(sequence);
            }
        }
    }

    /// Gives each job of the step its result. `decoding`: since when, if all of them decode.
    fn deliver(&mut self, fates: &mut Vec<(usize, Fate)>, decoding: Option<Instant>) {
        let (mut prefilled, mut generated) = (0, 0);
        let (mut drafted, mut accepted) = (0, 0);
        let sequences = self.served.len();
        for served in self.served.drain(..) {
            let job = &mut self.running[served.index];
            prefilled += served.end.min(job.prompt).saturating_sub(served.start);
            let before = job.generated();
            let taken = take_rows(&mut self.engine.sequences, job, served, self.context);
            if let Some(ending) = taken.ending {
                fates.push((served.index, Fate::End(ending)));
            }
            generated += job.generated() - before;
            let Taken {
                judged,
                accepted: stands,
                ..
            } = taken;
            job.count_draft(served.drafted, stands);
            let speculator = &mut self.engine.speculator;
            speculator.verified(&mut job.drafter, served.drafted, judged, stands);
            drafted += served.drafted;
            accepted += stands;
        }
        if let Some(start) = decoding {
            let seconds = start.elapsed().as_secs_f64();
            let speculator = &mut self.engine.speculator;
            speculator.record(sequences, drafted, accepted, seconds);
        }
        self.totals.drafted_tokens += drafted as u64;
        self.totals.accepted_tokens += accepted as u64;
        self.totals.prefilled_tokens += prefilled as u64;
        self.totals.generated_tokens += generated as u64;
        self.speed.record(Instant::now(), prefilled, generated);
    }

    /// After a step that failed: a job that was alone in it is to blame; of several, each has to
    /// show by itself that it is not.
    fn blame(&mut self, error: &GenerationError, fates: &mut Vec<(usize, Fate)>) {
        self.served.retain(|served| served.end > served.start);
        // A draft is no fault of the request.
        let is_alone = self.served.len() == 1 && self.served[0].drafted == 0;
        for served in self.served.drain(..) {
            if let Some(sequence) = &mut self.running[served.index].sequence {
                // Some layers have seen the rows, others not.
                self.engine.sequences.reset(sequence);
            }
            let fate = if is_alone {
                Fate::End(Err(error.clone()))
            } else {
                Fate::Suspect
            };
            fates.push((served.index, fate));
        }
    }

    fn settle(&mut self, mut fates: Vec<(usize, Fate)>) {
        fates.sort_by_key(|&(index, _)| Reverse(index));
        for (index, fate) in fates {
            let mut job = self.running.swap_remove(index);
            match fate {
                Fate::End(ending) => self.end(job, ending),
                Fate::Suspect => {
                    job.run_alone();
                    self.leave(&mut job);
                    self.wait(job);
                }
            }
        }
    }

    fn wait(&mut self, job: Job) {
        let at = self
            .waiting
            .partition_point(|other| other.rank() < job.rank());
        self.waiting.insert(at, job);
    }

    /// Frees the job's slot; what it computed is kept.
    fn leave(&mut self, job: &mut Job) {
        let Some(sequence) = job.sequence.take() else {
            return;
        };
        let sequences = &mut self.engine.sequences;
        // Without it a later request computes again: no reason to fail this one.
        let _ = sequences.keep(&sequence, true);
        sequences.close(sequence);
    }

    fn end(&mut self, mut job: Job, ending: Ending) {
        let position = job.position();
        self.leave(&mut job);
        self.save_end(&job, position);
        match ending {
            Ok(reason) => {
                self.totals.finished += 1;
                self.totals.cancelled += u64::from(reason == FinishReason::Cancelled);
                self.mean_work = (self.mean_work * 7 + job.worked()) / 8;
            }
            Err(_) => self.totals.failed += 1,
        }
        // Dropping its grammar and its sink runs code of the request, too.
        let _ = catch_unwind(AssertUnwindSafe(|| job.end(ending)));
    }
}

/// What a job made of its rows.
#[derive(Default)]
struct Taken {
    ending: Option<Ending>,
    /// Drafted tokens that were compared with what was picked, and those that were the same.
    judged: usize,
    accepted: usize,
}

/// Takes the rows of a job over, keeps the state where it is to be kept, and lets the job pick what
/// follows if nothing is missing. While it picks what was drafted, the next row is right too.
fn take_rows(sequences: &mut Sequences, job: &mut Job, served: Served, context: usize) -> Taken {
    let mut taken = Taken::default();
    let Served {
        start, end, output, ..
    } = served;
    if end > start {
        taken.ending = take(sequences, job, start..end, output);
        if taken.ending.is_none() && start < job.prompt {
            job.report_prefill();
        }
    }
    let mut drafted = 0;
    while taken.ending.is_none() {
        if job.missing() == 0 {
            taken.ending = pick(job, context);
        }
        let position = end + drafted;
        if drafted == served.drafted || job.tokens.len() <= position || taken.ending.is_some() {
            break;
        }
        taken.judged += 1;
        if job.tokens[position] != job.draft[drafted] {
            break;
        }
        drafted += 1;
        taken.accepted += 1;
        let output = output.map(|output| output + drafted);
        taken.ending = take(sequences, job, position..position + 1, output);
    }
    job.drafter.computed = Some(ComputedRows {
        run: sequences.runs(),
        first: served.first,
        position: start,
        count: end - start + taken.accepted,
    });
    taken
}

/// Takes over the rows of some tokens; `output` is the row of logits of the last.
fn take(
    sequences: &mut Sequences,
    job: &mut Job,
    tokens: Range<usize>,
    output: Option<usize>,
) -> Option<Ending> {
    let sequence = job.sequence.as_mut()?;
    let end = tokens.end;
    let mut taken = sequences.advance(sequence, &job.tokens[tokens], output);
    if taken.is_ok() && (sequences.is_kept_position(end) || end == job.prompt) {
        taken = sequences.keep(sequence, false);
    }
    let error = taken.err()?;
    Some(Err(GenerationError::Model(error.to_string())))
}

/// Lets the job pick its next token. `Some` if that ends it.
fn pick(job: &mut Job, context: usize) -> Option<Ending> {
    catch_unwind(AssertUnwindSafe(|| job.generate(context)))
        .unwrap_or_else(|panic| Some(Err(GenerationError::Internal(panic_message(&*panic)))))
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}
