//! Batch invariance: a row has the same bits alone, among a few rows and among many.

use super::random;
use crate::spec::{Invariance, RowBatch, Spec};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Error, Label, Result, Tensor};
use half::bf16;

/// Rows of the whole batch.
pub const BATCH: usize = 64;

/// First row and number of rows of each part that is compared with the whole batch.
const PARTS: [(usize, usize); 5] = [(0, 1), (37, 1), (63, 1), (5, 7), (57, 7)];

impl RowBatch<'_> {
    /// Returns these rows of a random (BATCH, columns) in the storage type. `site` distinguishes inputs.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn storage(&self, columns: usize, site: u32) -> Result<Tensor> {
        let key = RngKey { seed: 11, step: 0, site };
        let all = random(&Device::cpu(), [BATCH, columns].into(), self.dtype, 1.0, key)?;
        let part = self.rows.start * columns..self.rows.end * columns;
        let (device, shape) = (self.cx.device(), [self.rows.len(), columns]);
        match self.dtype {
            DType::BF16 => device.tensor(Label::Scratch, shape, &all.slice::<bf16>()?[part]),
            _ => device.tensor(Label::Scratch, shape, &all.slice::<f32>()?[part]),
        }
    }

    /// Returns an integer for each of these rows, `f` of the row's index.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn ints(&self, f: impl Fn(usize) -> usize) -> Result<Tensor> {
        let ints: Vec<i32> = self.rows.clone().map(|t| f(t) as i32).collect();
        self.cx.device().tensor(Label::Scratch, [ints.len()], &ints)
    }

    /// Returns a random weight in the storage type, the same for every batch.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn weight(&self, shape: [usize; 2], site: u32) -> Result<Tensor> {
        self.weight_in(self.dtype, shape, site)
    }

    /// Returns a random weight of type `dtype`, the same for every batch.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn weight_in(&self, dtype: DType, shape: [usize; 2], site: u32) -> Result<Tensor> {
        random(self.cx.device(), shape.into(), dtype, 0.1, RngKey { seed: 12, step: 0, site })
    }
}

/// Compares rows of `spec`'s calls on `device` in batches of different sizes, in both storage types. Returns the number
/// of calls: 0 when the op states why it has none.
///
/// # Errors
/// When an op fails, rows have other bits in another batch, or the op has neither a call nor a reason.
pub fn batch_invariance(spec: &Spec, device: &Device) -> Result<usize> {
    let calls = match spec.invariance {
        Invariance::Rows(calls) if !calls.is_empty() => calls,
        Invariance::NotByRow(why) if !why.is_empty() => return Ok(0),
        _ => return Err(Error::op(spec.name, "Spec::invariance has neither a call nor a reason")),
    };
    let cx = Ctx::inference(device);
    for (call, dtype) in calls.iter().flat_map(|call| [DType::F32, DType::BF16].map(|dtype| (call, dtype))) {
        let bytes = |rows| -> Result<Vec<u8>> {
            let y = (call.run)(&RowBatch { cx: &cx, dtype, rows })?;
            Ok(y.to(&Device::cpu(), Label::Scratch)?.bytes()?.to_vec())
        };
        let all = bytes(0..BATCH)?;
        let row = all.len() / BATCH;
        for (first, count) in PARTS {
            if bytes(first..first + count)? != all[first * row..(first + count) * row] {
                let what = format!("{} {dtype:?}: rows {first}..+{count} have other bits alone", call.name);
                return Err(Error::new(format!("{what} than in a batch of {BATCH}"))
                    .at(device.name())
                    .at(spec.name));
            }
        }
    }
    Ok(calls.len())
}
