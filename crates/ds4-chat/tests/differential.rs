//! Our encoder and parser against DeepSeek's own library, on generated conversations and answers
//! within the domain in which both mean the same (`DECISIONS.md`).

#![expect(clippy::unwrap_used, reason = "a test")]

use std::task::{Context, Poll, Waker};

use deepseek_recipe::stream::{
    ChunkGenerator, InferenceChunk, InferenceFinishReason, OutputChunk, ParsingOptions,
    StreamProcessor, ThinkingInitialStage,
};
use deepseek_recipe_core::conversation::{Conversation as RecipeConversation, ReasoningEffort};
use deepseek_recipe_core::messages::{InputMessage, ToolCall};
use deepseek_recipe_core::prompt::Prompt;
use deepseek_recipe_core::special_tokens::default_special_tokens;
use deepseek_recipe_core::tools::ToolDefinition;
use deepseek_recipe_encoding::PromptEncoding;
use deepseek_recipe_encoding::dsv4::DeepseekV4Encoding;
use ds4_chat::{Conversation, ParserOptions, Piece, Vintage, parse, render};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_stream::StreamExt;

// --- the oracle ---

struct Passthrough;

impl ChunkGenerator for Passthrough {
    type Chunk = OutputChunk;

    async fn generate(&mut self, chunk: OutputChunk) -> Vec<OutputChunk> {
        vec![chunk]
    }
}

type Parsed = (String, String, Vec<(String, String)>);

fn recipe_parse(text: &str, thinking: bool) -> Parsed {
    let options = ParsingOptions {
        parse_tool_calls: true,
        thinking_initial_stage: thinking.then_some(ThinkingInitialStage::ReasoningStart),
        special_tokens: default_special_tokens(),
        ..ParsingOptions::default()
    };
    let input = [
        InferenceChunk::Text {
            content: text.to_owned(),
            token_count: 1,
        },
        InferenceChunk::Finish {
            finish_reason: InferenceFinishReason::Stop,
        },
    ];
    let stream =
        StreamProcessor::new(Passthrough, options).into_protocol_stream(tokio_stream::iter(input));
    let mut collected = Box::pin(stream.collect::<Vec<_>>());
    // Nothing in there waits for anything.
    let Poll::Ready(chunks) = collected
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("the stream is not ready");
    };
    let (mut reasoning, mut content, mut calls) =
        (String::new(), String::new(), Vec::<(String, String)>::new());
    for chunk in chunks {
        match chunk.unwrap() {
            OutputChunk::Reasoning { content: text, .. } => reasoning.push_str(&text),
            OutputChunk::Content { content: text, .. } => content.push_str(&text),
            OutputChunk::ToolCallNamed { tool_name } => calls.push((tool_name, String::new())),
            OutputChunk::ToolCallArgumentsDelta { arguments } => {
                calls.last_mut().unwrap().1.push_str(&arguments)
            }
            _ => {}
        }
    }
    (reasoning, content, calls)
}

fn our_parse(text: &str, thinking: bool) -> Parsed {
    let message = parse(
        text,
        ParserOptions {
            thinking,
            ..ParserOptions::default()
        },
    );
    let calls = message
        .tool_calls
        .into_iter()
        .map(|call| (call.name, call.arguments))
        .collect();
    (message.reasoning, message.content, calls)
}

// --- generated text ---

/// Pieces that almost make markers.
fn prose() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "a",
        "word ",
        " ",
        "\n",
        "\n\n",
        "<",
        "</",
        "think",
        ">",
        "<think>",
        "｜",
        "DSML",
        "<｜DS",
        "|",
        "\"",
        "'",
        "\\",
        "`",
        "```\n",
        "&lt;",
        "&",
        "{",
        "}",
        "é",
        "日本語",
        "😀",
        "\u{1}",
        "\t",
        "\r\n",
        "name=",
        "tool_calls",
    ]);
    prop::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
}

/// No whole marker, and no start of one right before a newline: there recipe's matcher forgets to
/// count that newline.
fn is_plain(text: &str) -> bool {
    const MARKERS: [&str; 2] = ["</think>", "<｜DSML｜"];
    // We also take tags with missing, ASCII or spaced bars.
    let whole = ["</think>", "DSML｜", "DSML|", "DSML "];
    let starts: Vec<&str> = MARKERS
        .iter()
        .flat_map(|marker| marker.char_indices().skip(1).map(|(at, _)| &marker[..at]))
        .collect();
    let before_newline = text
        .match_indices('\n')
        .all(|(at, _)| !starts.iter().any(|start| text[..at].ends_with(start)));
    !whole.iter().any(|marker| text.contains(marker))
        && before_newline
        && !starts.iter().any(|s| text.ends_with(s))
}

fn plain() -> impl Strategy<Value = String> {
    prose().prop_filter("markers", |text| is_plain(text))
}

/// A code fence would make what follows a quotation for us.
fn unfenced() -> impl Strategy<Value = String> {
    plain().prop_filter("fence", |text| !text.contains("```"))
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z_0-9]{0,12}"
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000i32..1000).prop_map(|n| json!(f64::from(n) / 8.0 + 0.0625)),
        prose().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A parameter: name, whether a string, text of the value.
fn parameter() -> impl Strategy<Value = (String, bool, String)> {
    let value = prop_oneof![
        plain().prop_map(|text| (true, text)),
        json_value().prop_map(|value| (false, value.to_string())),
        Just((false, "three".to_owned())),
    ];
    (name(), value).prop_map(|(name, (is_string, value))| (name, is_string, value))
}

fn block() -> impl Strategy<Value = String> {
    let call = (name(), prop::collection::vec(parameter(), 0..4));
    (1usize..4, prop::collection::vec(call, 0..4)).prop_map(|(newlines, calls)| {
        let mut text = "\n".repeat(newlines) + "<｜DSML｜tool_calls>\n";
        for (name, parameters) in calls {
            text.push_str(&format!("<｜DSML｜invoke name=\"{name}\">\n"));
            for (name, is_string, value) in parameters {
                text.push_str(&format!(
                    "<｜DSML｜parameter name=\"{name}\" string=\"{is_string}\">{value}</｜DSML｜parameter>\n"
                ));
            }
            text.push_str("</｜DSML｜invoke>\n");
        }
        text + "</｜DSML｜tool_calls>"
    })
}

fn answer() -> impl Strategy<Value = (String, bool)> {
    (any::<bool>(), plain(), plain(), prop::option::of(block())).prop_map(
        |(thinking, reasoning, content, block)| {
            let block = block.unwrap_or_default();
            let text = if thinking {
                format!("{reasoning}</think>{content}{block}")
            } else {
                format!("{content}{block}")
            };
            (text, thinking)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whole_answers_parse_as_recipe_parses_them((text, thinking) in answer()) {
        prop_assert_eq!(our_parse(&text, thinking), recipe_parse(&text, thinking));
    }

    #[test]
    fn cut_answers_parse_as_recipe_parses_them((text, thinking) in answer(), cut in any::<prop::sample::Index>()) {
        let boundaries: Vec<usize> = (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
        let text = &text[..boundaries[cut.index(boundaries.len())]];
        prop_assert_eq!(our_parse(text, thinking), recipe_parse(text, thinking));
    }

    #[test]
    fn blocks_in_unclosed_reasoning_count((reasoning, block) in (unfenced(), block())) {
        let text = reasoning + &block;
        prop_assert_eq!(our_parse(&text, true), recipe_parse(&text, true));
    }
}

// --- generated conversations ---

/// Name, arguments and result.
type Called = (String, Value, String);

#[derive(Debug, Clone)]
struct Turn {
    user: String,
    /// Reasoning, content and calls.
    rounds: Vec<(String, String, Vec<Called>)>,
    reasoning: String,
    content: String,
}

#[derive(Debug, Clone)]
struct Scenario {
    system: Option<String>,
    tools: Vec<(String, String, Value)>,
    turns: Vec<Turn>,
    question: String,
    thinking: bool,
    effort: ReasoningEffort,
}

fn client_text() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "a",
        " b",
        "\n",
        "<｜User｜>",
        "</think>",
        "<think>",
        "<｜DSML｜tool_calls>",
        "<｜end▁of▁sentence｜>",
        "é",
        "日",
        "</tool_result>",
        "\"",
        "{",
    ]);
    prop::collection::vec(fragment, 1..6).prop_map(|fragments| fragments.concat())
}

fn arguments() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(name(), json_value(), 1..4)
        .prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn turn() -> impl Strategy<Value = Turn> {
    let call = (name(), arguments(), client_text());
    let round = (
        client_text(),
        client_text(),
        prop::collection::vec(call, 1..4),
    );
    (
        client_text(),
        prop::collection::vec(round, 0..3),
        client_text(),
        client_text(),
    )
        .prop_map(|(user, rounds, reasoning, content)| Turn {
            user,
            rounds,
            reasoning,
            content,
        })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let effort = prop::sample::select(vec![
        ReasoningEffort::Low,
        ReasoningEffort::High,
        ReasoningEffort::Max,
    ]);
    let tool = (name(), client_text(), json_value());
    (
        prop::option::of(client_text()),
        prop::collection::vec(tool, 0..3),
        prop::collection::vec(turn(), 0..3),
        client_text(),
        any::<bool>(),
        effort,
    )
        .prop_map(
            |(system, tools, turns, question, thinking, effort)| Scenario {
                system,
                tools,
                turns,
                question,
                thinking,
                effort,
            },
        )
}

fn our_pieces(scenario: &Scenario) -> Vec<(bool, String)> {
    let reasoning = |text: &str| scenario.thinking.then(|| text.to_owned());
    let mut messages = Vec::new();
    if let Some(system) = &scenario.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    for turn in &scenario.turns {
        messages.push(json!({"role": "user", "content": turn.user}));
        for (thought, content, calls) in &turn.rounds {
            let listed: Vec<Value> = calls
                .iter()
                .enumerate()
                .map(|(at, (name, arguments, _))| {
                    json!({"id": format!("c{at}"), "type": "function",
                           "function": {"name": name, "arguments": arguments.to_string()}})
                })
                .collect();
            messages.push(json!({"role": "assistant", "content": content, "reasoning_content": reasoning(thought),
                                 "tool_calls": listed}));
            // Sent backwards, to be put in order.
            for (at, (_, _, result)) in calls.iter().enumerate().rev() {
                messages.push(
                    json!({"role": "tool", "tool_call_id": format!("c{at}"), "content": result}),
                );
            }
        }
        messages.push(json!({"role": "assistant", "content": turn.content,
                             "reasoning_content": reasoning(&turn.reasoning)}));
    }
    messages.push(json!({"role": "user", "content": scenario.question}));
    let tools: Vec<Value> = scenario
        .tools
        .iter()
        .map(|(name, description, parameters)| {
            json!({"type": "function",
                   "function": {"name": name, "description": description, "parameters": parameters}})
        })
        .collect();
    let conversation: Conversation = serde_json::from_value(json!({
        "messages": messages,
        "tools": tools,
        "thinking_mode": if scenario.thinking { "thinking" } else { "chat" },
        "reasoning_effort": scenario.effort,
    }))
    .unwrap();
    let prompt = render(&conversation, Vintage::Release0731).unwrap();
    prompt
        .into_pieces()
        .into_iter()
        .map(|piece| match piece {
            Piece::Special(token) => (true, token.text().to_owned()),
            Piece::Text(text) => (false, text),
            Piece::Sampled { .. } => unreachable!("nothing is replayed"),
        })
        .collect()
}

fn recipe_pieces(scenario: &Scenario) -> Vec<(bool, String)> {
    let reasoning = |text: &str| scenario.thinking.then(|| text.to_owned());
    let mut messages = Vec::new();
    let plain = |text: &str| Prompt::plain(text);
    if let Some(system) = &scenario.system {
        messages.push(InputMessage::System {
            content: plain(system),
            image_sources: Vec::new(),
            tools: None,
        });
    }
    for turn in &scenario.turns {
        messages.push(InputMessage::User {
            content: plain(&turn.user),
            image_sources: Vec::new(),
        });
        for (thought, content, calls) in &turn.rounds {
            let listed = calls
                .iter()
                .enumerate()
                .map(|(at, (name, arguments, _))| ToolCall {
                    id: format!("c{at}"),
                    name: name.clone(),
                    arguments: arguments.to_string(),
                });
            messages.push(InputMessage::Assistant {
                content: content.clone(),
                reasoning_content: reasoning(thought),
                tool_calls: Some(listed.collect()),
                prefix: false,
            });
            for (at, (_, _, result)) in calls.iter().enumerate() {
                messages.push(InputMessage::Tool {
                    content: plain(result),
                    image_sources: Vec::new(),
                    tool_call_id: Some(format!("c{at}")),
                });
            }
        }
        messages.push(InputMessage::Assistant {
            content: turn.content.clone(),
            reasoning_content: reasoning(&turn.reasoning),
            tool_calls: None,
            prefix: false,
        });
    }
    messages.push(InputMessage::User {
        content: plain(&scenario.question),
        image_sources: Vec::new(),
    });
    let tools = scenario
        .tools
        .iter()
        .map(|(name, description, parameters)| ToolDefinition {
            name: name.clone(),
            description: Some(description.clone()),
            parameters: parameters.clone(),
            strict: None,
            defer_loading: false,
        });
    let rendered = DeepseekV4Encoding::new().render_conversation(&RecipeConversation {
        messages,
        thinking_mode: scenario.thinking,
        tools: tools.collect(),
        reasoning_effort: Some(scenario.effort),
        ..RecipeConversation::default()
    });
    let mut pieces = Vec::new();
    let mut start = 0;
    for range in rendered.special_ranges {
        if start < range.start {
            pieces.push((false, rendered.prompt[start..range.start].to_owned()));
        }
        pieces.push((true, rendered.prompt[range.clone()].to_owned()));
        start = range.end;
    }
    if start < rendered.prompt.len() {
        pieces.push((false, rendered.prompt[start..].to_owned()));
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conversations_render_as_recipe_renders_them(scenario in scenario()) {
        prop_assert_eq!(our_pieces(&scenario), recipe_pieces(&scenario));
    }
}
