//! One execution of a case, on any device.

use crate::spec::{Case, F64Tensor, Input, InputContent};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Error, Grads, Label, Result, Tensor};
use half::bf16;
use rayon::prelude::*;

/// One execution of a case: forward, and backward from random output gradients. All of it is in host memory.
pub(super) struct Execution {
    pub inputs: Vec<F64Tensor>,
    pub output_grads: Vec<F64Tensor>,
    pub outputs: Vec<Tensor>,
    pub gradients: Vec<Option<Tensor>>,
}

impl Execution {
    pub fn new(device: &Device, case: &Case, dtype: DType, seed: u64) -> Result<Self> {
        Execution::of(device, case, seed, inputs(device, case, dtype, seed)?)
    }

    /// Executes the case on these inputs.
    pub fn of(device: &Device, case: &Case, seed: u64, inputs: Vec<Tensor>) -> Result<Self> {
        let seeds = |outputs: &[Tensor]| {
            let seed = |(site, y): (u32, &Tensor)| {
                random(device, *y.shape(), y.dtype(), 1.0, RngKey { seed, step: 1, site })
            };
            (0..).zip(outputs).map(seed).collect()
        };
        Execution::with(device, case, seed, inputs, seeds)
    }

    /// Repeats this execution of `case` in f32, from the same numbers, on the CPU, where its gradients are then exact beside
    /// those of this one; `None` when this one was in f32 already, has no gradients, or outputs would be rounded still, and
    /// where the op takes no f32, as a cast from bf16.
    pub fn in_f32(&self, case: &Case, seed: u64) -> Result<Option<Self>> {
        let rounded = |t: &Option<Tensor>| t.as_ref().is_some_and(|t| t.dtype() == DType::BF16);
        if !self.gradients.iter().any(rounded) && !self.outputs.iter().any(|y| y.dtype() == DType::BF16)
            || self.gradients.iter().all(Option::is_none)
        {
            return Ok(None);
        }
        let device = Device::cpu();
        let tensor = |x: &F64Tensor| {
            let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
            device.tensor(Label::Activations, x.shape, &data)
        };
        let again = |(input, x): (&Input, &F64Tensor)| -> Result<Tensor> {
            let t = match &input.content {
                InputContent::Int(data) => device.tensor(Label::Activations, input.shape, data)?,
                _ => tensor(x)?,
            };
            Ok(if input.grad { t.with_grad() } else { t })
        };
        let inputs = case.inputs.iter().zip(&self.inputs).map(again).collect::<Result<_>>()?;
        let seeds = |_: &[Tensor]| self.output_grads.iter().map(tensor).collect();
        let exact = |run: &Execution| run.outputs.iter().all(|y| y.dtype() == DType::F32);
        Ok(Execution::with(&device, case, seed, inputs, seeds).ok().filter(exact))
    }

    /// Returns the gradient of input `i`.
    pub fn gradient(&self, i: usize) -> Result<Vec<f64>> {
        let none = || Error::new(format!("input {i} got no gradient in f32"));
        Ok(value(self.gradients[i].as_ref().ok_or_else(none)?)?.data)
    }

    fn with(
        device: &Device,
        case: &Case,
        seed: u64,
        tensors: Vec<Tensor>,
        seeds: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Self> {
        let cx = Ctx::training(device, seed, 0);
        let outputs = (case.run)(&cx, &tensors.iter().collect::<Vec<_>>())?;
        let seeds = seeds(&outputs)?;
        let output_grads = seeds.iter().map(value).collect::<Result<_>>()?;
        let mut grads = Grads::default();
        if outputs.iter().any(|y| y.id().is_some()) {
            let pairs: Vec<_> = outputs.iter().zip(seeds).filter(|(y, _)| y.id().is_some()).collect();
            cx.backward(pairs, &mut grads)?;
        }
        let host = |t: Tensor| t.to(&Device::cpu(), Label::Scratch);
        Ok(Execution {
            inputs: tensors.iter().map(value).collect::<Result<_>>()?,
            output_grads,
            outputs: outputs.into_iter().map(host).collect::<Result<_>>()?,
            gradients: tensors.iter().map(|t| grads.take(t).map(host).transpose()).collect::<Result<_>>()?,
        })
    }
}

/// Makes the case's inputs on a device.
pub fn inputs(device: &Device, case: &Case, dtype: DType, seed: u64) -> Result<Vec<Tensor>> {
    (0..case.inputs.len()).map(|i| input(device, case, i, dtype, seed)).collect()
}

fn input(device: &Device, case: &Case, i: usize, dtype: DType, seed: u64) -> Result<Tensor> {
    let input = &case.inputs[i];
    let key = RngKey { seed, step: 0, site: i as u32 };
    let t = match &input.content {
        InputContent::Int(data) => device.tensor(Label::Activations, input.shape, data)?,
        InputContent::Storage(std) => random(device, input.shape, dtype, *std, key)?,
        InputContent::F32(std) => random(device, input.shape, DType::F32, *std, key)?,
        InputContent::Coarse(std) => {
            let numbers = value(&random(&Device::cpu(), input.shape, DType::BF16, *std, key)?)?.data;
            let numbers: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
            device.tensor(Label::Activations, input.shape, &numbers)?
        }
        InputContent::BF16(std) => random(device, input.shape, DType::BF16, *std, key)?,
        InputContent::Given(data) if dtype == DType::BF16 => {
            let data: Vec<bf16> = data.iter().map(|&x| bf16::from_f32(x)).collect();
            device.tensor(Label::Activations, input.shape, &data)?
        }
        InputContent::Given(data) => device.tensor(Label::Activations, input.shape, data)?,
    };
    Ok(if input.grad { t.with_grad() } else { t })
}

/// Makes a tensor of normal deviates, keyed by position.
pub fn random(
    device: &Device,
    shape: codelsi_engine::Shape,
    dtype: DType,
    std: f32,
    key: RngKey,
) -> Result<Tensor> {
    let draw = |i: usize| std * key.normal((i >> 16) as u32, (i & 0xffff) as u32);
    let places = (0..shape.elements()).into_par_iter().with_min_len(1 << 12);
    match dtype {
        DType::BF16 => {
            let data: Vec<bf16> = places.map(|i| bf16::from_f32(draw(i))).collect();
            device.tensor(Label::Activations, shape, &data)
        }
        _ => device.tensor(Label::Activations, shape, &places.map(draw).collect::<Vec<f32>>()),
    }
}

/// Returns a tensor's values in float64.
pub fn value(t: &Tensor) -> Result<F64Tensor> {
    let data = match t.dtype() {
        DType::F32 => t.to_vec::<f32>()?.iter().map(|&x| x as f64).collect(),
        DType::BF16 => t.to_vec::<bf16>()?.iter().map(|x| x.to_f64()).collect(),
        DType::I32 => t.to_vec::<i32>()?.iter().map(|&x| x as f64).collect(),
    };
    Ok(F64Tensor { shape: *t.shape(), data })
}
