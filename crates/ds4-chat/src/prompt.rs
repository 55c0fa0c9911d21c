//! A rendered prompt: control tokens and plain text, kept apart.

use crate::ControlToken;

/// One part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Exactly one control token.
    Special(ControlToken),
    /// Text to be tokenised with special tokens off. Never empty, and never next to another text:
    /// byte-pair merges run across the whole of it.
    Text(String),
    /// In the place of an answer that was sampled: its own tokens ([`Message::replay`]).
    ///
    /// [`Message::replay`]: crate::Message::replay
    Sampled {
        /// The caller's name for the answer.
        answer: u64,
        /// Whether its reasoning and `</think>` are part of the prompt, or only what follows them.
        with_reasoning: bool,
    },
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    pieces: Vec<Piece>,
}

impl Prompt {
    /// The pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The pieces in order, by value.
    pub fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }

    /// All pieces written out, without answers that stand for their tokens. Not reversible: text that
    /// spells a control token looks like one.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            text.push_str(match piece {
                Piece::Special(token) => token.text(),
                Piece::Text(part) => part,
                Piece::Sampled { .. } => "",
            });
        }
        text
    }

    pub(crate) fn push(&mut self, token: ControlToken) {
        self.pieces.push(Piece::Special(token));
    }

    /// Appends text to the open text piece, so that adjacent texts are one.
    pub(crate) fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Piece::Text(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }

    /// Appends the tokens of an answer that was sampled.
    pub(crate) fn push_sampled(&mut self, answer: u64, with_reasoning: bool) {
        self.pieces.push(Piece::Sampled {
            answer,
            with_reasoning,
        });
    }

    /// Appends a template of the encoding itself, in which control tokens are meant as such.
    pub(crate) fn push_template(&mut self, template: &str) {
        const IN_TEMPLATES: [ControlToken; 3] = [
            ControlToken::Dsml,
            ControlToken::ThinkStart,
            ControlToken::ThinkEnd,
        ];
        let mut rest = template;
        while let Some((at, token)) = IN_TEMPLATES
            .iter()
            .filter_map(|&token| rest.find(token.text()).map(|at| (at, token)))
            .min_by_key(|&(at, _)| at)
        {
            self.push_text(&rest[..at]);
            self.push(token);
            rest = &rest[at + token.text().len()..];
        }
        self.push_text(rest);
    }
}
