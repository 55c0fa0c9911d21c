//! Lines from the user: edited and remembered on a terminal, plain elsewhere.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::session_store::saved_names;
use super::slash_command::COMMANDS;
use crate::directories::DataDirectory;
use crate::output::Output;

/// Lines that the history keeps.
const HISTORY_LINES: usize = 512;
const PROMPT: &str = "ds4> ";

/// What the user did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Typed a line; several if they were pasted or continued.
    Line(String),
    /// Pressed Ctrl-C at the prompt.
    Interrupted,
    /// Pressed Ctrl-D, or the input ended.
    End,
}

/// Where lines come from.
pub(super) enum LineReader {
    Terminal {
        editor: Box<Editor<ChatHelper, FileHistory>>,
        history: Option<PathBuf>,
    },
    /// A pipe or a file; or a terminal whose output goes elsewhere.
    Plain { shows_prompt: bool },
}

impl LineReader {
    /// A reader of standard input.
    pub(super) fn new(output: &mut Output) -> anyhow::Result<Self> {
        let is_terminal = io::stdin().is_terminal();
        if !is_terminal || !output.stdout_is_terminal() {
            return Ok(Self::Plain {
                shows_prompt: is_terminal && output.stderr_is_terminal(),
            });
        }
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .context("cannot set up the line editor")?
            .auto_add_history(false)
            .build();
        let mut editor = Editor::with_config(config).context("cannot set up the line editor")?;
        editor.set_helper(Some(ChatHelper {
            files: FilenameCompleter::new(),
        }));
        let history = match open_history(&mut editor) {
            Ok(path) => Some(path),
            Err(error) => {
                output.warning(&format!("the history is not kept: {error:#}"));
                None
            }
        };
        Ok(Self::Terminal {
            editor: Box::new(editor),
            history,
        })
    }

    /// The next input.
    pub(super) fn read(&mut self, output: &mut Output) -> anyhow::Result<Input> {
        match self {
            Self::Terminal { editor, history } => match editor.readline(PROMPT) {
                Ok(line) => {
                    remember(editor, history, &line, output);
                    Ok(Input::Line(joined(&line)))
                }
                Err(ReadlineError::Interrupted) => Ok(Input::Interrupted),
                Err(ReadlineError::Eof) => Ok(Input::End),
                Err(error) => Err(error).context("cannot read from the terminal"),
            },
            Self::Plain { shows_prompt } => {
                if *shows_prompt {
                    output.write_stderr(PROMPT);
                }
                read_plain()
            }
        }
    }
}

fn open_history(editor: &mut Editor<ChatHelper, FileHistory>) -> anyhow::Result<PathBuf> {
    let data = DataDirectory::of_user()?;
    data.create()?;
    let path = data.history();
    if path.exists() {
        editor
            .load_history(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
    }
    Ok(path)
}

/// Adds a line to the history, at once, so that nothing is lost if the program is killed.
fn remember(
    editor: &mut Editor<ChatHelper, FileHistory>,
    history: &mut Option<PathBuf>,
    line: &str,
    output: &mut Output,
) {
    if line.trim().is_empty() {
        return;
    }
    let added = editor.add_history_entry(line);
    if let Some(path) = history
        && let Err(error) = added.and_then(|_| editor.append_history(path))
    {
        output.warning(&format!(
            "the history is not kept: `{}`: {error}",
            path.display()
        ));
        *history = None;
    }
}

fn read_plain() -> anyhow::Result<Input> {
    let mut line = Vec::new();
    loop {
        let count = io::stdin()
            .lock()
            .read_until(b'\n', &mut line)
            .context("cannot read standard input")?;
        let ended = count == 0;
        if ended && line.is_empty() {
            return Ok(Input::End);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !ended && text.ends_with(b"\\") {
            continue;
        }
        let text =
            std::str::from_utf8(text).map_err(|_| anyhow!("standard input is not UTF-8 text"))?;
        return Ok(Input::Line(joined(text)));
    }
}

/// A backslash at the end of a line only says that the message goes on.
fn joined(text: &str) -> String {
    text.replace("\\\r\n", "\n").replace("\\\n", "\n")
}

/// Completion of commands, sessions and files, and continued lines.
pub(super) struct ChatHelper {
    files: FilenameCompleter,
}

impl Completer for ChatHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..position];
        if typed.starts_with("/read ") {
            return self.files.complete(line, position, context);
        }
        let session = typed
            .strip_prefix("/load ")
            .or_else(|| typed.strip_prefix("/save "));
        let (start, candidates): (usize, Vec<String>) = match session {
            Some(name) => (position - name.len(), saved_names()),
            None if typed.starts_with('/') => (
                0,
                COMMANDS
                    .iter()
                    .map(|(name, _, _)| (*name).to_owned())
                    .collect(),
            ),
            None => (position, Vec::new()),
        };
        let pairs = candidates
            .into_iter()
            .filter(|candidate| candidate.starts_with(&typed[start..]))
            .map(|candidate| Pair {
                display: candidate.clone(),
                replacement: candidate,
            })
            .collect();
        Ok((start, pairs))
    }
}

impl Validator for ChatHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if context.input().ends_with('\\') {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Hinter for ChatHelper {
    type Hint = String;
}

impl Highlighter for ChatHelper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Helper for ChatHelper {}
