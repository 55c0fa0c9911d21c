//! Progress bars on standard error, on terminals only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// Shows how far a prefill is. Appears with the first step that does not finish it.
pub(crate) struct PrefillBar {
    visible: bool,
    bar: Option<ProgressBar>,
}

impl PrefillBar {
    /// A bar that shows nothing yet.
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            visible: output.stderr_is_styled() && !output.is_quiet(),
            bar: None,
        }
    }

    /// `done` of `total` tokens are computed.
    pub(crate) fn update(&mut self, done: usize, total: usize) {
        if !self.visible || (self.bar.is_none() && done >= total) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            const TEMPLATE: &str = "prefill {bar:30} {pos}/{len} tokens, {per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(done as u64);
    }

    /// Takes the bar off the terminal.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for PrefillBar {
    fn drop(&mut self) {
        self.finish();
    }
}
