//! The whole cost of an adapter in training: every launch of `lora` in a layer, forward and backward, beside the products
//! that it rides on.

use super::{Chip, predict, sampled_launches};
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Grads, Label, Result, Tensor};
use codelsi_kernels::dropout::{Dropout, DropoutRate};
use codelsi_kernels::gemm::linear;
use codelsi_kernels::lora::{LoraLinear, lora};

/// Linears of a layer of Code Llama 13B by the input that they share: (in, outs).
const GROUPS: [(usize, &[usize]); 4] =
    [(5120, &[5120, 5120, 5120]), (5120, &[5120]), (5120, &[13824, 13824]), (13824, &[5120])];
const RANK: usize = 16;
const DROPOUT: f32 = 0.05;
/// Blocks of each launch that are executed.
const SAMPLED: u64 = 4;

/// Modelled seconds of a layer's adapters, and of its products.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdapterCost {
    /// Launches beside the products: forward, backward.
    pub launches: [usize; 2],
    /// Their seconds, and what the products with the adapter's slab take beyond plain ones.
    pub seconds: [f64; 2],
    /// Seconds of the plain products at the given rate.
    pub products: [f64; 2],
}

impl AdapterCost {
    /// Cost of the adapters as a share of the products, forward and backward together.
    pub fn share(&self) -> f64 {
        self.seconds.iter().sum::<f64>() / self.products.iter().sum::<f64>()
    }
}

/// Models a layer over `tokens` tokens on each of `chips`, whose products reach the given FLOP/s, on the software GPU
/// `device`.
///
/// # Errors
/// When the device is not the software GPU, or an op fails.
pub fn adapter_cost(device: &Device, tokens: usize, chips: &[(Chip, f64)]) -> Result<Vec<AdapterCost>> {
    let mut costs = vec![AdapterCost::default(); chips.len()];
    for (inner, outs) in GROUPS {
        let adapted = passes(device, tokens, inner, outs, true)?;
        let plain = passes(device, tokens, inner, outs, false)?;
        for (cost, (chip, flops)) in costs.iter_mut().zip(chips) {
            let outs = outs.iter().sum::<usize>();
            for way in 0..2 {
                // In backward W is frozen, so dx is the only product.
                let products = 2.0 * (tokens * inner * outs) as f64 / flops;
                let (slabs, narrow): (Vec<_>, Vec<_>) = adapted[way]
                    .iter()
                    .partition(|launch| ["lora", "lora_dx"].contains(&launch.kernel.as_str()));
                let seconds = |launches: &[&LaunchRecord]| -> Result<f64> {
                    launches.iter().map(|launch| Ok(predict(chip, launch)?.seconds)).sum()
                };
                let beyond = seconds(&slabs)? / seconds(&plain[way].iter().collect::<Vec<_>>())? - 1.0;
                cost.launches[way] += narrow.len();
                cost.seconds[way] += seconds(&narrow)? + beyond.max(0.0) * products;
                cost.products[way] += products;
            }
        }
    }
    Ok(costs)
}

/// Launches of forward and of backward of the linears (N, C) of one input, with adapters or without.
fn passes(
    device: &Device,
    tokens: usize,
    inner: usize,
    outs: &[usize],
    adapted: bool,
) -> Result<[Vec<LaunchRecord>; 2]> {
    let zeros = |shape: [usize; 2], dtype| device.zeros(Label::Activations, shape, dtype);
    let x = zeros([tokens, inner], DType::BF16).with_grad();
    let tensors: Vec<[Tensor; 3]> = outs
        .iter()
        .map(|&n| {
            let factors = [[RANK, inner], [n, RANK]].map(|shape| zeros(shape, DType::F32).with_grad());
            let [a, b] = factors;
            [zeros([n, inner], DType::BF16), a, b]
        })
        .collect();
    let cx = Ctx::training(device, 1, 0);
    let mut ys = Vec::new();
    let forward = sampled_launches(device, SAMPLED, || {
        let targets: Vec<LoraLinear> =
            tensors.iter().map(|[w, a, b]| LoraLinear { w, a, b, scale: 2.0 }).collect();
        ys = match adapted {
            true => {
                let ids: Vec<i32> = (0..tokens as i32).collect();
                let tokens = device.tensor(Label::Activations, [tokens], &ids)?;
                let key = RngKey { seed: 1, step: 0, site: 0 };
                let dropout = Dropout { rate: DropoutRate::new(DROPOUT)?, key, tokens, first_channel: 0 };
                lora(&cx, &x, &targets, Some(dropout))?
            }
            false => targets.iter().map(|target| linear(&cx, &x, target.w)).collect::<Result<_>>()?,
        };
        Ok(())
    })?;
    let backward = sampled_launches(device, SAMPLED, || {
        let dys: Vec<Tensor> =
            ys.iter().map(|y| device.zeros(Label::Gradients, *y.shape(), y.dtype())).collect();
        cx.backward(ys.iter().zip(dys), &mut Grads::default())
    })?;
    Ok([forward, backward])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_costs_at_most_three_percent_of_its_products() {
        let device = Device::emulated("sm_80").unwrap();
        let chips = [("a100", 240e12), ("h200", 480e12), ("h200", 750e12)]
            .map(|(name, flops)| (Chip::find(name).unwrap(), flops));
        for tokens in [2048, 8192] {
            for (cost, (chip, flops)) in adapter_cost(&device, tokens, &chips).unwrap().iter().zip(&chips) {
                let share = |way: usize| 100.0 * cost.seconds[way] / cost.products[way];
                println!(
                    "{tokens} tokens, {} at {:.0} TFLOP/s: {:.2} % forward ({} launches), {:.2} % backward ({}), {:.2} % together",
                    chip.name,
                    flops / 1e12,
                    share(0),
                    cost.launches[0],
                    share(1),
                    cost.launches[1],
                    100.0 * cost.share()
                );
            }
        }
    }
}
