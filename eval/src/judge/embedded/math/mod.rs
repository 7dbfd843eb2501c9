//! Functions of `Math` to the last digit of V8's as Node builds it, which are those of Sun's fdlibm. `libm` descends from it too,
//! and has the same bits where it is used here; what it computes otherwise is written out. `**` is `pow` as well.

mod logarithm;
mod power;
mod reduction;
mod root;
mod trigonometry;
mod words;

use logarithm::{log, log1p, log10};
use power::pow;
use root::cbrt;
use rquickjs::prelude::{Coerced, Rest};
use rquickjs::{Ctx, Function, Object};
use std::f64::consts::{E, FRAC_PI_2, LN_2};
use trigonometry::{cos, sin};
use words::high;

/// A function of one number.
type Unary = fn(f64) -> f64;

const FUNCTIONS: [(&str, Unary); 19] = [
    ("acos", libm::acos),
    ("acosh", acosh),
    ("asin", libm::asin),
    ("asinh", asinh),
    ("atan", libm::atan),
    ("atanh", atanh),
    ("cbrt", cbrt),
    ("cos", cos),
    ("cosh", cosh),
    ("exp", exp),
    ("expm1", libm::expm1),
    ("log", log),
    ("log10", log10),
    ("log1p", log1p),
    ("log2", libm::log2),
    ("sin", sin),
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
    for (name, f) in [("atan2", atan2 as fn(f64, f64) -> f64), ("pow", pow)] {
        add(name, 2, Function::new(ctx.clone(), move |a: Coerced<f64>, b: Coerced<f64>| f(a.0, b.0))?)?;
    }
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
        _ if a > 2f64.powi(28) => log(a) + LN_2,
        _ if a > 2.0 => log(2.0 * a + 1.0 / ((x * x + 1.0).sqrt() + a)),
        _ => log1p(a + x * x / (1.0 + (1.0 + x * x).sqrt())),
    };
    w.copysign(x)
}

fn acosh(x: f64) -> f64 {
    match x {
        _ if x < 1.0 => f64::NAN,
        _ if !x.is_finite() => x,
        _ if x >= 2f64.powi(28) => log(x) + LN_2,
        _ if x > 2.0 => log(2.0 * x - 1.0 / (x + (x * x - 1.0).sqrt())),
        _ => {
            let t = x - 1.0;
            log1p(t + (2.0 * t + t * t).sqrt())
        }
    }
}

fn atanh(x: f64) -> f64 {
    let a = x.abs();
    let z = match a {
        _ if a > 1.0 => return f64::NAN,
        1.0 => f64::INFINITY,
        _ if a < 2f64.powi(-28) => return x,
        _ if a < 0.5 => 0.5 * log1p(2.0 * a + 2.0 * a * a / (1.0 - a)),
        _ => 0.5 * log1p(2.0 * a / (1.0 - a)),
    };
    z.copysign(x)
}

/// Returns the angle of a point; a right one where y is beyond 2⁶⁰·x.
fn atan2(y: f64, x: f64) -> f64 {
    let exponent = |x: f64| high(x.abs()) as i32;
    match x.is_finite() && y.is_finite() && x != 0.0 && (exponent(y) - exponent(x)) >> 20 > 60 {
        true => FRAC_PI_2.copysign(y),
        false => libm::atan2(y, x),
    }
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
