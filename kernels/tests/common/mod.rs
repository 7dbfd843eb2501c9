//! The checks of the tests, on ops of one's choice. `CODELSI_OPS=gemm,lora` chooses among all.
#![allow(dead_code, reason = "each test uses its part")]

use codelsi_engine::Device;
use codelsi_engine::cuda::{Source, compile};
use codelsi_engine::team::Team;
use codelsi_kernels::ALL;
use codelsi_kernels::bug::{Bug, PER_SOURCE};
use codelsi_kernels::check::bugs::{BugOutcome, objection_to_quiet, passes_without, try_bug};
use codelsi_kernels::check::{self, batch_invariance};
use codelsi_kernels::simd::{self, SimdLevel};
use codelsi_kernels::spec::Spec;
use codelsi_testing::or_skip;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const SEED: u64 = 20260914;

/// The ops that `CODELSI_OPS` names, or all.
pub fn ops() -> Vec<&'static Spec> {
    check::selected().unwrap_or_else(|e| panic!("{e}"))
}

/// Returns false, and says that the test is skipped, when `CODELSI_OPS` names other ops than `op`.
pub fn is_selected(op: &str) -> bool {
    let selected = std::env::var_os("CODELSI_OPS").is_none() || ops().iter().any(|spec| spec.name == op);
    if !selected {
        println!("skipped: CODELSI_OPS does not name {op}");
    }
    selected
}

/// A software GPU, if there is a compiler.
pub fn software_gpu() -> Option<Device> {
    or_skip(Device::emulated("sm_80"))
}

/// Compares ops with their references on every instruction set, and their bits on several numbers of threads.
pub fn agree_with_references(specs: &[&Spec]) {
    for level in SimdLevel::ALL.into_iter().filter(|&l| l <= simd::detected()) {
        simd::set_max_level(level);
        for spec in specs {
            let report =
                check::against_reference(spec, SEED).unwrap_or_else(|e| panic!("{}: {e}", level.name()));
            println!(
                "{:<11} {:<12} {:>3} cases, worst {:.2} of the limit ({})",
                level.name(),
                spec.name,
                report.cases,
                report.worst_ratio,
                report.worst
            );
            let once = check::fingerprint(spec, SEED).unwrap();
            for threads in [1, 2, 3, 7] {
                let again = on_threads(threads, || check::fingerprint(spec, SEED).unwrap());
                assert!(once == again, "{} on {threads} threads has other bits", spec.name);
            }
        }
    }
}

fn on_threads<T: Send>(n: usize, f: impl FnOnce() -> T + Send) -> T {
    let _team = Team::gather(n).unwrap();
    f()
}

/// Compiles every variant for both architectures: no kernel may use local memory, nor may the assembler call it slow.
pub fn compile_without_a_spill<'a>(sources: impl IntoIterator<Item = &'a Source>) {
    for source in sources {
        for (arch, variant) in
            ["sm_80", "sm_90a"].into_iter().flat_map(|a| (source.variants)().into_iter().map(move |v| (a, v)))
        {
            let code = compile(source, variant, arch).unwrap();
            let resources = code.resources();
            assert!(!resources.is_empty(), "{} {variant}: no kernel", source.name);
            let advisories = code.advisories();
            assert!(advisories.is_empty(), "{} {variant} {arch}: {advisories:?}", source.name);
            for kernel in resources {
                assert!(
                    kernel.spills == 0 && kernel.stack == 0,
                    "{} {variant} {arch}: {kernel:?}",
                    source.name
                );
            }
        }
    }
}

/// Compares ops on a device with their CPU twins.
pub fn agree_with_twins(specs: &[&Spec], device: &Device) {
    let mut failures = Vec::new();
    for spec in specs.iter().filter(|spec| !spec.sources.is_empty()) {
        let start = Instant::now();
        match check::on_device(spec, device, SEED) {
            Err(e) => failures.push(e.to_string()),
            Ok(report) => println!(
                "{:<12} {:>3} cases, {:5.1} s, worst {:.2} of the limit ({})",
                spec.name,
                report.cases,
                start.elapsed().as_secs_f32(),
                report.worst_ratio,
                report.worst
            ),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Compares what ops on a device make of NaN and infinities with what their CPU twins do.
pub fn pass_on_what_is_not_finite(specs: &[&Spec], device: &Device) {
    let mut failures = Vec::new();
    for spec in specs.iter().filter(|spec| !spec.sources.is_empty()) {
        match check::non_finite(spec, device, SEED) {
            Ok(runs) => println!("{:<12} {runs:>3} runs", spec.name),
            Err(e) => failures.push(e.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Demands that the launches on `device` so far ran every variant and every branch of the ops' launches. Where some ops were
/// selected, what is missing is only printed: another op may launch it.
pub fn have_run_everything(specs: &[&Spec], device: &Device, all: bool) {
    let Device::Cuda(cuda) = device else { panic!("{} runs no kernels", device.name()) };
    let missing = check::not_run(specs, cuda).unwrap_or_else(|e| panic!("{e}"));
    let text = format!(
        "no case of these ops runs the following; add cases to `spec.rs` that do:\n{}",
        missing.join("\n")
    );
    match all {
        true => assert!(missing.is_empty(), "{text}"),
        false if missing.is_empty() => {}
        false => println!("{text}"),
    }
}

/// Compares rows of ops in batches of several sizes.
pub fn hold_batch_invariance(specs: &[&Spec], device: &Device) {
    for spec in specs {
        let calls = batch_invariance(spec, device).unwrap_or_else(|e| panic!("{e}"));
        println!("{:<12} {calls} calls on {}", spec.name, device.name());
    }
}

/// All bugs of ops.
pub fn bugs<'a>(specs: &'a [&'a Spec]) -> impl Iterator<Item = (&'a Spec, &'static Bug)> {
    specs.iter().flat_map(|spec| spec.bugs.iter().copied().flatten().map(move |bug| (*spec, bug)))
}

/// Demands [`PER_SOURCE`] bugs of every source, and that the text of every bug is found.
pub fn have_bugs_in_every_kernel(specs: &[&Spec]) {
    for spec in specs {
        for (_, bug) in bugs(&[spec]) {
            let sources = ALL.iter().copied().chain([*spec]).flat_map(|spec| spec.sources);
            let applied: Vec<_> = sources
                .filter_map(|source| bug.applied(source).unwrap_or_else(|e| panic!("{bug:?}: {e}")))
                .collect();
            assert!(!applied.is_empty(), "no source has the file of {bug:?}");
        }
        for source in spec.sources {
            let count = bugs(&[spec]).filter(|(_, bug)| bug.is_in(source)).count();
            assert!(
                count >= PER_SOURCE,
                "{} of op {}: {count} seeded bugs; list {PER_SOURCE} at least in the op's bugs.rs, as \
                 kernels/src/swiglu/bugs.rs does",
                source.name,
                spec.name
            );
        }
    }
}

/// Puts every bug into its kernel: the checks must see at least 95 %, and all that are not listed as missed. Returns
/// the numbers of bugs and of those caught.
pub fn see_bugs(specs: &[&Spec]) -> [usize; 2] {
    let all: Vec<_> = bugs(specs).collect();
    // A case that fails as it is would pass for a catch.
    let mut cases = all.clone();
    cases.sort_by_key(|(spec, bug)| (spec.name, bug.case, bug.dtype.size()));
    cases.dedup_by_key(|(spec, bug)| (spec.name, bug.case, bug.dtype.size()));
    let failure = |&(spec, bug): &(&Spec, &Bug)| {
        passes_without(spec, bug).err().map(|e| format!("{} {}: {e}", spec.name, bug.case))
    };
    let failures: Vec<String> = on_all_cores(&cases, failure).into_iter().flatten().collect();
    assert!(failures.is_empty(), "cases that fail without a bug:\n{}", failures.join("\n"));
    let outcomes = on_all_cores(&all, |(spec, bug)| {
        let start = Instant::now();
        let outcome = try_bug(spec, bug);
        let loud = if bug.quiet { objection_to_quiet(spec, bug) } else { None };
        println!("{:<100} {outcome:<22} {:4.1} s", line(spec, bug), start.elapsed().as_secs_f32());
        (outcome, loud)
    });
    let (mut missed, mut wrong) = (0, Vec::new());
    for ((spec, bug), (outcome, loud)) in all.iter().zip(outcomes) {
        missed += usize::from(matches!(outcome, BugOutcome::Missed));
        let objections = outcome.objection(bug).into_iter().chain(loud);
        wrong.extend(objections.map(|objection| format!("{}: {objection}", line(spec, bug))));
    }
    println!("{} bugs, {} caught", all.len(), all.len() - missed);
    assert!(wrong.is_empty(), "{} of {} bugs:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(20 * missed <= all.len(), "{missed} of {} bugs are missed", all.len());
    [all.len(), all.len() - missed]
}

fn line(spec: &Spec, bug: &Bug) -> String {
    format!("{:<12} {:<18} {}", spec.name, bug.file, bug.breaks)
}

/// `f` of every item, on as many threads as there are cores.
fn on_all_cores<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let i = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(i)
                {
                    let result = f(item);
                    done.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_unstable_by_key(|d| d.0);
    done.into_iter().map(|d| d.1).collect()
}
