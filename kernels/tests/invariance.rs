//! Batch invariance: a row's bits are the same whether 1, 7 or 64 rows ride along, on the CPU and on the software GPU.

use codelsi_engine::rng::Key;
use codelsi_engine::{Ctx, DType, Device, Label, Result, Tensor};
use codelsi_kernels::check::random;
use codelsi_kernels::sample::{Params, sample};
use codelsi_kernels::{dora, elementwise, embed, gemm, mixture, rmsnorm, rope, swiglu, xent};
use half::bf16;

const ROWS: usize = 64;

/// Row `first` and those after it, taken out of a batch of [`ROWS`].
struct Rows<'a> {
    cx: &'a Ctx,
    dtype: DType,
    first: usize,
    count: usize,
}

impl Rows<'_> {
    /// These rows of one and the same (ROWS, columns).
    fn storage(&self, columns: usize, site: u32) -> Tensor {
        let key = Key { seed: 11, step: 0, site };
        let all = random(&Device::cpu(), [ROWS, columns].into(), self.dtype, 1.0, key).unwrap();
        let part = self.first * columns..(self.first + self.count) * columns;
        let shape = [self.count, columns];
        let device = self.cx.device();
        match self.dtype {
            DType::BF16 => device.tensor(Label::Scratch, shape, &all.slice::<bf16>().unwrap()[part]).unwrap(),
            _ => device.tensor(Label::Scratch, shape, &all.slice::<f32>().unwrap()[part]).unwrap(),
        }
    }

    fn ints(&self, f: impl Fn(usize) -> usize) -> Tensor {
        let all: Vec<i32> = (self.first..self.first + self.count).map(|t| f(t) as i32).collect();
        self.cx.device().tensor(Label::Scratch, [self.count], &all).unwrap()
    }

    /// The same for every batch.
    fn weight(&self, shape: [usize; 2], site: u32) -> Tensor {
        random(self.cx.device(), shape.into(), self.dtype, 0.1, Key { seed: 12, step: 0, site }).unwrap()
    }
}

type Run = fn(&Rows) -> Result<Tensor>;

/// Every op whose output has a row for every row of its input.
const OPS: [(&str, Run); 11] = [
    ("gemm", |r| gemm::linear(r.cx, &r.storage(1100, 0), &r.weight([96, 1100], 0))),
    ("rmsnorm", |r| rmsnorm::rmsnorm(r.cx, &r.storage(264, 0), &r.weight([1, 264], 0).reshape([264]), 1e-5)),
    ("add_rmsnorm", |r| {
        let w = r.weight([1, 264], 0).reshape([264]);
        Ok(rmsnorm::add_rmsnorm(r.cx, &r.storage(264, 0), &r.storage(264, 1), &w, 1e-5)?.1)
    }),
    ("swiglu", |r| swiglu::swiglu(r.cx, &r.storage(40, 0), &r.storage(40, 1))),
    ("add", |r| elementwise::add(r.cx, &r.storage(40, 0), &r.storage(40, 1))),
    ("relu", |r| elementwise::relu(r.cx, &r.storage(40, 0))),
    ("gate", |r| mixture::gate(r.cx, &r.storage(60, 0), &r.storage(3, 1), 2.0)),
    ("magnify", |r| {
        let lengths = |site| {
            Ok::<_, codelsi_engine::Error>(
                elementwise::cast(r.cx, &r.weight([1, 40], site), DType::F32)?.reshape([40]),
            )
        };
        dora::magnify(r.cx, &r.storage(40, 0), &lengths(0)?, &lengths(1)?)
    }),
    ("rope", |r| {
        let table = rope::table(r.cx.device(), 512, 16, 1e4, 1.0)?;
        rope::rope(r.cx, &r.storage(48, 0), &r.ints(|t| t * 7), &table, 3)
    }),
    ("embed", |r| embed::embed(r.cx, &r.weight([50, 24], 0), &r.ints(|t| t * 13 % 50), r.dtype)),
    ("xent", |r| {
        let ids = r.ints(|t| t * 31 % 4200);
        let targets = xent::Targets::counted(ids.clone(), ids.shape()[0]);
        Ok(xent::xent(r.cx, &r.storage(24, 0), &r.weight([4200, 24], 0), &targets, 1.0)?.1)
    }),
];

fn bytes(t: &Tensor) -> Vec<u8> {
    t.to(&Device::cpu(), Label::Scratch).unwrap().bytes().unwrap().to_vec()
}

fn hold(device: &Device) {
    let cx = Ctx::inference(device);
    for (name, run) in OPS {
        for dtype in [DType::F32, DType::BF16] {
            let rows = |first, count| bytes(&run(&Rows { cx: &cx, dtype, first, count }).unwrap());
            let all = rows(0, ROWS);
            let row = all.len() / ROWS;
            for (first, count) in [(0, 1), (37, 1), (63, 1), (5, 7), (57, 7)] {
                let place = format!("{name} {dtype:?} on {}: rows {first}..+{count}", device.name());
                assert!(
                    rows(first, count) == all[first * row..(first + count) * row],
                    "{place} have other bits"
                );
            }
        }
    }
}

/// The tokens drawn for rows of logits, whose params follow the rows.
fn drawn(cx: &Ctx, first: usize, count: usize) -> Vec<(i32, u32)> {
    let rows = Rows { cx, dtype: DType::F32, first, count };
    let params = |t: usize| Params {
        temperature: 0.8,
        top_p: if t.is_multiple_of(2) { 0.9 } else { 1.0 },
        key: Key { seed: t as u64, step: 3, site: 0 },
        ..Params::default()
    };
    let params: Vec<Params> = (first..first + count).map(params).collect();
    let choices = sample(cx, &rows.storage(300, 0), &params).unwrap();
    choices.iter().map(|c| (c.token, c.logprob.to_bits())).collect()
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_on_the_cpu() {
    hold(&Device::cpu());
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_on_the_software_gpu() {
    let device = match Device::emulated("sm_80") {
        Ok(device) => device,
        Err(e) => {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            return println!("skipped: {e}");
        }
    };
    hold(&device);
    let cx = Ctx::inference(&device);
    let all = drawn(&cx, 0, ROWS);
    assert_eq!(drawn(&cx, 37, 1), all[37..38]);
    assert_eq!(drawn(&cx, 5, 7), all[5..12]);
    // The CPU draws the same tokens.
    let cpu = drawn(&Ctx::inference(&Device::cpu()), 0, ROWS);
    let tokens = |all: &[(i32, u32)]| all.iter().map(|c| c.0).collect::<Vec<_>>();
    assert_eq!(tokens(&cpu), tokens(&all));
}
