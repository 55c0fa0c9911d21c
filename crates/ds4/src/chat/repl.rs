//! The interactive chat. Nothing that goes wrong in it ends it, but the end of the input.

use anyhow::anyhow;

use super::answer::AnswerReport;
use super::conversation::Chat;
use super::line_reader::{Input, LineReader};
use super::session_store::SessionName;
use super::slash_command::{SlashCommand, help};
use crate::failure::{self, Interrupted, UsageError};
use crate::generation::Outcome;
use crate::model_file::read_text;
use crate::output::Output;

/// Talks until the user leaves. With `save_as` the session is saved after every answer.
///
/// # Errors
/// Only if nothing can be read or written any more.
pub(crate) fn run_repl(
    chat: &mut Chat,
    save_as: Option<SessionName>,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut names = SessionNames {
        last: save_as.clone(),
        after_every_answer: save_as,
    };
    let mut lines = LineReader::new(output)?;
    output.note("type a message, or /help for the commands; Ctrl-D leaves");
    loop {
        let line = match lines.read(output)? {
            Input::End => return Ok(()),
            Input::Interrupted => {
                output.note("Ctrl-D or /quit leaves");
                continue;
            }
            Input::Line(line) => line,
        };
        let done = match line.trim() {
            "" => Ok(Next::Continue),
            text if text.starts_with('/') => command(chat, text, &mut names, output),
            text => say(chat, text, &names, output).map(|()| Next::Continue),
        };
        match done {
            Ok(Next::Continue) => {}
            Ok(Next::Leave) => return Ok(()),
            Err(error) if is_broken_output(&error) => return Err(error),
            Err(error) if error.is::<Interrupted>() => output.note("stopped"),
            Err(error) => {
                output.error(&failure::describe(&error), failure::hint(&error).as_deref())
            }
        }
    }
}

/// Under which names the session is saved.
struct SessionNames {
    /// Where `/save` without a name goes.
    last: Option<SessionName>,
    after_every_answer: Option<SessionName>,
}

enum Next {
    Continue,
    Leave,
}

/// Whether answers have nowhere to go.
fn is_broken_output(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn say(
    chat: &mut Chat,
    message: &str,
    names: &SessionNames,
    output: &mut Output,
) -> anyhow::Result<()> {
    let report = chat.answer(message, output)?;
    tell(&report, output);
    if let Some(name) = &names.after_every_answer
        && chat.turns() > 0
    {
        chat.save(name)?;
    }
    Ok(())
}

/// Says how an answer ended, and the speeds.
pub(crate) fn tell(report: &AnswerReport, output: &mut Output) {
    match report.outcome {
        Outcome::Finished => {}
        Outcome::TokenLimit => {
            output.note(&format!(
                "stopped after {} tokens, as -n says",
                report.generated
            ));
        }
        Outcome::ContextFull => {
            output.warning("the context is full; `--ctx N` or `/ctx N` makes it larger")
        }
        Outcome::Interrupted if report.generated == 0 => {
            output.note("stopped before the answer; your message was taken back");
        }
        Outcome::Interrupted => output.note("stopped; the answer so far is kept"),
    }
    output.note(&report.speeds());
}

fn command(
    chat: &mut Chat,
    text: &str,
    names: &mut SessionNames,
    output: &mut Output,
) -> anyhow::Result<Next> {
    match SlashCommand::parse(text).map_err(UsageError)? {
        SlashCommand::Help => output.write_stderr(&help()),
        SlashCommand::Status => output.write_stderr(&chat.status()?),
        SlashCommand::Thinking(thinking) => chat.set_thinking(thinking, output),
        SlashCommand::Context(tokens) => chat.set_context(tokens, output)?,
        SlashCommand::Read(path) => {
            let message = read_text(&path)?;
            say(chat, message.trim_end(), names, output)?;
        }
        SlashCommand::Save(name) => {
            let Some(name) = name.or_else(|| names.last.clone()) else {
                return Err(anyhow!("the session has no name yet: `/save NAME`"));
            };
            chat.save(&name)?;
            output.note(&format!(
                "saved session `{name}`; --load-session {name} goes on with it"
            ));
            names.last = Some(name);
        }
        SlashCommand::Load(name) => {
            chat.load(&name)?;
            output.note(&format!(
                "loaded session `{name}` with {} answers",
                chat.turns()
            ));
            names.last = Some(name);
        }
        SlashCommand::Quit => return Ok(Next::Leave),
    }
    Ok(Next::Continue)
}
