//! The raw arguments, as clap reads them. What they mean together is decided in `settings`.

mod chat;
mod engine;
mod model;
mod program;
mod serve;
mod speculation;
mod steering;

pub(crate) use chat::{ChatArguments, SamplingArguments, ThinkingArguments};
pub(crate) use engine::{BackendName, EngineArguments, KvTypeName};
pub(crate) use model::{ModelArgument, VintageName, VocabularyArguments};
pub(crate) use program::{Arguments, Command};
pub(crate) use serve::ServeArguments;
pub(crate) use speculation::{SpeculationArguments, SpeculationName};
pub(crate) use steering::SteeringArguments;
