//! The launch of `sample.cu`.

use super::MASS;
use crate::cuda::{HEADERS, element, elements};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source};
use codelsi_engine::{Error, Result, Tensor};

/// Draws from rows of logits.
pub static SOURCE: Source = Source {
    name: "sample.cu",
    text: include_str!("sample.cu"),
    headers: HEADERS,
    constants: &[
        Define::int("THREADS", THREADS),
        Define::int("COARSE_BINS", COARSE_BINS),
        Define::int("FINE_BINS", FINE_BINS),
        Define::int("MASS", MASS as usize),
    ],
    variants: elements,
};

/// Threads of a block, which draws for one row.
const THREADS: usize = 1024;
/// Bins of the histograms of a key's first digit, and of a later one: a count and two words of mass each.
const COARSE_BINS: usize = 2112;
const FINE_BINS: usize = 1024;
const HISTOGRAMS: usize = 12 * (COARSE_BINS + FINE_BINS);
/// Bytes for what a block reduces and shares besides.
const REDUCTIONS: usize = 1024;

/// Draws a token for every row; counts (B, V) are working memory.
pub fn sample(
    cuda: &Cuda,
    choices: &mut Tensor,
    mut counts: Tensor,
    logits: &Tensor,
    params: &Tensor,
    previous: &Tensor,
) -> Result<()> {
    let (rows, vocab) = logits.shape().as_matrix();
    let kernel = cuda.kernel(&SOURCE, element(logits.dtype()), "sample")?;
    let (kept, shared) = shared_memory(vocab, cuda.properties().shared)?;
    let args = &mut [
        Arg::InOut(choices),
        Arg::InOut(&mut counts),
        Arg::In(logits),
        Arg::In(params),
        Arg::In(previous),
        Arg::I32(vocab as i32),
        Arg::I32(previous.shape().elements() as i32),
        Arg::I32(kept as i32),
    ];
    // SAFETY: a block keeps to its row of V logits and counts, of which params and choices have one, as the op has checked;
    // the kernel checks the range of previous tokens and that each is below V; its histograms, a bit a token and `kept` keys
    // fit its shared memory.
    unsafe { kernel.launch(Grid { blocks: [rows, 1, 1], threads: THREADS, shared }, args) }
}

/// Returns how many of the keys of a row a block keeps, and the bytes of its shared memory, of which there are `limit`.
fn shared_memory(vocab: usize, limit: usize) -> Result<(usize, usize)> {
    // The keys begin at a multiple of 16 bytes.
    let fixed = HISTOGRAMS + 16 * vocab.div_ceil(128);
    let Some(room) = limit.checked_sub(fixed + REDUCTIONS) else {
        return Err(Error::new(format!(
            "a row of {vocab} tokens does not fit {limit} bytes of shared memory"
        )));
    };
    // Whole warps of tokens, so that no warp diverges.
    let kept = vocab.min(room / 4 / 32 * 32);
    Ok((kept, fixed + 4 * kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_kept_as_far_as_memory_goes() {
        assert_eq!(shared_memory(100, 163 << 10).unwrap(), (100, HISTOGRAMS + 16 + 400));
        let (kept, bytes) = shared_memory(151_936, 163 << 10).unwrap();
        assert!(kept > 27_000 && kept.is_multiple_of(32) && bytes + REDUCTIONS <= 163 << 10);
        assert_eq!(shared_memory(32_016, 227 << 10).unwrap().0, 32_016);
        let error = shared_memory(2_000_000, 163 << 10).unwrap_err().to_string();
        assert_eq!(error, "a row of 2000000 tokens does not fit 166912 bytes of shared memory");
    }
}
