//! Checkpoints of a run: weights, optimizer moments and the state of the trainer, written atomically.
//!
//! `OUT/checkpoints/step-00000050/` holds a complete adapter (in full training, a model), `moments.safetensors` and
//! `state.json`. The folder is filled under a temporary name, flushed to disk and renamed; only then is the previous
//! checkpoint removed.

use codelsi_engine::files::replace_folder;
use codelsi_engine::{At, DType, Error, Label, Result, Tensor};
use codelsi_model::checkpoint::TensorFile;
use codelsi_model::parallel::RankLayout;
use codelsi_model::tensor_writer::{TensorSpec, write_json, write_tensor_file};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The progress of a run. Random numbers need no state: they are keyed by the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Completed steps.
    pub step: usize,
    /// The data cursor: the epoch.
    pub epoch: u32,
    /// The data cursor: the next sequence of the epoch.
    pub sequence: usize,
    /// Tokens processed, prompts included.
    pub tokens: usize,
    /// Seconds spent in steps.
    pub seconds: f64,
    /// Validation loss before the first step.
    pub validation_before: Option<f64>,
    /// [`crate::options::TrainOptions::recipe`] and a digest of the encoded data.
    pub recipe: Map<String, Value>,
}

impl TrainerState {
    /// The state before the first step.
    pub fn new(recipe: Map<String, Value>) -> TrainerState {
        TrainerState {
            step: 0,
            epoch: 0,
            sequence: 0,
            tokens: 0,
            seconds: 0.0,
            validation_before: None,
            recipe,
        }
    }

    /// Checks that `recipe` is that of the checkpoint; the paths of model, data and adapter may differ.
    ///
    /// # Errors
    /// The first key that differs, with both values.
    pub fn check_recipe(&self, recipe: &Map<String, Value>) -> Result<()> {
        let is_path = |key: &str| matches!(key, "model" | "data" | "from");
        // An adapter that was started from keeps its own settings, which an older recipe does not hold.
        let continues = recipe.get("from").is_some_and(|from| !from.is_null());
        let of_adapter = |key: &str| {
            continues && matches!(key, "method" | "rank" | "alpha" | "targets" | "modules_to_save")
        };
        let left_out =
            self.recipe.keys().filter(|key| !recipe.contains_key(*key)).map(|key| (key, &Value::Null));
        let all = recipe.iter().chain(left_out);
        for (key, now) in all.filter(|(key, _)| !is_path(key) && !of_adapter(key)) {
            let then = self.recipe.get(key).unwrap_or(match key.as_str() {
                // Runs from before these options existed.
                "shuffle" | "packing" => &Value::Bool(true),
                _ => &Value::Null,
            });
            if then != now {
                let message =
                    format!("cannot resume: `{key}` was {then} and is {now} now; train to another folder");
                return Err(Error::new(message));
            }
        }
        Ok(())
    }
}

/// The first and second moment of one parameter.
pub type Moments = (Tensor, Tensor);

/// The latest complete checkpoint in the output folder of a run.
///
/// # Errors
/// When the folder exists and cannot be read.
pub fn latest(out: &Path) -> Result<Option<PathBuf>> {
    Ok(list(&checkpoints_folder(out))?.pop())
}

/// Writes a checkpoint and removes the older ones. `write_weights` writes the trained weights into the given folder;
/// `moments` are keyed by parameter name. Returns the checkpoint's folder.
///
/// # Errors
/// When `write_weights` fails, or the disk is full or not writable.
pub fn save(
    out: &Path,
    state: &TrainerState,
    moments: &BTreeMap<String, Moments>,
    write_weights: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let older = list(&checkpoints_folder(out))?;
    let path = checkpoints_folder(out).join(format!("step-{:08}", state.step));
    replace_folder(&path, |folder| {
        write_weights(folder)?;
        write_moments(&folder.join("moments.safetensors"), moments)?;
        write_json(folder.join("state.json"), &serde_json::to_value(state).expect("plain values"))
    })?;
    for old in older.into_iter().filter(|old| *old != path) {
        fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
    }
    Ok(path)
}

/// Reads the `state.json` of a checkpoint.
///
/// # Errors
/// When it cannot be read or is malformed.
pub fn load_state(checkpoint: &Path) -> Result<TrainerState> {
    let path = checkpoint.join("state.json");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::io(&path, format!("not a training state: {e}")))
}

/// Reads this rank's slices of the moments of `params`, in their order.
///
/// # Errors
/// When the file cannot be read, or a moment is missing or differs in shape from its parameter.
pub fn load_moments(
    rank_layout: &RankLayout,
    checkpoint: &Path,
    params: &[(String, &Tensor)],
) -> Result<Vec<Moments>> {
    let path = checkpoint.join("moments.safetensors");
    let file = TensorFile::open(&path)?;
    let read = |moment: char, name: &str, like: &Tensor| {
        let stored = format!("{moment}.{name}");
        let part = rank_layout.slice(name, &file.entry(&stored)?.shape);
        let t = file.copy(rank_layout.device(), Label::Moments, &stored, &part, DType::F32)?;
        if t.shape() != like.shape() {
            return Err(Error::new(format!("`{moment}.{name}` is {t:?}, its parameter {like:?}")));
        }
        Ok(t)
    };
    let pairs = params.iter().map(|(name, p)| Ok((read('m', name, p)?, read('v', name, p)?)));
    pairs.collect::<Result<_>>().at(path.display().to_string())
}

fn write_moments(path: &Path, moments: &BTreeMap<String, Moments>) -> Result<()> {
    let tensors: BTreeMap<String, &Tensor> = moments
        .iter()
        .flat_map(|(name, (m, v))| [(format!("m.{name}"), m), (format!("v.{name}"), v)])
        .collect();
    let spec = |(name, t): (&String, &&Tensor)| TensorSpec {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: t.shape().to_vec(),
    };
    write_tensor_file(path, &tensors.iter().map(spec).collect::<Vec<_>>(), &mut |spec, out| {
        out.write_all(&tensors[&spec.name].to_bytes().map_err(std::io::Error::other)?)
    })
}

fn checkpoints_folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

/// Complete checkpoints, oldest first. An interrupted one has a temporary name, which is not listed.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(folder, e)),
    };
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(|e| Error::io(folder, e))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("step-").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::Device;

    fn state(step: usize) -> TrainerState {
        let recipe = serde_json::json!({"lr": 1e-4, "model": "a"}).as_object().unwrap().clone();
        TrainerState {
            step,
            epoch: 1,
            sequence: 3,
            tokens: 70,
            seconds: 0.5,
            validation_before: Some(0.1),
            recipe,
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_and_replaces_the_previous_one() {
        let out = tempfile::tempdir().unwrap();
        let device = Device::cpu();
        let tensor = |x: &[f32]| device.tensor(Label::Moments, [x.len()], x).unwrap();
        let pair = (tensor(&[1.0, 2.0]), tensor(&[3.0, 4.0]));
        let moments = BTreeMap::from([("w".to_string(), pair)]);
        assert_eq!(latest(out.path()).unwrap(), None);
        for step in [5, 10] {
            save(out.path(), &state(step), &moments, |f| {
                fs::write(f.join("weights"), "x").map_err(|e| Error::io(f, e))
            })
            .unwrap();
        }
        fs::create_dir(out.path().join("checkpoints/step-00000015.tmp")).unwrap();
        let newest = latest(out.path()).unwrap().unwrap();
        assert!(newest.ends_with("step-00000010") && newest.join("weights").exists());
        assert!(!out.path().join("checkpoints/step-00000005").exists());
        assert_eq!(load_state(&newest).unwrap(), state(10));
        let w = tensor(&[0.0, 0.0]);
        let read = load_moments(&RankLayout::from(&device), &newest, &[("w".into(), &w)]).unwrap();
        assert_eq!(
            (read[0].0.slice::<f32>().unwrap(), read[0].1.slice::<f32>().unwrap()),
            (&[1.0, 2.0][..], &[3.0, 4.0][..])
        );
        let missing =
            load_moments(&RankLayout::from(&device), &newest, &[("u".into(), &w)]).err().unwrap().to_string();
        assert!(missing.contains("m.u") && missing.contains("moments.safetensors"), "{missing}");
    }

    #[test]
    fn a_failure_leaves_the_previous_checkpoint() {
        let out = tempfile::tempdir().unwrap();
        save(out.path(), &state(5), &BTreeMap::new(), |_| Ok(())).unwrap();
        assert!(save(out.path(), &state(10), &BTreeMap::new(), |_| Err(Error::new("disk full"))).is_err());
        assert!(latest(out.path()).unwrap().unwrap().ends_with("step-00000005"));
    }

    #[test]
    fn another_recipe_is_refused_by_the_key_that_differs() {
        let mut recipe = state(1).recipe;
        recipe["model"] = "elsewhere".into();
        state(1).check_recipe(&recipe).unwrap();
        recipe.insert("shuffle".into(), false.into());
        assert!(state(1).check_recipe(&recipe).is_err(), "a recipe without the key is of a shuffled run");
        recipe["shuffle"] = true.into();
        state(1).check_recipe(&recipe).unwrap();
        recipe["lr"] = 2e-4.into();
        let message = state(1).check_recipe(&recipe).unwrap_err().to_string();
        assert!(message.contains("`lr` was 0.0001 and is 0.0002"), "{message}");
        recipe.remove("lr");
        let message = state(1).check_recipe(&recipe).unwrap_err().to_string();
        assert!(message.contains("`lr` was 0.0001 and is null"), "{message}");
    }
}
