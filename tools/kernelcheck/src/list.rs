//! `list` and `resources`: every variant of every kernel, and the registers and memory that it uses.

use crate::specs::specs;
use codelsi_engine::cuda::{ACCUMULATE, KernelResources, Source, Variant, compile};
use codelsi_engine::{At, Result};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One variant of a source, compiled for one architecture.
pub struct CompiledVariant {
    pub op: &'static str,
    pub source: &'static Source,
    pub variant: Variant,
    pub arch: String,
    pub kernels: Vec<KernelResources>,
}

/// Compiles every variant of the named ops (all, and the engine's own, when there are none) for every architecture, with
/// progress on stderr.
///
/// # Errors
/// When a name is no op's, a source does not compile, or there is no compiler.
pub fn rows(ops: &[String], archs: &[String]) -> Result<Vec<CompiledVariant>> {
    let terminal = std::io::stderr().is_terminal();
    let sources = specs(ops)?.into_iter().flat_map(|spec| spec.sources.iter().map(|s| (spec.name, *s)));
    let own = ops.is_empty().then_some(("tape", &ACCUMULATE));
    let variants = sources.chain(own).flat_map(|(op, s)| (s.variants)().into_iter().map(move |v| (op, s, v)));
    let all: Vec<_> = variants.flat_map(|v| archs.iter().map(move |arch| (v, arch))).collect();
    let (total, done) = (all.len(), AtomicUsize::new(0));
    eprintln!("compiling {total} variants for {}", archs.join(" and "));
    all.into_par_iter()
        .map(|((op, source, variant), arch)| {
            let kernels = compile(source, variant, arch).at(op)?.resources();
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if terminal {
                eprint!("\r{done}/{total}{}", if done == total { "\n" } else { "" });
            }
            Ok(CompiledVariant { op, source, variant, arch: arch.clone(), kernels })
        })
        .collect()
}

/// Returns the table of all kernels.
pub fn table(rows: &[CompiledVariant]) -> String {
    let mut text = format!(
        "{:<12}{:<20}{:<9}{:>5}{:>8}{:>7}{:>7}  {:<20} {}\n",
        "op", "kernel", "arch", "regs", "shared", "stack", "spills", "source", "variant"
    );
    for row in rows {
        for k in &row.kernels {
            text += &format!(
                "{:<12}{:<20}{:<9}{:>5}{:>8}{:>7}{:>7}  {:<20} {}\n",
                row.op,
                k.kernel,
                row.arch,
                k.registers,
                k.shared,
                k.stack,
                k.spills,
                row.source.name,
                row.variant
            );
        }
    }
    text
}

/// Returns a line for each kernel that uses local memory.
pub fn offenders(rows: &[CompiledVariant]) -> Vec<String> {
    let uses = |k: &&KernelResources| k.spills > 0 || k.stack > 0;
    let lines = rows.iter().flat_map(|row| {
        row.kernels.iter().filter(uses).map(move |k| {
            let (CompiledVariant { op, variant, arch, .. }, KernelResources { kernel, stack, spills, .. }) =
                (row, k);
            format!("{op}: {kernel} ({variant}, {arch}) has {spills} bytes of spills and {stack} of stack")
        })
    });
    lines.collect()
}

/// Returns the kernels as JSON.
pub fn object(rows: &[CompiledVariant]) -> Value {
    let kernels = rows.iter().flat_map(|row| {
        row.kernels.iter().map(move |k| {
            json!({
                "op": row.op, "kernel": k.kernel, "variant": row.variant.to_string(), "arch": row.arch,
                "source": row.source.name, "registers": k.registers, "shared": k.shared,
                "stack": k.stack, "spills": k.spills,
            })
        })
    });
    json!({ "ok": offenders(rows).is_empty(), "kernels": kernels.collect::<Vec<_>>() })
}
