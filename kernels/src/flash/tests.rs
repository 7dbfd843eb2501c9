//! The bits of a row depend only on its position and its document, however documents are packed, prompts are cut into
//! chunks, rows are batched and pages are sized; on the CPU and on the software GPU.

use super::paged_spec::tables;
use super::{Heads, PagedBatch, arrivals, cpu, flash, flash_paged};
use crate::check::random;
use codelsi_engine::rng::RngKey;
use codelsi_engine::team::Team;
use codelsi_engine::{Ctx, DType, Device, Grads, Label, Result, Tensor};
use codelsi_testing::or_skip;
use half::bf16;
use std::ops::Range;

const HEADS: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 64 };
/// More than one split of the CUDA kernels.
const LENGTH: usize = 530;

/// Rows of a (rows, width) array in host memory, as bytes.
struct HostRows {
    bytes: Vec<u8>,
    dtype: DType,
    width: usize,
}

impl HostRows {
    fn random(rows: usize, width: usize, dtype: DType, site: u32) -> Self {
        let key = RngKey { seed: 5, step: 0, site };
        HostRows::copy_of(&random(&Device::cpu(), [rows, width].into(), dtype, 1.0, key).unwrap())
    }

    fn copy_of(t: &Tensor) -> Self {
        let t = t.to(&Device::cpu(), Label::Scratch).unwrap();
        HostRows { bytes: t.bytes().unwrap().to_vec(), dtype: t.dtype(), width: t.shape().as_matrix().1 }
    }

    fn row(&self, r: usize) -> &[u8] {
        let bytes = self.width * self.dtype.size();
        &self.bytes[r * bytes..][..bytes]
    }

    /// Returns a tensor of the given rows; `None` is a row of zeros.
    fn tensor(&self, device: &Device, rows: impl Iterator<Item = Option<usize>>) -> Tensor {
        let zeros = vec![0; self.width * self.dtype.size()];
        let bytes: Vec<u8> = rows.flat_map(|r| r.map_or(&zeros[..], |r| self.row(r))).copied().collect();
        let shape = [bytes.len() / zeros.len(), self.width];
        match self.dtype {
            DType::BF16 => device
                .tensor(Label::Scratch, shape, &bytemuck::pod_collect_to_vec::<u8, bf16>(&bytes))
                .unwrap(),
            _ => device
                .tensor(Label::Scratch, shape, &bytemuck::pod_collect_to_vec::<u8, f32>(&bytes))
                .unwrap(),
        }
    }

    /// Returns pages (N, K, page, D) that hold the given row in each slot.
    fn pages(&self, device: &Device, page: usize, slots: &[Option<usize>]) -> Tensor {
        let Heads { kv_heads, head_dim, .. } = HEADS;
        let heads = HostRows { bytes: self.bytes.clone(), dtype: self.dtype, width: head_dim };
        let of_head = |slots: &[Option<usize>], head: usize| -> Vec<Option<usize>> {
            slots.iter().map(|row| row.map(|r| r * kv_heads + head)).collect()
        };
        let of_page = |slots| (0..kv_heads).flat_map(move |head| of_head(slots, head));
        let rows = heads.tensor(device, slots.chunks_exact(page).flat_map(of_page));
        rows.reshape([slots.len() / page, kv_heads, page, head_dim])
    }
}

fn ints(device: &Device, shape: impl Into<codelsi_engine::Shape>, data: &[i32]) -> Tensor {
    device.tensor(Label::Scratch, shape, data).unwrap()
}

/// Queries, keys and values of one sequence.
struct TestSequence {
    q: HostRows,
    k: HostRows,
    v: HostRows,
}

impl TestSequence {
    fn new(dtype: DType) -> Self {
        let random_rows = |heads: usize, site| HostRows::random(LENGTH, heads * HEADS.head_dim, dtype, site);
        TestSequence {
            q: random_rows(HEADS.heads, 0),
            k: random_rows(HEADS.kv_heads, 1),
            v: random_rows(HEADS.kv_heads, 2),
        }
    }

    /// Returns o of the sequence as the second document of a batch, after one of `before` rows.
    fn packed(&self, cx: &Ctx, before: usize) -> HostRows {
        let device = cx.device();
        let rows = || (0..before).chain(0..LENGTH).map(Some);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| x.tensor(device, rows()));
        let documents = ints(device, [3], &[0, before as i32, (before + LENGTH) as i32]);
        let mut o = HostRows::copy_of(&flash(cx, &q, &k, &v, &documents, HEADS).unwrap());
        o.bytes.drain(..before * o.width * o.dtype.size());
        o
    }

    /// Returns o of the rows at ranges of positions, each range in its own copy of the sequence, over pages of `page`
    /// tokens.
    fn paged(&self, cx: &Ctx, page: usize, rows: &[Range<usize>]) -> Result<HostRows> {
        let (device, copies) = (cx.device(), rows.len());
        let (block_tables, pages) = tables(&vec![LENGTH; copies], page);
        let mut slots = vec![None; pages * page];
        for table in block_tables.chunks_exact(block_tables.len() / copies) {
            (0..LENGTH).for_each(|j| slots[table[j / page] as usize * page + j % page] = Some(j));
        }
        let [k, v] = [&self.k, &self.v].map(|x| x.pages(device, page, &slots));
        let all_rows = || rows.iter().enumerate().flat_map(|(i, range)| range.clone().map(move |p| (i, p)));
        let column = |of: fn((usize, usize)) -> usize| -> Tensor {
            let data: Vec<i32> = all_rows().map(|row| of(row) as i32).collect();
            ints(device, [data.len()], &data)
        };
        let q = self.q.tensor(device, all_rows().map(|row| Some(row.1)));
        let (sequences, positions) = (column(|row| row.0), column(|row| row.1));
        let tables = ints(device, [copies, block_tables.len() / copies], &block_tables);
        let rows = PagedBatch { sequences: &sequences, positions: &positions, block_tables: &tables };
        let mut arrivals = arrivals(device, copies, HEADS);
        Ok(HostRows::copy_of(&flash_paged(cx, &q, [&k, &v], rows, &mut arrivals, HEADS)?))
    }
}

fn check_row_bits(device: &Device) {
    let cx = Ctx::inference(device);
    for dtype in [DType::F32, DType::BF16] {
        let sequence = TestSequence::new(dtype);
        let alone = sequence.packed(&cx, 0);
        assert!(sequence.packed(&cx, 3).bytes == alone.bytes, "{dtype:?}: packing changes bits");
        let decoded = [0, 5, 63, 64, 128, 255, 256, 529].map(|p| p..p + 1);
        let chunks = [0..100, 241..271, 500..530];
        let mixed = [529..530, 120..140, 7..8];
        for (page, batch) in [
            (16, &decoded[..]),
            (48, &decoded[5..]),
            (256, &decoded[6..]),
            (16, &chunks[..1]),
            (16, &chunks[1..]),
            (128, &chunks[2..]),
            (32, &mixed[..]),
        ] {
            let o = sequence.paged(&cx, page, batch).unwrap();
            for (row, position) in batch.iter().cloned().flatten().enumerate() {
                let what = format!("{dtype:?} page {page} rows {batch:?} on {}", device.name());
                assert!(o.row(row) == alone.row(position), "{what}: position {position} has other bits");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_on_the_cpu() {
    check_row_bits(&Device::cpu());
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_on_the_software_gpu() {
    if let Some(device) = or_skip(Device::emulated("sm_80")) {
        check_row_bits(&device);
    }
}

/// Returns o, dq, dk and dv of random documents, as bytes.
fn trained(dtype: DType, heads: Heads, documents: &[i32]) -> [Vec<u8>; 4] {
    let (device, rows) = (Device::cpu(), documents[documents.len() - 1] as usize);
    let cx = Ctx::training(&device, 0, 0);
    let random_rows = |heads: usize, site| {
        let key = RngKey { seed: 6, step: 0, site };
        random(&device, [rows, heads * HEADS.head_dim].into(), dtype, 1.0, key).unwrap()
    };
    let [q, k, v] = [(heads.heads, 0), (heads.kv_heads, 1), (heads.kv_heads, 2)]
        .map(|(h, site)| random_rows(h, site).with_grad());
    let o = flash(&cx, &q, &k, &v, &ints(&device, [documents.len()], documents), heads).unwrap();
    let mut grads = Grads::default();
    cx.backward([(&o, random_rows(heads.heads, 3))], &mut grads).unwrap();
    let bytes = |t: Tensor| t.bytes().unwrap().to_vec();
    let [dq, dk, dv] = [&q, &k, &v].map(|x| bytes(grads.take(x).unwrap()));
    [bytes(o), dq, dk, dv]
}

/// The number of threads decides how many rows and keys a task has.
#[test]
fn gradients_have_the_same_bits_for_any_number_of_threads() {
    for dtype in [DType::F32, DType::BF16] {
        for (group, documents) in [(1, &[0, 3, 300, 1111][..]), (2, &[0, 520, 584]), (4, &[0, 64, 128])] {
            let heads = Heads { heads: group, kv_heads: 1, ..HEADS };
            let made = [1, 2, 5].map(|threads| {
                let _team = Team::gather(threads).unwrap();
                trained(dtype, heads, documents)
            });
            let heights = [1, 5].map(|threads| {
                let _team = Team::gather(threads).unwrap();
                cpu::rows_of_task(1111, heads)
            });
            assert!(group == 4 || heights[0] > heights[1], "{heights:?}");
            assert!(made[0] == made[1] && made[0] == made[2], "{dtype:?}, group of {group}, {documents:?}");
        }
    }
}

#[test]
fn indices_that_lead_outside_are_trapped() {
    let Some(device) = or_skip(Device::emulated("sm_80")) else { return };
    let cx = Ctx::inference(&device);
    let sequence = TestSequence::new(DType::F32);
    let [q, k, v] = [&sequence.q, &sequence.k, &sequence.v].map(|x| x.tensor(&device, (0..4).map(Some)));
    for documents in [[0, 5, 4], [0, 2, 3], [1, 2, 4]] {
        let documents = ints(&device, [3], &documents);
        let run = flash(&cx, &q, &k, &v, &documents, HEADS);
        let error = run.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("trap"), "documents {documents:?}: {error}");
    }
    let slots: Vec<_> = (0..32).map(Some).collect();
    let [k, v] = [&sequence.k, &sequence.v].map(|x| x.pages(&device, 16, &slots));
    // A page that does not exist, a sequence without a table, a position past its table.
    for (s, position, table) in [(0, 3, [2, -1]), (1, 3, [0, 1]), (0, 40, [0, 1]), (0, 20, [0, -1])] {
        for rows in [1, 2] {
            let q = sequence.q.tensor(&device, (0..rows).map(Some));
            let sequences = ints(&device, [rows], &vec![s; rows]);
            let positions: Vec<i32> = (position..).take(rows).collect();
            let (positions, tables) = (ints(&device, [rows], &positions), ints(&device, [1, 2], &table));
            let batch = PagedBatch { sequences: &sequences, positions: &positions, block_tables: &tables };
            let mut arrivals = arrivals(&device, 1, HEADS);
            let made = flash_paged(&cx, &q, [&k, &v], batch, &mut arrivals, HEADS);
            let error = made.err().map(|e| e.to_string());
            let error = error.unwrap_or_default();
            assert!(error.contains("trap"), "{rows} rows of {s} at {position} by {table:?}: {error}");
        }
    }
}
