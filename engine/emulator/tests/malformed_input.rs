//! Loading any text returns a module or an error with a line, and never panics.

mod common;
use codelsi_emulator::{Error, Gpu, LaunchConfig};
use common::module;

fn refused(text: &str) -> (u32, String) {
    match Gpu::new("sm_80").unwrap().load(text) {
        Err(Error::Ptx { line, what }) => (line, what),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted: {text}"),
    }
}

#[test]
fn an_unknown_instruction_is_an_error_with_its_line() {
    for unknown in [
        "frobnicate.u32 %r1, %r2;",
        "add.wild.u32 %r1, %r1, %r2;",
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r1}, {%r1}, {%r1}, {%r1};",
        "wgmma.fence.sync.aligned;",
        "cp.async.bulk.commit_group;",
        "mbarrier.init.shared.b64 [%r1], 1;",
        "sin.rn.f32 %f1, %f1;",
        "div.f32 %f1, %f1, %f1;",
        "add.approx.f32 %f1, %f1, %f1;",
        "max.rn.f32 %f1, %f1, %f1;",
        "ld.global.v8.u32 %r1, [%rd1];",
        "shfl.bfly.b32 %r1, %r1, 1, 31;",
        "atom.local.add.u32 %r1, [%rd1], 1;",
    ] {
        let (line, what) = refused(&module("", &format!("mov.u32 %r1, 0;\n{unknown}\nmov.u32 %r2, 0;")));
        assert_eq!(line, 12, "{unknown}: {what}");
    }
}

#[test]
fn names_types_and_operands_are_checked() {
    for bad in [
        "add.u32 %r1, %r2;",
        "add.u32 %r1, %rd1, %r2;",
        "add.u32 %r99, %r1, %r2;",
        "add.u32 %x, %r1, %r2;",
        "bra NOWHERE;",
        "@%r1 bra L; L:",
        "ld.global.u32 %r1, [missing];",
        "st.global.u32 %r1, [%rd1];",
        "mov.u64 %r1, %rd1;",
        "call missing, ();",
        "ld.global.u64 %r1, [%rd1];",
        "setp.lt.u32 %r1, %r2, %r3;",
        "cp.async.cg.shared.global [%r1], [%rd1], 8;",
        "mov.b64 %rd1, {%r1, %r2, %r3};",
        ".reg .b32 %r<9>; .reg .q7 x;",
        ".shared .align 3 .b8 s[4];",
    ] {
        refused(&module("", bad));
    }
    refused("garbage");
    refused(".visible .entry k() {");
    refused(".extern .global .u32 x;");
    refused(&module(".func f()\n{ call.uni f, (); ret; }", "call.uni f, ();"));
}

const GOOD: &str = "mul.wide.u32 %rd2, %r0, 4; add.s64 %rd3, %rd1, %rd2; ld.global.u32 %r1, [%rd3+0];\n\
    setp.lt.and.s32 %p1|%p2, %r1, 0f3F800000, !%p3; @!%p1 bra L; shfl.sync.bfly.b32 %r2|%p4, %r1, 1, 31, -1;\n\
    L: { .reg .b32 t; mov.b64 {t, %r3}, %rd2; cvt.rn.bf16x2.f32 %r4, %f1, %f2; }\n\
    T: .branchtargets A, B; .loc 1 2 3, function_name F, inlined_at 1 2 3\n brx.idx %r1, T; A: B:\n\
    .shared .align 16 .b8 s[64]; ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r5, %r6}, [s+16];\n\
    { .param .b32 p; st.param.b32 [p+0], %r1; .param .b32 q; call.uni (q), f, (p); ld.param.b32 %r7, [q+0]; }\n\
    bar.sync 0; cp.async.ca.shared.global.L2::128B [s], [%rd3], 4, %r1; cp.async.wait_group 0;\n\
    add.s64 %rd4, %rd0, %rd2; st.global.v2.u32 [%rd4], {%r1, %r2}; bfe.u32 %r8, %r1, 3, 70;";

const DECLARATIONS: &str = ".const .align 4 .b8 table[8] = {0, 0, 128, 63, 1};\n.global .u64 g = generic(table);\n\
    .func (.param .b32 r) f(.param .b32 x)\n{ .reg .b32 %r<4>; ld.param.u32 %r1, [x]; st.param.b32 [r+0], %r1; ret; }\n";

/// Loads and launches damaged texts: a token left out, doubled, or replaced by another.
#[test]
fn damaged_modules_never_panic() {
    let text = module(DECLARATIONS, GOOD);
    let gpu = Gpu::new("sm_80").unwrap();
    gpu.load(&text).unwrap();
    gpu.set_instruction_limit(100_000);
    let tokens: Vec<&str> = split(&text);
    let mut loaded = 0;
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let memory = gpu.alloc(4096).unwrap();
    gpu.fill(memory, 0, 4096).unwrap();
    for round in 0..4000 {
        let mut damaged = tokens.clone();
        for _ in 0..1 + round % 3 {
            let (at, other) = (random(damaged.len()), random(tokens.len()));
            match random(4) {
                0 => drop(damaged.remove(at)),
                1 => damaged.insert(at, tokens[other]),
                2 => {
                    damaged[at] =
                        ["-", "9999999999999", "%r5", ".reg", "0x7fffffffffffffff", "{", "}"][random(7)]
                }
                _ => damaged[at] = tokens[other],
            }
        }
        let Ok(module) = gpu.load(&damaged.concat()) else { continue };
        let Some(kernel) = module.kernel("k") else { continue };
        loaded += 1;
        let mut args = vec![0; kernel.params_size()];
        for slot in args.chunks_exact_mut(8).take(2) {
            slot.copy_from_slice(&memory.to_le_bytes());
        }
        // It may run or fault, as long as it does not panic.
        let _ = gpu.launch(kernel, LaunchConfig { grid: [1; 3], block: [64, 1, 1], shared_bytes: 0 }, &args);
    }
    assert!(loaded > 100, "the damage is so great that nothing is tested: {loaded}");
    for end in 0..text.len() {
        let _ = gpu.load(&text[..end]);
    }
}

/// Splits a text into words and single other characters.
fn split(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || "._%$".contains(c);
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { 1 };
        parts.push(&rest[..end]);
        rest = &rest[end..];
    }
    parts
}

#[test]
fn launches_are_checked() {
    let gpu = Gpu::new("sm_80").unwrap();
    let loaded = gpu.load(&module("", "")).unwrap();
    let kernel = loaded.kernel("k").unwrap();
    let launch = |grid: [u32; 3], block: [u32; 3], shared: u32, args: usize| {
        gpu.launch(kernel, LaunchConfig { grid, block, shared_bytes: shared }, &vec![0; args])
    };
    launch([1; 3], [1; 3], 0, 20).unwrap();
    assert!(launch([0, 1, 1], [1; 3], 0, 20).is_err());
    assert!(launch([1; 3], [1025, 1, 1], 0, 20).is_err());
    assert!(launch([1; 3], [1; 3], 1 << 20, 20).is_err());
    assert!(launch([1; 3], [1; 3], 0, 19).unwrap_err().to_string().contains("20 are needed"));
    let other = Gpu::new("sm_90a").unwrap();
    let config = LaunchConfig { grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    assert!(other.launch(kernel, config, &[0; 20]).unwrap_err().to_string().contains("another GPU"));
    assert!(Gpu::new("sm_70").is_err());
}

/// Launches may come from any thread, and modules may be sent between threads.
#[test]
fn the_interface_is_sent_and_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Gpu>();
    shared::<codelsi_emulator::Module>();
    shared::<codelsi_emulator::Kernel>();
    shared::<Error>();
}
