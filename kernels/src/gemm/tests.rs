use super::cuda::{
    Accumulate, GemmShape, OperandLayout, RowSlice, TILES, Tile, TileVariant, choose, multiply,
    multiply_on_tensor_cores,
};
use super::*;
use crate::check::random;
use codelsi_engine::Label;
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::rng::RngKey;
use codelsi_testing::or_skip;

/// Returns the software GPU, if NVRTC is found.
pub(crate) fn software_gpu() -> Option<Device> {
    or_skip(Device::emulated("sm_80"))
}

pub(crate) fn as_cuda(device: &Device) -> &Cuda {
    let Device::Cuda(cuda) = device else { panic!("not a CUDA device") };
    cuda
}

/// Runs `f` and returns its launches with their counters.
pub(crate) fn count_launches(cuda: &Cuda, f: impl FnOnce()) -> Vec<LaunchRecord> {
    let emulated = cuda.emulator().unwrap();
    emulated.count_launches();
    f();
    let launches = emulated.take_launches();
    assert!(!launches.is_empty());
    launches
}

pub(crate) fn operand(device: &Device, shape: [usize; 2], dtype: DType, site: u32) -> Tensor {
    random(device, shape.into(), dtype, 1.0, RngKey { seed: 11, step: 0, site }).unwrap()
}

/// Returns random operands of a product (m, n) of depth k.
fn operands(device: &Device, form: OperandLayout, [m, n, k]: [usize; 3], dtypes: [DType; 2]) -> [Tensor; 2] {
    let (a, b) = match form {
        OperandLayout::NT => ([m, k], [n, k]),
        OperandLayout::NN => ([m, k], [k, n]),
        OperandLayout::TN => ([k, m], [k, n]),
    };
    [operand(device, a, dtypes[0], 0), operand(device, b, dtypes[1], 1)]
}

/// Returns the tiles of bf16 operands of this form.
fn tiles_of(form: OperandLayout) -> impl Iterator<Item = Tile> {
    let fits =
        move |tile: &Tile| TileVariant { shape: tile.shape, w: DType::BF16, aligned: true }.supports(form);
    TILES.into_iter().filter(fits)
}

/// The attention's output and the MLP's of 13B, 5,120 columns, and its hidden columns.
#[test]
fn few_rows_and_short_prompts_fill_a_card() {
    for (multiprocessors, m, n) in [108, 132]
        .into_iter()
        .flat_map(|p| [1, 32, 64, 512].into_iter().flat_map(move |m| [(p, m, 5120), (p, m, 13824)]))
    {
        let tile = choose(OperandLayout::NT, m, &[n], multiprocessors);
        let blocks = m.div_ceil(tile.rows) * n.div_ceil(tile.columns);
        let full = blocks as f64 / blocks.next_multiple_of(multiprocessors) as f64;
        assert!(
            full > 0.79,
            "{m} rows of {n} on {multiprocessors}: {blocks} blocks, {full:.2} full, {tile:?}"
        );
    }
}

/// Bytes that all blocks of a product of 32 and 64 rows copy, from a sample of them, beside those of tiles of 32 columns.
#[test]
fn wider_tiles_of_few_rows_copy_less() {
    let Some(device) = software_gpu() else { return };
    let (cuda, cx) = (as_cuda(&device), Ctx::inference(&device));
    let emulator = cuda.emulator().unwrap();
    for (n, share) in [(5120, 0.85), (13824, 0.65)] {
        let w = device.zeros(Label::Weights, [n, 5120], DType::BF16);
        for m in [32, 64] {
            let x = device.zeros(Label::Activations, [m, 5120], DType::BF16);
            let ab = [&x, &w].map(RowSlice::all);
            let copied = |tile: Tile| {
                let mut y = cx.empty([m, n], DType::BF16);
                let size = GemmShape::new(OperandLayout::NT, &y, (0, m), ab).unwrap();
                emulator.set_sampled_blocks(Some(4));
                let launches = count_launches(cuda, || {
                    multiply_on_tensor_cores(&cx, cuda, &mut y, 0, Accumulate::Overwrite, (size, tile), ab)
                        .unwrap()
                });
                emulator.set_sampled_blocks(None);
                launches[0].counters.global_loads.bytes as f64 / 1e6
            };
            let tile = choose(OperandLayout::NT, m, &[n], 108);
            let [narrow, chosen] = [TILES[1], tile].map(copied);
            println!(
                "{m} rows of ({n}, 5120): {narrow:.1} MB, now {chosen:.1} MB in {} columns",
                tile.columns
            );
            assert!(chosen < share * narrow || m == 32, "{chosen} of {narrow} MB");
        }
    }
}

/// Every tile shape sums an element in the same order, so the choice changes no bit.
#[test]
fn all_tiles_make_the_same_bits() {
    let Some(device) = software_gpu() else { return };
    let (cuda, cx) = (as_cuda(&device), Ctx::inference(&device));
    for form in [OperandLayout::NT, OperandLayout::NN, OperandLayout::TN] {
        let sizes @ [m, n, _] = [136, 264, 200];
        let [a, b] = operands(&device, form, sizes, [DType::BF16; 2]);
        let mut bits = tiles_of(form).map(|tile| {
            let mut y = cx.empty([m, n], DType::F32);
            let ab = [&a, &b].map(RowSlice::all);
            let size = GemmShape::new(form, &y, (0, m), ab).unwrap();
            multiply_on_tensor_cores(&cx, cuda, &mut y, 0, Accumulate::Overwrite, (size, tile), ab).unwrap();
            y.to_vec::<f32>().unwrap()
        });
        let first = bits.next().unwrap();
        assert!(bits.all(|y| y == first), "{form:?}");
    }
}

/// A row does not depend on the other rows of the batch: invariant 6.
#[test]
fn rows_of_small_and_large_batches_have_the_same_bits() {
    let Some(device) = software_gpu() else { return };
    let cx = Ctx::inference(&device);
    // The second one is so narrow that split-K is used.
    for (n, k) in [(136, 328), (48, 2104)] {
        for dtypes in
            [[DType::BF16; 2], [DType::BF16, DType::F32], [DType::F32, DType::BF16], [DType::F32; 2]]
        {
            let [x, w] = operands(&device, OperandLayout::NT, [200, n, k], dtypes);
            let all = linear(&cx, &x, &w).unwrap();
            for rows in [1, 7, 64] {
                let mut few = cx.empty([rows, n], dtypes[0]);
                let x = RowSlice { t: &x, first: 130, rows };
                multiply(
                    &cx,
                    as_cuda(&device),
                    &mut few,
                    (0, rows),
                    false,
                    OperandLayout::NT,
                    [x, RowSlice::all(&w)],
                )
                .unwrap();
                let (few, all) = (bits(&few), bits(&all));
                assert!(few[..] == all[130 * n..][..few.len()], "{rows} rows, N={n} K={k}, {dtypes:?}");
            }
        }
    }
}

/// Returns the elements in f32, which is exact for bf16 too.
fn bits(t: &Tensor) -> Vec<f32> {
    crate::check::value(t).unwrap().data.iter().map(|&x| x as f32).collect()
}

#[test]
fn rows_are_placed_and_added() {
    let Some(device) = software_gpu() else { return };
    let cx = Ctx::inference(&device);
    for dtype in [DType::BF16, DType::F32] {
        for form in [OperandLayout::NT, OperandLayout::NN, OperandLayout::TN] {
            let (m, n, k) = (19, 24, 40);
            let [a, b] = operands(&device, form, [m, n, k], [dtype; 2]);
            let product = |y: &mut Tensor, first, add| {
                multiply(&cx, as_cuda(&device), y, (first, m), add, form, [&a, &b].map(RowSlice::all))
                    .unwrap();
            };
            let mut once = cx.empty([m, n], DType::F32);
            product(&mut once, 0, false);
            let mut y = device.zeros(Label::Scratch, [m + 5, n], DType::F32);
            product(&mut y, 3, false);
            product(&mut y, 3, true);
            let (once, y) = (once.to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
            assert!(y[..3 * n].iter().chain(&y[(m + 3) * n..]).all(|&y| y == 0.0));
            assert!(y[3 * n..].iter().zip(&once).all(|(y, once)| *y == 2.0 * once), "{dtype:?} {form:?}");
        }
    }
}

#[test]
fn a_product_outside_its_tensors_is_refused() {
    let Some(device) = software_gpu() else { return };
    let cx = Ctx::inference(&device);
    let [a, b] = operands(&device, OperandLayout::NT, [4, 8, 16], [DType::BF16; 2]);
    let mut y = cx.empty([4, 8], DType::BF16);
    let ab = [RowSlice { t: &a, first: 1, rows: 4 }, RowSlice::all(&b)];
    let error = multiply(&cx, as_cuda(&device), &mut y, (0, 4), false, OperandLayout::NT, ab).unwrap_err();
    assert_eq!(error.to_string(), "NT product of (4, 16) and (8, 16) does not make rows 0..+4 of (4, 8)");
}

/// Copies, fragment loads and stores are free of bank conflicts and move whole sectors.
#[test]
fn aligned_products_have_no_bank_conflicts() {
    let Some(device) = software_gpu() else { return };
    let (cuda, cx) = (as_cuda(&device), Ctx::inference(&device));
    for form in [OperandLayout::NT, OperandLayout::NN, OperandLayout::TN] {
        let sizes @ [m, n, _] = [128, 256, 256];
        for (w, tiles) in [(DType::BF16, tiles_of(form).collect()), (DType::F32, vec![TILES[2]])] {
            if (form, w) == (OperandLayout::TN, DType::F32) {
                continue; // both are activations there
            }
            for tile in tiles {
                let [a, b] = operands(&device, form, sizes, [DType::BF16, w]);
                let mut y = cx.empty([m, n], DType::BF16);
                let ab = [&a, &b].map(RowSlice::all);
                let size = GemmShape::new(form, &y, (0, m), ab).unwrap();
                let product = || {
                    multiply_on_tensor_cores(&cx, cuda, &mut y, 0, Accumulate::Overwrite, (size, tile), ab)
                        .unwrap()
                };
                for LaunchRecord { counters, .. } in count_launches(cuda, product) {
                    assert_eq!(counters.bank_conflicts(), 0, "{form:?} {w:?} {tile:?}: {counters:#?}");
                    assert_eq!(counters.sector_efficiency(), 1.0, "{form:?} {w:?} {tile:?}: {counters:#?}");
                    assert_eq!(counters.local_bytes(), 0);
                }
            }
        }
    }
}
