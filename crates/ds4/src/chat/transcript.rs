//! What was said, and the tokens of the next prompt.
//!
//! The next prompt contains what the model sampled, token by token: an answer is never tokenised
//! again from its text, because another split of the same text would be another prompt.

use anyhow::{Context, anyhow};
use ds4_chat::{
    ControlToken, Conversation, Message, Piece, ReasoningEffort, Role, ThinkingMode, Vintage,
    render,
};
use ds4_tokenizer::{TokenId, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::prompt_tokens::{control_id, push_piece};
use crate::settings::Thinking;

/// Version of the JSON that sessions carry.
const VERSION: u32 = 1;

/// A conversation so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transcript {
    pub(crate) system: String,
    pub(crate) turns: Vec<Turn>,
}

/// A message and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) user: String,
    pub(crate) reasoning: String,
    pub(crate) content: String,
    /// The tokens behind `content` as sampled; none if they cannot be told from the reasoning.
    pub(crate) content_ids: Option<Vec<TokenId>>,
}

impl Turn {
    /// A turn from the tokens that were sampled, without the end of the sentence.
    pub(crate) fn new(
        user: String,
        reasoning: String,
        content: String,
        sampled: &[TokenId],
        think_end: Option<TokenId>,
        thinking: Thinking,
    ) -> Self {
        let content_ids = match thinking {
            Thinking::Off => Some(sampled.to_vec()),
            Thinking::High | Thinking::Max => {
                let end = sampled.iter().position(|&id| Some(id) == think_end);
                // Without the token the answer is text that only looks like its end, or there
                // is none.
                end.map(|end| sampled[end + 1..].to_vec())
            }
        };
        Self {
            user,
            reasoning,
            content,
            content_ids,
        }
    }
}

/// The tokens of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptTokens {
    pub(crate) ids: Vec<TokenId>,
    /// How many of them are the answered turns before the new message, 0 without any.
    pub(crate) history: usize,
}

impl Transcript {
    /// An empty conversation.
    pub(crate) fn new(system: &str) -> Self {
        Self {
            system: system.to_owned(),
            turns: Vec::new(),
        }
    }

    /// The prompt for a new message. Reasoning of earlier turns is left out, as the official
    /// encoding does without tools.
    pub(crate) fn prompt(
        &self,
        message: &str,
        thinking: Thinking,
        vintage: Vintage,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<PromptTokens> {
        let conversation = self.conversation(message, thinking);
        let prompt = render(&conversation, vintage)?;
        self.encode(prompt.pieces(), tokenizer)
    }

    fn conversation(&self, message: &str, thinking: Thinking) -> Conversation {
        let mut messages = Vec::new();
        if !self.system.is_empty() {
            messages.push(Message::new(Role::System, self.system.as_str()));
        }
        for turn in &self.turns {
            messages.push(Message::new(Role::User, turn.user.as_str()));
            let mut answer = Message::new(Role::Assistant, turn.content.as_str());
            answer.reasoning_content = Some(turn.reasoning.clone());
            messages.push(answer);
        }
        messages.push(Message::new(Role::User, message));
        let (thinking_mode, reasoning_effort) = match thinking {
            Thinking::Off => (ThinkingMode::Off, None),
            Thinking::High => (ThinkingMode::On, Some(ReasoningEffort::High)),
            Thinking::Max => (ThinkingMode::On, Some(ReasoningEffort::Max)),
        };
        Conversation {
            messages,
            thinking_mode,
            reasoning_effort,
            drop_thinking: true,
            ..Conversation::default()
        }
    }

    /// Tokens of the pieces, with the sampled tokens in the place of every answer's text.
    fn encode(&self, pieces: &[Piece], tokenizer: &Tokenizer) -> anyhow::Result<PromptTokens> {
        let is = |piece: &Piece, token| *piece == Piece::Special(token);
        let mut ids = Vec::new();
        let mut history = 0;
        let mut answers = self.turns.iter();
        let mut at = 0;
        while let Some(piece) = pieces.get(at) {
            if is(piece, ControlToken::User) && !self.turns.is_empty() {
                history = ids.len();
            }
            push_piece(tokenizer, piece, &mut ids)?;
            at += 1;
            if !is(piece, ControlToken::Assistant) {
                continue;
            }
            let sampled = answers.next().and_then(|turn| turn.content_ids.as_ref());
            let content_follows = pieces
                .get(at)
                .is_some_and(|piece| is(piece, ControlToken::ThinkEnd));
            if let Some(sampled) = sampled
                && content_follows
            {
                ids.push(control_id(tokenizer, ControlToken::ThinkEnd)?);
                ids.extend_from_slice(sampled);
                let rest = &pieces[at..];
                let end = rest
                    .iter()
                    .position(|piece| is(piece, ControlToken::EndOfSentence));
                at += end.ok_or_else(|| anyhow!("an answer in the prompt has no end"))?;
            }
        }
        Ok(PromptTokens { ids, history })
    }

    /// The conversation as JSON, to be kept beside the KV state.
    pub(crate) fn to_attachment(&self, thinking: Thinking) -> anyhow::Result<Vec<u8>> {
        let saved = Saved {
            version: VERSION,
            thinking: thinking.name().to_owned(),
            transcript: self.clone(),
        };
        serde_json::to_vec(&saved).context("cannot write the conversation as JSON")
    }

    /// Reads what [`to_attachment`](Self::to_attachment) wrote.
    pub(crate) fn from_attachment(bytes: &[u8]) -> anyhow::Result<(Self, Thinking)> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        const NO_CHAT: &str = "the session file holds no conversation of this program";
        let Version { version } = serde_json::from_slice(bytes).context(NO_CHAT)?;
        if version != VERSION {
            return Err(anyhow!(
                "the conversation has version {version}, expected {VERSION}"
            ));
        }
        let saved: Saved = serde_json::from_slice(bytes).context(NO_CHAT)?;
        let thinking = [Thinking::Off, Thinking::High, Thinking::Max]
            .into_iter()
            .find(|thinking| thinking.name() == saved.thinking)
            .ok_or_else(|| anyhow!("the conversation has thinking `{}`", saved.thinking))?;
        Ok((saved.transcript, thinking))
    }
}

/// What a session file carries beside the KV state.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    thinking: String,
    transcript: Transcript,
}

#[cfg(test)]
mod tests;
