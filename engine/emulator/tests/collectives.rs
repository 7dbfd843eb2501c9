//! Shuffles, votes, matches, reductions, block barriers.

mod common;
use common::{TestKernel, random};

const HEAD: &str = "mul.wide.u32 %rd10, %r0, 4; add.s64 %rd11, %rd1, %rd10; add.s64 %rd10, %rd0, %rd10;\n\
                    ld.global.u32 %r1, [%rd11];";

fn run(input: &[u32], body: &str) -> Vec<u32> {
    let mut test = TestKernel::new(format!("{HEAD}\n{body}\nst.global.u32 [%rd10], %r10;"));
    test.input = input.to_vec();
    (test.output, test.threads) = (input.len(), input.len() as u32);
    test.words()
}

#[test]
fn shuffles_in_every_mode() {
    let input = random(32, 1);
    let check = |op: &str, from: fn(usize) -> Option<usize>| {
        let body = format!("shfl.sync.{op}, -1; selp.u32 %r3, 1, 0, %p1; xor.b32 %r10, %r2, %r3;");
        let want = |k: usize| from(k).map_or(input[k], |j| input[j] ^ 1);
        assert_eq!(run(&input, &body), (0..32).map(want).collect::<Vec<_>>(), "{op}");
    };
    check("bfly.b32 %r2|%p1, %r1, 5, 31", |k| Some(k ^ 5));
    check("down.b32 %r2|%p1, %r1, 3, 31", |k| (k + 3 < 32).then_some(k + 3));
    check("up.b32 %r2|%p1, %r1, 2, 0", |k| k.checked_sub(2));
    check("idx.b32 %r2|%p1, %r1, 9, 31", |_| Some(9));
    // Segments of 8 lanes: the mask 24 in bits 8 to 12.
    check("idx.b32 %r2|%p1, %r1, 3, 6175", |k| Some(k & !7 | 3));
    check("down.b32 %r2|%p1, %r1, 3, 6175", |k| (k % 8 + 3 < 8).then_some(k + 3));
    check("up.b32 %r2|%p1, %r1, 3, 6144", |k| (k % 8 >= 3).then(|| k - 3));
}

#[test]
fn votes_matches_and_reductions() {
    let input: Vec<u32> = (0..32).map(|k| (k * 7 % 5) as u32).collect();
    let ballot = (0..32).filter(|&k| input[k] == 2).fold(0, |m, k| m | 1u32 << k);
    assert_eq!(run(&input, "setp.eq.u32 %p1, %r1, 2; vote.sync.ballot.b32 %r10, %p1, -1;"), [ballot; 32]);
    let truth = |vote: &str| {
        let body =
            format!("setp.lt.u32 %p1, %r1, 5; vote.sync.{vote}.pred %p2, %p1, -1; selp.u32 %r10, 1, 0, %p2;");
        run(&input, &body)[0]
    };
    assert_eq!([truth("all"), truth("any"), truth("uni")], [1, 1, 1]);
    let same = |k: usize| (0..32).filter(|&j| input[j] == input[k]).fold(0, |m, j| m | 1u32 << j);
    let want: Vec<_> = (0..32).map(same).collect();
    assert_eq!(run(&input, "match.any.sync.b32 %r10, %r1, -1;"), want);
    assert_eq!(run(&input, "match.all.sync.b32 %r10|%p1, %r1, -1;"), [0; 32]);
    assert_eq!(run(&input, "redux.sync.add.u32 %r10, %r1, -1;"), [input.iter().sum::<u32>(); 32]);
    assert_eq!(run(&input, "neg.s32 %r2, %r1; redux.sync.min.s32 %r10, %r2, -1;"), [(-4i32) as u32; 32]);
    assert_eq!(run(&input, "redux.sync.or.b32 %r10, %r1, -1;"), [7; 32]);
}

#[test]
fn collectives_of_some_lanes_name_just_those() {
    let input: Vec<u32> = (0..32).collect();
    let body = "mov.u32 %r10, 0; setp.lt.u32 %p1, %r0, 16; @!%p1 bra E;\n\
                shfl.sync.bfly.b32 %r10, %r1, 8, 31, 0xffff; bar.warp.sync 0xffff; E:";
    let want: Vec<u32> = (0..32).map(|k| if k < 16 { k ^ 8 } else { 0 }).collect();
    assert_eq!(run(&input, body), want);
}

#[test]
fn a_block_reduces_through_shared_memory() {
    let input = random(256, 3);
    let mut reduce = TestKernel::new(format!(
        "{HEAD} .shared .align 4 .b8 s[1024];\n\
         mov.u32 %r2, s; mad.lo.u32 %r2, %r0, 4, %r2; st.shared.u32 [%r2], %r1; bar.sync 0;\n\
         mov.u32 %r3, 128;\n\
         L: setp.ge.u32 %p1, %r0, %r3; @%p1 bra S;\n\
         mad.lo.u32 %r4, %r3, 4, %r2; ld.shared.u32 %r5, [%r4]; ld.shared.u32 %r6, [%r2];\n\
         add.u32 %r6, %r6, %r5; st.shared.u32 [%r2], %r6;\n\
         S: bar.sync 0; shr.u32 %r3, %r3, 1; setp.ne.u32 %p2, %r3, 0; @%p2 bra L;\n\
         ld.shared.u32 %r10, [s]; st.global.u32 [%rd10], %r10;"
    ));
    reduce.input = input.clone();
    (reduce.output, reduce.threads) = (256, 256);
    let sum = input.iter().fold(0u32, |s, &x| s.wrapping_add(x));
    assert_eq!(reduce.words(), [sum; 256]);
}

#[test]
fn barriers_reduce_predicates() {
    let input: Vec<u32> = (0..64).collect();
    assert_eq!(run(&input, "setp.gt.u32 %p1, %r1, 40; bar.red.popc.u32 %r10, 0, %p1;"), [23; 64]);
    let some = "setp.gt.u32 %p1, %r1, 40; bar.red.or.pred %p2, 0, %p1; selp.u32 %r10, 1, 0, %p2;";
    assert_eq!(run(&input, some), [1; 64]);
    let all = "setp.gt.u32 %p1, %r1, 40; bar.red.and.pred %p2, 1, %p1; selp.u32 %r10, 1, 0, %p2;";
    assert_eq!(run(&input, all), [0; 64]);
}

#[test]
fn named_barriers_hand_data_from_producers_to_consumers() {
    // Warp 0 fills, warp 1 reads: barrier 1 says full, barrier 2 says empty.
    let body = ".shared .align 4 .b8 s[128]; mov.u32 %r9, s; and.b32 %r8, %r0, 31; mad.lo.u32 %r9, %r8, 4, %r9;\n\
                mov.u32 %r5, 0; mov.u32 %r10, 0; setp.ge.u32 %p1, %r0, 32; @%p1 bra C;\n\
                P: add.u32 %r6, %r1, %r5; st.shared.u32 [%r9], %r6; bar.arrive 1, 64; bar.sync 2, 64;\n\
                add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 3; @%p2 bra P; bra E;\n\
                C: bar.sync 1, 64; ld.shared.u32 %r6, [%r9]; add.u32 %r10, %r10, %r6; bar.arrive 2, 64;\n\
                add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 3; @%p2 bra C; E:";
    let input: Vec<u32> = (0..64).map(|k| k * 100).collect();
    let want: Vec<u32> = (0..64).map(|k| if k < 32 { 0 } else { (k - 32) * 300 + 3 }).collect();
    assert_eq!(run(&input, body), want);
}
