//! Runs a step on the device: one copy sends its inputs, and one copy returns the sampled tokens.
//!
//! A decode-only step is therefore the same work for every batch of its size, whatever its sequences are: on a GPU it is
//! recorded once as a CUDA graph and replayed, instead of launching each kernel. Recordings are kept by the number of
//! sequences and by the width of their block tables, which [`table_width`] rounds, so that grids are as large as the
//! sequences are.

use super::kv_cache::KvCache;
use crate::adapter_stack::{AdapterStack, RowAdapters};
use crate::llama::{Llama, Qkv, ResidualStream, RowContext};
use crate::parallel::Layout;
use codelsi_engine::cuda::GraphCache;
use codelsi_engine::{Ctx, DType, Device, Label, Result, Shape, StagedInputs, Tensor};
use codelsi_kernels::dropout::DropoutRate;
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::{PagedBatch, flash_paged};
use codelsi_kernels::kvstore::{TokenSlots, rope_kvstore};
use codelsi_kernels::sample::{CHOICE_WORDS, PARAM_WORDS, PackedParams, SampledToken, draw, read};
use half::bf16;

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
    /// Slot of each row's adapter in the stack, −1 for none.
    adapters: Vec<i32>,
    /// Block tables of the sequences, `width` pages each, padded with −1.
    pub block_tables: Vec<i32>,
    pub width: usize,
    /// Rows whose logits are computed, ascending.
    pub logit_rows: Vec<i32>,
    /// Index into `logit_rows` of each token to sample.
    pub sample_rows: Vec<i32>,
    /// Sampling parameters of each token to sample.
    pub sampling: PackedParams,
    /// True to return the logits of `logit_rows` too.
    pub wants_logits: bool,
}

/// Results of a step.
pub(super) struct StepOutputs {
    /// The sampled tokens, in the order of [`StepInputs::sample_rows`]; an error where logits are not finite.
    pub choices: Vec<Result<SampledToken>>,
    /// Logits (rows, V) of [`StepInputs::logit_rows`], where they are wanted.
    pub logits: Vec<f32>,
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
            adapters: vec![-1; n],
            block_tables: vec![0; n * width],
            width,
            sequences: all.clone(),
            logit_rows: all.clone(),
            sample_rows: all,
            sampling: PackedParams { params: vec![0; n * PARAM_WORDS], previous: Vec::new() },
            wants_logits: false,
        }
    }

    /// Appends a row, of the adapter in the slot `adapter` of the stack.
    pub fn push(
        &mut self,
        token: u32,
        position: usize,
        sequence: usize,
        slot: usize,
        adapter: Option<usize>,
    ) {
        self.tokens.push(token as i32);
        self.positions.push(position as i32);
        self.sequences.push(sequence as i32);
        self.slots.push(slot as i32);
        self.adapters.push(adapter.map_or(-1, |adapter| adapter as i32));
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// True if every row belongs to another sequence, whose next token is sampled from it.
    fn is_decode_only(&self) -> bool {
        self.rows() == self.logit_rows.len() && self.samples_each_row() && !self.wants_logits
    }

    /// True if one token is sampled from each row of logits.
    fn samples_each_row(&self) -> bool {
        self.sample_rows.len() == self.logit_rows.len()
            && (0..).zip(&self.sample_rows).all(|(i, &row)| row == i)
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
        let lengths = [rows, rows, rows, rows, rows, s * width, s, s, s * PARAM_WORDS, penalized];
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
    /// True if steps are recorded where that is possible.
    records: bool,
    /// By rows, and by the width of block tables.
    graphs: Option<GraphCache<(usize, usize)>>,
}

/// A step's inputs on the device.
struct DeviceInputs {
    tokens: Tensor,
    positions: Tensor,
    sequences: Tensor,
    slots: Tensor,
    adapters: Tensor,
    block_tables: Tensor,
    has_logits: bool,
    wants_logits: bool,
    /// Empty if the logits of all rows are computed, or of none.
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
        stack: &AdapterStack,
        capacity: StepCapacity,
        graphs: bool,
    ) -> Result<Self> {
        let graphs = if graphs { graph_recorder(device, model) } else { None };
        let mut runner = ModelRunner {
            cx: Ctx::inference(device).with_comm(model.rank_layout().tensor_parallel_comm()),
            parcel: StagedInputs::new(device, Label::Activations, capacity.integers())?,
            choices: device.zeros(Label::Activations, [capacity.sequences, CHOICE_WORDS], DType::I32),
            records: graphs.is_some(),
            graphs,
            model,
            capacity,
        };
        runner.reserve(cache, stack)?;
        Ok(runner)
    }

    /// Forgets the recorded steps, which a stack with more linears makes wrong, and reserves the memory of new ones.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn record_anew(&mut self, cache: &mut KvCache, stack: &AdapterStack) -> Result<()> {
        if self.graphs.take().is_some() {
            self.graphs = graph_recorder(self.cx.device(), self.model);
        }
        self.reserve(cache, stack)
    }

    /// Reserves the memory of recorded steps.
    fn reserve(&mut self, cache: &mut KvCache, stack: &AdapterStack) -> Result<()> {
        let StepCapacity { sequences, width, .. } = self.capacity;
        let Some(mut graphs) = self.graphs.take_if(|_| sequences > 0) else { return Ok(()) };
        let inputs = self.send(&StepInputs::decode_shape(sequences, width))?;
        let mut work = || compute(&self.cx, self.model, cache, stack, &inputs, &mut self.choices);
        graphs.reserve(|| work().map(drop))?;
        self.graphs = Some(graphs);
        Ok(())
    }

    /// Runs a step: writes keys and values of its rows to the cache, and returns the sampled tokens.
    ///
    /// # Errors
    /// When an op fails.
    pub fn run(
        &mut self,
        cache: &mut KvCache,
        stack: &AdapterStack,
        step: &StepInputs,
    ) -> Result<StepOutputs> {
        let inputs = self.send(step)?;
        let ModelRunner { cx, model, choices, graphs, .. } = self;
        let mut launch = || compute(cx, model, cache, stack, &inputs, choices);
        let logits = match graphs {
            Some(graphs) if step.is_decode_only() => {
                graphs.run((step.rows(), step.width), || launch().map(drop))?;
                None
            }
            _ => launch()?,
        };
        Ok(StepOutputs {
            choices: match step.sample_rows.len() {
                0 => Vec::new(),
                sampled => read(cx, choices, sampled, model.config().vocab)?,
            },
            logits: logits.map(|logits| to_f32(&logits)).transpose()?.unwrap_or_default(),
        })
    }

    /// Sends a step's inputs to the device.
    fn send(&mut self, step: &StepInputs) -> Result<DeviceInputs> {
        let StepInputs {
            tokens,
            positions,
            sequences,
            slots,
            adapters,
            block_tables,
            width,
            logit_rows,
            sample_rows,
            sampling,
            wants_logits,
        } = step;
        let (samples, has_logits) = (sample_rows.len(), !logit_rows.is_empty());
        let sample_rows: &[i32] = if step.samples_each_row() { &[] } else { sample_rows };
        let logit_rows: &[i32] = if logit_rows.len() == step.rows() { &[] } else { logit_rows };
        let vector = |values: &[i32]| Shape::from([values.len()]);
        // Only a recorded step has fixed shapes.
        let previous = if self.records { self.capacity.penalized } else { sampling.previous.len() };
        let [
            tokens,
            positions,
            sequences,
            slots,
            adapters,
            block_tables,
            logit_rows,
            sample_rows,
            params,
            previous,
        ] = self.parcel.upload([
            (vector(tokens), tokens),
            (vector(positions), positions),
            (vector(sequences), sequences),
            (vector(slots), slots),
            (vector(adapters), adapters),
            (Shape::from([block_tables.len() / width, *width]), block_tables),
            (vector(logit_rows), logit_rows),
            (vector(sample_rows), sample_rows),
            (Shape::from([samples, PARAM_WORDS]), &sampling.params),
            (Shape::from([previous]), &sampling.previous),
        ])?;
        Ok(DeviceInputs {
            tokens,
            positions,
            sequences,
            slots,
            adapters,
            block_tables,
            has_logits,
            wants_logits: *wants_logits,
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

/// Computes a step on the device, without its copies from and to the host: writes the sampled tokens to `choices`, and
/// returns the logits where they are wanted.
fn compute(
    cx: &Ctx,
    model: &Llama,
    cache: &mut KvCache,
    stack: &AdapterStack,
    inputs: &DeviceInputs,
    choices: &mut Tensor,
) -> Result<Option<Tensor>> {
    let mut stream = forward(cx, model, cache, stack, inputs)?;
    if !inputs.has_logits {
        return Ok(None);
    }
    if inputs.logit_rows.shape().elements() > 0 {
        stream = gather_rows(cx, stream.sum(cx)?, &inputs.logit_rows)?.into();
    }
    let logits = model.logits(cx, &model.final_norm(cx, stream)?)?;
    let wanted = inputs.wants_logits.then(|| logits.clone());
    if inputs.params.shape().elements() > 0 {
        let logits = gather_rows(cx, logits, &inputs.sample_rows)?;
        draw(cx, choices, &logits, &inputs.params, &inputs.previous)?;
    }
    Ok(wanted)
}

/// Returns the residual stream (rows, C) after the last layer; writes keys and values to the cache.
fn forward(
    cx: &Ctx,
    model: &Llama,
    cache: &mut KvCache,
    stack: &AdapterStack,
    inputs: &DeviceInputs,
) -> Result<ResidualStream> {
    let DeviceInputs { tokens, positions, sequences, slots, adapters, block_tables, .. } = inputs;
    let turns = cache.turns.clone();
    let rows = RowContext {
        positions,
        rope: model.rope(),
        dropout_keys: None,
        turns: Some(&turns),
        adapters: stack.has_room().then_some(RowAdapters { stack, slots: adapters }),
    };
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

/// Copies logits to the host.
fn to_f32(logits: &Tensor) -> Result<Vec<f32>> {
    match logits.dtype() {
        DType::BF16 => Ok(logits.to_vec::<bf16>()?.into_iter().map(bf16::to_f32).collect()),
        _ => logits.to_vec(),
    }
}
