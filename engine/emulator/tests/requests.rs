//! Requests of a warp are looked at as a whole, and an instruction's last ones are remembered: here one lane differs from
//! the others, or one request from those before it.

mod common;
use codelsi_emulator::FaultKind;
use common::{TestKernel, random};
use std::collections::{HashMap, HashSet};

/// Four times the same load, by `stride` bytes a lane: `start` bytes from the input's beginning, then each time `step` on.
fn loads(width: &str, stride: i64, start: i64, step: i64) -> TestKernel {
    let mut test = TestKernel::new(format!(
        "cvt.u64.u32 %rd2, %r0; mul.lo.s64 %rd2, %rd2, {stride}; add.s64 %rd2, %rd2, {start}; add.s64 %rd2, %rd1, %rd2;\n\
         mov.u32 %r2, 0; A: ld.global.{width} %r1, [%rd2]; add.s64 %rd2, %rd2, {step};\n\
         add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 4; @%p1 bra A;"
    ));
    test.input = vec![0; 128];
    test
}

fn faults(test: TestKernel, kind: FaultKind, thread: u32) {
    let (found, text) = test.fault();
    assert_eq!(found, kind, "{text}");
    assert!(text.contains(&format!("thread ({thread}, 0, 0)")), "{text}");
}

#[test]
fn a_request_that_moves_may_leave_its_allocation_in_one_lane() {
    loads("u32", 4, 0, 128).launch().unwrap();
    faults(loads("u32", 4, 4, 128), FaultKind::OutOfBounds, 31);
    loads("u32", 4, 3 * 128, -128).launch().unwrap();
    faults(loads("u32", 4, 3 * 128 - 4, -128), FaultKind::OutOfBounds, 0);
    // Downwards from the last word: the first lane is the highest.
    loads("u32", -4, 4 * 127, -128).launch().unwrap();
    faults(loads("u32", -4, 4 * 127 - 4, -128), FaultKind::OutOfBounds, 31);
    // Distances that leave what addresses can be.
    faults(loads("u32", 1 << 58, 0, 4), FaultKind::OutOfBounds, 1);
    faults(loads("u32", i64::MIN, 0, 4), FaultKind::OutOfBounds, 1);
}

#[test]
fn a_request_that_moves_may_lose_its_alignment() {
    loads("u16", 4, 0, 2).launch().unwrap();
    faults(loads("u32", 4, 0, 2), FaultKind::Misaligned, 0);
    faults(loads("u32", 2, 0, 4), FaultKind::Misaligned, 1);
}

#[test]
fn lanes_that_do_not_take_part_may_point_anywhere() {
    let body = "mul.wide.u32 %rd2, %r0, 4; add.s64 %rd3, %rd0, %rd2; add.s64 %rd2, %rd1, %rd2; setp.lt.u32 %p1, %r0, 17;\n\
                mov.u32 %r1, 5; @%p1 ld.global.u32 %r1, [%rd2]; st.global.u32 [%rd3], %r1;";
    let mut test = TestKernel::new(body);
    test.input = (100..117).collect();
    let want: Vec<u32> = (0..32).map(|t| if t < 17 { 100 + t } else { 5 }).collect();
    assert_eq!(test.words(), want);
    let mut short = TestKernel::new(body);
    short.input = vec![0; 16];
    faults(short, FaultKind::OutOfBounds, 16);
}

#[test]
fn one_request_may_reach_two_allocations_again_and_again() {
    // Odd lanes read the input, even ones what they stored in the output, three times.
    let body = "mul.wide.u32 %rd2, %r0, 4; add.s64 %rd3, %rd0, %rd2; add.s64 %rd4, %rd1, %rd2; mov.u32 %r2, 0;\n\
                and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 1; selp.b64 %rd5, %rd4, %rd3, %p1; st.global.u32 [%rd3], %r0;\n\
                A: ld.global.u32 %r3, [%rd5]; st.global.u32 [%rd3], %r3;\n\
                add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 3; @%p2 bra A;";
    let mut test = TestKernel::new(body);
    test.input = (100..132).collect();
    let want: Vec<u32> = (0..32).map(|t| if t % 2 == 1 { 100 + t } else { t }).collect();
    assert_eq!(test.words(), want);
}

/// Warp 0 does `first`, and warp 1 does `second`, without a barrier between. `%r8` is 16 bytes for each lane.
fn two_warps(first: &str, second: &str) -> TestKernel {
    let mut test = TestKernel::new(format!(
        ".shared .align 16 .b8 s[1024]; mov.u32 %r9, s; and.b32 %r7, %r0, 31; mad.lo.u32 %r8, %r7, 16, %r9; mov.u32 %r1, 0;\n\
         setp.lt.u32 %p1, %r0, 32; setp.eq.u32 %p2, %r7, 13; setp.lt.u32 %p3, %r7, 31; cvt.u16.u32 %h1, %r1;\n\
         add.u32 %r2, %r9, 1020; mad.lo.u32 %r6, %r7, 4, %r9;\n\
         @%p1 st.shared.v4.u32 [%r8], {{%r1, %r1, %r1, %r1}}; bar.sync 0;\n\
         @%p1 bra A; {second} bra E; A: {first} E:"
    ));
    test.threads = 64;
    test
}

#[test]
fn a_race_in_one_lane_of_a_full_request_is_seen() {
    let all = "ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r8];";
    let one = |store: &str| format!("@%p2 {store};");
    // Of 16 bytes that lane 13 reads the other warp writes two.
    let write = one("st.shared.u16 [%r8+6], %h1");
    faults(two_warps(&write, all), FaultKind::SharedRace, 32 + 13);
    two_warps("", all).words();
    two_warps(&one("st.shared.u16 [%r2], %h1"), all).words();
    // And the other way round: the read is first in one schedule, the write in the other.
    let (kind, text) = two_warps(all, &write).fault();
    assert_eq!(kind, FaultKind::SharedRace, "{text}");
    assert!(text.contains("WAR") && text.contains("thread (45, 0, 0)"), "{text}");
    let stores = "st.shared.v4.u32 [%r8], {%r1, %r1, %r1, %r1};";
    faults(two_warps(&write, stores), FaultKind::SharedRace, 32 + 13);
    // Matrices of which one row is written.
    let matrix = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r8];";
    faults(two_warps(&write, matrix), FaultKind::SharedRace, 32 + 13);
    let copies = "cp.async.cg.shared.global [%r8], [%rd1], 16; cp.async.wait_all;";
    let mut copied = two_warps(&write, copies);
    copied.input = vec![0; 4];
    let error = copied.launch().unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind, fault.thread), (FaultKind::SharedRace, Some([32 + 13, 0, 0])), "{error}");
}

#[test]
fn lanes_of_one_warp_race_where_they_meet() {
    // All lanes read one word, or each lane its own; then lane 13 writes the word that it read.
    let body = |read: &str, between: &str| {
        two_warps("", &format!("ld.shared.u32 %r10, [{read}]; {between} @%p2 st.shared.u32 [{read}], %r1;"))
    };
    let (kind, text) = body("%r9", "").fault();
    assert_eq!(kind, FaultKind::SharedRace, "{text}");
    assert!(text.contains("WAR") && text.contains("another lane"), "{text}");
    body("%r9", "bar.warp.sync -1;").words();
    body("%r8", "").words();
    // Its own word again, which then every lane reads.
    let own = "st.shared.u32 [%r8], %r1; ld.shared.u32 %r10, [%r8];";
    two_warps("", own).words();
    let (kind, text) = two_warps("", &format!("{own} ld.shared.u32 %r10, [%r9];")).fault();
    assert_eq!(kind, FaultKind::SharedRace, "{text}");
    assert!(text.contains("RAW") && text.contains("thread (33, 0, 0)"), "{text}");
}

#[test]
fn two_lanes_of_a_store_meet_though_they_did_not_before() {
    // The same instruction stores to words of their own, then lane 31 to the word of lane 30.
    let body = |value: &str, space: &str, base: &str| {
        let mut test = TestKernel::new(format!(
            ".shared .align 4 .b8 s[128]; mov.u64 %rd5, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, {base}, %rd2;\n\
             mov.u32 %r2, 0; mov.u32 %r3, {value}; setp.eq.u32 %p2, %r0, 31;\n\
             A: st.{space}.u32 [%rd2], %r3; bar.warp.sync -1; @%p2 add.s64 %rd2, %rd2, -4;\n\
             add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 2; @%p1 bra A;"
        ));
        test.threads = 32;
        test
    };
    for (space, base, kind) in
        [("shared", "%rd5", FaultKind::SharedRace), ("global", "%rd0", FaultKind::GlobalRace)]
    {
        body("7", space, base).words();
        let (found, text) = body("%r0", space, base).fault();
        assert_eq!(found, kind, "{text}");
        assert!(text.contains("lanes 30 and 31 of one store"), "{text}");
    }
}

#[test]
fn a_block_finds_nothing_of_the_one_before_it_in_shared_memory() {
    let body = |writers: u32| {
        let mut test = TestKernel::new(format!(
            ".shared .align 4 .b8 s[4]; mov.u32 %r1, %ctaid.x; setp.lt.u32 %p1, %r1, {writers}; @!%p1 bra A;\n\
             st.shared.u32 [s], 3; A: ld.shared.u32 %r2, [s]; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd0, %rd2;\n\
             st.global.u32 [%rd2], %r2;"
        ));
        (test.threads, test.blocks, test.output) = (1, 4, 4);
        test
    };
    let one_worker = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_worker.install(|| {
        assert_eq!(body(4).words(), [3; 4]);
        let error = body(1).launch().unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind, fault.block), (FaultKind::Uninitialised, [1, 0, 0]), "{error}");
    });
}

/// Wavefronts of a request by their definition: in each part of the warp, the most words that one bank must deliver.
fn wavefronts(addresses: &[u32], bytes: u32) -> u64 {
    let unit = bytes.max(4);
    let part = |lanes: &[u32]| {
        let mut banks: HashMap<u32, HashSet<u32>> = HashMap::new();
        for word in lanes.iter().map(|a| a / unit) {
            banks.entry(word % (128 / unit)).or_default().insert(word);
        }
        banks.values().map(|words| words.len() as u64).max().unwrap_or(0)
    };
    addresses.chunks(128 / unit as usize).map(part).sum()
}

#[test]
fn the_cost_of_any_request_is_that_of_its_definition() {
    // 700 random requests, more than are remembered, then the first ones again; all of one instruction.
    const REQUESTS: usize = 700;
    for (bytes, width) in [(1, "u8"), (2, "u16"), (4, "u32"), (8, "v2.u32"), (16, "v4.u32")] {
        let mut addresses: Vec<u32> = random(32 * REQUESTS, bytes as u64)
            .chunks_exact(32)
            .enumerate()
            .flat_map(|(n, x)| {
                // Few different words, or a few rows of them, or any.
                let range = [64, 512, 4096][n % 3];
                x.iter().map(move |x| x % (range / bytes) * bytes).collect::<Vec<_>>()
            })
            .collect();
        addresses.extend_from_within(..32 * 20);
        let requests = addresses.len() / 32;
        let registers = ["%r10", "{%r10, %r11}", "{%r10, %r11, %r12, %r13}"][(bytes / 8) as usize];
        let load = |space: &str, base: &str| {
            let mut test = TestKernel::new(format!(
                ".shared .align 16 .b8 s[4096]; mov.u64 %rd5, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd1, %rd2; mov.u32 %r2, 0;\n\
                 A: ld.global.u32 %r3, [%rd2]; cvt.u64.u32 %rd3, %r3; add.s64 %rd3, {base}, %rd3;\n\
                 ld.{space}.{width} {registers}, [%rd3]; add.s64 %rd2, %rd2, 128;\n\
                 add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, {requests}; @%p1 bra A;"
            ));
            test.input = addresses.clone();
            test.output = 1024;
            test.launch().unwrap().0
        };
        let sectors = |x: &[u32]| x.iter().map(|a| a / 32).collect::<HashSet<_>>().len() as u64;
        let found = load("global", "%rd0").global_loads.transactions - 4 * requests as u64;
        assert_eq!(found, addresses.chunks(32).map(sectors).sum::<u64>(), "{width}");
        let found = load("shared", "%rd5").shared_loads.transactions;
        assert_eq!(found, addresses.chunks(32).map(|x| wavefronts(x, bytes)).sum::<u64>(), "{width}");
    }
}
