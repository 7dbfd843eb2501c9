//! The tokens that end a text: the same where a model is trained, and wherever it generates.

use crate::config::ModelConfig;
use crate::tokenizer::Tokenizer;
use std::fmt::Write;

/// Returns the tokens at which generation ends: the union of what `config.json`, `generation_config.json` and the
/// tokenizer name. Training appends the tokenizer's, which is one of them.
pub fn end_tokens(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
    let mut ids = config.eos.clone();
    ids.extend(tokenizer.and_then(Tokenizer::eos).filter(|id| !config.eos.contains(id)));
    ids
}

/// Describes the end tokens in one line, e.g. `text ends at </s> (2), <|im_end|> (441)`.
pub fn describe_end_tokens(config: &ModelConfig, tokenizer: &Tokenizer) -> String {
    let ids = end_tokens(config, Some(tokenizer));
    if ids.is_empty() {
        return "text ends at no token: neither the model nor its tokenizer names one".into();
    }
    let mut line = String::from("text ends at ");
    for (i, id) in ids.into_iter().enumerate() {
        let (comma, piece) = (if i > 0 { ", " } else { "" }, tokenizer.piece(id).unwrap_or_default());
        write!(line, "{comma}{} ({id})", piece.escape_debug()).expect("a string takes any text");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokenizer(settings: &str) -> Tokenizer {
        let control = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
        };
        let json = json!({
            "version": "1.0", "added_tokens": [control(1, "</s>"), control(2, "<|im_end|>"), control(3, "<|eot|>")],
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
        });
        Tokenizer::parse(&json.to_string(), settings).unwrap()
    }

    fn config(eos: &[u32]) -> ModelConfig {
        ModelConfig { eos: eos.to_vec(), ..crate::synthetic::config("tiny").unwrap() }
    }

    #[test]
    fn text_ends_at_the_union_of_three_files() {
        let mut config = config(&[1]);
        config.add_generation_config(r#"{"eos_token_id": [1, 3]}"#).unwrap();
        let object = r#"{"eos_token": {"content": "<|im_end|>"}}"#;
        for settings in [r#"{"eos_token": "<|im_end|>"}"#, object] {
            let tokenizer = tokenizer(settings);
            assert_eq!((end_tokens(&config, Some(&tokenizer)), tokenizer.eos()), (vec![1, 3, 2], Some(2)));
            let line = describe_end_tokens(&config, &tokenizer);
            assert_eq!(line, "text ends at </s> (1), <|eot|> (3), <|im_end|> (2)");
        }
    }

    #[test]
    fn what_training_appends_is_an_end_token() {
        for (settings, eos) in [("", &[3][..]), (r#"{"eos_token": "<|im_end|>"}"#, &[]), ("{}", &[0, 1])] {
            let tokenizer = tokenizer(settings);
            let appended = tokenizer.eos().expect("an end token");
            assert!(end_tokens(&config(eos), Some(&tokenizer)).contains(&appended), "{settings}");
        }
        assert!(end_tokens(&config(&[]), None).is_empty());
    }

    #[test]
    fn a_generation_config_that_names_no_token_of_the_model_is_refused() {
        for (text, part) in [
            ("[]", "JSON object"),
            (r#"{"eos_token_id": "x"}"#, "token id"),
            (r#"{"eos_token_id": 512}"#, "512"),
        ] {
            let message = config(&[1]).add_generation_config(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
