//! Ctrl-C: stops an answer once, and the program the second time or when nothing can be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::failure::INTERRUPTED;

/// What Ctrl-C does at the moment.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    /// Work is under way that looks at `cancel`.
    armed: AtomicBool,
    cancel: AtomicBool,
}

impl Interrupt {
    /// Takes over Ctrl-C for the process.
    pub(crate) fn install() -> anyhow::Result<Arc<Self>> {
        let interrupt = Arc::new(Self::default());
        let handler = Arc::clone(&interrupt);
        ctrlc::set_handler(move || handler.pressed()).context("cannot take over Ctrl-C")?;
        Ok(interrupt)
    }

    /// What Ctrl-C does.
    pub(crate) fn pressed(&self) {
        let stops_work = self.armed.load(Ordering::SeqCst);
        if !stops_work || self.cancel.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    }

    /// Until the guard is dropped, the first Ctrl-C only sets [`cancel`](Self::cancel).
    pub(crate) fn arm(&self) -> ArmedInterrupt<'_> {
        self.cancel.store(false, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
        ArmedInterrupt { interrupt: self }
    }
}

/// Work that can be stopped is under way.
pub(crate) struct ArmedInterrupt<'a> {
    interrupt: &'a Interrupt,
}

impl ArmedInterrupt<'_> {
    /// Set by Ctrl-C.
    pub(crate) fn cancel(&self) -> &AtomicBool {
        &self.interrupt.cancel
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.interrupt.cancel.load(Ordering::SeqCst)
    }
}

impl Drop for ArmedInterrupt<'_> {
    fn drop(&mut self) {
        self.interrupt.armed.store(false, Ordering::SeqCst);
    }
}
