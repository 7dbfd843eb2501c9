//! The launches of `forward.cu`, `decode.cu` and `backward.cu`.

use super::paged::PagedBatch;
use super::{Heads, SPLIT};
use crate::cuda::{STORAGE, element};
use codelsi_engine::cuda::{Arg, Cuda, Define, DeviceProperties, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Error, Result, Tensor};

const HEADERS: [(&str, &str); 5] = [
    ("prelude.cuh", include_str!("../prelude.cuh")),
    ("tiles.cuh", include_str!("tiles.cuh")),
    ("mma.cuh", include_str!("mma.cuh")),
    ("ffma.cuh", include_str!("ffma.cuh")),
    ("attend.cuh", include_str!("attend.cuh")),
];

/// Headers of `backward.cu`.
const BACKWARD_HEADERS: [(&str, &str); 7] = {
    let [prelude, tiles, mma, ffma, attend] = HEADERS;
    let backward_mma = ("backward_mma.cuh", include_str!("backward_mma.cuh"));
    let backward_ffma = ("backward_ffma.cuh", include_str!("backward_ffma.cuh"));
    [prelude, tiles, mma, ffma, attend, backward_mma, backward_ffma]
};

/// Numbers that all three sources share.
const CONSTANTS: &[Define] = &[
    Define::int("TILE", TILE),
    Define::int("SPLIT", SPLIT),
    Define::int("HEAD", HEAD),
    Define::list("MMA_TILES", MMA_TILES.as_flattened()),
    Define::list("FFMA_TILES", FFMA_TILES.as_flattened()),
    Define::int("STRIP", STRIP),
];

/// Defines E, MMA, 1 when products run on tensor cores, and DP, the padded head size.
fn variant(dtype: DType, width: usize) -> Variant {
    element(dtype).int("MMA", (dtype == DType::BF16) as usize).int("DP", width)
}

/// Adds the tile of rows of a block of forward, as a row of [`TileTable`].
fn forward_variant(dtype: DType, width: usize, tile: usize) -> Variant {
    variant(dtype, width).int("PREFILL_TILE", tile)
}

fn variants() -> Vec<Variant> {
    STORAGE.into_iter().flat_map(|dtype| [64, 128].map(|width| variant(dtype, width))).collect()
}

/// Forward over packed documents, and over pages by runs of rows.
pub static FORWARD: Source = Source {
    name: "flash/forward.cu",
    text: include_str!("forward.cu"),
    headers: &HEADERS,
    constants: CONSTANTS,
    variants: || {
        let of = |dtype| {
            let tiles = if dtype == DType::BF16 { &[PREFILL, TALL][..] } else { &[PREFILL] };
            tiles.iter().flat_map(move |&tile| [64, 128].map(|width| forward_variant(dtype, width, tile)))
        };
        STORAGE.into_iter().flat_map(of).collect()
    },
};

/// Forward of single rows over pages, in splits.
pub static DECODE: Source = Source {
    name: "flash/decode.cu",
    text: include_str!("decode.cu"),
    headers: &HEADERS,
    constants: CONSTANTS,
    variants,
};

/// Delta, and dq, dk and dv.
pub static BACKWARD: Source = Source {
    name: "flash/backward.cu",
    text: include_str!("backward.cu"),
    headers: &BACKWARD_HEADERS,
    constants: CONSTANTS,
    variants,
};

/// Keys of one step of the online softmax; tiles begin at multiples of it.
const TILE: usize = 64;
/// Bytes at the start of shared memory that describe a block's work.
const HEAD: usize = 256;
/// Query heads of a block of `flash_decode`.
const DECODE_HEADS: usize = 16;

/// Rows of dq whose sums lie together in `flash_backward`'s working memory.
const STRIP: usize = 16;

/// Tiles of the prefill, of the prefill by tall tiles, of decoding, of `flash_delta` and of `flash_backward`'s keys: rows of
/// the resident tile, rows of the streamed tiles, elements from row to row of the scores that a block's threads exchange
/// (0: none), warps of a block, and streamed tiles of a kind that lie in shared memory.
type TileTable = [[usize; 5]; 5];
const PREFILL: usize = 0;
const TALL: usize = 1;

/// Tiles of the bf16 kernels, on tensor cores.
const MMA_TILES: TileTable = [
    [128, TILE, 0, 4, 1],
    [256, TILE, 0, 8, 2],
    [DECODE_HEADS, TILE, TILE + 8, 4, 2],
    [64, TILE, 0, 4, 1],
    [128, 64, 64, 8, 2],
];
/// Tiles of the f32 kernels, by fused multiply-adds; there are no tall ones.
const FFMA_TILES: TileTable = [
    [64, TILE, TILE + 4, 8, 1],
    [64, TILE, TILE + 4, 8, 1],
    [DECODE_HEADS, TILE, TILE + 16, 8, 2],
    [64, TILE, TILE + 4, 8, 1],
    [64, 32, 32 + 4, 8, 2],
];

/// The variant and tiles of a call.
struct Tiling {
    dtype: DType,
    /// D, padded.
    width: usize,
    /// Query heads of a block of `flash_decode`.
    decode: TileSizes,
    /// Rows of a block of `flash_delta`.
    diagonal: TileSizes,
    /// Keys of a block of `flash_backward`, and the query rows of a step.
    keys: TileSizes,
}

/// Returns the tiles of the kernels of a type, in the order of [`TileTable`].
fn tiles(dtype: DType) -> [TileSizes; 5] {
    let table = if dtype == DType::BF16 { MMA_TILES } else { FFMA_TILES };
    table.map(|[rows, columns, stride, warps, stages]| TileSizes {
        rows,
        columns,
        exchanged: rows * stride,
        threads: 32 * warps,
        stages,
    })
}

/// A row of [`TileTable`].
struct TileSizes {
    rows: usize,
    columns: usize,
    /// Elements of the scores that threads exchange.
    exchanged: usize,
    threads: usize,
    stages: usize,
}

/// The tile of query rows of a block of `flash_forward` and `flash_pages`.
struct RowTile {
    sizes: TileSizes,
    variant: Variant,
}

impl Tiling {
    fn new(dtype: DType, heads: Heads) -> Result<Self> {
        let d = heads.head_dim;
        if d == 0 || d > 128 || !d.is_multiple_of(8) {
            let message = format!("head_dim is {d}: the CUDA kernels take multiples of 8 up to 128");
            return Err(Error::new(message));
        }
        let [.., decode, diagonal, keys] = tiles(dtype);
        Ok(Tiling { dtype, width: padded_head(d), decode, diagonal, keys })
    }

    fn variant(&self) -> Variant {
        variant(self.dtype, self.width)
    }

    /// Returns the tile for `rows` rows of `runs` documents or runs, of so many heads. It changes no bit of a row.
    fn prefill(&self, cuda: &Cuda, rows: usize, runs: usize, heads: Heads) -> RowTile {
        let tall = self.dtype == DType::BF16 && is_tall(cuda.properties(), rows, runs, heads.heads);
        let tile = if tall { TALL } else { PREFILL };
        let [prefill, tall_prefill, ..] = tiles(self.dtype);
        let sizes = if tall { tall_prefill } else { prefill };
        RowTile { sizes, variant: forward_variant(self.dtype, self.width, tile) }
    }

    /// Returns a grid of blocks of `flash_forward`, `flash_pages` or `flash_decode`, whose shared memory holds the header, the
    /// queries, the stages of keys and of values, and the scores that are exchanged.
    fn forward(&self, blocks: [usize; 3], t: &TileSizes) -> Grid {
        let shared = HEAD + self.rows(t.rows + 2 * t.stages * t.columns) + 4 * t.exchanged;
        Grid { blocks, threads: t.threads, shared }
    }

    /// Returns the grid of `flash_delta`, whose shared memory holds two tiles.
    fn delta(&self, rows: usize) -> Grid {
        let tile = &self.diagonal;
        let blocks = [rows.div_ceil(tile.rows), 1, 1];
        Grid { blocks, threads: tile.threads, shared: self.rows(2 * tile.rows) }
    }

    /// Returns the grid of `flash_backward`, whose shared memory holds the header, L and Δ of two steps, keys and values,
    /// the queries of two steps, the gradients of one, and P and dS.
    fn backward(&self, blocks: [usize; 3]) -> Grid {
        let t = &self.keys;
        let rows = self.rows(2 * t.rows + (t.stages + 1) * t.columns);
        let shared = HEAD + 4 * 2 * t.stages * t.columns + rows + 2 * self.dtype.size() * t.exchanged;
        Grid { blocks, threads: t.threads, shared }
    }

    /// Bytes of rows of a tile.
    fn rows(&self, rows: usize) -> usize {
        rows * self.width * self.dtype.size()
    }
}

/// True where tall tiles are faster: they read keys and values half as often, but their last wave may be emptier.
fn is_tall(card: &DeviceProperties, rows: usize, runs: usize, heads: usize) -> bool {
    // Time of a row of a tall tile as a share of the other's, where the multiprocessors are full (LOG.md, 2026-12-01): on
    // Hopper the second-level cache is the bound, before it the tensor cores are.
    let share = if card.arch == "sm_80" { 0.97 } else { 0.85 };
    let tail = |tile: usize| {
        let blocks = ((rows / tile + runs) * heads) as f64;
        let waves = blocks / card.multiprocessors as f64;
        waves.ceil() / waves
    };
    let [prefill, tall] = [MMA_TILES[PREFILL][0], MMA_TILES[TALL][0]];
    rows >= runs * tall && tail(tall) * share <= tail(prefill)
}

/// Returns the scale of scores: 1 / √D, times log₂ e in bf16, whose kernels use base-2 exponentials.
fn score_scale<'a>(heads: Heads, dtype: DType) -> Arg<'a> {
    let base = if dtype == DType::BF16 { std::f64::consts::LOG2_E } else { 1.0 };
    Arg::F32((base / (heads.head_dim as f64).sqrt()) as f32)
}

/// Returns the arguments H, K and D of every kernel.
fn sizes<'a>(heads: Heads) -> [Arg<'a>; 3] {
    let Heads { heads, kv_heads, head_dim } = heads;
    [heads, kv_heads, head_dim].map(int)
}

fn int<'a>(x: usize) -> Arg<'a> {
    Arg::I32(x as i32)
}

/// Computes o (T, H·D) and L (T, H), in base 2 for bf16, of packed documents.
pub fn forward(
    cx: &Ctx,
    cuda: &Cuda,
    [o, lse]: [&mut Tensor; 2],
    [q, k, v, documents]: [&Tensor; 4],
    heads: Heads,
) -> Result<()> {
    let tiling = Tiling::new(q.dtype(), heads)?;
    let (t, n) = (q.shape()[0], documents.shape()[0] - 1);
    let mut store = PartialStates::of_documents(cx, t, heads);
    let [sums, stats] = store.args();
    let inputs = [Arg::Out(o), Arg::Out(lse), sums, stats, Arg::In(q), Arg::In(k), Arg::In(v)];
    let args = inputs.into_iter().chain([Arg::In(documents), int(n), int(t)]).chain(sizes(heads));
    let mut args: Vec<Arg> = args.chain([score_scale(heads, q.dtype())]).collect();
    let RowTile { sizes, variant } = tiling.prefill(cuda, t, n, heads);
    let grid = tiling.forward([t / sizes.rows + n, heads.heads, 1], &sizes);
    start(cuda, &FORWARD, "flash_forward", variant, grid, &mut args)
}

/// Computes dq (T, H·D), dk and dv (T, K·D).
pub fn backward(
    cx: &Ctx,
    cuda: &Cuda,
    [dq, dk, dv]: [&mut Tensor; 3],
    delta: &mut Tensor,
    [q, k, v, documents, o, lse]: [&Tensor; 6],
    d_o: &Tensor,
    heads: Heads,
) -> Result<()> {
    let tiling = Tiling::new(q.dtype(), heads)?;
    let (t, n) = (q.shape()[0], documents.shape()[0] - 1);
    let mut summed = SummedQueries::new(cx, q, documents, heads);
    let rows = t * heads.heads;
    let count = int(summed.turns());
    let [_, turns] = summed.args();
    let args = [Arg::Out(delta), turns, Arg::In(d_o), Arg::In(o), count, int(rows), int(heads.head_dim)];
    start(cuda, &BACKWARD, "flash_delta", tiling.variant(), tiling.delta(rows), &mut Vec::from(args))?;
    let [sums, turns] = summed.args();
    let outputs = [Arg::Out(dq), Arg::Out(dk), Arg::Out(dv), sums, turns];
    let inputs = [q, k, v, d_o, lse, &*delta, documents].map(Arg::In);
    let args = outputs.into_iter().chain(inputs).chain([int(n), int(t)]).chain(sizes(heads));
    let scale = Arg::F32(1.0 / (heads.head_dim as f32).sqrt());
    let mut args: Vec<Arg> = args.chain([score_scale(heads, q.dtype()), scale]).collect();
    let grid = tiling.backward([t / tiling.keys.rows + n, heads.kv_heads, 1]);
    start(cuda, &BACKWARD, "flash_backward", tiling.variant(), grid, &mut args)
}

/// Computes o (T, H·D) of q (T, H·D) over k and v pages (N, K, page, D).
///
/// Single rows, up to the number of sequences, are decoded in splits; the remaining rows are processed in tiles. The
/// choice changes no bit of a row.
pub fn paged(
    cx: &Ctx,
    cuda: &Cuda,
    o: &mut Tensor,
    qkv: [&Tensor; 3],
    rows: PagedBatch,
    arrivals: &mut Tensor,
    heads: Heads,
) -> Result<()> {
    let tiling = Tiling::new(qkv[0].dtype(), heads)?;
    if i32::try_from(qkv[1].shape().as_matrix().0).is_err() {
        let message = format!("pages {:?} have more rows of a head than i32 counts", qkv[1]);
        return Err(Error::new(message));
    }
    let (t, s) = (qkv[0].shape()[0], rows.block_tables.shape()[0]);
    let splits = splits(qkv[1], rows);
    // With no more rows than sequences, every row is decoded in splits.
    let tiles = cuda.branch("flash_paged: runs of rows", t > s);
    // Which single rows are decoded in splits depends on how runs are cut, so both launches get the same `longest`.
    let RowTile { sizes, variant } = tiling.prefill(cuda, t.saturating_sub(s), 1, heads);
    let longest = if tiles { sizes.rows } else { 1 };
    let call = PagedLaunch { qkv, rows, heads, longest, single_rows: t.min(s) };
    if tiles {
        let mut store = PartialStates::of_pages(cx, t, splits, heads);
        let blocks = [(t - s).div_ceil(sizes.rows) + 1, heads.heads, 1];
        let grid = tiling.forward(blocks, &sizes);
        start(cuda, &FORWARD, "flash_pages", variant, grid, &mut call.args(o, &mut store))?;
    }
    let mut store = PartialStates::of_pages(cx, call.single_rows * splits, splits, heads);
    let grid = tiling.forward([call.single_rows, blocks_of_row(heads), splits], &tiling.decode);
    let mut args = call.args(o, &mut store);
    args.insert(3, Arg::InOut(arrivals));
    start(cuda, &DECODE, "flash_decode", tiling.variant(), grid, &mut args)
}

/// Returns the blocks of a split of a row: its kv heads, several times where one has more than [`DECODE_HEADS`] query
/// heads.
pub fn blocks_of_row(heads: Heads) -> usize {
    heads.kv_heads * (heads.heads / heads.kv_heads).div_ceil(DECODE_HEADS)
}

/// The arguments that `flash_pages` and `flash_decode` share.
struct PagedLaunch<'a> {
    qkv: [&'a Tensor; 3],
    rows: PagedBatch<'a>,
    heads: Heads,
    /// Maximum rows of a run.
    longest: usize,
    /// Runs of one row that are decoded in splits.
    single_rows: usize,
}

impl PagedLaunch<'_> {
    fn args<'x>(&'x self, o: &'x mut Tensor, store: &'x mut PartialStates) -> Vec<Arg<'x>> {
        let ([q, k, v], PagedBatch { sequences, positions, block_tables: tables }) = (self.qkv, self.rows);
        let (t, s, m) = (q.shape()[0], tables.shape()[0], tables.shape()[1]);
        let counts = [t, s, m, k.shape()[0], k.shape()[2]].map(int);
        let runs = [int(self.longest), int(self.single_rows)];
        let args = [Arg::InOut(o)].into_iter().chain(store.args());
        let args = args.chain([q, k, v, sequences, positions, tables].map(Arg::In)).chain(counts);
        args.chain(sizes(self.heads)).chain(runs).chain([score_scale(self.heads, q.dtype())]).collect()
    }
}

/// Allocates on the planning device what [`forward`] does.
pub fn plan_forward(cx: &Ctx, rows: usize, heads: Heads) {
    PartialStates::of_documents(cx, rows, heads);
}

/// Allocates on the planning device what [`backward`] does.
pub fn plan_backward(cx: &Ctx, q: &Tensor, documents: &Tensor, heads: Heads) {
    SummedQueries::new(cx, q, documents, heads);
}

/// Allocates on the planning device what [`paged`] does at its peak.
pub fn plan_paged(cx: &Ctx, q: &Tensor, k_pages: &Tensor, rows: PagedBatch, heads: Heads) {
    let (t, s, splits) = (q.shape()[0], rows.block_tables.shape()[0], splits(k_pages, rows));
    PartialStates::of_pages(cx, if t > s { t.max(s * splits) } else { t * splits }, splits, heads);
}

/// Returns the splits of the longest sequence that the block tables hold.
fn splits(pages: &Tensor, rows: PagedBatch) -> usize {
    (rows.block_tables.shape()[1] * pages.shape()[2]).div_ceil(SPLIT)
}

/// Returns the head size that kernels are compiled for.
fn padded_head(head_dim: usize) -> usize {
    if head_dim > 64 { 128 } else { 64 }
}

/// Working memory for unfinished rows: sums (rows, H, padded D), and maximum and total (rows, H, 2).
struct PartialStates(Option<(Tensor, Tensor)>);

impl PartialStates {
    /// Allocates the states of `rows` rows of packed documents.
    fn of_documents(cx: &Ctx, rows: usize, heads: Heads) -> Self {
        PartialStates::of_pages(cx, rows, rows.div_ceil(SPLIT), heads)
    }

    /// Allocates `rows` states; none where no row has more than one split.
    fn of_pages(cx: &Ctx, rows: usize, splits: usize, heads: Heads) -> Self {
        let of = |width| cx.scratch([rows, heads.heads, width], DType::F32);
        PartialStates((splits > 1).then(|| (of(padded_head(heads.head_dim)), of(2))))
    }

    fn args(&mut self) -> [Arg<'_>; 2] {
        match &mut self.0 {
            Some((sums, stats)) => [Arg::MaybeInOut(Some(sums)), Arg::MaybeInOut(Some(stats))],
            None => [Arg::MaybeInOut(None), Arg::MaybeInOut(None)],
        }
    }
}

/// Working memory of [`backward`] for dq: sums (strips, H, 16, padded D), and how many summands each tile has (tiles, H).
struct SummedQueries(Option<(Tensor, Tensor)>);

impl SummedQueries {
    /// Allocates it for the rows of q; none where no document can have two tiles of keys.
    fn new(cx: &Ctx, q: &Tensor, documents: &Tensor, heads: Heads) -> Self {
        let (t, n) = (q.shape()[0], documents.shape()[0] - 1);
        let [.., keys] = tiles(q.dtype());
        SummedQueries((t > keys.rows).then(|| {
            let strips = [t / STRIP + n, heads.heads, STRIP, padded_head(heads.head_dim)];
            let tiles = [t / keys.columns + n, heads.heads];
            (cx.scratch(strips, DType::F32), cx.scratch(tiles, DType::I32))
        }))
    }

    fn turns(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, turns)| turns.shape().elements())
    }

    fn args(&mut self) -> [Arg<'_>; 2] {
        match &mut self.0 {
            Some((sums, turns)) => [Arg::MaybeInOut(Some(sums)), Arg::MaybeInOut(Some(turns))],
            None => [Arg::MaybeInOut(None), Arg::MaybeInOut(None)],
        }
    }
}

fn start(
    cuda: &Cuda,
    source: &'static Source,
    kernel: &str,
    variant: Variant,
    grid: Grid,
    args: &mut [Arg],
) -> Result<()> {
    let kernel = cuda.kernel(source, variant, kernel)?;
    // SAFETY: the ops have checked that shapes fit the heads; rows, keys and channels beyond the tensors' are neither
    // read nor written, and documents, positions or tables that lead outside them are trapped.
    unsafe { kernel.launch(grid, args) }
}
