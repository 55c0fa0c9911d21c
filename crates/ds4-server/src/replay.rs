//! Exact replay: what the model sampled is what the next prompt contains, whatever the client did
//! to the JSON in between.
//!
//! An answer is found again by the ids of its tool calls, which nobody can guess, or else by what a
//! client sees of the conversation up to and with it. So one client never gets the hidden reasoning
//! of another's conversation.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ds4_chat::{Message, Role};
use ds4_tokenizer::TokenId;

/// Most bytes of sampled tokens that are remembered.
const MAX_BYTES: usize = 256 << 20;
/// Most answers that are remembered.
const MAX_ANSWERS: usize = 100_000;

/// An answer as it was sampled, without the end of the sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SampledAnswer {
    /// All tokens.
    pub(crate) ids: Vec<TokenId>,
    /// Tokens up to and with `</think>`; 0 for an answer without reasoning.
    pub(crate) reasoning: usize,
}

/// An answer and how many calls it made.
#[derive(Clone, Debug)]
struct CallingAnswer {
    answer: Arc<SampledAnswer>,
    calls: usize,
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

/// Names a point in a conversation by everything that a client sees up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VisibleHash(u64, u64);

impl VisibleHash {
    /// Before the first message.
    pub(crate) fn start() -> Self {
        Self(0, 0)
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
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&self.1.to_le_bytes());
        hasher.update(&[role as u8]);
        // Newlines around an answer are layout that clients trim.
        let text = text.trim();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
        for id in ids {
            hasher.update(&(id.len() as u64).to_le_bytes());
            hasher.update(id.as_bytes());
        }
        let hash = hasher.finalize();
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hash.as_bytes()[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self(word(0), word(8))
    }
}

/// The answers that are remembered; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct ReplayMemory {
    by_call: HashMap<String, CallingAnswer>,
    by_place: HashMap<VisibleHash, Arc<SampledAnswer>>,
    order: VecDeque<Remembered>,
    bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    place: VisibleHash,
    calls: Vec<String>,
    bytes: usize,
}

impl ReplayMemory {
    /// Remembers the answer at `place` (the hash *with* the answer) that made these calls.
    pub(crate) fn remember(
        &mut self,
        place: VisibleHash,
        calls: Vec<String>,
        answer: SampledAnswer,
    ) {
        let bytes = 4 * answer.ids.len() + calls.iter().map(String::len).sum::<usize>() + 256;
        let answer = Arc::new(answer);
        for call in &calls {
            let calling = CallingAnswer {
                answer: Arc::clone(&answer),
                calls: calls.len(),
            };
            self.by_call.insert(call.clone(), calling);
        }
        self.by_place.insert(place, answer);
        self.bytes += bytes;
        self.order.push_back(Remembered {
            place,
            calls,
            bytes,
        });
        while self.bytes > MAX_BYTES || self.order.len() > MAX_ANSWERS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        self.bytes -= oldest.bytes;
        for call in &oldest.calls {
            self.by_call.remove(call);
        }
        // A newer answer at the same place stays.
        let replaced = self.order.iter().any(|other| other.place == oldest.place);
        if !replaced {
            self.by_place.remove(&oldest.place);
        }
    }

    /// The answer that `message` repeats; `place` is the hash with it.
    pub(crate) fn find(&self, message: &Message, place: VisibleHash) -> Option<Arc<SampledAnswer>> {
        let mut ids = message.tool_calls.iter().map(|call| call.id.as_deref());
        if let Some(first) = ids.next() {
            let found = self.by_call.get(first?)?;
            // All calls must be of the same answer, and none may be missing.
            let same = ids.all(|id| {
                id.and_then(|id| self.by_call.get(id))
                    .is_some_and(|other| Arc::ptr_eq(&other.answer, &found.answer))
            });
            let whole = found.calls == message.tool_calls.len();
            return (same && whole).then(|| Arc::clone(&found.answer));
        }
        self.by_place.get(&place).map(Arc::clone)
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

    #[test]
    fn calls_are_found_by_their_ids_whatever_their_arguments_became() {
        let mut memory = ReplayMemory::default();
        let sampled = || SampledAnswer::new(vec![1, THINK_END, 2], true, THINK_END).unwrap();
        memory.remember(VisibleHash(1, 1), vec!["a".into(), "b".into()], sampled());
        let anywhere = VisibleHash::start();
        assert_eq!(
            *memory.find(&calling(&["a", "b"]), anywhere).unwrap(),
            sampled()
        );
        assert!(
            memory.find(&calling(&["a"]), anywhere).is_none(),
            "a call was cut out"
        );
        assert!(memory.find(&calling(&["a", "x"]), anywhere).is_none());
        assert!(memory.find(&calling(&["x"]), anywhere).is_none());
    }

    #[test]
    fn answers_are_found_only_in_their_own_conversation() {
        let mut memory = ReplayMemory::default();
        let user = Message::new(Role::User, "question");
        let answer = Message::new(Role::Assistant, "answer\n");
        let place = VisibleHash::start().then(&user).then(&answer);
        memory.remember(
            place,
            vec![],
            SampledAnswer::new(vec![5], false, THINK_END).unwrap(),
        );
        let again = VisibleHash::start()
            .then(&user)
            .then(&Message::new(Role::Assistant, "answer"));
        assert!(memory.find(&answer, again).is_some(), "trimmed");
        let other = VisibleHash::start()
            .then(&Message::new(Role::User, "other"))
            .then(&answer);
        assert!(memory.find(&answer, other).is_none());
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memory = ReplayMemory::default();
        for n in 0..3 {
            let ids = vec![0; MAX_BYTES / 4 / 2 - 1000];
            let answer = SampledAnswer::new(ids, false, THINK_END).unwrap();
            memory.remember(VisibleHash(n, n), vec![format!("call{n}")], answer);
        }
        let anywhere = VisibleHash::start();
        assert!(memory.find(&calling(&["call0"]), anywhere).is_none());
        assert!(memory.find(&calling(&["call2"]), anywhere).is_some());
        assert!(memory.bytes <= MAX_BYTES);
        assert_eq!(memory.by_place.len(), 2);
    }

    #[test]
    fn reasoning_that_was_cut_off_cannot_be_replayed() {
        assert!(SampledAnswer::new(vec![1, 2], true, THINK_END).is_none());
    }
}
