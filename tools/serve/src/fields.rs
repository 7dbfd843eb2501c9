//! Fields of a JSON body, read by name and type. A null is an absent field; what nobody has read is ignored, and named in
//! the debug log.

use crate::error::ApiError;
use serde_json::{Map, Value};

/// Most stop strings of a request, and most bytes in one of them: each token is compared with all.
const MAX_STOPS: usize = 256;
const MAX_STOP_BYTES: usize = 1024;

/// The fields of an object that are not read yet.
pub struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| ApiError::invalid(format!("the body is no JSON: {e}")))?;
        match value {
            Value::Object(map) => Ok(Fields { map }),
            other => Err(ApiError::invalid(format!("the body is {}, not an object", kind(&other)))),
        }
    }

    /// Takes a field with any value but null.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Sets a field that another name stands for.
    pub fn set(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Takes an object; absent, it has no fields.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&mut self, name: &str) -> Result<Fields, ApiError> {
        match self.value(name) {
            None => Ok(Fields { map: Map::new() }),
            Some(Value::Object(map)) => Ok(Fields { map }),
            Some(other) => Err(mistyped(name, "an object", &other)),
        }
    }

    /// Takes a list.
    ///
    /// # Errors
    /// When it is something else.
    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(mistyped(name, "a list", &other)),
        }
    }

    /// Takes a text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(mistyped(name, "a text", &other)),
        }
    }

    /// Takes a boolean.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(mistyped(name, "true or false", &other)),
        }
    }

    /// Takes a number of a range.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| mistyped(name, "a number", &value))?;
        match (least..=most).contains(&number) {
            true => Ok(Some(number)),
            false => Err(ApiError::field(name, format!("is {number}, not from {least} to {most}"))),
        }
    }

    /// Takes a whole number of a range, which may be written with a fraction of zero.
    ///
    /// # Errors
    /// When it is something else.
    pub fn integer(&mut self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = integer(&value).ok_or_else(|| mistyped(name, "a whole number", &value))?;
        match (i128::from(least)..=i128::from(most)).contains(&number) {
            true => Ok(Some(number as i64)),
            false => Err(ApiError::field(name, format!("is {number}, not from {least} to {most}"))),
        }
    }

    /// Takes a seed: any whole number of 64 bits, signed or not.
    ///
    /// # Errors
    /// When it is something else.
    pub fn seed(&mut self) -> Result<Option<i128>, ApiError> {
        let Some(value) = self.value("seed") else { return Ok(None) };
        let number = integer(&value).ok_or_else(|| mistyped("seed", "a whole number", &value))?;
        match (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number) {
            true => Ok(Some(number)),
            false => Err(ApiError::field("seed", "does not fit 64 bits")),
        }
    }

    /// Takes stop strings: one, or a list. Empty ones stop nothing.
    ///
    /// # Errors
    /// When it is something else, or there are too many or too long ones.
    pub fn stops(&mut self) -> Result<Vec<String>, ApiError> {
        let stops = match self.value("stop") {
            None => Vec::new(),
            Some(Value::String(stop)) => vec![stop],
            Some(Value::Array(list)) => list.into_iter().map(stop_string).collect::<Result<_, _>>()?,
            Some(other) => return Err(mistyped("stop", "a text or a list of texts", &other)),
        };
        if stops.len() > MAX_STOPS {
            let message = format!("holds {} strings; {MAX_STOPS} are allowed", stops.len());
            return Err(ApiError::field("stop", message));
        }
        match stops.iter().find(|stop| stop.len() > MAX_STOP_BYTES) {
            Some(stop) => {
                let message = format!("holds a string of {} bytes; {MAX_STOP_BYTES} are allowed", stop.len());
                Err(ApiError::field("stop", message))
            }
            None => Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect()),
        }
    }

    /// Refuses fields that would change the answer and cannot be honoured; such a field may be null, false, empty, or
    /// what its `neutral` names.
    ///
    /// # Errors
    /// When one is set.
    pub fn refuse(&mut self, fields: &[(&str, Neutral)]) -> Result<(), ApiError> {
        for (name, neutral) in fields {
            if let Some(value) = self.value(name).filter(|value| !neutral.includes(value)) {
                let message = format!("({}) is not supported; leave it out", kind(&value));
                return Err(ApiError::field(name, message));
            }
        }
        Ok(())
    }

    /// Ends the reading: names the fields that were ignored in the debug log.
    pub fn ignore_rest(self) {
        if !self.map.is_empty() {
            let names: Vec<String> =
                self.map.keys().take(20).map(|name| name.chars().take(40).collect()).collect();
            tracing::debug!(fields = ?names, "ignored fields");
        }
    }
}

/// A value of an unsupported field that changes nothing, beside null, false and what is empty.
#[derive(Clone, Copy)]
pub enum Neutral {
    /// None.
    Empty,
    /// A number.
    Number(f64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// An object whose `type` is this.
    Type(&'static str),
}

impl Neutral {
    fn includes(self, value: &Value) -> bool {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        empty
            || match self {
                Neutral::Empty => false,
                Neutral::Number(number) => value.as_f64() == Some(number),
                Neutral::OneOf(texts) => texts.iter().any(|text| value == text),
                Neutral::Type(name) => value["type"] == name,
            }
    }
}

/// Returns a value as a whole number.
fn integer(value: &Value) -> Option<i128> {
    let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    // 2^53: beyond it a floating-point number stands for several whole ones.
    let float = || value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= 9007199254740992.0);
    whole.or_else(|| float().map(|x| x as i128))
}

fn stop_string(value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(stop) => Ok(stop),
        other => Err(mistyped("stop", "a text or a list of texts", &other)),
    }
}

/// The error of a field that has another type.
pub fn mistyped(name: &str, wanted: &str, value: &Value) -> ApiError {
    ApiError::field(name, format!("is {}, not {wanted}", kind(value)))
}

/// Describes a value's type.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: &Value) -> Fields {
        Fields::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn nulls_are_absent_and_types_are_checked() {
        let mut body = fields(&json!({"a": null, "b": "x", "c": 1.5, "d": 64.0, "e": -1, "f": [1]}));
        assert_eq!(body.text("a").unwrap(), None);
        assert!(body.flag("b").unwrap_err().message.contains("`b` is a text, not true or false"));
        assert!(body.integer("c", 0, 9).is_err());
        assert_eq!(body.integer("d", 0, 99).unwrap(), Some(64));
        assert!(body.integer("e", 0, 99).unwrap_err().message.contains("-1, not from 0 to 99"));
        assert!(body.text("f").is_err());
        assert_eq!(body.integer("absent", 0, 1).unwrap(), None);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for body in
            [&b""[..], b"{", b"[]", b"\"x\"", b"{\"a\": NaN}", b"{\"a\": \"\\ud800\"}", b"{\"a\": \"\xff\"}"]
        {
            assert_eq!(Fields::parse(body).err().map(|e| e.status.as_u16()), Some(400), "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Fields::parse(format!("{{\"a\": {deep}").as_bytes()).is_err());
    }

    #[test]
    fn stop_strings_are_limited() {
        assert_eq!(fields(&json!({"stop": ["a", ""]})).stops().unwrap(), ["a"]);
        assert_eq!(fields(&json!({"stop": vec!["x"; 64]})).stops().unwrap().len(), 64);
        assert!(fields(&json!({"stop": vec!["x"; 5000]})).stops().is_err());
        assert!(fields(&json!({"stop": "x".repeat(5000)})).stops().is_err());
        assert!(fields(&json!({"stop": ["a", 1]})).stops().is_err());
    }

    #[test]
    fn a_field_that_would_change_the_answer_is_refused() {
        let rules =
            [("tools", Neutral::Empty), ("best_of", Neutral::Number(1.0)), ("f", Neutral::Type("text"))];
        assert!(fields(&json!({"tools": [], "best_of": 1, "f": {"type": "text"}})).refuse(&rules).is_ok());
        for bad in [json!({"tools": [1]}), json!({"best_of": 2}), json!({"f": {"type": "json_object"}})] {
            assert!(fields(&bad).refuse(&rules).is_err(), "{bad}");
        }
    }

    #[test]
    fn seeds_of_both_signs_fit() {
        for (seed, expected) in [(json!(-1), -1), (json!(u64::MAX), i128::from(u64::MAX)), (json!(3.0), 3)] {
            assert_eq!(fields(&json!({ "seed": seed })).seed().unwrap(), Some(expected));
        }
        assert!(fields(&json!({"seed": 1e300})).seed().is_err());
    }
}
