//! Formats of time, written out: the grammar library takes 29 February in any year and second 60 at any
//! time.

use serde_json::{Map, Value, json};

/// `full-date` of RFC 3339.
const DATE: &str = "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";

/// `full-time` of RFC 3339 without leap seconds.
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+\\-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

/// Replaces `format` by a regular expression where that is more exact.
pub(crate) fn write_out(keywords: &mut Map<String, Value>) {
    let regex = match keywords.get("format").and_then(Value::as_str) {
        Some("date") => format!("^{DATE}$"),
        Some("time") => format!("^{TIME}$"),
        Some("date-time") => format!("^{DATE}T{TIME}$"),
        _ => return,
    };
    keywords.shift_remove("format");
    if !keywords.contains_key("pattern") {
        keywords.insert("pattern".to_owned(), json!(regex));
    } else {
        let both = keywords.entry("allOf").or_insert_with(|| json!([]));
        if let Value::Array(schemas) = both {
            schemas.push(json!({ "pattern": regex }));
        }
    }
}
