//! A whole answer, for clients that do not stream.

use super::{TokenLogprob, TurnEnd, TurnEvent};

/// A tool call of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerCall {
    /// Its id.
    pub id: String,
    /// Name as in the prompt.
    pub name: String,
    /// JSON text; only the start of it if the answer ended inside the call.
    pub arguments: String,
    /// Whether the call is whole.
    pub complete: bool,
}

/// Everything that a turn gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The reasoning.
    pub reasoning: String,
    /// The answer.
    pub text: String,
    /// The calls.
    pub calls: Vec<AnswerCall>,
    /// Log probabilities of all tokens, if asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// How it ended; `None` while it goes on.
    pub end: Option<TurnEnd>,
}

impl Answer {
    /// Takes in one more event.
    pub fn add(&mut self, event: &TurnEvent) {
        match event {
            TurnEvent::Reasoning(text) => self.reasoning.push_str(text),
            TurnEvent::Text(text) => self.text.push_str(text),
            TurnEvent::Logprobs(logprobs) => self.logprobs.extend_from_slice(logprobs),
            TurnEvent::CallStart { id, name, .. } => self.calls.push(AnswerCall {
                id: id.clone(),
                name: name.clone(),
                ..AnswerCall::default()
            }),
            TurnEvent::CallArguments { index, delta } => {
                if let Some(call) = self.calls.get_mut(*index) {
                    call.arguments.push_str(delta);
                }
            }
            TurnEvent::CallEnd { index, complete } => {
                if let Some(call) = self.calls.get_mut(*index) {
                    call.complete = *complete;
                }
            }
            TurnEvent::Finished(end) => self.end = Some(end.clone()),
            TurnEvent::Prefill { .. } | TurnEvent::Failed { .. } => {}
        }
    }
}
