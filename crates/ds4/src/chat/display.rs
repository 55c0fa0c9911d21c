//! An answer as it appears.

use std::io;

use ds4_chat::Event;

use crate::output::{Output, visible};

/// Writes reasoning and content to standard output as they come.
///
/// On a terminal reasoning is shown, dimmed; without styles both parts get a heading. Elsewhere
/// only the content is written, unless the reasoning is asked for.
pub(crate) struct AnswerDisplay<'a> {
    output: &'a mut Output,
    shows_reasoning: bool,
    part: Part,
    at_line_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    Reasoning,
    Content,
}

impl<'a> AnswerDisplay<'a> {
    /// A display that shows nothing yet.
    pub(crate) fn new(output: &'a mut Output, show_thinking: bool) -> Self {
        let shows_reasoning = show_thinking || output.stdout_is_terminal();
        Self {
            output,
            shows_reasoning,
            part: Part::Nothing,
            at_line_start: true,
        }
    }

    /// Shows what an event adds.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Reasoning(text) if self.shows_reasoning => self.text(Part::Reasoning, text),
            Event::Content(text) | Event::Ignored(text) => self.text(Part::Content, text),
            // Without tools there are no calls, and a repair changes nothing that is shown.
            Event::Reasoning(_)
            | Event::ToolCallStart { .. }
            | Event::ToolCallArguments { .. }
            | Event::ToolCallEnd { .. }
            | Event::Repaired(_) => Ok(()),
        }
    }

    fn text(&mut self, part: Part, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.enter(part)?;
        let safe;
        let text = if self.output.stdout_is_terminal() {
            safe = visible(text);
            &safe
        } else {
            text
        };
        match part {
            Part::Reasoning => self.output.write_dim(text)?,
            Part::Nothing | Part::Content => self.output.write(text)?,
        }
        self.at_line_start = text.ends_with('\n');
        self.output.flush()
    }

    fn enter(&mut self, part: Part) -> io::Result<()> {
        if self.part == part {
            return Ok(());
        }
        if self.part == Part::Reasoning {
            self.end_line()?;
            self.output.write("\n")?;
        }
        if !self.output.stdout_is_styled() {
            match part {
                Part::Reasoning => self.output.line("[thinking]")?,
                Part::Content if self.part == Part::Reasoning => self.output.line("[answer]")?,
                Part::Nothing | Part::Content => {}
            }
        }
        self.part = part;
        Ok(())
    }

    fn end_line(&mut self) -> io::Result<()> {
        if !self.at_line_start {
            self.output.write("\n")?;
            self.at_line_start = true;
        }
        Ok(())
    }

    /// Ends the last line.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end_line()?;
        self.output.flush()
    }
}

impl Drop for AnswerDisplay<'_> {
    fn drop(&mut self) {
        // After a failure the error gets a line of its own; a stream that cannot be written was
        // reported already.
        let _ = self.end_line();
    }
}
