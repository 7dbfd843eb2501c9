//! Writes the result of a run: the trained adapter, or the trained model.

use crate::options::TrainOptions;
use codelsi_engine::{DType, Error, Result, Tensor};
use codelsi_model::adapter::{Adapter, AdapterTensors};
use codelsi_model::config::ModelConfig;
use codelsi_model::hub;
use codelsi_model::tensor_writer::{MAX_SHARD_BYTES, TensorSpec, write_json, write_model};
use half::bf16;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Trained tensors by name.
pub type Weights = BTreeMap<String, Tensor>;

/// Writes a trained adapter as PEFT's two files. `initial` is the adapter before training, which has the tensors that the
/// run of `options` leaves frozen.
///
/// # Errors
/// When a tensor that it trains is not in `trained`, or the folder cannot be written.
pub fn write_adapter(
    folder: &Path,
    trained: &Weights,
    initial: &Adapter,
    options: &TrainOptions,
) -> Result<()> {
    let (method, train) = (initial.config.method, options.trainable());
    let find = |name: &str| {
        let found = trained.get(name).cloned();
        found.ok_or_else(|| Error::new(format!("the model has no `{name}`")))
    };
    let module = |(path, initial): (&String, &AdapterTensors)| -> Result<(String, AdapterTensors)> {
        let initial: Vec<&Tensor> = initial.tensors().collect();
        let tensors = AdapterTensors::build(method, |i| {
            let name = format!("{path}.{}", method.tensor_names()[i]);
            match train.includes_adapter_tensor(&name) {
                true => find(&name),
                false => Ok(initial[i].clone()),
            }
        })?;
        Ok((path.clone(), tensors))
    };
    let modules = initial.modules.iter().map(module).collect::<Result<_>>()?;
    let saved = |(name, before): (&String, &Tensor)| match initial.trains_saved(name, train) {
        true => find(name).map(|t| (name.clone(), t)),
        false => Ok((name.clone(), before.clone())),
    };
    let saved = initial.saved.iter().map(saved).collect::<Result<_>>()?;
    let adapter = Adapter { modules, saved, config: initial.config.clone() };
    adapter.write(folder, &hub::name_of(&options.model))
}

/// Writes `config.json` and every weight, converted to `dtype` (F32 is exact).
///
/// # Errors
/// When a weight is not in `trained`, or the folder cannot be written.
pub fn write_trained_model(
    folder: &Path,
    config: &ModelConfig,
    trained: &Weights,
    dtype: DType,
) -> Result<()> {
    write_json(folder.join("config.json"), &config.to_json(dtype))?;
    let stored = if dtype == DType::BF16 { Dtype::BF16 } else { Dtype::F32 };
    let in_order = config.tensor_shapes().into_iter().filter(|(name, _)| trained.contains_key(name));
    let specs: Vec<TensorSpec> =
        in_order.map(|(name, shape)| TensorSpec { name, dtype: stored, shape }).collect();
    write_model(folder, &specs, MAX_SHARD_BYTES, &mut |spec, out| {
        write_values(&trained[&spec.name], dtype, out)
    })
}

fn write_values(t: &Tensor, dtype: DType, out: &mut dyn Write) -> io::Result<()> {
    let values = t.to_vec::<f32>().map_err(io::Error::other)?;
    if dtype != DType::BF16 {
        return out.write_all(bytemuck::cast_slice(&values));
    }
    values.chunks(1 << 16).try_for_each(|chunk| {
        let rounded: Vec<bf16> = chunk.iter().map(|&x| bf16::from_f32(x)).collect();
        out.write_all(bytemuck::cast_slice(&rounded))
    })
}
