//! A tokenizer as llama.cpp stores it: SentencePiece's pieces with scores, or byte-level pieces with merges and the name
//! of a pre-tokenizer that llama.cpp has built in.

use super::writer::{Metadata, Value};
use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::end_tokens::end_tokens;
use crate::json_fields::shown_up_to;
use crate::tokenizer::{MAX_ID, Tokenizer, flatten, prepend_scheme};
use codelsi_engine::{At, Error, Result};
use serde_json::Value as Json;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// Kinds of tokens (`tokenizer.ggml.token_type`).
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Characters of a step that a message shows.
const STEP_SHOWN: usize = 200;

/// Score of a piece that no merge makes: below that of every merge.
const NO_MERGE: f32 = -1e9;

/// Bytes of the longest piece whose pairs are looked up.
const LONGEST_SPLIT: usize = 256;

/// SentencePiece's space.
const SPACE: &str = "▁";

/// The patterns of Llama 3's, Qwen2's and Mistral's Tekken pre-tokenizers.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const HAN: &str = "[一-龥ࠀ-一가-퟿]+";

/// Descriptions of the steps that are not a pattern's.
const BYTES: &str = "ByteLevel";
const BYTES_SPLIT: &str = "ByteLevel with GPT-2's pattern";
const DIGIT: &str = "each digit";

/// The keys of a tokenizer.
pub(super) struct Vocabulary {
    pub(super) metadata: Metadata,
    /// Differences between llama.cpp's encoding and ours that no key can avoid.
    pub(super) notes: Vec<String>,
}

/// Pieces by id.
#[derive(Default)]
struct Pieces {
    texts: Vec<String>,
    types: Vec<i32>,
}

/// Reads a model folder's tokenizer, which has at most as many ids as the embedding has rows.
///
/// # Errors
/// When it cannot be read, has more ids, or encodes in a way that llama.cpp has no name for.
pub(super) fn read(folder: &Path, config: &ModelConfig) -> Result<Vocabulary> {
    let tokenizer = Tokenizer::load(folder)?;
    tokenizer.check_fits(config.vocab)?;
    let path = folder.join("tokenizer.json");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json: Json = serde_json::from_str(&text).map_err(|e| Error::io(&path, e))?;
    let mut vocabulary = describe(&json, &tokenizer, config.vocab).at(path.display().to_string())?;
    if tokenizer.eos().is_none() && config.eos.is_empty() {
        vocabulary.notes.push("no token ends a text; llama.cpp then takes a default id for one".into());
    }
    let put = |(key, value): (&str, Value)| (format!("tokenizer.{key}"), value);
    vocabulary.metadata.extend(special_tokens(&tokenizer, config)?.into_iter().map(put));
    if let Some(chat) = ChatTemplate::load(folder)? {
        vocabulary.metadata.push(put(("chat_template", chat.source().into())));
    }
    Ok(vocabulary)
}

/// Returns the keys of pieces and merges.
fn describe(json: &Json, tokenizer: &Tokenizer, vocab: usize) -> Result<Vocabulary> {
    let model = &json["model"];
    let kind = model["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(Error::new(format!("a tokenizer of type {kind} cannot be exported, only BPE can")));
    }
    let mut steps = Vec::new();
    flatten(&json["pre_tokenizer"], &mut steps);
    let byte_level = steps.iter().any(|step| step["type"] == "ByteLevel");
    let merges = merges(model)?;
    let mut pieces = pieces(tokenizer, vocab, byte_level)?;
    let (mut metadata, mut notes): (Metadata, Vec<String>) = (Vec::new(), Vec::new());
    let mut put = |key: &str, value: Value| metadata.push((format!("tokenizer.ggml.{key}"), value));
    if byte_level {
        put("model", "gpt2".into());
        put("pre", pre_tokenizer(&steps, model["ignore_merges"] == true)?.into());
        notes.extend(byte_level_normalizer(&json["normalizer"])?);
        put("merges", Value::Texts(merges.iter().map(|(a, b)| format!("{a} {b}")).collect()));
    } else {
        mark_bytes(&mut pieces, model)?;
        let (space, note) = sentencepiece_steps(&json["normalizer"], &steps)?;
        notes.extend(note);
        notes.extend(unlisted_pairs(&pieces, &merges));
        put("model", "llama".into());
        put("pre", "default".into());
        put("add_space_prefix", Value::Bool(space));
        put("scores", Value::F32s(scores(&pieces, &merges)));
    }
    put("tokens", Value::Texts(pieces.texts));
    put("token_type", Value::I32s(pieces.types));
    Ok(Vocabulary { metadata, notes })
}

/// Returns the merges, in order.
fn merges<'a>(model: &'a Json) -> Result<Vec<(&'a str, &'a str)>> {
    let malformed = |merge: &Json| Error::new(format!("merge {merge} is no pair of pieces"));
    let list = model["merges"].as_array().ok_or_else(|| Error::new("the tokenizer has no `merges`"))?;
    let pair = |merge: &'a Json| match merge {
        Json::String(text) => text.split_once(' '),
        Json::Array(pair) => match &pair[..] {
            [Json::String(a), Json::String(b)] => Some((a.as_str(), b.as_str())),
            _ => None,
        },
        _ => None,
    };
    list.iter()
        .map(|merge| {
            pair(merge).filter(|(a, b)| !a.contains(' ') && !b.contains(' ')).ok_or_else(|| malformed(merge))
        })
        .collect()
}

/// Returns text and kind of each id; ids without a token are unused.
fn pieces(tokenizer: &Tokenizer, vocab: usize, byte_level: bool) -> Result<Pieces> {
    let added: HashMap<u32, _> = tokenizer.added_tokens().collect();
    if vocab as u64 > MAX_ID {
        return Err(Error::new(format!(
            "`vocab_size` is {vocab}, more than the {MAX_ID} tokens that are exported"
        )));
    }
    let mut pieces = Pieces::default();
    for id in 0..vocab as u32 {
        let (text, kind) = match (added.get(&id), tokenizer.piece(id)) {
            (Some(token), _) if token.special => (token.content.clone(), CONTROL),
            (Some(token), _) if byte_level => (token.content.clone(), USER_DEFINED),
            (Some(token), _) => (token.content.replace(SPACE, " "), USER_DEFINED),
            (None, Some(piece)) => (piece, NORMAL),
            (None, None) => (format!("[PAD{id}]"), UNUSED),
        };
        pieces.texts.push(text);
        pieces.types.push(kind);
    }
    let mut seen = HashSet::new();
    match pieces.texts.iter().find(|text| !seen.insert(text.as_str())) {
        None => Ok(pieces),
        Some(text) => Err(Error::new(format!("two tokens are written `{}`", text.escape_debug()))),
    }
}

/// Marks SentencePiece's bytes and its unknown token.
///
/// # Errors
/// When a byte has no piece: llama.cpp spells with it what has no other.
fn mark_bytes(pieces: &mut Pieces, model: &Json) -> Result<()> {
    let ids: HashMap<&str, usize> =
        pieces.texts.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let mut bytes = Vec::new();
    for byte in 0..=255u8 {
        let piece = format!("<0x{byte:02X}>");
        bytes.push(*ids.get(piece.as_str()).ok_or_else(|| {
            Error::new(format!(
                "the vocabulary has no piece `{piece}`, and llama.cpp needs one for every byte"
            ))
        })?);
    }
    let unknown = model["unk_token"].as_str().and_then(|unknown| ids.get(unknown).copied());
    bytes.into_iter().for_each(|id| pieces.types[id] = BYTE);
    if let Some(id) = unknown {
        pieces.types[id] = UNKNOWN;
    }
    Ok(())
}

/// Returns SentencePiece's scores: the earlier a merge, the higher is what it makes.
fn scores(pieces: &Pieces, merges: &[(&str, &str)]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (a, b)) in merges.iter().enumerate() {
        ranks.entry(format!("{a}{b}")).or_insert(rank);
    }
    let score = |(text, &kind): (&String, &i32)| match ranks.get(text) {
        Some(&rank) if kind == NORMAL => -(rank as f32),
        _ if kind == NORMAL && text.chars().count() > 1 => NO_MERGE,
        _ => 0.0,
    };
    pieces.texts.iter().zip(&pieces.types).map(score).collect()
}

/// Returns a note where pieces join to a piece and no merge says so: llama.cpp joins them all the same.
fn unlisted_pairs(pieces: &Pieces, merges: &[(&str, &str)]) -> Option<String> {
    let listed: HashSet<(&str, &str)> = merges.iter().copied().collect();
    let normal = || pieces.texts.iter().zip(&pieces.types).filter(|&(_, &kind)| kind == NORMAL);
    let known: HashSet<&str> = normal().map(|(text, _)| text.as_str()).collect();
    let unlisted = |text: &&String| {
        let mut pairs = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        pairs.any(|(left, right)| {
            known.contains(left) && known.contains(right) && !listed.contains(&(left, right))
        })
    };
    let joined = normal().map(|(text, _)| text).filter(|text| text.len() <= LONGEST_SPLIT);
    let count = joined.filter(unlisted).count();
    (count > 0).then(|| {
        format!(
            "{count} pieces are also made of pairs that `merges` lacks, which llama.cpp joins: it may encode a text in \
             other pieces"
        )
    })
}

/// Checks the steps before SentencePiece's merges; returns true if a text begins with a space of its own, and a note
/// where llama.cpp puts that space elsewhere.
fn sentencepiece_steps(normalizer: &Json, steps: &[Json]) -> Result<(bool, Option<String>)> {
    let mut normalizers = Vec::new();
    match normalizer["normalizers"].as_array() {
        Some(inner) => normalizers.extend(inner),
        None if normalizer.is_null() => {}
        None => normalizers.push(normalizer),
    }
    let mut space = false;
    for step in normalizers {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == SPACE => space = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == SPACE => {}
            _ => {
                return Err(Error::new(format!(
                    "normalizer {} has no name in llama.cpp",
                    shown_up_to(step, STEP_SHOWN)
                )));
            }
        }
    }
    let mut note = None;
    for step in steps {
        if step["type"] != "Metaspace" || step["replacement"].as_str().is_some_and(|text| text != SPACE) {
            return Err(Error::new(format!(
                "pre-tokenizer {} has no name in llama.cpp",
                shown_up_to(step, STEP_SHOWN)
            )));
        }
        if prepend_scheme(step) != "never" {
            space = true;
            note = Some(
                "llama.cpp puts a space before a text that begins with one, too; this tokenizer does not"
                    .to_string(),
            );
        }
    }
    Ok((space, note))
}

/// Checks the normalizer of a byte-level tokenizer; returns a note where llama.cpp does without.
fn byte_level_normalizer(normalizer: &Json) -> Result<Option<String>> {
    match normalizer["type"].as_str() {
        None => Ok(None),
        Some("NFC") => Ok(Some(
            "llama.cpp does not compose characters (NFC) before it encodes a text; this tokenizer does"
                .into(),
        )),
        Some("Sequence") if normalizer["normalizers"].as_array().is_some_and(Vec::is_empty) => Ok(None),
        Some(_) => Err(Error::new(format!(
            "normalizer {} has no name in llama.cpp",
            shown_up_to(normalizer, STEP_SHOWN)
        ))),
    }
}

/// Returns llama.cpp's name of the steps that cut a text before byte-level merges.
///
/// # Errors
/// When they are none of those known.
fn pre_tokenizer(steps: &[Json], ignore_merges: bool) -> Result<&'static str> {
    let described: Vec<String> = steps.iter().map(describe_step).collect();
    let described: Vec<&str> = described.iter().map(String::as_str).collect();
    match described[..] {
        [BYTES_SPLIT] => Ok("gpt-2"),
        [DIGIT, BYTES_SPLIT] => Ok("starcoder"),
        [LLAMA3, BYTES] if ignore_merges => Ok("llama-bpe"),
        [LLAMA3, BYTES] => Ok("smaug-bpe"),
        [QWEN2, BYTES] => Ok("qwen2"),
        [TEKKEN, BYTES] => Ok("tekken"),
        ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, DIGIT, BYTES] => Ok("deepseek-coder"),
        ["[\r\n]", letters, _, r"\s+$", HAN, DIGIT, BYTES] if letters.starts_with(r"\s?[A-Za-zµ") => {
            Ok("deepseek-llm")
        }
        _ => Err(Error::new(format!(
            "pre-tokenizer {} has no name in llama.cpp that is known here",
            shown_up_to(&Json::from(described), STEP_SHOWN)
        ))),
    }
}

/// Describes a step of a byte-level pre-tokenizer: a pattern that isolates what it matches by the pattern itself.
fn describe_step(step: &Json) -> String {
    let isolates = step["behavior"] == "Isolated" && step["invert"] != true;
    let pattern = step["pattern"]["Regex"].as_str().or_else(|| step["pattern"]["String"].as_str());
    match (step["type"].as_str(), pattern) {
        (Some("Split"), Some(pattern)) if isolates => pattern.to_string(),
        (Some("Digits"), _) if step["individual_digits"] == true => DIGIT.into(),
        (Some("ByteLevel"), _) if step["add_prefix_space"] == false => {
            if step["use_regex"] == false {
                BYTES.into()
            } else {
                BYTES_SPLIT.into()
            }
        }
        _ => step.to_string(),
    }
}

/// Returns the keys of tokens with a role.
fn special_tokens(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Vec<(&'static str, Value)>> {
    let bos = tokenizer.bos().or(config.bos);
    let begins = match (tokenizer.prefix(), bos) {
        ([], _) => false,
        ([id], Some(bos)) if *id == bos => true,
        (ids, _) => {
            return Err(Error::new(format!(
                "the tokenizer puts {ids:?} before a text, and llama.cpp can only put the token that begins one"
            )));
        }
    };
    let mut roles =
        vec![("ggml.add_bos_token", Value::Bool(begins)), ("ggml.add_eos_token", Value::Bool(false))];
    let ends = end_tokens(config, Some(tokenizer));
    let eos = tokenizer.eos().or(ends.first().copied());
    let other_end = ends.into_iter().find(|&id| Some(id) != eos);
    let infill = tokenizer.infill_tokens();
    let ids = [
        ("ggml.bos_token_id", bos),
        ("ggml.eos_token_id", eos),
        ("ggml.eot_token_id", infill.map(|tokens| tokens.end).or(other_end)),
        ("ggml.fim_pre_token_id", infill.map(|tokens| tokens.prefix)),
        ("ggml.fim_suf_token_id", infill.map(|tokens| tokens.suffix)),
        ("ggml.fim_mid_token_id", infill.map(|tokens| tokens.middle)),
    ];
    roles.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Value::U32(id?)))));
    Ok(roles)
}
