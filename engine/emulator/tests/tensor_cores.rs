//! `mma`, `ldmatrix`, `stmatrix` and `cp.async`, compared with plain loops.

mod common;
use approx::abs_diff_eq;
use common::{TestKernel, random};
use half::{bf16, f16};

/// Loads words 0 to n-1 of each lane's row of 16 input words into `%r1` on.
fn load_fragments(n: usize) -> String {
    let loads = (0..n).map(|k| format!("ld.global.u32 %r{}, [%rd10+{}];", k + 1, 4 * k)).collect::<Vec<_>>();
    format!("mul.wide.u32 %rd10, %r0, 64; add.s64 %rd10, %rd1, %rd10; {}", loads.join(" "))
}

const STORE_FOUR: &str = "mul.wide.u32 %rd11, %r0, 16; add.s64 %rd11, %rd0, %rd11;\n\
                          st.global.v4.u32 [%rd11], {%r20, %r21, %r22, %r23};";

/// Runs one `mma`: `fill(lane, register)` gives the words of A (0 to 3), B (4, 5) and C (6 to 9).
fn mma(shape: &str, a: usize, b: usize, fill: impl Fn(usize, usize) -> u32) -> Vec<[f32; 4]> {
    let list =
        |from: usize, n: usize| (from..from + n).map(|r| format!("%r{r}")).collect::<Vec<_>>().join(", ");
    let mut test = TestKernel::new(format!(
        "{} mma.sync.aligned.{shape} {{%r20, %r21, %r22, %r23}}, {{{}}}, {{{}}}, {{{}}};\n{STORE_FOUR}",
        load_fragments(10),
        list(1, a),
        list(5, b),
        list(7, 4),
    ));
    test.input = (0..32).flat_map(|lane| (0..16).map(move |r| (lane, r))).map(|(l, r)| fill(l, r)).collect();
    test.output = 128;
    test.words().chunks_exact(4).map(|c| std::array::from_fn(|i| f32::from_bits(c[i]))).collect()
}

/// Checks a shape with 16-bit inputs. The layout is written down again here, element by element: lane
/// 4g + t holds of A rows g and g+8, of B column g, of C and D rows g, g+8 and columns 2t, 2t+1.
fn check_half(shape: &str, depth: usize, narrow: fn(f32) -> u16, widen: fn(u16) -> f64) {
    let small = |k: usize| (k as f32 * 0.37).sin();
    let a = |m: usize, k: usize| narrow(small(m * 16 + k));
    let b = |k: usize, n: usize| narrow(small(1000 + k * 8 + n));
    let c = |m: usize, n: usize| small(5000 + m * 8 + n);
    let pair = |low: u16, high: u16| low as u32 | (high as u32) << 16;
    let fill = |lane: usize, r: usize| {
        let (g, t) = (lane / 4, lane % 4);
        match r {
            0..4 if 2 * t + 8 * (r / 2) < depth => {
                let (m, k) = (g + 8 * (r % 2), 2 * t + 8 * (r / 2));
                pair(a(m, k), a(m, k + 1))
            }
            4..6 if 2 * t + 8 * (r - 4) < depth => {
                pair(b(2 * t + 8 * (r - 4), g), b(2 * t + 8 * (r - 4) + 1, g))
            }
            6..10 => c(g + 8 * ((r - 6) / 2), 2 * t + (r - 6) % 2).to_bits(),
            _ => 0,
        }
    };
    let d = mma(shape, depth / 4, depth / 8, fill);
    for m in 0..16 {
        for n in 0..8 {
            let exact: f64 =
                (0..depth).map(|k| widen(a(m, k)) * widen(b(k, n))).sum::<f64>() + c(m, n) as f64;
            let got = d[(m % 8) * 4 + n / 2][2 * (m / 8) + n % 2] as f64;
            assert!(abs_diff_eq!(got, exact, epsilon = 2e-6), "{shape} ({m}, {n}): {got}, not {exact}");
        }
    }
}

#[test]
fn products_of_16_bit_matrices() {
    let (to_bf, from_bf) = (|x| bf16::from_f32(x).to_bits(), |x| bf16::from_bits(x).to_f64());
    let (to_f, from_f) = (|x| f16::from_f32(x).to_bits(), |x| f16::from_bits(x).to_f64());
    check_half("m16n8k16.row.col.f32.bf16.bf16.f32", 16, to_bf, from_bf);
    check_half("m16n8k8.row.col.f32.bf16.bf16.f32", 8, to_bf, from_bf);
    check_half("m16n8k16.row.col.f32.f16.f16.f32", 16, to_f, from_f);
    check_half("m16n8k8.row.col.f32.f16.f16.f32", 8, to_f, from_f);
}

#[test]
fn products_of_tf32_matrices() {
    let cut = |x: f32| f32::from_bits(x.to_bits() & 0xffff_e000);
    for depth in [8, 4] {
        let a = |m: usize, k: usize| cut((m as f32 * 1.3 + k as f32).cos());
        let b = |k: usize, n: usize| cut((k as f32 * 2.1 - n as f32).sin());
        let fill = |lane: usize, r: usize| {
            let (g, t) = (lane / 4, lane % 4);
            match r {
                0..4 => a(g + 8 * (r % 2), t + 4 * (r / 2)).to_bits() | 0x1fff,
                4..6 => b(t + 4 * (r - 4), g).to_bits(),
                _ => 1f32.to_bits(),
            }
        };
        let d = mma(&format!("m16n8k{depth}.row.col.f32.tf32.tf32.f32"), depth / 2, depth / 4, fill);
        for m in 0..16 {
            for n in 0..8 {
                let exact: f64 = (0..depth).map(|k| a(m, k) as f64 * b(k, n) as f64).sum::<f64>() + 1.0;
                let got = d[(m % 8) * 4 + n / 2][2 * (m / 8) + n % 2] as f64;
                assert!(abs_diff_eq!(got, exact, epsilon = 2e-6), "k {depth} ({m}, {n}): {got}, not {exact}");
            }
        }
    }
}

/// Shared memory holds four 8 x 8 matrices, one after another; element e is the number e.
fn matrices(load: &str, mangle: impl Fn(usize, usize, usize) -> usize) {
    let mut test = TestKernel::new(format!(
        ".shared .align 16 .b8 s[512]; mov.u32 %r9, s; mad.lo.u32 %r8, %r0, 16, %r9;\n\
         {} st.shared.v4.u32 [%r8], {{%r1, %r2, %r3, %r4}}; bar.sync 0;\n\
         mov.u32 %r20, 0; mov.u32 %r21, 0; mov.u32 %r22, 0; mov.u32 %r23, 0;\n\
         {load}\n{STORE_FOUR}",
        load_fragments(4)
    ));
    // Lane l stores 8 elements: row l % 8 of matrix l / 8.
    test.input = (0..32)
        .flat_map(|lane: u32| {
            (0..16).map(move |w| if w < 4 { (8 * lane + 2 * w) | ((8 * lane + 2 * w + 1) << 16) } else { 0 })
        })
        .collect();
    test.output = 128;
    let words = test.words();
    for lane in 0..32 {
        for register in 0..4 {
            for half in 0..2 {
                let got = words[4 * lane + register] >> (16 * half) & 0xffff;
                let want = mangle(register, lane, half);
                assert_eq!(got as usize, want, "{load}: lane {lane}, register {register}, half {half}");
            }
        }
    }
}

#[test]
fn matrices_are_loaded_into_fragments() {
    let plain = |m: usize, lane: usize, half: usize| 64 * m + 8 * (lane / 4) + 2 * (lane % 4) + half;
    let transposed = |m: usize, lane: usize, half: usize| 64 * m + 8 * (2 * (lane % 4) + half) + lane / 4;
    matrices("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r22, %r23}, [%r8];", plain);
    matrices("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r20, %r21, %r22, %r23}, [%r8];", transposed);
    matrices("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r20, %r21}, [%r8];", |m, l, h| {
        if m < 2 { plain(m, l, h) } else { 0 }
    });
    matrices(
        "and.b32 %r7, %r0, 7; mad.lo.u32 %r8, %r7, 16, %r9;\n\
              ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r20}, [%r8];",
        |m, l, h| {
            if m < 1 { transposed(m, l, h) } else { 0 }
        },
    );
}

#[test]
fn fragments_are_stored_as_they_are_loaded() {
    for trans in ["", ".trans"] {
        let there_and_back = format!(
            "ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r1, %r2, %r3, %r4}}, [%r8]; xor.b32 %r5, %r0, 8;\n\
             mad.lo.u32 %r5, %r5, 16, %r9; bar.warp.sync -1;\n\
             stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r5], {{%r1, %r2, %r3, %r4}}; bar.sync 0;\n\
             ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r8];"
        );
        // Storing with swapped addresses swaps matrices 0, 1 and 2, 3.
        matrices(&there_and_back, |m, lane, half| 64 * (m ^ 1) + 8 * (lane / 4) + 2 * (lane % 4) + half);
    }
}

#[test]
fn asynchronous_copies_fill_with_zeros() {
    let input = random(128, 11);
    let mut test = TestKernel::new(
        ".shared .align 16 .b8 s[1024]; mov.u32 %r9, s; mad.lo.u32 %r8, %r0, 16, %r9;\n\
         mul.wide.u32 %rd10, %r0, 16; add.s64 %rd11, %rd1, %rd10; and.b32 %r5, %r0, 7; mul.lo.u32 %r5, %r5, 2;\n\
         cp.async.cg.shared.global [%r8], [%rd11], 16, %r5; cp.async.commit_group;\n\
         cp.async.ca.shared.global.L2::128B [%r8+512], [%rd11+4], 4; cp.async.commit_group;\n\
         cp.async.ca.shared.global [%r8+520], [%rd11+8], 8; cp.async.wait_group 1;\n\
         ld.shared.v4.u32 {%r20, %r21, %r22, %r23}, [%r8]; cp.async.wait_all;\n\
         ld.shared.u32 %r24, [%r8+512]; ld.shared.v2.u32 {%r25, %r26}, [%r8+520]; xor.b32 %r23, %r23, %r24;\n\
         xor.b32 %r23, %r23, %r25; xor.b32 %r23, %r23, %r26;\n"
            .to_string()
            + STORE_FOUR,
    );
    (test.input, test.output) = (input.clone(), 128);
    let words = test.words();
    for lane in 0..32 {
        let bytes: Vec<u8> = input[4 * lane..][..4].iter().flat_map(|w| w.to_le_bytes()).collect();
        let kept: Vec<u8> =
            bytes.iter().enumerate().map(|(i, &b)| if i < lane % 8 * 2 { b } else { 0 }).collect();
        let mut want: Vec<u32> =
            kept.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
        want[3] ^= input[4 * lane + 1] ^ input[4 * lane + 2] ^ input[4 * lane + 3];
        assert_eq!(words[4 * lane..][..4], want, "lane {lane}");
    }
}
