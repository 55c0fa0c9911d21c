//! Settings in TOML, changed in place.

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value as Json};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

/// The text with the settings in `wanted`; comments, layout and other keys stay.
///
/// # Errors
/// A text that is no TOML, or has something else where a table must be.
pub(super) fn edited(text: &str, wanted: &Map<String, Json>) -> anyhow::Result<String> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| anyhow!("not TOML: {}", error.message()))?;
    merge(document.as_table_mut(), wanted, "")?;
    Ok(document.to_string())
}

fn merge(table: &mut dyn TableLike, wanted: &Map<String, Json>, path: &str) -> anyhow::Result<()> {
    for (key, value) in wanted {
        let path = format!("{path}{key}");
        if let Json::Object(inner) = value {
            let item = table.entry(key).or_insert_with(|| {
                let mut table = Table::new();
                // Its heading is written only if it holds values itself.
                table.set_implicit(true);
                Item::Table(table)
            });
            let child = item
                .as_table_like_mut()
                .with_context(|| format!("`{path}` is no table"))?;
            merge(child, inner, &format!("{path}."))?;
            continue;
        }
        let mut value = toml_value(value, &path)?;
        match table.get_mut(key) {
            Some(item) => {
                let old = item
                    .as_value()
                    .with_context(|| format!("`{path}` is a table"))?;
                // What stands around the old value, such as a comment, stays.
                *value.decor_mut() = old.decor().clone();
                *item = Item::Value(value);
            }
            None => {
                table.insert(key, Item::Value(value));
            }
        }
    }
    Ok(())
}

fn toml_value(value: &Json, path: &str) -> anyhow::Result<Value> {
    Ok(match value {
        Json::String(text) => Value::from(text.as_str()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => Value::from(
            number
                .as_i64()
                .with_context(|| format!("`{path}` is no whole number"))?,
        ),
        Json::Null | Json::Array(_) | Json::Object(_) => bail!("`{path}` cannot be written"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edit(text: &str, wanted: Json) -> anyhow::Result<String> {
        edited(text, wanted.as_object().unwrap())
    }

    #[test]
    fn comments_layout_and_other_keys_stay() {
        let text = "# mine\nmodel = \"gpt\" # the usual\napproval_policy = 'never'\n\n[model_providers.other]\nname = \"Other\"\n\n[projects.\"/x\"]\ntrust_level = \"trusted\"\n";
        let wanted = json!({
            "model": "m", "model_provider": "ds4", "window": 9,
            "model_providers": {"ds4": {"name": "D"}},
        });
        let edited = edit(text, wanted).unwrap();
        for kept in [
            "# mine\nmodel = \"m\" # the usual\n",
            "approval_policy = 'never'\nmodel_provider = \"ds4\"\nwindow = 9\n",
            "[model_providers.other]\nname = \"Other\"\n",
            "[model_providers.ds4]\nname = \"D\"\n",
            "[projects.\"/x\"]\ntrust_level = \"trusted\"\n",
        ] {
            assert!(edited.contains(kept), "{edited}");
        }
        assert!(!edited.contains("[model_providers]\n"), "{edited}");
    }

    #[test]
    fn inline_and_dotted_tables_are_tables() {
        let wanted = json!({"model_providers": {"ds4": {"name": "D"}}});
        for text in [
            "model_providers = { ds4 = { name = \"x\", url = \"y\" } }\n",
            "model_providers.ds4.name = \"x\"\nmodel_providers.ds4.url = \"y\"\n",
        ] {
            let edited = edit(text, wanted.clone()).unwrap();
            let read: DocumentMut = edited.parse().unwrap();
            assert_eq!(read["model_providers"]["ds4"]["name"].as_str(), Some("D"));
            assert_eq!(read["model_providers"]["ds4"]["url"].as_str(), Some("y"));
        }
    }

    #[test]
    fn what_is_no_settings_file_is_refused() {
        for text in [
            "model = ",
            "model_providers = 3\n",
            "[model]\nx = 1\n",
            "a = 1\na = 2\n",
        ] {
            let wanted = json!({"model": "m", "model_providers": {"ds4": {"name": "D"}}});
            assert!(edit(text, wanted).is_err(), "{text}");
        }
        let deep = format!("a = {}", "[".repeat(100_000));
        assert!(edit(&deep, json!({"model": "m"})).is_err());
    }
}
