//! Branches, divergence, loops, calls.

mod common;
use common::{TestKernel, map_rows};

/// Stores `%r10` to `out[tid]`.
const STORE: &str = "mul.wide.u32 %rd10, %r0, 4; add.s64 %rd10, %rd0, %rd10; st.global.u32 [%rd10], %r10;";

fn run(body: &str) -> Vec<u32> {
    TestKernel::new(format!("{body}\n{STORE}")).words()
}

#[test]
fn both_sides_of_a_branch_run_and_meet_again() {
    let body = "mov.u32 %r10, 0; setp.lt.u32 %p1, %r0, 10; @%p1 bra A;\n\
                add.u32 %r10, %r10, 100; bra.uni B;\n\
                A: add.u32 %r10, %r10, 7;\n\
                B: activemask.b32 %r11; popc.b32 %r11, %r11; mad.lo.u32 %r10, %r11, 1000, %r10;";
    assert_eq!(run(body), (0..32).map(|t| 32000 + if t < 10 { 7 } else { 100 }).collect::<Vec<_>>());
}

#[test]
fn a_trap_that_nobody_meets_keeps_no_lane_away() {
    let body = "mov.u32 %r10, 0; setp.lt.u32 %p1, %r0, 10; @!%p1 bra B;\n\
                setp.gt.u32 %p2, %r0, 20; @!%p2 bra A;\n\
                trap;\n\
                A: add.u32 %r10, %r10, 7;\n\
                B: activemask.b32 %r11; popc.b32 %r11, %r11; mad.lo.u32 %r10, %r11, 1000, %r10;";
    assert_eq!(run(body), (0..32).map(|t| 32000 + if t < 10 { 7 } else { 0 }).collect::<Vec<_>>());
}

#[test]
fn lanes_leave_a_loop_one_by_one() {
    let body = "mov.u32 %r10, 0; mov.u32 %r11, 0;\n\
                L: add.u32 %r10, %r10, %r11; add.u32 %r11, %r11, 1; setp.le.u32 %p1, %r11, %r0; @%p1 bra L;\n\
                activemask.b32 %r12; setp.ne.u32 %p2, %r12, -1; @%p2 trap;";
    assert_eq!(run(body), (0..32).map(|t| t * (t + 1) / 2).collect::<Vec<_>>());
}

#[test]
fn loops_nest_and_break() {
    let body = "mov.u32 %r10, 0; mov.u32 %r1, 0;\n\
                O: mov.u32 %r2, 0;\n\
                I: add.u32 %r10, %r10, 1; add.u32 %r2, %r2, 1;\n\
                add.u32 %r3, %r1, %r2; setp.gt.u32 %p1, %r3, %r0; @%p1 bra E;\n\
                setp.lt.u32 %p2, %r2, 5; @%p2 bra I;\n\
                E: add.u32 %r1, %r1, 1; setp.lt.u32 %p3, %r1, 4; @%p3 bra O;\n\
                activemask.b32 %r12; setp.ne.u32 %p2, %r12, -1; @%p2 trap;";
    let want = |t: u32| {
        let mut n = 0;
        for i in 0..4 {
            for j in 1..=5 {
                n += 1;
                if i + j > t {
                    break;
                }
            }
        }
        n
    };
    assert_eq!(run(body), (0..32).map(want).collect::<Vec<_>>());
}

#[test]
fn exited_lanes_take_no_further_part() {
    let body =
        format!("mov.u32 %r10, 5; setp.gt.u32 %p1, %r0, 20; @%p1 exit;\n{STORE}\nactivemask.b32 %r10;");
    let want = (0..32).map(|t| if t > 20 { 0xdead_beef } else { 0x1f_ffff }).collect::<Vec<u32>>();
    assert_eq!(run(&body), want);
}

#[test]
fn predicated_instructions_leave_the_other_lanes_alone() {
    let body = "mov.u32 %r10, 1; and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 0;\n\
                @%p1 add.u32 %r10, %r10, 10; @!%p1 shl.b32 %r10, %r10, 4;";
    assert_eq!(run(body), (0..32).map(|t| if t % 2 == 0 { 11 } else { 16 }).collect::<Vec<_>>());
}

#[test]
fn indexed_branches() {
    let body = "and.b32 %r1, %r0, 3; T: .branchtargets A, B, C, B;\n\
                brx.idx %r1, T;\n\
                A: mov.u32 %r10, 1; bra D; B: mov.u32 %r10, 2; bra D; C: mov.u32 %r10, 3;\n\
                D: activemask.b32 %r2; popc.b32 %r2, %r2; mad.lo.u32 %r10, %r2, 10, %r10;";
    assert_eq!(run(body), (0..32).map(|t| 320 + [1, 2, 3, 2][t % 4]).collect::<Vec<_>>());
}

#[test]
fn functions_are_called_with_scalars_and_arrays() {
    let mut test = TestKernel::new(format!(
        "{{ .param .b32 p0; st.param.b32 [p0+0], %r0; .param .align 4 .b8 p1[8]; st.param.b32 [p1+0], 3;\n\
         st.param.b32 [p1+4], %r0; .param .b32 r0; call.uni (r0), f, (p0, p1); ld.param.b32 %r10, [r0+0]; }}\n\
         {{ .param .b32 p0; st.param.b32 [p0+0], %r10; .param .align 4 .b8 p1[8]; st.param.b32 [p1+0], 2;\n\
         st.param.b32 [p1+4], 1; .param .b32 r0; call.uni (r0), f, (p0, p1); ld.param.b32 %r10, [r0+0]; }}\n{STORE}"
    ));
    // x < 8 ? x * a : x + b, with an early return.
    test.declarations = ".func (.param .b32 r) f(.param .b32 x, .param .align 4 .b8 s[8])\n{\n\
         .reg .pred %p<4>; .reg .b32 %r<8>;\n\
         ld.param.u32 %r1, [x]; ld.param.u32 %r2, [s]; ld.param.u32 %r3, [s+4];\n\
         setp.ge.u32 %p1, %r1, 8; @%p1 bra L;\n\
         mul.lo.u32 %r4, %r1, %r2; st.param.b32 [r+0], %r4; ret;\n\
         L: add.u32 %r4, %r1, %r3; st.param.b32 [r+0], %r4; ret; }"
        .into();
    let f = |x: u32, a: u32, b: u32| if x < 8 { x * a } else { x + b };
    assert_eq!(test.words(), (0..32).map(|t| f(f(t, 3, t), 2, 1)).collect::<Vec<_>>());
}

#[test]
fn registers_of_an_inner_scope_hide_outer_ones() {
    let body = "mov.u32 %r10, %r1; { .reg .b32 %r<20>; .reg .pred p; mov.u32 %r10, 77; setp.eq.u32 p, %r10, 77;\n\
                @!p trap; } { .reg .pred p; setp.eq.u32 p, %r2, 0; @p add.u32 %r10, %r10, 1; }";
    assert_eq!(map_rows(body, &[[3, 0, 0, 0], [3, 1, 0, 0]]), [4, 3]);
}
