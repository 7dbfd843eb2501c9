//! Runs a step on the device: one copy sends its inputs, and one copy returns the sampled tokens.
//!
//! A decode-only step is therefore the same work for every batch of its size, whatever its sequences are: on a GPU it is
//! recorded once as a CUDA graph and replayed, instead of launching each kernel. Recordings are kept by the number of
//! sequences and by the width of their block tables, which [`table_width`] rounds, so that grids are as large as the
//! sequences are.

use super::kv_cache::KvCache;
use crate::llama::{Llama, Qkv, ResidualStream, RowContext};
use crate::parallel::Layout;
use codelsi_engine::cuda::GraphCache;
use codelsi_engine::{Ctx, DType, Device, Label, Result, Shape, StagedInputs, Tensor};
use codelsi_kernels::dropout::DropoutRate;
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::{PagedBatch, flash_paged};
use codelsi_kernels::kvstore::{TokenSlots, rope_kvstore};
use codelsi_kernels::sample::{CHOICE_WORDS, PARAM_WORDS, PackedParams, SampledToken, draw, read};

/// The inputs of one step: rows of tokens, and the tokens to sample after them.
#[derive(Default)]
pub(super) struct StepInputs {
    /// Token of each row.
    tokens: Vec<i32>,
    /// Position of each row in its sequence.
    positions: Vec<i32>,
    /// Index of each row's sequence.
    sequences: Vec<i32>,
    /// Slot of each row's key and value in the KV cache.
    slots: Vec<i32>,
    /// Block tables of the sequences, `width` pages each, padded with −1.
    pub block_tables: Vec<i32>,
    pub width: usize,
    /// Rows whose logits are computed, ascending.
    pub logit_rows: Vec<i32>,
    /// Index into `logit_rows` of each token to sample.
    pub sample_rows: Vec<i32>,
    /// Sampling parameters of each token to sample.
    pub sampling: PackedParams,
}

impl StepInputs {
    /// Inputs without content of a step that decodes `n` sequences of `width` pages.
    fn decode_shape(n: usize, width: usize) -> Self {
        let all: Vec<i32> = (0..n as i32).collect();
        let zeros = vec![0; n];
        StepInputs {
            tokens: zeros.clone(),
            positions: zeros.clone(),
            slots: zeros,
            block_tables: vec![0; n * width],
            width,
            sequences: all.clone(),
            logit_rows: all.clone(),
            sample_rows: all,
            sampling: PackedParams { params: vec![0; n * PARAM_WORDS], previous: Vec::new() },
        }
    }

    /// Appends a row.
    pub fn push(&mut self, token: u32, position: usize, sequence: usize, slot: usize) {
        self.tokens.push(token as i32);
        self.positions.push(position as i32);
        self.sequences.push(sequence as i32);
        self.slots.push(slot as i32);
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// True if every row belongs to another sequence, whose next token is sampled from it.
    fn is_decode_only(&self) -> bool {
        self.rows() == self.logit_rows.len() && self.rows() == self.sample_rows.len()
    }
}

/// Returns the width of the block tables of a step whose longest sequence has `pages` pages, at most `capacity`: its
/// tokens rounded up to a power of two, so that few widths serve all steps.
pub(super) fn table_width(pages: usize, page_size: usize, capacity: usize) -> usize {
    /// Tokens below which attention's grid does not shrink.
    const SHORTEST: usize = 256;
    (pages * page_size).max(SHORTEST).next_power_of_two().div_ceil(page_size).min(capacity)
}

/// Upper limits of a step's inputs.
pub(super) struct StepCapacity {
    /// Rows of prompts and of decoding sequences.
    pub rows: usize,
    /// Sequences, and sampled tokens.
    pub sequences: usize,
    /// Pages of a sequence.
    pub width: usize,
    /// Tokens that a repetition penalty reads, of all sequences in total.
    pub penalized: usize,
}

impl StepCapacity {
    /// Number of integers sent to the device.
    fn integers(&self) -> usize {
        let StepCapacity { rows, sequences: s, width, penalized } = *self;
        let lengths = [rows, rows, rows, rows, s * width, s, s, s * PARAM_WORDS, penalized];
        lengths.into_iter().map(StagedInputs::padded).sum()
    }
}

/// Runs steps of a model.
pub(super) struct ModelRunner<'a> {
    pub cx: Ctx,
    model: &'a Llama,
    capacity: StepCapacity,
    parcel: StagedInputs,
    /// The sampled tokens, (sequences, [`CHOICE_WORDS`]) i32.
    choices: Tensor,
    /// By rows, and by the width of block tables.
    graphs: Option<GraphCache<(usize, usize)>>,
}

/// A step's inputs on the device.
struct DeviceInputs {
    tokens: Tensor,
    positions: Tensor,
    sequences: Tensor,
    slots: Tensor,
    block_tables: Tensor,
    /// Empty if the logits of all rows are computed.
    logit_rows: Tensor,
    /// Empty if one token is sampled from each row of logits.
    sample_rows: Tensor,
    params: Tensor,
    previous: Tensor,
}

impl<'a> ModelRunner<'a> {
    /// Prepares for steps of at most `capacity` over `cache`. With `cuda_graphs`, decode-only steps are recorded where
    /// that is possible, and the memory of the largest of them is reserved.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(
        device: &Device,
        model: &'a Llama,
        cache: &mut KvCache,
        capacity: StepCapacity,
        graphs: bool,
    ) -> Result<Self> {
        let mut runner = ModelRunner {
            cx: Ctx::inference(device).with_comm(model.rank_layout().tensor_parallel_comm()),
            parcel: StagedInputs::new(device, Label::Activations, capacity.integers())?,
            choices: device.zeros(Label::Activations, [capacity.sequences, CHOICE_WORDS], DType::I32),
            graphs: if graphs { graph_recorder(device, model) } else { None },
            model,
            capacity,
        };
        runner.reserve(cache)?;
        Ok(runner)
    }

    /// Reserves the memory of recorded steps.
    fn reserve(&mut self, cache: &mut KvCache) -> Result<()> {
        let StepCapacity { sequences, width, .. } = self.capacity;
        let Some(mut graphs) = self.graphs.take_if(|_| sequences > 0) else { return Ok(()) };
        let inputs = self.send(&StepInputs::decode_shape(sequences, width))?;
        graphs.reserve(|| compute(&self.cx, self.model, cache, &inputs, &mut self.choices))?;
        self.graphs = Some(graphs);
        Ok(())
    }

    /// Runs a step: writes keys and values of its rows to the cache, and returns the sampled tokens in the order of
    /// [`StepInputs::sample_rows`].
    ///
    /// # Errors
    /// When an op fails, or when the logits are not finite.
    pub fn run(&mut self, cache: &mut KvCache, step: &StepInputs) -> Result<Vec<SampledToken>> {
        let inputs = self.send(step)?;
        let ModelRunner { cx, model, choices, graphs, .. } = self;
        let mut launch = || compute(cx, model, cache, &inputs, choices);
        match graphs {
            Some(graphs) if step.is_decode_only() => graphs.run((step.rows(), step.width), launch)?,
            _ => launch()?,
        }
        match step.sample_rows.len() {
            0 => Ok(Vec::new()),
            sampled => read(cx, choices, sampled, model.config().vocab),
        }
    }

    /// Sends a step's inputs to the device.
    fn send(&mut self, step: &StepInputs) -> Result<DeviceInputs> {
        let StepInputs {
            tokens,
            positions,
            sequences,
            slots,
            block_tables,
            width,
            logit_rows,
            sample_rows,
            sampling,
        } = step;
        let samples = sample_rows.len();
        let sample_rows: &[i32] = if samples == logit_rows.len() { &[] } else { sample_rows };
        let logit_rows: &[i32] = if logit_rows.len() == step.rows() { &[] } else { logit_rows };
        let vector = |values: &[i32]| Shape::from([values.len()]);
        let [tokens, positions, sequences, slots, block_tables, logit_rows, sample_rows, params, previous] =
            self.parcel.upload([
                (vector(tokens), tokens),
                (vector(positions), positions),
                (vector(sequences), sequences),
                (vector(slots), slots),
                (Shape::from([block_tables.len() / width, *width]), block_tables),
                (vector(logit_rows), logit_rows),
                (vector(sample_rows), sample_rows),
                (Shape::from([samples, PARAM_WORDS]), &sampling.params),
                // Always of full capacity: a recorded step has fixed shapes.
                (Shape::from([self.capacity.penalized]), &sampling.previous),
            ])?;
        Ok(DeviceInputs {
            tokens,
            positions,
            sequences,
            slots,
            block_tables,
            logit_rows,
            sample_rows,
            params,
            previous,
        })
    }
}

/// Returns a recorder of steps on a GPU. Steps in which ranks communicate are not recorded: their exchange goes
/// through the host or waits for it.
fn graph_recorder(device: &Device, model: &Llama) -> Option<GraphCache<(usize, usize)>> {
    match device {
        Device::Cuda(cuda) if model.rank_layout().layout() == Layout::Replicate => {
            Some(GraphCache::new(cuda))
        }
        _ => None,
    }
}

/// Computes a step on the device, without its copies from and to the host: writes the sampled tokens to `choices`.
fn compute(
    cx: &Ctx,
    model: &Llama,
    cache: &mut KvCache,
    inputs: &DeviceInputs,
    choices: &mut Tensor,
) -> Result<()> {
    let mut stream = forward(cx, model, cache, inputs)?;
    if inputs.params.shape().elements() == 0 {
        return Ok(());
    }
    if inputs.logit_rows.shape().elements() > 0 {
        stream = gather_rows(cx, stream.sum(cx)?, &inputs.logit_rows)?.into();
    }
    let logits = model.logits(cx, &model.final_norm(cx, stream)?)?;
    let logits = gather_rows(cx, logits, &inputs.sample_rows)?;
    draw(cx, choices, &logits, &inputs.params, &inputs.previous)
}

/// Returns the residual stream (rows, C) after the last layer; writes keys and values to the cache.
fn forward(cx: &Ctx, model: &Llama, cache: &mut KvCache, inputs: &DeviceInputs) -> Result<ResidualStream> {
    let DeviceInputs { tokens, positions, sequences, slots, block_tables, .. } = inputs;
    let turns = cache.turns.clone();
    let rows = RowContext { positions, rope: model.rope(), dropout_keys: None, turns: Some(&turns) };
    let paged = PagedBatch { sequences, positions, block_tables };
    let stored = TokenSlots { positions, rope_table: model.rope(), slots };
    let mut stream = ResidualStream::from(model.embed(cx, tokens)?);
    for (i, layer) in model.layers().iter().enumerate() {
        let ([k_pages, v_pages], arrivals) = cache.layer(i);
        stream = layer.forward(cx, stream, rows, DropoutRate::ZERO, |cx, Qkv { q, k, v }| {
            let q = rope_kvstore(cx, [k_pages, v_pages], [&q, &k, &v], stored, layer.heads())?;
            flash_paged(cx, &q, [k_pages, v_pages], paged, arrivals, layer.heads())
        })?;
    }
    Ok(stream)
}

/// Returns the rows of `x` at `index`, or all rows if it is empty.
fn gather_rows(cx: &Ctx, x: Tensor, index: &Tensor) -> Result<Tensor> {
    match index.shape().elements() {
        0 => Ok(x),
        // `embed` gathers rows.
        _ => embed(cx, &x, index, x.dtype()),
    }
}
