//! `ds4` without a command: a chat, or one answer.

use std::sync::Arc;

use ds4_model::ModelShape;

use crate::arguments::ChatArguments;
use crate::chat::{Chat, SessionName, run_repl, tell};
use crate::failure::{Interrupted, UsageError};
use crate::generation::Outcome;
use crate::interrupt::Interrupt;
use crate::loaded_model::Vocabulary;
use crate::model_file::{ModelFile, read_text};
use crate::output::Output;
use crate::settings::ChatSettings;

/// Chats, or answers once.
pub(crate) fn run(
    arguments: &ChatArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    output.set_quiet(arguments.quiet);
    // What is wrong with the arguments is told before a model is opened.
    let save_as = session_name(arguments.save_session.as_deref())?;
    let load_from = session_name(arguments.load_session.as_deref())?;
    let prompt = match (&arguments.prompt, &arguments.prompt_file) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(path)) => Some(read_text(path)?.trim_end().to_owned()),
        (None, None) => None,
    };
    if prompt
        .as_deref()
        .is_some_and(|prompt| prompt.trim().is_empty())
    {
        return Err(UsageError("the prompt is empty".to_owned()).into());
    }

    let mut model = ModelFile::open(arguments.model.model.as_deref())?;
    model.open_mtp(arguments.speculation.mtp.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let settings = ChatSettings::new(arguments, &shape, &model, &vocabulary)?;
    let (thinking, system) = (settings.thinking, settings.system.clone());
    let mut chat = Chat::new(
        model,
        shape,
        vocabulary,
        settings,
        Arc::clone(interrupt),
        output,
    )?;
    match &load_from {
        None => chat.open()?,
        Some(name) => {
            chat.load(name)?;
            output.note(&format!(
                "loaded session `{name}` with {} answers",
                chat.turns()
            ));
            if arguments.thinking.is_given() {
                chat.choose_thinking(thinking, output);
            }
            if let Some(system) = system {
                chat.set_system(&system, output);
            }
        }
    }
    match prompt {
        None => run_repl(&mut chat, save_as, output),
        Some(prompt) => answer_once(&mut chat, &prompt, save_as.as_ref(), output),
    }
}

fn session_name(name: Option<&str>) -> anyhow::Result<Option<SessionName>> {
    let parsed = name.map(str::parse).transpose();
    Ok(parsed.map_err(|error: crate::chat::InvalidName| UsageError(error.to_string()))?)
}

fn answer_once(
    chat: &mut Chat,
    prompt: &str,
    save_as: Option<&SessionName>,
    output: &mut Output,
) -> anyhow::Result<()> {
    let report = chat.answer(prompt, output)?;
    tell(&report, output);
    if let Some(name) = save_as
        && chat.turns() > 0
    {
        chat.save(name)?;
        output.note(&format!(
            "saved session `{name}`; --load-session {name} goes on with it"
        ));
    }
    match report.outcome {
        Outcome::Interrupted => Err(Interrupted.into()),
        Outcome::Finished | Outcome::TokenLimit | Outcome::ContextFull => Ok(()),
    }
}
