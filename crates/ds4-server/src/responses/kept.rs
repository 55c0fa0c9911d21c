//! Responses that a client can ask for again, or go on from: only under the key that they were made
//! with.

use std::collections::{HashMap, VecDeque};

use ds4_chat::Message;
use ds4_engine::RequestId;
use serde_json::Value;

use crate::owner::Owner;

/// Most responses that are kept.
const MAX_RESPONSES: usize = 1000;
/// Most bytes of their texts, about.
const MAX_BYTES: usize = 256 << 20;

/// A finished response.
#[derive(Clone, Debug)]
pub(crate) struct KeptResponse {
    /// Who got it.
    pub(crate) owner: Owner,
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
    running: HashMap<String, (Owner, RequestId)>,
}

impl KeptResponses {
    /// A response is being generated.
    pub(crate) fn begin(&mut self, id: &str, owner: Owner, request: RequestId) {
        self.running.insert(id.to_owned(), (owner, request));
    }

    /// It is not any more.
    pub(crate) fn end(&mut self, id: &str) {
        self.running.remove(id);
    }

    /// The engine's request behind a response that is being generated.
    pub(crate) fn running(&self, owner: Owner, id: &str) -> Option<RequestId> {
        let &(of, request) = self.running.get(id)?;
        (of == owner).then_some(request)
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
    pub(crate) fn get(&self, owner: Owner, id: &str) -> Option<&Value> {
        self.find(owner, id).map(|kept| &kept.response)
    }

    /// The conversation that a response ends.
    pub(crate) fn history(&self, owner: Owner, id: &str) -> Option<Vec<Message>> {
        self.find(owner, id).map(|kept| kept.history.clone())
    }

    fn find(&self, owner: Owner, id: &str) -> Option<&KeptResponse> {
        self.finished.get(id).filter(|kept| kept.owner == owner)
    }

    /// Forgets a response; false if there is none.
    pub(crate) fn remove(&mut self, owner: Owner, id: &str) -> bool {
        if self.find(owner, id).is_none() {
            return false;
        }
        self.finished.remove(id);
        if let Some(at) = self.order.iter().position(|(other, _)| other == id)
            && let Some((_, bytes)) = self.order.remove(at)
        {
            self.bytes -= bytes;
        }
        true
    }
}
