//! The key-value pairs of a file, in order, with getters that name what they missed.

use std::collections::HashMap;

use crate::error::MetadataError;
use crate::value::{Array, Value};

/// Ordered metadata.
///
/// Writers differ in the widths of their numbers, so the getters take any width that holds the value.
/// Each getter has an `optional_` form that gives none for a missing key and still refuses a wrong type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key at the end.
    ///
    /// # Errors
    /// [`MetadataError::Duplicate`].
    pub fn insert(
        &mut self,
        key: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<(), MetadataError> {
        let key = key.into();
        if self.index.contains_key(&key) {
            return Err(MetadataError::Duplicate { key });
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value.into()));
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    /// All keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn array(&self, key: &str, expected: &'static str) -> Result<Option<&Array>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(value) => Err(wrong_type(key, value, expected)),
        }
    }

    /// An integer of any width that fits.
    pub fn optional_u64(&self, key: &str) -> Result<Option<u64>, MetadataError> {
        self.integer(key, "u64")
    }

    /// An integer of any width that fits.
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, MetadataError> {
        self.integer(key, "u32")
    }

    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value
            .as_integer()
            .ok_or_else(|| wrong_type(key, value, expected))?;
        T::try_from(number)
            .map(Some)
            .map_err(|_| range(key, value, expected))
    }

    /// A float or an integer of any width, rounded to a single.
    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>, MetadataError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value
            .as_float()
            .ok_or_else(|| wrong_type(key, value, "f32"))?;
        let single = number as f32;
        if number.is_finite() && !single.is_finite() {
            return Err(range(key, value, "f32"));
        }
        Ok(Some(single))
    }

    /// A bool.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(x)) => Ok(Some(*x)),
            Some(value) => Err(wrong_type(key, value, "bool")),
        }
    }

    /// A string as it is in the file, UTF-8 or not.
    pub fn optional_bytes(&self, key: &str) -> Result<Option<&[u8]>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(bytes)) => Ok(Some(bytes)),
            Some(value) => Err(wrong_type(key, value, "string")),
        }
    }

    /// A string that must be UTF-8.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, MetadataError> {
        let Some(bytes) = self.optional_bytes(key)? else {
            return Ok(None);
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(MetadataError::NotText {
                key: key.to_owned(),
                index: None,
            }),
        }
    }

    /// An array of integers of any width.
    pub fn optional_integers(&self, key: &str) -> Result<Option<Vec<i64>>, MetadataError> {
        const EXPECTED: &str = "array of integers";
        let Some(array) = self.array(key, EXPECTED)? else {
            return Ok(None);
        };
        array
            .iter()
            .map(|value| {
                let number = value
                    .as_integer()
                    .ok_or_else(|| wrong_elements(key, array, EXPECTED))?;
                i64::try_from(number).map_err(|_| range(key, &value, "i64"))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of floats or integers of any width.
    pub fn optional_floats(&self, key: &str) -> Result<Option<Vec<f64>>, MetadataError> {
        const EXPECTED: &str = "array of floats";
        let Some(array) = self.array(key, EXPECTED)? else {
            return Ok(None);
        };
        array
            .iter()
            .map(|value| {
                value
                    .as_float()
                    .ok_or_else(|| wrong_elements(key, array, EXPECTED))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of strings as they are in the file, UTF-8 or not; nothing is copied.
    pub fn optional_byte_strings(
        &self,
        key: &str,
    ) -> Result<Option<impl Iterator<Item = &[u8]>>, MetadataError> {
        const EXPECTED: &str = "array of strings";
        let Some(array) = self.array(key, EXPECTED)? else {
            return Ok(None);
        };
        if array.element_type() != crate::ValueType::Str && !array.is_empty() {
            return Err(wrong_elements(key, array, EXPECTED));
        }
        Ok(Some(array.byte_strings()))
    }

    /// An array of strings that must be UTF-8.
    pub fn optional_strings(&self, key: &str) -> Result<Option<Vec<&str>>, MetadataError> {
        let Some(strings) = self.optional_byte_strings(key)? else {
            return Ok(None);
        };
        strings
            .enumerate()
            .map(|(i, bytes)| {
                std::str::from_utf8(bytes).map_err(|_| MetadataError::NotText {
                    key: key.to_owned(),
                    index: Some(i),
                })
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// The getters that refuse a missing key.
macro_rules! required {
    ($($(#[$doc:meta])* $name:ident, $optional:ident, $result:ty, $expected:literal;)*) => {
        impl Metadata {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// A missing key, a wrong type, or a value that does not fit.
            pub fn $name(&self, key: &str) -> Result<$result, MetadataError> {
                self.$optional(key)?.ok_or_else(|| MetadataError::Missing {
                    key: key.to_owned(),
                    expected: $expected,
                })
            }
        )*}
    };
}

required! {
    /// An integer of any width that fits.
    u64, optional_u64, u64, "u64";
    /// An integer of any width that fits.
    u32, optional_u32, u32, "u32";
    /// A float or an integer of any width, rounded to a single.
    f32, optional_f32, f32, "f32";
    /// A bool.
    bool, optional_bool, bool, "bool";
    /// A string as it is in the file, UTF-8 or not.
    bytes, optional_bytes, &[u8], "string";
    /// A string that must be UTF-8.
    str, optional_str, &str, "string";
    /// An array of integers of any width.
    integers, optional_integers, Vec<i64>, "array of integers";
    /// An array of floats or integers of any width.
    floats, optional_floats, Vec<f64>, "array of floats";
    /// An array of strings as they are in the file, UTF-8 or not; nothing is copied.
    byte_strings, optional_byte_strings, impl Iterator<Item = &[u8]>, "array of strings";
    /// An array of strings that must be UTF-8.
    strings, optional_strings, Vec<&str>, "array of strings";
}

fn wrong_type(key: &str, value: &Value, expected: &'static str) -> MetadataError {
    let found = match value {
        Value::Array(array) => format!("an array of {}", array.element_type()),
        value => format!("a value of type {}", value.value_type()),
    };
    MetadataError::WrongType {
        key: key.to_owned(),
        found,
        expected,
    }
}

fn wrong_elements(key: &str, array: &Array, expected: &'static str) -> MetadataError {
    let found = format!("an array of {}", array.element_type());
    MetadataError::WrongType {
        key: key.to_owned(),
        found,
        expected,
    }
}

fn range(key: &str, value: &Value, expected: &'static str) -> MetadataError {
    MetadataError::Range {
        key: key.to_owned(),
        found: value.to_string(),
        expected,
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Self::Array(array)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into_bytes().into())
    }
}
