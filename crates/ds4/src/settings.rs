//! Raw arguments to settings: defaults, the model's own recommendations, and what contradicts what.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use ds4_chat::Vintage;
use ds4_engine::{EngineOptions, SamplerSettings, SpeculationOptions};
use ds4_gguf::Metadata;
use ds4_model::{KvFormat, ModelShape, Steering};

use crate::arguments::{
    ChatArguments, EngineArguments, KvTypeName, SamplingArguments, ServeArguments, SpeculationName,
    ThinkingArguments,
};
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::steering_file;

/// Context of a chat if nobody says otherwise, in tokens.
const DEFAULT_CONTEXT: usize = 32_768;

/// Smallest context for thinking at maximum effort, in tokens, as in the reference engine.
pub(crate) const THINK_MAX_CONTEXT: usize = 393_216;

/// The system text if nobody says otherwise, as in the reference engine.
const DEFAULT_SYSTEM: &str = "You are a helpful assistant";

/// How much the model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    Off,
    High,
    Max,
}

impl Thinking {
    fn from_arguments(arguments: &ThinkingArguments) -> Self {
        // At most one is set: each takes back the others.
        if arguments.nothink {
            Self::Off
        } else if arguments.think_max {
            Self::Max
        } else {
            Self::High
        }
    }

    /// What is possible in a context of this many tokens.
    pub(crate) fn within(self, context: usize) -> Self {
        match self {
            Self::Max if context < THINK_MAX_CONTEXT => Self::High,
            thinking => thinking,
        }
    }

    /// The name in `/status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::High => "on",
            Self::Max => "max",
        }
    }
}

/// Settings of a chat or of one answer.
#[derive(Debug, Clone)]
pub(crate) struct ChatSettings {
    pub(crate) engine: EngineOptions,
    pub(crate) sampling: SamplerSettings,
    pub(crate) steering: Option<Steering>,
    pub(crate) thinking: Thinking,
    pub(crate) vintage: Vintage,
    /// `None` where the user named none; a loaded session keeps its own then.
    pub(crate) system: Option<String>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) show_thinking: bool,
}

impl ChatSettings {
    /// Combines what the user said with what the model recommends and the defaults.
    pub(crate) fn new(
        arguments: &ChatArguments,
        shape: &ModelShape,
        model: &ModelFile,
        vocabulary: &Vocabulary,
    ) -> anyhow::Result<Self> {
        let engine = EngineOptions {
            context: arguments
                .ctx
                .unwrap_or_else(|| shape.context.min(DEFAULT_CONTEXT)),
            kv_format: kv_format(shape, arguments.engine.kv_cache_type, false),
            speculation: speculation(arguments.speculation.speculation, shape, model),
            ..engine_options(&arguments.engine)
        };
        Ok(Self {
            engine,
            sampling: sampling(&arguments.sampling, model.file.metadata())?,
            steering: steering_file::load(&arguments.steering, shape)?,
            thinking: Thinking::from_arguments(&arguments.thinking),
            vintage: vocabulary.vintage(arguments.vintage),
            system: arguments.system.clone(),
            max_tokens: arguments.tokens,
            show_thinking: arguments.show_thinking,
        })
    }

    /// The system text of a new conversation.
    pub(crate) fn system_text(&self) -> &str {
        self.system.as_deref().unwrap_or(DEFAULT_SYSTEM)
    }
}

/// Settings of the server.
#[derive(Debug, Clone)]
pub(crate) struct ServeSettings {
    pub(crate) engine: EngineOptions,
    pub(crate) sampling: SamplerSettings,
    pub(crate) steering: Option<Steering>,
    pub(crate) thinking: Thinking,
    pub(crate) vintage: Vintage,
}

impl ServeSettings {
    /// Combines what the user said with what the model recommends and the defaults.
    pub(crate) fn new(
        arguments: &ServeArguments,
        shape: &ModelShape,
        model: &ModelFile,
        vocabulary: &Vocabulary,
    ) -> anyhow::Result<Self> {
        let context = arguments
            .ctx
            .unwrap_or_else(|| shape.context.min(DEFAULT_CONTEXT));
        let engine = EngineOptions {
            context,
            sessions: arguments.sessions,
            cache_tokens: Some(arguments.cache_tokens.unwrap_or(2 * context).max(context)),
            kv_format: kv_format(shape, arguments.engine.kv_cache_type, false),
            speculation: speculation(arguments.speculation.speculation, shape, model),
            ..engine_options(&arguments.engine)
        };
        Ok(Self {
            engine,
            sampling: sampling(&arguments.sampling, model.file.metadata())?,
            steering: steering_file::load(&arguments.steering, shape)?,
            thinking: Thinking::from_arguments(&arguments.thinking),
            vintage: vocabulary.vintage(arguments.vintage),
        })
    }
}

/// The engine's options as far as all commands share them.
pub(crate) fn engine_options(arguments: &EngineArguments) -> EngineOptions {
    EngineOptions {
        backend: arguments.backend.into(),
        threads: arguments.threads,
        ..EngineOptions::default()
    }
}

/// What drafts: as asked, or all that the model has.
pub(crate) fn speculation(
    how: SpeculationName,
    shape: &ModelShape,
    model: &ModelFile,
) -> SpeculationOptions {
    let (prompt_lookup, mtp) = match how {
        SpeculationName::Off => (false, false),
        SpeculationName::Lookup => (true, false),
        SpeculationName::Mtp => (false, true),
        SpeculationName::Auto => (true, model.has_mtp(shape)),
    };
    SpeculationOptions {
        prompt_lookup,
        mtp,
        ..SpeculationOptions::default()
    }
}

/// The KV cache's format: as asked, F32 for exact arithmetic, otherwise the official form; F16 for
/// small models whose rows have no such form.
pub(crate) fn kv_format(shape: &ModelShape, asked: Option<KvTypeName>, exact: bool) -> KvFormat {
    match asked {
        Some(name) => name.into(),
        None if exact => KvFormat::F32,
        None if KvFormat::Fp8.fits(shape) => KvFormat::Fp8,
        None => KvFormat::F16,
    }
}

/// Arguments win over `general.sampling.*` keys of the file, and those over the defaults.
fn sampling(arguments: &SamplingArguments, metadata: &Metadata) -> anyhow::Result<SamplerSettings> {
    let default = SamplerSettings::default();
    let float = |asked: Option<f32>, key: &str, default: f32| {
        anyhow::Ok(match asked {
            Some(value) => value,
            None => metadata.optional_f32(key)?.unwrap_or(default),
        })
    };
    let top_k = match arguments.top_k {
        Some(top_k) => top_k,
        None => metadata
            .optional_u32("general.sampling.top_k")?
            .map_or(default.top_k, |top_k| top_k as usize),
    };
    Ok(SamplerSettings {
        temperature: float(arguments.temp, "general.sampling.temp", default.temperature)?,
        top_k,
        top_p: float(arguments.top_p, "general.sampling.top_p", default.top_p)?,
        min_p: float(arguments.min_p, "general.sampling.min_p", default.min_p)?,
        // The standard library's hasher keys are the system's random numbers.
        seed: arguments
            .seed
            .unwrap_or_else(|| RandomState::new().hash_one(0)),
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_at_maximum_needs_its_context() {
        assert_eq!(Thinking::Max.within(THINK_MAX_CONTEXT - 1), Thinking::High);
        assert_eq!(Thinking::Max.within(THINK_MAX_CONTEXT), Thinking::Max);
        assert_eq!(Thinking::Off.within(1), Thinking::Off);
    }

    #[test]
    fn arguments_win_over_the_file_and_the_file_over_defaults() {
        let mut metadata = Metadata::new();
        metadata.insert("general.sampling.temp", 0.25_f32).unwrap();
        metadata.insert("general.sampling.top_k", 7_i32).unwrap();
        let arguments = SamplingArguments {
            temp: None,
            top_p: Some(0.5),
            top_k: Some(3),
            min_p: None,
            seed: Some(9),
        };
        let found = sampling(&arguments, &metadata).unwrap();
        let expected = SamplerSettings {
            temperature: 0.25,
            top_k: 3,
            top_p: 0.5,
            min_p: SamplerSettings::default().min_p,
            seed: 9,
            ..SamplerSettings::default()
        };
        assert_eq!(found, expected);
    }
}
