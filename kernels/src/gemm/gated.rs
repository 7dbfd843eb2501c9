//! SwiGLU of two products that share x: in their epilogue on a GPU in bf16, in inference.

use super::check_depth;
use super::cuda::{self, GemmShape, MAINLOOP, OperandLayout, RowSlice, TILES, TileVariant, choose};
use super::group::linears;
use crate::swiglu::swiglu;
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source, Variant};
use codelsi_engine::{Ctx, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};

/// Pairs of bf16 products.
pub static GATED: Source = Source {
    name: "gemm/gated.cu",
    text: include_str!("gated.cu"),
    headers: MAINLOOP,
    constants: cuda::SHAPE_CONSTANTS,
    variants: || TILES.iter().map(|tile| variant(tile.shape)).collect(),
};

/// Defines SHAPE.
fn variant(shape: usize) -> Variant {
    Variant::PLAIN.int("SHAPE", shape)
}

/// Returns silu(x gateᵀ) ⊙ x upᵀ (T, N) of x (T, K), and gate and up (N, K): [`linears`] and [`swiglu`], with the same
/// bits.
///
/// # Errors
/// When the shapes do not fit.
pub fn gated_linear(cx: &Ctx, x: &Tensor, [gate, up]: [&Tensor; 2]) -> Result<Tensor> {
    if let Device::Cuda(cuda) = cx.device()
        && !cx.records(&[x, gate, up])
        && cuda.branch("gemm: SwiGLU in the epilogue", [gate, up].into_iter().all(|w| streams(x, w)))
    {
        return cx.apply_one(GatedLinear, &[x, gate, up]);
    }
    let both = linears(cx, x, &[gate, up])?;
    swiglu(cx, &both[0], &both[1])
}

/// True if `gated.cu` multiplies x (T, K) and w (N, K).
fn streams(x: &Tensor, w: &Tensor) -> bool {
    let ((m, _), (n, k)) = (x.shape().as_matrix(), w.shape().as_matrix());
    let size = GemmShape { form: OperandLayout::NT, m, n, k };
    x.dtype() == w.dtype() && TileVariant::streams(size, w.dtype())
}

struct GatedLinear;

impl Op for GatedLinear {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        let [x, gate, up] = x else { unreachable!("x, gate and up") };
        check_depth(x, gate)?;
        if gate.shape() != up.shape() {
            return Err(Error::new(format!("gate {gate:?} and up {up:?} differ in shape")));
        }
        let mut y = cx.empty([x.shape().as_matrix().0, gate.shape().as_matrix().0], x.dtype());
        if let Device::Cuda(cuda) = cx.device() {
            multiply(cuda, &mut y, x, [gate, up])?;
        }
        Ok(vec![y])
    }

    fn backward(&self, _: &Ctx, _: &Saved, _: &[Option<Tensor>], _: &mut InputGrads<'_>) -> Result<()> {
        unreachable!("refused in forward")
    }

    fn differentiable(&self) -> bool {
        false
    }
}

fn multiply(cuda: &Cuda, y: &mut Tensor, x: &Tensor, [gate, up]: [&Tensor; 2]) -> Result<()> {
    let GemmShape { m, n, k, .. } =
        GemmShape::new(OperandLayout::NT, y, (0, x.shape().as_matrix().0), [x, gate].map(RowSlice::all))?;
    let tile = choose(OperandLayout::NT, m, &[2 * n], cuda.properties().multiprocessors);
    let blocks = m.div_ceil(tile.rows) * n.div_ceil(tile.columns / 2);
    let grid = Grid { blocks: [blocks, 1, 1], threads: tile.threads, shared: tile.shared };
    let sizes = [m, n, k].map(|n| Arg::I32(n as i32));
    let args = [Arg::Out(y), Arg::In(x), Arg::In(gate), Arg::In(up)].into_iter().chain(sizes);
    cuda::start(cuda, &GATED, "gemm_gated", variant(tile.shape), grid, &mut args.collect::<Vec<_>>())
}
