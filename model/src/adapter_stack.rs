//! LoRA adapters side by side, of which each row of a batch uses one or none (S-LoRA, Sheng et al., arXiv 2311.03285).
//!
//! A row's result has the bits of its adapter alone: other adapters add exact zeros to it. Scales are part of B, so a
//! scale that is no power of two rounds B where a model with that adapter attached would round S.

use crate::adapter::{Adapter, AdapterConfig, AdapterTensors, Method};
use crate::config::{LinearName, ModelConfig};
use crate::parallel::{Layout, RankLayout};
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::lora::{LoraLinear, Turns, lora_decode};
use half::bf16;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies an adapter that was loaded. No two adapters of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub(crate) u64);

/// Room for adapters in one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterSlots {
    /// Number of adapters.
    pub count: usize,
    /// Upper limit of their ranks.
    pub rank: usize,
}

/// The factors of up to [`AdapterSlots::count`] adapters for the linears that any of them adapts.
pub(crate) struct AdapterStack {
    device: Device,
    room: AdapterSlots,
    /// The adapter in each slot.
    slots: Vec<Option<AdapterId>>,
    /// Factors of the linears of each layer, indexed by [`LinearName`].
    layers: Vec<[Option<StackedFactors>; 7]>,
}

/// The factors of one linear, zero in the slots of adapters that leave it alone.
struct StackedFactors {
    /// (slots, R, in) f32
    a: Tensor,
    /// (slots, out, R) f32, times the adapter's scale.
    b: Tensor,
}

/// The adapters of a batch's rows.
#[derive(Clone, Copy)]
pub struct RowAdapters<'a> {
    pub(crate) stack: &'a AdapterStack,
    /// The slot of each row's adapter, −1 for none: (T) i32.
    pub(crate) slots: &'a Tensor,
}

impl AdapterStack {
    /// Returns a stack without adapters. It takes memory only where adapters come.
    pub fn new(device: &Device, config: &ModelConfig, room: AdapterSlots) -> Self {
        AdapterStack {
            device: device.clone(),
            room,
            slots: vec![None; room.count],
            layers: (0..config.layers).map(|_| Default::default()).collect(),
        }
    }

    /// True if there is room for an adapter at all.
    pub fn has_room(&self) -> bool {
        self.room.count > 0
    }

    /// True if an adapter of the stack adapts the linear, or did.
    pub fn adapts(&self, layer: usize, linear: LinearName) -> bool {
        self.layers[layer][linear as usize].is_some()
    }

    /// Returns the slot of an adapter.
    pub fn slot(&self, id: AdapterId) -> Option<usize> {
        self.slots.iter().position(|&slot| slot == Some(id))
    }

    /// Copies an adapter into a free slot. Returns its id, and whether memory was allocated for linears that none before it
    /// adapted.
    ///
    /// # Errors
    /// When it is not plain LoRA of the linears, its rank is too large, its numbers are not finite, no slot is free, or ranks
    /// share the model.
    pub fn load(
        &mut self,
        rank_layout: &RankLayout,
        config: &ModelConfig,
        adapter: &Adapter,
    ) -> Result<(AdapterId, bool)> {
        self.check(rank_layout, adapter)?;
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            return Err(Error::new(format!(
                "all {} places for adapters are taken: unload one, or start with room for more",
                self.room.count
            )));
        };
        let mut grown = false;
        for layer in 0..config.layers {
            for linear in LinearName::ALL {
                let path = linear.path(layer);
                let module = adapter.modules.get(&path);
                grown |= self.make_room(layer, linear, config, module.is_some());
                let write = |factors: &mut StackedFactors| {
                    factors.write(slot, module.map(|module| (module, adapter.config.scaling(&path))))
                };
                self.layers[layer][linear as usize].as_mut().map(write).transpose().at(path)?;
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = AdapterId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.slots[slot] = Some(id);
        Ok((id, grown))
    }

    /// Frees an adapter's slot.
    pub fn unload(&mut self, id: AdapterId) {
        self.slots.iter_mut().filter(|slot| **slot == Some(id)).for_each(|slot| *slot = None);
    }

    /// Checks that the adapter can be one of several.
    fn check(&self, rank_layout: &RankLayout, adapter: &Adapter) -> Result<()> {
        let AdapterConfig { method, .. } = adapter.config;
        let rank = adapter.modules.values().map(|module| module.b.shape().as_matrix().1).max().unwrap_or(0);
        let why = match method {
            Method::LowRank { dora: false, .. } if !adapter.saved.is_empty() => {
                "brings weights of its own (modules_to_save)".to_string()
            }
            Method::LowRank { dora: false, .. } if rank > self.room.rank => {
                return Err(Error::new(format!(
                    "its rank {rank} exceeds the {} that there is room for: start with a larger one",
                    self.room.rank
                )));
            }
            Method::LowRank { dora: false, .. } => String::new(),
            other => format!("is {other}"),
        };
        if !why.is_empty() {
            return Err(Error::new(format!(
                "it {why}, and only plain LoRA shares a batch with others: merge it, and serve the merged model"
            )));
        }
        if rank_layout.layout() != Layout::Replicate {
            return Err(Error::new("ranks share the model, and adapters share a batch on one rank only"));
        }
        adapter
            .modules
            .iter()
            .try_for_each(|(path, module)| check_finite(module, adapter.config.scaling(path)).at(path))
    }

    /// Allocates the factors of a linear that is `adapted` for the first time; returns whether it did.
    fn make_room(&mut self, layer: usize, linear: LinearName, config: &ModelConfig, adapted: bool) -> bool {
        let factors = &mut self.layers[layer][linear as usize];
        if !adapted || factors.is_some() {
            return false;
        }
        let (AdapterSlots { count, rank }, (out, inner)) = (self.room, config.linear_shape(linear));
        let zeros = |shape: [usize; 3]| self.device.zeros(Label::Adapters, shape, DType::F32);
        *factors = Some(StackedFactors { a: zeros([count, rank, inner]), b: zeros([count, out, rank]) });
        true
    }
}

/// Checks that A and the scaled B are finite, rounded to bf16 too: rows of other adapters are multiplied by zero, and zero times
/// infinity is NaN.
fn check_finite(module: &AdapterTensors, scale: f32) -> Result<()> {
    for (factor, scale) in [(&module.a, 1.0), (&module.b, scale)] {
        if !factor.to_vec::<f32>()?.iter().all(|x| bf16::from_f32(scale * x).is_finite()) {
            return Err(Error::new("holds numbers that are not finite, or not when they are scaled"));
        }
    }
    Ok(())
}

impl StackedFactors {
    /// Writes a slot: a module with its scale, or zeros.
    fn write(&mut self, slot: usize, module: Option<(&AdapterTensors, f32)>) -> Result<()> {
        let (rank, [mut a, mut b]) = (self.b.shape().as_matrix().1, [self.a.to_vec()?, self.b.to_vec()?]);
        let place = |stack: &Tensor| {
            let size = stack.shape().elements() / stack.shape()[0];
            slot * size..(slot + 1) * size
        };
        let (a_slot, b_slot): (&mut [f32], &mut [f32]) = (&mut a[place(&self.a)], &mut b[place(&self.b)]);
        a_slot.fill(0.0);
        b_slot.fill(0.0);
        if let Some((module, scale)) = module {
            let factors = [module.a.to_vec::<f32>()?, module.b.to_vec::<f32>()?];
            a_slot[..factors[0].len()].copy_from_slice(&factors[0]);
            let own = module.b.shape().as_matrix().1;
            for (row, values) in b_slot.chunks_exact_mut(rank).zip(factors[1].chunks_exact(own)) {
                row.iter_mut().zip(values).for_each(|(to, b)| *to = scale * b);
            }
        }
        self.a.write(&a)?;
        self.b.write(&b)
    }
}

impl RowAdapters<'_> {
    /// True if the linear is to be computed by [`RowAdapters::forward`].
    pub fn adapts(&self, layer: usize, linear: LinearName) -> bool {
        self.stack.adapts(layer, linear)
    }

    /// Returns the outputs of the adapted `linears` of a layer, given with their weights, which share the input `x`.
    ///
    /// # Errors
    /// When an op fails.
    pub fn forward(
        &self,
        cx: &Ctx,
        x: &Tensor,
        layer: usize,
        linears: &[(LinearName, &Tensor)],
        turns: &Turns,
    ) -> Result<Vec<Tensor>> {
        let factors = &self.stack.layers[layer];
        let targets = linears.iter().filter_map(|&(linear, w)| {
            let StackedFactors { a, b } = factors[linear as usize].as_ref()?;
            Some(LoraLinear { w, a, b, scale: 1.0 })
        });
        lora_decode(cx, x, &targets.collect::<Vec<_>>(), Some(self.slots), turns)
    }
}
