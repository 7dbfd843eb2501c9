//! The launch of `sample.cu`.

use super::{Choice, Params};
use crate::cuda::{HEADERS, element};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{At, Ctx, DType, Error, Label, Result, Tensor};

/// Rows of logits.
pub static SOURCE: Source = Source {
    name: "sample.cu",
    text: include_str!("sample.cu"),
    headers: HEADERS,
    variants: &["E=bf16", "E=float"],
};

const THREADS: usize = 1024;
/// 32-bit words of a row's parameters and of its choice, as the kernel lays them out.
const PARAMS: usize = 12;
const CHOICE: usize = 6;

/// A choice for every row.
pub fn sample(cx: &Ctx, cuda: &Cuda, logits: &Tensor, params: &[Params<'_>]) -> Result<Vec<Choice>> {
    let (rows, vocab) = logits.shape().as_matrix();
    let (mut words, mut previous) = (Vec::with_capacity(rows * PARAMS), Vec::new());
    for p in params {
        let first = previous.len();
        previous.extend_from_slice(p.previous);
        words.extend(row_words(p, first..previous.len()));
    }
    let device = cx.device();
    let params = device.tensor(Label::Scratch, [rows, PARAMS], &words)?;
    let previous = device.tensor(Label::Scratch, [previous.len()], &previous)?;
    let work = || cx.scratch([rows, vocab], DType::F32);
    let (mut scores, mut weights, mut choices) = (work(), work(), cx.scratch([rows, CHOICE], DType::I32));
    let kernel = cuda.kernel(&SOURCE, &format!("E={}", element(logits.dtype())), "sample")?;
    let args = &mut [
        Arg::Out(&mut choices),
        Arg::InOut(&mut scores),
        Arg::InOut(&mut weights),
        Arg::In(logits),
        Arg::In(&params),
        Arg::In(&previous),
        Arg::I32(vocab as i32),
    ];
    // SAFETY: a block keeps to its row of V elements; previous tokens are below V, as the op has checked.
    unsafe { kernel.launch(Grid::new(rows, THREADS), args) }?;
    let choices = choices.to_vec::<i32>()?;
    if cuda.is_plan() {
        return Ok(vec![Choice::default(); rows]);
    }
    let choices = choices.chunks_exact(CHOICE).enumerate();
    choices.map(|(row, words)| choice(words, logits, row, vocab).at(format!("row {row}"))).collect()
}

fn row_words(p: &Params, previous: std::ops::Range<usize>) -> [i32; PARAMS] {
    let floats = [p.temperature, p.top_p, p.min_p, p.repetition_penalty].map(|x| x.to_bits() as i32);
    let [temperature, top_p, min_p, penalty] = floats;
    let top_k = p.top_k.min(i32::MAX as usize) as i32;
    let (first, last, key) = (previous.start as i32, previous.end as i32, p.key);
    let (low, high) = (key.seed as i32, (key.seed >> 32) as i32);
    [temperature, top_p, min_p, penalty, top_k, first, last, low, high, key.step as i32, key.site as i32, 0]
}

fn choice(words: &[i32], logits: &Tensor, row: usize, vocab: usize) -> Result<Choice> {
    let &[token, bad, logit, max, low, high] = words else { unreachable!("a choice has six words") };
    if bad as usize == vocab {
        return Err(Error::new("every logit is -inf"));
    }
    if bad >= 0 {
        return Err(Error::new(format!(
            "the logit of token {bad} is {}",
            logit_at(logits, row, bad as usize)?
        )));
    }
    let [logit, max] = [logit, max].map(|bits| f32::from_bits(bits as u32) as f64);
    let total = f64::from_bits((high as u32 as u64) << 32 | low as u32 as u64);
    Ok(Choice { token, logprob: (logit - max - total.ln()) as f32 })
}

fn logit_at(logits: &Tensor, row: usize, token: usize) -> Result<f64> {
    let logits = crate::check::value(logits)?;
    Ok(logits.row(row)[token])
}
