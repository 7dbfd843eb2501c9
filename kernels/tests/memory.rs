//! Attention never holds a score matrix, and decoding reads pages where they lie: counted at the allocator.

mod common;

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Grads, Label, Tensor};
use codelsi_kernels::check::random;
use codelsi_kernels::flash::{Heads, PagedBatch, arrivals, flash, flash_paged};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator with a high-water mark.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes at most in use during `f`, beyond those in use before.
fn peak_of<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    (result, PEAK.load(Relaxed) - before)
}

fn values(device: &Device, shape: [usize; 2], site: u32) -> Tensor {
    random(device, shape.into(), DType::F32, 1.0, RngKey { seed: 3, step: 0, site }).unwrap()
}

/// One test: the counters are the process's.
#[test]
fn attention_holds_tiles_and_reads_pages_in_place() {
    if common::is_selected("flash") {
        training_memory_is_linear_in_tokens();
    }
    if common::is_selected("flash_paged") {
        decoding_copies_no_context();
    }
}

fn training_memory_is_linear_in_tokens() {
    const T: usize = 8192;
    let heads = Heads { heads: 2, kv_heads: 1, head_dim: 8 };
    let device = Device::cpu();
    let documents = device.tensor(Label::Scratch, [2], &[0, T as i32]).unwrap();
    let q = values(&device, [T, 16], 0).with_grad();
    let (k, v) = (values(&device, [T, 8], 1).with_grad(), values(&device, [T, 8], 2).with_grad());
    let dy = values(&device, [T, 16], 3);
    let ((), peak) = peak_of(|| {
        let cx = Ctx::training(&device, 0, 0);
        let o = flash(&cx, &q, &k, &v, &documents, heads).unwrap();
        let mut grads = Grads::default();
        cx.backward([(&o, dy.clone())], &mut grads).unwrap();
        assert!(grads.get(&q).is_some() && grads.get(&k).is_some() && grads.get(&v).is_some());
    });
    // o, L, Δ, dq, dk, dv are 1.8 MB; a score matrix of one head would be 268 MB.
    let outputs = 4 * T * (16 + 2 + 2 + 16 + 8 + 8);
    assert!(peak < outputs + (6 << 20), "flash used {peak} bytes at T = {T}; its results are {outputs}");
}

fn decoding_copies_no_context() {
    const CONTEXT: usize = 8_192;
    const PAGE: usize = 16;
    let heads = Heads { heads: 2, kv_heads: 2, head_dim: 64 };
    let device = Device::cpu();
    let pages = CONTEXT / PAGE;
    let pool = |site| values(&device, [CONTEXT, 128], site).reshape([pages, 2, PAGE, 64]);
    let (k, v) = (pool(0), pool(1));
    let ints = |data: &[i32], shape: &[usize]| device.tensor(Label::Scratch, shape, data).unwrap();
    // Pages in an order of their own.
    let table: Vec<i32> = (0..pages).map(|i| ((i * 1237) % pages) as i32).collect();
    let (sequences, positions) = (ints(&[0], &[1]), ints(&[CONTEXT as i32 - 1], &[1]));
    let tables = ints(&table, &[1, pages]);
    let mut arrivals = arrivals(&device, 1, heads);
    let rows = PagedBatch { sequences: &sequences, positions: &positions, block_tables: &tables };
    let q = values(&device, [1, 128], 2);
    let cx = Ctx::inference(&device);
    let (o, peak) = peak_of(|| flash_paged(&cx, &q, [&k, &v], rows, &mut arrivals, heads).unwrap());
    assert!(peak < 1 << 20, "decoding over {CONTEXT} tokens used {peak} bytes beside its pages");

    // The same keys and values, gathered by hand, give the same bits in the training kernel.
    let gather = |x: &Tensor| -> Tensor {
        let x = x.slice::<f32>().unwrap();
        let slots = table.iter().flat_map(|&p| (0..PAGE).map(move |offset| (p as usize, offset)));
        let heads = slots.flat_map(|(p, offset)| [0, 1].map(|head| (p * 2 + head) * PAGE + offset));
        let rows = heads.flat_map(|row| x[row * 64..][..64].to_vec());
        device.tensor(Label::Scratch, [CONTEXT, 128], &rows.collect::<Vec<f32>>()).unwrap()
    };
    let mut all = vec![0.0f32; CONTEXT * 128];
    all[(CONTEXT - 1) * 128..].copy_from_slice(q.slice::<f32>().unwrap());
    let all = device.tensor(Label::Scratch, [CONTEXT, 128], &all).unwrap();
    let documents = ints(&[0, CONTEXT as i32], &[2]);
    let whole = flash(&cx, &all, &gather(&k), &gather(&v), &documents, heads).unwrap();
    let last = &whole.slice::<f32>().unwrap()[(CONTEXT - 1) * 128..];
    assert_eq!(o.slice::<f32>().unwrap(), last);
}
