//! Search for code that no case runs: compiled kernels, grids, options and branches of launches.

use crate::spec::Spec;
use codelsi_engine::cuda::{Coverage, Cuda, LaunchKinds, Source, compile};
use codelsi_engine::{At, Result};
use std::collections::BTreeMap;

/// Returns what the launches on `cuda` so far left out of the kernels of `specs`, a line each: variants that never ran (of
/// variants with the same instructions one is enough); grids that never had several blocks in a dimension whose block
/// index the kernel reads; optional arguments and flags that were always there or never; and branches of launches that
/// always went one way. Ops launch each other's kernels: only of all ops together is everything demanded.
///
/// # Errors
/// When a source does not compile, or `cuda` is not a software GPU.
pub fn not_run(specs: &[&Spec], cuda: &Cuda) -> Result<Vec<String>> {
    let emulated =
        cuda.emulator().ok_or_else(|| cuda.no_kernel::<()>("the record of launches").unwrap_err())?;
    let coverage = emulated.coverage().clone();
    let mut sources: Vec<&Source> = specs.iter().flat_map(|spec| spec.sources.iter().copied()).collect();
    sources.sort_by_key(|source| source.name);
    sources.dedup_by_key(|source| source.name);
    let mut missing = Vec::new();
    for source in sources {
        of_source(source, &coverage, &cuda.properties().arch, &mut missing).at(source.name)?;
    }
    for (name, [left, taken]) in &coverage.branches {
        match (left, taken) {
            (true, true) => {}
            (false, _) => missing.push(format!("branch `{name}` is always taken")),
            _ => missing.push(format!("branch `{name}` is never taken")),
        }
    }
    Ok(missing)
}

/// Variants of a kernel with the same instructions.
#[derive(Default)]
struct SameCode {
    variants: Vec<String>,
    launches: usize,
    kinds: LaunchKinds,
}

fn of_source(source: &Source, coverage: &Coverage, arch: &str, missing: &mut Vec<String>) -> Result<()> {
    let mut codes: BTreeMap<(String, String), SameCode> = BTreeMap::new();
    for variant in (source.variants)() {
        for (kernel, instructions) in compile(source, variant, arch)?.kernels() {
            let code = codes.entry((kernel.to_owned(), instructions)).or_default();
            code.variants.push(variant.to_string());
            let launched = coverage.kernels.iter().filter(|(compiled, _)| {
                compiled.source == source.name
                    && compiled.kernel == kernel
                    && compiled.variant == variant.to_string()
            });
            for (_, kinds) in launched {
                code.launches += 1;
                code.kinds.add(kinds);
            }
        }
    }
    let mut options: BTreeMap<&str, LaunchKinds> = BTreeMap::new();
    for ((kernel, instructions), code) in &codes {
        let name = format!("{} {kernel} ({})", source.name, code.variants.join(" | "));
        match code.launches {
            0 => missing.push(format!("{name} never runs")),
            _ => {
                let single = (0..3).zip(["x", "y", "z"]).filter(|(axis, letter)| {
                    instructions.contains(&format!("%ctaid.{letter}")) && !code.kinds.several_blocks[*axis]
                });
                missing.extend(single.map(|(_, axis)| format!("{name} never has several blocks in {axis}")));
                options.entry(kernel).or_default().add(&code.kinds);
            }
        }
    }
    for (kernel, kinds) in options {
        for (argument, seen) in kinds.options {
            let what = format!("{} {kernel}: argument {argument}", source.name);
            match seen {
                [false, _] => missing.push(format!("{what} is always given")),
                [_, false] => missing.push(format!("{what} is never given")),
                _ => {}
            }
        }
    }
    Ok(())
}
