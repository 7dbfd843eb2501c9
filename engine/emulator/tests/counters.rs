//! Performance counters of launches.

mod common;
use common::TestKernel;

#[test]
fn instructions_by_kind() {
    let body = "setp.lt.u32 %p1, %r0, 8; @%p1 bra A; add.u32 %r1, %r0, 1;\n\
                A: mov.f32 %f1, 0f3F800000; add.f32 %f1, %f1, %f1; rcp.rn.f32 %f1, %f1; bar.sync 0;";
    let counters = TestKernel::new(body).launch().unwrap().0;
    // Two adds and a comparison; eight lanes skip one add.
    assert_eq!((counters.integer.warps, counters.integer.threads), (2, 56));
    assert_eq!((counters.float.threads, counters.special.threads, counters.barrier.threads), (32, 32, 32));
    // The branch, by lanes that take it and lanes that do not, and the exit.
    assert_eq!((counters.branch.warps, counters.branch.threads), (2, 32 + 32));
    // Three parameters.
    assert_eq!((counters.memory.warps, counters.constant_loads.requests), (3, 3));
    let kinds = [
        counters.integer,
        counters.float,
        counters.special,
        counters.mma,
        counters.memory,
        counters.barrier,
        counters.branch,
        counters.other,
    ];
    assert_eq!(counters.warp_instructions, kinds.iter().map(|k| k.warps).sum::<u64>());
    assert_eq!(counters.thread_instructions, kinds.iter().map(|k| k.threads).sum::<u64>());
}

#[test]
fn sectors_of_global_requests() {
    let load = |stride: u32| {
        let mut test = TestKernel::new(format!(
            "mul.wide.u32 %rd2, %r0, {stride}; add.s64 %rd2, %rd1, %rd2; ld.global.u32 %r1, [%rd2];"
        ));
        test.input = vec![0; 32 * 32];
        test.blocks = 2;
        test.launch().unwrap().0
    };
    let contiguous = load(4);
    assert_eq!((contiguous.global_loads.transactions, contiguous.global_loads.ideal), (2 * 4, 2 * 4));
    assert_eq!(contiguous.global_loads.bytes, 2 * 128);
    assert_eq!(contiguous.sector_efficiency(), 1.0);
    let strided = load(64);
    assert_eq!((strided.global_loads.transactions, strided.global_loads.ideal), (2 * 32, 2 * 4));
    assert_eq!(strided.sector_efficiency(), 0.125);
}

#[test]
fn a_sample_of_blocks_is_scaled_to_the_grid() {
    // Each block writes its number; a block adds as often as its number's last three bits say, as if rows of the grid had
    // eight blocks.
    let body = "mov.u32 %r1, %ctaid.x; and.b32 %r3, %r1, 7; mov.u32 %r2, 0; A: setp.ge.u32 %p1, %r2, %r3;\n\
                @%p1 bra B; add.u32 %r2, %r2, 1; bra A; B: mul.wide.u32 %rd2, %r1, 4;\n\
                add.s64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r1;";
    let run = |sampled| {
        let mut test = TestKernel::new(body);
        (test.output, test.threads, test.blocks, test.sampled) = (64, 1, 64, sampled);
        test.launch().unwrap()
    };
    let (all, (eight, words)) = (run(None).0, run(Some(8)));
    // One block of each row, at places that differ from row to row.
    let written: Vec<u32> = words.into_iter().filter(|&word| word != 0xdead_beef).collect();
    assert_eq!(written, [4, 8, 21, 26, 39, 44, 49, 62]);
    assert_eq!(eight.global_stores.requests, 64);
    let ratio = eight.warp_instructions as f64 / all.warp_instructions as f64;
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    assert_eq!(run(Some(100)).0, all);
}

#[test]
fn bank_conflicts_of_shared_requests() {
    let conflicts = |body: &str| {
        let mut test = TestKernel::new(format!(".shared .align 16 .b8 s[4096]; mov.u32 %r9, s; {body}"));
        test.input = vec![0; 1024];
        test.launch().unwrap().0.bank_conflicts()
    };
    assert_eq!(conflicts("mad.lo.u32 %r8, %r0, 4, %r9; st.shared.u32 [%r8], 0;"), 0);
    assert_eq!(conflicts("mad.lo.u32 %r8, %r0, 128, %r9; st.shared.u32 [%r8], 0;"), 31);
    assert_eq!(conflicts("mad.lo.u32 %r8, %r0, 16, %r9; st.shared.v4.u32 [%r8], {%r0, %r0, %r0, %r0};"), 0);
    assert_eq!(conflicts("mad.lo.u32 %r8, %r0, 64, %r9; st.shared.v4.u32 [%r8], {%r0, %r0, %r0, %r0};"), 12);
    let copy =
        "mad.lo.u32 %r8, %r0, 128, %r9; cp.async.cg.shared.global [%r8], [%rd1], 16; cp.async.wait_all;";
    assert_eq!(conflicts(copy), 28);
    // Rows of a matrix 128 bytes apart meet in the same banks.
    let matrix = |row: u32| {
        format!(
            "mad.lo.u32 %r8, %r0, 128, %r9; st.shared.v4.u32 [%r8], {{%r0, %r0, %r0, %r0}}; bar.warp.sync -1;\n\
             and.b32 %r7, %r0, 7; mad.lo.u32 %r7, %r7, {row}, %r9; setp.lt.u32 %p1, %r0, 0;\n\
             ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r1}}, [%r7];"
        )
    };
    assert_eq!(conflicts(&matrix(128)) - conflicts(&matrix(16)), 7);
}
