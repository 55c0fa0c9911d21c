//! Responses that a client can ask for again, or go on from.

use std::collections::{HashMap, VecDeque};

use ds4_chat::Message;
use ds4_engine::RequestId;
use serde_json::Value;

/// Most responses that are kept.
const MAX_RESPONSES: usize = 1000;
/// Most bytes of their texts, about.
const MAX_BYTES: usize = 256 << 20;

/// A finished response.
#[derive(Clone, Debug)]
pub(crate) struct KeptResponse {
    /// As it was sent.
    pub(crate) response: Value,
    /// The conversation up to and with it, without instructions.
    pub(crate) history: Vec<Message>,
}

/// The responses that are kept; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct KeptResponses {
    finished: HashMap<String, KeptResponse>,
    order: VecDeque<(String, usize)>,
    bytes: usize,
    running: HashMap<String, RequestId>,
}

impl KeptResponses {
    /// A response is being generated.
    pub(crate) fn begin(&mut self, id: &str, request: RequestId) {
        self.running.insert(id.to_owned(), request);
    }

    /// It is not any more.
    pub(crate) fn end(&mut self, id: &str) {
        self.running.remove(id);
    }

    /// The engine's request behind a response that is being generated.
    pub(crate) fn running(&self, id: &str) -> Option<RequestId> {
        self.running.get(id).copied()
    }

    /// Keeps a finished response.
    pub(crate) fn finish(&mut self, id: &str, response: KeptResponse) {
        let texts = response.history.iter().map(|message| {
            let calls = message.tool_calls.iter();
            let calls: usize = calls.map(|call| call.function.arguments.get().len()).sum();
            let reasoning = message.reasoning_content.as_ref().map_or(0, String::len);
            message.content.text().len() + reasoning + calls
        });
        let bytes = texts.sum::<usize>() + response.response.to_string().len();
        self.finished.insert(id.to_owned(), response);
        self.order.push_back((id.to_owned(), bytes));
        self.bytes += bytes;
        while self.order.len() > MAX_RESPONSES || self.bytes > MAX_BYTES {
            let Some((oldest, bytes)) = self.order.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            self.finished.remove(&oldest);
        }
    }

    /// A finished response as it was sent.
    pub(crate) fn get(&self, id: &str) -> Option<&Value> {
        self.finished.get(id).map(|kept| &kept.response)
    }

    /// The conversation that a response ends.
    pub(crate) fn history(&self, id: &str) -> Option<Vec<Message>> {
        self.finished.get(id).map(|kept| kept.history.clone())
    }

    /// Forgets a response; false if there is none.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        if self.finished.remove(id).is_none() {
            return false;
        }
        if let Some(at) = self.order.iter().position(|(other, _)| other == id)
            && let Some((_, bytes)) = self.order.remove(at)
        {
            self.bytes -= bytes;
        }
        true
    }
}
