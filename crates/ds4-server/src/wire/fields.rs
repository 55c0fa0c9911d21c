//! Reads JSON request bodies field by field: unknown fields are ignored, a field of the wrong type is
//! refused by its name.

use serde_json::{Map, Value};

use super::RequestError;

/// The longest array that a request may hold anywhere that we read one.
const MAX_ITEMS: usize = 65_536;

/// A JSON object and where it stands in the request.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The body of a request.
    pub(crate) fn body(value: &'a Value) -> Result<Self, RequestError> {
        match value {
            Value::Object(map) => Ok(Self {
                map,
                path: String::new(),
            }),
            _ => Err(RequestError::new("the request body must be a JSON object")),
        }
    }

    /// An object at `path`.
    pub(crate) fn at(value: &'a Value, path: impl Into<String>) -> Result<Self, RequestError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(RequestError::field(
                &path,
                format!("Invalid '{path}': expected an object"),
            )),
        }
    }

    /// All fields.
    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Name of a field in messages: `messages[3].content`.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn wrong(&self, name: &str, expected: &str) -> RequestError {
        let path = self.path_of(name);
        RequestError::field(&path, format!("Invalid '{path}': expected {expected}"))
    }

    /// A field that is not `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&'a Value, RequestError> {
        self.get(name).ok_or_else(|| {
            let path = self.path_of(name);
            RequestError::field(&path, format!("Missing required parameter: '{path}'"))
        })
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub(crate) fn required_string(&self, name: &str) -> Result<&'a str, RequestError> {
        self.required(name)?
            .as_str()
            .ok_or_else(|| self.wrong(name, "a string"))
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// A finite number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite())
                .map(Some)
                .ok_or_else(|| self.wrong(name, "a number")),
        }
    }

    /// A whole number; `1.0` counts as one, as some clients write it.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, RequestError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if let Some(number) = value.as_i64() {
            return Ok(Some(number));
        }
        match value.as_f64() {
            Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(Some(number as i64)),
            _ => Err(self.wrong(name, "a whole number")),
        }
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self {
                map,
                path: self.path_of(name),
            })),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a [Value]>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= MAX_ITEMS => Ok(Some(items)),
            Some(Value::Array(_)) => Err(self.wrong(name, &format!("at most {MAX_ITEMS} items"))),
            Some(_) => Err(self.wrong(name, "an array")),
        }
    }

    /// The elements of an array of objects.
    pub(crate) fn objects(&self, name: &str) -> Result<Vec<Self>, RequestError> {
        let path = self.path_of(name);
        let items = self.array(name)?.unwrap_or_default();
        items
            .iter()
            .enumerate()
            .map(|(index, item)| Self::at(item, format!("{path}[{index}]")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_type_is_refused_by_its_path() {
        let body = json!({"messages": [{"content": 3}], "n": 1.0, "seed": null});
        let fields = Fields::body(&body).unwrap();
        assert_eq!(fields.integer("n").unwrap(), Some(1));
        assert_eq!(fields.integer("seed").unwrap(), None);
        let message = &fields.objects("messages").unwrap()[0];
        let error = message.string("content").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[0].content"));
        assert!(error.message.contains("a string"), "{}", error.message);
        assert!(fields.required("input").is_err());
    }
}
