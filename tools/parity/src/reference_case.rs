//! One reference case: a folder with `model/`, `adapter/`, `reference.json` and `reference.safetensors`.

use codelsi_engine::{At, DType, Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A reference case, read into memory: cases are small.
pub struct ReferenceCase {
    pub folder: PathBuf,
    pub json: Value,
    tensors: Vec<u8>,
    /// Storage type of activations under test; it chooses the limits.
    compute: DType,
}

/// One tensor (or list of scalars) against the reference.
#[derive(Clone, Debug)]
pub struct TensorComparison {
    pub tensor: String,
    /// ‖ours − truth‖ / ‖truth‖; for steps the denominator is the change since step 0; for scalars the largest
    /// absolute difference.
    pub error: f64,
    pub limit: f64,
    pub max_abs: f64,
    pub max_abs_limit: f64,
}

impl TensorComparison {
    /// Returns whether both errors are within their limits; a NaN never is.
    pub fn ok(&self) -> bool {
        self.error <= self.limit && self.max_abs <= self.max_abs_limit
    }

    /// Returns the larger of the two errors over its limit.
    pub fn ratio(&self) -> f64 {
        let share = |error: f64, limit: f64| if error == 0.0 { 0.0 } else { error / limit };
        share(self.error, self.limit).max(share(self.max_abs, self.max_abs_limit))
    }
}

impl ReferenceCase {
    /// Reads a case.
    ///
    /// # Errors
    /// When a file is missing or malformed.
    pub fn open(folder: &Path, compute: DType) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|e| Error::io(path, e))
        };
        let json = serde_json::from_slice(&read("reference.json")?)
            .map_err(|e| Error::io(folder.join("reference.json"), e))?;
        Ok(ReferenceCase { folder: folder.into(), json, tensors: read("reference.safetensors")?, compute })
    }

    /// Returns the names of all stored tensors.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(self.file()?.names().into_iter().map(str::to_owned).collect())
    }

    /// Returns the shape of a stored tensor.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.view(name)?.0)
    }

    /// Returns the elements of a stored F32 tensor.
    pub fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let (_, dtype, bytes) = self.view(name)?;
        if dtype != Dtype::F32 {
            return Err(Error::new(format!("`{name}` is {dtype:?}, expected F32")));
        }
        let words = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64);
        Ok(words.collect())
    }

    /// Returns the elements of a stored I64 tensor.
    pub fn ints(&self, name: &str) -> Result<Vec<i64>> {
        let (_, dtype, bytes) = self.view(name)?;
        if dtype != Dtype::I64 {
            return Err(Error::new(format!("`{name}` is {dtype:?}, expected I64")));
        }
        Ok(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    /// Returns a scalar of `scalars` in reference.json.
    pub fn scalar(&self, name: &str) -> Result<f64> {
        let missing = || Error::new(format!("reference.json has no scalar `{name}`"));
        self.json["scalars"][name].as_f64().ok_or_else(missing)
    }

    /// Compares a tensor with the stored one; with `base`, relative to the stored tensor's change since `base`.
    pub fn compare(&self, name: &str, ours: &[f64], base: Option<&[f64]>) -> Result<TensorComparison> {
        let truth = self.floats(name)?;
        if truth.len() != ours.len() {
            return Err(Error::new(format!("`{name}` has {} elements, ours {}", truth.len(), ours.len())));
        }
        let differences = || ours.iter().zip(&truth).map(|(o, t)| o - t);
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let scale = match base {
            Some(base) => norm(&mut truth.iter().zip(base).map(|(t, b)| t - b)),
            None => norm(&mut truth.iter().copied()),
        };
        let max_abs = differences().fold(0.0, |m: f64, d| if d.is_nan() { f64::NAN } else { m.max(d.abs()) });
        let (limit, max_abs_limit) = self.limits(&group(name), "rel_l2")?;
        let error = norm(&mut differences()) / scale;
        Ok(TensorComparison { tensor: name.into(), error, limit, max_abs, max_abs_limit })
    }

    /// Compares scalars by their largest absolute difference.
    pub fn compare_scalars(&self, name: &str, ours: &[f64], truth: &[f64]) -> Result<TensorComparison> {
        let error = ours.iter().zip(truth).map(|(o, t)| (o - t).abs());
        let error = error.fold(0.0, |m: f64, d| if d.is_nan() { f64::NAN } else { m.max(d) });
        let (limit, _) = self.limits(&group(name), "abs")?;
        let limit = limit.max(self.loss_limit(name)?);
        Ok(TensorComparison { tensor: name.into(), error, limit, max_abs: error, max_abs_limit: limit })
    }

    /// Returns the bf16 limit of a loss: twice the standard error that the observed error of its n log-probabilities implies.
    /// The loss's own observed error is a single draw, at times a lucky one. 0 in f32.
    fn loss_limit(&self, name: &str) -> Result<f64> {
        if self.compute != DType::BF16 {
            return Ok(0.0);
        }
        let logprobs = if name == "loss" { "logprobs" } else { "lora.logprobs" };
        let truth = self.floats(logprobs)?;
        let rms = (truth.iter().map(|x| x * x).sum::<f64>() / truth.len() as f64).sqrt();
        let labelled = self.ints("labels")?.iter().filter(|&&label| label != -100).count();
        let (twice_relative, _) = self.limits(logprobs, "rel_l2")?;
        Ok(twice_relative * rms / (labelled as f64).sqrt())
    }

    /// Returns the limits of a group: the stated float32 tolerance, or twice the observed bf16 error.
    fn limits(&self, group: &str, key: &str) -> Result<(f64, f64)> {
        let (table, factor) = match self.compute {
            DType::BF16 => ("observed_bfloat16_error_of_transformers", 2.0),
            _ => ("tolerance_float32", 1.0),
        };
        // A tensor that transformers does not return is held to the limits of its neighbours.
        let table = &self.json[table];
        let entry = [group, "hidden", "logits"].iter().map(|g| &table[*g]).find(|e| e.is_object());
        let entry = entry.filter(|e| e[key].is_number() || key == "abs").unwrap_or(&Value::Null);
        let limit = entry[key].as_f64();
        let limit =
            limit.ok_or_else(|| Error::new(format!("reference.json states no limit for `{group}`")))?;
        let max_abs = entry["max_abs"].as_f64().unwrap_or(f64::INFINITY);
        Ok((factor * limit, factor * max_abs))
    }

    fn view(&self, name: &str) -> Result<(Vec<usize>, Dtype, &[u8])> {
        let file = self.file()?;
        let view = file.tensor(name).map_err(|e| Error::new(format!("`{name}`: {e}")))?;
        Ok((view.shape().to_vec(), view.dtype(), view.data()))
    }

    fn file(&self) -> Result<SafeTensors<'_>> {
        let path = self.folder.join("reference.safetensors");
        SafeTensors::deserialize(&self.tensors).map_err(|e| Error::io(path, e)).at("parity")
    }
}

/// Returns the tolerance group of a tensor or scalar.
fn group(name: &str) -> String {
    match name.split('.').next().unwrap_or(name) {
        first if first == "grad" || first.starts_with("step") => format!("{first}.{}", adapter_factor(name)),
        "merged" => "merged".into(),
        "hidden" if name != "hidden.norm" => "hidden".into(),
        "layer0" => "layer0".into(),
        _ => name.into(),
    }
}

/// Returns the adapter factor of a tensor: A (or W_down), B (or W_up), M for a magnitude or a router, or W for a weight
/// of the base.
fn adapter_factor(name: &str) -> char {
    let has = |part: &str| name.contains(part);
    if name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight") {
        return 'W';
    }
    match (has(".lora_A.") || has(".down."), has("magnitude") || has(".router.")) {
        (true, _) => 'A',
        (_, true) => 'M',
        _ => 'B',
    }
}
