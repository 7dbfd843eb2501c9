//! Seeded bugs: every kernel is broken on purpose, one edit of its CUDA text at a time, and the checks must see it.
//!
//! A bug ([`codelsi_kernels::bug::Bug`], in its op's `bugs.rs`) is an edit of a file and a case that is enough to show it.
//! The software GPU compiles the edited text in place of the kernel's own, and the case runs as in `tests/device.rs`:
//! against float64, with the same bits from both schedules, between fences, with every access checked. It must fail, and
//! by one of these checks; a bug that does not apply or does not compile is an error here, so the list follows the
//! kernels. A quiet bug is run once more with races and copies unchecked, to show that its numbers alone would have told
//! nothing.

mod common;

use codelsi_kernels::ALL;

/// Bugs that leave the early schedule's numbers right, at least.
const QUIET: usize = 10;

#[test]
fn there_are_bugs_in_every_kernel() {
    common::have_bugs_in_every_kernel(&common::ops());
    let quiet = common::bugs(ALL).filter(|(_, bug)| bug.quiet).count();
    assert!(quiet >= QUIET, "{quiet} bugs leave the numbers right");
}

#[test]
fn the_checks_see_at_least_95_percent() {
    if common::software_gpu().is_some() {
        common::see_bugs(&common::ops());
    }
}
