//! The grammar of answers with tool calls: Lark, with JSON schemas beside.

use std::collections::{HashMap, HashSet};

use ds4_tokenizer::TokenId;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Map, Value, json};

use super::parameter::{Forms, RawText, lenient, strict};
use super::{ToolChoice, ToolDefinition, ToolFormat};
use crate::guard::{Guard, Spelling};
use crate::limits::{MAX_PARAMETERS, MAX_SOURCE_BYTES, MAX_TOOLS};
use crate::{GrammarError, schema};

/// Parameters that can come in any order: one bit each of the library's rule parameters.
const ANY_ORDER: usize = 64;

/// The grammar of an answer: Lark text, and the schemas `json_0`, `json_1`, … that it refers to.
pub(crate) struct ToolGrammar {
    lark: String,
    /// Each with its place.
    pub(crate) schemas: Vec<(String, Value)>,
}

impl ToolGrammar {
    pub(crate) fn to_top_level(&self) -> TopLevelGrammar {
        let mut grammars = vec![GrammarWithLexer::from_lark(self.lark.clone())];
        for (index, (_, schema)) in self.schemas.iter().enumerate() {
            let schema = schema::with_settings(schema.clone());
            let mut grammar = GrammarWithLexer::from_json_schema(schema);
            grammar.name = Some(format!("json_{index}"));
            grammars.push(grammar);
        }
        TopLevelGrammar {
            grammars,
            max_tokens: None,
        }
    }
}

/// The Lark text under construction.
struct Writer<'a> {
    lark: String,
    schemas: Vec<(String, Value)>,
    /// `<[id]>`, the control token `｜DSML｜`.
    tag: String,
    guard: &'a Guard,
    known: HashMap<String, usize>,
    has_any_json: bool,
    values: usize,
}

/// The grammar of `format`, where `｜DSML｜` is `tool_token`.
pub(crate) fn tool_grammar(
    format: &ToolFormat,
    tool_token: TokenId,
    guard: &Guard,
) -> Result<ToolGrammar, GrammarError> {
    check(format, guard)?;
    let mut writer = Writer {
        lark: String::new(),
        schemas: Vec::new(),
        tag: format!("<[{tool_token}]>"),
        guard,
        known: HashMap::new(),
        has_any_json: false,
        values: 0,
    };
    writer.start(format)?;
    if format.choice != ToolChoice::None {
        writer.calls(format)?;
    }
    Ok(ToolGrammar {
        lark: writer.lark,
        schemas: writer.schemas,
    })
}

fn check(format: &ToolFormat, guard: &Guard) -> Result<(), GrammarError> {
    let limit = |what, found, limit| {
        if found > limit {
            return Err(GrammarError::TooLarge {
                what,
                place: "the tools".to_owned(),
                found,
                limit,
            });
        }
        Ok(())
    };
    limit("the number of tools", format.tools.len(), MAX_TOOLS)?;
    let sources = format
        .tools
        .iter()
        .filter_map(|tool| tool.parameters.as_ref());
    limit(
        "the length of all schemas",
        sources.map(String::len).sum(),
        4 * MAX_SOURCE_BYTES,
    )?;
    let mut names = HashSet::new();
    for tool in &format.tools {
        check_name(&tool.name, &tool.name, guard)?;
        if !names.insert(&tool.name) {
            return Err(wrong(&tool.name, "this name is there twice"));
        }
    }
    match &format.choice {
        ToolChoice::Named(name) if !names.contains(name) => Err(wrong(
            name,
            "tool_choice names it, but it is not in the list",
        )),
        ToolChoice::Required if names.is_empty() => {
            Err(wrong("", "a call is required, but there are no tools"))
        }
        _ => Ok(()),
    }
}

/// Names become attributes, which have no escapes.
fn check_name(name: &str, tool: &str, guard: &Guard) -> Result<(), GrammarError> {
    let refused = |c: char| c.is_control() || c == '"';
    if name.len() > 256 || name.contains(refused) || guard.contains(Spelling::AnyTag, name) {
        let reason = format!("the name {name:?} cannot be written in a tag");
        return Err(wrong(tool, &reason));
    }
    Ok(())
}

fn wrong(tool: &str, reason: &str) -> GrammarError {
    GrammarError::Tool {
        name: tool.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Writer<'_> {
    fn rule(&mut self, rule: &str) {
        self.lark.push_str(rule);
        self.lark.push('\n');
    }

    /// The reference to a JSON schema.
    fn json(&mut self, place: String, schema: Value) -> String {
        let count = self.schemas.len();
        // Tools have many parameters of few types.
        let index = *self.known.entry(schema.to_string()).or_insert(count);
        if index == count {
            self.schemas.push((place, schema));
        }
        format!("@json_{index}")
    }

    fn start(&mut self, format: &ToolFormat) -> Result<(), GrammarError> {
        if format.starts_in_tool_calls && format.choice != ToolChoice::None {
            self.rule("start: calls");
            return Ok(());
        }
        let tag = self.tag.clone();
        let block = format!("{tag} \"tool_calls>\\n\" calls");
        let text = match &format.answer {
            Some(schema) => self.json("#".to_owned(), schema::read(schema, "#")?),
            None => "| TEXT".to_owned(),
        };
        match format.choice {
            ToolChoice::None => self.rule(&format!("start: {text}")),
            ToolChoice::Auto if format.tools.is_empty() => {
                self.rule(&format!("start: {text}"));
            }
            ToolChoice::Auto if format.answer.is_none() => {
                self.rule(&format!("start: {text} | TEXT {block}"));
            }
            ToolChoice::Auto => self.rule(&format!("start: {text} | BEFORE {block}")),
            ToolChoice::Required | ToolChoice::Named(_) => {
                self.rule(&format!("start: BEFORE {block}"));
            }
        }
        self.rule("TEXT: /(?s:.+)/");
        self.rule("BEFORE: /\\n{0,2}</");
        Ok(())
    }

    fn calls(&mut self, format: &ToolFormat) -> Result<(), GrammarError> {
        let tag = self.tag.clone();
        let several = if format.parallel && !matches!(format.choice, ToolChoice::Named(_)) {
            "+"
        } else {
            ""
        };
        self.rule(&format!(
            "calls: invoke{several} \"</\" {tag} \"tool_calls>\""
        ));
        let mut names = Vec::new();
        for (index, tool) in format.tools.iter().enumerate() {
            if let ToolChoice::Named(name) = &format.choice
                && *name != tool.name
            {
                continue;
            }
            names.push(format!("tool_{index}"));
            self.tool(index, tool)?;
        }
        if names.is_empty() {
            return Ok(());
        }
        let names = names.join(" | ");
        self.rule(&format!(
            "invoke: \"<\" {tag} ({names}) \"</\" {tag} \"invoke>\\n\""
        ));
        Ok(())
    }

    fn tool(&mut self, index: usize, tool: &ToolDefinition) -> Result<(), GrammarError> {
        let root = match &tool.parameters {
            Some(text) if tool.strict => schema::read(text, &format!("{}#", tool.name))?,
            Some(text) => serde_json::from_str(text).map_err(|error| GrammarError::NotJson {
                place: format!("the parameters of {}", tool.name),
                reason: error.to_string(),
            })?,
            None => Value::Null,
        };
        let arguments = self.arguments(index, tool, &root)?;
        let head = quoted(&format!("invoke name=\"{}\">\n", tool.name));
        self.rule(&format!("tool_{index}: {head} {arguments}"));
        Ok(())
    }

    /// The rules of a tool's arguments; returns what refers to them.
    fn arguments(
        &mut self,
        index: usize,
        tool: &ToolDefinition,
        root: &Value,
    ) -> Result<String, GrammarError> {
        let empty = Map::new();
        let properties = root.get("properties").and_then(Value::as_object);
        let properties = properties.unwrap_or(&empty);
        if properties.len() > MAX_PARAMETERS {
            return Err(GrammarError::TooLarge {
                what: "the number of parameters",
                place: tool.name.clone(),
                found: properties.len(),
                limit: MAX_PARAMETERS,
            });
        }
        if tool.strict {
            self.check_strict(tool, root)?;
        } else if is_open(root, properties) {
            return Ok(self.open_arguments(index));
        }
        let required: HashSet<&str> = match root.get("required").and_then(Value::as_array) {
            Some(names) if tool.strict => names.iter().filter_map(Value::as_str).collect(),
            _ => HashSet::new(),
        };
        if let Some(name) = required
            .iter()
            .find(|&&name| !properties.contains_key(name))
        {
            return Err(wrong(
                &tool.name,
                &format!("the parameter {name:?} is required, but not declared"),
            ));
        }
        // Required ones first, so that their bits are one range.
        let mut ordered: Vec<(&String, &Value)> = properties.iter().collect();
        if ordered.len() <= ANY_ORDER {
            ordered.sort_by_key(|(name, _)| !required.contains(name.as_str()));
        }
        for (at, (name, schema)) in ordered.iter().enumerate() {
            check_name(name, &tool.name, self.guard)?;
            let mut forms = if tool.strict {
                strict(schema, root)
            } else {
                lenient(schema, root)
            };
            if tool.strict {
                forms.json = forms
                    .json
                    .into_iter()
                    .map(|schema| with_definitions(schema, root))
                    .collect();
            }
            self.parameter(&format!("p_{index}_{at}"), name, forms, tool)?;
        }
        let count = ordered.len();
        if count == 0 {
            // The released encoder writes a blank line here.
            return Ok("\"\\n\"?".to_owned());
        }
        if count > ANY_ORDER {
            let sequence: Vec<String> = ordered
                .iter()
                .enumerate()
                .map(|(at, (name, _))| {
                    let optional = if required.contains(name.as_str()) {
                        ""
                    } else {
                        "?"
                    };
                    format!("p_{index}_{at}{optional}")
                })
                .collect();
            return Ok(sequence.join(" "));
        }
        let rule = format!("args_{index}");
        let end = match required.len() {
            0 => String::new(),
            needed => format!(" %if is_ones([0:{needed}])"),
        };
        self.rule(&format!("{rule}::_: \"\"{end}"));
        for at in 0..count {
            self.rule(&format!(
                "    | p_{index}_{at} {rule}::set_bit({at}) %if bit_clear({at})"
            ));
        }
        let blank = if required.is_empty() { "| \"\\n\"" } else { "" };
        Ok(format!("({rule}::0x0 {blank})"))
    }

    /// What the form of calls cannot express of an object schema.
    fn check_strict(&self, tool: &ToolDefinition, root: &Value) -> Result<(), GrammarError> {
        let Some(keywords) = root.as_object() else {
            return match root {
                Value::Null => Ok(()),
                _ => Err(wrong(&tool.name, "its parameters are not an object schema")),
            };
        };
        if keywords.get("type").is_some_and(|kind| kind != "object") {
            return Err(wrong(&tool.name, "its parameters are not of type object"));
        }
        let place = format!("{}#", tool.name);
        let refused = [
            "$ref",
            "allOf",
            "anyOf",
            "const",
            "enum",
            "maxProperties",
            "minProperties",
            "oneOf",
            "patternProperties",
        ];
        for keyword in refused {
            if keywords.contains_key(keyword) {
                return Err(GrammarError::Unsupported {
                    keyword: format!("{keyword} at the top of a strict tool's parameters"),
                    place,
                });
            }
        }
        Ok(())
    }

    /// Arguments of any name.
    fn open_arguments(&mut self, index: usize) -> String {
        let tag = self.tag.clone();
        let json = self.any_json();
        self.rule(&format!("open_{index}: \"<\" {tag} PARAMETER any_value"));
        if !self.lark.contains("\nPARAMETER:") {
            self.rule("PARAMETER: /parameter name=\"[^\"\\x00-\\x1f\\x7f<>|｜]{1,64}\" string=\"/");
            self.rule(&format!(
                "any_value: \"true\\\">\" ANY {tag} \"parameter>\\n\" | \"false\\\">\" {json} \"</\" {tag} \"parameter>\\n\""
            ));
            self.rule("ANY: /(?s:.+)/");
        }
        format!("(open_{index}* | \"\\n\")")
    }

    fn any_json(&mut self) -> String {
        if !self.has_any_json {
            self.has_any_json = true;
            let json = self.json(
                String::new(),
                json!({ "type": ["null", "boolean", "number", "array", "object"] }),
            );
            self.rule(&format!("any_json: {json}"));
        }
        "any_json".to_owned()
    }

    /// The rule of one parameter, its end tag and line end included.
    fn parameter(
        &mut self,
        rule: &str,
        name: &str,
        forms: Forms,
        tool: &ToolDefinition,
    ) -> Result<(), GrammarError> {
        let tag = self.tag.clone();
        let mut options = Vec::new();
        let literals: Vec<&str> = forms
            .raw
            .iter()
            .filter_map(|raw| match raw {
                RawText::Literal(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        for &text in &literals {
            if self.guard.contains(Spelling::ClosingTag, text) {
                let reason = format!("the value {text:?} cannot be written in a tag");
                return Err(wrong(&tool.name, &reason));
            }
        }
        let mut values = Vec::new();
        if !literals.is_empty() {
            let literals: Vec<String> = literals.iter().map(|text| quoted(text)).collect();
            values.push(format!("({}) \"</\"", literals.join(" | ")));
        }
        for raw in &forms.raw {
            match raw {
                RawText::Literal(_) => {}
                RawText::Any => values.push("/(?s:.+)/".to_owned()),
                RawText::Matching(all) => {
                    let all: Vec<String> = all
                        .iter()
                        .map(|regex| format!("/(?:{regex})<\\//"))
                        .collect();
                    values.push(all.join(" & "));
                }
            }
        }
        for value in values {
            let terminal = format!("VALUE_{}", self.values);
            self.values += 1;
            self.rule(&format!("{terminal}: {value}"));
            options.push(format!("\"true\\\">\" {terminal} {tag}"));
        }
        for schema in forms.json {
            let json = if tool.strict {
                self.json(format!("{}#/properties/{name}", tool.name), schema)
            } else {
                self.any_json()
            };
            options.push(format!("\"false\\\">\" {json} \"</\" {tag}"));
        }
        if options.is_empty() {
            return Err(wrong(
                &tool.name,
                &format!("no value of the parameter {name:?} is valid"),
            ));
        }
        let head = quoted(&format!("parameter name=\"{name}\" string=\""));
        self.rule(&format!(
            "{rule}: \"<\" {tag} {head} ({}) \"parameter>\\n\"",
            options.join(" | ")
        ));
        Ok(())
    }
}

/// Whether a schema says that other parameters are welcome.
fn is_open(root: &Value, properties: &Map<String, Value>) -> bool {
    let additional = root.get("additionalProperties");
    let allows = additional.is_some_and(|additional| *additional != false);
    let forbids = additional.is_some_and(|additional| *additional == false);
    allows || root.get("patternProperties").is_some() || (properties.is_empty() && !forbids)
}

/// A parameter's schema with the definitions that it may refer to.
fn with_definitions(mut schema: Value, root: &Value) -> Value {
    if let Value::Object(keywords) = &mut schema {
        for definitions in ["$defs", "definitions"] {
            if let Some(found) = root.get(definitions) {
                keywords.insert(definitions.to_owned(), found.clone());
            }
        }
    }
    schema
}

/// A Lark string: the escapes are JSON's.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
