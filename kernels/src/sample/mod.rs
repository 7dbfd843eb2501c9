//! Sampling: the next token of each row of logits. Inference only.
//!
//! **math** on a row of logits x, in the order of Hugging Face's `generate` and of vLLM:
//! 1. repetition penalty ρ (Keskar et al., arXiv 1909.05858): each previous token's x becomes x/ρ if positive, else
//!    x·ρ; then, as in OpenAI's API, each generated token's x becomes x − (f·n + p), for the frequency penalty f, the
//!    presence penalty p and the n times that it was generated;
//! 2. temperature 0 takes the largest, the lowest id among equals; otherwise x ← x / temperature;
//! 3. top-k (Fan et al., arXiv 1805.04833) keeps the k largest (lower ids first among equals);
//! 4. top-p (Holtzman et al., arXiv 1904.09751) keeps the smallest set of most probable tokens whose probabilities
//!    sum to at least p;
//! 5. min-p (Nguyen et al., arXiv 2407.01082) keeps tokens at least min_p times as probable as the most probable one;
//! 6. one of the remaining tokens is drawn in proportion to e^x, by inverting the cumulative sum at a uniform number.
//!
//! **shapes** logits (B, V); one [`RowSamplingParams`] and one [`SampledToken`] per row, on the device as
//! [`PARAM_WORDS`] and [`CHOICE_WORDS`] words.
//!
//! **layout** row-major. [`draw`] leaves the choices on the device and [`read`] copies them to the host, so that
//! nothing between the logits and the choices passes through the host. The tensor of previous tokens may be larger than
//! needed.
//!
//! **launch** one block per row; its parameters are read from device memory.
//!
//! **numerics** exponentials e^(x − max) in f32, with the same bits on GPU and CPU. Their sums are of integers, in units of
//! 2⁻⁴⁰, so they are exact in any order, and so are the counts of generated tokens, from which penalties are computed by
//! one product, one sum and one difference: a GPU draws the CPU's tokens. The uniform number has 64 bits and is keyed, so a
//! row's choice depends on its own logits and parameters and on nothing else in the batch. Only the log-probability is
//! made of sums in f32 and f64, in an order of each device.
//!
//! **traffic** a GPU reads the row once, and up to eight times what of it does not fit shared memory (the keys of 31,040
//! tokens on an A100): it searches by digits and sorts nothing. It has 4·V bytes of working memory for counts, of which it
//! touches those of previous tokens. The CPU has 8·V bytes and sorts candidates alone.

mod bugs;
mod cpu;
mod cuda;
mod packing;
pub mod spec;

pub use packing::{CHOICE_WORDS, PARAM_WORDS, PackedParams, read};

use codelsi_engine::op_times::Pass;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Result, Tensor};
use half::bf16;

/// Units of mass in the weight of the likeliest token. A row of 2²³ tokens has less than 2⁶³.
const MASS: u64 = 1 << 40;

/// Sampling parameters of one row. [`RowSamplingParams::default`] is greedy.
#[derive(Clone, Copy, Debug)]
pub struct RowSamplingParams<'a> {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keeps the `top_k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens whose probability reaches `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least `min_p` times as probable as the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Divisor of positive logits of previous tokens, factor of negative ones; 1 does nothing.
    pub repetition_penalty: f32,
    /// Taken from the logit of a generated token once for each time that it was generated; 0 does nothing.
    pub frequency_penalty: f32,
    /// Taken from the logit of every generated token; 0 does nothing.
    pub presence_penalty: f32,
    /// Tokens that penalties apply to, of the prompt first. The repetition penalty applies once to a repeated token.
    pub previous: &'a [i32],
    /// Number of the previous tokens that are the prompt's; those that follow were generated.
    pub prompt_len: usize,
    /// Key of the random number: the seed of the request, and the position of the token to be drawn as `step`.
    pub key: RngKey,
}

impl Default for RowSamplingParams<'_> {
    fn default() -> Self {
        RowSamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            previous: &[],
            prompt_len: 0,
            key: RngKey { seed: 0, step: 0, site: 0 },
        }
    }
}

impl RowSamplingParams<'_> {
    fn check(&self, vocab: usize) -> Result<()> {
        let within = |name: &str, x: f32, ok: bool, range: &str| match ok {
            true => Ok(()),
            false => Err(Error::new(format!("{name} {x} must be {range}"))),
        };
        let RowSamplingParams { temperature: t, top_p, min_p, repetition_penalty: penalty, .. } = *self;
        within("temperature", t, t >= 0.0 && t.is_finite(), "0 or more")?;
        within("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0 and at most 1")?;
        within("min_p", min_p, (0.0..=1.0).contains(&min_p), "from 0 to 1")?;
        within("repetition_penalty", penalty, penalty > 0.0 && penalty.is_finite(), "above 0")?;
        for (name, x) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            within(name, x, x.is_finite(), "finite")?;
        }
        if self.prompt_len > self.previous.len() {
            let (prompt, all) = (self.prompt_len, self.previous.len());
            return Err(Error::new(format!("{prompt} of {all} previous tokens cannot be the prompt's")));
        }
        match self.previous.iter().find(|&&id| id < 0 || id as usize >= vocab) {
            Some(id) => Err(Error::new(format!("previous token {id} is outside the vocabulary of {vocab}"))),
            None => Ok(()),
        }
    }
}

/// A sampled token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampledToken {
    pub token: i32,
    /// log p(token) under the raw logits: before penalty, temperature and filters.
    pub logprob: f32,
}

/// Samples a token for every row of `logits` (B, V), f32 or bf16. On the planning device every token is 0.
///
/// # Errors
/// When `params` has not one entry per row, a parameter is out of range, or a row has NaN, +∞ or nothing but −∞.
pub fn sample(cx: &Ctx, logits: &Tensor, params: &[RowSamplingParams<'_>]) -> Result<Vec<SampledToken>> {
    let (rows, vocab) = logits.shape().as_matrix();
    let words = PackedParams::new(params, vocab)?;
    let on_device = |shape: &[usize], words: &[i32]| cx.device().tensor(Label::Scratch, shape, words);
    let previous = on_device(&[words.previous.len()], &words.previous)?;
    let params = on_device(&[params.len(), PARAM_WORDS], &words.params)?;
    let mut choices = cx.scratch([rows, CHOICE_WORDS], DType::I32);
    draw(cx, &mut choices, logits, &params, &previous)?;
    let choices = read(cx, &choices, rows, vocab)?;
    choices.into_iter().enumerate().map(|(i, row)| row.at(format!("row {i}")).at("sample")).collect()
}

/// Samples on the device: writes the choices for the rows of `logits` (B, V), f32 or bf16, to the first B rows of
/// `choices` (B or more, [`CHOICE_WORDS`]) i32. `params` (B, [`PARAM_WORDS`]) i32 and `previous` (any number) i32
/// are those of [`PackedParams`].
///
/// # Errors
/// When shapes or types do not fit, or the logits want a gradient.
pub fn draw(
    cx: &Ctx,
    choices: &mut Tensor,
    logits: &Tensor,
    params: &Tensor,
    previous: &Tensor,
) -> Result<()> {
    let run = || checked_draw(cx, choices, logits, params, previous);
    cx.timed("sample", Pass::Forward, run).at("sample")
}

fn checked_draw(
    cx: &Ctx,
    choices: &mut Tensor,
    logits: &Tensor,
    params: &Tensor,
    previous: &Tensor,
) -> Result<()> {
    let (rows, vocab) = logits.shape().as_matrix();
    let (given, row) = params.shape().as_matrix();
    if rows != given || row != PARAM_WORDS || vocab == 0 || logits.dtype() == DType::I32 {
        return Err(Error::new(format!("logits {logits:?} need as many params as rows, not {params:?}")));
    }
    let (room, row) = choices.shape().as_matrix();
    if room < rows
        || row != CHOICE_WORDS
        || [&*choices, params, previous].iter().any(|t| t.dtype() != DType::I32)
    {
        return Err(Error::new(format!(
            "choices {choices:?} or previous {previous:?} do not fit {rows} rows"
        )));
    }
    if cx.is_recording() && logits.id().is_some() {
        return Err(Error::new("has no backward, and the logits want a gradient"));
    }
    match (cx.device(), logits.dtype()) {
        (Device::Cpu(_), DType::BF16) => {
            cpu::sample::<bf16>(choices, workspace(cx, rows, vocab), logits, params, previous)
        }
        (Device::Cpu(_), _) => {
            cpu::sample::<f32>(choices, workspace(cx, rows, vocab), logits, params, previous)
        }
        (Device::Cuda(cuda), _) => {
            let counts = cx.scratch([rows, vocab], DType::I32);
            cuda::sample(cuda, choices, counts, logits, params, previous)
        }
        (Device::Plan(_), _) => {
            drop(workspace(cx, rows, vocab));
            Ok(())
        }
    }
}

/// Allocates working memory: scores and ids (B, V).
fn workspace(cx: &Ctx, rows: usize, vocab: usize) -> [Tensor; 2] {
    [DType::F32, DType::I32].map(|dtype| cx.scratch([rows, vocab], dtype))
}

#[cfg(test)]
mod tests;
