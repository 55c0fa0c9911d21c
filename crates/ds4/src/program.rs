//! From the arguments to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::commands;
use crate::failure;
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Runs the program with these arguments, the first of which is its name.
///
/// The exit code is 0 for success, 1 for a failure, 2 for wrong usage and 130 after Ctrl-C. A
/// closed pipe on standard output is success: the reader had enough.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(with_long_names(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" for clap, too.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            Output::new().write_stderr(&format!("ds4: {text}"));
            return ExitCode::from(failure::USAGE);
        }
    };
    let mut output = Output::new();
    let result = install_handlers()
        .and_then(|interrupt| execute(arguments, &mut output, &interrupt))
        .and_then(|()| Ok(output.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(failure::report(&error, &mut output)),
    }
}

/// Takes over the signals: a model file that is truncated under the program, and Ctrl-C.
fn install_handlers() -> anyhow::Result<Arc<Interrupt>> {
    #[cfg(unix)]
    ds4_gguf::guard::install_truncation_guard()
        .context("cannot watch for truncated model files")?;
    Interrupt::install()
}

/// The reference spells `--system` as `-sys`, which is three options to clap, and `download` as the option
/// `--download` in front of everything else.
fn with_long_names(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut only_values = false;
    arguments
        .into_iter()
        .enumerate()
        .flat_map(|(place, argument)| {
            only_values |= argument == "--";
            if only_values {
                return vec![argument];
            }
            if argument == "-sys" {
                return vec!["--system".into()];
            }
            match argument.to_str().filter(|_| place == 1) {
                Some("--download") => vec!["download".into()],
                Some(text) => match text.strip_prefix("--download=") {
                    Some(name) => vec!["download".into(), name.into()],
                    None => vec![argument],
                },
                None => vec![argument],
            }
        })
        .collect()
}

fn execute(
    arguments: Arguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    match arguments.command {
        None => commands::chat::run(&arguments.chat, output, interrupt),
        Some(Command::Download(download)) => commands::download::run(&download, output, interrupt),
        Some(Command::Serve(serve)) => commands::serve::run(&serve, output, interrupt),
        Some(Command::Connect(connect)) => commands::connect::run(&connect, output),
        Some(Command::Inspect(inspect)) => commands::inspect::run(&inspect, output),
        Some(Command::Plan(plan)) => commands::plan::run(&plan, output),
        Some(Command::Quantize(quantize)) => commands::quantize::run(&quantize, output, interrupt),
        Some(Command::Synth(synth)) => commands::synth::run(&synth, output, interrupt),
        Some(Command::Imatrix(imatrix)) => commands::imatrix::run(&imatrix, output, interrupt),
        Some(Command::Score(score)) => commands::score::run(&score, output, interrupt),
        Some(Command::Bench(bench)) => commands::bench::run(&bench, output, interrupt),
        Some(Command::Eval(eval)) => commands::eval::run(&eval, output, interrupt),
        Some(Command::Steer(steer)) => commands::steer::run(&steer, output, interrupt),
        Some(Command::Quality(quality)) => commands::quality::run(&quality, output, interrupt),
        Some(Command::Logits(logits)) => commands::logits::run(&logits, output, interrupt),
        Some(Command::Tokenize(tokenize)) => commands::tokenize::run(&tokenize, output),
        Some(Command::Detokenize(detokenize)) => commands::detokenize::run(&detokenize, output),
        Some(Command::Render(render)) => commands::render::run(&render, output),
        Some(Command::Parse(parse)) => commands::parse::run(&parse, output),
        Some(Command::Cache(cache)) => commands::cache::run(&cache, output, interrupt),
        Some(Command::Completions(completions)) => commands::completions::run(&completions, output),
    }
}
