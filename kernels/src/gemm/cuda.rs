//! The launches of `gemm.cu`, `ffma.cu` and `sum.cu`.

use crate::cuda::{HEADERS, PRELUDE, element};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{Ctx, DType, Error, Result, Tensor};

/// Headers of the sources that multiply on tensor cores.
pub(crate) const MAINLOOP: &[(&str, &str)] =
    &[PRELUDE, ("tile.cuh", include_str!("tile.cuh")), ("mainloop.cuh", include_str!("mainloop.cuh"))];

/// bf16 products.
pub static GEMM: Source = Source {
    name: "gemm.cu",
    text: include_str!("gemm.cu"),
    headers: MAINLOOP,
    variants: &[
        "FORM=0 SHAPE=0 W=bf16 ALIGNED=1",
        "FORM=0 SHAPE=1 W=bf16 ALIGNED=1",
        "FORM=0 SHAPE=2 W=bf16 ALIGNED=1",
        "FORM=0 SHAPE=3 W=bf16 ALIGNED=1",
        "FORM=0 SHAPE=4 W=bf16 ALIGNED=1",
        "FORM=0 SHAPE=2 W=float ALIGNED=1",
        "FORM=0 SHAPE=2 W=bf16 ALIGNED=0",
        "FORM=0 SHAPE=2 W=float ALIGNED=0",
        "FORM=1 SHAPE=2 W=bf16 ALIGNED=1",
        "FORM=1 SHAPE=3 W=bf16 ALIGNED=1",
        "FORM=1 SHAPE=4 W=bf16 ALIGNED=1",
        "FORM=1 SHAPE=2 W=float ALIGNED=1",
        "FORM=1 SHAPE=2 W=bf16 ALIGNED=0",
        "FORM=1 SHAPE=2 W=float ALIGNED=0",
        "FORM=2 SHAPE=2 W=bf16 ALIGNED=1",
        "FORM=2 SHAPE=3 W=bf16 ALIGNED=1",
        "FORM=2 SHAPE=4 W=bf16 ALIGNED=1",
        "FORM=2 SHAPE=2 W=bf16 ALIGNED=0",
    ],
};

/// f32 products.
pub static FFMA: Source = Source {
    name: "ffma.cu",
    text: include_str!("ffma.cu"),
    headers: HEADERS,
    variants: &[
        "FORM=0 SHAPE=0 W=bf16",
        "FORM=0 SHAPE=0 W=float",
        "FORM=0 SHAPE=1 W=bf16",
        "FORM=0 SHAPE=1 W=float",
        "FORM=1 SHAPE=0 W=bf16",
        "FORM=1 SHAPE=0 W=float",
        "FORM=1 SHAPE=1 W=bf16",
        "FORM=1 SHAPE=1 W=float",
        "FORM=2 SHAPE=0 W=float",
        "FORM=2 SHAPE=1 W=float",
    ],
};

/// Sums of partial products.
pub static SUM: Source = Source {
    name: "sum.cu",
    text: include_str!("sum.cu"),
    headers: HEADERS,
    variants: &["E=bf16", "E=float"],
};

/// Rows `first..first + rows` of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub t: &'a Tensor,
    pub first: usize,
    pub rows: usize,
}

impl<'a> Part<'a> {
    /// All rows.
    pub fn all(t: &'a Tensor) -> Self {
        Part { t, first: 0, rows: t.shape().as_matrix().0 }
    }

    fn columns(&self) -> usize {
        self.t.shape().as_matrix().1
    }
}

/// Which operands are transposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// a (M, K) · b (N, K)ᵀ
    NT,
    /// a (M, K) · b (K, N)
    NN,
    /// a (K, M)ᵀ · b (K, N)
    TN,
}

/// A tile of `gemm.cu`: SHAPE in its variants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub shape: usize,
    pub rows: usize,
    pub columns: usize,
    pub threads: usize,
    /// Bytes of shared memory: all stages of both operands, when both are bf16.
    pub shared: usize,
    /// Blocks that share a multiprocessor.
    resident: usize,
    /// Share of the tensor cores' peak that its main loop is good for.
    rate: f64,
}

const fn tile(
    shape: usize,
    [rows, columns]: [usize; 2],
    [depth, stages]: [usize; 2],
    threads: usize,
) -> Tile {
    let shared = 2 * (rows + columns) * depth * stages;
    Tile { shape, rows, columns, threads, shared, resident: 1, rate: 1.0 }
}

/// As `SHAPES` in `mainloop.cuh`.
pub(crate) const TILES: [Tile; 5] = [
    Tile { resident: 2, rate: 0.15, ..tile(0, [16, 32], [128, 6], 128) },
    Tile { resident: 1, rate: 0.3, ..tile(1, [64, 32], [128, 4], 128) },
    Tile { resident: 2, rate: 0.6, ..tile(2, [64, 64], [64, 4], 128) },
    Tile { resident: 2, rate: 0.85, ..tile(3, [128, 128], [32, 4], 128) },
    Tile { resident: 1, rate: 1.0, ..tile(4, [128, 256], [64, 3], 256) },
];

/// Columns up to which K is cut into slices, and the length of one.
const NARROW: usize = 64;
const SLICE: usize = 1024;

/// A product (M, N), K deep, and what its operands are.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub form: Form,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Size {
    /// The product that makes rows `first..first + m` of `y`, all three inside their tensors.
    pub fn new(form: Form, y: &Tensor, (first, m): (usize, usize), [a, b]: [Part; 2]) -> Result<Self> {
        let ((n, k), of_a) = match form {
            Form::NT => ((b.rows, b.columns()), m),
            Form::NN => ((b.columns(), b.rows), m),
            Form::TN => ((b.columns(), b.rows), b.rows),
        };
        let size = Size { form, m, n, k };
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
            (Form::NT, _) | (Form::NN, false) => self.k,
            (Form::TN, false) => self.m,
            (_, true) => self.n,
        }
    }

    /// Slices of K: the shape of the weight decides, so that no row's bits depend on the other rows.
    fn slices(&self) -> usize {
        if self.n <= NARROW { self.k.div_ceil(SLICE) } else { 1 }
    }

    /// Whether rows of both operands are whole chunks of 16 bytes.
    fn aligned(&self, b: DType) -> bool {
        self.pitch(false).is_multiple_of(8) && self.pitch(true).is_multiple_of(16 / b.size())
    }
}

/// The tile that takes the least time for (m, n) on `multiprocessors`.
pub(crate) fn choose(form: Form, m: usize, n: usize, multiprocessors: usize) -> Tile {
    let [few, more, ..] = TILES;
    match (form, m) {
        (Form::NT, ..=16) => few,
        (Form::NT, ..=64) => more,
        _ => {
            let time = |t: &Tile| {
                let blocks = m.div_ceil(t.rows) * n.div_ceil(t.columns);
                let waves = blocks.div_ceil(multiprocessors * t.resident);
                (waves * t.resident * t.rows * t.columns) as f64 / t.rate
            };
            let tiles = &TILES[2..];
            *tiles.iter().min_by(|a, b| time(a).total_cmp(&time(b))).unwrap_or(&few)
        }
    }
}

/// Rows `first..first + rows` of `y` = the product, plus what they hold if `add`.
///
/// Matrices are as wide as the product has them, whatever their tensors' shapes say beyond that.
pub(crate) fn multiply(
    cx: &Ctx,
    cuda: &Cuda,
    y: &mut Tensor,
    rows: (usize, usize),
    add: bool,
    form: Form,
    [a, b]: [Part; 2],
) -> Result<()> {
    let size = Size::new(form, y, rows, [a, b])?;
    if a.t.dtype() == DType::F32 {
        return ffma(cuda, y, rows.0, add, size, [a, b]);
    }
    let tile = match (size.aligned(b.t.dtype()), b.t.dtype(), size.slices()) {
        (true, DType::BF16, 1) => choose(form, size.m, size.n, cuda.properties().multiprocessors),
        _ => TILES[2],
    };
    tensor(cx, cuda, y, rows.0, add, (size, tile), [a, b])
}

/// The product on tensor cores, by tiles of one's choice.
pub(crate) fn tensor(
    cx: &Ctx,
    cuda: &Cuda,
    y: &mut Tensor,
    first: usize,
    add: bool,
    (size, tile): (Size, Tile),
    [a, b]: [Part; 2],
) -> Result<()> {
    let slices = size.slices();
    if slices == 1 {
        return slice(cuda, y, first, add, (size, tile, size.k), [a, b]);
    }
    let mut parts = cx.scratch([slices, size.m, size.n], DType::F32);
    slice(cuda, &mut parts, 0, false, (size, tile, SLICE), [a, b])?;
    let whole = Slices { parts: &parts, at: 0, pitch: size.n, stride: size.m * size.n, slices, scale: 1.0 };
    sum(cuda, y, (first * size.n, size.n), (size.m, size.n), add, whole)
}

/// One launch of `gemm.cu` with slices of K `length` long.
fn slice(
    cuda: &Cuda,
    y: &mut Tensor,
    first: usize,
    add: bool,
    (size, tile, length): (Size, Tile, usize),
    [a, b]: [Part; 2],
) -> Result<()> {
    let (form, weight) = (size.form as usize, element(b.t.dtype()));
    let aligned = size.aligned(b.t.dtype()) as usize;
    let variant = format!("FORM={form} SHAPE={} W={weight} ALIGNED={aligned}", tile.shape);
    let blocks = size.m.div_ceil(tile.rows) * size.n.div_ceil(tile.columns);
    let grid = Grid {
        blocks: [blocks, size.k.div_ceil(length).max(1), 1],
        threads: tile.threads,
        shared: shared(&tile, b.t.dtype()),
    };
    let wide = y.dtype() == DType::F32;
    if add && !wide {
        return Err(Error::new(format!("products are added to f32, and y is {y:?}")));
    }
    let args = &mut [
        Arg::InOut(y),
        Arg::In(a.t),
        Arg::In(b.t),
        Arg::I64((first * size.n) as i64),
        Arg::I64((a.first * size.pitch(false)) as i64),
        Arg::I64((b.first * size.pitch(true)) as i64),
        Arg::I32(size.m as i32),
        Arg::I32(size.n as i32),
        Arg::I32(size.k as i32),
        Arg::I32(length as i32),
        Arg::I32(wide as i32),
        Arg::I32(add as i32),
    ];
    start(cuda, &GEMM, "gemm", &variant, grid, args)
}

/// Bytes of shared memory of a tile whose right operand is `b`.
pub(crate) fn shared(tile: &Tile, b: DType) -> usize {
    let half = tile.shared / (tile.rows + tile.columns);
    half * tile.rows + half * tile.columns * b.size() / 2
}

fn ffma(cuda: &Cuda, y: &mut Tensor, first: usize, add: bool, size: Size, [a, b]: [Part; 2]) -> Result<()> {
    let big = size.m > 64 && size.n > 64;
    let variant = format!("FORM={} SHAPE={} W={}", size.form as usize, big as usize, element(b.t.dtype()));
    let (rows, columns, threads) = if big { (128, 128, 256) } else { (16, 32, 128) };
    let grid = Grid { blocks: [size.n.div_ceil(columns), size.m.div_ceil(rows), 1], threads, shared: 0 };
    let wide = y.dtype() == DType::F32;
    let args = &mut [
        Arg::InOut(y),
        Arg::In(a.t),
        Arg::In(b.t),
        Arg::I64((first * size.n) as i64),
        Arg::I64((a.first * size.pitch(false)) as i64),
        Arg::I64((b.first * size.pitch(true)) as i64),
        Arg::I32(size.m as i32),
        Arg::I32(size.n as i32),
        Arg::I32(size.k as i32),
        Arg::I32(wide as i32),
        Arg::I32(add as i32),
    ];
    start(cuda, &FFMA, "gemm_f32", &variant, grid, args)
}

/// Partial sums: `slices` of them, `stride` apart, with rows of `pitch` elements from `at` on.
#[derive(Clone, Copy)]
pub(crate) struct Slices<'a> {
    pub parts: &'a Tensor,
    pub at: usize,
    pub pitch: usize,
    pub stride: usize,
    pub slices: usize,
    pub scale: f32,
}

/// `rows` by `columns` elements of `y`, from element `at` in rows of `pitch`, = scale · Σ parts, plus what they hold
/// if `add`.
pub(crate) fn sum(
    cuda: &Cuda,
    y: &mut Tensor,
    (at, pitch): (usize, usize),
    (rows, columns): (usize, usize),
    add: bool,
    from: Slices,
) -> Result<()> {
    const THREADS: usize = 128;
    let grid = Grid::new((rows * columns.div_ceil(4)).div_ceil(THREADS), THREADS);
    let variant = format!("E={}", element(y.dtype()));
    let args = &mut [
        Arg::InOut(y),
        Arg::In(from.parts),
        Arg::I64(at as i64),
        Arg::I64(from.at as i64),
        Arg::I64(from.stride as i64),
        Arg::I32(pitch as i32),
        Arg::I32(from.pitch as i32),
        Arg::I32(from.slices as i32),
        Arg::I32(rows as i32),
        Arg::I32(columns as i32),
        Arg::F32(from.scale),
        Arg::I32(add as i32),
    ];
    start(cuda, &SUM, "sum", &variant, grid, args)
}

fn start(
    cuda: &Cuda,
    source: &'static Source,
    kernel: &str,
    variant: &str,
    grid: Grid,
    args: &mut [Arg],
) -> Result<()> {
    let kernel = cuda.kernel(source, variant, kernel)?;
    // SAFETY: sizes and offsets are those of parts of these tensors, as the callers made them; the kernels stay
    // inside the sizes, and shared memory is the tile's.
    unsafe { kernel.launch(grid, args) }
}
