//! PEFT's rules of matching: the modules that an adapter changes, each with its rank and alpha.

use crate::config::{LinearName, ModelConfig};
use codelsi_engine::{At, Error, Result};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Keys of `adapter_config.json` that are written again as they were read.
const STORED: [&str; 6] = [
    "alpha_pattern",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "rank_pattern",
    "target_modules",
];

/// Limits of a file's patterns: their number, the length of one, and the memory of a compiled one.
const MAX_PATTERNS: usize = 1 << 12;
const MAX_PATTERN_LEN: usize = 1 << 14;
const MAX_COMPILED_LEN: usize = 1 << 18;

/// Modules that are no linears of a layer, but that targets may name.
const VOCABULARY: [&str; 2] = ["model.embed_tokens", "lm_head"];

/// The modules of an adapter whose modules are not all alike: not every layer is adapted, or ranks or alphas differ.
#[derive(Clone, Debug, PartialEq)]
pub struct ModulePatterns {
    /// PEFT's settings, as they were read.
    pub(super) stored: Map<String, Value>,
    /// Rank and alpha of every adapted linear, by its path.
    pub(super) modules: BTreeMap<String, (usize, f32)>,
}

/// The modules that a setting selects.
enum Selection {
    /// Modules whose path is one of these names, or ends with one after a dot.
    Names(Vec<String>),
    /// Modules whose complete path a regular expression matches.
    Pattern(Regex),
    /// Every linear but the head.
    AllLinear,
}

/// The values that a setting gives to the modules of its patterns: those of the first that matches count.
struct Overrides<T>(Vec<(Regex, T)>);

/// Choice of the settings of an `adapter_config.json`: the linears that are adapted, and their rank and alpha where
/// they are not all alike.
pub(super) type Targets = (BTreeSet<LinearName>, Option<ModulePatterns>);

/// Applies the settings of `json` to a model: `rank` and `alpha` are those of modules without a pattern, `saved` the
/// names in `modules_to_save`.
///
/// # Errors
/// When a setting is malformed, a pattern is no regular expression that is supported, no linear is selected, or the
/// embedding or the head is.
pub(super) fn resolve(
    json: &Map<String, Value>,
    (rank, alpha): (usize, f32),
    saved: &[String],
    config: &ModelConfig,
) -> Result<Targets> {
    let get = |key: &str| json.get(key).filter(|value| !value.is_null());
    let by_default = || Selection::Names(vec!["q_proj".into(), "v_proj".into()]);
    let targets = get("target_modules").map(|value| Selection::parse(value).at("target_modules"));
    let targets = targets.transpose()?.unwrap_or_else(by_default);
    let excluded = get("exclude_modules").map(|value| Selection::parse(value).at("exclude_modules"));
    let excluded = excluded.transpose()?;
    let saved = saved.iter().map(|name| compile(&format!(r"^(?:(^|.*\.){name}($|\..*))")));
    let saved = saved.collect::<Result<Vec<Regex>>>().at("modules_to_save")?;
    let layers = LayerFilter::parse(json)?;
    if matches!(targets, Selection::Pattern(_)) && !layers.layers.is_empty() {
        return Err(Error::new("`layers_to_transform` needs a list in `target_modules`, not an expression"));
    }
    let is_target = |path: &str| {
        let excluded = excluded.as_ref().is_some_and(|selection| selection.includes(path));
        let saved = saved.iter().any(|pattern| pattern.is_match(path.as_bytes()));
        !excluded && !saved && layers.includes(path) && targets.includes(path)
    };
    if let Some(path) = VOCABULARY.into_iter().find(|path| is_target(path)) {
        return Err(Error::new(format!(
            "`target_modules` selects `{path}`: LoRA of the embedding and of the head is not supported"
        )));
    }
    let ranks = Overrides::parse(get("rank_pattern"), parse_rank).at("rank_pattern")?;
    let alphas = Overrides::parse(get("alpha_pattern"), parse_alpha).at("alpha_pattern")?;
    let linears = (0..config.layers).flat_map(|layer| LinearName::ALL.map(|linear| (linear, layer)));
    let adapted: Vec<(LinearName, String)> = linears
        .map(|(linear, layer)| (linear, linear.path(layer)))
        .filter(|(_, path)| is_target(path))
        .collect();
    let kinds: BTreeSet<LinearName> = adapted.iter().map(|(linear, _)| *linear).collect();
    if kinds.is_empty() {
        return Err(Error::new("`target_modules` matches no linear of this model"));
    }
    let module = |(_, path): (LinearName, String)| {
        let settings = (ranks.value(&path).unwrap_or(rank), alphas.value(&path).unwrap_or(alpha));
        (path, settings)
    };
    let modules: BTreeMap<String, (usize, f32)> = adapted.into_iter().map(module).collect();
    let alike = modules.len() == kinds.len() * config.layers
        && modules.values().all(|settings| *settings == (rank, alpha));
    let stored = json.iter().filter(|(key, _)| STORED.contains(&key.as_str()));
    let stored = stored.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok((kinds, (!alike).then_some(ModulePatterns { stored, modules })))
}

fn parse_rank(value: &Value) -> Option<usize> {
    value.as_u64().filter(|rank| (1..=1 << 16).contains(rank)).map(|rank| rank as usize)
}

fn parse_alpha(value: &Value) -> Option<f32> {
    value.as_f64().map(|alpha| alpha as f32).filter(|alpha| alpha.is_finite())
}

impl Selection {
    /// Parses a list of names, a regular expression, or `all-linear`.
    fn parse(value: &Value) -> Result<Self> {
        match value {
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Ok(Selection::AllLinear),
            Value::String(text) => compile(&format!("^(?:{text})$")).map(Selection::Pattern),
            _ => strings(value).map(Selection::Names),
        }
    }

    fn includes(&self, path: &str) -> bool {
        match self {
            Selection::Names(names) => names.iter().any(|name| is_name_of(name, path)),
            Selection::Pattern(pattern) => pattern.is_match(path.as_bytes()),
            Selection::AllLinear => !VOCABULARY.contains(&path),
        }
    }
}

/// Returns true if `name` is the path of a module, or its end after a dot.
fn is_name_of(name: &str, path: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The layers that `layers_to_transform` names.
struct LayerFilter {
    /// Every layer, if there are none.
    layers: Vec<u64>,
    /// `layers_pattern`: what stands before a layer's number; anything, if there are none.
    patterns: Vec<Regex>,
}

impl LayerFilter {
    fn parse(json: &Map<String, Value>) -> Result<Self> {
        let layers = match json.get("layers_to_transform") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
            Some(value) => value.as_u64().map(|layer| vec![layer]),
        };
        let layers = layers
            .ok_or_else(|| Error::new("`layers_to_transform` is neither a layer nor a list of them"))?;
        let patterns = match json.get("layers_pattern") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) if text.is_empty() => Vec::new(),
            Some(Value::String(text)) => vec![text.clone()],
            Some(value) => strings(value).at("layers_pattern")?,
        };
        if !patterns.is_empty() && layers.is_empty() {
            return Err(Error::new("`layers_pattern` needs `layers_to_transform`"));
        }
        let patterns = patterns.iter().map(|p| compile(&format!(r"^(?:(?:^|.*?\.){p}\.(?P<idx>\d+)\.)")));
        Ok(LayerFilter { layers, patterns: patterns.collect::<Result<_>>().at("layers_pattern")? })
    }

    fn includes(&self, path: &str) -> bool {
        self.layers.is_empty() || self.layer_of(path).is_some_and(|layer| self.layers.contains(&layer))
    }

    /// The layer of a module: the first number in its path after the first name, or after a pattern.
    fn layer_of(&self, path: &str) -> Option<u64> {
        if self.patterns.is_empty() {
            let mut segments = path.split('.').skip(2);
            return segments.find_map(|segment| segment.parse().ok());
        }
        let found = self.patterns.iter().find_map(|pattern| pattern.captures(path.as_bytes()))?;
        std::str::from_utf8(found.name("idx")?.as_bytes()).ok()?.parse().ok()
    }
}

impl<T: Copy> Overrides<T> {
    /// Parses an object of patterns and their values.
    fn parse(value: Option<&Value>, read: impl Fn(&Value) -> Option<T>) -> Result<Self> {
        let Some(value) = value else { return Ok(Overrides(Vec::new())) };
        let map = value.as_object().ok_or_else(|| Error::new(format!("{value} is not an object")))?;
        if map.len() > MAX_PATTERNS {
            return Err(Error::new(format!("{} patterns are more than {MAX_PATTERNS}", map.len())));
        }
        let pattern = |(key, value): (&String, &Value)| {
            let pattern = compile(&format!(r"^(?:(.*\.)?({key})$)"))?;
            let read = read(value).ok_or_else(|| Error::new(format!("`{key}` is {value}: not taken")))?;
            Ok((pattern, read))
        };
        map.iter().map(pattern).collect::<Result<_>>().map(Overrides)
    }

    /// The value of the first pattern that matches.
    fn value(&self, path: &str) -> Option<T> {
        let found = self.0.iter().find(|(pattern, _)| pattern.is_match(path.as_bytes()));
        found.map(|(_, value)| *value)
    }
}

/// Parses a list of names.
pub(super) fn strings(value: &Value) -> Result<Vec<String>> {
    let names = value.as_array().filter(|list| list.len() <= MAX_PATTERNS);
    let names: Option<Vec<String>> = names
        .and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect())
        .filter(|names: &Vec<String>| names.iter().all(|name| !name.is_empty()));
    names.ok_or_else(|| Error::new(format!("not a list of at most {MAX_PATTERNS} names")))
}

/// Compiles a regular expression of Python's `re`, which matches from the beginning of a path. Paths are ASCII.
///
/// # Errors
/// When it is malformed or too large, has what the `regex` crate lacks (looking around, references back), or what it
/// reads otherwise than Python.
fn compile(pattern: &str) -> Result<Regex> {
    let shown: String = pattern.chars().take(80).collect();
    let refused = |why: &str| Error::new(format!("the regular expression `{shown}` is not taken: {why}"));
    if pattern.len() > MAX_PATTERN_LEN {
        return Err(refused("it is too long"));
    }
    let others = ["&&", "--", "~~", "[[", "[^[", r"\<", r"\>", r"\b{"];
    if let Some(operator) = others.into_iter().find(|operator| pattern.contains(operator)) {
        return Err(refused(&format!("`{operator}` means another thing here than in Python")));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).nest_limit(64).size_limit(MAX_COMPILED_LEN).dfa_size_limit(MAX_COMPILED_LEN);
    builder.build().map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        refused(last.trim_start_matches("error: "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use serde_json::json;

    /// The adapted paths with rank and alpha, in a model of three layers; those alike in every layer by their name.
    fn resolved(settings: Value) -> Result<Vec<(String, usize, f32)>> {
        let config = ModelConfig { layers: 3, ..synthetic::config("tiny").unwrap() };
        let json = settings.as_object().unwrap();
        let saved: Vec<String> = json.get("modules_to_save").map_or(Vec::new(), |v| strings(v).unwrap());
        let (kinds, patterns) = resolve(json, (4, 8.0), &saved, &config)?;
        Ok(match patterns {
            None => kinds.into_iter().map(|linear| (linear.name().to_string(), 4, 8.0)).collect(),
            Some(patterns) => patterns.modules.into_iter().map(|(path, (r, a))| (path, r, a)).collect(),
        })
    }

    fn names(settings: Value) -> Vec<String> {
        let strip = |path: &str| path.replace("model.layers.", "").replace("_proj", "");
        resolved(settings).unwrap().into_iter().map(|(path, ..)| strip(&path)).collect()
    }

    /// What PEFT 0.21.2 adapts, `inspect_matched_modules`, with these settings.
    #[test]
    fn targets_match_as_peft_s_do() {
        for (settings, expected) in [
            (json!({"target_modules": ["q_proj", "v_proj", "no_such"]}), "q v"),
            (json!({"target_modules": null}), "q v"),
            (json!({"target_modules": "all-linear"}), "q k v o gate up down"),
            (json!({"target_modules": ["self_attn.q_proj", "mlp.down_proj"]}), "q down"),
            (json!({"target_modules": ["model.layers.1.self_attn.q_proj", "n.v_proj"]}), "1.self_attn.q"),
            (json!({"target_modules": r".*layers\.0\..*(q|v)_proj"}), "0.self_attn.q 0.self_attn.v"),
            (json!({"target_modules": ["up_proj"], "layers_to_transform": [0, 2, 9]}), "0.mlp.up 2.mlp.up"),
            (json!({"target_modules": ["up_proj"], "layers_to_transform": 1}), "1.mlp.up"),
            (
                json!({"target_modules": ["up_proj"], "layers_to_transform": [2], "layers_pattern": "layers"}),
                "2.mlp.up",
            ),
            (
                json!({"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj", "_proj", "o_proj"]}),
                "q k v gate down",
            ),
            (
                json!({"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*\.[01]\..*q_proj"}),
                "0.self_attn.k 1.self_attn.k 2.self_attn.k 2.self_attn.q",
            ),
            (
                json!({"target_modules": ["q_proj", "up_proj"], "modules_to_save": ["layers.1", "mlp"]}),
                "0.self_attn.q 2.self_attn.q",
            ),
            (
                json!({"target_modules": "(?:.*?(?:self_attn|mlp).*?(?:q_proj|o_proj).*?)|(?:\\bmodel\\.layers\\.[\\d]{1,}\\.mlp\\.up_proj)"}),
                "q o up",
            ),
        ] {
            assert_eq!(names(settings.clone()).join(" "), expected, "{settings}");
        }
    }

    #[test]
    fn the_first_pattern_that_matches_gives_rank_and_alpha() {
        let found = resolved(json!({
            "target_modules": ["q_proj", "down_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, "q_proj": 6, r"layers\.[01]\.mlp\.down_proj": 3},
            "alpha_pattern": {"^model.layers.2.mlp.down_proj": 0.5, "proj": 3, ".*down_proj": 16},
        }))
        .unwrap();
        let found: Vec<(&str, usize, f32)> =
            found.iter().map(|(path, r, a)| (path.trim_start_matches("model.layers."), *r, *a)).collect();
        assert_eq!(
            found,
            [
                ("0.mlp.down_proj", 3, 16.0),
                ("0.self_attn.q_proj", 2, 8.0),
                ("1.mlp.down_proj", 3, 16.0),
                ("1.self_attn.q_proj", 6, 8.0),
                ("2.mlp.down_proj", 4, 0.5),
                ("2.self_attn.q_proj", 6, 8.0),
            ]
        );
    }

    #[test]
    fn what_cannot_be_matched_is_refused_in_one_line() {
        let long = "a".repeat(MAX_PATTERN_LEN + 1);
        let nested = format!("{}a{}", "(".repeat(200), ")".repeat(200));
        let many: Map<String, Value> = (0..=MAX_PATTERNS).map(|i| (i.to_string(), json!(1))).collect();
        for (settings, expected) in [
            (json!({"target_modules": r".*(?<!up)_proj"}), "look-around"),
            (json!({"target_modules": r"(.*)\1"}), "backreferences"),
            (json!({"target_modules": "(q_proj"}), "not taken"),
            (json!({"target_modules": "((a{1000}){1000}){1000}"}), "size limit"),
            (json!({"target_modules": long}), "too long"),
            (json!({"target_modules": nested}), "nest"),
            (json!({"target_modules": "[a-z&&[^k]]_proj"}), "Python"),
            (json!({"target_modules": []}), "matches no linear"),
            (json!({"target_modules": [3]}), "target_modules"),
            (json!({"target_modules": ["q_proj", "lm_head"]}), "`lm_head`"),
            (json!({"target_modules": ["embed_tokens"]}), "`model.embed_tokens`"),
            (json!({"target_modules": ["q_proj"], "exclude_modules": 7}), "exclude_modules"),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": "1"}), "layers_to_transform"),
            (json!({"target_modules": ["q_proj"], "layers_pattern": "layers"}), "layers_pattern"),
            (json!({"target_modules": r".*\.q_proj", "layers_to_transform": [1]}), "layers_to_transform"),
            (json!({"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}}), "rank_pattern"),
            (json!({"target_modules": ["q_proj"], "alpha_pattern": {"q_proj": "x"}}), "alpha_pattern"),
            (json!({"target_modules": ["q_proj"], "alpha_pattern": {"(": 1}}), "alpha_pattern"),
            (json!({"target_modules": ["q_proj"], "rank_pattern": many}), "more than"),
        ] {
            let message = resolved(settings.clone()).unwrap_err().to_string();
            let short = message.len() < 400 && !message.contains('\n');
            assert!(message.contains(expected) && short, "{settings}: {message}");
        }
    }
}
