//! `gemm`: the matrix product of activations and a weight, y = x Wᵀ, and the two products of its backward.
//!
//! **math** forward y = x Wᵀ (NT); backward dx = dy W (NN), dW = dyᵀ x (TN).
//!
//! **shapes** x (T, K), W (N, K), y (T, N).
//!
//! **layout** row-major. On the CPU both operands are packed into panels (12 rows of x, 32 rows of W) of words that one
//! multiply-add (f32) or one dot product of pairs (bf16) consumes. With up to four rows of x, W is not packed: its
//! rows are transposed in registers and multiplied at once; a frozen W may keep its panels ([`pack_weight`]). On a GPU tiles of both lie
//! in shared memory, swizzled so that no access has a bank conflict (`tile.cuh`).
//!
//! **launch** one threadblock per tile of y, 16x32 (decode) to 128x256, whichever is predicted to take the least time
//! (`cuda::choose`); a pipeline of 3 to 6 stages of asynchronous copies feeds the tensor cores (`mainloop.cuh`), or
//! registers feed multiply-adds (`ffma.cu`). Products that share x are one launch in inference, a block per tile of any
//! of them (`group.cu`), and gate and up of the MLP are multiplied by SwiGLU before they are stored (`gated.cu`).
//!
//! **numerics** f32 accumulation in one chain per element, k ascending: the bits of a row of y do not depend on
//! T. When x is bf16, the operands are bf16 (an f32 W is rounded as it is read); when x is f32, the product is f32,
//! whatever W is stored in. One rounding, at the store. On a GPU the links of the chain are mma steps of 16, the
//! same in every tile from one row to a thousand, so the choice of a tile changes no bit; and because a row of an
//! mma tile is computed from that row alone, neither do the other rows. Split-K is used only where W has at most 64
//! rows: there, whatever T is, slices of 1024 are summed separately and then added in order.
//!
//! **traffic** reads T·K + N·K, writes T·N; 2·T·N·K flops.

mod bugs;
pub mod cpu;
pub(crate) mod cuda;
mod gated;
pub(crate) mod group;
pub mod spec;
#[cfg(test)]
pub(crate) mod tests;

use crate::simd::Storage;
use codelsi_engine::cuda::Cuda;
use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use cpu::panels::{self, Panels};
use cpu::{AccumulatorInit, Elements, Matrix, Precision, Product, ProductTerm};
use cuda::{OperandLayout, RowSlice};
use half::bf16;

pub use gated::gated_linear;
pub use group::linears;

/// Returns y (T, N) = x (T, K) · w (N, K)ᵀ in the storage type of x.
///
/// # Errors
/// When the inner dimensions differ.
pub fn linear(cx: &Ctx, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    cx.apply_one(Linear, &[x, w])
}

struct Linear;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [x, w] = x else { unreachable!("linear takes x and w") };
        check_depth(x, w)?;
        save.keep_all([*x, *w]);
        let mut y = cx.empty([x.shape().as_matrix().0, w.shape().as_matrix().0], x.dtype());
        match cx.device() {
            Device::Cpu(_) => multiply_into(&mut y, AccumulatorInit::Zero, &[nt(x, w)?], precision(x))?,
            Device::Cuda(cuda) => on_cuda(cx, cuda, &mut y, OperandLayout::NT, [x, w])?,
            Device::Plan(_) => {}
        }
        Ok(vec![y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let (x, w) = (&saved[0], &saved[1]);
        let Some(dy) = &dy[0] else { return Ok(()) };
        if dx.wants(0) {
            let mut g = cx.empty(*x.shape(), x.dtype());
            match cx.device() {
                Device::Cpu(_) => multiply_into(&mut g, AccumulatorInit::Zero, &[nn(dy, w)?], precision(x))?,
                Device::Cuda(cuda) => on_cuda(cx, cuda, &mut g, OperandLayout::NN, [dy, w])?,
                Device::Plan(_) => {}
            }
            dx.add(0, g)?;
        }
        if dx.wants(1) {
            let mut g = cx.device().empty(Label::Gradients, *w.shape(), w.dtype());
            match cx.device() {
                Device::Cpu(_) => multiply_into(&mut g, AccumulatorInit::Zero, &[tn(dy, x)?], precision(x))?,
                Device::Cuda(cuda) => on_cuda(cx, cuda, &mut g, OperandLayout::TN, [dy, x])?,
                Device::Plan(_) => {}
            }
            dx.add(1, g)?;
        }
        Ok(())
    }
}

/// Checks that x (T, K) and w (N, K) have the same K.
fn check_depth(x: &Tensor, w: &Tensor) -> Result<()> {
    match x.shape().as_matrix().1 == w.shape().as_matrix().1 {
        true => Ok(()),
        false => {
            let (x, w) = (x.shape(), w.shape());
            Err(Error::new(format!("x is {x}, W is {w}: their last dimensions differ")))
        }
    }
}

fn on_cuda(cx: &Ctx, cuda: &Cuda, y: &mut Tensor, form: OperandLayout, ab: [&Tensor; 2]) -> Result<()> {
    let rows = y.shape().as_matrix().0;
    cuda::multiply(cx, cuda, y, (0, rows), false, form, ab.map(RowSlice::all))
}

/// Returns the precision of a product with the activations `x`: that of their storage type.
pub fn precision(x: &Tensor) -> Precision {
    match x.dtype() {
        DType::BF16 => Precision::BF16,
        _ => Precision::F32,
    }
}

/// Returns the term x (T, K) · w (N, K)ᵀ.
pub fn nt<'a>(x: &'a Tensor, w: &'a Tensor) -> Result<ProductTerm<'a>> {
    let depth = x.shape().as_matrix().1;
    Ok(ProductTerm { a: Matrix::k_major(elements(x)?, depth), b: columns(w)?, depth })
}

/// Returns the rows of w (N, K) as columns of an operand B, K deep.
pub fn columns(w: &Tensor) -> Result<Matrix<'_>> {
    let depth = w.shape().as_matrix().1;
    Ok(Matrix { panels: kept_panels(w)?, ..Matrix::k_major(elements(w)?, depth) })
}

/// Returns the panels that [`pack_weight`] put beside a weight (N, K).
///
/// # Errors
/// When they are only planned.
pub fn kept_panels(w: &Tensor) -> Result<Option<Panels<'_>>> {
    let depth = w.shape().as_matrix().1;
    w.packed().map(|packed| Ok(Panels::new(elements(packed)?, depth))).transpose()
}

/// Returns the weight w (N, K) beside a copy in panels, which products on the CPU stream instead of packing w each time.
/// Unchanged where there are no panels of it: on a GPU, and where K is odd.
///
/// # Errors
/// When w holds integers.
pub fn pack_weight(device: &Device, w: &Tensor) -> Result<Tensor> {
    let size = w.shape().as_matrix();
    let (false, Some(elements_of_panels)) = (matches!(device, Device::Cuda(_)), panels::elements(size))
    else {
        return Ok(w.clone());
    };
    let mut packed = device.empty(Label::PackedWeights, [elements_of_panels], w.dtype());
    if let Device::Cpu(_) = device {
        panels::fill(bytemuck::cast_slice_mut(packed.bytes_mut()?), elements(w)?, size);
    }
    Ok(w.clone().with_packed(packed))
}

/// Returns the term x (T, K) · w (K, N).
pub fn nn<'a>(x: &'a Tensor, w: &'a Tensor) -> Result<ProductTerm<'a>> {
    let (depth, n) = (x.shape().as_matrix().1, w.shape().as_matrix().1);
    Ok(ProductTerm { a: Matrix::k_major(elements(x)?, depth), b: Matrix::mn_major(elements(w)?, n), depth })
}

/// Returns the term x (T, M)ᵀ · y (T, N), summed over T.
pub fn tn<'a>(x: &'a Tensor, y: &'a Tensor) -> Result<ProductTerm<'a>> {
    let ((depth, m), (_, n)) = (x.shape().as_matrix(), y.shape().as_matrix());
    Ok(ProductTerm { a: Matrix::mn_major(elements(x)?, m), b: Matrix::mn_major(elements(y)?, n), depth })
}

/// Returns the elements of a host tensor.
///
/// # Errors
/// When the tensor holds integers, or is only planned.
pub fn elements(t: &Tensor) -> Result<Elements<'_>> {
    Ok(match t.dtype() {
        DType::BF16 => Elements::BF16(t.slice::<bf16>()?),
        _ => Elements::F32(t.slice::<f32>()?),
    })
}

/// Computes `y = start + Σ terms`, rounded once to the storage type of y.
pub fn multiply_into(
    y: &mut Tensor,
    start: AccumulatorInit,
    terms: &[ProductTerm],
    precision: Precision,
) -> Result<()> {
    let size = y.shape().as_matrix();
    match y.dtype() {
        DType::BF16 => cpu::multiply(y.slice_mut::<bf16>()?, size, start, terms, precision),
        _ => cpu::multiply(y.slice_mut::<f32>()?, size, start, terms, precision),
    }
    Ok(())
}

/// Computes each `y = Σ terms` of the same storage type, all at once, rounded once.
pub fn multiply_each(ys: &mut [Tensor], terms: &[Vec<ProductTerm>], precision: Precision) -> Result<()> {
    match ys.iter().all(|y| y.dtype() == DType::BF16) {
        true => multiply_each_of::<bf16>(ys, terms, precision),
        false => multiply_each_of::<f32>(ys, terms, precision),
    }
}

fn multiply_each_of<T: Storage>(
    ys: &mut [Tensor],
    terms: &[Vec<ProductTerm>],
    precision: Precision,
) -> Result<()> {
    let product = |(y, terms)| {
        let y: &mut Tensor = y;
        let (size, terms): (_, &Vec<_>) = (y.shape().as_matrix(), terms);
        Ok(Product { c: y.slice_mut::<T>()?, size, start: AccumulatorInit::Zero, terms })
    };
    let products: Vec<_> = ys.iter_mut().zip(terms).map(product).collect::<Result<_>>()?;
    cpu::multiply_all(products, precision);
    Ok(())
}
