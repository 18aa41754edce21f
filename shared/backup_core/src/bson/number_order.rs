//! The order of numbers: integers, doubles and 128-bit decimals in one line, each by its exact value.
//!
//! Nothing is rounded: an integer or a double is `coefficient * 2^exponent`, a decimal is `coefficient * 10^exponent`,
//! and they are compared as whole numbers. The server's comparisons and its index keys come to the same: every NaN is
//! one value below all others, every zero is one value, and encodings of decimals that are not canonical are zeros.

use std::cmp::Ordering;

use super::walk::Element;

/// The coefficient of a decimal has at most 34 digits.
const COEFFICIENT_MAX: u128 = 10_u128.pow(34) - 1;
/// Every double is below 10^309, so it is smaller than a decimal whose highest digit stands further up.
const DOUBLE_TOP_MAX: i32 = 308;
/// Every double but zero is above 10^-324, so it is larger than a decimal whose highest digit stands further down.
const DOUBLE_TOP_MIN: i32 = -324;
/// The base of the digits of long numbers, which are kept in twice as many bits, so that products fit.
const LONG_BASE: u128 = 1 << 64;
/// The largest power of ten below `LONG_BASE`.
const STEP_MAX: u32 = 19;

/// Compares two elements that hold numbers. An element that holds none comes first.
pub(super) fn compare_numbers(left: &Element<'_>, right: &Element<'_>) -> Ordering {
    match (Number::of(left), Number::of(right)) {
        (Some(left), Some(right)) => left.compare(right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

/// Where a number stands, whatever its size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    NotANumber,
    MinusInfinity,
    Negative,
    Zero,
    Positive,
    Infinity,
}

/// `coefficient * base^exponent`, not zero.
#[derive(Clone, Copy)]
struct Size {
    coefficient: u128,
    base: u32,
    exponent: i32,
}

#[derive(Clone, Copy)]
struct Number {
    place: Place,
    /// Means something only where the place is `Negative` or `Positive`.
    size: Size,
}

impl Number {
    fn of(element: &Element<'_>) -> Option<Self> {
        let value = element.value;
        let top = u16::from_le_bytes(*value.last_chunk()?);
        Some(match element.kind {
            0x01 => Self::of_double(u64::from_le_bytes(*value.first_chunk()?), top),
            0x10 => Self::of_integer(i32::from_le_bytes(*value.first_chunk()?).into()),
            0x12 => Self::of_integer(i64::from_le_bytes(*value.first_chunk()?)),
            0x13 => Self::of_decimal(u128::from_le_bytes(*value.first_chunk()?), top),
            _ => return None,
        })
    }

    fn of_integer(value: i64) -> Self {
        Self::finite(value < 0, Size { coefficient: value.unsigned_abs().into(), base: 2, exponent: 0 })
    }

    /// Of the bits of a double, the 16 at the `top` are the sign, 11 of exponent and the first 4 of the fraction.
    fn of_double(bits: u64, top: u16) -> Self {
        let (negative, biased) = (top >> 15 == 1, (top >> 4) & 0x7ff);
        let whole = 1_u64 << 52; // the bit before the binary point, which is not written
        let fraction = bits & (whole - 1);
        let (coefficient, exponent) = match biased {
            0x7ff if fraction > 0 => return Self::without_size(Place::NotANumber),
            0x7ff => return Self::infinite(negative),
            0 => (fraction, -1074),
            _ => (fraction | whole, i32::from(biased) - 1075),
        };
        Self::finite(negative, Size { coefficient: coefficient.into(), base: 2, exponent })
    }

    /// Of the bits of a decimal, the 16 at the `top` are the sign, 14 of exponent and the first of the coefficient.
    fn of_decimal(bits: u128, top: u16) -> Self {
        let (negative, biased) = (top >> 15 == 1, (top >> 1) & 0x3fff);
        let coefficient = bits & ((1 << 113) - 1);
        match biased >> 9 {
            0x1f => Self::without_size(Place::NotANumber),
            0x1e => Self::infinite(negative),
            0x18..=0x1d => Self::without_size(Place::Zero), // the form for coefficients that are too large
            _ if coefficient > COEFFICIENT_MAX => Self::without_size(Place::Zero),
            _ => Self::finite(negative, Size { coefficient, base: 10, exponent: i32::from(biased) - 6176 }),
        }
    }

    fn finite(negative: bool, size: Size) -> Self {
        let place = match (size.coefficient, negative) {
            (0, _) => Place::Zero,
            (_, true) => Place::Negative,
            (_, false) => Place::Positive,
        };
        Self { place, size }
    }

    fn infinite(negative: bool) -> Self {
        Self::without_size(if negative { Place::MinusInfinity } else { Place::Infinity })
    }

    const fn without_size(place: Place) -> Self {
        Self { place, size: Size { coefficient: 0, base: 2, exponent: 0 } }
    }

    fn compare(self, other: Self) -> Ordering {
        self.place.cmp(&other.place).then_with(|| match self.place {
            Place::Negative => other.size.compare(self.size),
            Place::Positive => self.size.compare(other.size),
            _ => Ordering::Equal,
        })
    }
}

impl Size {
    fn compare(self, other: Self) -> Ordering {
        // What has no exponent is the same in any base.
        if self.base == other.base || other.exponent == 0 {
            self.compare_in(self.base, other)
        } else if self.exponent == 0 {
            self.compare_in(other.base, other)
        } else if other.base == 10 {
            compare_double_with_decimal(self, other)
        } else {
            compare_double_with_decimal(other, self).reverse()
        }
    }

    fn compare_in(self, base: u32, other: Self) -> Ordering {
        self.top(base).cmp(&other.top(base)).then_with(|| {
            // The highest digits stand at the same place, so the one that is filled up does not outgrow the other.
            let lowest = self.exponent.min(other.exponent);
            let filled_up = |size: Self| {
                let factor = u128::from(base).saturating_pow(size.exponent.abs_diff(lowest));
                size.coefficient.saturating_mul(factor)
            };
            filled_up(self).cmp(&filled_up(other))
        })
    }

    /// The exponent of the highest digit in `base`, which must be that of the exponent.
    fn top(self, base: u32) -> i32 {
        self.exponent + self.coefficient.checked_ilog(base.into()).unwrap_or(0).cast_signed()
    }
}

fn compare_double_with_decimal(double: Size, decimal: Size) -> Ordering {
    let top = decimal.top(10);
    if top > DOUBLE_TOP_MAX {
        return Ordering::Less;
    }
    if top < DOUBLE_TOP_MIN {
        return Ordering::Greater;
    }
    // A negative power of one side is a positive one of the other.
    let whole = |size: Size, other: Size| {
        long_product(size.coefficient, [(size.base, size.exponent), (other.base, -other.exponent)])
    };
    let (left, right) = (whole(double, decimal), whole(decimal, double));
    left.len().cmp(&right.len()).then_with(|| left.iter().rev().cmp(right.iter().rev()))
}

/// `coefficient` times those powers that are whole: its digits in `LONG_BASE`, the lowest first, without zeros above.
fn long_product(coefficient: u128, powers: [(u32, i32); 2]) -> Vec<u128> {
    let mut digits = vec![coefficient % LONG_BASE, coefficient / LONG_BASE];
    for (base, exponent) in powers {
        let mut missing = exponent.max(0).unsigned_abs();
        while missing > 0 {
            let step = missing.min(STEP_MAX);
            multiply(&mut digits, u128::from(base).pow(step));
            missing -= step;
        }
    }
    while digits.last() == Some(&0) {
        digits.pop();
    }
    digits
}

/// Multiplies a long number by a `factor` below `LONG_BASE`.
fn multiply(digits: &mut Vec<u128>, factor: u128) {
    let mut carry = 0;
    for digit in digits.iter_mut() {
        let product = *digit * factor + carry;
        *digit = product % LONG_BASE;
        carry = product / LONG_BASE;
    }
    if carry > 0 {
        digits.push(carry);
    }
}

#[cfg(test)]
mod tests {
    use bson::Decimal128;
    use proptest::prelude::*;

    use super::*;

    type Value = (u8, Vec<u8>);

    fn int(value: i32) -> Value {
        (0x10, value.to_le_bytes().to_vec())
    }

    fn long(value: i64) -> Value {
        (0x12, value.to_le_bytes().to_vec())
    }

    fn double(value: f64) -> Value {
        (0x01, value.to_le_bytes().to_vec())
    }

    fn decimal(text: &str) -> Value {
        (0x13, text.parse::<Decimal128>().unwrap().bytes().to_vec())
    }

    fn decimal_of(negative: bool, coefficient: u128, exponent: i32) -> Value {
        let biased = u128::try_from(exponent + 6176).unwrap();
        bits((u128::from(negative) << 127) | (biased << 113) | coefficient)
    }

    fn bits(bits: u128) -> Value {
        (0x13, bits.to_le_bytes().to_vec())
    }

    fn element((kind, value): &Value) -> Element<'_> {
        Element { kind: *kind, name: b"", value: value.as_slice() }
    }

    fn compare(left: &Value, right: &Value) -> Ordering {
        compare_numbers(&element(left), &element(right))
    }

    /// Every line is one value; each is above the one before.
    fn lines() -> Vec<Vec<Value>> {
        vec![
            vec![double(f64::NAN), double(-f64::NAN), decimal("NaN"), bits(0xfe00_beef << 96)],
            vec![double(f64::NEG_INFINITY), decimal("-Infinity"), bits((0xf8ff << 112) | 7)],
            vec![decimal("-1E+6144")],
            vec![decimal("-1.797693134862315708145274237317044E+308")],
            vec![double(f64::MIN)],
            vec![decimal("-1.797693134862315708145274237317043E+308")],
            vec![decimal("-9223372036854775808.1")],
            vec![long(i64::MIN), double(-(2_f64.powi(63))), decimal("-9223372036854775808")],
            vec![long(i64::MIN + 1)],
            vec![int(-2), decimal("-2.0")],
            vec![double(-1.5), decimal("-1.50"), decimal_of(true, 15, -1)],
            vec![double(-f64::from_bits(1))],
            vec![decimal_of(true, 1, -6176)],
            vec![
                int(0),
                long(0),
                double(0.0),
                double(-0.0),
                decimal("0"),
                decimal_of(true, 0, 6111),
                decimal_of(false, COEFFICIENT_MAX + 1, 0),
                bits((0x6c10 << 112) | 7),
            ],
            vec![decimal_of(false, 1, -6176)],
            vec![decimal("4.940656458412465441765687928682213E-324")],
            vec![double(f64::from_bits(1))],
            vec![decimal("4.940656458412465441765687928682214E-324")],
            vec![double(f64::MIN_POSITIVE)],
            vec![decimal("0.1"), decimal("0.1000")],
            vec![decimal("0.1000000000000000055511151231257827")],
            vec![double(0.1)],
            vec![decimal("0.1000000000000000055511151231257828")],
            vec![int(1), long(1), double(1.0), decimal("1"), decimal("1.000"), decimal("10E-1")],
            vec![long(1 << 53), double(2_f64.powi(53)), decimal("9007199254740992")],
            vec![long((1 << 53) + 1), decimal("9007199254740993.0")],
            vec![decimal("9007199254740993.5")],
            vec![long((1 << 53) + 2), double(2_f64.powi(53) + 2.0)],
            vec![decimal("9223372036854775806.9999")],
            vec![long(i64::MAX), decimal("9223372036854775807")],
            vec![double(2_f64.powi(63)), decimal("9223372036854775808")],
            vec![decimal("9223372036854775808.1")],
            vec![double(1e22), decimal("1E+22")],
            vec![decimal("1.797693134862315708145274237317043E+308")],
            vec![double(f64::MAX)],
            vec![decimal("1.797693134862315708145274237317044E+308")],
            vec![decimal("1E+309")],
            vec![decimal_of(false, COEFFICIENT_MAX, 6111)],
            vec![double(f64::INFINITY), decimal("Infinity")],
        ]
    }

    #[test]
    fn numbers_stand_by_their_exact_values() {
        let lines = lines().into_iter().enumerate();
        let all: Vec<(usize, Value)> =
            lines.flat_map(|(n, line)| line.into_iter().map(move |it| (n, it))).collect();
        for (n, left) in &all {
            for (m, right) in &all {
                assert_eq!(compare(left, right), n.cmp(m), "{left:x?} (line {n}) and {right:x?} (line {m})");
            }
        }
    }

    fn any_number() -> impl Strategy<Value = Value> {
        prop_oneof![
            (-3_i32..4).prop_map(int),
            any::<i64>().prop_map(long),
            (-20_i32..20).prop_map(|quarters| double(f64::from(quarters) / 4.0)),
            any::<u64>().prop_map(|bits| double(f64::from_bits(bits))),
            (any::<bool>(), 0_u128..50, -3_i32..3).prop_map(|(minus, many, of)| decimal_of(minus, many, of)),
            any::<u128>().prop_map(bits),
        ]
    }

    proptest! {
        #[test]
        fn integers_and_doubles_agree(many in any::<i32>(), power in 0_i32..=31, off in -2_i64..=2) {
            let exact = i64::from(many) << power;
            let order = compare(&double(f64::from(many) * 2_f64.powi(power)), &long(exact + off));
            prop_assert_eq!(order, 0_i64.cmp(&off));
        }

        #[test]
        fn doubles_and_decimals_agree(many in any::<i32>(), power in -35_i32..=80, off in -2_i128..=2) {
            let factor = if power < 0 { 5_i128.pow(power.unsigned_abs()) } else { 1 << power };
            let near = i128::from(many) * factor + off;
            let near = decimal_of(near < 0, near.unsigned_abs(), power.min(0));
            prop_assert_eq!(compare(&double(f64::from(many) * 2_f64.powi(power)), &near), 0_i128.cmp(&off));
            let thousands = decimal_of(many < 0, many.unsigned_abs().into(), 3);
            prop_assert_eq!(compare(&double(f64::from(many) * 1000.0), &thousands), Ordering::Equal);
        }

        /// Written with 781 digits a double is exact, so its first 34 digits make the decimals around it.
        #[test]
        fn a_double_stands_between_the_decimals_around_it(bits in any::<u64>()) {
            let value = f64::from_bits(bits).abs();
            prop_assume!(value.is_finite() && value > 0.0);
            let written = format!("{value:.780e}");
            let (digits, exponent) = written.split_once('e').unwrap();
            let digits = digits.replace('.', "");
            let (first, rest) = digits.split_at(34);
            let (first, exponent) = (first.parse::<u128>().unwrap(), exponent.parse::<i32>().unwrap() - 33);
            let is_all = rest.bytes().all(|digit| digit == b'0');
            let expected = if is_all { Ordering::Equal } else { Ordering::Less };
            prop_assert_eq!(compare(&decimal_of(false, first, exponent), &double(value)), expected);
            prop_assert_eq!(compare(&decimal_of(true, first, exponent), &double(-value)), expected.reverse());
            let above = decimal_of(false, first + 1, exponent);
            prop_assert_eq!(compare(&above, &double(value)), Ordering::Greater);
        }

        #[test]
        fn the_order_is_total(one in any_number(), two in any_number(), three in any_number()) {
            prop_assert_eq!(compare(&one, &two), compare(&two, &one).reverse());
            prop_assert_eq!(compare(&one, &one), Ordering::Equal);
            let (first, second) = (compare(&one, &two), compare(&two, &three));
            if first == second || second.is_eq() {
                prop_assert_eq!(compare(&one, &three), first);
            }
        }
    }
}
