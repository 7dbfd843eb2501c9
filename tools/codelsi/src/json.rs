//! Results as JSON: with `--json`, the last line of stdout.

use serde_json::Value;

/// Prints `value` as one line if `requested`.
pub fn print_json(requested: bool, value: &Value) {
    if requested {
        println!("{value}");
    }
}
