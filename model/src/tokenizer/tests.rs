use super::*;
use codelsi_testing::shared;
use serde_json::json;

pub(super) fn load(path: &str) -> Option<Tokenizer> {
    shared(path).map(|path| Tokenizer::load(path).unwrap())
}

#[test]
fn gives_the_golden_encodings() {
    for file in ["llama2-tokenizer.json", "codellama-tokenizer-reconstructed.json"] {
        let Some(tokenizer) = load(&format!("data/codellama-tokenizer/{file}")) else { return };
        let golden = shared("data/codellama-tokenizer/golden-llama2.jsonl").unwrap();
        for line in fs::read_to_string(golden).unwrap().lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{file}: {text:?}");
            assert_eq!(tokenizer.decode(&ids), case["decoded"].as_str().unwrap(), "{file}: {text:?}");
        }
    }
}

#[test]
fn text_after_text_gets_no_space_and_joins_to_the_complete_text() {
    let Some(tokenizer) = load("data/codellama-tokenizer/llama2-tokenizer.json") else { return };
    assert_eq!(tokenizer.encode("world", true).unwrap(), [1, 3186]);
    let rest = tokenizer.encode_continuation("world").unwrap();
    assert_eq!(tokenizer.decode_continuation(&rest), "world");
    let both = [tokenizer.encode("f(x) {", true).unwrap(), tokenizer.encode_continuation("\n  é").unwrap()];
    assert_eq!(tokenizer.decode(&both.concat()), "f(x) {\n  é");
}

#[test]
fn control_tokens_cannot_be_written_as_text() {
    let Some(tokenizer) = load("data/codellama-tokenizer/llama2-tokenizer.json") else { return };
    let ids = tokenizer.encode("a <s>b</s> <unk>", false).unwrap();
    assert!(ids.iter().all(|&id| id > 2), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids), "a <s>b</s> <unk>");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.infill_tokens()), (Some(1), Some(2), None));
    assert!(tokenizer.infill("a", "b").unwrap_err().to_string().contains("infill"));
}

#[test]
fn a_stream_never_returns_half_a_character() {
    let Some(tokenizer) = load("data/stories260k/tokenizer.json") else { return };
    let text = "Tim 🙃 said “é” \u{fffd}.";
    let mut ids = tokenizer.encode(text, true).unwrap();
    // A broken character in the middle and an unfinished one at the end.
    ids.splice(3..3, tokenizer.encode_continuation("🙃").unwrap().into_iter().take(2));
    ids.extend(tokenizer.encode_continuation("🙃").unwrap().into_iter().take(3));
    let mut stream = DecodeStream::default();
    let mut streamed: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
    assert!(streamed.contains("🙃 said “é”"), "{streamed}");
    streamed += &stream.finish();
    assert_eq!(streamed, tokenizer.decode_continuation(&ids));
    assert!(streamed.ends_with(".\u{fffd}"));
}

#[test]
fn a_model_too_small_for_the_vocabulary_is_refused() {
    let Some(tokenizer) = load("data/stories260k/tokenizer.json") else { return };
    assert_eq!((tokenizer.vocab_size(), tokenizer.check_fits(512)), (512, Ok(())));
    let message = tokenizer.check_fits(511).unwrap_err().to_string();
    assert!(message.contains("511") && message.contains("another model"), "{message}");
}

#[test]
fn byte_level_vocabularies_decode_too() {
    let json = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ċ": 2, "Ã": 3, "©": 4}, "merges": []}}"#;
    let tokenizer = Tokenizer::parse(json, "").unwrap();
    let ids = tokenizer.encode("a \né", false).unwrap();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    assert_eq!(tokenizer.decode(&ids), "a \né");
}

/// The form of Qwen2's files: composed characters, a regular expression that splits digits and contractions, bytes, and
/// nothing around a text.
#[test]
fn qwens_tokenizers_encode_as_they_should() {
    let regex = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let pieces =
        ["a", "b", "s", "1", "2", "'", "Ġ", "Ċ", "Ã", "©", "ab", "Ġab", "'s", "12", "Ã©", "<", "|", "m", ">"];
    let vocab: serde_json::Map<String, Value> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.to_string(), id.into())).collect();
    let specials = [(19, "<|endoftext|>"), (20, "<|m|>")].map(|(id, content)| added(id, content, true));
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": specials,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
            "merges": ["a b", "Ġ ab", "' s", "1 2", "Ã ©"]},
    });
    let settings = r#"{"add_prefix_space": false, "bos_token": null, "eos_token": "<|m|>", "tokenizer_class": "Qwen2Tokenizer"}"#;
    let tokenizer = Tokenizer::parse(&json.to_string(), settings).unwrap();
    let encode = |text: &str| tokenizer.encode(text, true).unwrap();
    let spelled = |text: &str| {
        encode(text).iter().map(|&id| tokenizer.piece(id).unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(spelled("ab ab's"), "ab Ġab 's");
    assert_eq!(spelled("12"), "1 2", "digits stand alone");
    assert_eq!(spelled("ab  ab\n\n ab"), "ab Ġ Ġab Ċ Ċ Ġab");
    assert_eq!(spelled("e\u{301}"), "Ã©", "composed");
    assert_eq!(tokenizer.encode_complete("ab").unwrap(), [10]);
    assert_eq!(spelled("<|m|>"), "< | m | >", "a control token's text stays text");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(20)));
    assert_eq!(tokenizer.decode(&[10, 14, 11, 20, 12]), "abé ab's");
    let rest = tokenizer.encode_continuation(" ab").unwrap();
    assert_eq!((&rest[..], tokenizer.decode_continuation(&rest)), (&[11][..], " ab".to_string()));
}

/// A tokenizer of letters, `▁`, `<`, `>` and the control tokens `<s>` (1) and `</s>` (2), changed by `change`.
pub(super) fn letters(change: impl FnOnce(&mut Value)) -> Value {
    let pieces = ["<unk>", "<s>", "</s>", "▁", "<", ">"].into_iter().map(String::from);
    let vocab: serde_json::Map<String, Value> = pieces
        .chain(('a'..='z').map(String::from))
        .enumerate()
        .map(|(id, piece)| (piece, id.into()))
        .collect();
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab, "merges": []},
    });
    change(&mut json);
    json
}

pub(super) fn added(id: u32, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "special": special, "normalized": false, "single_word": false,
        "lstrip": false, "rstrip": false})
}

pub(super) fn parse(json: &Value) -> Tokenizer {
    Tokenizer::parse(&json.to_string(), "").unwrap()
}

/// Writes ids as pieces, `_` for `▁`.
pub(super) fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let piece = |&id: &u32| tokenizer.piece(id).unwrap().replace('▁', "_");
    ids.iter().map(piece).collect::<Vec<_>>().join(" ")
}

pub(super) fn prepend_and_replace() -> Value {
    json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})
}

#[test]
fn truncation_padding_and_dropout_are_not_obeyed() {
    let text = "a long text for one and for all";
    let plain = parse(&letters(|json| json["normalizer"] = prepend_and_replace()));
    let saved = parse(&letters(|json| {
        json["normalizer"] = prepend_and_replace();
        json["truncation"] =
            json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Left", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
        json["model"]["dropout"] = json!(0.9);
    }));
    assert_eq!(saved.encode(text, true), plain.encode(text, true));
    assert_eq!(saved.encode_continuation(text), plain.encode_continuation(text));
    assert_eq!(saved.encode(text, false).unwrap().len(), text.len() + 1);
}

#[test]
fn a_dummy_space_is_put_before_a_text_and_not_after_text_however_it_is_written() {
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    let legacy =
        |prepends: bool| json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": prepends});
    let sequence = |step: Value| json!({"type": "Sequence", "pretokenizers": [step]});
    let digits = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true}, metaspace("first")]});
    let normalizers =
        [prepend_and_replace(), json!({"type": "Sequence", "normalizers": [prepend_and_replace()]})];
    let with_space = [
        metaspace("first"),
        metaspace("always"),
        legacy(true),
        sequence(metaspace("first")),
        sequence(legacy(true)),
        sequence(sequence(metaspace("always"))),
        digits,
    ];
    let without = [metaspace("never"), legacy(false), sequence(legacy(false)), sequence(metaspace("never"))];
    let normalizers = normalizers.into_iter().map(|n| (letters(|json| json["normalizer"] = n), "_ a b _ c"));
    let with_space = with_space.into_iter().map(|p| (letters(|json| json["pre_tokenizer"] = p), "_ a b _ c"));
    let without = without.into_iter().map(|p| (letters(|json| json["pre_tokenizer"] = p), "a b _ c"));
    for (json, expected) in normalizers.chain(with_space).chain(without) {
        let (tokenizer, name) = (parse(&json), format!("{} {}", json["normalizer"], json["pre_tokenizer"]));
        let ids = tokenizer.encode("ab c", true).unwrap();
        assert_eq!(pieces(&tokenizer, &ids), expected, "{name}");
        assert_eq!(tokenizer.decode(&ids), "ab c", "{name}");
        let rest = tokenizer.encode_continuation("ab c").unwrap();
        assert_eq!(pieces(&tokenizer, &rest), "a b _ c", "{name}");
    }
}

#[test]
fn a_byte_level_prefix_space_is_not_put_after_text() {
    let byte_level = |prepends: bool| json!({"type": "ByteLevel", "add_prefix_space": prepends, "trim_offsets": true, "use_regex": true});
    for pre_tokenizer in [byte_level(true), json!({"type": "Sequence", "pretokenizers": [byte_level(true)]})]
    {
        let tokenizer = parse(&letters(|json| {
            json["model"]["vocab"]["Ġ"] = 32.into();
            json["pre_tokenizer"] = pre_tokenizer;
            json["decoder"] = byte_level(true);
        }));
        assert_eq!(pieces(&tokenizer, &tokenizer.encode("ab", true).unwrap()), "Ġ a b");
        assert_eq!(pieces(&tokenizer, &tokenizer.encode_continuation("ab c").unwrap()), "a b Ġ c");
    }
}

#[test]
fn added_tokens_are_found_as_the_crate_finds_them() {
    let with = |key: &str, value: bool| {
        parse(&letters(|json| {
            json["normalizer"] = prepend_and_replace();
            let mut token = added(32, "<tool>", false);
            token[key] = value.into();
            json["added_tokens"].as_array_mut().unwrap().push(token);
        }))
    };
    let encode =
        |tokenizer: &Tokenizer, text: &str| pieces(tokenizer, &tokenizer.encode(text, false).unwrap());
    let after =
        |tokenizer: &Tokenizer, text: &str| pieces(tokenizer, &tokenizer.encode_continuation(text).unwrap());
    let plain = with("normalized", false);
    assert_eq!(encode(&plain, "a <tool>b"), "_ a _ <tool> _ b");
    assert_eq!(
        (after(&plain, "<tool>b"), after(&plain, "a<tool>")),
        ("<tool> _ b".into(), "a <tool>".into())
    );
    // Its piece is its normal form `▁<tool>`, with the dummy space.
    let normalized = with("normalized", true);
    assert_eq!(encode(&normalized, "<tool>b"), "_<tool> b");
    assert_eq!(encode(&normalized, "a <tool>b<tool>"), "_ a _<tool> b < t o o l >");
    assert_eq!(after(&normalized, "<tool> <tool>"), "< t o o l > _<tool>");
    assert_eq!(encode(&with("lstrip", true), "a  <tool> b"), "_ a <tool> _ _ b");
    assert_eq!(encode(&with("rstrip", true), "a <tool>  b"), "_ a _ <tool> _ b");
    let single = with("single_word", true);
    assert_eq!(encode(&single, "a<tool>"), "_ a < t o o l >");
    assert_eq!(encode(&single, "a <tool>"), "_ a _ <tool>");
}

#[test]
fn what_the_post_processor_puts_around_a_text_is_put_there() {
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template = |single: Vec<Value>| {
        json!({"type": "TemplateProcessing", "single": single, "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}})
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let both = template(vec![special("<s>"), text.clone(), special("</s>")]);
    for (post_processor, prefix, suffix) in [
        (Value::Null, &[][..], &[][..]),
        (byte_level.clone(), &[], &[]),
        (template(vec![text.clone()]), &[], &[]),
        (template(vec![special("<s>"), text.clone()]), &[1], &[]),
        (template(vec![text.clone(), special("</s>")]), &[], &[2]),
        (both.clone(), &[1], &[2]),
        (json!({"type": "Sequence", "processors": [byte_level, both]}), &[1], &[2]),
    ] {
        let json = letters(|json| json["post_processor"] = post_processor);
        // transformers 5 reads these two settings only where there is no tokenizer.json.
        for config in ["", r#"{"bos_token": "<s>", "add_bos_token": true}"#, r#"{"add_bos_token": false}"#] {
            let tokenizer = Tokenizer::parse(&json.to_string(), config).unwrap();
            let plain = tokenizer.encode("ab", false).unwrap();
            assert_eq!(tokenizer.encode("ab", true).unwrap(), [prefix, &plain].concat());
            assert_eq!(tokenizer.encode_complete("ab").unwrap(), [prefix, &plain, suffix].concat());
        }
        let code_llama = Tokenizer::parse(&json.to_string(), r#"{"tokenizer_class": "CodeLlamaTokenizer"}"#);
        assert_eq!(code_llama.unwrap().encode_complete("").unwrap(), [1]);
    }
    let outside = letters(|json| {
        json["post_processor"] = template(vec![special("<s>"), text.clone()]);
        json["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([4_000_000_000u32]);
    });
    let message = Tokenizer::parse(&outside.to_string(), "").err().unwrap().to_string();
    assert!(message.contains("4000000000"), "{message}");
    for piece in [special("<x>"), json!({"Sequence": {"id": "B", "type_id": 0}})] {
        let broken = letters(|json| {
            json["post_processor"] = json!({"type": "Sequence", "processors": [template(vec![piece])]});
        });
        let message = Tokenizer::parse(&broken.to_string(), "").err().unwrap().to_string();
        assert!(message.contains("post_processor"), "{message}");
    }
}

#[test]
fn a_step_that_is_not_understood_is_an_error() {
    let start = json!({"type": "Replace", "pattern": {"Regex": "^"}, "content": "▁"});
    let json = letters(|json| json["normalizer"] = start);
    let message = Tokenizer::parse(&json.to_string(), "").err().unwrap().to_string();
    assert!(message.contains("and then") && message.contains("tokenizers crate gives"), "{message}");
}

#[test]
fn an_id_beyond_every_vocabulary_is_refused_before_it_is_used() {
    for id in
        [json!(u32::MAX), json!(1u64 << 24), json!(u64::MAX), json!(-1), json!(1e30), json!("7"), Value::Null]
    {
        let in_vocabulary = letters(|json| json["model"]["vocab"]["q"] = id.clone());
        let in_added = letters(|json| json["added_tokens"][1]["id"] = id.clone());
        for json in [in_vocabulary, in_added] {
            let message = Tokenizer::parse(&json.to_string(), "").err().unwrap().to_string();
            assert!(message.contains(&id.to_string()) && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn the_end_of_text_is_what_the_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let eos = || Tokenizer::load(folder.path()).map(|tokenizer| tokenizer.eos());
    write("tokenizer.json", &letters(|_| ()).to_string());
    assert_eq!(eos(), Ok(Some(2)));
    write("config.json", r#"{"eos_token_id": [5, 2]}"#);
    assert_eq!(eos(), Ok(Some(5)));
    write("special_tokens_map.json", r#"{"eos_token": {"content": "q"}}"#);
    assert_eq!(eos(), Ok(Some(22)));
    write("tokenizer_config.json", r#"{"eos_token": "<unk>"}"#);
    assert_eq!(eos(), Ok(Some(0)));
    write("tokenizer_config.json", "{");
    assert!(eos().unwrap_err().to_string().contains("tokenizer_config.json: not JSON"));
}
