//! What an answer is to look like.

use crate::tools::ToolFormat;

/// What an answer is to look like, behind its reasoning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Any JSON object.
    JsonObject,
    /// JSON that matches this schema, given as its text. Properties come in the schema's order.
    ///
    /// Enforced are, of the drafts 4 to 2020-12: `type`, `enum`, `const`, `allOf`, `anyOf`, `oneOf` where
    /// its branches visibly exclude each other, `$ref` to places in the schema; `properties`,
    /// `required`, `additionalProperties`, `patternProperties` that do not overlap,
    /// `minProperties`/`maxProperties` where all declared properties are required; `items`,
    /// `prefixItems`, `additionalItems`, `minItems`, `maxItems`; `minLength`, `maxLength`, `pattern` without
    /// lookaround, `format` of [`FORMATS`](crate::FORMATS); `minimum`, `maximum`, their exclusive forms,
    /// `multipleOf`. Other asserting keywords are refused by name: `not`, `if`, `uniqueItems`,
    /// `contains`, `dependentRequired`, `propertyNames`, `unevaluatedProperties`, … Annotations and unknown
    /// words are ignored, as the standard says.
    JsonSchema(String),
    /// Text that matches this regular expression as a whole.
    Regex(String),
    /// Text by a grammar in llguidance's dialect of Lark. Control tokens cannot be part of it.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text and calls of tools.
    Tools(ToolFormat),
}
