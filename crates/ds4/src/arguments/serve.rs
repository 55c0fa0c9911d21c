//! Options of the server.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::chat::{SamplingArguments, ThinkingArguments};
use super::engine::positive;
use super::{EngineArguments, ModelArgument, SpeculationArguments, SteeringArguments, VintageName};

/// Everything that `ds4 serve` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArgument,
    /// Address to listen on; another than loopback needs an API key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 lets the system choose
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub(crate) port: u16,
    /// Tokens that one conversation can hold [default: 32768, or less if the model has less]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub(crate) ctx: Option<usize>,
    /// Requests that are worked on at the same time
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 8)]
    pub(crate) sessions: usize,
    /// Tokens that the KV cache holds for all conversations together [default: 2 contexts]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) cache_tokens: Option<usize>,
    /// Directory of the KV cache on disk [default: ds4/kv in the user's cache directory]
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "no_kv_disk")]
    pub(crate) kv_dir: Option<PathBuf>,
    /// Most space for it on disk, in MiB
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 8192)]
    pub(crate) kv_space_mb: usize,
    /// Keep nothing on disk
    #[arg(long)]
    pub(crate) no_kv_disk: bool,
    /// Requests that may wait before new ones get 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_queue: usize,
    /// Key that requests must show, as a Bearer token or x-api-key; may be given several times
    #[arg(long, value_name = "KEY", env = "DS4_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Vec<String>,
    /// File with one key a line
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Another name that clients reach the server by (checked against DNS rebinding)
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Site whose pages may call the server, such as http://localhost:3000; * for all
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Another name of the model in requests
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Vec<String>,
    /// Write requests, prompts, generated text and answers here, keys redacted: to the end of a file,
    /// or to a file for each request in a directory
    #[arg(long, value_name = "PATH")]
    pub(crate) trace: Option<PathBuf>,
    /// No line for each request, no notes: only warnings and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    pub(crate) vintage: Option<VintageName>,
    #[command(flatten)]
    pub(crate) thinking: ThinkingArguments,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) steering: SteeringArguments,
    #[command(flatten)]
    pub(crate) speculation: SpeculationArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}
