//! Reduction of large arguments modulo π/2, by Payne and Hanek, in the order of operations of Sun's fdlibm
//! (`k_rem_pio2.c`): of the product with 2/π, only the digits that matter are computed, 24 bits each.

/// The digits of 2/π after the point.
const TWO_OVER_PI: [u32; 66] = [
    0xa2f983, 0x6e4e44, 0x1529fc, 0x2757d1, 0xf534dd, 0xc0db62, 0x95993c, 0x439041, 0xfe5163, 0xabdebb,
    0xc561b7, 0x246e3a, 0x424dd2, 0xe00649, 0x2eea09, 0xd1921c, 0xfe1deb, 0x1cb129, 0xa73ee8, 0x8235f5,
    0x2ebb44, 0x84e99c, 0x7026b4, 0x5f7e41, 0x3991d6, 0x398353, 0x39f49c, 0x845f8b, 0xbdf928, 0x3b1ff8,
    0x97ffde, 0x05980f, 0xef2f11, 0x8b5a0a, 0x6d1f6d, 0x367ecf, 0x27cb09, 0xb74f46, 0x3f669e, 0x5fea2d,
    0x7527ba, 0xc7ebe5, 0xf17b3d, 0x0739f7, 0x8a5292, 0xea6bfb, 0x5fb11f, 0x8d5d08, 0x560330, 0x46fc7b,
    0x6babf0, 0xcfbc20, 0x9af436, 0x1da9e3, 0x91615e, 0xe61b08, 0x659985, 0x5f14a0, 0x68408d, 0xffd880,
    0x4d7327, 0x310606, 0x1556ca, 0x73a8c9, 0x60e27b, 0xc08c6b,
];
/// π/2 in parts of 24 bits.
const PI_2: [f64; 5] = [
    f64::from_bits(0x3ff9_21fb_4000_0000),
    f64::from_bits(0x3e74_442d_0000_0000),
    f64::from_bits(0x3cf8_4698_8000_0000),
    f64::from_bits(0x3b78_cc51_6000_0000),
    f64::from_bits(0x39f0_1b83_8000_0000),
];
/// Digits of the product after its first, unless more of them cancel.
const DIGITS: usize = 4;
const DIGIT: i64 = 1 << 24;

/// Reduces a finite x ≥ 2²⁰: returns n modulo 8, and x − n·π/2 as a number and its tail.
pub fn large(x: f64) -> (i32, f64, f64) {
    let exponent = (x.to_bits() >> 52) as i32 - 1046;
    let mantissa = (x.to_bits() & ((1 << 52) - 1) | 1 << 52) as i64;
    let parts = [mantissa >> 29, mantissa >> 5 & (DIGIT - 1), mantissa << 19 & (DIGIT - 1)];
    // Digits of 2/π before this one contribute multiples of 8.
    let start = (exponent - 3) / 24;
    let digit = |i: i32| usize::try_from(i).map_or(0, |i| i64::from(TWO_OVER_PI[i]));
    let product = |i: usize| (0..3).map(|j| parts[j as usize] * digit(start + i as i32 - j)).sum::<i64>();
    let mut last = DIGITS;
    loop {
        let products: Vec<i64> = (0..=last).map(product).collect();
        let turns = Turns::new(&products, exponent - 24 * (start + 1));
        match turns.missing_digits() {
            0 => {
                let (first, tail) = turns.times_half_pi();
                let sign = if turns.negative { -1.0 } else { 1.0 };
                return (turns.quarters, sign * first, sign * tail);
            }
            missing => last += missing,
        }
    }
}

/// A number of quarters of a turn, and a fraction of at most a half to add to it or to take from it.
struct Turns {
    quarters: i32,
    negative: bool,
    /// The digits of the fraction, the least first; the last is `whole`, of scale 2^`scale`.
    digits: Vec<i64>,
    whole: f64,
    scale: i32,
}

impl Turns {
    /// Makes digits of the sums of products that belong to each, the largest first.
    fn new(products: &[i64], scale: i32) -> Self {
        let mut carry = 0;
        let mut digits = Vec::with_capacity(products.len());
        for product in products[1..].iter().rev() {
            let sum = product + carry;
            digits.push(sum % DIGIT);
            carry = sum / DIGIT;
        }
        let scaled = (products[0] + carry) as f64 * 2f64.powi(scale);
        let whole = scaled - 8.0 * (scaled * 0.125).floor();
        let mut turns =
            Turns { quarters: whole as i32, negative: false, digits, whole: whole.fract(), scale };
        let top = turns.digits.len() - 1;
        if scale > 0 {
            // The upper bits of the first digit are quarters too.
            turns.quarters += (turns.digits[top] >> (24 - scale)) as i32;
            turns.digits[top] &= (DIGIT >> scale) - 1;
        }
        turns.negative = if scale >= 0 { turns.digits[top] >> (23 - scale) > 0 } else { turns.whole >= 0.5 };
        if turns.negative {
            turns.take_from_one();
        }
        turns
    }

    /// Goes on from the next quarter backwards.
    fn take_from_one(&mut self) {
        let top = self.digits.len() - 1;
        self.quarters += 1;
        let first = self.digits.iter().position(|digit| *digit != 0);
        if let Some(first) = first {
            self.digits[first] = DIGIT - self.digits[first];
            self.digits[first + 1..].iter_mut().for_each(|digit| *digit = DIGIT - 1 - *digit);
        }
        if self.scale > 0 {
            self.digits[top] &= (DIGIT >> self.scale) - 1;
        } else if self.scale < 0 {
            self.whole = 1.0 - self.whole - if first.is_some() { 2f64.powi(self.scale) } else { 0.0 };
        }
    }

    /// Returns how many more digits the product needs, because the first ones of the fraction are zero.
    fn missing_digits(&self) -> usize {
        let known = self.whole != 0.0 || self.digits[DIGITS..].iter().any(|digit| *digit != 0);
        if known {
            0
        } else {
            1 + self.digits[..DIGITS].iter().rev().take_while(|digit| **digit == 0).count()
        }
    }

    /// Multiplies the fraction by π/2; returns a number and its tail.
    fn times_half_pi(&self) -> (f64, f64) {
        let mut digits = self.digits.clone();
        let mut scale = self.scale;
        if self.whole != 0.0 {
            let whole = (self.whole * 2f64.powi(-scale)) as i64;
            digits.push(whole % DIGIT);
            if whole >= DIGIT {
                digits.push(whole / DIGIT);
                scale += 24;
            }
        } else {
            scale -= 24;
        }
        while digits.last() == Some(&0) {
            digits.pop();
            scale -= 24;
        }
        let digits: Vec<f64> = digits
            .iter()
            .rev()
            .zip(0..)
            .map(|(digit, i)| *digit as f64 * 2f64.powi(scale - 24 * i))
            .collect();
        let term =
            |n: usize| (0..=n.min(PI_2.len() - 1)).map(|k| PI_2[k] * digits[n - k]).fold(0.0, |a, b| a + b);
        let terms: Vec<f64> = (0..digits.len()).map(term).collect();
        let first = terms.iter().rev().fold(0.0, |sum, term| sum + term);
        let tail = terms[1..].iter().fold(terms[0] - first, |sum, term| sum + term);
        (first, tail)
    }
}
