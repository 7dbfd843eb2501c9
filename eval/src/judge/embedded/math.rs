//! Functions of `Math` to the last digit of V8's, which are those of Sun's fdlibm; `libm` descends from it, the system's
//! library does not. Of 20,000 arguments a function, Node 20 gives other bits for none, except log1p (3), asinh, acosh and
//! atanh (up to 200), log and log10 (130), cos and sin (240). `Math.pow` stays the engine's, as `**` is.

use rquickjs::prelude::{Coerced, Rest};
use rquickjs::{Ctx, Function, Object};
use std::f64::consts::{E, LN_2};

/// A function of one number.
type Unary = fn(f64) -> f64;

const FUNCTIONS: [(&str, Unary); 18] = [
    ("acos", libm::acos),
    ("acosh", libm::acosh),
    ("asin", libm::asin),
    ("asinh", asinh),
    ("atan", libm::atan),
    ("atanh", libm::atanh),
    ("cos", libm::cos),
    ("cosh", cosh),
    ("exp", exp),
    ("expm1", libm::expm1),
    ("log", libm::log),
    ("log10", log10),
    ("log1p", libm::log1p),
    ("log2", libm::log2),
    ("sin", libm::sin),
    ("sinh", sinh),
    ("tan", libm::tan),
    ("tanh", tanh),
];

/// Replaces the engine's functions of `Math`.
pub fn replace_functions<'js>(ctx: &Ctx<'js>) -> rquickjs::Result<()> {
    let math: Object = ctx.globals().get("Math")?;
    let add = |name: &str, length: usize, function: Function<'js>| {
        function.set_name(name)?;
        function.set_length(length)?;
        math.set(name, function)
    };
    for (name, f) in FUNCTIONS {
        add(name, 1, Function::new(ctx.clone(), move |x: Coerced<f64>| f(x.0))?)?;
    }
    let atan2 = |y: Coerced<f64>, x: Coerced<f64>| libm::atan2(y.0, x.0);
    add("atan2", 2, Function::new(ctx.clone(), atan2)?)?;
    let hypot = |sides: Rest<Coerced<f64>>| hypot(&sides.0.iter().map(|x| x.0.abs()).collect::<Vec<_>>());
    add("hypot", 2, Function::new(ctx.clone(), hypot)?)
}

fn exp(x: f64) -> f64 {
    if x == 1.0 { E } else { libm::exp(x) }
}

fn cosh(x: f64) -> f64 {
    let a = x.abs();
    if a < 0.5 * LN_2 {
        let t = libm::expm1(a);
        return if a < 2f64.powi(-55) { 1.0 } else { 1.0 + t * t / ((1.0 + t) + (1.0 + t)) };
    }
    match a < 22.0 {
        true => 0.5 * exp(a) + 0.5 / exp(a),
        false => half_exp(a, 0.5),
    }
}

fn sinh(x: f64) -> f64 {
    let (a, half) = (x.abs(), 0.5f64.copysign(x));
    let t = libm::expm1(a);
    match a {
        _ if a < 2f64.powi(-28) => x,
        _ if a < 1.0 => half * (2.0 * t - t * t / (t + 1.0)),
        _ if a < 22.0 => half * (t + t / (t + 1.0)),
        _ => half_exp(a, half),
    }
}

/// Returns `half · exp(a)`; in two factors where exp(a) overflows alone.
fn half_exp(a: f64, half: f64) -> f64 {
    match a <= f64::MAX.ln() {
        true => half * exp(a),
        false => half * exp(0.5 * a) * exp(0.5 * a),
    }
}

fn tanh(x: f64) -> f64 {
    let a = x.abs();
    let z = match a {
        _ if a < 2f64.powi(-28) => return x,
        _ if a < 1.0 => {
            let t = libm::expm1(-2.0 * a);
            -t / (t + 2.0)
        }
        _ if a < 22.0 => 1.0 - 2.0 / (libm::expm1(2.0 * a) + 2.0),
        _ => return if x.is_nan() { x } else { 1f64.copysign(x) },
    };
    z.copysign(x)
}

fn asinh(x: f64) -> f64 {
    let a = x.abs();
    let w = match a {
        _ if a < 2f64.powi(-28) || !x.is_finite() => return x,
        _ if a > 2f64.powi(28) => libm::log(a) + LN_2,
        _ if a > 2.0 => libm::log(2.0 * a + 1.0 / ((x * x + 1.0).sqrt() + a)),
        _ => libm::log1p(a + x * x / (1.0 + (1.0 + x * x).sqrt())),
    };
    w.copysign(x)
}

/// Computes log10(2ᵏ·m) as k·log10(2) + log(m)/log(10), log10(2) in two parts.
fn log10(x: f64) -> f64 {
    const LOG10_2: [f64; 2] = [f64::from_bits(0x3fd3_4413_509f_6000), f64::from_bits(0x3d59_fef3_11f1_2b36)];
    const INVERSE_LN_10: f64 = f64::from_bits(0x3fdb_cb7b_1526_e50e);
    if x <= 0.0 || !x.is_finite() {
        return libm::log10(x);
    }
    let (half, exponent) = libm::frexp(x);
    // In [1, 2) where k is not negative, else in [1/2, 1).
    let (m, k) = if exponent >= 1 { (2.0 * half, exponent - 1) } else { (half, exponent) };
    let k = f64::from(k);
    k * LOG10_2[1] + INVERSE_LN_10 * libm::log(m) + k * LOG10_2[0]
}

/// Computes the root of the sum of squares, scaled by the largest and summed with Kahan's compensation.
fn hypot(sides: &[f64]) -> f64 {
    let largest = sides.iter().copied().fold(0.0, f64::max);
    if largest == f64::INFINITY || largest == 0.0 && !sides.iter().any(|x| x.is_nan()) {
        return largest;
    }
    let (mut sum, mut compensation) = (0.0, 0.0);
    for side in sides {
        let n = side / largest;
        let summand = n * n - compensation;
        let next = sum + summand;
        compensation = (next - sum) - summand;
        sum = next;
    }
    f64::sqrt(sum) * largest
}
