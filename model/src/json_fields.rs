//! Typed access to the fields of a JSON object. Files are downloaded: whatever a field holds is checked before it is used.

use codelsi_engine::{Error, Result};
use serde_json::{Map, Value};

/// Upper limit of a size: larger ones mean a broken file, and up to it no count of weights overflows.
pub(crate) const MAX_SIZE: u64 = 1 << 24;

/// Parses a text that is a JSON object.
///
/// # Errors
/// When it is not.
pub(crate) fn parse_object(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|e| Error::new(format!("not a JSON object: {e}")))
}

/// Fields of a JSON object; null counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Returns a field, or that it is missing.
    fn required(self, key: &str) -> Result<&'a Value> {
        self.get(key).ok_or_else(|| Error::new(format!("`{key}` is missing")))
    }

    /// Reads a whole number from 1 to [`MAX_SIZE`].
    pub fn size(self, key: &str) -> Result<usize> {
        self.size_up_to(key, MAX_SIZE)
    }

    /// Reads a whole number from 1 to `max`.
    pub fn size_up_to(self, key: &str, max: u64) -> Result<usize> {
        let value = self.required(key)?;
        match value.as_u64() {
            Some(n) if (1..=max).contains(&n) => Ok(n as usize),
            _ => Err(Error::new(format!("`{key}` is {}, not a whole number from 1 to {max}", shown(value)))),
        }
    }

    pub fn size_or(self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    pub fn number_or(self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(x) if x.is_finite() => Ok(x),
            _ => Err(Error::new(format!("`{key}` is {}, not a number", shown(value)))),
        }
    }

    pub fn f32_or(self, key: &str, default: f32) -> Result<f32> {
        let x = self.number_or(key, default.into())?;
        let rounded = x as f32;
        if rounded.is_finite() { Ok(rounded) } else { Err(Error::new(format!("`{key}` is {x}, not an f32"))) }
    }

    pub fn positive_or(self, key: &str, default: f64) -> Result<f64> {
        let x = self.number_or(key, default)?;
        if x > 0.0 { Ok(x) } else { Err(Error::new(format!("`{key}` is {x}, not above 0"))) }
    }

    pub fn positive(self, key: &str) -> Result<f64> {
        self.required(key)?;
        self.positive_or(key, 1.0)
    }

    pub fn bool_or(self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| Error::new(format!("`{key}` is {}, not true or false", shown(value))))
    }

    /// Reads one token id, a list of them, or none.
    pub fn token_ids(self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let ids: Option<Vec<u32>> =
            list.iter().map(|id| id.as_u64().and_then(|id| id.try_into().ok())).collect();
        ids.ok_or_else(|| {
            Error::new(format!("`{key}` is {}, not a token id or a list of them", shown(value)))
        })
    }
}

/// Returns the beginning of a value, for a message of one line.
pub(crate) fn shown(value: &Value) -> String {
    shown_up_to(value, 60)
}

/// Returns the first `most` characters of a value, for a message of one line.
pub(crate) fn shown_up_to(value: &Value, most: usize) -> String {
    let text = value.to_string();
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
