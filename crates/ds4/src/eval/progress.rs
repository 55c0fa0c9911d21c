//! How far an evaluation is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

const TEMPLATE: &str = "{bar:30} {msg}, {elapsed} gone, {eta} left";

/// A bar on standard error, on terminals only. It counts work in tokens, because a case may take a
/// thousand times as long as another.
pub(crate) struct CaseBar {
    bar: Option<ProgressBar>,
    cases: usize,
}

impl CaseBar {
    /// A bar for `cases` cases of `work` tokens together.
    pub(crate) fn new(cases: usize, work: usize, output: &Output) -> Self {
        if !output.stderr_is_terminal() || output.is_quiet() {
            return Self { bar: None, cases };
        }
        let bar = ProgressBar::with_draw_target(Some(work as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar: Some(bar),
            cases,
        }
    }

    /// Says what has been done.
    pub(crate) fn update(&self, work: usize, done: usize, right: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(work as u64);
            bar.set_message(format!("{done}/{} cases, {right} right", self.cases));
        }
    }
}

impl Drop for CaseBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
