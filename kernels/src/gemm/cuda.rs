//! The launches of `gemm.cu`, `ffma.cu` and `sum.cu`.

use crate::cuda::{HEADERS, PRELUDE, STORAGE, element, elements};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Error, Result, Tensor};

/// Headers of the sources that multiply on tensor cores.
pub(crate) const MAINLOOP: &[(&str, &str)] =
    &[PRELUDE, ("tile.cuh", include_str!("tile.cuh")), ("mainloop.cuh", include_str!("mainloop.cuh"))];

/// Choice of a product in a group.
pub(crate) const GROUP_HEADER: (&str, &str) = ("group.cuh", include_str!("group.cuh"));

/// bf16 products.
pub static GEMM: Source = Source {
    name: "gemm.cu",
    text: include_str!("gemm.cu"),
    headers: MAINLOOP,
    constants: &[SHAPE_CONSTANTS[0], Define::int("SLICED", SLICED)],
    variants: || {
        let of_form = |form| {
            let variants = tile_variants().into_iter().filter(move |v| v.supports(form));
            variants.map(move |v| v.variant(Variant::PLAIN.int("FORM", form as usize)))
        };
        OperandLayout::ALL.into_iter().flat_map(of_form).collect()
    },
};

/// f32 products.
pub static FFMA: Source = Source {
    name: "ffma.cu",
    text: include_str!("ffma.cu"),
    headers: HEADERS,
    constants: &[Define::list("TILES", FFMA_TILES.as_flattened())],
    variants: || {
        // The right operand of aᵀ b is a gradient, never a weight in bf16.
        let weights =
            |form| STORAGE.into_iter().filter(move |&w| form != OperandLayout::TN || w == DType::F32);
        let shapes = |form| [0, 1].map(|shape| weights(form).map(move |w| ffma_variant(form, shape, w)));
        OperandLayout::ALL.into_iter().flat_map(|form| shapes(form).into_iter().flatten()).collect()
    },
};

/// Sums of partial products.
pub static SUM: Source = Source {
    name: "sum.cu",
    text: include_str!("sum.cu"),
    headers: HEADERS,
    constants: &[],
    variants: elements,
};

/// Rows `first..first + rows` of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct RowSlice<'a> {
    pub t: &'a Tensor,
    pub first: usize,
    pub rows: usize,
}

impl<'a> RowSlice<'a> {
    /// All rows.
    pub fn all(t: &'a Tensor) -> Self {
        RowSlice { t, first: 0, rows: t.shape().as_matrix().0 }
    }

    fn columns(&self) -> usize {
        self.t.shape().as_matrix().1
    }
}

/// The operands' transposition: FORM in variants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OperandLayout {
    /// a (M, K) · b (N, K)ᵀ
    NT,
    /// a (M, K) · b (K, N)
    NN,
    /// a (K, M)ᵀ · b (K, N)
    TN,
}

impl OperandLayout {
    const ALL: [OperandLayout; 3] = [OperandLayout::NT, OperandLayout::NN, OperandLayout::TN];
}

/// Tile shapes of the products on tensor cores, SHAPE in their variants: rows and columns of y, steps of K, stages of
/// the pipeline, warps along rows and along columns.
pub(crate) const SHAPES: [[usize; 6]; 25] = [
    [16, 32, 128, 6, 1, 4],  // up to 16 rows: as many blocks as possible stream the weight
    [64, 32, 128, 4, 2, 2],  // up to 64 rows
    [64, 64, 64, 4, 2, 2],   // up to 64 rows; products of few tiles; unaligned or f32 operands
    [128, 128, 32, 4, 2, 2], // two blocks a multiprocessor
    [128, 256, 64, 3, 2, 4], // one block, 64x64 a warp
    [128, 16, 64, 2, 8, 1],  // x Aᵀ of adapters: 16 columns to 64, several blocks, 16 rows a warp
    [128, 32, 64, 2, 8, 1],
    [128, 48, 64, 2, 8, 1],
    [128, 64, 64, 2, 8, 1],
    [16, 128, 64, 3, 1, 4], // dSᵀ x of adapters: 16, 32 or 64 rows
    [32, 128, 64, 3, 1, 4],
    [64, 128, 64, 3, 1, 4],
    [16, 48, 128, 6, 1, 3],  // up to 16 rows: 5,120 columns are 107 blocks
    [64, 48, 128, 4, 2, 3],  // up to 64 rows, likewise
    [64, 128, 64, 4, 2, 2],  // up to 64 rows of wide weights
    [128, 192, 64, 3, 2, 4], // one block: 512 rows of 5,120 columns are 108
    [64, 16, 64, 2, 4, 1],   // x Aᵀ of adapters, of fewer rows
    [64, 32, 64, 2, 4, 1],
    [64, 48, 64, 2, 4, 1],
    [64, 64, 64, 2, 4, 1],
    [160, 16, 64, 2, 10, 1], // and of more: 2,048 rows in ten slices are 130 blocks
    [160, 32, 64, 2, 10, 1],
    [160, 48, 64, 2, 10, 1],
    [160, 64, 64, 2, 10, 1],
    [32, 48, 128, 4, 1, 3], // up to 32 rows, two blocks
];

/// [`SHAPES`] as `mainloop.cuh` reads it.
pub(crate) const SHAPE_CONSTANTS: &[Define] = &[Define::list("TILE_SHAPES", SHAPES.as_flattened())];

/// A tile shape as launches see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// Its index in [`SHAPES`].
    pub shape: usize,
    pub rows: usize,
    pub columns: usize,
    pub threads: usize,
    /// Bytes of shared memory: all stages of both operands, when both are bf16.
    pub shared: usize,
    /// Blocks that share a multiprocessor.
    resident: usize,
    /// Share of the tensor cores' peak that its main loop reaches.
    rate: f64,
}

pub(crate) const fn tile(shape: usize, resident: usize, rate: f64) -> Tile {
    let [rows, columns, depth, stages, warps_along_rows, warps_along_columns] = SHAPES[shape];
    let threads = 32 * warps_along_rows * warps_along_columns;
    Tile { shape, rows, columns, threads, shared: 2 * (rows + columns) * depth * stages, resident, rate }
}

/// The tiles to choose from.
pub(crate) const TILES: [Tile; 10] = [
    tile(0, 2, 0.15),
    tile(1, 1, 0.3),
    tile(2, 2, 0.6),
    tile(3, 2, 0.85),
    tile(4, 1, 1.0),
    tile(12, 2, 0.15),
    tile(13, 1, 0.3),
    tile(14, 1, 0.6),
    tile(15, 1, 0.97),
    tile(24, 2, 0.3),
];

/// Tiles of `ffma.cu`: rows and columns of y, of the block and of a thread.
const FFMA_TILES: [[usize; 4]; 2] = [[16, 32, 2, 2], [128, 128, 8, 8]];

/// The variant of a product on tensor cores, without its FORM.
#[derive(Clone, Copy)]
pub(crate) struct TileVariant {
    pub shape: usize,
    /// Storage of the weights, or of the right operand.
    pub w: DType,
    /// True when rows of all operands are multiples of 16 bytes.
    pub aligned: bool,
}

impl TileVariant {
    /// Adds SHAPE, W and ALIGNED.
    pub const fn variant(self, variant: Variant) -> Variant {
        variant.int("SHAPE", self.shape).dtype("W", self.w).int("ALIGNED", self.aligned as usize)
    }

    /// True for a product of bf16 operands in whole chunks whose K is not cut: every one of [`TILES`] makes it.
    pub fn streams(size: GemmShape, w: DType) -> bool {
        size.aligned(w) && w == DType::BF16 && size.slices() == 1
    }

    /// Only NT has few rows, and columns that are no power of two; both operands of TN are activations in bf16.
    pub fn supports(&self, form: OperandLayout) -> bool {
        let any = (2..=4).contains(&self.shape);
        match form {
            OperandLayout::NT => true,
            OperandLayout::NN => any,
            OperandLayout::TN => any && self.w == DType::BF16,
        }
    }
}

/// Every [`TileVariant`]: all tiles for aligned bf16, one tile for the rest.
pub(crate) fn tile_variants() -> Vec<TileVariant> {
    let fast = TILES.iter().map(|tile| TileVariant { shape: tile.shape, w: DType::BF16, aligned: true });
    let rest = [(DType::F32, true), (DType::BF16, false), (DType::F32, false)];
    fast.chain(rest.map(|(w, aligned)| TileVariant { shape: 2, w, aligned })).collect()
}

/// The tile of products whose K is cut into slices, of unaligned ones and of f32 weights.
const SLICED: usize = 2;
/// Columns up to which K is cut into slices, and the length of one.
const NARROW: usize = 64;
const SLICE: usize = 1024;

/// The form of a product, and its M, N and K.
#[derive(Clone, Copy)]
pub(crate) struct GemmShape {
    pub form: OperandLayout,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl GemmShape {
    /// Returns the size of the product that makes rows `first..first + m` of `y`, all three inside their tensors.
    pub fn new(
        form: OperandLayout,
        y: &Tensor,
        (first, m): (usize, usize),
        [a, b]: [RowSlice; 2],
    ) -> Result<Self> {
        let ((n, k), of_a) = match form {
            OperandLayout::NT => ((b.rows, b.columns()), m),
            OperandLayout::NN => ((b.columns(), b.rows), m),
            OperandLayout::TN => ((b.columns(), b.rows), b.rows),
        };
        let size = GemmShape { form, m, n, k };
        let holds = |t: &Tensor, elements: usize| elements <= t.shape().elements();
        let inside = holds(y, (first + m) * n)
            && holds(a.t, (a.first + a.rows) * size.pitch(false))
            && holds(b.t, (b.first + b.rows) * size.pitch(true));
        if a.rows != of_a || !inside || [m, n, k].into_iter().any(|side| side > i32::MAX as usize / 2) {
            let (y, a, b) = (y.shape(), a.t.shape(), b.t.shape());
            let message = format!("{form:?} product of {a} and {b} does not make rows {first}..+{m} of {y}");
            return Err(Error::new(message));
        }
        Ok(size)
    }

    /// Elements of a row of the left or the right operand.
    fn pitch(&self, right: bool) -> usize {
        match (self.form, right) {
            (OperandLayout::NT, _) | (OperandLayout::NN, false) => self.k,
            (OperandLayout::TN, false) => self.m,
            (_, true) => self.n,
        }
    }

    /// Number of slices of K. The weight's shape alone decides, so that no row's bits depend on the other rows.
    fn slices(&self) -> usize {
        if self.n <= NARROW { self.k.div_ceil(SLICE) } else { 1 }
    }

    /// True when rows of both operands are multiples of 16 bytes.
    fn aligned(&self, b: DType) -> bool {
        self.pitch(false).is_multiple_of(8) && self.pitch(true).is_multiple_of(16 / b.size())
    }
}

/// Returns the tile that takes the least time for products of `m` rows and of each of the `widths` on `multiprocessors`.
pub(crate) fn choose(form: OperandLayout, m: usize, widths: &[usize], multiprocessors: usize) -> Tile {
    let blocks = |t: &Tile| m.div_ceil(t.rows) * widths.iter().map(|n| n.div_ceil(t.columns)).sum::<usize>();
    // Few rows take as long as the cache needs to send each block its rows of x and of the weight.
    let stream = |t: &Tile| (blocks(t).div_ceil(multiprocessors) * (m + t.columns)) as f64;
    let multiply = |t: &Tile| {
        let waves = blocks(t).div_ceil(multiprocessors * t.resident);
        (waves * t.resident * t.rows * t.columns) as f64 / t.rate
    };
    let nt = form == OperandLayout::NT;
    let least = |time: &dyn Fn(&Tile) -> f64, fits: &dyn Fn(&Tile) -> bool| {
        let tiles = TILES.into_iter().filter(|t| fits(t));
        tiles.min_by(|a, b| time(a).total_cmp(&time(b))).unwrap_or(TILES[SLICED])
    };
    match m {
        ..=16 if nt => least(&stream, &|t| t.rows == 16),
        ..=32 if nt => least(&stream, &|t| t.rows == 32 || (t.rows, t.columns) == (64, 128)),
        ..=64 if nt => least(&stream, &|t| t.rows == 64),
        _ => least(&multiply, &|t| t.shape == SLICED || t.rows == 128 && (nt || t.columns != 192)),
    }
}

/// Treatment of the old content of y.
#[derive(Clone, Copy)]
pub(crate) enum Accumulate<'a> {
    /// y = product
    Overwrite,
    /// y += product
    Add,
    /// y = factor · y + product, with a factor of each row (M), f32
    Rescale(&'a Tensor),
}

impl<'a> Accumulate<'a> {
    /// True unless y is overwritten.
    fn adds(self) -> bool {
        !matches!(self, Accumulate::Overwrite)
    }

    fn factors(self) -> Option<&'a Tensor> {
        match self {
            Accumulate::Rescale(factors) => Some(factors),
            _ => None,
        }
    }
}

impl From<bool> for Accumulate<'_> {
    /// Returns [`Accumulate::Add`] if `add`.
    fn from(add: bool) -> Self {
        if add { Accumulate::Add } else { Accumulate::Overwrite }
    }
}

/// Computes rows `first..first + rows` of `y` = the product, combined with their content as `accumulate` says.
///
/// The product's sizes determine the width of the matrices, not the shapes of their tensors.
pub(crate) fn multiply<'a>(
    cx: &Ctx,
    cuda: &Cuda,
    y: &mut Tensor,
    rows: (usize, usize),
    accumulate: impl Into<Accumulate<'a>>,
    form: OperandLayout,
    [a, b]: [RowSlice; 2],
) -> Result<()> {
    let (accumulate, size) = (accumulate.into(), GemmShape::new(form, y, rows, [a, b])?);
    if a.t.dtype() == DType::F32 {
        return ffma(cuda, y, rows.0, accumulate, size, [a, b]);
    }
    let tile = match TileVariant::streams(size, b.t.dtype()) {
        true => choose(form, size.m, &[size.n], cuda.properties().multiprocessors),
        false => TILES[SLICED],
    };
    multiply_on_tensor_cores(cx, cuda, y, rows.0, accumulate, (size, tile), [a, b])
}

/// Computes the product on tensor cores with the given tile.
pub(crate) fn multiply_on_tensor_cores(
    cx: &Ctx,
    cuda: &Cuda,
    y: &mut Tensor,
    first: usize,
    accumulate: Accumulate,
    (size, tile): (GemmShape, Tile),
    [a, b]: [RowSlice; 2],
) -> Result<()> {
    let slices = size.slices();
    if cuda.branch("gemm: K at once", slices == 1) {
        return slice(cuda, y, first, accumulate, (size, tile, size.k), [a, b]);
    }
    let mut parts = cx.scratch([slices, size.m, size.n], DType::F32);
    slice(cuda, &mut parts, 0, Accumulate::Overwrite, (size, tile, SLICE), [a, b])?;
    let partial_sums =
        PartialSums { parts: &parts, at: 0, pitch: size.n, stride: size.m * size.n, slices, scale: 1.0 };
    sum(cuda, y, (first * size.n, size.n), (size.m, size.n), accumulate, partial_sums)
}

/// One launch of `gemm.cu` with slices of K `length` long.
fn slice(
    cuda: &Cuda,
    y: &mut Tensor,
    first: usize,
    accumulate: Accumulate,
    (size, tile, length): (GemmShape, Tile, usize),
    [a, b]: [RowSlice; 2],
) -> Result<()> {
    let w = b.t.dtype();
    let variant = TileVariant { shape: tile.shape, w, aligned: size.aligned(w) };
    let variant = variant.variant(Variant::PLAIN.int("FORM", size.form as usize));
    let blocks = size.m.div_ceil(tile.rows) * size.n.div_ceil(tile.columns);
    let grid = Grid {
        blocks: [blocks, size.k.div_ceil(length).max(1), 1],
        threads: tile.threads,
        shared: shared(&tile, w),
    };
    let wide = y.dtype() == DType::F32;
    if accumulate.adds() && !wide {
        return Err(Error::new(format!("products are added to f32, and y is {y:?}")));
    }
    let args = &mut [
        Arg::InOut(y),
        Arg::In(a.t),
        Arg::In(b.t),
        Arg::Maybe(accumulate.factors()),
        Arg::I64((first * size.n) as i64),
        Arg::I64((a.first * size.pitch(false)) as i64),
        Arg::I64((b.first * size.pitch(true)) as i64),
        Arg::I32(size.m as i32),
        Arg::I32(size.n as i32),
        Arg::I32(size.k as i32),
        Arg::I32(length as i32),
        Arg::Flag(wide),
        Arg::Flag(accumulate.adds()),
    ];
    start(cuda, &GEMM, "gemm", variant, grid, args)
}

/// Returns the bytes of shared memory of a tile whose right operand is `b`.
pub(crate) fn shared(tile: &Tile, b: DType) -> usize {
    let half = tile.shared / (tile.rows + tile.columns);
    half * tile.rows + half * tile.columns * b.size() / 2
}

/// Defines FORM, SHAPE, an index of [`FFMA_TILES`], and W.
fn ffma_variant(form: OperandLayout, shape: usize, w: DType) -> Variant {
    Variant::PLAIN.int("FORM", form as usize).int("SHAPE", shape).dtype("W", w)
}

fn ffma(
    cuda: &Cuda,
    y: &mut Tensor,
    first: usize,
    accumulate: Accumulate,
    size: GemmShape,
    [a, b]: [RowSlice; 2],
) -> Result<()> {
    let big = size.m > 64 && size.n > 64;
    let variant = ffma_variant(size.form, big as usize, b.t.dtype());
    let [rows, columns, of_thread, by_thread] = FFMA_TILES[big as usize];
    let threads = rows / of_thread * (columns / by_thread);
    let grid = Grid { blocks: [size.n.div_ceil(columns), size.m.div_ceil(rows), 1], threads, shared: 0 };
    let wide = y.dtype() == DType::F32;
    let args = &mut [
        Arg::InOut(y),
        Arg::In(a.t),
        Arg::In(b.t),
        Arg::Maybe(accumulate.factors()),
        Arg::I64((first * size.n) as i64),
        Arg::I64((a.first * size.pitch(false)) as i64),
        Arg::I64((b.first * size.pitch(true)) as i64),
        Arg::I32(size.m as i32),
        Arg::I32(size.n as i32),
        Arg::I32(size.k as i32),
        Arg::Flag(wide),
        Arg::Flag(accumulate.adds()),
    ];
    start(cuda, &FFMA, "gemm_f32", variant, grid, args)
}

/// Partial sums: `slices` of them, `stride` apart, with rows of `pitch` elements from `at` on.
#[derive(Clone, Copy)]
pub(crate) struct PartialSums<'a> {
    pub parts: &'a Tensor,
    pub at: usize,
    pub pitch: usize,
    pub stride: usize,
    pub slices: usize,
    pub scale: f32,
}

/// `rows` by `columns` elements of `y`, from element `at` in rows of `pitch`, = scale · Σ parts, combined with their content
/// as `accumulate` says.
pub(crate) fn sum(
    cuda: &Cuda,
    y: &mut Tensor,
    (at, pitch): (usize, usize),
    (rows, columns): (usize, usize),
    accumulate: Accumulate,
    from: PartialSums,
) -> Result<()> {
    const THREADS: usize = 128;
    let grid = Grid::new((rows * columns.div_ceil(4)).div_ceil(THREADS), THREADS);
    let y_dtype = y.dtype();
    let args = &mut [
        Arg::InOut(y),
        Arg::In(from.parts),
        Arg::Maybe(accumulate.factors()),
        Arg::I64(at as i64),
        Arg::I64(from.at as i64),
        Arg::I64(from.stride as i64),
        Arg::I32(pitch as i32),
        Arg::I32(from.pitch as i32),
        Arg::I32(from.slices as i32),
        Arg::I32(rows as i32),
        Arg::I32(columns as i32),
        Arg::F32(from.scale),
        Arg::Flag(accumulate.adds()),
    ];
    start(cuda, &SUM, "sum", element(y_dtype), grid, args)
}

pub(super) fn start(
    cuda: &Cuda,
    source: &'static Source,
    kernel: &str,
    variant: Variant,
    grid: Grid,
    args: &mut [Arg],
) -> Result<()> {
    let kernel = cuda.kernel(source, variant, kernel)?;
    // SAFETY: sizes and offsets are those of parts of these tensors, as the callers made them; the kernels stay
    // inside the sizes, and shared memory is the tile's.
    unsafe { kernel.launch(grid, args) }
}
