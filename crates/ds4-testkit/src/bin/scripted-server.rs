//! The real server on an engine that says what a plan tells it.
#![expect(clippy::print_stdout, reason = "the address is the program's output")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use ds4_chat::{ReasoningEffort, Vintage};
use ds4_engine::SamplerSettings;
use ds4_server::turn::Thinking;
use ds4_server::{Inference, ServerSettings, serve};
use ds4_testkit::scripted::{Plan, ScriptedService, deepseek_tokenizer};

/// Serves the turns of a plan over every API of `ds4 serve`, on loopback.
#[derive(Parser)]
struct Arguments {
    /// Port; 0 lets the system choose
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// JSON: {"turns": [{"text": "raw generated text, reasoning and DSML included"}]}
    #[arg(long)]
    plan: PathBuf,
    /// Tokens that a conversation can hold
    #[arg(long, default_value_t = 131_072)]
    ctx: usize,
    /// Key that requests must show
    #[arg(long)]
    api_key: Vec<String>,
    /// Where traces go, as of `ds4 serve`
    #[arg(long)]
    trace: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let text = std::fs::read_to_string(&arguments.plan)
        .with_context(|| format!("cannot read `{}`", arguments.plan.display()))?;
    let plan: Plan = serde_json::from_str(&text)
        .with_context(|| format!("`{}` is no plan", arguments.plan.display()))?;
    let tokenizer = deepseek_tokenizer()?;
    let service = Arc::new(ScriptedService::new(&plan, &tokenizer, arguments.ctx)?);
    let inference = Inference::new(
        service,
        tokenizer,
        Vintage::Release0731,
        SamplerSettings::default(),
        Thinking::On(ReasoningEffort::High),
    )?;
    let settings = ServerSettings {
        address: SocketAddr::from(([127, 0, 0, 1], arguments.port)),
        api_keys: arguments.api_key,
        trace: arguments.trace,
        ..ServerSettings::default()
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            let server = serve(settings).await?;
            server.open(Arc::new(inference));
            println!("listening on http://{}", server.address());
            tokio::signal::ctrl_c().await?;
            server.stop().await;
            Ok(())
        })
}
