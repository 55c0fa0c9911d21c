//! How a failure is told, and the exit codes.

use std::fmt;
use std::io;

use ds4_engine::EngineError;
use ds4_gguf::GgufError;
use ds4_kvstore::MaintenanceError;

use crate::output::Output;

/// Something went wrong.
pub(crate) const FAILURE: u8 = 1;
/// The arguments make no sense.
pub(crate) const USAGE: u8 = 2;
/// Stopped by Ctrl-C: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: u8 = 130;

/// The arguments contradict each other in a way that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Ctrl-C stopped the work.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// An error with advice on what to do.
#[derive(Debug)]
struct Hinted {
    hint: String,
    source: anyhow::Error,
}

impl fmt::Display for Hinted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(formatter)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its display is the source's, so the chain goes on behind that.
        self.source.chain().nth(1)
    }
}

/// Adds advice to errors.
pub(crate) trait Hint<T> {
    /// Attaches a line of advice, printed below the error.
    fn hint(self, hint: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, hint: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| {
            Hinted {
                hint: hint(),
                source: error.into(),
            }
            .into()
        })
    }
}

/// The error and its causes in one line.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Many errors already write out what caused them.
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

/// The advice that goes with an error.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    for cause in error.chain() {
        if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            return Some(hinted.hint.clone());
        }
    }
    error.chain().find_map(hint_for_cause).map(str::to_owned)
}

fn hint_for_cause(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<EngineError>() {
        return match error {
            EngineError::ContextFull { .. } => {
                Some("choose a larger context: `--ctx N`, or `/ctx N` in the chat")
            }
            EngineError::OtherModel { .. } => Some(
                "start with `--model` and the file that the session was saved with, and with \
                     the same `--dir-steering` options",
            ),
            EngineError::OtherKvFormat { .. } => {
                Some("start with `--kv-cache-type` as it was when the session was saved")
            }
            _ => None,
        };
    }
    if let Some(MaintenanceError::Busy) = cause.downcast_ref::<MaintenanceError>() {
        return Some("a program that loads from it or saves to it needs a moment; try again");
    }
    match cause.downcast_ref::<GgufError>()? {
        GgufError::NotAFile { .. } | GgufError::Header { .. } => {
            Some("`--model` takes a GGUF file of a DeepSeek V4 model; was it downloaded whole?")
        }
        _ => None,
    }
}

/// Prints the error and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error, output: &mut Output) -> u8 {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return 0;
    }
    // What was written so far comes before the error.
    let _ = output.flush();
    if error.chain().any(|cause| cause.is::<Interrupted>()) {
        return INTERRUPTED;
    }
    output.error(&describe(error), hint(error).as_deref());
    if error.chain().any(|cause| cause.is::<UsageError>()) {
        USAGE
    } else {
        FAILURE
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_told_once_and_hints_survive_context() {
        let error = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let result: anyhow::Result<()> = Err(error).hint(|| "look elsewhere".to_owned());
        let error = result
            .context("cannot read `x`")
            .context("cannot start")
            .unwrap_err();
        assert_eq!(
            describe(&error),
            "cannot start: cannot read `x`: no such file"
        );
        assert_eq!(hint(&error).as_deref(), Some("look elsewhere"));
    }

    #[test]
    fn the_engine_gets_its_hint() {
        let error = anyhow::Error::from(EngineError::ContextFull {
            tokens: 9,
            context: 8,
        });
        assert!(hint(&error).unwrap().contains("--ctx"));
    }
}
