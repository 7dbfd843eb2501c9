//! One step on the device: what changes from step to step goes there in one copy, and the choices come back in one.
//!
//! So a step that only decodes is the same work for every batch of its size, whatever its sequences are: on a card it
//! is recorded once as a graph and replayed, without a launch of its own for each kernel.

use super::cache::Cache;
use crate::llama::{Llama, Place};
use crate::parallel::Layout;
use codelsi_engine::cuda::Graphs;
use codelsi_engine::{Ctx, DType, Device, Label, Parcel, Result, Shape, Tensor};
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::{Paged, flash_paged};
use codelsi_kernels::kvstore::kvstore;
use codelsi_kernels::sample::{CHOICE, Choice, PARAMS, Words, draw, read};

/// What one step computes: rows of tokens, and what is drawn from them.
#[derive(Default)]
pub(super) struct Step {
    tokens: Vec<i32>,
    /// Each row's place in its sequence, which sequence that is, and the slot of its key and value.
    positions: Vec<i32>,
    sequences: Vec<i32>,
    slots: Vec<i32>,
    /// Block tables of the sequences, as wide as the run's largest, padded with −1.
    pub tables: Vec<i32>,
    /// Rows whose logits are wanted, ascending.
    pub last: Vec<i32>,
    /// For each token to be drawn, whose logits: an index into `last`.
    pub each: Vec<i32>,
    /// How each of them is drawn.
    pub sampling: Words,
}

impl Step {
    /// `n` sequences that decode, of no content.
    fn sketch(n: usize, width: usize) -> Self {
        let all: Vec<i32> = (0..n as i32).collect();
        let zeros = vec![0; n];
        Step {
            tokens: zeros.clone(),
            positions: zeros.clone(),
            slots: zeros,
            tables: vec![0; n * width],
            sequences: all.clone(),
            last: all.clone(),
            each: all,
            sampling: Words { params: vec![0; n * PARAMS], previous: Vec::new() },
        }
    }

    /// Adds a row.
    pub fn push(&mut self, token: u32, position: usize, sequence: usize, slot: usize) {
        self.tokens.push(token as i32);
        self.positions.push(position as i32);
        self.sequences.push(sequence as i32);
        self.slots.push(slot as i32);
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Whether every row is one sequence's only one, from which its next token is drawn.
    fn decodes(&self) -> bool {
        self.rows() == self.last.len() && self.rows() == self.each.len()
    }
}

/// The largest that a run's steps can be.
pub(super) struct Size {
    /// Rows of prompts and of sequences.
    pub rows: usize,
    /// Sequences, and tokens drawn.
    pub sequences: usize,
    /// Pages of a sequence.
    pub width: usize,
    /// Tokens that a repetition penalty looks at, of all sequences together.
    pub previous: usize,
}

impl Size {
    /// Integers that go to the device.
    fn integers(&self) -> usize {
        let Size { rows, sequences: s, width, previous } = *self;
        let parts = [rows, rows, rows, rows, s * width, s, s, s * PARAMS, previous];
        parts.into_iter().map(Parcel::padded).sum()
    }
}

/// Runs steps of a model.
pub(super) struct Stepper<'a> {
    pub cx: Ctx,
    model: &'a Llama,
    size: Size,
    parcel: Parcel,
    /// (sequences, [`CHOICE`])
    choices: Tensor,
    graphs: Option<Graphs>,
}

/// A step on the device.
struct Inputs {
    tokens: Tensor,
    positions: Tensor,
    sequences: Tensor,
    slots: Tensor,
    tables: Tensor,
    /// Empty where they would change nothing.
    last: Tensor,
    each: Tensor,
    params: Tensor,
    previous: Tensor,
}

impl<'a> Stepper<'a> {
    /// For steps of at most `size` over `cache`, recorded if `graphs` are wanted and can be: what the largest of them
    /// takes is set aside.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(
        device: &Device,
        model: &'a Llama,
        cache: &mut Cache,
        size: Size,
        graphs: bool,
    ) -> Result<Self> {
        let mut stepper = Stepper {
            cx: Ctx::inference(device).with_comm(model.split().within_batch()),
            parcel: Parcel::new(device, Label::Activations, size.integers())?,
            choices: device.zeros(Label::Activations, [size.sequences, CHOICE], DType::I32),
            graphs: if graphs { recorder(device, model) } else { None },
            model,
            size,
        };
        stepper.reserve(cache)?;
        Ok(stepper)
    }

    /// Sets aside what recorded steps will take.
    fn reserve(&mut self, cache: &mut Cache) -> Result<()> {
        let Size { sequences, width, .. } = self.size;
        let Some(mut graphs) = self.graphs.take_if(|_| sequences > 0) else { return Ok(()) };
        let inputs = self.send(&Step::sketch(sequences, width))?;
        graphs.reserve(|| compute(&self.cx, self.model, cache, &inputs, &mut self.choices))?;
        self.graphs = Some(graphs);
        Ok(())
    }

    /// Keys and values of the step's rows go into the cache; returns what is drawn, in the order of [`Step::each`].
    ///
    /// # Errors
    /// Those of the ops; or when the logits are not finite.
    pub fn run(&mut self, cache: &mut Cache, step: &Step) -> Result<Vec<Choice>> {
        let inputs = self.send(step)?;
        let Stepper { cx, model, choices, graphs, .. } = self;
        let mut work = || compute(cx, model, cache, &inputs, choices);
        match graphs {
            Some(graphs) if step.decodes() => graphs.run(step.rows(), work)?,
            _ => work()?,
        }
        match step.each.len() {
            0 => Ok(Vec::new()),
            drawn => read(cx, choices, drawn, model.config().vocab),
        }
    }

    fn send(&mut self, step: &Step) -> Result<Inputs> {
        let Step { tokens, positions, sequences, slots, tables, last, each, sampling } = step;
        let (width, previous) = (self.size.width, self.size.previous);
        let last_of_rows: &[i32] = if last.len() == step.rows() { &[] } else { last };
        let each_of_last: &[i32] = if each.len() == last.len() { &[] } else { each };
        let column = |part: &[i32]| Shape::from([part.len()]);
        let [tokens, positions, sequences, slots, tables, last, each, params, previous] =
            self.parcel.send([
                (column(tokens), tokens),
                (column(positions), positions),
                (column(sequences), sequences),
                (column(slots), slots),
                (Shape::from([tables.len() / width, width]), tables),
                (column(last_of_rows), last_of_rows),
                (column(each_of_last), each_of_last),
                (Shape::from([each.len(), PARAMS]), &sampling.params),
                // As much as there may be: a recorded step knows no number of its own.
                (Shape::from([previous]), &sampling.previous),
            ])?;
        Ok(Inputs { tokens, positions, sequences, slots, tables, last, each, params, previous })
    }
}

/// Steps are recorded on a card. Where ranks meet inside a step they are not: what the ranks exchange goes by the host
/// or waits for it, unless a link says that it can be recorded, and none does yet.
fn recorder(device: &Device, model: &Llama) -> Option<Graphs> {
    match device {
        Device::Cuda(cuda) if model.split().layout() == Layout::Replicate => Some(Graphs::new(cuda)),
        _ => None,
    }
}

/// All of a step but its copies to and from the host: what is drawn goes into `choices`.
fn compute(cx: &Ctx, model: &Llama, cache: &mut Cache, inputs: &Inputs, choices: &mut Tensor) -> Result<()> {
    let h = forward(cx, model, cache, inputs)?;
    if inputs.params.shape().elements() == 0 {
        return Ok(());
    }
    let last = gathered(cx, h, &inputs.last)?;
    let logits = model.logits(cx, &model.normed(cx, &last)?)?;
    let logits = gathered(cx, logits, &inputs.each)?;
    draw(cx, choices, &logits, &inputs.params, &inputs.previous)
}

/// The residual stream (rows, C) after the last layer; keys and values go into the cache.
fn forward(cx: &Ctx, model: &Llama, cache: &mut Cache, inputs: &Inputs) -> Result<Tensor> {
    let Inputs { tokens, positions, sequences, slots, tables, .. } = inputs;
    let place = Place { positions, rope: model.rope(), keys: None };
    let paged = Paged { sequences, positions, tables };
    let mut h = model.embed(cx, tokens)?;
    for (i, layer) in model.layers().iter().enumerate() {
        let (k_pages, v_pages) = cache.layer(i);
        h = layer.forward(cx, &h, place, 0.0, |cx, q, k, v| {
            kvstore(cx, k_pages, k, slots)?;
            kvstore(cx, v_pages, v, slots)?;
            flash_paged(cx, q, k_pages, v_pages, paged, layer.heads())
        })?;
    }
    Ok(h)
}

/// The rows of `x` that `index` names, or all where it is empty.
fn gathered(cx: &Ctx, x: Tensor, index: &Tensor) -> Result<Tensor> {
    match index.shape().elements() {
        0 => Ok(x),
        // Gathering rows is what an embedding does.
        _ => embed(cx, &x, index, x.dtype()),
    }
}
