//! Prints how long grammars take on a vocabulary: the factory, preparing a format, and masks per token.
//!
//! `cargo run --release -p ds4-grammar --example mask_speed -- TOKENIZER.json.gz`
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Read;
use std::time::{Duration, Instant};

use ds4_engine::{TokenConstraint, TokenMask};
use ds4_grammar::{Format, GrammarFactory, GrammarLimits, ToolChoice, ToolDefinition, ToolFormat};
use ds4_tokenizer::{TokenId, Tokenizer};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a tokenizer.json.gz")?;
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut json)?;
    let tokenizer = Tokenizer::from_json(&json)?;
    let start = Instant::now();
    let factory = GrammarFactory::new(&tokenizer, GrammarLimits::default())?;
    println!(
        "factory for {} tokens: {:?}",
        tokenizer.vocabulary_size(),
        start.elapsed()
    );

    let item = r#"{"name": "Ada \u00e9 \"x\"", "age": 36, "tags": ["a long text, with words in it", "b"]}"#;
    let items = vec![item; 40].join(",\n  ");
    let body = "fn main() {\n    println!(\"a < b && c > d </p>\");\n}\n".repeat(40);
    let call = format!(
        "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"tool_77\">\n<｜DSML｜parameter name=\"text_2\" string=\"true\">{body}</｜DSML｜parameter>\n<｜DSML｜parameter name=\"list_1\" string=\"false\">[1, 2, {{\"a\": \"b\"}}]</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
    );
    let prose =
        "I look at the file first, then I change it. It's \"quoted\", 3 < 4, naïve.\n".repeat(10);
    let schema = json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 200}}
            },
            "required": ["name", "age", "tags"],
            "additionalProperties": false
        }
    });
    let array = format!("[{items}]");
    let object = format!("{{\"items\": {array}}}");
    let with_text = format!("{prose}\n{call}");
    let cases = [
        ("JSON object", Format::JsonObject, object),
        ("JSON schema", Format::JsonSchema(schema.to_string()), array),
        ("128 tools", Format::Tools(tools(false)), with_text.clone()),
        ("128 strict tools", Format::Tools(tools(true)), with_text),
        ("regex", Format::Regex("(?s:.*)".to_owned()), prose),
    ];
    println!(
        "{:18} {:>9} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "prepare", "again", "tokens", "mean", "median", "p99", "most", "accept", "fork"
    );
    for (name, format, text) in cases {
        let start = Instant::now();
        let grammar = factory.prepare(&format)?;
        let prepare = start.elapsed();
        let start = Instant::now();
        let mut constraint = factory.prepare(&format)?.constraint();
        let again = start.elapsed();
        drop(grammar);
        let mut tokens: Vec<TokenId> = Vec::new();
        tokenizer.encode_with_specials(&text, &mut tokens);
        let mut mask = TokenMask::new(tokenizer.vocabulary_size());
        let mut times = Vec::new();
        let mut accepting = Duration::ZERO;
        for &token in &tokens {
            let start = Instant::now();
            constraint.mask(&mut mask)?;
            times.push(start.elapsed());
            if !mask.allows(token) {
                return Err(format!(
                    "{name}: {:?} does not fit",
                    tokenizer.decode_lossy(&[token])
                )
                .into());
            }
            let start = Instant::now();
            constraint.accept(token)?;
            accepting += start.elapsed();
        }
        let start = Instant::now();
        drop(constraint.fork());
        let fork = start.elapsed();
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        times.sort();
        println!(
            "{name:18} {:>9.1?} {:>8.1?} {:>7} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.1?} {:>9.1?}",
            prepare,
            again,
            times.len(),
            mean,
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times[times.len() - 1],
            accepting / times.len() as u32,
            fork,
        );
    }
    Ok(())
}

/// As many tools as an agent with several servers offers.
fn tools(strict: bool) -> ToolFormat {
    let tool = |index: usize| ToolDefinition {
        name: format!("tool_{index}"),
        parameters: Some(
            json!({
                "type": "object",
                "properties": {
                    "flag_0": {"type": "boolean"},
                    "list_1": {"type": "array"},
                    "text_2": {"type": "string"},
                    "count_3": {"type": "integer", "minimum": 0},
                    "mode_4": {"enum": ["read", "write"]},
                    "note_5": {"anyOf": [{"type": "string"}, {"type": "null"}]}
                },
                "required": ["text_2"],
                "additionalProperties": false
            })
            .to_string(),
        ),
        strict,
    };
    ToolFormat {
        tools: (0..128).map(tool).collect(),
        choice: ToolChoice::Auto,
        parallel: true,
        starts_in_tool_calls: false,
        answer: None,
    }
}
