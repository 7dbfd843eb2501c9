//! Every check, with a program that fails it and a corrected one that passes.

mod common;
use codelsi_emulator::{FaultKind, Gpu, LaunchConfig, Schedule};
use common::{TestKernel, module};

fn run(body: &str) -> TestKernel {
    TestKernel::new(body)
}

fn threads(body: &str, threads: u32) -> TestKernel {
    let mut test = run(body);
    test.threads = threads;
    test
}

/// Checks that `bad` reports a fault of this kind, and that with `from` replaced by `to` it reports none.
fn fails(kind: FaultKind, bad: TestKernel, from: &str, to: &str) -> String {
    assert!(bad.body.contains(from), "{from} is not in {}", bad.body);
    let good = TestKernel {
        body: bad.body.replace(from, to),
        input: bad.input.clone(),
        declarations: bad.declarations.clone(),
        ..bad
    };
    good.words();
    let (found, text) = bad.fault();
    assert_eq!(found, kind, "{text}");
    text
}

#[test]
fn out_of_bounds() {
    let body = "mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2+4], %r0;";
    let text = fails(FaultKind::OutOfBounds, run(body), "+4]", "]");
    assert!(
        text.contains("thread (31, 0, 0)") && text.contains("PTX line 11") && text.contains("has 128"),
        "{text}"
    );
    fails(FaultKind::OutOfBounds, run("ld.global.u32 %r1, [%rd1-4];"), "-4", "");
    fails(FaultKind::OutOfBounds, run(".shared .align 4 .b8 s[64]; st.shared.u32 [s+64], 0;"), "+64", "+60");
    fails(FaultKind::OutOfBounds, run(".local .align 4 .b8 l[64]; st.local.u32 [l+64], 0;"), "+64", "+60");
    fails(
        FaultKind::OutOfBounds,
        run("mov.u64 %rd2, 0; ld.global.u32 %r1, [%rd2];"),
        "mov.u64 %rd2, 0",
        "mov.u64 %rd2, %rd1",
    );
    let mut wide = run("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];");
    wide.input = vec![0; 3];
    fails(FaultKind::OutOfBounds, wide, "v4.u32 {%r1, %r2, %r3, %r4}", "v2.u32 {%r1, %r2}");
}

#[test]
fn misaligned() {
    fails(FaultKind::Misaligned, run("ld.global.u32 %r1, [%rd0+2];"), "+2", "+4");
    fails(
        FaultKind::Misaligned,
        run(".shared .align 16 .b8 s[64]; st.shared.v2.u32 [s+4], {%r0, %r0};"),
        "v2.u32 [s+4], {%r0, %r0}",
        "u32 [s+4], 0",
    );
    // Allocations are aligned to 256 bytes and no more.
    let body = "and.b64 %rd2, %rd0, 511; setp.eq.u64 %p1, %rd2, 256; @!%p1 trap;";
    run(body).words();
}

#[test]
fn use_after_free() {
    let gpu = Gpu::new("sm_80").unwrap();
    let text = module("", "st.global.u32 [%rd0], 1; ld.global.u32 %r1, [%rd1];");
    let loaded = gpu.load(&text).unwrap();
    let (a, b) = (gpu.alloc(64).unwrap(), gpu.alloc(64).unwrap());
    gpu.fill(b, 0, 64).unwrap();
    let args = [a.to_le_bytes().as_slice(), &b.to_le_bytes(), &[0; 4]].concat();
    let config = LaunchConfig { grid: [1; 3], block: [32, 1, 1], shared_bytes: 0 };
    gpu.launch(loaded.kernel("k").unwrap(), config, &args).unwrap();
    gpu.free(b).unwrap();
    let error = gpu.launch(loaded.kernel("k").unwrap(), config, &args).unwrap_err();
    assert_eq!(error.fault().unwrap().kind, FaultKind::UseAfterFree, "{error}");
}

#[test]
fn uninitialised_registers_and_memory() {
    let address = "add.s64 %rd3, %rd0, %rd2; st.global.u32 [%rd3], 1;";
    fails(FaultKind::Uninitialised, run(address), "%rd0, %rd2", "%rd0, 0");
    let branch =
        ".shared .align 4 .b8 s[128]; ld.shared.u32 %r1, [s]; setp.eq.u32 %p1, %r1, 0; @%p1 bra L; L:";
    fails(FaultKind::Uninitialised, run(branch), "ld.shared.u32 %r1, [s]", "mov.u32 %r1, 0");
    let stored = ".local .align 4 .b8 l[8]; st.local.u32 [l], 1; ld.local.u32 %r1, [l+4]; add.u32 %r1, %r1, 1;\n\
                  st.global.u32 [%rd0], %r1;";
    let text = fails(FaultKind::Uninitialised, run(stored), "[l+4]", "[l]");
    assert!(text.contains("stored in global memory"), "{text}");
}

#[test]
fn registers_written_under_a_predicate_are_known_in_those_lanes() {
    let body = "setp.lt.u32 %p1, %r0, 16; @%p1 mov.u32 %r1, 7; setp.ge.u32 %p2, %r0, 16; @%p2 mov.u32 %r1, 8; bar.sync 0;\n\
                add.u32 %r10, %r1, 1; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r10;";
    assert_eq!(run(body).words(), (0..32).map(|t| if t < 16 { 8 } else { 9 }).collect::<Vec<_>>());
    let text =
        fails(FaultKind::Uninitialised, run(&body.replace("%r0, 16; @%p2", "%r0, 17; @%p2")), "17", "16");
    assert!(text.contains("thread (16, 0, 0)"), "{text}");
}

#[test]
fn endless_kernels_end() {
    let gpu = Gpu::new("sm_80").unwrap();
    gpu.set_instruction_limit(100_000);
    let loaded = gpu.load(&module("", "L: add.u32 %r1, %r0, 1; bra L;")).unwrap();
    let config = LaunchConfig { grid: [1; 3], block: [64, 1, 1], shared_bytes: 0 };
    let error = gpu.launch(loaded.kernel("k").unwrap(), config, &[0; 20]).unwrap_err();
    assert_eq!(error.fault().unwrap().kind, FaultKind::Endless, "{error}");
}

#[test]
fn uninitialised_device_memory_and_its_copies() {
    let gpu = Gpu::new("sm_80").unwrap();
    let text = module("", "ld.global.u32 %r1, [%rd1]; mul.lo.u32 %r1, %r1, 3; st.global.u32 [%rd0], %r1;");
    let loaded = gpu.load(&text).unwrap();
    let (a, b, c) = (gpu.alloc(64).unwrap(), gpu.alloc(64).unwrap(), gpu.alloc(64).unwrap());
    gpu.copy(c, b, 64).unwrap();
    let launch = |from: u64| {
        let args = [a.to_le_bytes().as_slice(), &from.to_le_bytes(), &[0; 4]].concat();
        gpu.launch(
            loaded.kernel("k").unwrap(),
            LaunchConfig { grid: [1; 3], block: [1, 1, 1], shared_bytes: 0 },
            &args,
        )
    };
    for from in [b, c] {
        assert_eq!(launch(from).unwrap_err().fault().unwrap().kind, FaultKind::Uninitialised);
    }
    gpu.write(c, &[5, 0, 0, 0]).unwrap();
    launch(c).unwrap();
    let mut word = [0; 4];
    gpu.read(a, &mut word).unwrap();
    assert_eq!(word, [15, 0, 0, 0]);
    assert!(gpu.read(a, &mut [0; 8]).unwrap_err().to_string().contains("uninitialised"));
}

#[test]
fn masked_parts_of_a_tile_may_be_uninitialised() {
    // Half a word is uninitialised: its other half may be stored, the sum of both may not.
    let body = ".shared .align 4 .b8 s[128]; mad.lo.u32 %r9, %r0, 4, 0; st.shared.u16 [%r9], %h1;\n\
                ld.shared.u32 %r1, [%r9]; shr.u32 %r2, %r1, 16; and.b32 %r3, %r1, 65535; prmt.b32 %r4, %r1, 0, 0x4410;\n\
                mov.b32 {%h2, %h3}, %r1; cvt.u32.u16 %r5, %h2; add.u32 %r5, %r5, %r3; add.u32 %r5, %r5, %r4;\n\
                add.u32 %r5, %r5, %r3; st.global.u32 [%rd0], %r5;"
        .replace("st.shared.u16", "mov.u32 %r8, 7; cvt.u16.u32 %h1, %r8; st.shared.u16");
    assert_eq!(run(&body).words()[0], 28);
    let (kind, text) = run(&body.replace("add.u32 %r5, %r5, %r3; st", "add.u32 %r5, %r5, %r2; st")).fault();
    assert_eq!(kind, FaultKind::Uninitialised, "{text}");
    // A column of B that is uninitialised spoils that column of D only.
    let mma = "mov.u32 %r1, 0; setp.lt.u32 %p1, %r0, 28; .shared .align 4 .b8 s[4]; ld.shared.u32 %r5, [s];\n\
               selp.b32 %r5, %r1, %r5, %p1;\n\
               mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r20, %r21, %r22, %r23}, {%r1, %r1, %r1, %r1},\n\
               {%r5, %r1}, {%r1, %r1, %r1, %r1};\n\
               mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r20;";
    assert_eq!(run(mma).words(), [0; 32]);
    let (kind, text) = run(&mma.replace("[%rd2], %r20", "[%rd2], %r21")).fault();
    assert_eq!(kind, FaultKind::Uninitialised, "{text}");
    assert!(text.contains("thread (3, 0, 0)"), "{text}");
}

#[test]
fn chosen_values_carry_their_own_taint() {
    let body = ".shared .align 4 .b8 s[4]; ld.shared.u32 %r1, [s]; setp.lt.u32 %p1, %r0, 99;\n\
                selp.b32 %r2, 5, %r1, %p1; st.global.u32 [%rd0], %r2;";
    fails(FaultKind::Uninitialised, run(&body.replace("5, %r1", "%r1, 5")), "%r1, 5", "5, %r1");
    // A false operand decides an and, whatever the other is.
    let and = ".shared .align 4 .b8 s[4]; ld.shared.u32 %r1, [s]; setp.gt.u32 %p1, %r0, 99; setp.eq.u32 %p2, %r1, 0;\n\
               and.pred %p3, %p1, %p2; @%p3 st.global.u32 [%rd0], 1;";
    fails(FaultKind::Uninitialised, run(&and.replace("gt", "le")), "le", "gt");
}

#[test]
fn divergent_collectives() {
    let barrier = "setp.lt.u32 %p1, %r0, 7; @%p1 bra L; bar.sync 0; L:";
    let text = fails(FaultKind::Divergent, run(barrier), "bar.sync 0; L:", "L: bar.sync 0;");
    assert!(text.contains("0x0000007f"), "{text}");
    let shuffle = "setp.lt.u32 %p1, %r0, 16; @!%p1 bra L; shfl.sync.bfly.b32 %r1, %r0, 1, 31, -1; L:";
    fails(FaultKind::Divergent, run(shuffle), "31, -1", "31, 0xffff");
    let vote = "setp.lt.u32 %p1, %r0, 16; vote.sync.any.pred %p2, %p1, 0xffff;";
    fails(FaultKind::Divergent, run(vote), "0xffff", "-1");
    let exited = "setp.eq.u32 %p1, %r0, 5; @%p1 exit; vote.sync.ballot.b32 %r1, %p1, -1;";
    let text = fails(FaultKind::Divergent, run(exited), ", -1", ", 0xffffffdf");
    assert!(text.contains("exited"), "{text}");
    let mma = "mov.u32 %r1, 0; setp.eq.u32 %p1, %r0, 5; @%p1 bra L;\n\
               mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r1},\n\
               {%r1, %r1, %r1, %r1}; L:";
    fails(FaultKind::Divergent, run(mma), "%r0, 5", "%r0, 50");
    let matrix = ".shared .align 16 .b8 s[128]; mov.u32 %r9, s; setp.eq.u32 %p1, %r0, 9; @%p1 bra L;\n\
                  ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r9]; L:";
    fails(FaultKind::Divergent, run(matrix), "%r0, 9", "%r0, 90");
}

#[test]
fn deadlock() {
    let exited = "setp.lt.u32 %p1, %r0, 32; @%p1 bra L; bar.sync 0; L:";
    let text = fails(FaultKind::Deadlock, threads(exited, 64), "bar.sync 0; L:", "L: bar.sync 0;");
    assert!(text.contains("warps 1 wait at barrier 0") && text.contains("warps 0 have exited"), "{text}");
    let apart = "setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 1; bra B; A: bar.sync 2; B:";
    fails(FaultKind::Deadlock, threads(apart, 64), "bar.sync 1", "bar.sync 2");
}

/// Returns a kernel that stores a word to shared memory and, after `between`, loads it in another warp.
fn exchange(between: &str) -> TestKernel {
    threads(
        &format!(
            ".shared .align 4 .b8 s[256]; mov.u32 %r9, s; mad.lo.u32 %r8, %r0, 4, %r9; st.shared.u32 [%r8], %r0;\n\
             {between} xor.b32 %r7, %r0, 32; mad.lo.u32 %r8, %r7, 4, %r9; ld.shared.u32 %r1, [%r8];"
        ),
        64,
    )
}

#[test]
fn races_in_shared_memory() {
    let text =
        fails(FaultKind::SharedRace, exchange("bar.warp.sync -1;"), "bar.warp.sync -1;", "bar.sync 0;");
    assert!(text.contains("PTX line"), "{text}");
    // A write after another warp's read.
    let mut after = exchange("bar.sync 0;");
    after.body += " bar.warp.sync -1; mad.lo.u32 %r8, %r0, 4, %r9; st.shared.u32 [%r8], 0;";
    fails(FaultKind::SharedRace, after, "bar.warp.sync -1", "bar.sync 0");
    // Two warps write one word, even the same value.
    fails(
        FaultKind::SharedRace,
        threads(".shared .align 4 .b8 s[4]; st.shared.u32 [s], 0;", 64),
        "st.shared",
        "st.volatile.shared",
    );
    // Neighbouring bytes do not conflict.
    threads(".shared .align 4 .b8 s[64]; mov.u32 %r9, s; add.u32 %r9, %r9, %r0; st.shared.u8 [%r9], %r0; ld.shared.u8 %r1, [%r9];", 64).words();
    // Lanes of one store.
    let lanes = ".shared .align 4 .b8 s[4]; and.b32 %r1, %r0, 0; st.shared.u32 [s], %r0;";
    fails(FaultKind::SharedRace, run(lanes), "[s], %r0", "[s], %r1");
    // Lanes of one warp, which are free to diverge: a read after another's store, and a store after its read.
    let swap = ".shared .align 4 .b8 s[128]; mov.u32 %r9, s; mad.lo.u32 %r8, %r0, 4, %r9; st.shared.u32 [%r8], %r0;\n\
                xor.b32 %r7, %r0, 1; mad.lo.u32 %r6, %r7, 4, %r9; mov.u32 %r3, 0; ld.shared.u32 %r1, [%r6];";
    let text = fails(FaultKind::SharedRace, run(swap), "mov.u32 %r3, 0;", "bar.warp.sync -1;");
    assert!(text.contains("another lane wrote"), "{text}");
    let again = swap.replace("mov.u32 %r3, 0;", "bar.warp.sync -1;")
        + " mov.u32 %r3, 1; st.shared.u32 [%r8], %r1; ld.shared.u32 %r1, [%r8];";
    let text = fails(FaultKind::SharedRace, run(&again), "mov.u32 %r3, 1;", "bar.warp.sync -1;");
    assert!(text.contains("another lane may still read"), "{text}");
}

#[test]
fn races_with_named_barriers() {
    // Three warps; 0 and 1 meet at barrier 1, and warp 2 does not.
    let body = ".shared .align 4 .b8 s[4]; setp.ge.u32 %p1, %r0, 64; @%p1 bra C; setp.ge.u32 %p2, %r0, 32; @%p2 bra B;\n\
                st.shared.u32 [s], 1; bar.sync 1, 64; bra E; B: bar.sync 1, 64; ld.shared.u32 %r1, [s]; bra E;\n\
                C: ld.shared.u32 %r1, [s]; E:";
    fails(FaultKind::SharedRace, threads(body, 96), "C: ld.shared.u32 %r1, [s];", "C:");
}

#[test]
fn races_between_blocks() {
    let blocks = |body: &str| TestKernel { blocks: 3, ..run(body) };
    let own = "mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r2, 8, 0; setp.ge.u32 %p1, %r0, 8; @%p1 bra E; add.u32 %r1, %r1, %r0;\n\
               mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], 7; E:";
    let text = fails(FaultKind::GlobalRace, blocks(&own.replace("%r2, 8", "%r2, 7")), "%r2, 7", "%r2, 8");
    assert!(text.contains("block (0, 0, 0)") && text.contains("PTX line"), "{text}");
    let read = own.replace(" E:", " ld.global.u32 %r3, [%rd2+4]; E:");
    fails(FaultKind::GlobalRace, blocks(&read), "[%rd2+4]; E:", "[%rd2]; E:");
    let atomic = "st.global.u32 [%rd0], 1;";
    fails(
        FaultKind::GlobalRace,
        blocks(atomic),
        "st.global.u32 [%rd0], 1",
        "atom.global.or.b32 %r1, [%rd0], -1",
    );
    let lanes = "st.global.u32 [%rd0], %r0;";
    fails(FaultKind::GlobalRace, run(lanes), "%r0;", "1;");
}

#[test]
fn races_within_a_block_in_global_memory() {
    // Each thread stores a word and reads its neighbour's: the next lane's, and the other warp's.
    for (n, distance, barrier) in [(32, 1, "bar.warp.sync -1;"), (64, 32, "bar.sync 0;")] {
        let body = format!(
            "mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r0; mov.u32 %r3, 0;\n\
             xor.b32 %r7, %r0, {distance}; mul.wide.u32 %rd3, %r7, 4; add.s64 %rd3, %rd0, %rd3; ld.global.u32 %r1, [%rd3];"
        );
        let over = |body: &str| TestKernel { output: n as usize, ..threads(body, n) };
        let text = fails(FaultKind::GlobalRace, over(&body), "mov.u32 %r3, 0;", barrier);
        assert!(text.contains("reads") && text.contains("another thread of the block wrote"), "{text}");
        let replaced = body.replace("ld.global.u32 %r1, [%rd3]", "st.global.u32 [%rd3], 5");
        let text = fails(FaultKind::GlobalRace, over(&replaced), "mov.u32 %r3, 0;", barrier);
        assert!(text.contains("writes"), "{text}");
    }
}

/// Returns a kernel with an asynchronous copy of 16 bytes per lane, then `rest`.
fn copy(rest: &str, n: u32) -> TestKernel {
    let mut test = threads(
        &format!(
            ".shared .align 16 .b8 s[1024]; mov.u32 %r9, s; mad.lo.u32 %r8, %r0, 16, %r9;\n\
             mul.wide.u32 %rd10, %r0, 16; add.s64 %rd11, %rd1, %rd10;\n\
             cp.async.cg.shared.global [%r8], [%rd11], 16; cp.async.commit_group;\n{rest}"
        ),
        n,
    );
    test.input = vec![1; 256];
    test
}

#[test]
fn asynchronous_copies() {
    let read = "cp.async.wait_group 1; ld.shared.u32 %r1, [%r8]; cp.async.wait_all;";
    let text = fails(FaultKind::AsyncCopy, copy(read, 32), "wait_group 1", "wait_group 0");
    assert!(text.contains("under way"), "{text}");
    // Another lane's copy needs a barrier too, of the warp at least.
    let other =
        "cp.async.wait_all; xor.b32 %r7, %r0, 1; mad.lo.u32 %r7, %r7, 16, %r9; ld.shared.u32 %r1, [%r7];";
    fails(FaultKind::AsyncCopy, copy(other, 32), "wait_all;", "wait_all; bar.warp.sync -1;");
    // Another warp's needs one of the block, after the wait.
    let far = "bar.sync 0; cp.async.wait_all; xor.b32 %r7, %r0, 32; mad.lo.u32 %r7, %r7, 16, %r9; ld.shared.u32 %r1, [%r7];";
    fails(
        FaultKind::AsyncCopy,
        copy(far, 64),
        "bar.sync 0; cp.async.wait_all;",
        "cp.async.wait_all; bar.sync 0;",
    );
    let text = fails(FaultKind::AsyncCopy, copy("bar.sync 0;", 32), "bar.sync 0;", "cp.async.wait_group 0;");
    assert!(text.contains("exits"), "{text}");
    let overwritten = "st.shared.u32 [%r8], 0; cp.async.wait_all;";
    fails(
        FaultKind::AsyncCopy,
        copy(overwritten, 32),
        "st.shared.u32 [%r8], 0; cp.async.wait_all;",
        "cp.async.wait_all; st.shared.u32 [%r8], 0;",
    );
}

#[test]
fn a_copy_must_not_overwrite_what_another_warp_still_reads() {
    // Warp 1 reads what warp 0 fills again. Which of the two comes first depends on the schedule.
    let body = "cp.async.wait_all; bar.sync 0; setp.lt.u32 %p1, %r0, 32; @%p1 bra A;\n\
                ld.shared.u32 %r1, [%r8-512]; bar.sync 0; bra B;\n\
                A: cp.async.cg.shared.global [%r8], [%rd11], 16; cp.async.wait_all; bar.sync 0; B:";
    let mut bad = copy(body, 64);
    let kinds = [Schedule::Early, Schedule::Late].map(|schedule| {
        bad.schedule = schedule;
        bad.launch().unwrap_err().fault().unwrap().kind
    });
    assert_eq!(kinds, [FaultKind::AsyncCopy, FaultKind::SharedRace]);
    copy(
        &body
            .replace("A: cp", "A: bar.sync 1; cp")
            .replace("bar.sync 0; bra B", "bar.sync 1; bar.sync 0; bra B"),
        64,
    )
    .words();
}

/// The schedules differ in everything that the program leaves open: here the order of atomics changes the result.
#[test]
fn schedules_differ_where_the_program_leaves_it_open() {
    let body = "add.s64 %rd12, %rd0, %rd10; red.global.add.u32 [%rd1], 1; atom.global.exch.b32 %r5, [%rd1+1020], %r0;\n\
                st.global.u32 [%rd12], %r5;";
    let mut test = copy(&format!("cp.async.wait_all; {body}"), 32);
    test.output = 128;
    let early = test.launch().unwrap().1;
    test.schedule = Schedule::Late;
    let late = test.launch().unwrap().1;
    // Atomics run from lane 0 up, or from lane 31 down.
    assert_eq!((early[0], early[4], late[0], late[4]), (1, 0, 1, 2));
}

#[test]
fn traps_and_impossible_operands() {
    let text = fails(FaultKind::Trap, run("setp.eq.u32 %p1, %r0, 3; @%p1 trap;"), "%r0, 3", "%r0, 33");
    assert!(text.contains("thread (3, 0, 0)"), "{text}");
    fails(FaultKind::Invalid, run("mov.u32 %r1, 40; bar.sync 0, %r1;"), "40", "32");
    fails(
        FaultKind::Invalid,
        run("T: .branchtargets A, A; mov.u32 %r1, 2; brx.idx %r1, T; A:"),
        "%r1, 2;",
        "%r1, 1;",
    );
}

#[test]
fn a_fault_names_the_cuda_line() {
    let text = module(
        "",
        ".loc 1 42 3\nst.global.u32 [%rd0+400], 1;\n.loc 1 50 3, function_name I, inlined_at 1 60 2\nmov.u32 %r1, 0;",
    ) + ".file 1 \"kernels/x.cu\"\n";
    let gpu = Gpu::new("sm_80").unwrap();
    let loaded = gpu.load(&text).unwrap();
    let a = gpu.alloc(64).unwrap();
    let args = [a.to_le_bytes(), a.to_le_bytes(), [0; 8]].concat();
    let config = LaunchConfig { grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    let error = gpu.launch(loaded.kernel("k").unwrap(), config, &args[..20]).unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!(fault.cuda, Some(("kernels/x.cu".into(), 42)));
    assert!(error.to_string().ends_with("kernels/x.cu:42"), "{error}");
}
