//! `ds4 connect`: tells a coding agent where the server is.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::connect::{Change, Client, Endpoint};
use crate::failure::UsageError;
use crate::output::Output;

/// Longest answer to a question that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 100;

const AFTER_HELP: &str = "\
The settings lie in ~/.codex/config.toml (or $CODEX_HOME), ~/.claude/settings.json
(or $CLAUDE_CONFIG_DIR), ~/.config/opencode/opencode.json (or $XDG_CONFIG_HOME) and
~/.pi/agent/models.json (or $PI_CODING_AGENT_DIR). What was there is kept beside them.

Examples:
  ds4 connect codex                       show the change, ask, write it
  ds4 connect claude --print              only show what the settings must say
  ds4 connect pi --url http://box:8000 --api-key KEY --yes";

/// Arguments of `ds4 connect`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ConnectArguments {
    /// Which agent
    #[arg(value_enum)]
    client: Client,
    /// Where the server is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Name of the model that the agent asks for
    #[arg(long, value_name = "NAME", default_value = "deepseek-v4-flash")]
    model: String,
    /// Key that the server was started with
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Context that the server was started with
    #[arg(short, long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u64).range(1..))]
    ctx: u64,
    /// Print what the settings must say, and change nothing
    #[arg(long, conflicts_with = "yes")]
    print: bool,
    /// Write without asking
    #[arg(short, long)]
    yes: bool,
}

/// Shows the change to the agent's settings, asks, and writes it.
pub(crate) fn run(arguments: &ConnectArguments, output: &mut Output) -> anyhow::Result<()> {
    let client = arguments.client;
    let endpoint = Endpoint::new(
        &arguments.url,
        &arguments.model,
        arguments.api_key.as_deref(),
        arguments.ctx,
    )?;
    let path = client.settings_file(&|name| std::env::var_os(name).map(PathBuf::from))?;
    if arguments.print {
        output.note(&format!("for `{}`:", path.display()));
        output.write(&client.edited("", &endpoint)?)?;
        return Ok(());
    }
    let change = Change::new(path, |text| client.edited(text, &endpoint))?;
    let start = client.start_command(&endpoint);
    if !change.is_needed() {
        output.note(&format!(
            "`{}` says it all already; start with: {start}",
            change.path().display()
        ));
        return Ok(());
    }
    output.write(&change.diff())?;
    output.flush()?;
    if !arguments.yes && !confirmed(output)? {
        output.note("nothing was changed");
        return Ok(());
    }
    if let Some(copy) = change.write()? {
        output.note(&format!("what was there is in `{}`", copy.display()));
    }
    output.note(&format!(
        "`{}` is written; start with: {start}",
        change.path().display()
    ));
    Ok(())
}

/// Asks whether to write.
fn confirmed(output: &mut Output) -> anyhow::Result<bool> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(UsageError(
            "nobody can be asked here: give --yes to write this, or --print to only look"
                .to_owned(),
        )
        .into());
    }
    output.write_stderr("Write this? [y/N] ");
    let mut answer = String::new();
    input
        .lock()
        .take(MAX_ANSWER_BYTES)
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
