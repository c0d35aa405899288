//! Reads the numbers of a JSON array.
//!
//! The usual number is an optional minus, a few digits, perhaps a point and some more digits, and a comma. It is read eight
//! characters at a time in the lanes of a `u64` ("SIMD within a register", as in D. Lemire, "Number parsing at a gigabyte per
//! second", 2021), without a branch for each character. A decimal of at most 2^53 over a power of ten up to 10^22 is exact in
//! both, so that one division rounds it correctly (W. D. Clinger, "How to read floating point numbers accurately", 1990).
//! Longer ones, up to what a `u64` holds, are divided as integers. Any other number is checked against the grammar and read by
//! the standard library.

use crate::buffer::Element;

/// A type of numbers that arrays in JSON are read as. The values are those that serde_json reads.
pub(super) trait JsonNumber: Element {
    /// Converts an integer; `None` if it is out of range.
    fn of_integer(magnitude: u64, is_negative: bool) -> Option<Self>;

    /// Converts `mantissa` over 10 to the power of `places`, at most 24; `None` if that needs more care, or if the type has
    /// no fractions.
    fn of_decimal(mantissa: u64, places: usize, is_negative: bool) -> Option<Self>;

    /// Converts a number of JSON's grammar that has a fraction or an exponent; `None` if it is out of range, or if the type has
    /// no fractions.
    fn of_text(text: &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($type:ident)*) => {$(
        impl JsonNumber for $type {
            #[inline(always)]
            fn of_integer(magnitude: u64, is_negative: bool) -> Option<Self> {
                if is_negative {
                    // -0 is a floating-point number.
                    if magnitude == 0 { None } else { 0_i64.checked_sub_unsigned(magnitude)?.try_into().ok() }
                } else {
                    magnitude.try_into().ok()
                }
            }

            #[inline(always)]
            fn of_decimal(_: u64, _: usize, _: bool) -> Option<Self> {
                None
            }

            fn of_text(_: &[u8]) -> Option<Self> {
                None
            }
        }
    )*};
}
integers! { u32 i32 u64 i64 }

/// The powers of ten that short decimals are divided by.
const POWERS_OF_TEN: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Integers up to this one are exact in an `f64`.
const MAX_EXACT: u64 = 1 << 53;

impl JsonNumber for f64 {
    #[inline(always)]
    fn of_integer(magnitude: u64, is_negative: bool) -> Option<Self> {
        let value = magnitude as f64;
        Some(if is_negative { -value } else { value })
    }

    #[inline(always)]
    fn of_decimal(mantissa: u64, places: usize, is_negative: bool) -> Option<Self> {
        // Numbers of 16 and 17 places come mixed, and are read alike, as a branch between them would be mispredicted.
        let value = match POWERS_OF_TEN.get(places) {
            Some(power) if mantissa <= MAX_EXACT => mantissa as f64 / power,
            _ => rounded_quotient(mantissa, *INTEGER_POWERS_OF_TEN.get(places)?),
        };
        Some(if is_negative { -value } else { value })
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        str::from_utf8(text).ok()?.parse().ok().filter(|value: &Self| value.is_finite())
    }
}

/// Divides two integers, and rounds the quotient to the nearest `f64`, or to the even one of two.
#[inline(never)]
fn rounded_quotient(dividend: u64, divisor: u64) -> f64 {
    if dividend == 0 {
        return 0.0;
    }
    // With both of 64 bits, the quotient has 63 or 64: ten more than an `f64`. Whether anything remains decides only between
    // two that are equally near, which the last bit can tell as well.
    let (dividend_zeros, divisor_zeros) = (dividend.leading_zeros(), divisor.leading_zeros());
    let dividend = u128::from(dividend << dividend_zeros) << 63;
    let divisor = u128::from(divisor << divisor_zeros);
    let quotient = (dividend / divisor) as u64;
    let remains = u128::from(quotient) * divisor != dividend;
    let exponent = u64::from(1023 - 63 - dividend_zeros + divisor_zeros);
    (quotient | u64::from(remains)) as f64 * f64::from_bits(exponent << 52)
}

impl JsonNumber for f32 {
    #[inline(always)]
    fn of_integer(magnitude: u64, is_negative: bool) -> Option<Self> {
        let value = magnitude as f32;
        // serde_json rounds integers below the range of `i64` to an `f64` first.
        (!is_negative || magnitude <= i64::MIN.unsigned_abs()).then_some(if is_negative { -value } else { value })
    }

    #[inline(always)]
    fn of_decimal(mantissa: u64, places: usize, is_negative: bool) -> Option<Self> {
        /// The bits of an `f64` that an `f32` does not have, and those of the number halfway between two of the latter.
        const REST: u64 = (1 << 29) - 1;
        const HALFWAY: u64 = 1 << 28;
        let value = f64::of_decimal(mantissa, places, is_negative)?;
        // It was rounded to 53 bits, and rounding it again to 24 goes the same way, unless the first one led to the point from
        // which the second goes either way. All values here are normal as an `f32`, or 0.
        (value.to_bits() & REST != HALFWAY).then_some(value as f32)
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        str::from_utf8(text).ok()?.parse().ok().filter(|value: &Self| value.is_finite())
    }
}

/// Numbers between two calls of `check`.
const STRIDE: usize = 4096;

/// Reads the numbers of an array from `at`, where the first one starts, and returns them with the place of the closing
/// bracket. `None` if there is anything else than numbers of this type, or if `check`, which is called now and then, is false.
pub(super) fn read_numbers<T: JsonNumber>(
    text: &[u8],
    mut at: usize,
    mut check: impl FnMut() -> bool,
) -> Option<(Vec<T>, usize)> {
    /// Numbers for which there is room at first, in short texts as well.
    const FIRST: usize = 64;
    let mut numbers = Vec::with_capacity(FIRST.min(text.len().saturating_sub(at) / 2));
    loop {
        let rest = text.get(at..)?;
        if let Some((number, length)) = usual_number(window_of(rest, &mut [0; WINDOW])) {
            numbers.push(number);
            at += length;
        } else {
            let (number, length) = any_number(rest)?;
            numbers.push(number);
            at = skip_whitespace(text, at + length);
        }
        match text.get(at)? {
            b',' => at += 1,
            b']' => return Some((numbers, at)),
            _ => return None,
        }
        if let Some(b' ' | b'\n' | b'\t' | b'\r') = text.get(at) {
            at = skip_whitespace(text, at);
        }
        if numbers.len().is_multiple_of(STRIDE) && !check() {
            return None;
        }
    }
}

pub(super) fn skip_whitespace(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// More than the longest number that [`usual_number`] reads, and what follows it.
const WINDOW: usize = 40;

/// The start of the text, with zeros after its end, which are in no number.
#[inline(always)]
fn window_of<'a>(text: &'a [u8], padded: &'a mut [u8; WINDOW]) -> &'a [u8; WINDOW] {
    text.first_chunk().unwrap_or_else(|| {
        padded[..text.len()].copy_from_slice(text);
        padded
    })
}

/// Reads a number that a comma or the end of the array follows, if it is one of the usual ones, and returns it with its
/// length.
#[inline(always)]
fn usual_number<T: JsonNumber>(window: &[u8; WINDOW]) -> Option<(T, usize)> {
    let first = lanes_at(window, 0);
    let is_negative = window[0] == b'-';
    let start = usize::from(is_negative);
    let ends = lanes_equal(first, b',') | lanes_equal(first, b']');
    if ends != 0 {
        let length = ends.trailing_zeros() / 8;
        let number = first >> (8 * start);
        return Some((in_seven(number, length - u32::from(is_negative), is_negative)?, length as usize));
    }
    let (whole, whole_digits) = digits_at(window, start);
    if whole_digits == 0 || has_leading_zero(window, start, whole_digits) {
        return None;
    }
    let point = start + whole_digits;
    if window[point] != b'.' {
        let (more, more_digits) = if whole_digits == 8 { digits_at(window, point) } else { (0, 0) };
        let end = point + more_digits;
        let magnitude = whole * INTEGER_POWERS_OF_TEN[more_digits] + more;
        return if ends_number(window[end]) { Some((T::of_integer(magnitude, is_negative)?, end)) } else { None };
    }
    let (fraction, mut places) = digits_at(window, point + 1);
    // Nineteen digits are sure to fit.
    if whole_digits > if places == 8 { 3 } else { 8 } {
        return None;
    }
    let mut mantissa = whole * INTEGER_POWERS_OF_TEN[places] + fraction;
    if places == 8 {
        let (more, more_places) = digits_at(window, point + 9);
        mantissa = mantissa * INTEGER_POWERS_OF_TEN[more_places] + more;
        places += more_places;
    }
    if places == 16 {
        let (more, more_places) = digits_at(window, point + 17);
        // If it overflows, the digits that follow are found below.
        if let Some(longer) = mantissa.checked_mul(INTEGER_POWERS_OF_TEN[more_places])
            && let Some(longer) = longer.checked_add(more)
        {
            mantissa = longer;
            places += more_places;
        }
    }
    let mut end = point + 1 + places;
    if ends_number(window[end]) && places > 0 {
        return Some((T::of_decimal(mantissa, places, is_negative).or_else(|| T::of_text(&window[..end]))?, end));
    }
    // Seventeen digits are what it takes to tell any two numbers apart, and leading zeros come on top.
    while end < WINDOW - 2 && window[end].is_ascii_digit() {
        end += 1;
    }
    if !ends_number(window[end]) || places < 16 {
        return None;
    }
    Some((T::of_text(&window[..end])?, end))
}

fn ends_number(byte: u8) -> bool {
    matches!(byte, b',' | b']')
}

/// Reads a number of `length` characters, at most seven, without its sign. The first character is in the lowest byte.
#[inline(always)]
fn in_seven<T: JsonNumber>(text: u64, length: u32, is_negative: bool) -> Option<T> {
    let bits = 8 * length;
    let digits = text ^ lanes(b'0');
    let others = others_than_digits(digits) & ((1 << bits) - 1);
    if others == 0 {
        if length == 0 || (digits as u8 == 0 && length > 1) {
            return None;
        }
        return T::of_integer(value_of_digits(digits << (64 - bits)), is_negative);
    }
    let before_point = (others >> 7) - 1;
    let point = others.trailing_zeros() & !7;
    let is_single = others & (others - 1) == 0;
    let places = bits / 8 - point / 8 - 1;
    if !is_single || (text >> point) as u8 != b'.' || point == 0 || places == 0 || (digits as u8 == 0 && point > 8) {
        return None;
    }
    let without_point = (digits & before_point) | ((digits >> 8) & !before_point);
    T::of_decimal(value_of_digits(without_point << (72 - bits)), places as usize, is_negative)
}

/// The powers of ten that a `u64` holds.
const INTEGER_POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = 10 * powers[at - 1];
        at += 1;
    }
    powers
};

/// Eight times the same byte.
pub(super) const fn lanes(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

#[inline(always)]
fn lanes_at(window: &[u8; WINDOW], at: usize) -> u64 {
    u64::from_le_bytes(*window[at..].first_chunk().expect("eight bytes within the window"))
}

/// The highest bit of the first lane that has this value, and perhaps of lanes after it.
#[inline(always)]
pub(super) fn lanes_equal(text: u64, byte: u8) -> u64 {
    let zero_if_equal = text ^ lanes(byte);
    zero_if_equal.wrapping_sub(lanes(1)) & !zero_if_equal & lanes(0x80)
}

/// The highest bit of each lane of more than 9.
#[inline(always)]
fn others_than_digits(digits: u64) -> u64 {
    (((digits & lanes(0x7f)) + lanes(0x76)) | digits) & lanes(0x80)
}

/// Reads up to eight digits, and returns their value and how many there are.
#[inline(always)]
fn digits_at(window: &[u8; WINDOW], at: usize) -> (u64, usize) {
    let digits = lanes_at(window, at) ^ lanes(b'0');
    let bits = others_than_digits(digits).trailing_zeros() & !7;
    // Zeros come in before the digits. There is no shift by 64.
    let aligned = if bits == 0 { 0 } else { digits << (64 - bits) };
    (value_of_digits(aligned), (bits / 8) as usize)
}

/// The value of eight digits, the first in the lowest lane: pairs of them first, and then pairs of pairs.
#[inline(always)]
fn value_of_digits(digits: u64) -> u64 {
    const EVERY_FOURTH: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let odd = (pairs & EVERY_FOURTH).wrapping_mul((1_000_000 << 32) + 100);
    let even = ((pairs >> 16) & EVERY_FOURTH).wrapping_mul((10_000 << 32) + 1);
    odd.wrapping_add(even) >> 32
}

fn has_leading_zero(text: &[u8], start: usize, digits: usize) -> bool {
    text[start] == b'0' && digits > 1
}

/// Reads any number, and returns it with its length.
#[inline(never)]
fn any_number<T: JsonNumber>(text: &[u8]) -> Option<(T, usize)> {
    let token = Token::of(text)?;
    let value = match token.integer {
        Some(magnitude) => T::of_integer(magnitude, token.is_negative)?,
        None => T::of_text(&text[..token.length])?,
    };
    Some((value, token.length))
}

/// A number of JSON's grammar.
pub(super) struct Token {
    pub(super) is_negative: bool,
    /// The magnitude, of a number that has neither a fraction nor an exponent.
    pub(super) integer: Option<u64>,
    pub(super) length: usize,
}

impl Token {
    /// Reads the number at the start of the text. `None` if there is none, or an integer that no type holds.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let digits_from =
            |at: usize| text[at.min(text.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_negative = text.first() == Some(&b'-');
        let start = usize::from(is_negative);
        let whole_digits = digits_from(start);
        if whole_digits == 0 || has_leading_zero(text, start, whole_digits) {
            return None;
        }
        let mut at = start + whole_digits;
        let mut is_integer = true;
        if text.get(at) == Some(&b'.') {
            is_integer = false;
            let places = digits_from(at + 1);
            if places == 0 {
                return None;
            }
            at += 1 + places;
        }
        if let Some(b'e' | b'E') = text.get(at) {
            is_integer = false;
            at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
            let digits = digits_from(at);
            if digits == 0 {
                return None;
            }
            at += digits;
        }
        let integer = if is_integer { Some(str::from_utf8(&text[start..at]).ok()?.parse().ok()?) } else { None };
        Some(Self { is_negative, integer, length: at })
    }
}
