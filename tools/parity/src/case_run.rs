//! Runs a case through the engine as a user would: forward, loss, gradients, training steps, generation, merge.

use crate::reference_case::{ReferenceCase, TensorComparison};
use codelsi_engine::{At, Ctx, DType, Device, Error, Grads, Label, Result, Tensor};
use codelsi_kernels::check::value;
use codelsi_kernels::dropout::DropoutRate;
use codelsi_kernels::elementwise::add;
use codelsi_kernels::flash::flash;
use codelsi_kernels::xent::Targets;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch, RowContext};
use codelsi_model::merge;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::trainable::Trainable;
use codelsi_train::optimizer::{AdamWConfig, Optimizer};
use codelsi_train::schedule::CosineSchedule;
use std::path::Path;

/// Compares every tensor of a case, in the order in which an error would propagate. Every rank of a layout calls it, and
/// compares the tensors that it holds complete: not the heads of q, k and v that tensor parallelism splits.
///
/// # Errors
/// When the case cannot be read or an op fails. A tensor that departs is a row that is not ok.
pub fn check(folder: &Path, layout: impl Into<RankLayout>, compute: DType) -> Result<Vec<TensorComparison>> {
    let layout = layout.into();
    let reference = ReferenceCase::open(folder, compute)?;
    let checkpoint = Checkpoint::open(folder.join("model"))?;
    let mut model = Llama::load(layout.clone(), &checkpoint, compute, Trainable::Nothing)?;
    let run = CaseRun { reference: &reference, device: layout.device(), layout: &layout };
    let mut rows = run.forward(&model)?;
    let adapter = Adapter::load(folder.join("adapter"), checkpoint.config())?;
    rows.extend(run.generation(&model, "tokens")?);
    model.attach(&adapter, Trainable::Adapter)?;
    rows.extend(run.adapted(&model)?);
    rows.extend(run.generation(&model, "lora_tokens")?);
    rows.extend(run.merged(&checkpoint, &adapter)?);
    rows.extend(run.bias_gradients(&checkpoint, compute)?);
    rows.extend(run.training(&mut model)?);
    Ok(rows)
}

struct CaseRun<'a> {
    reference: &'a ReferenceCase,
    device: &'a Device,
    layout: &'a RankLayout,
}

impl CaseRun<'_> {
    /// Compares the base model: hidden states, the parts of layer 0, logits, log-probabilities, losses.
    fn forward(&self, model: &Llama) -> Result<Vec<TensorComparison>> {
        let cx = self.inference();
        let (ids, batch) = self.sequence()?;
        let place = RowContext {
            positions: &batch.positions,
            rope: model.rope(),
            dropout_keys: None,
            turns: None,
            adapters: None,
        };
        let mut rows = Vec::new();
        let mut compare = |name: &str, ours: Vec<f64>| -> Result<()> {
            rows.push(self.reference.compare(name, &ours, None)?);
            Ok(())
        };
        let mut h = model.embed(&cx, &batch.ids)?;
        compare("hidden.0", floats(&h)?)?;
        for (i, layer) in model.layers().iter().enumerate() {
            let (input, input_norm) = layer.input_norm(&cx, h)?;
            let x = layer.rotate(&cx, layer.qkv(&cx, &input_norm, place, DropoutRate::ZERO)?, place)?;
            let o = flash(&cx, &x.q, &x.k, &x.v, &batch.document_starts, layer.heads())?;
            let attention = layer.attention_output(&cx, &o, place, DropoutRate::ZERO)?;
            let (sum, normed) = layer.post_norm(&cx, &input, &attention)?;
            let mlp = layer.mlp(&cx, &normed, place, DropoutRate::ZERO)?;
            h = add(&cx, &sum, &mlp)?;
            if i == 0 {
                let heads = layer.heads();
                compare("layer0.norm", floats(&input_norm)?)?;
                if heads.heads == model.config().heads {
                    compare("layer0.q_rope", by_head(&x.q, heads.heads)?)?;
                    compare("layer0.k_rope", by_head(&x.k, heads.kv_heads)?)?;
                    compare("layer0.v", by_head(&x.v, heads.kv_heads)?)?;
                }
                compare("layer0.attn_out", floats(&attention)?)?;
                compare("layer0.mlp_out", floats(&mlp)?)?;
            }
            compare(&format!("hidden.{}", i + 1), floats(&h)?)?;
        }
        let normed = model.final_norm(&cx, &h)?;
        compare("hidden.norm", floats(&normed)?)?;
        compare("logits", floats(&model.logits(&cx, &normed)?)?)?;
        let (all, logprobs) = self.loss(&cx, model, &batch, &next_labels(&ids))?;
        compare("logprobs", logprobs)?;
        let (labelled, _) = self.loss(&cx, model, &batch, &next_labels(&self.reference.ints("labels")?))?;
        rows.push(self.scalar("loss", labelled)?);
        rows.push(self.reference.compare_scalars(
            "loss",
            &[all],
            &[self.reference.scalar("loss_all_tokens")?],
        )?);
        Ok(rows)
    }

    /// Compares the adapted model: logits, log-probabilities, loss, and the gradient of every A and B.
    fn adapted(&self, model: &Llama) -> Result<Vec<TensorComparison>> {
        let (ids, batch) = self.sequence()?;
        let cx = self.inference();
        let h = model.forward(&cx, &batch, ForwardOptions::default())?;
        let normed = model.final_norm(&cx, &h)?;
        let (_, logprobs) = self.loss(&cx, model, &batch, &next_labels(&ids))?;
        let mut rows = vec![
            self.reference.compare("lora.hidden.norm", &floats(&normed)?, None)?,
            self.reference.compare("lora.logits", &floats(&model.logits(&cx, &normed)?)?, None)?,
            self.reference.compare("lora.logprobs", &logprobs, None)?,
        ];
        let targets = next_labels(&self.reference.ints("labels")?);
        let (loss, grads) = self.gradients(model, &batch, &targets, 0)?;
        rows.push(self.scalar("lora.loss", loss)?);
        let stored = self.reference.names()?;
        for (name, t) in model.trainable() {
            let g = grads.get(t).ok_or_else(|| Error::new(format!("`{name}` has no gradient")))?;
            let (full, name) = (model.gather_full(&name, g)?, format!("grad.base_model.model.{name}"));
            if stored.contains(&name) {
                rows.push(self.reference.compare(&name, &floats(&full)?, None)?);
            }
        }
        Ok(rows)
    }

    /// Compares the adapter after the optimizer steps that the case stores, and the losses of all steps.
    fn training(&self, model: &mut Llama) -> Result<Vec<TensorComparison>> {
        let train = &self.reference.json["train"];
        let number =
            |key: &str| train[key].as_f64().ok_or_else(|| Error::new(format!("train.{key} is missing")));
        let list = |key: &str| -> Vec<f64> {
            train[key].as_array().into_iter().flatten().filter_map(|x| x.as_f64()).collect()
        };
        let rule = AdamWConfig {
            weight_decay: number("weight_decay")? as f32,
            max_norm: train["case_max_grad_norm"].as_f64(),
            ..AdamWConfig::default()
        };
        let schedule = CosineSchedule {
            lr: number("lr")?,
            warmup: number("warmup_steps")? as usize,
            total_steps: number("planned_steps")? as usize,
        };
        let full_weights = |model: &Llama| -> Result<Vec<(String, Vec<f64>)>> {
            let trained = model.trainable().into_iter();
            trained.map(|(name, t)| Ok((name.clone(), floats(&model.gather_full(&name, t)?)?))).collect()
        };
        let start = full_weights(model)?;
        let mut optimizer = Optimizer::new(self.device, model, rule);
        let (mut rows, mut losses) = (Vec::new(), Vec::new());
        for step in 1..=list("losses").len() {
            let (batch, targets) = self.training_batch(step - 1)?;
            let (loss, grads) = self.gradients(model, &batch, &targets, step as u32)?;
            losses.push(loss);
            let cx = self.inference();
            optimizer.step(&cx, model, grads, schedule.lr_at(step) as f32)?;
            if list("snapshots").contains(&(step as f64)) {
                for ((name, t), (_, start)) in full_weights(model)?.iter().zip(&start) {
                    let name = format!("step{step}.base_model.model.{name}");
                    rows.push(self.reference.compare(&name, t, Some(start))?);
                }
            }
        }
        rows.push(self.reference.compare_scalars("train.losses", &losses, &list("losses"))?);
        Ok(rows)
    }

    /// Compares the greedy tokens of every prompt, all in one batch, exactly. Not in bf16, where two close logits may swap
    /// places: there the logits are compared instead.
    fn generation(&self, model: &Llama, key: &str) -> Result<Vec<TensorComparison>> {
        if model.compute() == DType::BF16 {
            return Ok(Vec::new());
        }
        let generation = &self.reference.json["generation"];
        let cases = generation["cases"].as_array().cloned().unwrap_or_default();
        let ids = |v: &serde_json::Value| -> Vec<u32> {
            v.as_array().into_iter().flatten().filter_map(|t| t.as_u64()).map(|t| t as u32).collect()
        };
        let requests: Vec<GenerationRequest> = cases
            .iter()
            .map(|c| GenerationRequest {
                stop_at_eos: false,
                ..GenerationRequest::greedy(ids(&c["prompt"]), ids(&c[key]).len())
            })
            .collect();
        let made = generate(self.device, model, None, &requests, SchedulerConfig::default(), &mut |_| {})?;
        let wrong = cases.iter().zip(&made).flat_map(|(case, made)| {
            let pairs: Vec<bool> =
                ids(&case[key]).iter().zip(&made[0].token_ids).map(|(a, b)| a != b).collect();
            pairs
        });
        let wrong = wrong.filter(|&w| w).count() as f64;
        let tensor = format!("generation.{key}");
        Ok(vec![TensorComparison { tensor, error: wrong, limit: 0.0, max_abs: wrong, max_abs_limit: 0.0 }])
    }

    /// Compares W + s B A for the weights that the case stores.
    fn merged(&self, checkpoint: &Checkpoint, adapter: &Adapter) -> Result<Vec<TensorComparison>> {
        let stored = self.reference.names()?;
        let mut rows = Vec::new();
        for (path, pair) in &adapter.modules {
            let name = format!("merged.{path}.weight");
            if stored.contains(&name) {
                let weight = format!("{path}.weight");
                let merged = merge::merged_weight(checkpoint, &weight, pair, &adapter.config)?;
                rows.push(self.reference.compare(&name, &floats(&merged)?, None)?);
            }
        }
        Ok(rows)
    }

    /// Compares the gradients that full training has of the base model's biases, where the case stores them. Frozen weights in
    /// shards have none.
    fn bias_gradients(&self, checkpoint: &Checkpoint, compute: DType) -> Result<Vec<TensorComparison>> {
        let stored = self.reference.names()?;
        let is_stored = |name: &str| stored.iter().any(|stored| stored.strip_prefix("grad.") == Some(name));
        let any = stored.iter().any(|name| name.starts_with("grad.model."));
        if !any || self.layout.layout() == Layout::Shard {
            return Ok(Vec::new());
        }
        let model = Llama::load(self.layout.clone(), checkpoint, compute, Trainable::AllWeights)?;
        let targets = next_labels(&self.reference.ints("labels")?);
        let (_, grads) = self.gradients(&model, &self.sequence()?.1, &targets, 0)?;
        let mut rows = Vec::new();
        for (name, t) in model.trainable().into_iter().filter(|(name, _)| is_stored(name)) {
            let g = grads.get(t).ok_or_else(|| Error::new(format!("`{name}` has no gradient")))?;
            let full = floats(&model.gather_full(&name, g)?)?;
            rows.push(self.reference.compare(&format!("grad.{name}"), &full, None)?);
        }
        Ok(rows)
    }

    fn inference(&self) -> Ctx {
        Ctx::inference(self.device).with_comm(self.layout.tensor_parallel_comm())
    }

    fn sequence(&self) -> Result<(Vec<i64>, PackedBatch)> {
        let ids = self.reference.ints("input_ids")?;
        let tokens: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        Ok((ids, PackedBatch::new(self.device, &[&tokens])?))
    }

    /// Returns batch `i` of the training data: its rows as packed documents, without their padding.
    fn training_batch(&self, i: usize) -> Result<(PackedBatch, Vec<i32>)> {
        let shape = self.reference.shape("train.input_ids")?;
        let (batches, width) = (shape[0], shape[2]);
        let [ids, mask, labels] =
            ["train.input_ids", "train.attention_mask", "train.labels"].map(|name| self.reference.ints(name));
        let (ids, mask, labels) = (ids?, mask?, labels?);
        let (mut lengths, mut tokens, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..shape[1] {
            let at = (i % batches * shape[1] + row) * width;
            let length = mask[at..at + width].iter().sum::<i64>() as usize;
            lengths.push(length);
            tokens.extend(ids[at..at + length].iter().map(|&id| id as i32));
            targets.extend(next_labels(&labels[at..at + length]));
        }
        let keys = vec![0; tokens.len()];
        Ok((PackedBatch::with_dropout_keys(self.device, &lengths, &tokens, &keys)?, targets))
    }

    /// Returns the mean loss over the labelled tokens, and the log-probability of each token after the first.
    fn loss(&self, cx: &Ctx, model: &Llama, batch: &PackedBatch, targets: &[i32]) -> Result<(f64, Vec<f64>)> {
        let targets = Targets::new(self.device, targets)?;
        let scale = 1.0 / targets.labelled() as f32;
        let (loss, logprobs) = model.loss(cx, batch, &targets, scale, ForwardOptions::default())?;
        let mut logprobs = floats(&logprobs)?;
        logprobs.pop();
        Ok((floats(&loss)?[0], logprobs))
    }

    fn gradients(
        &self,
        model: &Llama,
        batch: &PackedBatch,
        targets: &[i32],
        step: u32,
    ) -> Result<(f64, Grads)> {
        let cx = Ctx::training(self.device, 0, step).with_comm(self.layout.tensor_parallel_comm());
        let targets = Targets::new(self.device, targets)?;
        let scale = 1.0 / targets.labelled() as f32;
        let (loss, _) = model.loss(&cx, batch, &targets, scale, ForwardOptions::default())?;
        let mut grads = Grads::default();
        let one = self.device.tensor(Label::Gradients, *loss.shape(), &[1.0f32])?;
        cx.backward([(&loss, one)], &mut grads)?;
        Ok((floats(&loss)?[0], grads))
    }

    fn scalar(&self, name: &str, ours: f64) -> Result<TensorComparison> {
        self.reference.compare_scalars(name, &[ours], &[self.reference.scalar(name)?]).at(name)
    }
}

/// Returns the target of each position: the next label, none at the end.
fn next_labels(labels: &[i64]) -> Vec<i32> {
    labels[1..].iter().map(|&l| l as i32).chain([-100]).collect()
}

fn floats(t: &Tensor) -> Result<Vec<f64>> {
    Ok(value(t)?.data)
}

/// Returns x of (T, heads·D) in the reference's order, (heads, T, D).
fn by_head(t: &Tensor, heads: usize) -> Result<Vec<f64>> {
    let (rows, columns) = t.shape().as_matrix();
    let (x, d) = (floats(t)?, columns / heads);
    let rows_of = |head: usize| (0..rows).map(move |r| r * columns + head * d);
    Ok((0..heads).flat_map(rows_of).flat_map(|at| x[at..at + d].to_vec()).collect())
}
