//! A training step and a decoding step of Code Llama 13B, modelled as the sum of their launches.
//!
//! The two tables list the calls of a layer and those around the layers, as the model makes them on one GPU; where the
//! model's calls change, these tables do. `launches` runs them on the software GPU.

use super::adapter;
use super::op::{DRAWN, PredictedKernel, blocks, kernels, sum};
use super::{Chip, sampled_launches};
use crate::counters::{Passes, run_passes};
use crate::specs::specs;
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::{At, Ctx, DType, Device, Label, Outs, Result, Tensor};
use codelsi_kernels::adamw::{AdamWParam, Hyperparameters, adamw, sum_of_squares};
use codelsi_kernels::elementwise::add;
use codelsi_kernels::flash::{self, Heads, PagedBatch, arrivals, flash_paged};
use codelsi_kernels::gemm::{gated_linear, linears};
use codelsi_kernels::kvstore::{TokenSlots, rope_kvstore};
use codelsi_kernels::rmsnorm::{add_rmsnorm, rmsnorm};
use codelsi_kernels::rope;
use codelsi_kernels::spec::{Case, Compare, Cost, Input};
use serde_json::{Value, json};

const LAYERS: usize = 40;
const HIDDEN: usize = 5120;
const MLP: usize = 13824;
const HEADS: usize = 40;
const HEAD_DIM: usize = 128;
const VOCABULARY: usize = 32016;
/// Parameters of the adapters of all layers, rank 16.
const ADAPTERS: usize = 62_586_880;
/// Tokens of a document in training, and of a sequence in decoding.
const DOCUMENT: usize = 2048;
/// Tokens of a page of keys and values.
const PAGE: usize = 16;
/// Blocks of each launch that are executed; of attention, where they see more or fewer keys.
const SAMPLED: u64 = 8;
const OF_ATTENTION: u64 = 64;

/// A call of an op on rows of activations: tokens of a training step, sequences of a decoding step.
struct Call {
    name: &'static str,
    launches: fn(&Device, usize) -> Result<Vec<LaunchRecord>>,
}

const fn call(name: &'static str, launches: fn(&Device, usize) -> Result<Vec<LaunchRecord>>) -> Call {
    Call { name, launches }
}

/// A step of the model.
pub struct Step {
    pub name: &'static str,
    /// Name of its rows, and their number when none is given.
    rows: (&'static str, usize),
    layer: &'static [Call],
    around: &'static [Call],
}

/// Training of LoRA, rank 16, dropout 0.05: documents of 2,048 tokens, forward and backward, no layer recomputed.
pub static TRAINING: Step = Step {
    name: "step",
    rows: ("tokens", 8192),
    layer: &[
        call("input norm", |device, t| norm(device, t, Passes::Both)),
        call("q, k, v", |device, t| adapted(device, t, HIDDEN, &[HIDDEN; 3])),
        call("rope q", |device, t| op(device, "rope", &[t, HEADS, HEAD_DIM], Passes::Both)),
        call("rope k", |device, t| op(device, "rope", &[t, HEADS, HEAD_DIM], Passes::Both)),
        call("attention", attention),
        call("o", |device, t| adapted(device, t, HIDDEN, &[HIDDEN])),
        call("add, post norm", |device, t| add_norm(device, t, Passes::Both)),
        call("gate, up", |device, t| adapted(device, t, HIDDEN, &[MLP; 2])),
        call("swiglu", |device, t| op(device, "swiglu", &[t, MLP], Passes::Both)),
        call("down", |device, t| adapted(device, t, MLP, &[HIDDEN])),
        call("add", |device, t| residual(device, t, Passes::Both)),
    ],
    around: &[
        call("embedding", |device, t| op(device, "embed", &[VOCABULARY, HIDDEN, t], Passes::Forward)),
        call("final norm", |device, t| norm(device, t, Passes::Both)),
        call("head, loss", |device, t| op(device, "xent", &[t, HIDDEN, VOCABULARY], Passes::Both)),
        call("optimizer", |device, _| optimizer(device)),
    ],
};

/// Decoding without an adapter, a row a sequence, each of 2,048 tokens.
pub static DECODING: Step = Step {
    name: "decode",
    rows: ("sequences", 1),
    layer: &[
        call("add, input norm", |device, n| add_norm(device, n, Passes::Forward)),
        call("q, k, v", |device, n| group(device, n, HIDDEN, &[HIDDEN; 3])),
        call("rope, store", rope_and_store),
        call("attention", paged_attention),
        call("o", |device, n| product(device, n, HIDDEN, HIDDEN)),
        call("add, post norm", |device, n| add_norm(device, n, Passes::Forward)),
        call("gate, up, swiglu", gate_and_up),
        call("down", |device, n| product(device, n, HIDDEN, MLP)),
    ],
    around: &[
        call("embedding", |device, n| op(device, "embed", &[VOCABULARY, HIDDEN, n], Passes::Forward)),
        call("add, final norm", |device, n| add_norm(device, n, Passes::Forward)),
        call("head", |device, n| product(device, n, VOCABULARY, HIDDEN)),
        call("sample", |device, n| op(device, "sample", &[n, VOCABULARY], Passes::Forward)),
    ],
};

// ---- calls

/// Runs an op at sizes of its declaration; without gradients in forward.
fn op(device: &Device, name: &str, sizes: &[usize], passes: Passes) -> Result<Vec<LaunchRecord>> {
    let spec = specs(&[name.to_owned()])?[0];
    sampled(device, (spec.shapes.case)(DType::BF16, sizes), passes, blocks(name, SAMPLED))
}

fn sampled(device: &Device, mut case: Case, passes: Passes, blocks: u64) -> Result<Vec<LaunchRecord>> {
    if passes == Passes::Forward {
        case.inputs = case.inputs.into_iter().map(Input::frozen).collect();
    }
    sampled_launches(device, blocks, || run_passes(device, &case, DType::BF16, passes, DRAWN))
}

/// Runs a function of activations, all (rows, HIDDEN), and of a frozen weight (HIDDEN), given last.
fn residual_stream(
    device: &Device,
    rows: usize,
    activations: usize,
    passes: Passes,
    function: impl Fn(&Ctx, &[&Tensor]) -> Result<Outs> + 'static,
) -> Result<Vec<LaunchRecord>> {
    let mut inputs: Vec<Input> = (0..activations).map(|_| Input::storage([rows, HIDDEN])).collect();
    inputs.push(Input::storage([HIDDEN]).frozen());
    let case = Case {
        name: String::new(),
        inputs,
        run: Box::new(function),
        reference: Box::new(|_| Vec::new()),
        compare: Compare::Error,
        terms: 1,
        cost: Cost::default(),
    };
    sampled(device, case, passes, SAMPLED)
}

const EPS: f32 = 1e-5;

fn norm(device: &Device, rows: usize, passes: Passes) -> Result<Vec<LaunchRecord>> {
    residual_stream(device, rows, 1, passes, |cx, x| Ok(vec![rmsnorm(cx, x[0], x[1], EPS)?]))
}

fn add_norm(device: &Device, rows: usize, passes: Passes) -> Result<Vec<LaunchRecord>> {
    residual_stream(device, rows, 2, passes, |cx, x| {
        let (sum, y) = add_rmsnorm(cx, x[0], x[1], x[2], EPS)?;
        Ok(vec![sum, y])
    })
}

fn residual(device: &Device, rows: usize, passes: Passes) -> Result<Vec<LaunchRecord>> {
    residual_stream(device, rows, 2, passes, |cx, x| Ok(vec![add(cx, x[0], x[1])?]))
}

/// Linears of one input with their adapters.
fn adapted(device: &Device, tokens: usize, inner: usize, outs: &[usize]) -> Result<Vec<LaunchRecord>> {
    Ok(adapter::passes(device, tokens, inner, outs, true)?.concat())
}

/// A product with a frozen weight (n, k).
fn product(device: &Device, rows: usize, n: usize, k: usize) -> Result<Vec<LaunchRecord>> {
    op(device, "gemm", &[rows, n, k], Passes::Forward)
}

/// Attention of documents of DOCUMENT tokens.
fn attention(device: &Device, tokens: usize) -> Result<Vec<LaunchRecord>> {
    let mut documents = vec![DOCUMENT; tokens / DOCUMENT];
    documents.extend(Some(tokens % DOCUMENT).filter(|&rest| rest > 0));
    let heads = Heads { heads: HEADS, kv_heads: HEADS, head_dim: HEAD_DIM };
    sampled(device, flash::spec::case(DType::BF16, &documents, heads), Passes::Both, OF_ATTENTION)
}

/// Linears of one input in one launch.
fn group(device: &Device, rows: usize, inner: usize, outs: &[usize]) -> Result<Vec<LaunchRecord>> {
    let (x, weights) = zeros_of_linears(device, rows, inner, outs);
    let weights: Vec<&Tensor> = weights.iter().collect();
    sampled_launches(device, SAMPLED, || linears(&Ctx::inference(device), &x, &weights).map(drop))
}

/// Gate and up, and SwiGLU of both.
fn gate_and_up(device: &Device, rows: usize) -> Result<Vec<LaunchRecord>> {
    let (x, weights) = zeros_of_linears(device, rows, HIDDEN, &[MLP; 2]);
    let pair = [&weights[0], &weights[1]];
    sampled_launches(device, SAMPLED, || gated_linear(&Ctx::inference(device), &x, pair).map(drop))
}

fn zeros_of_linears(device: &Device, rows: usize, inner: usize, outs: &[usize]) -> (Tensor, Vec<Tensor>) {
    let weights = outs.iter().map(|&n| device.zeros(Label::Weights, [n, inner], DType::BF16));
    (device.zeros(Label::Activations, [rows, inner], DType::BF16), weights.collect())
}

/// Queries and keys of new tokens, rotated; keys and values, stored in pages.
fn rope_and_store(device: &Device, rows: usize) -> Result<Vec<LaunchRecord>> {
    let pages = || device.zeros(Label::Kv, [rows.div_ceil(PAGE), HEADS, PAGE, HEAD_DIM], DType::BF16);
    let (mut k_pages, mut v_pages) = (pages(), pages());
    let x = device.zeros(Label::Activations, [rows, HIDDEN], DType::BF16);
    let index = device.tensor(Label::Activations, [rows], &(0..rows as i32).collect::<Vec<_>>())?;
    let rope_table = rope::cos_sin_table(device, rows, &rope::inverse_frequencies(HEAD_DIM, 1e6), 1.0)?;
    let slots = TokenSlots { positions: &index, rope_table: &rope_table, slots: &index };
    let heads = Heads { heads: HEADS, kv_heads: HEADS, head_dim: HEAD_DIM };
    sampled_launches(device, SAMPLED, || {
        let pages = [&mut k_pages, &mut v_pages];
        rope_kvstore(&Ctx::inference(device), pages, [&x, &x, &x], slots, heads).map(drop)
    })
}

/// Attention of new tokens, each the last of a sequence of DOCUMENT tokens.
fn paged_attention(device: &Device, rows: usize) -> Result<Vec<LaunchRecord>> {
    let of_sequence = DOCUMENT / PAGE;
    let pages = || device.zeros(Label::Kv, [rows * of_sequence, HEADS, PAGE, HEAD_DIM], DType::BF16);
    let (k_pages, v_pages) = (pages(), pages());
    let q = device.zeros(Label::Activations, [rows, HIDDEN], DType::BF16);
    let integers = |shape: &[usize], values: Vec<i32>| device.tensor(Label::Activations, shape, &values);
    let sequences = integers(&[rows], (0..rows as i32).collect())?;
    let positions = integers(&[rows], vec![DOCUMENT as i32 - 1; rows])?;
    let tables = integers(&[rows, of_sequence], (0..(rows * of_sequence) as i32).collect())?;
    let batch = PagedBatch { sequences: &sequences, positions: &positions, block_tables: &tables };
    let heads = Heads { heads: HEADS, kv_heads: HEADS, head_dim: HEAD_DIM };
    let mut arrivals = arrivals(device, rows, heads);
    sampled_launches(device, SAMPLED, || {
        flash_paged(&Ctx::inference(device), &q, [&k_pages, &v_pages], batch, &mut arrivals, heads).map(drop)
    })
}

/// The norm of all gradients of the adapters, and their update.
fn optimizer(device: &Device) -> Result<Vec<LaunchRecord>> {
    let zeros = || device.zeros(Label::Moments, [ADAPTERS], DType::F32);
    let (mut p, g, mut m, mut v) = (zeros(), zeros(), zeros(), zeros());
    let (beta1, beta2, eps, weight_decay) = (0.9, 0.999, 1e-8, 0.0);
    let hyper = Hyperparameters { lr: 1e-4, beta1, beta2, eps, weight_decay, step: 1, max_norm: 1.0 };
    let cx = Ctx::inference(device);
    sampled_launches(device, SAMPLED, || {
        let squares = sum_of_squares(&cx, [&g])?;
        adamw(&cx, &mut [AdamWParam { p: &mut p, g: &g, m: &mut m, v: &mut v }], &hyper, &squares)
    })
}

// ---- sums

/// The modelled time of a step.
pub struct PredictedStep {
    chip: Chip,
    step: &'static Step,
    rows: usize,
    /// Calls of one layer, then those around the layers.
    layer: Vec<PredictedCall>,
    around: Vec<PredictedCall>,
}

/// A call and its kernels.
struct PredictedCall {
    name: &'static str,
    kernels: Vec<PredictedKernel>,
}

/// Models a step on a chip.
///
/// # Errors
/// When an op fails, or there is no compiler.
pub fn predict_step(chip: &Chip, step: &'static Step, rows: Option<usize>) -> Result<PredictedStep> {
    let device = Device::emulated(&chip.arch)?;
    let rows = rows.unwrap_or(step.rows.1);
    let calls = |calls: &'static [Call]| -> Result<Vec<PredictedCall>> {
        let one = |call: &Call| {
            let launches = (call.launches)(&device, rows).at(call.name)?;
            Ok(PredictedCall { name: call.name, kernels: kernels(chip, &launches)? })
        };
        calls.iter().map(one).collect()
    };
    Ok(PredictedStep {
        chip: chip.clone(),
        step,
        rows,
        layer: calls(step.layer)?,
        around: calls(step.around)?,
    })
}

impl PredictedStep {
    /// Launches and seconds of one layer, and of the step.
    fn sums(&self) -> [(usize, f64); 2] {
        let of = |calls: &[PredictedCall]| {
            calls.iter().map(|call| sum(&call.kernels)).fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
        };
        let (layer, around) = (of(&self.layer), of(&self.around));
        [layer, (LAYERS * layer.0 + around.0, LAYERS as f64 * layer.1 + around.1)]
    }

    /// Every call, with the times that it is made in the step.
    fn calls(&self) -> impl Iterator<Item = (usize, &PredictedCall)> {
        let times = |times| move |call| (times, call);
        self.layer.iter().map(times(LAYERS)).chain(self.around.iter().map(times(1)))
    }

    /// Returns an object of each kernel of each call.
    pub fn rows(&self) -> Vec<Value> {
        let row = |(times, call, k): (usize, &PredictedCall, &PredictedKernel)| {
            json!({
                "step": self.step.name, self.step.rows.0: self.rows, "chip": self.chip.name, "arch": self.chip.arch,
                "dtype": "BF16", "call": call.name, "times": times, "kernel": k.kernel, "launches": k.launches,
                "seconds": k.seconds, "bound": k.bound(), "share_of_roof": k.share(),
            })
        };
        let kernels =
            self.calls().flat_map(|(times, call)| call.kernels.iter().map(move |k| (times, call, k)));
        kernels.map(row).collect()
    }

    /// Returns the step as JSON.
    pub fn object(&self) -> Value {
        let [layer, all] = self.sums();
        json!({
            "step": self.step.name, self.step.rows.0: self.rows, "chip": self.chip.name, "arch": self.chip.arch,
            "launches_per_layer": layer.0, "seconds_per_layer": layer.1, "launches": all.0, "seconds": all.1,
            "tokens_per_s": self.rows as f64 / all.1, "kernels": self.rows(),
        })
    }

    /// Returns the table of the calls.
    pub fn table(&self) -> String {
        let Step { name, rows: (unit, _), .. } = self.step;
        let mut text = format!(
            "{name}, {} {unit}, {}\n{:<16}{:>7}{:>10}{:>12}{:>8}  {}\n",
            self.rows, self.chip.name, "call", "times", "launches", "us", "roof", "longest kernel, bound"
        );
        for (times, call) in self.calls() {
            let (launches, seconds) = sum(&call.kernels);
            let roof: f64 = call.kernels.iter().map(|k| k.roof).sum();
            let longest = call.kernels.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
            let longest = longest.map_or(String::new(), |k| format!("{}, {}", k.kernel, k.bound()));
            let (us, share) = (seconds * 1e6, 100.0 * roof / seconds);
            text +=
                &format!("{:<16}{times:>7}{launches:>10}{us:>12.1}{share:>6.0} %  {longest}\n", call.name);
        }
        let [layer, all] = self.sums();
        text + &format!(
            "a layer: {} launches, {:.1} us; all: {} launches, {:.2} ms, {:.0} tokens/s\n",
            layer.0,
            layer.1 * 1e6,
            all.0,
            all.1 * 1e3,
            self.rows as f64 / all.1
        )
    }
}
