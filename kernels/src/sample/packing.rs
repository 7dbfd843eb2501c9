//! Parameters and choices packed into 32-bit words, in the order of the structs of `sample.cu`.

use super::{RowSamplingParams, SampledToken};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{At, Ctx, Error, Result, Tensor};

/// 32-bit words of a row's parameters.
pub const PARAM_WORDS: usize = 12;
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
    let floats = [p.temperature, p.top_p, p.min_p, p.repetition_penalty].map(|x| x.to_bits() as i32);
    let [temperature, top_p, min_p, penalty] = floats;
    let top_k = p.top_k.min(i32::MAX as usize) as i32;
    let (first, last, key) = (previous.start as i32, previous.end as i32, p.key);
    let (low, high) = (key.seed as i32, (key.seed >> 32) as i32);
    [temperature, top_p, min_p, penalty, top_k, first, last, low, high, key.step as i32, key.site as i32, 0]
}

/// Unpacks the parameters of a row from the words that [`pack`] made.
pub(super) fn unpack<'a>(words: &[i32], previous: &'a [i32]) -> RowSamplingParams<'a> {
    let &[temperature, top_p, min_p, penalty, top_k, first, last, low, high, step, site, _] = words else {
        unreachable!("a row has twelve words")
    };
    let [temperature, top_p, min_p, repetition_penalty] =
        [temperature, top_p, min_p, penalty].map(|bits| f32::from_bits(bits as u32));
    RowSamplingParams {
        temperature,
        top_k: top_k as usize,
        top_p,
        min_p,
        repetition_penalty,
        previous: &previous[first as usize..last as usize],
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
                Err(Error::new(format!("the logit of token {token} is {}", self.logit)))
            }
            Some(_) => Err(Error::new("every logit is -inf")),
            None => {
                let logprob = self.logit as f64 - self.max as f64 - self.total.ln();
                Ok(SampledToken { token: self.token as i32, logprob: logprob as f32 })
            }
        }
    }
}

/// Copies the choices of [`super::draw`] for `rows` rows over `vocab` tokens from the device; on the planning device
/// every token is 0.
///
/// # Errors
/// When a row had NaN, +∞ or nothing but −∞, or the device fails.
pub fn read(cx: &Ctx, choices: &Tensor, rows: usize, vocab: usize) -> Result<Vec<SampledToken>> {
    if cx.device().is_plan() {
        return Ok(vec![SampledToken::default(); rows]);
    }
    let words = choices.to_vec::<i32>().at("sample")?;
    let rows = words.chunks_exact(CHOICE_WORDS).take(rows).enumerate();
    rows.map(|(row, words)| RowResult::read(words).choice(vocab).at(format!("row {row}")).at("sample"))
        .collect()
}
