//! Progress bars on standard error, on terminals only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// Prompts below this many tokens are computed without a bar.
const LEAST_TOKENS: usize = 128;

const TEMPLATE: &str = "prefill {bar:30} {pos}/{len} tokens, {elapsed} gone, {eta} left";

const TOKEN_TEMPLATE: &str = "{msg} {bar:30} {pos}/{len} tokens, {elapsed} gone, {eta} left";

const BYTE_TEMPLATE: &str = "{msg} {bar:30} {bytes}/{total_bytes}, {elapsed} gone, {eta} left";

/// Shows how far a prefill is.
pub(crate) struct PrefillBar {
    bar: Option<ProgressBar>,
}

impl PrefillBar {
    /// A bar for `tokens` tokens, none of them computed yet.
    pub(crate) fn new(tokens: usize, output: &Output) -> Self {
        if tokens < LEAST_TOKENS || !output.stderr_is_terminal() || output.is_quiet() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(tokens as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        // A step of a large model takes seconds; the clock shows that it goes on.
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: Some(bar) }
    }

    /// `done` tokens are computed.
    pub(crate) fn update(&mut self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Takes the bar off the terminal.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Shows how many tokens of a text are done; what the total is may show only with the first.
pub(crate) struct TokenBar {
    bar: ProgressBar,
}

impl TokenBar {
    /// A bar with this name before it, nothing done yet.
    pub(crate) fn new(name: &'static str, output: &Output) -> Self {
        if !output.stderr_is_terminal() || output.is_quiet() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TOKEN_TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_message(name);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// `done` of `total` tokens are done.
    pub(crate) fn update(&mut self, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    /// Takes the bar off the terminal.
    pub(crate) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows how many bytes are done.
pub(crate) struct ByteBar {
    bar: ProgressBar,
}

impl ByteBar {
    /// A bar with this name before it, nothing done yet.
    pub(crate) fn new(name: &'static str, output: &Output) -> Self {
        if !output.stderr_is_terminal() || output.is_quiet() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(BYTE_TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_message(name);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// `done` of `total` bytes are done.
    pub(crate) fn update(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for ByteBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Drop for PrefillBar {
    fn drop(&mut self) {
        self.finish();
    }
}
