//! Formats that are meant to do harm: each is refused, or prepared and used, within bounds of time and
//! memory, on a stack of ordinary size.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ds4_engine::{TokenConstraint, TokenMask};
use ds4_grammar::{
    Format, GrammarError, GrammarFactory, GrammarLimits, ToolChoice, ToolDefinition, ToolFormat,
};
use ds4_tokenizer::{TokenId, Tokenizer};
use serde_json::{Value, json};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// For one format, prepared and used; generous, since machines are shared.
const MOST_TIME: Duration = Duration::from_secs(20);
const MOST_MEMORY: usize = 300 << 20;

fn schema(schema: Value) -> Format {
    Format::JsonSchema(schema.to_string())
}

fn pattern(pattern: &str) -> Format {
    schema(json!({"type": "string", "pattern": pattern}))
}

fn definitions(count: usize, make: impl Fn(usize) -> Value) -> Format {
    let definitions: serde_json::Map<String, Value> =
        (0..count).map(|at| (format!("d{at}"), make(at))).collect();
    schema(json!({"$defs": definitions, "$ref": "#/$defs/d0"}))
}

fn reference(to: usize) -> Value {
    json!({ "$ref": format!("#/$defs/d{to}") })
}

fn corpus() -> Vec<(&'static str, Format)> {
    let lark = |text: String| Format::Lark(text);
    let nested = |depth: usize| {
        (0..depth).fold(
            json!({"type": "integer"}),
            |inner, _| json!({"type": "array", "items": inner}),
        )
    };
    let tool = |index: usize| {
        ToolDefinition {
        name: format!("tool_{index}"),
        parameters: Some(
            json!({
                "type": "object",
                "properties": (0..20).map(|at| (format!("p{at}"), json!({"type": ["string", "integer"]})))
                    .collect::<serde_json::Map<_, _>>(),
                "required": ["p3"]
            })
            .to_string(),
        ),
        strict: true,
    }
    };
    vec![
        ("not JSON", Format::JsonSchema("{\"type\": ".to_owned())),
        ("a number", schema(json!(3))),
        ("deep JSON", Format::JsonSchema("[".repeat(100_000))),
        ("deep schema", schema(nested(49))),
        ("deeper schema", schema(nested(60))),
        ("a loop of one", schema(json!({"$ref": "#"}))),
        ("a loop of two", definitions(2, |at| reference(1 - at))),
        (
            "a loop by allOf",
            definitions(1, |_| json!({"allOf": [reference(0)]})),
        ),
        (
            "a loop by anyOf",
            definitions(1, |_| json!({"anyOf": [reference(0), {"type": "null"}]})),
        ),
        (
            "nothing finite",
            definitions(
                1,
                |_| json!({"type": "array", "items": reference(0), "minItems": 1}),
            ),
        ),
        (
            "a chain",
            definitions(5000, |at| {
                if at < 4999 {
                    reference(at + 1)
                } else {
                    json!({"type": "null"})
                }
            }),
        ),
        (
            "a chain of objects",
            definitions(3000, |at| {
                json!({
                    "type": "object", "properties": {"a": reference((at + 1) % 3000), "b": reference((at * 7 + 1) % 3000)}
                })
            }),
        ),
        (
            "allOf doubling",
            definitions(40, |at| {
                if at < 39 {
                    json!({"allOf": [reference(at + 1), reference(at + 1)]})
                } else {
                    json!({"type": "object", "properties": {"a": {"type": "string"}}})
                }
            }),
        ),
        (
            "anyOf doubling",
            definitions(40, |at| {
                if at < 39 {
                    json!({"anyOf": [reference(at + 1), reference(at + 1)]})
                } else {
                    json!({"type": "string"})
                }
            }),
        ),
        (
            "a product of unions",
            schema(json!({"allOf": (0..20).map(|at| json!({
            "anyOf": (0..10).map(|to| json!({"minimum": at, "maximum": 100 + to})).collect::<Vec<_>>()
        })).collect::<Vec<_>>()})),
        ),
        (
            "a wide oneOf",
            schema(json!({"oneOf": (0..2000).map(|at| json!({"const": at})).collect::<Vec<_>>()})),
        ),
        (
            "a huge enum",
            schema(
                json!({"enum": (0..40_000).map(|at| format!("value {}", at * 7919)).collect::<Vec<_>>()}),
            ),
        ),
        (
            "a long constant",
            schema(json!({"const": "x".repeat(900_000)})),
        ),
        ("too long", schema(json!({"const": "x".repeat(2_000_000)}))),
        (
            "many properties",
            schema(json!({"type": "object", "properties":
            (0..10_000).map(|at| (format!("p{at}"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()})),
        ),
        (
            "many required",
            schema(json!({"type": "object",
            "required": (0..10_000).map(|at| format!("p{at}")).collect::<Vec<_>>()})),
        ),
        (
            "overlapping patterns",
            schema(json!({"type": "object", "patternProperties":
            (0..60).map(|at| (format!("^a{{{at}}}(b|c)*d.*x"), json!(true))).collect::<serde_json::Map<_, _>>()})),
        ),
        (
            "a long array",
            schema(json!({"type": "array", "items": {"type": "string"}, "minItems": 9_999})),
        ),
        (
            "nested counts",
            schema((0..20).fold(
                json!({"type": "null"}),
                |inner, _| json!({"type": "array", "items": inner, "minItems": 9_000}),
            )),
        ),
        (
            "a longer array",
            schema(json!({"type": "array", "minItems": 1_000_000_000})),
        ),
        (
            "a long string",
            schema(json!({"type": "string", "minLength": 9_999, "maxLength": 10_000})),
        ),
        (
            "a longer string",
            schema(json!({"type": "string", "maxLength": u64::MAX})),
        ),
        (
            "a long string with a pattern",
            schema(json!({
                "type": "string", "minLength": 5_000, "maxLength": 10_000, "pattern": "^(a|b|ab)*c?$"
            })),
        ),
        (
            "tiny multiples",
            schema(json!({"type": "number", "multipleOf": 1e-300})),
        ),
        (
            "odd multiples",
            schema(json!({"type": "integer", "multipleOf": 4999})),
        ),
        (
            "wide bounds",
            schema(json!({"type": "number", "minimum": -1e308, "maximum": 1e308})),
        ),
        ("nested quantifiers", pattern("^(([a-z]+)*)*$")),
        ("ambiguous quantifiers", pattern("^(a|aa|a*)+b$")),
        (
            "optional letters",
            pattern(&format!("^{}{}$", "a?".repeat(680), "a".repeat(680))),
        ),
        ("many wildcards", pattern(&"x.*".repeat(680))),
        (
            "counted groups",
            pattern("^((a{1,1000}b?){1,1000}c){1,1000}$"),
        ),
        ("counted letters", pattern(r"^\p{L}{5000}[^\p{N}]{5000}$")),
        ("a far choice", pattern("(a|b)*a(a|b){400}")),
        ("lookaround", pattern("^(?=a)b")),
        (
            "deep groups",
            pattern(&format!("{}a{}", "(".repeat(3000), ")".repeat(3000))),
        ),
        (
            "groups to the limit",
            pattern(&format!("{}a{}", "(b|".repeat(24), ")*".repeat(24))),
        ),
        (
            "many alternatives",
            pattern(
                &(0..3000)
                    .map(|at| format!("{at}"))
                    .collect::<Vec<_>>()
                    .join("|"),
            ),
        ),
        (
            "settings of the library",
            schema(json!({"x-guidance": {"lenient": true}, "not": {}})),
        ),
        (
            "a remote reference",
            schema(json!({"$ref": "http://169.254.169.254/latest"})),
        ),
        (
            "a local file",
            schema(json!({"$ref": "file:///etc/passwd"})),
        ),
        (
            "an ambiguous grammar",
            lark("start: start start | \"a\"".to_owned()),
        ),
        (
            "a hidden loop",
            lark("start: a\na: b | \"x\"\nb: a | \"\"".to_owned()),
        ),
        ("undefined", lark("start: nothing".to_owned())),
        (
            "deep brackets",
            lark(format!(
                "start: {}\"a\"{}",
                "(".repeat(20_000),
                ")".repeat(20_000)
            )),
        ),
        (
            "brackets in a literal",
            lark(format!("start: \"{}\"", "(".repeat(200))),
        ),
        (
            "a huge count",
            lark("start: A{1000000000}\nA: \"a\"".to_owned()),
        ),
        (
            "nested counts of rules",
            lark("start: b{1000}\nb: c{1000}\nc: d{1000}\nd: \"a\"{1000}".to_owned()),
        ),
        (
            "a chain of terminals",
            lark(
                (0..4000)
                    .map(|at| format!("A{at}: A{}", at + 1))
                    .collect::<Vec<_>>()
                    .join("\n")
                    + "\nA4000: \"a\"\nstart: A0",
            ),
        ),
        (
            "a chain of rules",
            lark(
                (0..4000)
                    .map(|at| format!("a{at}: a{}", at + 1))
                    .collect::<Vec<_>>()
                    .join("\n")
                    + "\na4000: \"a\"\nstart: a0",
            ),
        ),
        (
            "a schema in a grammar",
            lark(format!(
                "start: %json {}",
                json!({"$defs":
            (0..1800).map(|at| (format!("d{at}"), if at < 1799 { reference(at + 1) } else { json!({}) }))
                .collect::<serde_json::Map<_, _>>(), "$ref": "#/$defs/d0"})
            )),
        ),
        (
            "an import",
            lark("%import common.NOTHING\nstart: NOTHING".to_owned()),
        ),
        (
            "a control token",
            lark("start: <[128803]> \"x\"".to_owned()),
        ),
        ("an unclosed literal", lark("start: \"a".to_owned())),
        (
            "complements",
            lark("start: A\nA: ~/(a|b)*a(a|b){200}/ & /[ab]*/".to_owned()),
        ),
        (
            "a regex of repeats",
            Format::Regex("(.{0,1000}){0,1000}x".to_owned()),
        ),
        ("an open class", Format::Regex("[".to_owned())),
        ("a long regex", Format::Regex("a".repeat(100_000))),
        ("no choice", Format::Choice(vec![])),
        (
            "many choices",
            Format::Choice((0..10_000).map(|at| format!("{}", at * 104_729)).collect()),
        ),
        (
            "too many choices",
            Format::Choice((0..20_000).map(|at| at.to_string()).collect()),
        ),
        (
            "odd fractions",
            schema(json!({"type": "number", "multipleOf": 0.4999})),
        ),
        (
            "two divisors",
            schema(json!({"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}]})),
        ),
        (
            "a long regex in a grammar",
            lark(format!(
                "start: /{}{}/",
                "a?".repeat(15_000),
                "a".repeat(15_000)
            )),
        ),
        (
            "a divisor in a grammar",
            lark("start: %json {\"type\": \"integer\", \"multipleOf\": 99991}".to_owned()),
        ),
        (
            "a settings block in a grammar",
            lark("%llguidance {\"allow_invalid_utf8\": true}\nstart: /(?s:.*)/".to_owned()),
        ),
        (
            "many tools",
            Format::Tools(ToolFormat {
                tools: (0..300).map(tool).collect(),
                choice: ToolChoice::Auto,
                parallel: true,
                starts_in_tool_calls: false,
                answer: None,
            }),
        ),
    ]
}

/// Prepares a format and follows it for some tokens, whatever comes.
fn run(factory: &GrammarFactory, format: &Format, vocabulary: usize) -> String {
    let grammar = match factory.prepare(format) {
        Ok(grammar) => grammar,
        Err(error) => return format!("refused: {error}"),
    };
    let mut constraint = grammar.constraint();
    let mut mask = TokenMask::new(vocabulary);
    for step in 0..60 {
        if let Err(error) = constraint.mask(&mut mask) {
            return format!("stopped at {step}: {error}");
        }
        // Long tokens first: they make the lexer work.
        let allowed = (0..vocabulary as TokenId).filter(|&id| mask.allows(id));
        let Some(token) = allowed.max_by_key(|id| (id.wrapping_mul(2_654_435_761) >> 7) + step)
        else {
            return "nothing allowed".to_owned();
        };
        match constraint.accept(token) {
            Ok(ds4_engine::ConstraintState::Finished) => return format!("ended at {step}"),
            Ok(_) => {}
            Err(error) => return format!("stopped at {step}: {error}"),
        }
    }
    "goes on".to_owned()
}

#[test]
fn nobody_is_harmed() {
    let packed = include_bytes!("../../ds4-tokenizer/tests/data/deepseek-v4-tokenizer.json.gz");
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut json)
        .unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let factory = GrammarFactory::new(
        &tokenizer,
        GrammarLimits {
            compile_time: MOST_TIME,
            ..GrammarLimits::default()
        },
    )
    .unwrap();
    let vocabulary = tokenizer.vocabulary_size();
    let mut failures = Vec::new();
    for (name, format) in corpus() {
        let held = HELD.load(Ordering::Relaxed);
        PEAK.store(held, Ordering::Relaxed);
        let start = Instant::now();
        let factory = factory.clone();
        // The stack that threads have by default.
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let outcome = thread
            .spawn(move || run(&factory, &format, vocabulary))
            .unwrap()
            .join()
            .unwrap_or_else(|_| "panicked".to_owned());
        let (time, memory) = (
            start.elapsed(),
            PEAK.load(Ordering::Relaxed).saturating_sub(held),
        );
        println!(
            "{name:30} {time:>10.1?} {:>6} MiB  {}",
            memory >> 20,
            outcome.chars().take(160).collect::<String>()
        );
        if time > MOST_TIME
            || memory > MOST_MEMORY
            || outcome == "panicked"
            || outcome.contains("try again")
            || outcome.contains("longer than")
        {
            failures.push(format!("{name}: {time:?}, {memory} bytes, {outcome}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn refusals_name_the_place() {
    let packed = include_bytes!("../../ds4-tokenizer/tests/data/deepseek-v4-tokenizer.json.gz");
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut json)
        .unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let factory = GrammarFactory::new(&tokenizer, GrammarLimits::default()).unwrap();
    let place = |schema: Value| match factory
        .prepare(&Format::JsonSchema(schema.to_string()))
        .unwrap_err()
    {
        GrammarError::Unsupported { place, .. }
        | GrammarError::Invalid { place, .. }
        | GrammarError::TooComplex { place, .. }
        | GrammarError::TooLarge { place, .. } => place,
        other => panic!("{other}"),
    };
    let inside = |inner: Value| json!({"type": "object", "properties": {"a": {"type": "array", "items": inner}}});
    assert_eq!(place(inside(json!({"not": {}}))), "#/properties/a/items");
    assert_eq!(
        place(inside(json!({"pattern": "(?=x)"}))),
        "#/properties/a/items/pattern"
    );
    assert_eq!(
        place(inside(json!({"maxLength": 1e9}))),
        "#/properties/a/items/maxLength"
    );
    // Found by the grammar library.
    let overlap = json!({"oneOf": [{"minimum": 1, "type": "integer"}, {"type": "integer"}]});
    assert_eq!(place(inside(overlap)), "#/properties/a/items");
    assert_eq!(
        place(inside(json!({"type": "strnig"}))),
        "#/properties/a/items"
    );
}
