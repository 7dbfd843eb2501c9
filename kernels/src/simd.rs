//! Instruction sets selected at run time, and the scalar functions that vectorized loops are built from.
//!
//! A loop wrapped in [`vectorize`] is written once and compiled for each instruction set. The compiler neither
//! contracts nor reorders anything in such a loop, so every instruction set gives the same bits; the micro-kernels of
//! `gemm` use fused multiply-adds and are the exception.

use codelsi_engine::Elem;
use half::bf16;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction sets, each including the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum SimdLevel {
    /// The baseline that the compiler targets.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
}

impl SimdLevel {
    /// All levels, lowest first.
    pub const ALL: [SimdLevel; 4] =
        [SimdLevel::Portable, SimdLevel::Avx2, SimdLevel::Avx512, SimdLevel::Avx512Bf16];

    /// Returns the name used by `CODELSI_SIMD` and in reports.
    pub fn name(self) -> &'static str {
        ["portable", "avx2", "avx512", "avx512bf16"][self as usize]
    }
}

/// Returns the highest level of this machine, or the lower one that `CODELSI_SIMD` names.
pub fn detected() -> SimdLevel {
    static DETECTED: OnceLock<SimdLevel> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let name = std::env::var("CODELSI_SIMD").ok();
        let named = SimdLevel::ALL.into_iter().find(|l| Some(l.name()) == name.as_deref());
        highest().min(named.unwrap_or(SimdLevel::Avx512Bf16))
    })
}

#[cfg(target_arch = "x86_64")]
fn highest() -> SimdLevel {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx2 && avx512, is_x86_feature_detected!("avx512bf16")) {
        (_, true, true) => SimdLevel::Avx512Bf16,
        (_, true, _) => SimdLevel::Avx512,
        (true, ..) => SimdLevel::Avx2,
        _ => SimdLevel::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn highest() -> SimdLevel {
    SimdLevel::Portable
}

static CEILING: AtomicU8 = AtomicU8::new(SimdLevel::Avx512Bf16 as u8);

/// Returns the level in use.
pub fn level() -> SimdLevel {
    detected().min(SimdLevel::ALL[CEILING.load(Ordering::Relaxed) as usize])
}

/// Sets the maximum level from now on, for tests and benches that compare instruction sets.
pub fn set_max_level(level: SimdLevel) {
    CEILING.store(level as u8, Ordering::Relaxed);
}

/// Runs `f` compiled for the level in use. Mark `f` and all functions that it calls `#[inline(always)]`: a function
/// that is not inlined is compiled for the baseline.
#[inline]
pub fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        match level() {
            // SAFETY: `level` never exceeds the instruction sets detected on the machine.
            SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => return unsafe { avx512(f) },
            // SAFETY: as above.
            SimdLevel::Avx2 => return unsafe { avx2(f) },
            SimdLevel::Portable => {}
        }
    }
    f()
}

/// A storage type whose elements kernels read and write as f32.
pub trait Storage: Elem + Default {
    /// Widens to f32, exactly.
    fn get(self) -> f32;
    /// Rounds to the storage type: to nearest, ties to even.
    fn put(x: f32) -> Self;
}

impl Storage for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    #[inline(always)]
    fn put(x: f32) -> Self {
        x
    }
}

impl Storage for bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[inline(always)]
    fn put(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // The sum of NaN with itself is quiet. A constant would be a masked load in vector code, which costs hundreds of
        // cycles while its page is not mapped.
        let word = if x.is_nan() { (x + x).to_bits() } else { rounded };
        bf16::from_bits((word >> 16) as u16)
    }
}

/// 1.5·2²³
const SHIFT: f32 = 12582912.0;

/// Returns e^x to about 1 ulp, without branches: x = n ln 2 + r, a polynomial in r, and n added to the exponent.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (shifted, r) = exp_reduce(x);
    exp_scale(exp_polynomial(r), r, shifted)
}

/// Replaces every x by e^f(x), with the bits of [`exp`], in three passes over a few vectors at a time: a chain of thirty
/// dependent operations leaves a core little to do while it waits, three short ones do not.
#[inline(always)]
pub fn exp_each(x: &mut [f32], f: impl Fn(f32) -> f32) {
    const BLOCK: usize = 64;
    let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
    for x in blocks {
        let (mut shifted, mut r) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for i in 0..BLOCK {
            (shifted[i], r[i]) = exp_reduce(f(x[i]));
        }
        for i in 0..BLOCK {
            x[i] = exp_polynomial(r[i]);
        }
        for i in 0..BLOCK {
            x[i] = exp_scale(x[i], r[i], shifted[i]);
        }
    }
    rest.iter_mut().for_each(|x| *x = exp(f(*x)));
}

/// Returns the nearest integer n to x / ln 2, in the low bits of a float, and x − n ln 2.
#[inline(always)]
fn exp_reduce(x: f32) -> (f32, f32) {
    let x = x.clamp(-104.0, 88.8);
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits: a saturating cast would not vectorize.
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    (shifted, (x - n * 0.693_359_4) - n * -2.121_944_4e-4)
}

/// Returns (e^r − 1 − r) / r² for |r| up to ln 2 / 2.
#[inline(always)]
fn exp_polynomial(r: f32) -> f32 {
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p * r + 0.500_000_03
}

/// Returns 2^n e^r, from what the other two functions returned.
#[inline(always)]
fn exp_scale(p: f32, r: f32, shifted: f32) -> f32 {
    let e = (p * r * r + r) + 1.0;
    // Two factors, so that subnormal results are reached.
    let exponent = shifted.to_bits() as i32 - SHIFT.to_bits() as i32;
    let half = exponent >> 1;
    let rest = exponent - half;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    e * power(half) * power(rest)
}

/// Returns 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Width of the fixed summation tree: numbers of a vector register of AVX-512.
pub const LANES: usize = 16;

/// Returns Σ f(a_i), in f32: 16 partial sums by index modulo 16, then a tree. The order depends only on the length.
#[inline(always)]
pub fn sum<A: Copy>(a: &[A], f: impl Fn(A) -> f32) -> f32 {
    sum3(a, a, a, |a, _, _| f(a))
}

/// Returns Σ f(a_i, b_i), as [`sum`].
#[inline(always)]
pub fn sum2<A: Copy, B: Copy>(a: &[A], b: &[B], f: impl Fn(A, B) -> f32) -> f32 {
    sum3(a, b, b, |a, b, _| f(a, b))
}

/// Returns Σ f(a_i, b_i, c_i), as [`sum`]; the slices are of one length.
#[inline(always)]
pub fn sum3<A: Copy, B: Copy, C: Copy>(a: &[A], b: &[B], c: &[C], f: impl Fn(A, B, C) -> f32) -> f32 {
    partial_sums_of(a, b, c, f).join_from_memory(|a, b| a + b)
}

#[inline(always)]
fn partial_sums_of<A: Copy, B: Copy, C: Copy>(
    a: &[A],
    b: &[B],
    c: &[C],
    f: impl Fn(A, B, C) -> f32,
) -> Partials {
    debug_assert!(a.len() == b.len() && b.len() == c.len());
    // Blocks of a constant length have no bounds checks, which indices into slices keep.
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c, c_rest) = c.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        lanes = std::array::from_fn(|l| lanes[l] + f(a[l], b[l], c[l]));
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    lanes.iter_mut().zip(rest).for_each(|(lane, ((&a, &b), &c))| *lane += f(a, b, c));
    Partials(lanes)
}

/// Partial results of a reduction, by index modulo [`LANES`], on a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Partials([f32; LANES]);

impl Partials {
    pub const ZERO: Partials = Partials([0.0; LANES]);

    /// Joins the lanes by halves.
    #[inline(always)]
    fn join(&self, join: impl Fn(f32, f32) -> f32) -> f32 {
        let x = &self.0;
        let x: [f32; 8] = std::array::from_fn(|l| join(x[l], x[l + 8]));
        let x: [f32; 4] = std::array::from_fn(|l| join(x[l], x[l + 4]));
        join(join(x[0], x[2]), join(x[1], x[3]))
    }

    /// Joins the lanes in memory: where they come from registers, the compiler cuts them into the pairs that the last joins
    /// take, and the loop before them, which has most of the work, into eight narrow ones.
    #[inline(always)]
    fn join_from_memory(&self, join: impl Fn(f32, f32) -> f32) -> f32 {
        std::hint::black_box(self).join(join)
    }

    /// Returns the maximum of the numbers whose [`partial_maxima`] these are.
    #[inline(always)]
    pub fn max(&self) -> f32 {
        self.join(larger)
    }

    /// Returns the sum of the numbers whose [`partial_sums`] these are.
    #[inline(always)]
    pub fn sum(&self) -> f32 {
        self.join(|a, b| a + b)
    }
}

/// Returns the larger number, the first if the second is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Returns the maximum of `x`, ignoring NaN; −∞ when there is none.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    partial_maxima(x).join_from_memory(larger)
}

/// Returns the partial maxima of `x`. Lanes of many rows are joined faster after all rows than one after the other: a join
/// that follows its row's last store waits for it.
#[inline(always)]
pub fn partial_maxima(x: &[f32]) -> Partials {
    let (x, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in x {
        lanes = std::array::from_fn(|l| larger(lanes[l], x[l]));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane = larger(*lane, x));
    Partials(lanes)
}

/// Returns the partial sums of `x`, see [`partial_maxima`].
#[inline(always)]
pub fn partial_sums(x: &[f32]) -> Partials {
    partial_sums_of(x, x, x, |x, _, _| x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::abs_diff_eq;
    use rayon::prelude::*;

    /// Every number below 0 whose exponential `sample` counts, in pairs of neighbours: a higher score never weighs less.
    #[test]
    fn exp_does_not_fall() {
        let at = |bits: u32| exp(-f32::from_bits(bits));
        let (nearest, farthest) = (2f32.powi(-26).to_bits(), 28f32.to_bits());
        let fall = (nearest..farthest).into_par_iter().find_any(|&bits| at(bits + 1) > at(bits));
        assert_eq!(fall.map(f32::from_bits), None);
        assert_eq!((at(0), at(nearest)), (1.0, 1.0));
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        for i in -1_030_000..=880_000i32 {
            let x = i as f32 * 1e-4;
            let (y, truth) = (exp(x), (x as f64).exp());
            let ulp = (truth * 2f64.powi(-23)).max(2f64.powi(-149));
            assert!(abs_diff_eq!(y as f64, truth, epsilon = 2.0 * ulp), "exp({x}) = {y:e}, not {truth:e}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn many_exponentials_have_the_bits_of_single_ones() {
        let mut x: Vec<f32> = (-10_600..9_000).map(|i| i as f32 * 0.01).collect();
        x.extend([f32::NEG_INFINITY, -0.0, f32::NAN, f32::INFINITY, 1e-40]);
        for level in SimdLevel::ALL {
            set_max_level(level);
            let mut each = x.clone();
            vectorize(
                #[inline(always)]
                || exp_each(&mut each, |x| x),
            );
            for (x, each) in x.iter().zip(each) {
                assert_eq!(each.to_bits(), exp(*x).to_bits(), "{level:?}: {x}");
            }
        }
    }

    #[test]
    fn rounding_to_bf16_is_that_of_half() {
        for i in 0..1_000_000u32 {
            let x = f32::from_bits(i.wrapping_mul(4295));
            let (ours, halfs) = (<bf16 as Storage>::put(x), bf16::from_f32(x));
            assert!(ours.to_bits() == halfs.to_bits() || x.is_nan() && ours.is_nan(), "{x}");
        }
    }

    #[test]
    fn max_finds_every_place() {
        for i in 0..37 {
            let mut x = [-1.0f32; 37];
            x[i] = 2.0;
            assert_eq!(max(&x), 2.0);
        }
        assert_eq!(max(&[f32::NAN, -3.0]), -3.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn sums_have_the_same_bits_on_every_level() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).sin()).collect();
        let sums = SimdLevel::ALL.map(|l| {
            set_max_level(l);
            vectorize(|| sum(&x, |x| x * x)).to_bits()
        });
        assert_eq!(sums, [sums[0]; 4]);
    }
}
