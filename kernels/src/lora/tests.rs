use super::cuda::{ColumnOffsets, DA_RUN, DB_RUN, LoraPass, adapted, low_rank, run_length};
use super::*;
use crate::gemm::cuda::{Accumulate, GemmShape, OperandLayout, RowSlice, TILES, multiply_on_tensor_cores};
use crate::gemm::tests::{as_cuda, count_launches, operand, software_gpu};
use codelsi_emulator::Counters;
use codelsi_engine::Grads;
use codelsi_engine::cuda::Cuda;
use codelsi_engine::rng::RngKey;
use codelsi_engine::team::Team;
use half::bf16;

/// Returns y, dx, dA and dB of two targets of different sizes, as bytes.
fn trained(dtype: DType, rows: usize, rate: f32) -> Vec<Vec<u8>> {
    let device = Device::cpu();
    let cx = Ctx::training(&device, 0, 0);
    let [first, second] = [[rows, 70, 1100, 16], [rows, 40, 1100, 5]].map(|size| {
        let Operands { x, w, a, b } = Operands::new(&device, dtype, size);
        Operands { x: x.with_grad(), w, a: a.with_grad(), b: b.with_grad() }
    });
    let tokens: Vec<i32> = (0..rows as i32).collect();
    let dropout = Dropout {
        rate: DropoutRate::new(rate).unwrap(),
        key: RngKey { seed: 3, step: 0, site: 0 },
        tokens: device.tensor(Label::Activations, [rows], &tokens).unwrap(),
        first_channel: 0,
    };
    let targets = [first.target(), second.target()];
    let outs = lora(&cx, &first.x, &targets, Some(dropout)).unwrap();
    let mut grads = Grads::default();
    let dy = outs.iter().map(|y| (y, operand(&device, [rows, y.shape()[1]], dtype, 7)));
    cx.backward(dy.collect::<Vec<_>>(), &mut grads).unwrap();
    let of = [&first.x, &first.a, &first.b, &second.a, &second.b].map(|x| grads.take(x).unwrap());
    outs.iter().chain(&of).map(|t| t.bytes().unwrap().to_vec()).collect()
}

/// The number of threads decides whether rows are cut into chunks, and where.
#[test]
fn chunks_of_rows_change_no_bit() {
    for dtype in [DType::F32, DType::BF16] {
        for rate in [0.0, 0.1] {
            let made = [1, 2, 7].map(|threads| {
                let _team = Team::gather(threads).unwrap();
                trained(dtype, 333, rate)
            });
            assert!(made[0] == made[1] && made[0] == made[2], "{dtype:?}, dropout {rate}");
        }
    }
}

/// Tensors of one target, and x.
struct Operands {
    x: Tensor,
    w: Tensor,
    a: Tensor,
    b: Tensor,
}

impl Operands {
    fn new(device: &Device, dtype: DType, [t, n, c, r]: [usize; 4]) -> Self {
        Operands {
            x: operand(device, [t, c], dtype, 0),
            w: operand(device, [n, c], dtype, 1),
            a: operand(device, [r, c], DType::F32, 2),
            b: operand(device, [n, r], DType::F32, 3),
        }
    }

    fn target(&self) -> LoraLinear<'_> {
        LoraLinear { w: &self.w, a: &self.a, b: &self.b, scale: 2.0 }
    }
}

/// Returns warp instructions and bytes of global memory of each launch, and asserts that none has bank conflicts.
fn costs(cuda: &Cuda, f: impl FnOnce()) -> Vec<[f64; 2]> {
    let launches = count_launches(cuda, f);
    launches.iter().for_each(|launch| assert_eq!(launch.counters.bank_conflicts(), 0, "{launch:#?}"));
    let costs = |c: &Counters| [c.warp_instructions as f64, c.global_bytes() as f64];
    launches.iter().map(|launch| costs(&launch.counters)).collect()
}

/// Sums the launches of LoRA at 2048 x 5120 x 5120 and R 16 from one tile of y and its rows of S, which stand for all others.
/// A is copied for every 64 rows, which is 0.6 % of the bytes.
#[test]
fn an_adapter_costs_about_three_percent() {
    let Some(device) = software_gpu() else { return };
    let (cuda, cx) = (as_cuda(&device), Ctx::inference(&device));
    let (tile, [t, n, c, r]) = (TILES[4], [128, 256, 5120, 16]);
    let o = Operands::new(&device, DType::BF16, [t, n, c, r]);
    let mut y = cx.empty([t, n], DType::BF16);
    let ab = [&o.x, &o.w].map(RowSlice::all);
    let size = GemmShape::new(OperandLayout::NT, &y, (0, t), ab).unwrap();
    let plain = costs(cuda, || {
        multiply_on_tensor_cores(&cx, cuda, &mut y, 0, Accumulate::Overwrite, (size, tile), ab).unwrap()
    });
    let run = LoraPass { cx: &cx, cuda, dropout: None, mask: None, up: 1.0, adapter_ids: None };
    let mut s = None;
    let narrow = costs(cuda, || {
        let layout = ColumnOffsets::new(&[o.target()]);
        s = Some(low_rank(&run, &o.x, &[o.target()], &layout).unwrap().0);
    });
    let (outs, s) = (std::slice::from_mut(&mut y), s.unwrap());
    let main =
        costs(cuda, || adapted(&run, outs, &o.x, &[o.target()], (&s, &[0, 16]), (tile, true)).unwrap());
    let (rows, tiles) = ((2048 / t) as f64, (2048 / t * (5120 / n)) as f64);
    for (i, (what, most)) in [("instructions", 1.03), ("bytes", 1.033)].into_iter().enumerate() {
        let adapted = main[0][i] * tiles + narrow.iter().map(|launch| launch[i]).sum::<f64>() * rows;
        let share = adapted / (plain[0][i] * tiles);
        println!("{what}: {share:.4} of the plain product's");
        assert!(share <= most, "{what}: {share}");
    }
}

/// Rows of two adapters cost what they cost where no others are loaded, but for blocks that find nothing to do.
#[test]
fn adapters_that_no_row_uses_cost_nothing() {
    let Some(device) = software_gpu() else { return };
    let (cuda, cx) = (as_cuda(&device), Ctx::inference(&device));
    let [t, n, c, r] = [12, 2048, 5120, 16];
    let o = Operands::new(&device, DType::BF16, [t, n, c, r]);
    let turns = Turns::new(&device);
    let cost = |loaded: usize, used: [i32; 2], at_once: bool| {
        let stack = |rows, columns, site| operand(&device, [loaded * rows, columns], DType::F32, site);
        let (a, b) = (stack(r, c, 2).reshape([loaded, r, c]), stack(n, r, 3).reshape([loaded, n, r]));
        let target = LoraLinear { a: &a, b: &b, ..o.target() };
        let choice: Vec<i32> = (0..t).map(|t| used[t % 2]).collect();
        let choice = device.tensor(Label::Activations, [t], &choice).unwrap();
        let launches = costs(cuda, || {
            match at_once {
                true => lora_decode(&cx, &o.x, &[target, target], Some(&choice), &turns).unwrap(),
                false => multi_lora(&cx, &o.x, &[target, target], &choice).unwrap(),
            };
        });
        [0, 1].map(|i| launches.iter().map(|launch| launch[i]).sum::<f64>())
    };
    for at_once in [true, false] {
        let (alone, among) = (cost(2, [0, 1], at_once), cost(8, [2, 5], at_once));
        for (i, what) in ["instructions", "bytes"].into_iter().enumerate() {
            let ratio = among[i] / alone[i];
            println!("{what}, at once {at_once}: {ratio:.4}");
            assert!(ratio < 1.025, "{what}, at once {at_once}: {ratio}");
        }
    }
}

/// 8,192 and 2,048 rows of 13B's q|k|v, o, gate|up, and of x.
#[test]
fn runs_of_rows_are_as_long_as_fills_a_gpu() {
    let runs = |rows: usize, columns, blocks, least| rows.div_ceil(run_length(rows, columns, blocks, least));
    assert_eq!([30, 10, 54].map(|blocks| runs(8192, 16, blocks, DB_RUN)), [4, 13, 7]);
    assert_eq!([30, 10, 54].map(|blocks| runs(2048, 16, blocks, DB_RUN)), [4, 11, 2]);
    let of_x = [(48, 40), (16, 40), (32, 40), (16, 108)];
    assert_eq!(of_x.map(|(columns, blocks)| runs(8192, columns, blocks, DA_RUN)), [3, 3, 3, 6]);
    assert_eq!(of_x.map(|(columns, blocks)| runs(2048, columns, blocks, DA_RUN)), [3, 3, 3, 1]);
    assert_eq!([DB_RUN, DA_RUN].map(|least| run_length(530, 16, 1, least)), [192, 320]);
}

#[test]
fn kernels_of_the_backward_have_no_bank_conflicts() {
    let Some(device) = software_gpu() else { return };
    let cuda = as_cuda(&device);
    let o = Operands::new(&device, DType::BF16, [192, 512, 256, 16]);
    let tokens = device.tensor(Label::Activations, [192], &(0..192).collect::<Vec<i32>>()).unwrap();
    let (rate, key) = (DropoutRate::new(0.1).unwrap(), RngKey { seed: 1, step: 2, site: 3 });
    let dropout = Dropout { rate, key, tokens, first_channel: 0 };
    let launches = costs(cuda, || {
        let cx = Ctx::training(&device, 0, 0);
        let (x, a, b) = (o.x.clone().with_grad(), o.a.clone().with_grad(), o.b.clone().with_grad());
        let target = LoraLinear { w: &o.w, a: &a, b: &b, scale: 2.0 };
        let y = lora(&cx, &x, &[target], Some(dropout)).unwrap().swap_remove(0);
        let dy = operand(&device, [192, 512], DType::BF16, 9);
        cx.backward([(&y, dy)], &mut Grads::default()).unwrap();
    });
    assert_eq!(launches.len(), 7, "{launches:?}");
}

/// A row depends neither on the other rows of the batch nor on their adapters: invariant 6.
#[test]
fn rows_of_small_and_large_batches_have_the_same_bits() {
    let Some(device) = software_gpu() else { return };
    let cx = Ctx::inference(&device);
    let (t, n, c, r, g) = (200, 72, 328, 16, 3);
    let stack = |shape: [usize; 3], site| {
        operand(&device, [shape[0] * shape[1], shape[2]], DType::F32, site).reshape(shape)
    };
    let (a, b) = (stack([g, r, c], 2), stack([g, n, r], 3));
    for dtype in [DType::BF16, DType::F32] {
        let (x, w) = (operand(&device, [t, c], dtype, 0), operand(&device, [n, c], dtype, 1));
        let target = LoraLinear { w: &w, a: &a, b: &b, scale: 2.0 };
        let x_values = bits(&x);
        let run = |rows: std::ops::Range<usize>, other: i32| {
            let part = x_values[rows.start * c..rows.end * c].to_vec();
            let x = match dtype {
                DType::BF16 => {
                    let part: Vec<bf16> = part.into_iter().map(bf16::from_f32).collect();
                    device.tensor(Label::Activations, [rows.len(), c], &part).unwrap()
                }
                _ => device.tensor(Label::Activations, [rows.len(), c], &part).unwrap(),
            };
            // Row 130 uses adapter 1; the adapter of the others varies.
            let choice: Vec<i32> = rows.clone().map(|t| if t == 130 { 1 } else { other }).collect();
            let choice = device.tensor(Label::Activations, [rows.len()], &choice).unwrap();
            let y = multi_lora(&cx, &x, &[target], &choice).unwrap().swap_remove(0);
            bits(&y)[(130 - rows.start) * n..][..n].to_vec()
        };
        let alone = run(130..131, 0);
        for rows in [0..200, 128..135, 100..164] {
            for other in [-1, 0, 2] {
                assert!(
                    run(rows.clone(), other) == alone,
                    "{dtype:?} {rows:?}, other rows on adapter {other}"
                );
            }
        }
    }
}

fn bits(t: &Tensor) -> Vec<f32> {
    crate::check::value(t).unwrap().data.iter().map(|&x| x as f32).collect()
}

#[test]
fn an_adapter_outside_the_stack_is_refused() {
    let cpu = Device::cpu();
    for device in [Some(cpu), software_gpu()].into_iter().flatten() {
        let cx = Ctx::inference(&device);
        let o = Operands::new(&device, DType::BF16, [3, 8, 16, 4]);
        let (a, b) = (o.a.reshape([1, 4, 16]), o.b.reshape([1, 8, 4]));
        let target = LoraLinear { a: &a, b: &b, ..o.target() };
        let choice = device.tensor(Label::Activations, [3], &[0, 1, -1]).unwrap();
        assert!(multi_lora(&cx, &o.x, &[target], &choice).is_err(), "{}", o.x.dtype().size());
    }
}

/// An unused output has no dy; the gradients of the other targets agree with those of the CPU.
#[test]
fn gradients_of_some_targets_alone() {
    let Some(gpu) = software_gpu() else { return };
    let gradients = |device: &Device| {
        let cx = Ctx::training(device, 0, 0);
        let [first, second] = [72, 40].map(|n| Operands::new(device, DType::BF16, [33, n, 48, 20]));
        let (x, a, b) =
            (first.x.clone().with_grad(), second.a.clone().with_grad(), second.b.clone().with_grad());
        let targets = [first.target(), LoraLinear { a: &a, b: &b, ..second.target() }];
        let y = lora(&cx, &x, &targets, None).unwrap().swap_remove(1);
        let mut grads = Grads::default();
        cx.backward([(&y, operand(device, [33, 40], DType::BF16, 9))], &mut grads).unwrap();
        [x, a, b].map(|t| bits(grads.get(&t).unwrap()))
    };
    for (got, wanted) in gradients(&gpu).iter().zip(gradients(&Device::cpu())) {
        let rms = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let error = rms(&mut got.iter().zip(&wanted).map(|(a, b)| a - b));
        assert!(error < 0.005 * rms(&mut wanted.iter().copied()), "{error}");
    }
}
