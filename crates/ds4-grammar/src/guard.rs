//! Keeps tags that are spelled in text tokens out of text.
//!
//! The grammar opens and closes tool blocks by the control token `｜DSML｜`. The parser of answers sees
//! text, where the same characters could also come from text tokens; and it forgives what models get
//! wrong, so it also takes tags that are nearly right. Neither may arise inside text or values.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use ds4_engine::TokenMask;
use ds4_tokenizer::TokenId;
use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;

use crate::GrammarError;
use crate::vocabulary::Vocabulary;

/// What must not be spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spelling {
    /// The end of reasoning, which an answer has behind it.
    ReasoningEnd,
    /// That, and everything that could begin or end a tool block.
    AnyTag,
    /// What could end a parameter, inside a call.
    ClosingTag,
}

impl Spelling {
    const ALL: [Self; 3] = [Self::ReasoningEnd, Self::AnyTag, Self::ClosingTag];

    /// A superset of the spellings that `ds4-chat` takes for tags.
    fn pattern(self) -> &'static str {
        match self {
            Self::ReasoningEnd => "</think>",
            Self::AnyTag => r"</think>|<(?:｜|[|/ ])*DSML(?:｜|[| ])|<tool_calls[^A-Za-z0-9_.\-]",
            Self::ClosingTag => {
                r"<(?:｜|[| ])*/(?:｜|[|/ ])*DSML(?:｜|[| ])|<(?:｜|[|/ ])*DSML(?:｜|[| ])+/"
            }
        }
    }
}

/// Where text stands with respect to a spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuardState {
    pub(crate) spelling: Spelling,
    state: StateID,
}

/// The words of a mask for each state; `None` where nothing is forbidden.
type Forbidden = HashMap<(Spelling, StateID), Option<Arc<[u32]>>>;

/// The automata of all spellings, and what each state forbids.
pub(crate) struct Guard {
    automata: [dense::DFA<Vec<u32>>; 3],
    vocabulary: Arc<Vocabulary>,
    forbidden: RwLock<Forbidden>,
}

impl Guard {
    pub(crate) fn new(vocabulary: Arc<Vocabulary>) -> Result<Self, GrammarError> {
        let build = |spelling: Spelling| {
            dense::Builder::new()
                .syntax(
                    regex_automata::util::syntax::Config::new()
                        .unicode(false)
                        .utf8(false)
                        .dot_matches_new_line(true),
                )
                .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
                .build(spelling.pattern())
                .map_err(|error| GrammarError::Vocabulary {
                    reason: error.to_string(),
                })
        };
        let [a, b, c] = Spelling::ALL.map(build);
        let automata = [a?, b?, c?];
        Ok(Self {
            automata,
            vocabulary,
            forbidden: RwLock::new(HashMap::new()),
        })
    }

    fn automaton(&self, spelling: Spelling) -> &dense::DFA<Vec<u32>> {
        &self.automata[spelling as usize]
    }

    /// The state before any text.
    pub(crate) fn start(&self, spelling: Spelling) -> GuardState {
        GuardState {
            spelling,
            // No pattern looks around, so one start state serves all.
            state: self
                .automaton(spelling)
                .universal_start_state(Anchored::No)
                .unwrap_or_default(),
        }
    }

    /// The state behind `text`, or `None` if the spelling is complete.
    pub(crate) fn advance(&self, state: GuardState, text: &[u8]) -> Option<GuardState> {
        let automaton = self.automaton(state.spelling);
        let mut id = state.state;
        for &byte in text {
            id = automaton.next_state(id, byte);
            // Matches are reported a byte late.
            if automaton.is_match_state(id)
                || automaton.is_match_state(automaton.next_eoi_state(id))
            {
                return None;
            }
        }
        Some(GuardState { state: id, ..state })
    }

    /// Whether `text` contains the spelling.
    pub(crate) fn contains(&self, spelling: Spelling, text: &str) -> bool {
        self.advance(self.start(spelling), text.as_bytes())
            .is_none()
    }

    /// Takes what would complete the spelling out of `mask`.
    pub(crate) fn restrict(&self, state: GuardState, mask: &mut TokenMask) {
        if let Some(forbidden) = self.forbidden(state) {
            for (word, forbidden) in mask.words_mut().iter_mut().zip(forbidden.iter()) {
                *word &= !forbidden;
            }
        }
    }

    /// What a state forbids: found out when first asked, since few states are ever entered.
    fn forbidden(&self, state: GuardState) -> Option<Arc<[u32]>> {
        let key = (state.spelling, state.state);
        if let Ok(known) = self.forbidden.read()
            && let Some(known) = known.get(&key)
        {
            return known.clone();
        }
        let mut mask = TokenMask::new(self.vocabulary.size());
        for id in 0..self.vocabulary.size() as TokenId {
            if let Some(text) = self.vocabulary.text(id)
                && self.advance(state, text).is_none()
            {
                mask.allow(id);
            }
        }
        let words = mask.words();
        let found = words
            .iter()
            .any(|&word| word != 0)
            .then(|| Arc::from(words));
        if let Ok(mut known) = self.forbidden.write() {
            known.insert(key, found.clone());
        }
        found
    }
}
