//! `list` and `resources`: every variant of every kernel, and the registers and memory that it uses.

use crate::specs::specs;
use codelsi_engine::cuda::{ACCUMULATE, KernelResources, Nvrtc, Source, Variant, compile};
use codelsi_engine::{At, Result};
use codelsi_kernels::roof;
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
    /// Advisories of the assembler: code that it made slow.
    pub advisories: Vec<String>,
}

/// Compiles every variant of the named ops (all, and the engine's own, when there are none) for every architecture, with
/// progress on stderr.
///
/// # Errors
/// When a name is no op's, a source does not compile, or there is no compiler.
pub fn rows(ops: &[String], archs: &[String]) -> Result<Vec<CompiledVariant>> {
    let terminal = std::io::stderr().is_terminal();
    let sources = specs(ops)?.into_iter().flat_map(|spec| spec.sources.iter().map(|s| (spec.name, *s)));
    let own =
        ops.is_empty().then_some([("tape", &ACCUMULATE), ("roof", &roof::SOURCE)]).into_iter().flatten();
    let variants = sources.chain(own).flat_map(|(op, s)| (s.variants)().into_iter().map(move |v| (op, s, v)));
    let all: Vec<_> = variants.flat_map(|v| archs.iter().map(move |arch| (v, arch))).collect();
    let (total, done) = (all.len(), AtomicUsize::new(0));
    eprintln!("compiling {total} variants for {}", archs.join(" and "));
    all.into_par_iter()
        .map(|((op, source, variant), arch)| {
            let compiled = CompiledVariant::compile(op, source, variant, arch)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if terminal {
                eprint!("\r{done}/{total}{}", if done == total { "\n" } else { "" });
            }
            Ok(compiled)
        })
        .collect()
}

/// Version of the loaded compiler.
fn compiler() -> String {
    Nvrtc::get()
        .map_or_else(|_| String::new(), |nvrtc| format!("{}.{}", nvrtc.version().0, nvrtc.version().1))
}

/// Returns the table of all kernels.
pub fn table(rows: &[CompiledVariant]) -> String {
    let mut text = format!(
        "NVRTC {}\n{:<12}{:<20}{:<9}{:>5}{:>8}{:>7}{:>7}  {:<20} {}\n",
        compiler(),
        "op",
        "kernel",
        "arch",
        "regs",
        "shared",
        "stack",
        "spills",
        "source",
        "variant"
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

/// Returns a line for each kernel that uses local memory, and for each advisory of the assembler.
pub fn offenders(rows: &[CompiledVariant]) -> Vec<String> {
    rows.iter().flat_map(CompiledVariant::offenders).collect()
}

impl CompiledVariant {
    fn compile(op: &'static str, source: &'static Source, variant: Variant, arch: &str) -> Result<Self> {
        let code = compile(source, variant, arch).at(op)?;
        let (kernels, advisories) = (code.resources(), code.advisories());
        Ok(CompiledVariant { op, source, variant, arch: arch.to_owned(), kernels, advisories })
    }

    fn offenders(&self) -> Vec<String> {
        let CompiledVariant { op, variant, arch, source, .. } = self;
        let uses = |k: &&KernelResources| k.spills > 0 || k.stack > 0;
        let local =
            self.kernels.iter().filter(uses).map(|KernelResources { kernel, stack, spills, .. }| {
                format!(
                    "{op}: {kernel} ({variant}, {arch}) has {spills} bytes of spills and {stack} of stack"
                )
            });
        let slow =
            self.advisories.iter().map(|text| format!("{op}: {} ({variant}, {arch}): {text}", source.name));
        local.chain(slow).collect()
    }
}

/// Returns the kernels as JSON.
pub fn object(rows: &[CompiledVariant]) -> Value {
    let failed = offenders(rows);
    json!({
        "ok": failed.is_empty(), "nvrtc": compiler(), "failed": failed, "kernels": kernel_rows(rows),
    })
}

/// Returns an object of each kernel.
pub fn kernel_rows(rows: &[CompiledVariant]) -> Vec<Value> {
    let kernels = rows.iter().flat_map(|row| row.kernels.iter().map(move |k| (row, k)));
    let object = |(row, k): (&CompiledVariant, &KernelResources)| {
        json!({
            "op": row.op, "kernel": k.kernel, "variant": row.variant.to_string(), "arch": row.arch,
            "source": row.source.name, "registers": k.registers, "shared": k.shared,
            "stack": k.stack, "spills": k.spills, "advisories": row.advisories.len(),
        })
    };
    kernels.map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_testing::or_skip;

    /// A kernel that spills, one with an array that does not fit into registers, and one whose `setmaxnreg` is ignored.
    static SLOW: Source = Source {
        name: "slow.cu",
        text: r#"
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(float *x) {
    float r[64];
#pragma unroll
    for (int i = 0; i < 64; i++) r[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; i++) x[i * 1024 + threadIdx.x] = r[i] * r[63 - i];
}
extern "C" __global__ void indexed(float *x, int n) {
    float r[64];
    for (int i = 0; i < n; i++) r[i % 64] = x[i];
    x[threadIdx.x] = r[n % 64];
}
#if __CUDA_ARCH__ >= 900
extern "C" __global__ void ignored(float *x) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    x[threadIdx.x] = 1.0f;
}
#endif
"#,
        headers: &[],
        constants: &[],
        variants: || vec![Variant::PLAIN],
    };

    #[test]
    fn spills_local_memory_and_advisories_are_failures() {
        if or_skip(Nvrtc::get()).is_none() {
            return;
        }
        let failed =
            |arch| CompiledVariant::compile("slow", &SLOW, Variant::PLAIN, arch).unwrap().offenders();
        let names = |kernel: &str, lines: &[String]| lines.iter().any(|line| line.contains(kernel));
        for arch in ["sm_80", "sm_90a"] {
            assert!(names("slow: spilling (", &failed(arch)), "{:?}", failed(arch));
            assert!(names("slow: indexed (", &failed(arch)), "{:?}", failed(arch));
        }
        assert_eq!(failed("sm_80").len(), 2);
        assert!(names("'setmaxnreg' ignored", &failed("sm_90a")), "{:?}", failed("sm_90a"));
    }
}
