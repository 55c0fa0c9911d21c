//! The built-in model answers questions that its training never saw.
//!
//! The floor is below what was measured (`training/README.md`), so that other
//! rounding on another processor does not fail it, and far above chance.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![expect(clippy::print_stdout, reason = "shows the wrong answers")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ds4_chat::{Conversation, Message, Piece, Role, ThinkingMode, Vintage};
use ds4_engine::{Engine, EngineOptions, Sampler, SamplerSettings, SyncControl};
use ds4_gguf::GgufFile;
use ds4_tokenizer::{TokenId, Tokenizer, VocabularySource};
use regex::Regex;

const SHARE_EXPECTED: f64 = 0.9;
const LONGEST_ANSWER: usize = 160;

static NANO: &[u8] = include_bytes!("../assets/ds4-nano.gguf");

struct Help {
    engine: Engine,
    tokenizer: Tokenizer,
}

impl Help {
    fn open() -> Self {
        let file = GgufFile::from_static("ds4-nano", NANO).unwrap();
        let metadata = file.metadata();
        let id = |key: &str| metadata.u32(key).unwrap();
        let types = metadata.integers("tokenizer.ggml.token_type").unwrap();
        let tokenizer = Tokenizer::from_vocabulary(&VocabularySource {
            tokens: metadata
                .byte_strings("tokenizer.ggml.tokens")
                .unwrap()
                .collect(),
            token_types: Some(types.iter().map(|&kind| kind as i32).collect()),
            merges: metadata
                .byte_strings("tokenizer.ggml.merges")
                .unwrap()
                .collect(),
            bos: Some(id("tokenizer.ggml.bos_token_id")),
            eos: Some(id("tokenizer.ggml.eos_token_id")),
            ..VocabularySource::default()
        })
        .unwrap();
        let options = EngineOptions {
            context: 1024,
            ..EngineOptions::default()
        };
        let engine = Engine::open(&file, None, &options, &mut |_| ()).unwrap();
        Self { engine, tokenizer }
    }

    fn prompt(&self, messages: Vec<Message>, thinking: ThinkingMode) -> Vec<TokenId> {
        let conversation = Conversation {
            messages,
            thinking_mode: thinking,
            ..Conversation::default()
        };
        let prompt = ds4_chat::render(&conversation, Vintage::Release0731).unwrap();
        let mut tokens = Vec::new();
        for piece in prompt.pieces() {
            match piece {
                Piece::Special(control) => {
                    tokens.push(self.tokenizer.special(control.text()).unwrap());
                }
                Piece::Text(text) => self.tokenizer.encode(text, &mut tokens),
                Piece::Sampled { .. } => unreachable!("nothing is replayed"),
            }
        }
        tokens
    }

    fn answer(&mut self, messages: Vec<Message>, thinking: ThinkingMode) -> String {
        let prompt = self.prompt(messages, thinking);
        let mut sampler = Sampler::new(SamplerSettings {
            temperature: 0.0,
            ..SamplerSettings::default()
        })
        .unwrap();
        let cancel = AtomicBool::new(false);
        let mut control = SyncControl {
            cancel: &cancel,
            progress: &mut |_, _| (),
        };
        let mut session = self.engine.session().unwrap();
        self.engine
            .sync(&mut session, &prompt, &mut control)
            .unwrap();
        let mut answer = Vec::new();
        while answer.len() < LONGEST_ANSWER {
            let token = sampler.sample(session.logits());
            if Some(token) == self.tokenizer.eos() {
                break;
            }
            answer.push(token);
            self.engine.append(&mut session, token).unwrap();
        }
        self.engine.close(session);
        let text = self.tokenizer.decode_lossy(&answer);
        // Only what follows the reasoning counts as the answer.
        text.rsplit("</think>")
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

/// The turns before the question, if there are any, and the question.
fn messages(case: &serde_json::Value) -> Vec<Message> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let turns = case["history"].as_array().into_iter().flatten();
    let mut messages: Vec<Message> = turns
        .flat_map(|turn| {
            [
                Message::new(Role::User, text(&turn[0])),
                Message::new(Role::Assistant, text(&turn[1])),
            ]
        })
        .collect();
    messages.push(Message::new(Role::User, text(&case["question"])));
    messages
}

fn share_of_right_answers(thinking: ThinkingMode) -> f64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../training/heldout.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let mut help = Help::open();
    let mut right = 0;
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let answer = help.answer(messages(&case), thinking);
        let fits = case["expect"].as_array().unwrap().iter().all(|pattern| {
            Regex::new(pattern.as_str().unwrap())
                .unwrap()
                .is_match(&answer)
        });
        if fits {
            right += 1;
        } else {
            println!("{thinking:?}, wrong: {} -> {answer}", case["question"]);
        }
    }
    f64::from(right) / text.lines().count() as f64
}

#[test]
fn held_out_questions_get_the_right_command_with_thinking() {
    let share = share_of_right_answers(ThinkingMode::On);
    assert!(share >= SHARE_EXPECTED, "{share}");
}

#[test]
fn held_out_questions_get_the_right_command_without_thinking() {
    let share = share_of_right_answers(ThinkingMode::Off);
    assert!(share >= SHARE_EXPECTED, "{share}");
}

#[test]
fn it_says_what_it_is() {
    let question = vec![Message::new(Role::User, "Who are you?")];
    let answer = Help::open().answer(question, ThinkingMode::Off);
    assert!(answer.contains("small demonstration model"), "{answer}");
}
