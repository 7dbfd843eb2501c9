//! Instructions on registers, compared with plain Rust on random operands.

mod common;
use approx::abs_diff_eq;
use common::{map_rows, random_rows};

const N: usize = 512;

/// Checks `body`, which computes `%r10` from `%r1` to `%r4`, against `f`.
fn check(body: &str, f: impl Fn(u32, u32, u32) -> u32) {
    let rows = random_rows(N, body.len() as u64);
    for (row, got) in rows.iter().zip(map_rows(body, &rows)) {
        assert_eq!(got, f(row[0], row[1], row[2]), "{body} on {row:x?}");
    }
}

/// Like `check` for floats: equal bits, or NaN for NaN.
fn check_float(body: &str, f: impl Fn(f32, f32, f32) -> f32) {
    let rows = random_rows(N, 7 + body.len() as u64);
    let body = format!("{body} mov.b32 %r10, %f10;");
    for (row, got) in rows.iter().zip(map_rows(&body, &rows)) {
        let [a, b, c, _] = row.map(f32::from_bits);
        let want = f(a, b, c);
        let same = got == want.to_bits() || want.is_nan() && got == 0x7fff_ffff;
        assert!(same, "{body} on {a:e} {b:e} {c:e}: {:e} instead of {want:e}", f32::from_bits(got));
    }
}

#[test]
fn integers_of_32_bits() {
    check("add.s32 %r10, %r1, %r2;", |a, b, _| a.wrapping_add(b));
    check("sub.u32 %r10, %r1, %r2;", |a, b, _| a.wrapping_sub(b));
    check("mul.lo.s32 %r10, %r1, %r2;", |a, b, _| a.wrapping_mul(b));
    check("mad.lo.u32 %r10, %r1, %r2, %r3;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check("mul.hi.u32 %r10, %r1, %r2;", |a, b, _| ((a as u64 * b as u64) >> 32) as u32);
    check("mul.hi.s32 %r10, %r1, %r2;", |a, b, _| ((a as i32 as i64 * b as i32 as i64) >> 32) as u32);
    check("mad.hi.u32 %r10, %r1, %r2, %r3;", |a, b, c| {
        (((a as u64 * b as u64) >> 32) as u32).wrapping_add(c)
    });
    check("div.u32 %r10, %r1, %r2;", |a, b, _| a.checked_div(b).unwrap_or(u32::MAX));
    check("rem.s32 %r10, %r1, 7;", |a, _, _| (a as i32 % 7) as u32);
    check("div.s32 %r10, %r1, -3;", |a, _, _| (a as i32).wrapping_div(-3) as u32);
    check("min.s32 %r10, %r1, %r2;", |a, b, _| (a as i32).min(b as i32) as u32);
    check("max.u32 %r10, %r1, %r2;", |a, b, _| a.max(b));
    check("abs.s32 %r10, %r1;", |a, _, _| (a as i32).unsigned_abs());
    check("neg.s32 %r10, %r1;", |a, _, _| a.wrapping_neg());
    check("sad.u32 %r10, %r1, %r2, %r3;", |a, b, c| a.abs_diff(b).wrapping_add(c));
    check("add.sat.s32 %r10, %r1, %r2;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check("mul24.lo.u32 %r10, %r1, %r2;", |a, b, _| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff));
}

#[test]
fn bits_of_32_bits() {
    check("and.b32 %r10, %r1, %r2;", |a, b, _| a & b);
    check("or.b32 %r10, %r1, 0xf0;", |a, _, _| a | 0xf0);
    check("xor.b32 %r10, %r1, %r2;", |a, b, _| a ^ b);
    check("not.b32 %r10, %r1;", |a, _, _| !a);
    check("cnot.b32 %r10, %r1;", |a, _, _| (a == 0) as u32);
    check("shl.b32 %r10, %r1, %r2;", |a, b, _| a.checked_shl(b).unwrap_or(0));
    check("shr.u32 %r10, %r1, %r2;", |a, b, _| a.checked_shr(b).unwrap_or(0));
    check("shr.s32 %r10, %r1, %r2;", |a, b, _| (a as i32 >> b.min(31)) as u32);
    check("shf.l.wrap.b32 %r10, %r1, %r2, %r3;", |a, b, c| {
        ((((b as u64) << 32 | a as u64) << (c & 31)) >> 32) as u32
    });
    check("shf.r.clamp.b32 %r10, %r1, %r2, %r3;", |a, b, c| {
        (((b as u64) << 32 | a as u64) >> c.min(32)) as u32
    });
    check("lop3.b32 %r10, %r1, %r2, %r3, 0x96;", |a, b, c| a ^ b ^ c);
    check("lop3.b32 %r10, %r1, %r2, %r3, 0xE8;", |a, b, c| a & b | b & c | a & c);
    check("popc.b32 %r10, %r1;", |a, _, _| a.count_ones());
    check("clz.b32 %r10, %r1;", |a, _, _| a.leading_zeros());
    check("brev.b32 %r10, %r1;", |a, _, _| a.reverse_bits());
    check("bfind.u32 %r10, %r1;", |a, _, _| a.checked_ilog2().unwrap_or(u32::MAX));
    check("bfe.u32 %r10, %r1, 5, 11;", |a, _, _| a >> 5 & 0x7ff);
    check("bfe.s32 %r10, %r1, 16, 8;", |a, _, _| (a >> 16) as i8 as u32);
    check("bfi.b32 %r10, %r1, %r2, 8, 8;", |a, b, _| b & !0xff00 | (a & 0xff) << 8);
    check("prmt.b32 %r10, %r1, %r2, 0x5410;", |a, b, _| a & 0xffff | b << 16);
    check("prmt.b32 %r10, %r1, %r2, 0x7632;", |a, b, _| a >> 16 | b & 0xffff_0000);
    check("dp4a.u32.u32 %r10, %r1, %r2, %r3;", |a, b, c| {
        let dot: u32 = (0..4).map(|i| (a >> (8 * i) & 255) * (b >> (8 * i) & 255)).sum();
        dot.wrapping_add(c)
    });
}

#[test]
fn integers_of_64_and_16_bits() {
    let wide = |op: &str| {
        format!(
            "mov.b64 %rd2, {{%r1, %r2}}; mov.b64 %rd3, {{%r3, %r4}}; {op} mov.b64 {{%r11, %r12}}, %rd4;\n\
             xor.b32 %r10, %r11, %r12;"
        )
    };
    let check64 = |op: &str, f: &dyn Fn(u64, u64) -> u64| {
        let rows = random_rows(N, 3 + op.len() as u64);
        for (r, got) in rows.iter().zip(map_rows(&wide(op), &rows)) {
            let (a, b) = ((r[1] as u64) << 32 | r[0] as u64, (r[3] as u64) << 32 | r[2] as u64);
            let want = f(a, b);
            assert_eq!(got, want as u32 ^ (want >> 32) as u32, "{op} on {a:#x} {b:#x}");
        }
    };
    check64("add.s64 %rd4, %rd2, %rd3;", &|a, b| a.wrapping_add(b));
    check64("mul.lo.s64 %rd4, %rd2, %rd3;", &|a, b| a.wrapping_mul(b));
    check64("mul.hi.u64 %rd4, %rd2, %rd3;", &|a, b| ((a as u128 * b as u128) >> 64) as u64);
    check64("rem.u64 %rd4, %rd2, 1000003;", &|a, _| a % 1000003);
    check64("shl.b64 %rd4, %rd2, %r3;", &|a, b| a.checked_shl(b as u32).unwrap_or(0));
    check64("shr.s64 %rd4, %rd2, %r3;", &|a, b| (a as i64 >> (b as u32).min(63)) as u64);
    check64("min.s64 %rd4, %rd2, %rd3;", &|a, b| (a as i64).min(b as i64) as u64);
    check64("setp.lt.s64 %p1, %rd2, %rd3; selp.b64 %rd4, %rd2, %rd3, %p1;", &|a, b| {
        (a as i64).min(b as i64) as u64
    });
    check64("mul.wide.s32 %rd4, %r1, %r3;", &|a, b| (a as i32 as i64 * b as i32 as i64) as u64);
    check64("mad.wide.u32 %rd4, %r1, %r3, %rd2;", &|a, b| {
        (a as u32 as u64 * b as u32 as u64).wrapping_add(a)
    });
    check64("add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4; mov.b64 %rd4, {%r5, %r6};", &|a, b| {
        a.wrapping_add(b)
    });
    check64("sub.cc.u32 %r5, %r1, %r3; subc.u32 %r6, %r2, %r4; mov.b64 %rd4, {%r5, %r6};", &|a, b| {
        a.wrapping_sub(b)
    });
    check(
        "cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; add.s16 %h3, %h1, %h2; cvt.u32.u16 %r10, %h3;",
        |a, b, _| (a as u16).wrapping_add(b as u16) as u32,
    );
    check("cvt.u16.u32 %h1, %r1; shr.s16 %h3, %h1, 3; cvt.s32.s16 %r10, %h3;", |a, _, _| {
        (a as i16 >> 3) as u32
    });
    check("mov.b32 {%h1, %h2}, %r1; mov.b32 %r10, {%h2, %h1};", |a, _, _| a.rotate_left(16));
    check("mov.b32 {%h1, %h2}, %r1; mul.wide.s16 %r10, %h1, %h2;", |a, _, _| {
        (a as i16 as i32 * (a >> 16) as i16 as i32) as u32
    });
    check("mov.b32 {%h1, %h2}, %r1; setp.lt.s16 %p1, %h1, %h2; selp.u32 %r10, 1, 0, %p1;", |a, _, _| {
        ((a as i16) < (a >> 16) as i16) as u32
    });
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

#[test]
fn floats_of_32_bits() {
    check_float("add.f32 %f10, %f1, %f2;", |a, b, _| a + b);
    check_float("sub.rn.f32 %f10, %f1, %f2;", |a, b, _| a - b);
    check_float("mul.f32 %f10, %f1, %f2;", |a, b, _| a * b);
    check_float("fma.rn.f32 %f10, %f1, %f2, %f3;", f32::mul_add);
    check_float("fma.rn.ftz.f32 %f10, %f1, %f2, %f3;", |a, b, c| flush(flush(a).mul_add(flush(b), flush(c))));
    check_float("mul.ftz.f32 %f10, %f1, %f2;", |a, b, _| flush(flush(a) * flush(b)));
    check_float("div.rn.f32 %f10, %f1, %f2;", |a, b, _| a / b);
    check_float("sqrt.rn.f32 %f10, %f1;", |a, _, _| a.sqrt());
    check_float("rcp.rn.f32 %f10, %f1;", |a, _, _| 1.0 / a);
    check_float("neg.f32 %f10, %f1; abs.f32 %f10, %f10;", |a, _, _| f32::from_bits((-a).abs().to_bits()));
    check_float("min.f32 %f10, %f1, %f2;", |a, b, _| {
        if a == b && a == 0.0 { f32::from_bits(a.to_bits() | b.to_bits()) } else { a.min(b) }
    });
    check_float("max.f32 %f10, %f1, %f2;", |a, b, _| {
        if a == b && a == 0.0 { f32::from_bits(a.to_bits() & b.to_bits()) } else { a.max(b) }
    });
    check_float("max.NaN.f32 %f10, %f1, 0f3F800000;", |a, _, _| if a.is_nan() { a } else { a.max(1.0) });
    check_float("add.sat.f32 %f10, %f1, %f2;", |a, b, _| {
        if (a + b).is_nan() { 0.0 } else { (a + b).clamp(0.0, 1.0) + 0.0 }
    });
    check("copysign.f32 %f10, %f2, %f1; mov.b32 %r10, %f10;", |a, b, _| a & 0x7fff_ffff | b & 0x8000_0000);
    let wide = "cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2; fma.rn.f64 %fd3, %fd1, %fd2, %fd1;\n\
                cvt.rn.f32.f64 %f10, %fd3;";
    check_float(wide, |a, b, _| (a as f64).mul_add(b as f64, a as f64) as f32);
}

#[test]
fn directed_roundings_bracket_the_exact_result() {
    let rows = random_rows(N, 5);
    let run = |op: &str| map_rows(&format!("{op} %f10, %f1, %f2; mov.b32 %r10, %f10;"), &rows);
    let (down, up, zero) = (run("mul.rm.f32"), run("mul.rp.f32"), run("mul.rz.f32"));
    for (k, row) in rows.iter().enumerate() {
        let exact = f32::from_bits(row[0]) as f64 * f32::from_bits(row[1]) as f64;
        let [down, up, zero] = [down[k], up[k], zero[k]].map(|b| f32::from_bits(b) as f64);
        if !exact.is_nan() {
            assert!(down <= exact && exact <= up && zero.abs() <= exact.abs(), "{exact:e}: {down:e} {up:e}");
            assert!(zero == down || zero == up);
        }
    }
}

#[test]
fn comparisons_and_selections() {
    let truth = |body: &str| format!("{body} selp.u32 %r10, 1, 0, %p1;");
    check(&truth("setp.lt.s32 %p1, %r1, %r2;"), |a, b, _| ((a as i32) < b as i32) as u32);
    check(&truth("setp.hi.u32 %p1, %r1, %r2;"), |a, b, _| (a > b) as u32);
    check(&truth("setp.ne.s32 %p2, %r3, 0; setp.lt.and.s32 %p1, %r1, %r2, %p2;"), |a, b, c| {
        ((a as i32) < b as i32 && c != 0) as u32
    });
    check(&truth("setp.eq.u32 %p2, %r3, 0; setp.ge.or.u32 %p3|%p1, %r1, %r2, !%p2;"), |a, b, c| {
        (a < b || c != 0) as u32
    });
    let float = |cmp: &str| truth(&format!("setp.{cmp}.f32 %p1, %f1, %f2;"));
    let f = f32::from_bits;
    check(&float("lt"), |a, b, _| (f(a) < f(b)) as u32);
    check(&float("ne"), |a, b, _| (f(a) < f(b) || f(a) > f(b)) as u32);
    check(&float("neu"), |a, b, _| (f(a) != f(b)) as u32);
    check(&float("geu"), |a, b, _| (f(a).partial_cmp(&f(b)) != Some(std::cmp::Ordering::Less)) as u32);
    check(&float("num"), |a, b, _| (!f(a).is_nan() && !f(b).is_nan()) as u32);
    check("set.lt.u32.f32 %r10, %f1, %f2;", |a, b, _| if f(a) < f(b) { u32::MAX } else { 0 });
    check("slct.b32.s32 %r10, %r1, %r2, %r3;", |a, b, c| if c as i32 >= 0 { a } else { b });
    check(&truth("setp.gt.u32 %p2, %r1, 5; setp.gt.u32 %p3, %r2, 5; xor.pred %p1, %p2, %p3;"), |a, b, _| {
        ((a > 5) != (b > 5)) as u32
    });
    check(&truth("testp.finite.f32 %p1, %f1;"), |a, _, _| f(a).is_finite() as u32);
}

#[test]
fn conversions() {
    let f = f32::from_bits;
    check("cvt.rzi.s32.f32 %r10, %f1;", |a, _, _| f(a) as i32 as u32);
    check("cvt.rni.s32.f32 %r10, %f1;", |a, _, _| f(a).round_ties_even() as i32 as u32);
    check("cvt.rmi.u32.f32 %r10, %f1;", |a, _, _| f(a).floor() as u32);
    check("cvt.rn.f32.s32 %f10, %r1; mov.b32 %r10, %f10;", |a, _, _| (a as i32 as f32).to_bits());
    check("cvt.rn.f32.u32 %f10, %r1; mov.b32 %r10, %f10;", |a, _, _| (a as f32).to_bits());
    check("mov.b64 %rd2, {%r1, %r2}; cvt.rn.f32.u64 %f10, %rd2; mov.b32 %r10, %f10;", |a, b, _| {
        (((b as u64) << 32 | a as u64) as f32).to_bits()
    });
    check("cvt.s32.s8 %r10, %r1;", |a, _, _| a as i8 as i32 as u32);
    check("cvt.u32.u8 %r10, %r1;", |a, _, _| a & 255);
    check("cvt.sat.u8.s32 %r10, %r1;", |a, _, _| (a as i32).clamp(0, 255) as u32);
    check("cvt.s64.s32 %rd2, %r1; mov.b64 {%r11, %r10}, %rd2;", |a, _, _| ((a as i32) >> 31) as u32);
    let bits = |x: half::bf16| if x.is_nan() { 0x7fff } else { x.to_bits() as u32 };
    check("cvt.rn.bf16.f32 %h1, %f1; cvt.u32.u16 %r10, %h1;", |a, _, _| bits(half::bf16::from_f32(f(a))));
    check("cvt.rn.bf16x2.f32 %r10, %f1, %f2;", |a, b, _| {
        bits(half::bf16::from_f32(f(a))) << 16 | bits(half::bf16::from_f32(f(b)))
    });
    let bits = |x: half::f16| if x.is_nan() { 0x7fff } else { x.to_bits() as u32 };
    check("cvt.rn.f16.f32 %h1, %f1; cvt.u32.u16 %r10, %h1;", |a, _, _| bits(half::f16::from_f32(f(a))));
    check("mov.b32 {%h1, %h2}, %r1; cvt.f32.f16 %f10, %h2; mov.b32 %r10, %f10;", |a, _, _| {
        let x = half::f16::from_bits((a >> 16) as u16).to_f32();
        if x.is_nan() { 0x7fff_ffff } else { x.to_bits() }
    });
    check("cvt.rna.tf32.f32 %r10, %f1;", |a, _, _| {
        let rounded = a.wrapping_add(0x1000) & !0x1fff;
        if f(a).is_nan() {
            0x7fff_ffff
        } else if f(a).is_infinite() {
            a
        } else {
            rounded
        }
    });
}

#[test]
fn packed_halves() {
    let bf = |x: u32| half::bf16::from_bits(x as u16).to_f64();
    check("fma.rn.bf16x2 %r10, %r1, %r2, %r3;", |a, b, c| {
        let one = |s: u32| {
            // Exact in f64 unless the addends lie far apart, and then the sum rounds as the larger does.
            let exact = bf(a >> s).mul_add(bf(b >> s), bf(c >> s));
            let rounded = half::bf16::from_f64(exact);
            if rounded.is_nan() { 0x7fff } else { rounded.to_bits() as u32 }
        };
        one(0) | one(16) << 16
    });
    check("neg.bf16x2 %r10, %r1;", |a, _, _| a ^ 0x8000_8000);
    check("abs.f16x2 %r10, %r1;", |a, _, _| a & 0x7fff_7fff);
    check("mov.b32 {%h1, %h2}, %r1; setp.lt.bf16 %p1, %h1, %h2; selp.u32 %r10, 1, 0, %p1;", |a, _, _| {
        (bf(a) < bf(a >> 16)) as u32
    });
}

/// Checks an approximation against the error bound of the ISA: relative plus absolute.
fn approximates(op: &str, inputs: impl Fn(u32) -> f32, f: fn(f64) -> f64, relative: f64, absolute: f64) {
    let rows: Vec<[u32; 4]> = (0..N as u32).map(|k| [inputs(k).to_bits(), 0, 0, 0]).collect();
    for (row, got) in rows.iter().zip(map_rows(&format!("{op} %f10, %f1; mov.b32 %r10, %f10;"), &rows)) {
        let (x, got) = (f32::from_bits(row[0]) as f64, f32::from_bits(got) as f64);
        let want = f(x);
        let epsilon = relative * want.abs() + absolute;
        assert!(abs_diff_eq!(got, want, epsilon = epsilon), "{op} of {x}: {got:e}, not {want:e}");
    }
}

#[test]
fn approximations_stay_within_their_bounds() {
    let spread = |k: u32| (k as f32 - 256.0) / 16.0;
    let positive = |k: u32| (k as f32 + 0.5) * 0.37;
    let angle = |k: u32| (k as f32 - 256.0) / 82.0;
    approximates("ex2.approx.f32", spread, f64::exp2, 2f64.powi(-22), 0.0);
    approximates("ex2.approx.ftz.f32", spread, f64::exp2, 2f64.powi(-22), 0.0);
    approximates("lg2.approx.f32", positive, f64::log2, 2f64.powi(-22), 2f64.powi(-22));
    approximates("rcp.approx.ftz.f32", positive, |x| 1.0 / x, 2f64.powi(-23), 0.0);
    approximates("rsqrt.approx.f32", positive, |x| 1.0 / x.sqrt(), 2f64.powf(-22.9), 0.0);
    approximates("sqrt.approx.f32", positive, f64::sqrt, 2f64.powi(-23), 0.0);
    approximates("sin.approx.f32", angle, f64::sin, 0.0, 2f64.powf(-20.5));
    approximates("cos.approx.f32", angle, f64::cos, 0.0, 2f64.powf(-20.5));
    approximates("tanh.approx.f32", spread, f64::tanh, 2f64.powi(-11), 0.0);
}
