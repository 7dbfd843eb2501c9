//! Seeded bugs: every kernel is broken on purpose, one edit of its CUDA text at a time, and the checks must see it.
//!
//! A bug is an edit of a file ([`Bug`]) and a case that is enough to show it. The software GPU compiles the edited text
//! in place of the kernel's own, and the case runs as in `tests/device.rs`: against float64, with the same bits from
//! both schedules, between fences, with every access checked. It must fail, and by one of these checks; a bug that
//! does not apply or does not compile is an error here, so the list follows the kernels. A quiet bug is run once more
//! with races and copies unchecked, to show that its numbers alone would have told nothing.
//!
//! `CODELSI_OPS=gemm,lora`: the bugs of these ops alone.

mod adamw;
mod bug;
mod concat;
mod dora;
mod dropout;
mod elementwise;
mod embed;
mod flash;
mod flash_backward;
mod flash_paged;
mod gemm;
mod kvstore;
mod lora;
mod mixture;
mod narrow;
mod rmsnorm;
mod rope;
mod sample;
mod swiglu;
mod trial;
mod xent;

use bug::Bug;
use codelsi_engine::cuda::Nvrtc;
use codelsi_kernels::ALL;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use trial::Outcome;

/// Every op with its bugs.
const OPS: &[(&str, &[&[Bug]])] = &[
    ("adamw", &[adamw::BUGS]),
    ("concat", &[concat::BUGS]),
    ("dora", &[dora::BUGS]),
    ("dropout", &[dropout::BUGS]),
    ("elementwise", &[elementwise::BUGS]),
    ("embed", &[embed::BUGS]),
    ("flash", &[flash::BUGS, flash_backward::BUGS]),
    ("flash_paged", &[flash_paged::BUGS]),
    ("gemm", &[gemm::BUGS]),
    ("kvstore", &[kvstore::BUGS]),
    ("lora", &[lora::BUGS, narrow::BUGS]),
    ("mixture", &[mixture::BUGS]),
    ("rmsnorm", &[rmsnorm::BUGS]),
    ("rope", &[rope::BUGS]),
    ("sample", &[sample::BUGS]),
    ("swiglu", &[swiglu::BUGS]),
    ("xent", &[xent::BUGS]),
];

/// Bugs of every kernel source, at least.
const OF_A_SOURCE: usize = 3;
/// Bugs that leave the early schedule's numbers right, at least.
const QUIET: usize = 10;

fn bugs() -> impl Iterator<Item = (&'static str, &'static Bug)> {
    OPS.iter().flat_map(|(op, lists)| lists.iter().copied().flatten().map(move |bug| (*op, bug)))
}

#[test]
fn there_are_bugs_in_every_kernel() {
    for spec in ALL {
        for source in spec.sources {
            let count = bugs().filter(|(op, bug)| *op == spec.name && bug.is_in(source)).count();
            assert!(count >= OF_A_SOURCE, "{}: {count} bugs of {}", source.name, spec.name);
        }
    }
    let quiet = bugs().filter(|(_, bug)| bug.quiet).count();
    assert!(quiet >= QUIET, "{quiet} bugs leave the numbers right");
}

#[test]
fn the_checks_see_at_least_95_percent() {
    if let Err(e) = Nvrtc::get() {
        assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
        return println!("skipped: {e}");
    }
    let wanted = std::env::var("CODELSI_OPS").ok();
    let wanted = |name: &str| wanted.as_ref().is_none_or(|ops| ops.split(',').any(|op| op == name));
    let bugs: Vec<_> = bugs().filter(|(op, _)| wanted(op)).collect();
    // A case that fails as it is would pass for a catch.
    let mut cases = bugs.clone();
    cases.sort_by_key(|(op, bug)| (*op, bug.case, bug.dtype.size()));
    cases.dedup_by_key(|(op, bug)| (*op, bug.case, bug.dtype.size()));
    let unsound = |&(op, bug): &_| trial::sound(op, bug).err().map(|e| format!("{op} {}: {e}", bug.case));
    let unsound: Vec<String> = each(&cases, unsound).into_iter().flatten().collect();
    assert!(unsound.is_empty(), "cases that fail without a bug:\n{}", unsound.join("\n"));
    let outcomes = each(&bugs, |(op, bug)| {
        let start = Instant::now();
        let outcome = trial::run(op, bug);
        let loud = if bug.quiet { trial::loud(op, bug) } else { None };
        let (line, seconds) = (line(op, bug), start.elapsed().as_secs_f32());
        println!("{line:<100} {outcome:<22} {seconds:4.1} s");
        (outcome, loud)
    });
    let (mut missed, mut wrong) = (0, Vec::new());
    for ((op, bug), (outcome, loud)) in bugs.iter().zip(outcomes) {
        missed += usize::from(matches!(outcome, Outcome::Missed));
        let objections = outcome.objection(bug).into_iter().chain(loud);
        wrong.extend(objections.map(|what| format!("{}: {what}", line(op, bug))));
    }
    println!("{} bugs, {} caught", bugs.len(), bugs.len() - missed);
    assert!(wrong.is_empty(), "{} of {} bugs:\n{}", wrong.len(), bugs.len(), wrong.join("\n"));
    assert!(20 * missed <= bugs.len(), "{missed} of {} bugs are missed", bugs.len());
}

fn line(op: &str, bug: &Bug) -> String {
    format!("{op:<12} {:<18} {}", bug.file, bug.breaks)
}

/// `f` of every item, on as many threads as there are cores.
fn each<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
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
