//! Coverage of a software GPU's launches: the compiled kernels that ran, their grids and their options.

use super::driver::Grid;
use super::launch::Arg;
use super::source::Variant;
use std::collections::{BTreeMap, BTreeSet};

/// A compiled kernel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CompiledKernel {
    /// Name of the source.
    pub source: &'static str,
    /// The variant, printed.
    pub variant: String,
    pub kernel: String,
}

/// Grids and options that the launches of one kernel have taken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaunchKinds {
    /// True for each of x, y and z in which a grid had several blocks.
    pub several_blocks: [bool; 3],
    /// For each optional argument and each flag, whether a launch went without it, and whether one had it.
    pub options: BTreeMap<usize, [bool; 2]>,
}

impl LaunchKinds {
    /// Adds other launches.
    pub fn add(&mut self, other: &LaunchKinds) {
        for (mine, other) in self.several_blocks.iter_mut().zip(other.several_blocks) {
            *mine |= other;
        }
        for (&argument, seen) in &other.options {
            let mine = self.options.entry(argument).or_default();
            *mine = [mine[0] | seen[0], mine[1] | seen[1]];
        }
    }

    fn of(grid: &Grid, args: &[Arg]) -> Self {
        let option = |(i, arg): (usize, &Arg)| arg.option().map(|given| (i, [!given, given]));
        LaunchKinds {
            several_blocks: grid.blocks.map(|blocks| blocks > 1),
            options: args.iter().enumerate().filter_map(option).collect(),
        }
    }
}

/// The launches so far.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub kernels: BTreeMap<CompiledKernel, LaunchKinds>,
    /// For each named branch of a launch, whether it was left aside, and whether it was taken.
    pub branches: BTreeMap<&'static str, [bool; 2]>,
    /// The kernels launched since [`Coverage::take_recent`].
    recent: BTreeSet<CompiledKernel>,
}

impl Coverage {
    /// Returns the kernels launched since the last call.
    pub fn take_recent(&mut self) -> BTreeSet<CompiledKernel> {
        std::mem::take(&mut self.recent)
    }

    pub(super) fn launched(
        &mut self,
        (source, variant, kernel): (&'static str, Variant, &str),
        grid: &Grid,
        args: &[Arg],
    ) {
        let compiled = CompiledKernel { source, variant: variant.to_string(), kernel: kernel.into() };
        self.recent.insert(compiled.clone());
        self.kernels.entry(compiled).or_default().add(&LaunchKinds::of(grid, args));
    }

    pub(super) fn branched(&mut self, name: &'static str, taken: bool) {
        self.branches.entry(name).or_default()[taken as usize] = true;
    }
}
