//! Collects events; neighbouring fragments of one kind become one.

use super::{Event, Repair};

#[derive(Debug, Default)]
pub(super) struct Output {
    events: Vec<Event>,
}

impl Output {
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn repaired(&mut self, repair: Repair) {
        self.events.push(Event::Repaired(repair));
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        if let Some(Event::Reasoning(last)) = self.events.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.events.push(Event::Reasoning(text.to_owned()));
        }
    }

    pub(super) fn content(&mut self, text: &str) {
        if let Some(Event::Content(last)) = self.events.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.events.push(Event::Content(text.to_owned()));
        }
    }

    pub(super) fn ignored(&mut self, text: &str) {
        if let Some(Event::Ignored(last)) = self.events.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.events.push(Event::Ignored(text.to_owned()));
        }
    }

    /// `index` is that of the open call, so a fragment before this one has the same.
    pub(super) fn arguments(&mut self, index: usize, text: &str) {
        if let Some(Event::ToolCallArguments { delta, .. }) = self.events.last_mut() {
            delta.push_str(text);
        } else if !text.is_empty() {
            self.events.push(Event::ToolCallArguments {
                index,
                delta: text.to_owned(),
            });
        }
    }
}
