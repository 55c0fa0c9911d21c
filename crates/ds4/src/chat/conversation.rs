//! A conversation with a model: answers, settings that change on the way, saving and loading.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use ds4_chat::ControlToken;
use ds4_engine::{Engine, EngineOptions, MemoryPlan, Sampler, Session, SyncControl, session_file};
use ds4_model::{ModelShape, Steering};

use super::answer::{AnswerReport, Generator};
use super::display::AnswerDisplay;
use super::session_store::{SessionName, saved_names};
use super::transcript::{Transcript, Turn};
use crate::failure::{Hint, Interrupted};
use crate::generation::Outcome;
use crate::interrupt::Interrupt;
use crate::loaded_engine;
use crate::loaded_model::Vocabulary;
use crate::machine_memory;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::settings::{ChatSettings, THINK_MAX_CONTEXT, Thinking};
use crate::table::{Table, bytes, grouped};

/// A conversation and what it needs.
pub(crate) struct Chat {
    model: ModelFile,
    shape: ModelShape,
    vocabulary: Vocabulary,
    settings: ChatSettings,
    sampler: Sampler,
    transcript: Transcript,
    /// Opened when first needed, and again after a change of the context.
    runtime: Option<Runtime>,
    interrupt: Arc<Interrupt>,
}

/// The model in memory and the conversation's place in it.
struct Runtime {
    engine: Engine,
    session: Session,
}

impl Runtime {
    fn of(model: &ModelFile, settings: &ChatSettings) -> anyhow::Result<Self> {
        Self::open(model, &settings.engine, settings.steering.as_ref())
    }

    fn open(
        model: &ModelFile,
        options: &EngineOptions,
        steering: Option<&Steering>,
    ) -> anyhow::Result<Self> {
        let mut engine = loaded_engine::open(model, options, steering)?;
        let session = engine.session()?;
        Ok(Self { engine, session })
    }
}

impl Chat {
    /// An empty conversation.
    pub(crate) fn new(
        model: ModelFile,
        shape: ModelShape,
        vocabulary: Vocabulary,
        settings: ChatSettings,
        interrupt: Arc<Interrupt>,
        output: &mut Output,
    ) -> anyhow::Result<Self> {
        let sampler = Sampler::new(settings.sampling.clone())?;
        let transcript = Transcript::new(settings.system_text());
        let chat = Self {
            model,
            shape,
            vocabulary,
            settings,
            sampler,
            transcript,
            runtime: None,
            interrupt,
        };
        chat.warn_if_context_is_small(output);
        Ok(chat)
    }

    /// Loads the model now rather than with the first answer.
    pub(crate) fn open(&mut self) -> anyhow::Result<()> {
        runtime(&mut self.runtime, &self.model, &self.settings).map(|_| ())
    }

    /// Answers a message, writing the answer as it comes. After Ctrl-C what was said stays part of
    /// the conversation; if nothing was said yet, the message is taken back.
    pub(crate) fn answer(
        &mut self,
        message: &str,
        output: &mut Output,
    ) -> anyhow::Result<AnswerReport> {
        self.model.check_unchanged()?;
        let thinking = self.thinking();
        let tokenizer = &self.vocabulary.tokenizer;
        let prompt = self
            .transcript
            .prompt(message, thinking, self.settings.vintage, tokenizer)?;
        let runtime = runtime(&mut self.runtime, &self.model, &self.settings)?;
        let interrupt = self.interrupt.arm();
        let mut generator = Generator {
            engine: &mut runtime.engine,
            session: &mut runtime.session,
            sampler: &mut self.sampler,
            tokenizer,
            interrupt: &interrupt,
            max_tokens: self.settings.max_tokens,
            thinking: thinking != Thinking::Off,
        };
        let report = generator.prefill(&prompt, output)?;
        if report.outcome == Outcome::Interrupted {
            return Ok(report);
        }
        let display = AnswerDisplay::new(output, self.settings.show_thinking);
        let answer = generator.generate(report, display)?;
        if answer.sampled.is_empty() && answer.report.outcome == Outcome::Interrupted {
            return Ok(answer.report);
        }
        self.transcript.turns.push(Turn::new(
            message.to_owned(),
            answer.message.reasoning,
            answer.message.content,
            &answer.sampled,
            tokenizer.special(ControlToken::ThinkEnd.text()),
            thinking,
        ));
        Ok(answer.report)
    }

    /// The thinking that the context allows.
    fn thinking(&self) -> Thinking {
        self.settings.thinking.within(self.settings.engine.context)
    }

    fn warn_if_context_is_small(&self, output: &mut Output) {
        if self.thinking() != self.settings.thinking {
            output.warning(&format!(
                "thinking at maximum effort needs a context of {THINK_MAX_CONTEXT} tokens, this \
                 one has {}; thinking normally",
                self.settings.engine.context
            ));
        }
    }

    /// Changes how much the model thinks from the next answer on.
    pub(crate) fn choose_thinking(&mut self, thinking: Thinking, output: &mut Output) {
        self.settings.thinking = thinking;
        self.warn_if_context_is_small(output);
    }

    /// As [`choose_thinking`](Self::choose_thinking), and says so.
    pub(crate) fn set_thinking(&mut self, thinking: Thinking, output: &mut Output) {
        self.choose_thinking(thinking, output);
        output.note(&format!("thinking is {}", self.thinking().name()));
    }

    /// Changes the context. The conversation is kept and computed again with the next answer.
    pub(crate) fn set_context(
        &mut self,
        context: usize,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let options = EngineOptions {
            context,
            ..self.settings.engine
        };
        // Refuses what cannot be before anything is given up.
        machine_memory::check(&self.model.file, &options)?;
        let plan = MemoryPlan::for_file(&self.model.file, &options)?;
        // Two KV caches at a time could be too much. If opening fails, the context before opens
        // again with the next answer.
        self.runtime = None;
        self.runtime = Some(Runtime::open(
            &self.model,
            &options,
            self.settings.steering.as_ref(),
        )?);
        self.settings.engine = options;
        output.note(&format!(
            "the context is {} tokens, {} beside the weights",
            grouped(context as u64),
            bytes(plan.allocated() as u64)
        ));
        self.warn_if_context_is_small(output);
        Ok(())
    }

    /// Saves the session. It first goes back to where the next prompt will start, so that whoever
    /// loads it has nothing to compute.
    pub(crate) fn save(&mut self, name: &SessionName) -> anyhow::Result<()> {
        let thinking = self.thinking();
        if self.transcript.turns.is_empty() {
            return Err(anyhow!("there is nothing to save yet"))
                .hint(|| "a session can be saved after its first answer".to_owned());
        }
        let prompt = self.transcript.prompt(
            "",
            thinking,
            self.settings.vintage,
            &self.vocabulary.tokenizer,
        )?;
        let history = &prompt.ids[..prompt.history];
        let runtime = runtime(&mut self.runtime, &self.model, &self.settings)?;
        let interrupt = self.interrupt.arm();
        // A full context may lack the one place for the end of the sentence.
        if history.len() <= runtime.engine.options().context {
            let mut control = SyncControl {
                cancel: interrupt.cancel(),
                progress: &mut |_, _| {},
            };
            let report = runtime
                .engine
                .sync(&mut runtime.session, history, &mut control)?;
            if report.cancelled {
                return Err(Interrupted.into());
            }
        }
        let attachment = self.transcript.to_attachment(self.settings.thinking)?;
        let path = name.path_to_write()?;
        session_file::save(&path, &mut runtime.engine, &runtime.session, &attachment)
            .with_context(|| format!("cannot save session `{name}`"))
    }

    /// Goes on with a saved session. The conversation at hand stays if that fails.
    pub(crate) fn load(&mut self, name: &SessionName) -> anyhow::Result<()> {
        let path = name.path()?;
        if !path.exists() {
            return Err(anyhow!(
                "no session `{name}`: looked for `{}`",
                path.display()
            ))
            .hint(|| match saved_names() {
                names if names.is_empty() => "no sessions are saved yet".to_owned(),
                names => format!("saved sessions are {}", names.join(", ")),
            });
        }
        let Runtime {
            mut engine,
            session,
        } = match self.runtime.take() {
            Some(runtime) => runtime,
            None => Runtime::of(&self.model, &self.settings)?,
        };
        // Gives its place to the one that is loaded. If that fails, the conversation at hand is
        // computed again from its tokens.
        engine.close(session);
        let loaded = load_session(&mut engine, &path)
            .with_context(|| format!("cannot load session `{name}`"));
        match loaded {
            Ok((session, transcript, thinking)) => {
                self.transcript = transcript;
                self.settings.thinking = thinking;
                self.runtime = Some(Runtime { engine, session });
                Ok(())
            }
            Err(error) => {
                let session = engine.session()?;
                self.runtime = Some(Runtime { engine, session });
                Err(error)
            }
        }
    }

    /// Replaces the instructions; everything behind them is then computed again.
    pub(crate) fn set_system(&mut self, system: &str, output: &mut Output) {
        if self.transcript.system != system {
            output.warning("the session has another system text; its prompt is computed again");
            self.transcript.system = system.to_owned();
        }
    }

    /// Number of answers so far.
    pub(crate) fn turns(&self) -> usize {
        self.transcript.turns.len()
    }

    /// The model, the settings and the tokens in use.
    pub(crate) fn status(&self) -> anyhow::Result<String> {
        let options = &self.settings.engine;
        let sampling = &self.settings.sampling;
        let plan = MemoryPlan::for_file(&self.model.file, options)?;
        let used = self
            .runtime
            .as_ref()
            .map_or(0, |runtime| runtime.session.position());
        let backend = self
            .runtime
            .as_ref()
            .map(|runtime| runtime.engine.backend_name());
        let name = match self.shape.name.as_str() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        let mut table = Table::new(["model", &format!("{}{name}", self.model.title())]);
        table.row(["backend", backend.unwrap_or("not loaded yet")]);
        table.row([
            "context",
            &format!(
                "{} of {} tokens in use",
                grouped(used as u64),
                grouped(options.context as u64)
            ),
        ]);
        table.row(["answers", &self.turns().to_string()]);
        table.row(["thinking", self.thinking().name()]);
        table.row([
            "sampling",
            &format!(
                "temperature {}, top-k {}, top-p {}, min-p {}, seed {}",
                sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.seed
            ),
        ]);
        if let Some(steering) = &self.settings.steering {
            let [attention, experts] = steering.scales();
            let scales =
                format!("scale {experts} behind the experts, {attention} behind attention");
            table.row(["steering", &scales]);
        }
        table.row([
            "memory",
            &format!(
                "{} weights (mapped), {} KV cache ({}), {} activations",
                bytes(plan.weights as u64),
                bytes((plan.kv_sessions + plan.kv_pages) as u64),
                options.kv_format.name(),
                bytes(plan.activations as u64)
            ),
        ]);
        Ok(table.facts().map(|line| line + "\n").collect())
    }
}

/// Reads a saved session into the engine, which must have room for it.
fn load_session(
    engine: &mut Engine,
    path: &Path,
) -> anyhow::Result<(Session, Transcript, Thinking)> {
    let (session, attachment) = session_file::load(path, engine)?;
    match Transcript::from_attachment(&attachment) {
        Ok((transcript, thinking)) => Ok((session, transcript, thinking)),
        Err(error) => {
            engine.close(session);
            Err(error)
        }
    }
}

/// The runtime, opened if it is not.
fn runtime<'a>(
    slot: &'a mut Option<Runtime>,
    model: &ModelFile,
    settings: &ChatSettings,
) -> anyhow::Result<&'a mut Runtime> {
    match slot {
        Some(runtime) => Ok(runtime),
        None => Ok(slot.insert(Runtime::of(model, settings)?)),
    }
}
