//! The two halves of a number's bits, which fdlibm compares and sets.

/// Returns the upper half: the sign, the exponent and 20 bits of the fraction.
pub fn high(x: f64) -> u32 {
    (x.to_bits() >> 32) as u32
}

/// Returns `x` with another upper half.
pub fn with_high(x: f64, high: u32) -> f64 {
    f64::from_bits(u64::from(high) << 32 | x.to_bits() & 0xffff_ffff)
}

/// Returns the number that has this upper half and no other bits.
pub fn from_high(high: u32) -> f64 {
    f64::from_bits(u64::from(high) << 32)
}

/// Returns `x` without its lower half.
pub fn upper(x: f64) -> f64 {
    from_high(high(x))
}
