//! Formats to constraints.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ds4_chat::ControlToken;
use ds4_engine::TokenMask;
use ds4_tokenizer::{TokenId, Tokenizer};
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory, TokenParser};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::compile::Gate;
use crate::constraint::{GrammarConstraint, Shared, first_line, timed};
use crate::guard::{Guard, Spelling};
use crate::limits::{MAX_CHOICES, MAX_LITERAL_BYTES, MAX_SOURCE_BYTES, parser_limits};
use crate::locate::locate;
use crate::tools::tool_grammar;
use crate::vocabulary::Vocabulary;
use crate::watchdog::Watchdog;
use crate::{Format, GrammarError, GrammarLimits, lark, pattern, schema};

/// Prepares formats for one vocabulary. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct GrammarFactory {
    inner: Arc<Inner>,
}

struct Inner {
    vocabulary: Arc<Vocabulary>,
    guard: Arc<Guard>,
    watchdog: Arc<Watchdog>,
    parsers: Arc<ParserFactory>,
    tool_token: Option<TokenId>,
    limits: GrammarLimits,
    gate: Arc<Gate>,
    cache: Cache<Grammar>,
    /// The tokens that every answer may use.
    text: TokenMask,
}

/// A prepared format. Cheap to clone.
#[derive(Clone)]
pub struct Grammar {
    /// Before the first token. Every answer gets a copy.
    start: Arc<Mutex<Matcher>>,
    shared: Arc<Shared>,
}

impl Grammar {
    /// The constraint of a new answer.
    pub fn constraint(&self) -> GrammarConstraint {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        // With caches of its own: no answer can fill another's.
        GrammarConstraint::new(start.deep_clone(), self.shared.clone())
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GrammarFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarFactory")
            .field("vocabulary", &self.inner.vocabulary.size())
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

impl GrammarFactory {
    /// Builds the factory of a vocabulary, which takes about a second for 129,280 tokens:
    /// [`in_background`](Self::in_background) does not wait for it.
    ///
    /// # Errors
    /// The vocabulary has no end token, or is too large.
    pub fn new(tokenizer: &Tokenizer, limits: GrammarLimits) -> Result<Self, GrammarError> {
        let vocabulary = Vocabulary::new(tokenizer.clone())?;
        let environment = vocabulary.environment();
        let mut parsers = ParserFactory::new(
            &environment,
            InferenceCapabilities::default(),
            &SlicedBiasComputer::json_slices(),
        )
        .map_err(|error| GrammarError::Vocabulary {
            reason: first_line(&error.to_string()),
        })?;
        parsers.quiet();
        *parsers.limits_mut() = parser_limits();
        Ok(Self {
            inner: Arc::new(Inner {
                guard: Arc::new(Guard::new(vocabulary.clone())?),
                watchdog: Arc::new(Watchdog::new()),
                parsers: Arc::new(parsers),
                tool_token: tokenizer.special(ControlToken::Dsml.text()),
                gate: Gate::new(limits.compiling),
                cache: Cache::new(limits.cached),
                limits,
                text: text_tokens(&vocabulary),
                vocabulary,
            }),
        })
    }

    /// Starts to build the factory on a thread of its own.
    pub fn in_background(tokenizer: &Tokenizer, limits: GrammarLimits) -> PendingFactory {
        let copy = tokenizer.clone();
        let thread = std::thread::Builder::new()
            .name("ds4-grammar".to_owned())
            .spawn(move || Self::new(&copy, limits));
        PendingFactory {
            tokenizer: tokenizer.clone(),
            limits,
            thread: Mutex::new(thread.ok()),
            ready: OnceLock::new(),
        }
    }

    /// Prepares a format, or finds it prepared.
    ///
    /// # Errors
    /// The format is invalid, cannot be enforced, or would take more than the bounds allow.
    pub fn prepare(&self, format: &Format) -> Result<Grammar, GrammarError> {
        let inner = self.inner.clone();
        self.inner
            .cache
            .get(key(format), || inner.compile(format.clone()))
    }
}

/// A factory that is being built.
pub struct PendingFactory {
    tokenizer: Tokenizer,
    limits: GrammarLimits,
    thread: Mutex<Option<JoinHandle<Result<GrammarFactory, GrammarError>>>>,
    ready: OnceLock<Result<GrammarFactory, GrammarError>>,
}

impl PendingFactory {
    /// The factory, when it is built.
    ///
    /// # Errors
    /// The vocabulary cannot be used for grammars.
    pub fn wait(&self) -> Result<&GrammarFactory, GrammarError> {
        let built = self.ready.get_or_init(|| {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            match thread.take().map(JoinHandle::join) {
                Some(Ok(built)) => built,
                // There was no thread to be had.
                _ => GrammarFactory::new(&self.tokenizer, self.limits),
            }
        });
        built.as_ref().map_err(Clone::clone)
    }
}

impl Inner {
    fn compile(self: Arc<Self>, format: Format) -> Result<Grammar, GrammarError> {
        let (gate, limit) = (self.gate.clone(), self.limits.compile_time);
        gate.run(limit, move || self.compile_here(&format))
    }

    fn compile_here(&self, format: &Format) -> Result<Grammar, GrammarError> {
        let place = match format {
            Format::JsonObject | Format::JsonSchema(_) => "#",
            Format::Regex(_) => "the regular expression",
            Format::Lark(_) => "the grammar",
            Format::Choice(_) => "the choice",
            Format::Tools(_) => "the tools",
        };
        let (parser, spelling, tool_token) = match format {
            Format::JsonObject => {
                let parser = self.parse_schema(&json!({ "type": "object" }), place)?;
                (parser, Some(Spelling::ReasoningEnd), None)
            }
            Format::JsonSchema(text) => {
                let parser = self.parse_schema(&schema::read(text, place)?, place)?;
                (parser, Some(Spelling::ReasoningEnd), None)
            }
            Format::Regex(text) => {
                let body = pattern::check(text, place)?.body;
                (
                    self.parse(TopLevelGrammar::from_regex(&body), place)?,
                    None,
                    None,
                )
            }
            Format::Lark(text) => {
                lark::check(text, place)?;
                (
                    self.parse(TopLevelGrammar::from_lark(text.clone()), place)?,
                    None,
                    None,
                )
            }
            Format::Choice(choices) => (
                self.parse(choice_grammar(choices, place)?, place)?,
                None,
                None,
            ),
            Format::Tools(tools) => {
                let token = self.tool_token.ok_or_else(|| GrammarError::Vocabulary {
                    reason: format!("it has no control token {}", ControlToken::Dsml),
                })?;
                let spelling = if tools.starts_in_tool_calls {
                    Spelling::ClosingTag
                } else {
                    Spelling::AnyTag
                };
                let grammar = tool_grammar(tools, token, &self.guard)?;
                let parser = match self.parse(grammar.to_top_level(), place) {
                    Ok(parser) => parser,
                    // Perhaps one of the schemas is to blame.
                    Err(error) => {
                        for (place, schema) in &grammar.schemas {
                            self.parse_schema(schema, place)?;
                        }
                        return Err(error);
                    }
                };
                (parser, Some(spelling), Some(token))
            }
        };
        let usable = self.usable(tool_token);
        let start = Matcher::new(Ok(parser));
        let (mut start, timer) = timed(start, &self.watchdog, self.limits.compile_time);
        // Finds what no text can follow, and fills the caches that the copies begin with.
        let first =
            timer
                .run(|| start.compute_mask_or_eos())
                .map_err(|error| GrammarError::Invalid {
                    place: place.to_owned(),
                    reason: format!("no text can begin: {}", first_line(&error.to_string())),
                })?;
        let mut both = first.as_slice().iter().zip(usable.words());
        if both.all(|(first, usable)| first & usable == 0) {
            return Err(GrammarError::Invalid {
                place: place.to_owned(),
                reason: "no text can begin without a control token".to_owned(),
            });
        }
        Ok(Grammar {
            start: Arc::new(Mutex::new(start)),
            shared: Arc::new(Shared {
                vocabulary: self.vocabulary.clone(),
                guard: self.guard.clone(),
                watchdog: self.watchdog.clone(),
                token_time: self.limits.token_time,
                spelling,
                tool_token,
                usable,
            }),
        })
    }

    fn parse(&self, grammar: TopLevelGrammar, place: &str) -> Result<TokenParser, GrammarError> {
        self.parsers
            .create_parser(grammar)
            .map_err(|error| refusal(&first_line(&error.to_string()), place))
    }

    fn parse_schema(&self, schema: &Value, place: &str) -> Result<TokenParser, GrammarError> {
        let refused = |schema: Value| {
            let schema = schema::with_settings(schema);
            let grammar = TopLevelGrammar::from_json_schema(schema);
            let parser = self.parsers.create_parser(grammar);
            parser.map_err(|error| first_line(&error.to_string()))
        };
        let start = Instant::now();
        refused(schema.clone()).map_err(|message| {
            // The search tries many schemas.
            let is_quick = start.elapsed() * 100 < self.limits.compile_time;
            let pointer = match is_quick {
                true => locate(schema, &message, |schema| refused(schema).err()),
                false => String::new(),
            };
            refusal(&message, &format!("{place}{pointer}"))
        })
    }

    /// The control token of tool calls beside what every answer may use.
    fn usable(&self, tool_token: Option<TokenId>) -> TokenMask {
        let mut mask = self.text.clone();
        if let Some(token) = tool_token {
            mask.allow(token);
        }
        mask
    }
}

/// Text and the end.
fn text_tokens(vocabulary: &Vocabulary) -> TokenMask {
    let mut mask = TokenMask::new(vocabulary.size());
    for id in 0..vocabulary.size() as TokenId {
        if vocabulary.text(id).is_some() {
            mask.allow(id);
        }
    }
    mask.allow(vocabulary.end);
    mask
}

fn choice_grammar(choices: &[String], place: &str) -> Result<TopLevelGrammar, GrammarError> {
    let invalid = |reason: &str| GrammarError::Invalid {
        place: place.to_owned(),
        reason: reason.to_owned(),
    };
    if choices.is_empty() {
        return Err(invalid("there is nothing to choose from"));
    }
    if choices.len() > MAX_CHOICES {
        return Err(GrammarError::TooLarge {
            what: "the number of choices",
            place: place.to_owned(),
            found: choices.len(),
            limit: MAX_CHOICES,
        });
    }
    check_length(choices.iter().map(String::len).sum(), place)?;
    for choice in choices {
        if choice.len() > MAX_LITERAL_BYTES {
            return Err(GrammarError::TooLarge {
                what: "the length of a choice",
                place: place.to_owned(),
                found: choice.len(),
                limit: MAX_LITERAL_BYTES,
            });
        }
    }
    let quoted: Vec<String> = choices
        .iter()
        .filter(|choice| !choice.is_empty())
        .map(|choice| Value::String(choice.clone()).to_string())
        .collect();
    let has_empty = quoted.len() < choices.len();
    let grammar = if quoted.is_empty() {
        "start: \"\"".to_owned()
    } else {
        let optional = if has_empty { "?" } else { "" };
        format!("start: CHOICE{optional}\nCHOICE: {}", quoted.join(" | "))
    };
    Ok(TopLevelGrammar {
        grammars: vec![GrammarWithLexer::from_lark(grammar)],
        max_tokens: None,
    })
}

fn check_length(found: usize, place: &str) -> Result<(), GrammarError> {
    if found > MAX_SOURCE_BYTES {
        return Err(GrammarError::TooLarge {
            what: "the length",
            place: place.to_owned(),
            found,
            limit: MAX_SOURCE_BYTES,
        });
    }
    Ok(())
}

/// Why the grammar library refused.
fn refusal(message: &str, place: &str) -> GrammarError {
    let place = place.to_owned();
    let unsupported = [
        ("oneOf constraints", "oneOf whose branches may overlap"),
        (
            "min/maxProperties only",
            "minProperties or maxProperties beside optional properties",
        ),
        ("patternProperty regexes", "patternProperties that overlap"),
        (
            "can't determine if patternProperty",
            "patternProperties that may overlap",
        ),
    ];
    for (start, keyword) in unsupported {
        if message.starts_with(start) {
            let keyword = keyword.to_owned();
            return GrammarError::Unsupported { keyword, place };
        }
    }
    if message.starts_with("panic") {
        // Its tables have fixed sizes, which it asserts.
        let reason = "it needs more rules than there is room for".to_owned();
        return GrammarError::TooComplex { place, reason };
    }
    let reason = message.to_owned();
    let bounds = [
        "too large",
        "too complex",
        "fuel",
        "limit",
        "exceeded",
        "too many",
    ];
    if bounds.iter().any(|bound| message.contains(bound)) {
        GrammarError::TooComplex { place, reason }
    } else {
        GrammarError::Invalid { place, reason }
    }
}

/// The hash of a format: of its parts, each behind its length.
fn key(format: &Format) -> [u8; 32] {
    struct Hasher(blake3::Hasher);
    impl std::hash::Hasher for Hasher {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(&(bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Hasher(blake3::Hasher::new());
    std::hash::Hash::hash(format, &mut hasher);
    *hasher.0.finalize().as_bytes()
}
