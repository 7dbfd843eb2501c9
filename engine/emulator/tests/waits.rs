//! Waits of a block for others: turns, deadlocks, and what is counted.

mod common;

use codelsi_emulator::{Counters, FaultKind, Schedule};
use common::TestKernel;

/// Returns a kernel whose blocks write their place in a word each, one after another: block 0 last. `n` is their number.
fn turns() -> TestKernel {
    let body = "mov.u32 %r1, %ctaid.x; sub.u32 %r2, %r63, %r1; sub.u32 %r2, %r2, 1;\n\
                W: ld.acquire.gpu.global.u32 %r3, [%rd1]; setp.ge.u32 %p1, %r3, %r2; @%p1 bra D;\n\
                nanosleep.u32 64; bra W;\n\
                D: ld.relaxed.gpu.global.u32 %r4, [%rd1+4]; mad.lo.u32 %r4, %r4, 3, %r1;\n\
                st.relaxed.gpu.global.u32 [%rd1+4], %r4;\n\
                mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r4;\n\
                membar.gl; red.relaxed.gpu.global.add.u32 [%rd1], 1;";
    let mut kernel = TestKernel::new(body);
    (kernel.threads, kernel.blocks, kernel.n, kernel.output) = (1, 100, 100, 100);
    kernel.input = vec![0, 7];
    kernel
}

#[test]
fn blocks_take_turns_whichever_is_begun_first() {
    let mut word = 7u32;
    let mut expected = vec![0; 100];
    for block in (0..100).rev() {
        word = word.wrapping_mul(3).wrapping_add(block as u32);
        expected[block] = word;
    }
    assert_eq!(turns().words(), expected);
}

#[test]
fn rounds_that_found_nothing_are_not_counted() {
    let mut kernel = turns();
    let mut counters = |schedule| -> Counters {
        kernel.schedule = schedule;
        kernel.launch().unwrap().0
    };
    let early = counters(Schedule::Early);
    assert_eq!(early, counters(Schedule::Late));
    assert_eq!(early.global_loads.requests, 200);
    assert_eq!(early.warp_instructions % 100, 0);
}

/// A compiler looks once before the loop, which is then left another way than by the first look.
#[test]
fn a_wait_is_counted_alike_whether_the_first_look_or_a_later_one_ends_it() {
    let mut kernel = turns();
    let (head, rest) = kernel.body.split_once("W:").unwrap();
    let (_, rest) = rest.split_once("D:").unwrap();
    let look = "ld.acquire.gpu.global.u32 %r3, [%rd1];";
    kernel.body = format!(
        "{head} {look} setp.ge.u32 %p1, %r3, %r2; @%p1 bra D;\n\
         W: nanosleep.u32 64; {look} setp.lt.u32 %p2, %r3, %r2; @%p2 bra W;\nD: {rest}"
    );
    let mut counters = |schedule| {
        kernel.schedule = schedule;
        kernel.launch().unwrap().0
    };
    // Most blocks wait if the last one begins last, none if it begins first.
    assert_eq!(counters(Schedule::Early), counters(Schedule::Late));
}

#[test]
fn a_turn_that_never_comes_is_a_deadlock() {
    let mut kernel = turns();
    kernel.body = kernel.body.replace("[%rd1], 1;", "[%rd1], 0;");
    let (kind, text) = kernel.fault();
    assert_eq!(kind, FaultKind::Deadlock);
    assert!(text.contains("no block of the launch can go on"), "{text}");
}

#[test]
fn a_fault_ends_those_that_wait_for_its_block() {
    let mut kernel = turns();
    kernel.body = format!("mov.u32 %r9, %ctaid.x; setp.eq.u32 %p2, %r9, 50; @%p2 trap; {}", kernel.body);
    assert_eq!(kernel.fault().0, FaultKind::Trap);
}

#[test]
fn a_sampled_block_waits_for_none() {
    let mut kernel = turns();
    let all = kernel.launch().unwrap().0;
    kernel.sampled = Some(5);
    assert_eq!(kernel.launch().unwrap().0, all);
}
