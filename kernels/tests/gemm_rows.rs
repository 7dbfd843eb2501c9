//! Batch invariance: the bits of a row of y = x Wᵀ depend neither on how many rows ride along, nor on how W is kept, on
//! every instruction set.

mod common;

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Tensor};
use codelsi_kernels::check::random;
use codelsi_kernels::gemm::{linear, linears, pack_weight};
use codelsi_kernels::simd::{self, SimdLevel};
use std::sync::Mutex;

const STORED: [(DType, DType); 4] = [
    (DType::F32, DType::F32),
    (DType::F32, DType::BF16),
    (DType::BF16, DType::BF16),
    (DType::BF16, DType::F32),
];
/// (N, K): ends of tiles, of words, of packed chunks.
const SIZES: [(usize, usize); 6] = [(1, 1), (17, 33), (48, 130), (70, 515), (33, 1031), (320, 64)];

/// Runs `f` on every instruction set of this machine. The level is the process's: one test at a time sets it.
fn on_every_level(f: impl Fn(SimdLevel)) {
    static ONE_TEST: Mutex<()> = Mutex::new(());
    let _alone = ONE_TEST.lock();
    for level in SimdLevel::ALL.into_iter().filter(|&l| l <= simd::detected()) {
        simd::set_max_level(level);
        f(level);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_forty() {
    if !common::is_selected("gemm") {
        return;
    }
    on_every_level(|level| {
        for (x, w) in STORED {
            for (n, k) in SIZES {
                compare(x, w, n, k, level);
            }
        }
    });
}

/// Panels are read by one row, by as many as a register tile has, by more, and by several blocks of rows.
#[test]
fn a_packed_weight_gives_the_same_bits() {
    if !common::is_selected("gemm") {
        return;
    }
    let device = Device::cpu();
    let cx = Ctx::inference(&device);
    let make = |shape: [usize; 2], dtype: DType, site: u32| -> Tensor {
        random(&device, shape.into(), dtype, 1.0, RngKey { seed: 4, step: 0, site }).unwrap()
    };
    on_every_level(|level| {
        for ((x_type, w_type), (n, k)) in STORED.iter().flat_map(|&t| SIZES.map(|size| (t, size))) {
            let w = make([n, k], w_type, 1);
            let packed = pack_weight(&device, &w).unwrap();
            assert_eq!(packed.packed().is_some(), k % 2 == 0, "pairs do not straddle rows");
            for rows in [1, 2, 4, 5, 12, 13, 100, 600] {
                let x = make([rows, k], x_type, 0);
                let [plain, from_panels] = [&w, &packed].map(|w| linear(&cx, &x, w).unwrap());
                let [_, second] = &linears(&cx, &x, &[&packed, &packed]).unwrap()[..] else { unreachable!() };
                for other in [&from_panels, second] {
                    let same = plain.bytes().unwrap() == other.bytes().unwrap();
                    assert!(same, "{}: {rows} rows, x {x_type:?}, W {w_type:?} ({n}, {k})", level.name());
                }
            }
        }
    });
}

/// A weight that is written to has no panels of its old content.
#[test]
fn writing_to_a_weight_drops_its_panels() {
    let device = Device::cpu();
    let w = random(&device, [32, 64].into(), DType::F32, 1.0, RngKey { seed: 5, step: 0, site: 0 }).unwrap();
    let mut packed = pack_weight(&device, &w).unwrap();
    drop(w);
    packed.zero().unwrap();
    assert!(packed.packed().is_none() && packed.reshape([64, 32]).packed().is_none());
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
