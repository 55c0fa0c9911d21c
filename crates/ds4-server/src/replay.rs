//! Exact replay: what the model sampled is what the next prompt contains, whatever the client did
//! to the JSON in between.
//!
//! An answer is found again by the ids of its tool calls, which nobody can guess, or else by what a
//! client sees of the conversation up to and with it; in both ways only under the API key that it was
//! given to. So one client never gets the hidden reasoning of another's conversation.
//!
//! Answers are kept on disk, too ([`AnswerStore`]), so that conversations go on after a restart.

mod answer_file;
mod answer_store;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ds4_chat::{Message, Role};
use ds4_tokenizer::TokenId;

pub use answer_file::{AnswerFile, AnswerFileError};
pub(crate) use answer_store::AnswerStore;

use crate::owner::Owner;

/// Most bytes of sampled tokens that are remembered.
const MAX_BYTES: usize = 256 << 20;
/// Most answers that are remembered.
const MAX_ANSWERS: usize = 100_000;

/// An answer as it was sampled, without the end of the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SampledAnswer {
    /// All tokens.
    pub(crate) ids: Vec<TokenId>,
    /// Tokens up to and with `</think>`; 0 for an answer without reasoning.
    pub(crate) reasoning: usize,
}

impl SampledAnswer {
    /// The answer in `ids`, if it is whole: reasoning that was cut off cannot be replayed.
    pub(crate) fn new(ids: Vec<TokenId>, thinking: bool, think_end: TokenId) -> Option<Self> {
        let reasoning = if thinking {
            ids.iter().position(|&id| id == think_end)? + 1
        } else {
            0
        };
        Some(Self { ids, reasoning })
    }
}

/// Names a point in a conversation of one owner by everything that a client sees up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VisibleHash([u8; Self::BYTES]);

impl VisibleHash {
    /// Length of the name.
    pub(crate) const BYTES: usize = 16;

    /// Before the first message of this owner's conversations.
    pub(crate) fn start(owner: Owner) -> Self {
        Self(*owner.as_bytes())
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// After one more message: its role, text, and the ids of its calls. Reasoning and arguments
    /// are left out, because clients drop and rewrite them.
    pub(crate) fn then(self, message: &Message) -> Self {
        let call_ids = message
            .tool_calls
            .iter()
            .filter_map(|call| call.id.as_deref());
        self.then_parts(
            message.role,
            &message.content.text(),
            call_ids.chain(message.tool_call_id.as_deref()),
        )
    }

    /// After one more message with these parts.
    pub(crate) fn then_parts<'a>(
        self,
        role: Role,
        text: &str,
        ids: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&[role as u8]);
        // Newlines around an answer are layout that clients trim.
        let text = text.trim();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
        for id in ids {
            hasher.update(&(id.len() as u64).to_le_bytes());
            hasher.update(id.as_bytes());
        }
        let mut name = [0; Self::BYTES];
        name.copy_from_slice(&hasher.finalize().as_bytes()[..Self::BYTES]);
        Self(name)
    }
}

/// An answer, and how it is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RememberedAnswer {
    /// Who got it.
    pub(crate) owner: Owner,
    /// The hash of the conversation *with* it.
    pub(crate) place: VisibleHash,
    /// Ids of its calls.
    pub(crate) calls: Vec<String>,
    pub(crate) sampled: SampledAnswer,
}

impl RememberedAnswer {
    fn bytes(&self) -> usize {
        let calls: usize = self.calls.iter().map(|call| call.len() + 64).sum();
        4 * self.sampled.ids.len() + calls + 256
    }
}

/// The answers that are remembered; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct ReplayMemory {
    by_call: HashMap<String, Arc<RememberedAnswer>>,
    by_place: HashMap<VisibleHash, Arc<RememberedAnswer>>,
    order: VecDeque<Arc<RememberedAnswer>>,
    bytes: usize,
}

impl ReplayMemory {
    /// Remembers an answer.
    pub(crate) fn remember(&mut self, answer: Arc<RememberedAnswer>) {
        for call in &answer.calls {
            self.by_call.insert(call.clone(), Arc::clone(&answer));
        }
        self.by_place.insert(answer.place, Arc::clone(&answer));
        self.bytes += answer.bytes();
        self.order.push_back(answer);
        while self.bytes > MAX_BYTES || self.order.len() > MAX_ANSWERS {
            self.forget_oldest();
        }
    }

    /// How many answers are remembered, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.order.len(), self.bytes)
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        self.bytes -= oldest.bytes();
        // A newer answer of the same name stays.
        for call in &oldest.calls {
            if let Some(found) = self.by_call.get(call)
                && Arc::ptr_eq(found, &oldest)
            {
                self.by_call.remove(call);
            }
        }
        if let Some(found) = self.by_place.get(&oldest.place)
            && Arc::ptr_eq(found, &oldest)
        {
            self.by_place.remove(&oldest.place);
        }
    }

    /// The answer to `owner` that `message` repeats; `place` is the hash with it.
    pub(crate) fn find(
        &self,
        owner: Owner,
        message: &Message,
        place: VisibleHash,
    ) -> Option<Arc<RememberedAnswer>> {
        let mut ids = message.tool_calls.iter().map(|call| call.id.as_deref());
        let found = match ids.next() {
            Some(first) => {
                let found = self.by_call.get(first?)?;
                // All calls must be of the same answer, and none may be missing.
                let same = ids.all(|id| {
                    id.and_then(|id| self.by_call.get(id))
                        .is_some_and(|other| Arc::ptr_eq(other, found))
                });
                let whole = found.calls.len() == message.tool_calls.len();
                (same && whole).then_some(found)?
            }
            None => self.by_place.get(&place)?,
        };
        (found.owner == owner).then(|| Arc::clone(found))
    }
}

#[cfg(test)]
mod tests {
    use ds4_chat::{FunctionCall, ToolCallMessage};

    use super::*;

    const THINK_END: TokenId = 9;

    fn calling(ids: &[&str]) -> Message {
        let mut message = Message::new(Role::Assistant, "");
        for id in ids {
            message.tool_calls.push(ToolCallMessage {
                id: Some((*id).to_owned()),
                function: FunctionCall::new("f", r#"{"rewritten": true}"#),
            });
        }
        message
    }

    fn answer(place: VisibleHash, calls: &[&str], ids: Vec<TokenId>) -> Arc<RememberedAnswer> {
        Arc::new(RememberedAnswer {
            owner: Owner::ANYBODY,
            place,
            calls: calls.iter().map(|&call| call.to_owned()).collect(),
            sampled: SampledAnswer::new(ids, false, THINK_END).unwrap(),
        })
    }

    fn find(memory: &ReplayMemory, message: &Message) -> Option<Arc<RememberedAnswer>> {
        memory.find(Owner::ANYBODY, message, VisibleHash::start(Owner::ANYBODY))
    }

    #[test]
    fn calls_are_found_by_their_ids_whatever_their_arguments_became() {
        let mut memory = ReplayMemory::default();
        let sampled = answer(VisibleHash([1; 16]), &["a", "b"], vec![1, THINK_END, 2]);
        memory.remember(Arc::clone(&sampled));
        assert_eq!(find(&memory, &calling(&["a", "b"])), Some(sampled));
        assert!(
            find(&memory, &calling(&["a"])).is_none(),
            "a call was cut out"
        );
        assert!(find(&memory, &calling(&["a", "x"])).is_none());
        assert!(find(&memory, &calling(&["x"])).is_none());
    }

    #[test]
    fn answers_are_found_only_in_their_own_conversation() {
        let mut memory = ReplayMemory::default();
        let user = Message::new(Role::User, "question");
        let said = Message::new(Role::Assistant, "answer\n");
        let start = VisibleHash::start(Owner::ANYBODY);
        memory.remember(answer(start.then(&user).then(&said), &[], vec![5]));
        let again = start
            .then(&user)
            .then(&Message::new(Role::Assistant, "answer"));
        let find = |place| memory.find(Owner::ANYBODY, &said, place);
        assert!(find(again).is_some(), "trimmed");
        let other = start.then(&Message::new(Role::User, "other")).then(&said);
        assert!(find(other).is_none());
    }

    #[test]
    fn answers_are_found_only_by_their_owner() {
        let mut memory = ReplayMemory::default();
        let [one, two] = ["key one", "key two"].map(Owner::of_key);
        let said = Message::new(Role::Assistant, "answer");
        let place = |owner| VisibleHash::start(owner).then(&said);
        for calls in [&["a"][..], &[]] {
            memory.remember(Arc::new(RememberedAnswer {
                owner: one,
                ..(*answer(place(one), calls, vec![5])).clone()
            }));
        }
        assert!(memory.find(one, &calling(&["a"]), place(one)).is_some());
        assert!(memory.find(two, &calling(&["a"]), place(two)).is_none());
        assert!(memory.find(one, &said, place(one)).is_some());
        assert!(memory.find(two, &said, place(two)).is_none());
        assert!(memory.find(two, &said, place(one)).is_none());
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memory = ReplayMemory::default();
        for n in 0..3 {
            let ids = vec![0; MAX_BYTES / 4 / 2 - 1000];
            let call = format!("call{n}");
            memory.remember(answer(VisibleHash([n; 16]), &[&call], ids));
        }
        assert!(find(&memory, &calling(&["call0"])).is_none());
        assert!(find(&memory, &calling(&["call2"])).is_some());
        assert!(memory.bytes <= MAX_BYTES);
        assert_eq!((memory.by_place.len(), memory.by_call.len()), (2, 2));
    }

    #[test]
    fn a_newer_answer_at_the_same_place_stays() {
        let mut memory = ReplayMemory::default();
        let place = VisibleHash([1; 16]);
        memory.remember(answer(place, &[], vec![1]));
        memory.remember(answer(place, &[], vec![2]));
        memory.forget_oldest();
        let said = Message::new(Role::Assistant, "");
        let found = memory.find(Owner::ANYBODY, &said, place).unwrap();
        assert_eq!(found.sampled.ids, [2]);
    }

    #[test]
    fn reasoning_that_was_cut_off_cannot_be_replayed() {
        assert!(SampledAnswer::new(vec![1, 2], true, THINK_END).is_none());
    }
}
