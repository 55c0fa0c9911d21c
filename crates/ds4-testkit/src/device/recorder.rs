//! Recording and replay.

use std::collections::HashMap;
use std::sync::Arc;

use ds4_cpu::reference::{ReferenceBackend, ReferenceBuffer};
use ds4_model::backend::{Pass, StageContext, StepBuffer};
use ds4_model::step::{StepBucket, StepLayout};
use ds4_model::{BackendError, KvFormat, ModelShape};

use super::bundle::{Bundle, Handles};
use super::memory::{Address, DeviceBuffer, Memory, SharedMemory, misuse};

/// When commands run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Once recorded, a bucket's commands are replayed and the host's stage calls are not made.
    #[default]
    Replay,
    /// As [`Replay`](Self::Replay); the calls are made as well, and must be those of the recording.
    Verify,
    /// Every stage runs at its call, so that observers can read between the stages.
    Immediate,
}

/// What the device has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps that recorded their commands.
    pub recordings: usize,
    /// Steps that ran an earlier recording.
    pub replays: usize,
    /// Commands run.
    pub commands: usize,
}

/// What the stages of a recording know of the model and the step, besides the step's words.
#[derive(Clone)]
struct Frame {
    shape: Arc<ModelShape>,
    kv_format: KvFormat,
    words: Address,
    layout: StepLayout,
    bucket: StepBucket,
}

type Execute = Box<dyn Fn(&mut ReferenceBackend, &mut Memory) -> Result<(), BackendError> + Send>;

pub(super) struct Command {
    stage: &'static str,
    addresses: Vec<Address>,
    execute: Execute,
}

pub(super) enum State {
    Idle,
    Recording(StepBucket, Vec<Command>),
    /// Makes a recording's calls again: key and next command.
    Verifying((Pass, StepBucket), usize),
    Immediate(StepBucket),
}

/// A device that records and replays.
pub struct DeviceBackend {
    pub(super) mode: Mode,
    pub(super) memory: SharedMemory,
    pub(super) reference: ReferenceBackend,
    pub(super) state: State,
    recordings: HashMap<(Pass, StepBucket), Vec<Command>>,
    shape: Option<Arc<ModelShape>>,
    counts: Counts,
}

impl DeviceBackend {
    /// A device without memory or recordings.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            memory: SharedMemory::default(),
            reference: ReferenceBackend,
            state: State::Idle,
            recordings: HashMap::new(),
            shape: None,
            counts: Counts::default(),
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Buffers that are allocated and not freed.
    pub fn buffers(&self) -> usize {
        self.memory.lock().buffers()
    }

    /// Row counts are rounded up to powers of two, so that most steps have more rows recorded than
    /// true ones. A step without outputs stays one: it has no head.
    fn round_up(bucket: StepBucket) -> StepBucket {
        let round = |count: usize| {
            if count == 0 {
                0
            } else {
                count.next_power_of_two()
            }
        };
        StepBucket {
            rows: round(bucket.rows),
            sequences: round(bucket.sequences),
            outputs: round(bucket.outputs),
        }
    }

    /// The dimensions in a form that commands can keep.
    fn keep_shape(&mut self, shape: &ModelShape) -> Arc<ModelShape> {
        match &self.shape {
            Some(kept) if **kept == *shape => Arc::clone(kept),
            _ => Arc::clone(self.shape.insert(Arc::new(shape.clone()))),
        }
    }

    /// Appends a stage to the recording, or runs it at once.
    pub(super) fn submit<H: Handles>(
        &mut self,
        stage: &'static str,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        buffers: H,
        run: impl Fn(
            &mut ReferenceBackend,
            StageContext<'_>,
            &StepBuffer<ReferenceBuffer>,
            &mut <H::Kept as Bundle>::Lent,
        ) -> Result<(), BackendError>
        + Send
        + 'static,
    ) -> Result<(), BackendError> {
        let bucket = match &self.state {
            State::Idle => return Err(misuse(format!("stage {stage} was called outside a step"))),
            State::Recording(bucket, _) | State::Immediate(bucket) => *bucket,
            State::Verifying((_, bucket), _) => *bucket,
        };
        let layout = step.layout;
        let frame = Frame {
            shape: self.keep_shape(context.shape),
            kv_format: context.kv_format,
            words: step.words.address(&self.memory)?,
            layout,
            bucket: StepBucket {
                rows: bucket.rows.min(layout.max_rows),
                sequences: bucket.sequences.min(layout.max_sequences),
                outputs: bucket.outputs.min(layout.max_outputs),
            },
        };
        let buffers = buffers.keep(&self.memory)?;
        let mut addresses = vec![frame.words];
        buffers.addresses(&mut addresses);
        let execute: Execute = Box::new(move |reference, memory| {
            let step = StepBuffer {
                words: memory.lend(frame.words)?,
                layout: frame.layout,
                bucket: frame.bucket,
            };
            let mut lent = buffers.lend(memory)?;
            let context = StageContext {
                shape: &frame.shape,
                kv_format: frame.kv_format,
            };
            let result = run(reference, context, &step, &mut lent);
            memory.give_back(frame.words, step.words);
            buffers.give_back(lent, memory);
            result
        });
        let command = Command {
            stage,
            addresses,
            execute,
        };
        match &mut self.state {
            State::Idle => Err(misuse(format!("stage {stage} was called outside a step"))),
            State::Recording(_, commands) => {
                commands.push(command);
                Ok(())
            }
            State::Immediate(_) => self.execute(&[command]),
            State::Verifying(key, next) => {
                let recorded = self.recordings.get(key).and_then(|list| list.get(*next));
                *next += 1;
                match recorded {
                    Some(recorded)
                        if recorded.stage == command.stage
                            && recorded.addresses == command.addresses =>
                    {
                        Ok(())
                    }
                    _ => Err(misuse(format!(
                        "stage {stage} with {:?} is not call {} of the recording, which is {:?}",
                        command.addresses,
                        *next - 1,
                        recorded.map(|recorded| (recorded.stage, &recorded.addresses)),
                    ))),
                }
            }
        }
    }

    fn execute(&mut self, commands: &[Command]) -> Result<(), BackendError> {
        let mut memory = self.memory.lock();
        for command in commands {
            self.counts.commands += 1;
            (command.execute)(&mut self.reference, &mut memory).map_err(|error| match error {
                BackendError::Device { backend, message } => BackendError::Device {
                    backend,
                    message: format!("{}: {message}", command.stage),
                },
                other => other,
            })?;
        }
        Ok(())
    }

    pub(super) fn expect_idle(&self, what: &str) -> Result<(), BackendError> {
        match self.state {
            State::Idle | State::Immediate(_) => Ok(()),
            State::Recording(..) | State::Verifying(..) => {
                Err(misuse(format!("{what} while a step is recorded")))
            }
        }
    }

    fn replay(&mut self, key: (Pass, StepBucket)) -> Result<(), BackendError> {
        let commands = self.recordings.remove(&key).unwrap_or_default();
        let result = self.execute(&commands);
        self.recordings.insert(key, commands);
        result
    }

    /// Records the step or replays it.
    pub(super) fn run_step(
        &mut self,
        pass: Pass,
        bucket: StepBucket,
        record: &mut dyn FnMut(&mut Self) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        if !matches!(self.state, State::Idle) {
            return Err(misuse("a step inside a step".to_owned()));
        }
        let bucket = Self::round_up(bucket);
        let key = (pass, bucket);
        if self.mode == Mode::Immediate {
            self.state = State::Immediate(bucket);
            let result = record(self);
            self.state = State::Idle;
            return result;
        }
        if self.recordings.contains_key(&key) {
            if self.mode == Mode::Verify {
                self.state = State::Verifying(key, 0);
                let result = record(self);
                let verified = std::mem::replace(&mut self.state, State::Idle);
                result?;
                let recorded = self.recordings.get(&key).map_or(0, Vec::len);
                if let State::Verifying(_, made) = verified
                    && made != recorded
                {
                    return Err(misuse(format!("the step made {made} calls of {recorded}")));
                }
            }
            self.counts.replays += 1;
            return self.replay(key);
        }
        self.state = State::Recording(bucket, Vec::new());
        let result = record(self);
        let recorded = std::mem::replace(&mut self.state, State::Idle);
        result?;
        if let State::Recording(_, commands) = recorded {
            self.recordings.insert(key, commands);
        }
        self.counts.recordings += 1;
        self.replay(key)
    }
}
