//! Responses that a client can ask for again, or go on from: only under the key that they were made
//! with. On disk ([`ResponseStore`]) they outlive the process.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use ds4_chat::Message;
use ds4_engine::RequestId;
use serde_json::value::RawValue;

use super::response_store::ResponseStore;
use crate::disk::{KeepError, WriteStatus};
use crate::owner::Owner;

/// Most responses that are kept.
pub(super) const MAX_RESPONSES: usize = 1000;
/// Most bytes of their texts, about.
const MAX_BYTES: usize = 256 << 20;

/// A finished response.
#[derive(Clone, Debug)]
pub(crate) struct KeptResponse {
    pub(crate) id: String,
    /// Who got it.
    pub(crate) owner: Owner,
    /// As it was sent.
    pub(crate) response: Box<RawValue>,
    /// The conversation up to and with it, without instructions.
    pub(crate) history: Vec<Message>,
}

impl KeptResponse {
    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.history.iter().map(|message| {
            let calls = message.tool_calls.iter();
            let calls: usize = calls.map(|call| call.function.arguments.get().len()).sum();
            let reasoning = message.reasoning_content.as_ref().map_or(0, String::len);
            size_of::<Message>() + message.content.text().len() + reasoning + calls
        });
        texts.sum::<usize>() + self.response.get().len() + self.id.len()
    }
}

/// The responses that are kept; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct KeptResponses {
    finished: HashMap<String, Arc<KeptResponse>>,
    /// Ids and bytes.
    order: VecDeque<(String, usize)>,
    bytes: usize,
    running: HashMap<String, (Owner, RequestId)>,
    store: Option<Arc<ResponseStore>>,
}

impl KeptResponses {
    /// Keeps responses beside the checkpoints in `directory`, too, at most `max_bytes` of them, and
    /// finds those that were kept there before.
    ///
    /// # Errors
    /// The directory cannot be used; responses are then kept until the end of the process.
    pub(crate) fn keep_on_disk(
        &mut self,
        directory: &Path,
        max_bytes: u64,
    ) -> Result<(), KeepError> {
        let store = ResponseStore::open(directory, max_bytes, |kept| self.remember(kept))?;
        self.store = Some(Arc::new(store));
        Ok(())
    }

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

    /// Keeps a finished response; never waits for the disk.
    pub(crate) fn finish(&mut self, response: KeptResponse) {
        let response = Arc::new(response);
        self.remember(Arc::clone(&response));
        if let Some(store) = &self.store {
            store.keep(response);
        }
    }

    fn remember(&mut self, response: Arc<KeptResponse>) {
        let (id, bytes) = (response.id.clone(), response.bytes());
        self.forget(&id);
        self.finished.insert(id.clone(), response);
        self.order.push_back((id, bytes));
        self.bytes += bytes;
        while self.order.len() > MAX_RESPONSES || self.bytes > MAX_BYTES {
            let Some((oldest, bytes)) = self.order.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            self.finished.remove(&oldest);
        }
    }

    fn forget(&mut self, id: &str) {
        if self.finished.remove(id).is_some()
            && let Some(at) = self.order.iter().position(|(other, _)| other == id)
            && let Some((_, bytes)) = self.order.remove(at)
        {
            self.bytes -= bytes;
        }
    }

    /// A finished response as it was sent.
    pub(crate) fn get(&self, owner: Owner, id: &str) -> Option<&RawValue> {
        self.find(owner, id).map(|kept| &*kept.response)
    }

    /// The conversation that a response ends.
    pub(crate) fn history(&self, owner: Owner, id: &str) -> Option<Vec<Message>> {
        self.find(owner, id).map(|kept| kept.history.clone())
    }

    fn find(&self, owner: Owner, id: &str) -> Option<&KeptResponse> {
        let kept = self.finished.get(id)?;
        (kept.owner == owner).then_some(kept)
    }

    /// Forgets a response; `None` if there is none. What is returned removes its file.
    pub(crate) fn remove(&mut self, owner: Owner, id: &str) -> Option<Removal> {
        self.find(owner, id)?;
        self.forget(id);
        Some(Removal {
            id: id.to_owned(),
            store: self.store.clone(),
        })
    }

    /// How many there are, their bytes, and how keeping them on disk goes.
    pub(crate) fn status(&self) -> (usize, usize, Option<WriteStatus>) {
        let store = self.store.as_ref().map(|store| store.status());
        (self.order.len(), self.bytes, store)
    }

    /// Where they are kept on disk.
    pub(crate) fn store(&self) -> Option<Arc<ResponseStore>> {
        self.store.clone()
    }
}

/// A response that is forgotten, but whose file is still there.
#[derive(Debug)]
#[must_use]
pub(crate) struct Removal {
    id: String,
    store: Option<Arc<ResponseStore>>,
}

impl Removal {
    /// Removes the file, if there is one, for good. Waits for the disk.
    ///
    /// # Errors
    /// It is still there.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.store.map_or(Ok(()), |store| store.remove(&self.id))
    }
}
