//! The commands of the chat.

use std::path::PathBuf;

use super::SessionName;
use crate::settings::Thinking;

/// A line that begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SlashCommand {
    Help,
    Thinking(Thinking),
    Context(usize),
    Read(PathBuf),
    Save(Option<SessionName>),
    Load(SessionName),
    Status,
    Quit,
}

/// Every command: name, argument, what it does.
pub(crate) const COMMANDS: [(&str, &str, &str); 10] = [
    ("/help", "", "show this list"),
    ("/think", "", "think before answering"),
    ("/nothink", "", "answer at once"),
    (
        "/think-max",
        "",
        "think as hard as possible; needs a context of 393216",
    ),
    (
        "/ctx",
        "N",
        "change the context to N tokens; the conversation is kept",
    ),
    ("/read", "FILE", "send what is in a file as your message"),
    ("/save", "NAME", "save the session"),
    ("/load", "NAME", "go on with a saved session"),
    (
        "/status",
        "",
        "show the model, the settings and the tokens in use",
    ),
    ("/quit", "", "leave; /exit and Ctrl-D do the same"),
];

/// The list of commands, a line each.
pub(crate) fn help() -> String {
    let mut text = String::new();
    for (name, argument, meaning) in COMMANDS {
        let usage = format!("{name} {argument}");
        text.push_str(&format!("  {usage:<13} {meaning}\n"));
    }
    text.push_str("A line that ends in \\ goes on in the next. Ctrl-C stops an answer.\n");
    text
}

impl SlashCommand {
    /// Reads a line that begins with `/`.
    ///
    /// # Errors
    /// What is wrong with it, for the user.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        let needs = |what: &str| format!("`{name}` needs {what}: `{name} {}`", usage(name));
        let command = match name {
            "/help" => Self::Help,
            "/think" | "/thinking" => Self::Thinking(Thinking::High),
            "/nothink" => Self::Thinking(Thinking::Off),
            "/think-max" => Self::Thinking(Thinking::Max),
            "/status" => Self::Status,
            "/quit" | "/exit" => Self::Quit,
            "/ctx" => {
                let tokens = argument.parse().ok().filter(|&tokens| tokens > 0);
                return tokens
                    .map(Self::Context)
                    .ok_or_else(|| needs("a number of tokens"));
            }
            "/read" if argument.is_empty() => return Err(needs("a file")),
            "/read" => return Ok(Self::Read(argument.into())),
            "/save" if argument.is_empty() => return Ok(Self::Save(None)),
            "/load" if argument.is_empty() => return Err(needs("the name of a session")),
            "/save" | "/load" => {
                let session = argument
                    .parse::<SessionName>()
                    .map_err(|error| error.to_string())?;
                return Ok(match name {
                    "/save" => Self::Save(Some(session)),
                    _ => Self::Load(session),
                });
            }
            _ => return Err(unknown(name)),
        };
        if argument.is_empty() {
            Ok(command)
        } else {
            Err(format!("`{name}` takes no argument"))
        }
    }
}

fn usage(name: &str) -> &'static str {
    COMMANDS
        .iter()
        .find(|(known, _, _)| *known == name)
        .map_or("", |(_, argument, _)| argument)
}

fn unknown(name: &str) -> String {
    let close = COMMANDS.iter().find(|(known, _, _)| {
        known.len() > 1 && (known.starts_with(name) || one_edit_apart(known, name))
    });
    let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
    match close {
        Some((known, _, _)) if name.len() > 1 => {
            format!("unknown command `{shown}`; did you mean `{known}`?")
        }
        _ => format!("unknown command `{shown}`; `/help` lists the commands"),
    }
}

/// Whether one letter inserted, left out, changed or swapped with the next makes both equal.
fn one_edit_apart(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let same = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let (short, long) = (&short[same..], &long[same..]);
    match long.len() - short.len() {
        0 if short.len() >= 2 => {
            short[1..] == long[1..]
                || (short[0] == long[1] && short[1] == long[0] && short[2..] == long[2..])
        }
        0 => true,
        1 => short == &long[1..],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let name = |name: &str| name.parse::<SessionName>().unwrap();
        for (line, expected) in [
            ("/help", SlashCommand::Help),
            ("/nothink ", SlashCommand::Thinking(Thinking::Off)),
            ("/think-max", SlashCommand::Thinking(Thinking::Max)),
            ("/ctx  4096", SlashCommand::Context(4096)),
            (
                "/read my file.txt",
                SlashCommand::Read("my file.txt".into()),
            ),
            ("/save trip", SlashCommand::Save(Some(name("trip")))),
            ("/save", SlashCommand::Save(None)),
            ("/load trip", SlashCommand::Load(name("trip"))),
            ("/exit", SlashCommand::Quit),
        ] {
            assert_eq!(SlashCommand::parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, expected) in [
            ("/ctx abc", "a number of tokens"),
            ("/ctx", "a number of tokens"),
            ("/ctx 0", "a number of tokens"),
            ("/read", "a file"),
            ("/load ../../etc/passwd", "cannot name a session"),
            ("/help me", "takes no argument"),
            ("/stauts", "did you mean `/status`?"),
            ("/sav", "did you mean `/save`?"),
            ("/nonsense", "`/help` lists"),
            ("/", "`/help` lists"),
        ] {
            let error = SlashCommand::parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
