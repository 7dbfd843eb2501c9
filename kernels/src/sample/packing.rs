//! Parameters and choices packed into 32-bit words, in the order of the structs of `sample.cu`.

use super::{RowSamplingParams, SampledToken};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{At, Ctx, Error, Result, Tensor};

/// 32-bit words of a row's parameters.
pub const PARAM_WORDS: usize = 14;
/// 32-bit words of a row's choice.
pub const CHOICE_WORDS: usize = 6;

/// Packed sampling parameters of all rows, to be copied to a device.
#[derive(Clone, Default, Debug)]
pub struct PackedParams {
    /// (B, [`PARAM_WORDS`]): parameters of each row.
    pub params: Vec<i32>,
    /// Previous tokens of all rows, concatenated.
    pub previous: Vec<i32>,
}

impl PackedParams {
    /// Checks and packs `params` for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// When a parameter is out of range.
    pub fn new(params: &[RowSamplingParams<'_>], vocab: usize) -> Result<Self> {
        let mut packed = PackedParams::default();
        for (row, p) in params.iter().enumerate() {
            p.check(vocab).at(format!("row {row}")).at("sample")?;
            let first = packed.previous.len();
            packed.previous.extend_from_slice(p.previous);
            packed.params.extend(pack(p, first..packed.previous.len()));
        }
        Ok(packed)
    }
}

fn pack(p: &RowSamplingParams, previous: std::ops::Range<usize>) -> [i32; PARAM_WORDS] {
    let penalties = [p.repetition_penalty, p.frequency_penalty, p.presence_penalty];
    let [first, generated, last] =
        [previous.start, previous.start + p.prompt_len, previous.end].map(|i| i as i32);
    let top_k = p.top_k.min(i32::MAX as usize) as i32;
    let (low, high) = (p.key.seed as i32, (p.key.seed >> 32) as i32);
    let integers = [top_k, first, generated, last, low, high, p.key.step as i32, p.key.site as i32];
    let mut words = [0; PARAM_WORDS];
    for (word, x) in words.iter_mut().zip([p.temperature, p.top_p, p.min_p].into_iter().chain(penalties)) {
        *word = x.to_bits() as i32;
    }
    words[PARAM_WORDS - integers.len()..].copy_from_slice(&integers);
    words
}

/// Unpacks the parameters of a row from the words that [`pack`] made.
pub(super) fn unpack<'a>(words: &[i32], previous: &'a [i32]) -> RowSamplingParams<'a> {
    let &[a, b, c, d, e, f, top_k, first, generated, last, low, high, step, site] = words else {
        unreachable!("a row has fourteen words")
    };
    let [temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty] =
        [a, b, c, d, e, f].map(|bits| f32::from_bits(bits as u32));
    RowSamplingParams {
        temperature,
        top_k: top_k as usize,
        top_p,
        min_p,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        previous: &previous[first as usize..last as usize],
        prompt_len: (generated - first) as usize,
        key: RngKey { seed: join_u64(low, high), step: step as u32, site: site as u32 },
    }
}

fn join_u64(low: i32, high: i32) -> u64 {
    (high as u32 as u64) << 32 | low as u32 as u64
}

/// Result of one row as the device leaves it: the token, or the logit that made sampling impossible.
#[derive(Clone, Copy)]
pub(super) struct RowResult {
    pub token: usize,
    /// First token whose logit is NaN or +∞; V when all are −∞.
    pub bad: Option<usize>,
    /// Logit of the token, or of the bad one.
    pub logit: f32,
    /// Maximum of the logits, and Σ e^(x − max).
    pub max: f32,
    pub total: f64,
}

impl RowResult {
    pub fn write(&self, words: &mut [i32]) {
        let total = self.total.to_bits();
        let bad = self.bad.map_or(-1, |token| token as i32);
        let [logit, max] = [self.logit, self.max].map(|x| x.to_bits() as i32);
        words.copy_from_slice(&[self.token as i32, bad, logit, max, total as i32, (total >> 32) as i32]);
    }

    fn read(words: &[i32]) -> Self {
        let &[token, bad, logit, max, low, high] = words else { unreachable!("a choice has six words") };
        let [logit, max] = [logit, max].map(|bits| f32::from_bits(bits as u32));
        let total = f64::from_bits(join_u64(low, high));
        RowResult { token: token as usize, bad: usize::try_from(bad).ok(), logit, max, total }
    }

    fn choice(&self, vocab: usize) -> Result<SampledToken> {
        match self.bad {
            Some(token) if token < vocab => {
                Err(Error::new(format!("the logit of token {token} is {}", self.logit)).not_finite())
            }
            Some(_) => Err(Error::new("every logit is -inf").not_finite()),
            None => {
                let logprob = self.logit as f64 - self.max as f64 - self.total.ln();
                Ok(SampledToken { token: self.token as i32, logprob: logprob as f32 })
            }
        }
    }
}

/// Copies the choices of [`super::draw`] for `rows` rows over `vocab` tokens from the device; on the planning device
/// every token is 0. A row that had NaN, +∞ or nothing but −∞ has an error instead of a token, which says so.
///
/// # Errors
/// When the device fails.
pub fn read(cx: &Ctx, choices: &Tensor, rows: usize, vocab: usize) -> Result<Vec<Result<SampledToken>>> {
    if cx.device().is_plan() {
        return Ok((0..rows).map(|_| Ok(SampledToken::default())).collect());
    }
    let words = choices.to_vec::<i32>().at("sample")?;
    let rows = words.chunks_exact(CHOICE_WORDS).take(rows);
    Ok(rows.map(|words| RowResult::read(words).choice(vocab)).collect())
}
