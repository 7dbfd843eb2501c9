//! Integer instructions of 16, 32 and 64 bits.

/// Returns the mode of an operand type.
pub const fn mode(bits: u32, signed: bool) -> u32 {
    bits | (signed as u32) << 8
}

/// Modes of `bfind`: the shift amount instead of the position.
pub const SHIFT_AMOUNT: u32 = 1 << 9;
/// Modes of `shf`: wrap the shift amount instead of clamping it.
pub const WRAP: u32 = 1 << 9;

fn bits(mode: u32) -> u32 {
    mode & 0xff
}

fn is_signed(mode: u32) -> bool {
    mode & 0x100 != 0
}

fn truncate(value: u64, mode: u32) -> u64 {
    value & (u64::MAX >> (64 - bits(mode)))
}

/// Returns the value of an operand, sign- or zero-extended.
fn value(raw: u64, mode: u32) -> i128 {
    let spare = 64 - bits(mode);
    if is_signed(mode) { ((raw << spare) as i64 >> spare) as i128 } else { truncate(raw, mode) as i128 }
}

pub fn add(a: &[u64; 4], m: u32) -> u64 {
    truncate(a[0].wrapping_add(a[1]), m)
}

/// `add.sat.s32`.
pub fn add_sat(a: &[u64; 4], _: u32) -> u64 {
    (a[0] as i32).saturating_add(a[1] as i32) as u32 as u64
}

pub fn sub(a: &[u64; 4], m: u32) -> u64 {
    truncate(a[0].wrapping_sub(a[1]), m)
}

/// `sub.sat.s32`.
pub fn sub_sat(a: &[u64; 4], _: u32) -> u64 {
    (a[0] as i32).saturating_sub(a[1] as i32) as u32 as u64
}

pub fn mul_lo(a: &[u64; 4], m: u32) -> u64 {
    truncate(a[0].wrapping_mul(a[1]), m)
}

pub fn mad_lo(a: &[u64; 4], m: u32) -> u64 {
    truncate(a[0].wrapping_mul(a[1]).wrapping_add(a[2]), m)
}

pub fn mul_hi(a: &[u64; 4], m: u32) -> u64 {
    let product = match is_signed(m) {
        true => (value(a[0], m) * value(a[1], m)) as u128,
        false => truncate(a[0], m) as u128 * truncate(a[1], m) as u128,
    };
    truncate((product >> bits(m)) as u64, m)
}

pub fn mad_hi(a: &[u64; 4], m: u32) -> u64 {
    truncate(mul_hi(a, m).wrapping_add(a[2]), m)
}

/// `mul.wide.u16` and `.s16`: 16 x 16 to 32 bits.
pub fn mul_wide16(a: &[u64; 4], m: u32) -> u64 {
    (value(a[0], m) * value(a[1], m)) as u32 as u64
}

/// `mad.wide.u16` and `.s16`.
pub fn mad_wide16(a: &[u64; 4], m: u32) -> u64 {
    (mul_wide16(a, m) as u32).wrapping_add(a[2] as u32) as u64
}

/// Multiplies the low 24 bits of both factors; returns the low half of the product.
pub fn mul24_lo(a: &[u64; 4], m: u32) -> u64 {
    let narrow = mode(24, is_signed(m));
    (value(a[0], narrow) * value(a[1], narrow)) as u32 as u64
}

pub fn mad24_lo(a: &[u64; 4], m: u32) -> u64 {
    (mul24_lo(a, m) as u32).wrapping_add(a[2] as u32) as u64
}

/// Divides; a division by zero gives all ones, as the unsigned code of the hardware does.
pub fn div(a: &[u64; 4], m: u32) -> u64 {
    let (x, y) = (value(a[0], m), value(a[1], m));
    truncate(if y == 0 { u64::MAX } else { (x / y) as u64 }, m)
}

pub fn rem(a: &[u64; 4], m: u32) -> u64 {
    let (x, y) = (value(a[0], m), value(a[1], m));
    truncate(if y == 0 { x as u64 } else { (x % y) as u64 }, m)
}

pub fn min(a: &[u64; 4], m: u32) -> u64 {
    truncate(value(a[0], m).min(value(a[1], m)) as u64, m)
}

pub fn max(a: &[u64; 4], m: u32) -> u64 {
    truncate(value(a[0], m).max(value(a[1], m)) as u64, m)
}

/// `min.relu.s32` and, through `max`, `max.relu.s32`: the result is at least zero.
pub fn min_relu(a: &[u64; 4], m: u32) -> u64 {
    value(a[0], m).min(value(a[1], m)).max(0) as u64
}

pub fn max_relu(a: &[u64; 4], m: u32) -> u64 {
    value(a[0], m).max(value(a[1], m)).max(0) as u64
}

pub fn abs(a: &[u64; 4], m: u32) -> u64 {
    truncate(value(a[0], m).unsigned_abs() as u64, m)
}

pub fn neg(a: &[u64; 4], m: u32) -> u64 {
    truncate(a[0].wrapping_neg(), m)
}

pub fn not(a: &[u64; 4], m: u32) -> u64 {
    truncate(!a[0], m)
}

/// Logical not: one for zero, zero otherwise.
pub fn cnot(a: &[u64; 4], m: u32) -> u64 {
    (truncate(a[0], m) == 0) as u64
}

/// Computes |a - b| + c.
pub fn sad(a: &[u64; 4], m: u32) -> u64 {
    let distance = (value(a[0], m) - value(a[1], m)).unsigned_abs() as u64;
    truncate(distance.wrapping_add(a[2]), m)
}

pub fn popc(a: &[u64; 4], m: u32) -> u64 {
    truncate(a[0], m).count_ones() as u64
}

pub fn clz(a: &[u64; 4], m: u32) -> u64 {
    (truncate(a[0], m).leading_zeros() - (64 - bits(m))) as u64
}

pub fn brev(a: &[u64; 4], m: u32) -> u64 {
    a[0].reverse_bits() >> (64 - bits(m))
}

/// Finds the highest set bit, for negative numbers the highest clear bit; all ones when there is none.
pub fn bfind(a: &[u64; 4], m: u32) -> u64 {
    let v = value(a[0], m);
    let magnitude = if v < 0 { truncate(!a[0], m) } else { truncate(a[0], m) };
    match magnitude.checked_ilog2() {
        None => u32::MAX as u64,
        Some(at) if m & SHIFT_AMOUNT != 0 => (bits(m) - 1 - at) as u64,
        Some(at) => at as u64,
    }
}

/// Extracts the field of `a[2]` bits at bit `a[1]`, sign-extended for signed types.
pub fn bfe(a: &[u64; 4], m: u32) -> u64 {
    let (top, at, len) = (bits(m) - 1, (a[1] & 0xff) as u32, (a[2] & 0xff) as u32);
    if len == 0 {
        return 0;
    }
    let sign_at = (at + len - 1).min(top);
    let sign = is_signed(m) && a[0] >> sign_at & 1 != 0;
    let field = if at > top { 0 } else { truncate(a[0], m) >> at };
    let kept = if at > top { 0 } else { len.min(bits(m) - at) };
    let mask = if kept == 64 { u64::MAX } else { (1 << kept) - 1 };
    truncate(field & mask | if sign { !mask } else { 0 }, m)
}

/// Inserts the low `a[3]` bits of `a[0]` into `a[1]` at bit `a[2]`.
pub fn bfi(a: &[u64; 4], m: u32) -> u64 {
    let (at, len) = ((a[2] & 0xff) as u32, (a[3] & 0xff) as u32);
    if at >= bits(m) || len == 0 {
        return truncate(a[1], m);
    }
    let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let mask = ones << at;
    truncate(a[1] & !mask | a[0] << at & mask, m)
}

/// Executes `prmt`; modes in the order of the ISA: index, f4e, b4e, rc8, ecl, ecr, rc16.
pub fn prmt(a: &[u64; 4], m: u32) -> u64 {
    let bytes = (a[0] & 0xffff_ffff | a[1] << 32).to_le_bytes();
    let control = a[2] as u32;
    let s = control & 3;
    let mut out = 0u64;
    for i in 0..4 {
        let pick = match m {
            0 => control >> (4 * i) & 15,
            1 => s + i,
            2 => (s + 8 - i) & 7,
            3 => s,
            4 => s.max(i),
            5 => s.min(i),
            _ => (s & 1) * 2 + (i & 1),
        };
        let byte = bytes[(pick & 7) as usize];
        // Bit 3 of a selector copies the byte's sign over the whole byte.
        let byte = if m == 0 && pick & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out |= (byte as u64) << (8 * i);
    }
    out
}

fn funnel_shift(a: &[u64; 4], m: u32) -> u32 {
    if m & WRAP != 0 { a[2] as u32 & 31 } else { (a[2] as u32).min(32) }
}

/// Returns the high word of (b:a) shifted left.
pub fn shf_left(a: &[u64; 4], m: u32) -> u64 {
    let both = a[1] << 32 | a[0] & 0xffff_ffff;
    (((both as u128) << funnel_shift(a, m)) >> 32) as u32 as u64
}

/// Returns the low word of (b:a) shifted right.
pub fn shf_right(a: &[u64; 4], m: u32) -> u64 {
    let both = a[1] << 32 | a[0] & 0xffff_ffff;
    (both >> funnel_shift(a, m)) as u32 as u64
}

/// Shifts 16 bits to the left; the amount is clamped.
pub fn shl16(a: &[u64; 4], _: u32) -> u64 {
    if a[1] as u32 > 15 { 0 } else { (a[0] as u16 as u64) << a[1] & 0xffff }
}

pub fn shr16(a: &[u64; 4], m: u32) -> u64 {
    (value(a[0], m) >> (a[1] as u32).min(16)) as u16 as u64
}

/// Executes `dp4a`; bits 0 and 1 of the mode are set for signed a and b.
pub fn dp4a(a: &[u64; 4], m: u32) -> u64 {
    let part = |x: u64, i: usize, signed: bool| {
        let byte = (x >> (8 * i)) as u8;
        if signed { byte as i8 as i32 } else { byte as i32 }
    };
    let dot: i32 = (0..4).map(|i| part(a[0], i, m & 1 != 0) * part(a[1], i, m & 2 != 0)).sum();
    (dot as u32).wrapping_add(a[2] as u32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S32: u32 = mode(32, true);
    const U32: u32 = mode(32, false);
    const S64: u32 = mode(64, true);

    #[test]
    fn fields() {
        assert_eq!(bfe(&[0xabcd_1234, 8, 8, 0], U32), 0x12);
        assert_eq!(bfe(&[0x0000_8000, 8, 8, 0], S32), 0xffff_ff80);
        assert_eq!(bfe(&[0x8000_0000, 28, 16, 0], S32), 0xffff_fff8);
        assert_eq!(bfe(&[u64::MAX, 0, 64, 0], S64), u64::MAX);
        assert_eq!(bfe(&[0xffff_ffff, 40, 8, 0], U32), 0);
        assert_eq!(bfe(&[0xffff_ffff, 4, 0, 0], S32), 0);
        assert_eq!(bfi(&[0xff, 0, 4, 4], U32), 0xf0);
        assert_eq!(bfi(&[0xff, 7, 32, 4], U32), 7);
    }

    #[test]
    fn bits_found_and_counted() {
        assert_eq!(bfind(&[0, 0, 0, 0], U32), 0xffff_ffff);
        assert_eq!(bfind(&[1 << 20, 0, 0, 0], U32), 20);
        assert_eq!(bfind(&[1 << 20, 0, 0, 0], U32 | SHIFT_AMOUNT), 11);
        assert_eq!(bfind(&[0xffff_fff0, 0, 0, 0], S32), 3);
        assert_eq!(clz(&[1, 0, 0, 0], U32), 31);
        assert_eq!(brev(&[1, 0, 0, 0], U32), 1 << 31);
        assert_eq!(popc(&[0xf0f0, 0, 0, 0], U32), 8);
    }

    #[test]
    fn permutation_and_funnel() {
        assert_eq!(prmt(&[0x3322_1100, 0x7766_5544, 0x7531, 0], 0), 0x7755_3311);
        assert_eq!(prmt(&[0x0000_8000, 0, 0x9999, 0], 0), 0xffff_ffff);
        assert_eq!(prmt(&[0x3322_1100, 0x7766_5544, 1, 0], 1), 0x4433_2211);
        assert_eq!(prmt(&[0x3322_1100, 0x7766_5544, 1, 0], 6), 0x3322_3322);
        assert_eq!(shf_left(&[0x8000_0000, 1, 1, 0], 0), 3);
        assert_eq!(shf_left(&[7, 1, 40, 0], 0), 7);
        assert_eq!(shf_right(&[0, 1, 33, 0], WRAP), 0x8000_0000);
        assert_eq!(shf_right(&[0, 1, 33, 0], 0), 1);
    }

    #[test]
    fn products_and_quotients() {
        assert_eq!(mul_hi(&[0xffff_ffff, 2, 0, 0], S32), 0xffff_ffff);
        assert_eq!(mul_hi(&[u64::MAX, u64::MAX, 0, 0], mode(64, false)), u64::MAX - 1);
        assert_eq!(div(&[0x8000_0000, 0xffff_ffff, 0, 0], S32), 0x8000_0000);
        assert_eq!(rem(&[(-7i32) as u32 as u64, 3, 0, 0], S32), (-1i32) as u32 as u64);
        assert_eq!(div(&[7, 0, 0, 0], U32), 0xffff_ffff);
        assert_eq!(sad(&[3, 10, 5, 0], S32), 12);
        assert_eq!(dp4a(&[0xff02_0304, 0x0101_0101, 10, 0], 3), 18);
        assert_eq!(shr16(&[0x8000, 4, 0, 0], mode(16, true)), 0xf800);
    }
}
