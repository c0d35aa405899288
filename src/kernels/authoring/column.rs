//! [`Column`]: what a kernel's code reads of one field of its input.

use std::ops::Range;

#[cfg(feature = "cuda")]
use super::device::Arguments;
use crate::service::Element;
#[cfg(feature = "cuda")]
use crate::service::KernelError;

/// Rows that the inner loop of an elementwise kernel takes at a time.
pub const BLOCK: usize = 64;

/// The values of one input field, or, as a tuple of columns, of all of them.
pub trait Column: Copy + Send + Sync {
    /// The value of one row.
    type Row: Copy;
    /// The values of [`BLOCK`] rows.
    type Block<'b>: Copy
    where
        Self: 'b;
    /// Memory for a block that is not in the input: a repeated value, or the rows at the end.
    type Padding;

    /// Padding with one value for all rows in place, where the column has one.
    fn padding(&self) -> Self::Padding;
    /// Copies the rows from `start` to the end, fewer than a block, into `padding` and repeats the last one.
    fn pad(&self, start: usize, padding: &mut Self::Padding);
    /// The block that begins at row `start`: of the column, or `padding` where the column has no whole block there.
    fn block<'b>(&'b self, start: usize, padding: &'b Self::Padding) -> Self::Block<'b>;
    /// One row of a block.
    fn row(block: Self::Block<'_>, index: usize) -> Self::Row;
    /// The column of a range of rows.
    fn slice(&self, rows: Range<usize>) -> Self;

    /// Uploads the column of every request of a shared run as one array, and appends the arguments of the launch.
    ///
    /// # Errors
    /// Those of [`LaunchContext::upload`](crate::service::LaunchContext::upload).
    #[cfg(feature = "cuda")]
    fn upload(requests: &[Self], arguments: &mut Arguments<'_, '_>) -> Result<(), KernelError>;
}

/// One value for all rows, and for all requests that share a run. CUDA code takes it by value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform<T>(pub T);

/// A value for each row, or one for all of them. CUDA code takes a pointer and the stride, which is 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand<'a, T> {
    /// One for all rows.
    One(T),
    /// One for each row.
    Each(&'a [T]),
}

/// A number that CUDA code takes by value.
#[cfg(feature = "cuda")]
pub trait UniformValue: crate::cuda::Arg + Copy + Send + Sync + 'static {}
#[cfg(feature = "cuda")]
impl<T: crate::cuda::Arg + Copy + Send + Sync + 'static> UniformValue for T {}
/// A number that CUDA code takes by value.
#[cfg(not(feature = "cuda"))]
pub trait UniformValue: Copy + Send + Sync + 'static {}
#[cfg(not(feature = "cuda"))]
impl<T: Copy + Send + Sync + 'static> UniformValue for T {}

impl<T: UniformValue> Column for Uniform<T> {
    type Row = T;
    type Block<'b> = T;
    type Padding = ();

    fn padding(&self) {}

    fn pad(&self, _: usize, (): &mut ()) {}

    #[inline(always)]
    fn block<'b>(&'b self, _: usize, (): &'b ()) -> T {
        self.0
    }

    #[inline(always)]
    fn row(block: T, _: usize) -> T {
        block
    }

    fn slice(&self, _: Range<usize>) -> Self {
        *self
    }

    #[cfg(feature = "cuda")]
    fn upload(requests: &[Self], arguments: &mut Arguments<'_, '_>) -> Result<(), KernelError> {
        // All have the same value: it is part of the batch key.
        arguments.push(requests[0].0);
        Ok(())
    }
}

impl<T: Element> Column for &[T] {
    type Row = T;
    type Block<'b>
        = &'b [T; BLOCK]
    where
        Self: 'b;
    type Padding = [T; BLOCK];

    fn padding(&self) -> [T; BLOCK] {
        [T::zeroed(); BLOCK]
    }

    fn pad(&self, start: usize, padding: &mut [T; BLOCK]) {
        // A column may have more rows than are computed.
        let rows = &self[start..self.len().min(start + BLOCK)];
        let (copies, repeats) = padding.split_at_mut(rows.len());
        copies.copy_from_slice(rows);
        // The repeated value keeps what is computed from the padding, and thrown away, ordinary.
        repeats.fill(rows[rows.len() - 1]);
    }

    #[inline(always)]
    fn block<'b>(&'b self, start: usize, padding: &'b [T; BLOCK]) -> &'b [T; BLOCK] {
        self[start..].first_chunk().unwrap_or(padding)
    }

    #[inline(always)]
    fn row(block: &[T; BLOCK], index: usize) -> T {
        block[index]
    }

    fn slice(&self, rows: Range<usize>) -> Self {
        &self[rows]
    }

    #[cfg(feature = "cuda")]
    fn upload(requests: &[Self], arguments: &mut Arguments<'_, '_>) -> Result<(), KernelError> {
        arguments.upload(requests.iter().copied())
    }
}

impl<T: Element> Column for Operand<'_, T> {
    type Row = T;
    type Block<'b>
        = &'b [T; BLOCK]
    where
        Self: 'b;
    type Padding = [T; BLOCK];

    fn padding(&self) -> [T; BLOCK] {
        match self {
            Self::One(value) => [*value; BLOCK],
            Self::Each(_) => [T::zeroed(); BLOCK],
        }
    }

    fn pad(&self, start: usize, padding: &mut [T; BLOCK]) {
        if let Self::Each(values) = self {
            values.pad(start, padding);
        }
    }

    #[inline(always)]
    fn block<'b>(&'b self, start: usize, padding: &'b [T; BLOCK]) -> &'b [T; BLOCK] {
        match self {
            Self::One(_) => padding,
            Self::Each(values) => values[start..].first_chunk().unwrap_or(padding),
        }
    }

    #[inline(always)]
    fn row(block: &[T; BLOCK], index: usize) -> T {
        block[index]
    }

    fn slice(&self, rows: Range<usize>) -> Self {
        match self {
            Self::One(value) => Self::One(*value),
            Self::Each(values) => Self::Each(&values[rows]),
        }
    }

    #[cfg(feature = "cuda")]
    fn upload(requests: &[Self], arguments: &mut Arguments<'_, '_>) -> Result<(), KernelError> {
        let arrays: Option<Vec<&[T]>> = requests
            .iter()
            .map(|operand| match operand {
                Self::Each(values) => Some(*values),
                Self::One(_) => None,
            })
            .collect();
        match (arrays, requests[0]) {
            (Some(arrays), _) => {
                arguments.upload(arrays)?;
                arguments.push(1_u32);
            }
            (None, Self::One(value)) => {
                arguments.upload_one(value)?;
                arguments.push(0_u32);
            }
            (None, Self::Each(_)) => {
                return Err(KernelError::kernel("requests of one run differ in which fields are arrays"));
            }
        }
        Ok(())
    }
}

impl<C: Column, const N: usize> Column for [C; N] {
    type Row = [C::Row; N];
    type Block<'b>
        = [C::Block<'b>; N]
    where
        Self: 'b;
    type Padding = [C::Padding; N];

    fn padding(&self) -> Self::Padding {
        self.each_ref().map(C::padding)
    }

    fn pad(&self, start: usize, padding: &mut Self::Padding) {
        for (column, padding) in self.iter().zip(padding) {
            column.pad(start, padding);
        }
    }

    #[inline(always)]
    fn block<'b>(&'b self, start: usize, padding: &'b Self::Padding) -> Self::Block<'b> {
        std::array::from_fn(|column| self[column].block(start, &padding[column]))
    }

    #[inline(always)]
    fn row(block: Self::Block<'_>, index: usize) -> Self::Row {
        block.map(|block| C::row(block, index))
    }

    fn slice(&self, rows: Range<usize>) -> Self {
        self.map(|column| column.slice(rows.clone()))
    }

    #[cfg(feature = "cuda")]
    fn upload(requests: &[Self], arguments: &mut Arguments<'_, '_>) -> Result<(), KernelError> {
        for column in 0..N {
            let column: Vec<C> = requests.iter().map(|request| request[column]).collect();
            C::upload(&column, arguments)?;
        }
        Ok(())
    }
}

macro_rules! tuples {
    ($($($name:ident $index:tt)+;)+) => {$(
        impl<$($name: Column),+> Column for ($($name,)+) {
            type Row = ($($name::Row,)+);
            type Block<'b> = ($($name::Block<'b>,)+) where Self: 'b;
            type Padding = ($($name::Padding,)+);

            fn padding(&self) -> Self::Padding {
                ($(self.$index.padding(),)+)
            }

            fn pad(&self, start: usize, padding: &mut Self::Padding) {
                $(self.$index.pad(start, &mut padding.$index);)+
            }

            #[inline(always)]
            fn block<'b>(&'b self, start: usize, padding: &'b Self::Padding) -> Self::Block<'b> {
                ($(self.$index.block(start, &padding.$index),)+)
            }

            #[inline(always)]
            fn row(block: Self::Block<'_>, index: usize) -> Self::Row {
                ($($name::row(block.$index, index),)+)
            }

            fn slice(&self, rows: Range<usize>) -> Self {
                ($(self.$index.slice(rows.clone()),)+)
            }

            #[cfg(feature = "cuda")]
            fn upload(requests: &[Self], arguments: &mut Arguments<'_, '_>) -> Result<(), KernelError> {
                $(
                    let column: Vec<$name> = requests.iter().map(|request| request.$index).collect();
                    $name::upload(&column, arguments)?;
                )+
                Ok(())
            }
        }
    )+};
}
tuples! {
    A 0;
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9;
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Column};

    #[test]
    fn rows_at_the_end_are_padded_with_the_last_one_and_further_rows_are_left_out() {
        let rows: Vec<f32> = (0..BLOCK + 3).map(|row| row as f32).collect();
        let column = rows.as_slice();
        let mut padding = column.padding();
        column.pad(BLOCK, &mut padding);
        assert_eq!(padding[..3], rows[BLOCK..]);
        assert!(padding[3..].iter().all(|&value| value == rows[BLOCK + 2]));
        column.pad(1, &mut padding);
        assert_eq!(padding[..], rows[1..=BLOCK]);
    }
}
