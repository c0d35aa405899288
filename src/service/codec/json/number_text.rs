//! Writes numbers as text.
//!
//! The text is the one that serde_json writes: of a floating-point number, the shortest decimal that reads back as the number,
//! and of those the nearest. These are written by code of our own, three digits at a time from a table, or eight at a time in
//! the lanes of a `u64`:
//! - Integers.
//! - Floating-point numbers of up to three places, such as prices. Among the multiples of 1/1000, which are further apart than
//!   the numbers of the type, at most one reads back as the number. So that one is the shortest, without its trailing zeros.
//! - Other floating-point numbers that have no exponent in their text, by the method of R. Giulietti, "The Schubfach way to
//!   render doubles", 2020. Their binary exponents are small, so that all products are exact.
//!
//! All others are written by the crate that serde_json uses as well.

use std::hint::select_unpredictable;
use std::ops::Range;

use crate::buffer::{Bf16, Element, F16};

/// The space that a number is written to. It is longer than any text, so that whole words can be stored.
pub(super) const ROOM: usize = 40;

/// A type of numbers that arrays in JSON are written from.
pub(super) trait NumberText: Element {
    /// Writes the number to the start of the room, and returns where it ends. What is after that end is of no meaning.
    fn write(self, room: &mut [u8; ROOM]) -> usize;
}

macro_rules! integers {
    ($($type:ident)*) => {$(
        impl NumberText for $type {
            #[inline]
            fn write(self, room: &mut [u8; ROOM]) -> usize {
                #[allow(unused_comparisons, reason = "of unsigned types")]
                let is_negative = self < 0;
                // Extended first, as the least number of a type has no counterpart in it.
                let extended = self as u64;
                let magnitude = if is_negative { extended.wrapping_neg() } else { extended };
                room[0] = b'-';
                write_integer(room, usize::from(is_negative), magnitude)
            }
        }
    )*};
}
integers! { u8 u32 i32 u64 i64 }

macro_rules! half_floats {
    ($($type:ident)*) => {$(
        impl NumberText for $type {
            #[inline]
            fn write(self, room: &mut [u8; ROOM]) -> usize {
                self.to_f32().write(room)
            }
        }
    )*};
}
half_floats! { F16 Bf16 }

/// An `f64` from this one on has no places, so that adding it rounds to an integer, which is in the lowest bits then.
const NO_PLACES: f64 = (1_u64 << 52) as f64;

impl NumberText for f64 {
    #[inline]
    fn write(self, room: &mut [u8; ROOM]) -> usize {
        const BITS: u32 = f64::MANTISSA_DIGITS - 1;
        let magnitude = self.abs();
        if !has_no_exponent(magnitude, 1e-5..1e9) {
            return write_any(room, self);
        }
        room[0] = b'-';
        let start = usize::from(self.is_sign_negative());
        let rounded = 1000.0 * magnitude + NO_PLACES;
        // An exact quotient, rounded once: what a reader makes of the decimal.
        if magnitude < 1e6 && (rounded - NO_PLACES) / 1000.0 == magnitude {
            return write_thousandths(room, start, rounded.to_bits() as u32);
        }
        let bits = magnitude.to_bits();
        let mantissa = bits & ((1 << BITS) - 1);
        let binary_places = BITS + 1023 - (bits >> BITS) as u32;
        // Around a power of two, the numbers below are closer than those above.
        if mantissa != 0
            && let Some(end) = write_shortest::<true>(room, start, mantissa | 1 << BITS, binary_places)
        {
            return end;
        }
        write_any(room, self)
    }
}

impl NumberText for f32 {
    #[inline]
    fn write(self, room: &mut [u8; ROOM]) -> usize {
        const BITS: u32 = f32::MANTISSA_DIGITS - 1;
        /// From here on, thousandths are no further apart than numbers.
        const END_OF_THOUSANDTHS: f32 = (1 << 14) as f32;
        let magnitude = self.abs();
        if !has_no_exponent(magnitude, 1e-5..4e6) {
            return write_any(room, self);
        }
        room[0] = b'-';
        let start = usize::from(self.is_sign_negative());
        let rounded = 1000.0 * f64::from(magnitude) + NO_PLACES;
        // Below 2^24, so that the dividend is exact in an `f32` too.
        if magnitude < END_OF_THOUSANDTHS && (rounded - NO_PLACES) as Self / 1000.0 == magnitude {
            return write_thousandths(room, start, rounded.to_bits() as u32);
        }
        let bits = magnitude.to_bits();
        let mantissa = bits & ((1 << BITS) - 1);
        let binary_places = BITS + 127 - (bits >> BITS);
        if mantissa != 0
            && let Some(end) = write_shortest::<false>(room, start, u64::from(mantissa | 1 << BITS), binary_places)
        {
            return end;
        }
        write_any(room, self)
    }
}

/// Whether a number is written without an exponent: one in this range, whose start is 1e-5, and zero.
fn has_no_exponent<T: PartialOrd + Default>(magnitude: T, range: Range<T>) -> bool {
    range.contains(&magnitude) || magnitude == T::default()
}

#[inline(never)]
fn write_any<T: zmij::Float + Into<f64> + Copy>(room: &mut [u8; ROOM], number: T) -> usize {
    let mut buffer = zmij::Buffer::new();
    let text = if number.into().is_finite() { buffer.format_finite(number) } else { "null" };
    room[..text.len()].copy_from_slice(text.as_bytes());
    text.len()
}

#[inline]
fn write_thousandths(room: &mut [u8; ROOM], start: usize, thousandths: u32) -> usize {
    let point = write_below_billion(room, start, thousandths / 1000);
    room[point] = b'.';
    write_three(room, point + 1, PLACES[(thousandths % 1000) as usize])
}

const POWERS_OF_TEN: [u64; 17] = powers(10);
const POWERS_OF_FIVE: [u64; 21] = powers(5);

const fn powers<const N: usize>(base: u64) -> [u64; N] {
    let mut powers = [1; N];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = base * powers[at - 1];
        at += 1;
    }
    powers
}

/// Writes the shortest decimal that reads back as `mantissa`, of at most 53 bits, over 2^`binary_places`, which has up to 16
/// digits after the zeros that follow its point, or 17 if `IS_LONG`. `None` if two decimals are equally near.
#[inline(always)]
fn write_shortest<const IS_LONG: bool>(
    room: &mut [u8; ROOM],
    start: usize,
    mantissa: u64,
    binary_places: u32,
) -> Option<usize> {
    let whole_bits = binary_places.min(63);
    let (whole, fraction) = (mantissa >> whole_bits, mantissa & ((1 << whole_bits) - 1));
    // A unit of as many decimal places is 1 to 10 times as wide as what reads back as the number.
    let places = (binary_places * 1233) >> 12;
    let width = *POWERS_OF_FIVE.get(places as usize)?;
    let (units, tenths) = shortest(fraction, width, binary_places - places)?;
    let places = places as usize;
    // Where there are more than 15 places, the tenths are a place of their own.
    let sixteen_places = (10 * units + tenths) * POWERS_OF_TEN[15 - places.min(15)];
    if sixteen_places == POWERS_OF_TEN[16] {
        return None;
    }
    let point = write_below_billion(room, start, whole as u32);
    if !IS_LONG {
        room[point] = b'.';
        return Some(write_sixteen(room, point + 1, sixteen_places));
    }
    let is_long = places > 15;
    let sixteen_places = select_unpredictable(is_long, units, sixteen_places);
    let tenths = select_unpredictable(is_long, tenths, 0);
    // The units of more than 16 places have no more than 16 digits.
    room[point..point + 8].copy_from_slice(b".0000000");
    let at = point + 1 + places.saturating_sub(16);
    let end = write_sixteen(room, at, sixteen_places);
    room[at + 16] = b'0' + tenths as u8;
    Some(select_unpredictable(tenths == 0, end, at + 17))
}

/// Returns the shortest decimal that reads back as `fraction` times `width` over 2^`shift`, in units and tenths of a unit.
/// Decimals within half a `width` read back as the number. `None` if two are equally near.
#[inline(always)]
fn shortest(fraction: u64, width: u64, shift: u32) -> Option<(u64, u64)> {
    let number = u128::from(fraction) * u128::from(width);
    let units = (number >> (shift & 63)) as u64;
    // Parts of a unit are in units of 2^-64. Those of an odd mantissa do not read back from the very ends of its width.
    let rest = (number as u64) << ((64 - shift) & 63);
    let half_width = (width << ((63 - shift) & 63)) - (fraction & 1);
    let rounds_up = rest.overflowing_add(half_width).1;
    let rounds_down = rest <= half_width;
    let tenths = 10 * u128::from(rest);
    if tenths as u64 == 1 << 63 {
        return None;
    }
    let nearest_tenth = ((tenths + (1 << 63)) >> 64) as u64;
    // One number in two has tenths: a branch would be mispredicted.
    let tenths = select_unpredictable(rounds_up | rounds_down, 0, nearest_tenth);
    Some((units + u64::from(rounds_up), tenths))
}

/// Writes 16 places with their trailing zeros, and returns where they end without these, of which the first stays.
#[inline(always)]
fn write_sixteen(room: &mut [u8; ROOM], at: usize, places: u64) -> usize {
    let (first, second) = (places / 100_000_000, places % 100_000_000);
    let (first, second) = (digits_of(first as u32), digits_of(second as u32));
    // All of them, as a seventeenth place may follow.
    write_eight(room, at, first);
    write_eight(room, at + 8, second);
    if second == 0 {
        return at + without_zeros(first).max(1);
    }
    at + 8 + without_zeros(second)
}

#[inline]
fn write_eight(room: &mut [u8; ROOM], at: usize, digits: u64) {
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    room[at..at + 8].copy_from_slice(&(digits | ZEROS).to_le_bytes());
}

/// The number of digits without the zeros at their end.
#[inline]
fn without_zeros(digits: u64) -> usize {
    8 - (digits.leading_zeros() / 8) as usize
}

/// The eight digits of a number below 10^8, the first in the lowest lane. Lanes are halved three times, each into the quotient
/// and the remainder of a division, which is a multiplication and a shift.
#[inline]
fn digits_of(number: u32) -> u64 {
    let number = u64::from(number);
    let high = number / 10_000;
    let fours = high + ((number - high * 10_000) << 32);
    let high = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = high + ((fours - high * 100) << 16);
    let high = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    high + ((twos - high * 10) << 8)
}

/// Three digits, and how many of them are left without the zeros at one end, of which the last one stays.
type ThreeDigits = [u8; 4];

/// With zeros at the start, and the number of digits without those at the end.
static PLACES: [ThreeDigits; 1000] = three_digits(false);

/// Without zeros at the start.
static WHOLES: [ThreeDigits; 1000] = three_digits(true);

const fn three_digits(is_whole: bool) -> [ThreeDigits; 1000] {
    let mut table = [[0; 4]; 1000];
    let mut number = 0;
    while number < table.len() {
        let digits = [(number / 100) as u8 + b'0', (number / 10 % 10) as u8 + b'0', (number % 10) as u8 + b'0'];
        let [a, b, c] = digits;
        table[number] = match (is_whole, number) {
            (true, 100..) => [a, b, c, 3],
            (true, 10..) => [b, c, 0, 2],
            (true, _) => [c, 0, 0, 1],
            (false, _) if c != b'0' => [a, b, c, 3],
            (false, _) if b != b'0' => [a, b, c, 2],
            (false, _) => [a, b, c, 1],
        };
        number += 1;
    }
    table
}

/// Writes digits and what follows them in the table, and returns where they end.
#[inline]
fn write_three(room: &mut [u8; ROOM], at: usize, digits: ThreeDigits) -> usize {
    room[at..at + 4].copy_from_slice(&digits);
    at + usize::from(digits[3])
}

#[inline]
fn write_integer(room: &mut [u8; ROOM], start: usize, magnitude: u64) -> usize {
    const BILLION: u64 = 1_000_000_000;
    if magnitude < BILLION {
        return write_below_billion(room, start, magnitude as u32);
    }
    let (high, low) = (magnitude / BILLION, (magnitude % BILLION) as u32);
    let at = if high < BILLION {
        write_below_billion(room, start, high as u32)
    } else {
        let at = write_below_billion(room, start, (high / BILLION) as u32);
        write_nine(room, at, (high % BILLION) as u32)
    };
    write_nine(room, at, low)
}

/// Writes nine digits, with zeros at the start, and returns where they end.
#[inline]
fn write_nine(room: &mut [u8; ROOM], at: usize, digits: u32) -> usize {
    write_three(room, at, PLACES[(digits / 1_000_000) as usize]);
    write_three(room, at + 3, PLACES[(digits / 1000 % 1000) as usize]);
    write_three(room, at + 6, PLACES[(digits % 1000) as usize]);
    at + 9
}

/// Writes a whole number below 10^9, and returns where it ends.
#[inline]
fn write_below_billion(room: &mut [u8; ROOM], start: usize, whole: u32) -> usize {
    if whole < 1000 {
        write_three(room, start, WHOLES[whole as usize])
    } else if whole < 1_000_000 {
        let at = write_three(room, start, WHOLES[(whole / 1000) as usize]);
        write_three(room, at, PLACES[(whole % 1000) as usize]);
        at + 3
    } else {
        let at = write_three(room, start, WHOLES[(whole / 1_000_000) as usize]);
        write_three(room, at, PLACES[(whole / 1000 % 1000) as usize]);
        write_three(room, at + 3, PLACES[(whole % 1000) as usize]);
        at + 6
    }
}
