//! Measured peaks of this machine: multiply-adds in registers, and a copy that exceeds the caches.

use crate::simd::{SimdLevel, level, sum, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::time::Instant;

/// Rounds of one run: a few milliseconds, so that some runs find the processor undisturbed on a machine that others share.
const ROUNDS: usize = 300_000;
/// Runs of each number of chains.
const RUNS: usize = 20;

/// Measures the FLOP/s of f32 fused multiply-adds on all threads of rayon.
pub fn f32_flops() -> f64 {
    match level() {
        // SAFETY: the level was detected.
        SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => unsafe {
            highest([
                flops_of_all_threads(16 * 2 * 12, || fma_avx512::<12>()),
                flops_of_all_threads(16 * 2 * 16, || fma_avx512::<16>()),
                flops_of_all_threads(16 * 2 * 24, || fma_avx512::<24>()),
            ])
        },
        // SAFETY: as above.
        SimdLevel::Avx2 => unsafe {
            highest([
                flops_of_all_threads(8 * 2 * 8, || fma_avx2::<8>()),
                flops_of_all_threads(8 * 2 * 12, || fma_avx2::<12>()),
            ])
        },
        SimdLevel::Portable => flops_of_all_threads(8 * 2 * 12, multiply_add_portable::<12>),
    }
}

/// Measures the FLOP/s of bf16 dot products on all threads of rayon; of f32 where the machine has none.
pub fn bf16_flops() -> f64 {
    match level() {
        // SAFETY: the level was detected.
        SimdLevel::Avx512Bf16 => unsafe {
            highest([
                flops_of_all_threads(32 * 2 * 12, || dot_avx512::<12>()),
                flops_of_all_threads(32 * 2 * 16, || dot_avx512::<16>()),
                flops_of_all_threads(32 * 2 * 24, || dot_avx512::<24>()),
            ])
        },
        _ => f32_flops(),
    }
}

/// Returns the highest rate of several numbers of chains in flight: enough to hide the latency, and not so many that they
/// leave the registers.
fn highest<const N: usize>(rates: [f64; N]) -> f64 {
    rates.into_iter().fold(0.0, f64::max)
}

/// Returns the best FLOP/s of some runs of `kernel`, which makes `flops` per round.
fn flops_of_all_threads(flops: usize, kernel: impl Fn() -> f32 + Sync) -> f64 {
    let threads = rayon::current_num_threads();
    let run = || {
        let start = Instant::now();
        rayon::broadcast(|_| black_box(kernel()));
        (threads * flops * ROUNDS) as f64 / start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

// Loops, not `map`: a closure called by a library function is not inlined there, and the chains would spill.

#[target_feature(enable = "avx512f")]
fn fma_avx512<const CHAINS: usize>() -> f32 {
    let (mut acc, x) = ([_mm512_set1_ps(1.0); CHAINS], _mm512_set1_ps(black_box(1e-7)));
    for _ in 0..ROUNDS {
        for a in &mut acc {
            *a = _mm512_fmadd_ps(x, x, *a);
        }
    }
    acc.iter().map(|&a| _mm512_reduce_add_ps(a)).sum()
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_avx512<const CHAINS: usize>() -> f32 {
    let mut acc = [_mm512_set1_ps(1.0); CHAINS];
    let x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(black_box(1e-7)), _mm512_set1_ps(black_box(1e-7)));
    for _ in 0..ROUNDS {
        for a in &mut acc {
            *a = _mm512_dpbf16_ps(*a, x, x);
        }
    }
    acc.iter().map(|&a| _mm512_reduce_add_ps(a)).sum()
}

#[target_feature(enable = "avx2,fma")]
fn fma_avx2<const CHAINS: usize>() -> f32 {
    let (mut acc, x) = ([_mm256_set1_ps(1.0); CHAINS], _mm256_set1_ps(black_box(1e-7)));
    for _ in 0..ROUNDS {
        for a in &mut acc {
            *a = _mm256_fmadd_ps(x, x, *a);
        }
    }
    acc.iter().map(|&a| _mm256_cvtss_f32(a)).sum()
}

fn multiply_add_portable<const CHAINS: usize>() -> f32 {
    let (mut acc, x) = ([[1.0f32; 8]; CHAINS], black_box(1e-7f32));
    for _ in 0..ROUNDS {
        acc = acc.map(|a| a.map(|a| x * x + a));
    }
    acc.iter().map(|a| a[0]).sum()
}

/// Values of a task of a copy or a read.
const CHUNK: usize = 1 << 18;

/// Measures the bytes per second of a copy by all threads of the team, reads and writes counted; the best of five.
pub fn copy_bytes(y: &mut [f32], x: &[f32]) -> f64 {
    best_bytes(2 * size_of_val(x), || {
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each_on_team(|(y, x)| y.copy_from_slice(x));
        black_box(&y);
    })
}

/// Measures the bytes per second of plain reading by all threads of the team; the best of five.
pub fn read_bytes(x: &[f32]) -> f64 {
    best_bytes(size_of_val(x), || {
        x.par_chunks(CHUNK).for_each_on_team(|x| {
            black_box(vectorize(|| sum(x, |x| x)));
        });
    })
}

fn best_bytes(bytes: usize, mut f: impl FnMut()) -> f64 {
    let mut run = || {
        let start = Instant::now();
        f();
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| run()).fold(0.0, f64::max)
}
