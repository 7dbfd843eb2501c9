//! Batch invariance: the bits of a row of y = x Wᵀ do not depend on how many rows ride along, on every instruction set.

mod common;

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Tensor};
use codelsi_kernels::check::random;
use codelsi_kernels::gemm::linear;
use codelsi_kernels::simd::{self, SimdLevel};

const STORED: [(DType, DType); 4] = [
    (DType::F32, DType::F32),
    (DType::F32, DType::BF16),
    (DType::BF16, DType::BF16),
    (DType::BF16, DType::F32),
];
/// (N, K): ends of tiles, of words, of packed chunks.
const SIZES: [(usize, usize); 6] = [(1, 1), (17, 33), (48, 130), (70, 515), (33, 1031), (320, 64)];

#[test]
fn a_row_has_the_same_bits_alone_and_among_forty() {
    if !common::is_selected("gemm") {
        return;
    }
    for level in SimdLevel::ALL.into_iter().filter(|&l| l <= simd::detected()) {
        simd::set_max_level(level);
        for (x, w) in STORED {
            for (n, k) in SIZES {
                compare(x, w, n, k, level);
            }
        }
    }
}

fn compare(x_type: DType, w_type: DType, n: usize, k: usize, level: SimdLevel) {
    let device = Device::cpu();
    let cx = Ctx::inference(&device);
    let make = |rows: usize, dtype: DType, site: u32| -> Tensor {
        random(&device, [rows, k].into(), dtype, 1.0, RngKey { seed: 3, step: 0, site }).unwrap()
    };
    let (x, w) = (make(40, x_type, 0), make(n, w_type, 1));
    let all = linear(&cx, &x, &w).unwrap();
    for rows in 1..=6 {
        let mut part = device.empty(codelsi_engine::Label::Activations, [rows, k], x_type);
        let bytes = part.byte_len();
        part.bytes_mut().unwrap().copy_from_slice(&x.bytes().unwrap()[..bytes]);
        let few = linear(&cx, &part, &w).unwrap();
        let same = few.bytes().unwrap() == &all.bytes().unwrap()[..few.byte_len()];
        assert!(same, "{}: {rows} of 40 rows, x {x_type:?}, W {w_type:?} ({n}, {k})", level.name());
    }
}
