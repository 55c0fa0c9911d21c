//! Everything that the program prints.
//!
//! Answers and data go to standard output, all else to standard error. Colour and dimming appear on
//! terminals only, and never where `NO_COLOR` is set.

use std::env;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// The two streams of the program.
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    /// Whether escape sequences are wanted where they can be shown.
    styled: bool,
    quiet: bool,
}

impl Output {
    /// The streams of this process.
    pub(crate) fn new() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            stdout: BufWriter::with_capacity(1 << 16, io::stdout()),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            styled: !is_set("NO_COLOR") && !dumb,
            quiet: false,
        }
    }

    /// Leaves out notes from now on; errors and warnings stay.
    pub(crate) fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    pub(crate) fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Whether standard output shows styles.
    pub(crate) fn stdout_is_styled(&self) -> bool {
        self.stdout_is_terminal && self.styled
    }

    /// Whether standard error shows styles.
    pub(crate) fn stderr_is_styled(&self) -> bool {
        self.stderr_is_terminal && self.styled
    }

    /// Writes data to standard output.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())
    }

    /// Writes a line of data to standard output.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.write_all(b"\n")
    }

    /// Writes dimmed text to standard output, plain where there are no styles.
    pub(crate) fn write_dim(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() || !self.stdout_is_styled() {
            return self.write(text);
        }
        // Ended at once: whatever stops the program, the terminal is not left dimmed.
        self.write(DIM)?;
        self.write(text)?;
        self.write(RESET)
    }

    /// A headline for standard output.
    pub(crate) fn headline(&mut self, text: &str) -> io::Result<()> {
        if self.stdout_is_styled() {
            self.line(&format!("{BOLD}{text}{RESET}"))
        } else {
            self.line(text)
        }
    }

    /// Shows what has been written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Information for a person, on standard error.
    pub(crate) fn note(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        if self.stderr_is_styled() {
            self.write_stderr(&format!("{DIM}ds4: {text}{RESET}\n"));
        } else {
            self.write_stderr(&format!("ds4: {text}\n"));
        }
    }

    /// A warning, on standard error.
    pub(crate) fn warning(&mut self, text: &str) {
        if self.stderr_is_styled() {
            self.write_stderr(&format!("ds4: {BOLD}warning:{RESET} {text}\n"));
        } else {
            self.write_stderr(&format!("ds4: warning: {text}\n"));
        }
    }

    /// An error and advice, on standard error.
    pub(crate) fn error(&mut self, text: &str, hint: Option<&str>) {
        let styled = self.stderr_is_styled();
        let (red, cyan, reset) = if styled {
            (RED, CYAN, RESET)
        } else {
            ("", "", "")
        };
        let mut message = format!("ds4: {red}{text}{reset}\n");
        if let Some(hint) = hint {
            message.push_str(&format!("{cyan}hint{reset}: {hint}\n"));
        }
        self.write_stderr(&message);
    }

    /// Text for standard error as it is, such as a prompt.
    pub(crate) fn write_stderr(&mut self, text: &str) {
        // Standard output goes first, so that the two do not mix on a terminal. If neither can be
        // written there is nobody to tell.
        let _ = self.stdout.flush();
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Text for a terminal without its control characters but newline and tab: what a model writes or
/// a file contains must not be able to move the cursor or to set the title.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(
            visible("a\x1b[2Jb\tc\n\u{9b}é\r"),
            "a\u{fffd}[2Jb\tc\n\u{fffd}é\u{fffd}"
        );
    }
}
