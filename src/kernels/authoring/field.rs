//! [`Field`]: what the type of an input field says about a kernel, and what is derived from all of them.

use super::cases::Random;
use super::column::{Column, Uniform};
use crate::service::{BatchKey, Buffer, Cost, DType, Element, InvalidInput};

/// A type that a field of a generated kernel's input can have: a number, which is the same for all rows, or a
/// [`Buffer`], which has a value for each row.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a field of a generated kernel's input",
    label = "not a field type",
    note = "fields are `f32`, `f64`, `u32`, `i32`, `u64` or `i64` (one value for all rows) or a `Buffer` of these (a \
            value for each row); a kernel with other fields implements `Kernel` by hand"
)]
pub trait Field: Sized {
    /// What the kernel's code reads.
    type Column<'a>: Column
    where
        Self: 'a;

    /// The field's values.
    fn column(&self) -> Self::Column<'_>;
    /// What is derived from the field.
    fn facts(&self, name: &'static str) -> FieldFacts;
    /// A value for tests, with this many rows where it has a value for each.
    fn generate(rows: usize, random: &mut Random) -> Self;
    /// Takes over the value of another input's field where it is the same for all requests of a shared run.
    fn share(&mut self, with: &Self);
    /// Replaces the value of a row by NaN; does nothing where the field has no floating-point value for each row.
    fn put_nan(&mut self, row: usize);
    /// The value of a row.
    fn value(&self, row: usize) -> f64;
}

/// What is derived from a field: its length, its part of the batch key, its part of the cost.
#[derive(Clone, Copy, Debug)]
pub struct FieldFacts {
    /// The name.
    pub name: &'static str,
    /// How many values an array has; `None` for one value for all rows.
    pub rows: Option<usize>,
    /// The bits of one value for all rows, which requests that share a run have in common.
    pub uniform: Option<u64>,
    /// The type of an array's elements.
    pub element: Option<DType>,
}

/// The number of rows: the length of the first array.
pub fn rows(fields: &[FieldFacts]) -> usize {
    fields.iter().find_map(|field| field.rows).unwrap_or(1)
}

/// Checks that all arrays have the same length, and at least one element.
///
/// # Errors
/// The first field that has another length.
pub fn check_lengths(fields: &[FieldFacts]) -> Result<(), InvalidInput> {
    let mut arrays = fields.iter().filter_map(|field| field.rows.map(|rows| (field.name, rows)));
    let Some((first, expected)) = arrays.next() else { return Ok(()) };
    if expected == 0 {
        return Err(InvalidInput::new(first, "empty"));
    }
    match arrays.find(|(_, rows)| *rows != expected) {
        Some((name, rows)) => Err(InvalidInput::new(name, format!("{rows} elements, and {first} has {expected}"))),
        None => Ok(()),
    }
}

/// The cost of a run whose outputs have `outputs` arrays of `output` elements, and which reads each input once.
pub fn cost<T: Element>(fields: &[FieldFacts], outputs: usize, operations: u64) -> Cost {
    let rows = rows(fields) as u64;
    let arrays = fields.iter().filter_map(|field| field.element);
    let input: usize = arrays.clone().map(DType::size).sum();
    // An output takes over the device memory of an input of the same type.
    let reused = arrays.filter(|element| *element == T::DTYPE).count().min(outputs);
    let bytes = |per_row: usize| rows.saturating_mul(per_row as u64);
    Cost {
        bytes: bytes(input + outputs * size_of::<T>()),
        operations: rows.saturating_mul(operations),
        device_memory: bytes(input + (outputs - reused) * size_of::<T>()),
    }
}

/// The key of the runs that a request may share: the values that are the same for all rows.
pub fn batch_key(fields: &[FieldFacts]) -> BatchKey {
    let mut uniforms = fields.iter().filter_map(|field| field.uniform);
    match (uniforms.next(), uniforms.next()) {
        (first, None) => BatchKey::exact(first.unwrap_or(0)),
        _ => BatchKey::hash(fields.iter().map(|field| field.uniform).collect::<Vec<_>>()),
    }
}

/// Whether requests with the same batch key have the same values in the fields that are the same for all rows.
pub fn shares_run(one: &[FieldFacts], other: &[FieldFacts]) -> bool {
    one.iter().map(|field| field.uniform).eq(other.iter().map(|field| field.uniform))
}

macro_rules! numbers {
    ($($type:ident: $bits:expr, $nan:expr;)*) => {$(
        impl Field for $type {
            type Column<'a> = Uniform<$type>;

            fn column(&self) -> Uniform<$type> {
                Uniform(*self)
            }

            fn facts(&self, name: &'static str) -> FieldFacts {
                let bits: fn($type) -> u64 = $bits;
                FieldFacts { name, rows: None, uniform: Some(bits(*self)), element: None }
            }

            fn generate(_: usize, random: &mut Random) -> Self {
                random.number() as $type
            }

            fn share(&mut self, with: &Self) {
                *self = *with;
            }

            fn put_nan(&mut self, _: usize) {}

            fn value(&self, _: usize) -> f64 {
                *self as f64
            }
        }

        impl Field for Buffer<$type> {
            type Column<'a> = &'a [$type];

            fn column(&self) -> &[$type] {
                self
            }

            fn facts(&self, name: &'static str) -> FieldFacts {
                FieldFacts { name, rows: Some(self.len()), uniform: None, element: Some(<$type>::DTYPE) }
            }

            fn generate(rows: usize, random: &mut Random) -> Self {
                (0..rows).map(|_| random.number() as $type).collect()
            }

            fn share(&mut self, _: &Self) {}

            fn put_nan(&mut self, row: usize) {
                let nan: Option<$type> = $nan;
                if let Some(nan) = nan {
                    self[row] = nan;
                }
            }

            fn value(&self, row: usize) -> f64 {
                self[row] as f64
            }
        }
    )*};
}
numbers! {
    f32: |value| value.to_bits().into(), Some(f32::NAN);
    f64: f64::to_bits, Some(f64::NAN);
    u32: u64::from, None;
    i32: |value| value.cast_unsigned().into(), None;
    u64: |value| value, None;
    i64: i64::cast_unsigned, None;
}
