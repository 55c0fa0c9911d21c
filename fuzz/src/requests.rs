//! Bodies of requests on the way that the server's endpoints take: JSON, the API's fields, prompt, grammar.

use std::sync::{Arc, OnceLock};

use ds4_chat::{ControlToken, Message, ReasoningEffort, Role, Vintage};
use ds4_engine::{
    EngineStatus, GenerationRequest, GenerationSink, InferenceService, ModelFacts,
    ModelFingerprint, RequestId, SamplerSettings, SubmitError,
};
use ds4_server::anthropic::messages_request;
use ds4_server::openai::{chat_request, completion_request};
use ds4_server::responses::{previous_response_id, responses_request};
use ds4_server::turn::{Thinking, TurnRequest};
use ds4_server::{Inference, Owner, RequestError, TurnError, parse_body};
use ds4_tokenizer::{PreTokenizer, Tokenizer, VocabularySource};

/// Tokens of the context; a prompt that is longer is refused after it was made.
const CONTEXT: usize = 1 << 16;
/// Most bytes of a prompt for each byte of its request: marks around short messages and calls.
const GROWTH: usize = 64;
/// What a prompt may have beside: the instructions for tools.
const INSTRUCTIONS: usize = 1 << 14;

/// The API that a body is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

/// Takes a body as far as the engine.
///
/// # Panics
/// A prompt whose tokens are not its text, that is far longer than the request, or an error that
/// does not say what is wrong.
pub fn check(api: Api, data: &[u8]) {
    let body = match parse_body(data) {
        Ok(body) => body,
        Err(error) => return check_error(&error),
    };
    let defaults = SamplerSettings::default();
    let thinking = Thinking::On(ReasoningEffort::High);
    match api {
        Api::Chat => match chat_request(&body, &defaults, thinking) {
            Ok(request) => check_turn(&request.turn, data.len()),
            Err(error) => check_error(&error),
        },
        Api::Messages => {
            let counted = messages_request(&body, &defaults, thinking, false);
            match messages_request(&body, &defaults, thinking, true) {
                Ok(turn) => {
                    assert!(counted.is_ok(), "what is answered can be counted");
                    check_turn(&turn, data.len());
                }
                Err(error) => check_error(&error),
            }
        }
        Api::Responses => {
            let _ = previous_response_id(&body).map_err(|error| check_error(&error));
            let request = match responses_request(&body, &[], &defaults, thinking) {
                Ok(request) => request,
                Err(error) => return check_error(&error),
            };
            check_turn(&request.turn, data.len());
            // The same items once more, behind an answer to them.
            let mut before = request.history;
            before.push(Message::new(Role::Assistant, "Yes."));
            match responses_request(&body, &before, &defaults, thinking) {
                Ok(request) => check_turn(&request.turn, 2 * data.len()),
                Err(error) => check_error(&error),
            }
        }
        Api::Completions => match completion_request(&body, &defaults) {
            Ok(request) => match inference().prepare_completion(&request, Owner::ANYBODY) {
                Ok(prepared) => {
                    let prompt = prepared.prompt();
                    match &request.prompt_ids {
                        Some(ids) => assert_eq!(prompt, ids),
                        None => {
                            let (bos, text) = prompt.split_first().expect("a text has a start");
                            assert_eq!(Some(*bos), tokenizer().bos());
                            assert_eq!(tokenizer().decode_lossy(text), request.prompt);
                        }
                    }
                }
                Err(error) => check_turn_error(&error),
            },
            Err(error) => check_error(&error),
        },
    }
}

fn check_turn(turn: &TurnRequest, bytes: usize) {
    let text = inference().prompt_text(turn);
    if let Ok(text) = &text {
        assert!(
            text.len() <= GROWTH * bytes + INSTRUCTIONS,
            "{bytes} bytes became a prompt of {}",
            text.len()
        );
    }
    match inference().prepare(turn, Owner::ANYBODY) {
        Ok(prepared) => {
            assert_eq!(text, Ok(tokenizer().decode_lossy(prepared.prompt())));
        }
        Err(error) => check_turn_error(&error),
    }
}

fn check_turn_error(error: &TurnError) {
    match error {
        TurnError::Request(error) => check_error(error),
        TurnError::TooLong { tokens, context } => assert!(tokens >= context),
        TurnError::Busy { .. } | TurnError::Unavailable(_) => {
            panic!("nothing was submitted: {error}")
        }
    }
}

fn check_error(error: &RequestError) {
    assert!((400..500).contains(&error.status), "{error:?}");
    assert!(!error.message.is_empty());
}

fn inference() -> &'static Inference {
    static INFERENCE: OnceLock<Inference> = OnceLock::new();
    INFERENCE.get_or_init(|| {
        let service = Arc::new(NoEngine(ModelFacts {
            name: "none".to_owned(),
            fingerprint: ModelFingerprint::from_bytes([0; 32]),
            context: CONTEXT,
            vocabulary: tokenizer().vocabulary_size(),
            kv_format: Default::default(),
            backend: "none",
        }));
        Inference::new(
            service,
            tokenizer().clone(),
            Vintage::Release0731,
            SamplerSettings::default(),
            Thinking::On(ReasoningEffort::High),
        )
        .expect("the vocabulary has the control tokens")
    })
}

/// All bytes, two merges, and the control tokens.
fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        let mut tokens: Vec<(String, i32)> = ControlToken::ALL
            .iter()
            .map(|token| (token.text().to_owned(), CONTROL))
            .collect();
        tokens.extend((0..=255).map(|byte| (spelling(byte).to_string(), NORMAL)));
        tokens.extend(["th", "the"].map(|token| (token.to_owned(), NORMAL)));
        let place = |token: ControlToken| {
            let place = ControlToken::ALL.iter().position(|other| *other == token);
            place.and_then(|place| u32::try_from(place).ok())
        };
        let source = VocabularySource {
            tokens: tokens.iter().map(|(token, _)| token.as_bytes()).collect(),
            token_types: Some(tokens.iter().map(|&(_, kind)| kind).collect()),
            merges: vec![b"t h", b"th e"],
            pre_tokenizer: PreTokenizer::from_gguf_name("joyai-llm").expect("DeepSeek's"),
            bos: place(ControlToken::BeginOfSentence),
            eos: place(ControlToken::EndOfSentence),
            pad: None,
        };
        Tokenizer::from_vocabulary(&source).expect("the vocabulary is sound")
    })
}

/// The character that stands for a byte in byte-level vocabularies.
fn spelling(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(256 + before).expect("a letter of Latin Extended-A")
}

/// An engine to which nothing is submitted.
struct NoEngine(ModelFacts);

impl InferenceService for NoEngine {
    fn submit(
        &self,
        _request: GenerationRequest,
        _sink: Box<dyn GenerationSink>,
    ) -> Result<RequestId, SubmitError> {
        Err(SubmitError::ShuttingDown)
    }

    fn cancel(&self, _request: RequestId) {}

    fn status(&self) -> EngineStatus {
        EngineStatus::default()
    }

    fn model(&self) -> &ModelFacts {
        &self.0
    }
}
