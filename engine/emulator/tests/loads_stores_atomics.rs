//! Loads, stores, atomics in every space and width.

mod common;
use common::{TestKernel, map_rows, random};

#[test]
fn vectors_and_narrow_elements() {
    let rows = common::random_rows(64, 9);
    let reload = |op: &str, rest: &str| map_rows(&format!("{op} {rest}"), &rows);
    let got = reload("ld.global.v2.u64 {%rd2, %rd3}, [%rd10];", "cvt.u32.u64 %r10, %rd3;");
    assert_eq!(got, rows.iter().map(|r| r[2]).collect::<Vec<_>>());
    let got = reload("ld.global.nc.v4.u16 {%h1, %h2, %h3, %h4}, [%rd10];", "mov.b32 %r10, {%h2, %h3};");
    assert_eq!(got, rows.iter().map(|r| r[0] >> 16 | r[1] << 16).collect::<Vec<_>>());
    assert_eq!(
        reload("ld.global.u8 %r10, [%rd10+2];", ""),
        rows.iter().map(|r| r[0] >> 16 & 255).collect::<Vec<_>>()
    );
    let got = reload("ld.global.s8 %r10, [%rd10+3];", "");
    assert_eq!(got, rows.iter().map(|r| (r[0] >> 24) as i8 as u32).collect::<Vec<_>>());
    let got = reload("ld.global.s16 %rd3, [%rd10+6];", "shr.u64 %rd3, %rd3, 8; cvt.u32.u64 %r10, %rd3;");
    assert_eq!(got, rows.iter().map(|r| ((r[1] >> 16) as i16 as i64 >> 8) as u32).collect::<Vec<_>>());
    let got = reload("ld.global.s8 %h1, [%rd10];", "mov.b32 %r10, {%h1, %h1};");
    let sign = |r: &[u32; 4]| (r[0] as i8 as i16 as u16) as u32 * 0x10001;
    assert_eq!(got, rows.iter().map(sign).collect::<Vec<_>>());
}

#[test]
fn narrow_stores_of_neighbours_do_not_disturb_each_other() {
    let mut test = TestKernel::new(
        "cvt.u64.u32 %rd2, %r0; add.s64 %rd2, %rd0, %rd2; st.global.u8 [%rd2], %r0;\n\
         mul.wide.u32 %rd3, %r0, 2; add.s64 %rd3, %rd0, %rd3; cvt.u16.u32 %h1, %r0; st.global.u16 [%rd3+32], %h1;",
    );
    test.output = 8 + 16;
    let bytes: Vec<u8> = (0..32).collect();
    let halves: Vec<u8> = (0..32u16).flat_map(|h| h.to_le_bytes()).collect();
    let want = [bytes, halves].concat();
    assert_eq!(
        test.words(),
        want.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect::<Vec<_>>()
    );
}

#[test]
fn one_generic_instruction_reaches_every_space() {
    let mut test = TestKernel::new(
        ".shared .align 4 .b8 s[128]; .local .align 4 .b8 l[8]; mov.u64 %rd2, s; cvta.shared.u64 %rd2, %rd2;\n\
         mul.wide.u32 %rd5, %r0, 4; add.s64 %rd2, %rd2, %rd5;\n\
         mov.u64 %rd3, l; cvta.local.u64 %rd3, %rd3; add.s64 %rd4, %rd0, %rd5;\n\
         and.b32 %r1, %r0, 3; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1;\n\
         selp.b64 %rd6, %rd2, %rd4, %p1; selp.b64 %rd6, %rd3, %rd6, %p2;\n\
         add.u32 %r2, %r0, 100; st.u32 [%rd6], %r2; ld.u32 %r3, [%rd6];\n\
         isspacep.shared %p3, %rd6; selp.u32 %r4, 1000, 0, %p3; isspacep.local %p4, %rd6; selp.u32 %r5, 2000, 0, %p4;\n\
         add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5; st.global.u32 [%rd4], %r3;",
    );
    test.shared = 64;
    let want = (0..32).map(|t| t + 100 + [1000, 2000, 0, 0][t as usize % 4]).collect::<Vec<_>>();
    assert_eq!(test.words(), want);
}

#[test]
fn local_arrays_belong_to_their_thread() {
    let body = ".local .align 16 .b8 l[64]; mov.u64 %rd2, l; mov.u32 %r1, 0;\n\
                L: mad.lo.u32 %r2, %r1, 10, %r0; mul.wide.u32 %rd3, %r1, 4; add.s64 %rd3, %rd2, %rd3;\n\
                st.local.u32 [%rd3], %r2; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 16; @%p1 bra L;\n\
                and.b32 %r3, %r0, 15; mul.wide.u32 %rd3, %r3, 4; add.s64 %rd3, %rd2, %rd3; ld.local.u32 %r10, [%rd3];\n\
                mul.wide.u32 %rd4, %r0, 4; add.s64 %rd4, %rd0, %rd4; st.global.u32 [%rd4], %r10;";
    let test = TestKernel::new(body);
    assert_eq!(test.launch().unwrap().0.local_stores.requests, 16);
    assert_eq!(test.words(), (0..32).map(|t| t % 16 * 10 + t).collect::<Vec<_>>());
}

#[test]
fn module_variables_are_initialised() {
    let mut test = TestKernel::new(
        "mul.wide.u32 %rd2, %r0, 4; and.b64 %rd3, %rd2, 15; mov.u64 %rd4, table; add.s64 %rd4, %rd4, %rd3;\n\
         ld.const.f32 %f1, [%rd4]; ld.global.u32 %r1, [count]; ld.global.u64 %rd5, [where]; ld.u32 %r2, [%rd5+4];\n\
         cvt.rzi.u32.f32 %r3, %f1; add.u32 %r3, %r3, %r1; add.u32 %r3, %r3, %r2;\n\
         add.s64 %rd6, %rd0, %rd2; st.global.u32 [%rd6], %r3;",
    );
    test.declarations =
        ".const .align 4 .b8 table[16] = {0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64};\n\
                        .global .align 4 .u32 count = 10; .global .align 4 .u32 pair[2] = {5, 600};\n\
                        .global .align 8 .u64 where = generic(pair);"
            .into();
    assert_eq!(test.words(), (0..32).map(|t| t % 4 + 1 + 610).collect::<Vec<_>>());
}

#[test]
fn structs_among_the_parameters() {
    let mut test = TestKernel::new(
        "mul.wide.u32 %rd10, %r0, 4; add.s64 %rd10, %rd0, %rd10; st.global.u32 [%rd10], %r63;",
    );
    test.n = 17;
    assert_eq!(test.words(), [17; 32]);
    let gpu = codelsi_emulator::Gpu::new("sm_80").unwrap();
    let text = ".version 9.0\n.target sm_80\n.visible .entry k(.param .align 8 .b8 p[40], .param .u64 q, .param .f32 r,\n\
                .param .u8 s, .param .s32 t)\n.maxntid 64, 2, 1\n.minnctapersm 2\n{\n.reg .b64 %rd<9>;\n\
                ld.param.u64 %rd1, [p+32]; ret; }";
    let module = gpu.load(text).unwrap();
    let kernel = module.kernel("k").unwrap();
    let places: Vec<_> = kernel.params().iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!(places, [(0, 40), (40, 8), (48, 4), (52, 1), (56, 4)]);
    assert_eq!((kernel.params_size(), kernel.max_threads(), kernel.min_blocks()), (60, Some(128), Some(2)));
}

#[test]
fn atomics_on_global_and_shared_memory() {
    let mut test = TestKernel::new(
        "atom.global.add.u32 %r1, [%rd0], 3; red.global.max.s32 [%rd0+4], %r0; atom.global.inc.u32 %r2, [%rd0+8], 9;\n\
         mov.f32 %f1, 0f3F000000; atom.global.add.f32 %f2, [%rd0+12], %f1; cvt.u64.u32 %rd2, %r0;\n\
         red.global.add.u64 [%rd0+16], %rd2; atom.global.cas.b32 %r3, [%rd0+24], 7, 8;\n\
         .shared .align 4 .b8 s[4]; setp.eq.u32 %p1, %r0, 0; @!%p1 bra A; st.shared.u32 [s], 0; A: bar.sync 0;\n\
         atom.shared.or.b32 %r4, [s], 1; red.shared.add.u32 [s], 2; bar.sync 0;\n\
         ld.shared.u32 %r5, [s]; @%p1 st.global.u32 [%rd0+28], %r5;",
    );
    (test.threads, test.output) = (64, 8);
    test.body.insert_str(0, &init(&[0, 0, 0, 0, u32::MAX, 0, 7, 0]));
    let words = test.words();
    assert_eq!(words[0], 3 * 64);
    assert_eq!(words[1], 63);
    assert_eq!(words[2], 64 % 10);
    assert_eq!(f32::from_bits(words[3]), 32.0);
    assert_eq!((words[5] as u64) << 32 | words[4] as u64, u32::MAX as u64 + 63 * 32);
    assert_eq!(words[6], 8);
    assert_eq!(words[7], 128 + 1);
}

/// Returns PTX in which thread 0 stores initial values to `out`, followed by a barrier.
fn init(values: &[u32]) -> String {
    let stores = values.iter().enumerate().map(|(i, v)| format!("st.global.u32 [%rd0+{}], {v};", 4 * i));
    let stores = stores.collect::<Vec<_>>().join(" ");
    format!("setp.ne.u32 %p9, %r0, 0; @%p9 bra INIT; {stores} INIT: bar.sync 0;\n")
}

#[test]
fn atomics_count_across_blocks() {
    let mut test = TestKernel::new("atom.global.add.u32 %r1, [%rd0], 1;");
    (test.blocks, test.threads, test.output) = (50, 64, 1);
    assert_eq!(test.words(), [0xdead_beefu32.wrapping_add(50 * 64)]);
}

#[test]
fn packed_atomics() {
    let mut test = TestKernel::new(format!(
        "{} mov.u32 %r1, 0x3F803F80; atom.global.add.noftz.bf16x2 %r2, [%rd0], %r1;\n\
         atom.global.exch.b32 %r2, [%rd0+4], 9; mov.u32 %r3, 1; cvt.u16.u32 %h1, %r3;",
        init(&[0, 0])
    ));
    test.output = 2;
    assert_eq!(test.words(), [0x4200_4200, 9]);
}

#[test]
fn words_survive_any_way_through_shared_memory() {
    let input = random(512, 5);
    let mut test = TestKernel::new(
        "mul.wide.u32 %rd2, %r0, 16; add.s64 %rd3, %rd1, %rd2; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd3];\n\
               mov.u32 %r5, dyn; mad.lo.u32 %r6, %r0, 16, %r5; st.shared.v4.u32 [%r6], {%r1, %r2, %r3, %r4}; bar.sync 0;\n\
               xor.b32 %r7, %r0, 127; mad.lo.u32 %r6, %r7, 16, %r5; ld.shared.v2.u64 {%rd5, %rd6}, [%r6];\n\
               add.s64 %rd4, %rd0, %rd2; st.global.v2.u64 [%rd4], {%rd5, %rd6};",
    );
    test.declarations = ".extern .shared .align 16 .b8 dyn[];".into();
    test.input = input.clone();
    (test.threads, test.output, test.shared) = (128, 512, 2048);
    let want: Vec<u32> = (0..128).flat_map(|t| input[4 * (t ^ 127)..][..4].to_vec()).collect();
    assert_eq!(test.words(), want);
}
