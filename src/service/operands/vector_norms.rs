//! [`VectorNorms`]: the Euclidean norms of [`Vectors`](super::Vectors).

use rayon::prelude::*;

use super::vectors::VectorElements;
use crate::service::{Bf16, Buffer, Element, F16, KernelError, RunContext};

/// Numbers that a task reads between two checks of the context: about 100 µs.
const NUMBERS_PER_TASK: usize = 1 << 18;

/// The Euclidean norms of [`Vectors`](super::Vectors), computed in double precision and rounded once.
#[derive(Clone, Debug)]
pub struct VectorNorms {
    norms: Buffer<f32>,
    smallest: f32,
    largest: f32,
}

impl VectorNorms {
    /// Computes the norm of each vector.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(
        elements: &VectorElements,
        dimension: usize,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let norms = match elements {
            VectorElements::F32(elements) => norms_of(elements, dimension, |element| element, context),
            VectorElements::F16(elements) => norms_of(elements, dimension, F16::to_f32, context),
            VectorElements::Bf16(elements) => norms_of(elements, dimension, Bf16::to_f32, context),
        }?;
        let not_zero = norms.iter().copied().filter(|&norm| norm > 0.0);
        let (smallest, largest) =
            not_zero.fold((f32::INFINITY, 0.0), |(smallest, largest), norm| (norm.min(smallest), norm.max(largest)));
        Ok(Self { norms, smallest, largest })
    }

    /// Returns the norm of each vector. A norm above the range of single precision is infinite.
    pub fn values(&self) -> &Buffer<f32> {
        &self.norms
    }

    /// Returns the smallest norm that is not 0; infinity if all are.
    pub fn smallest(&self) -> f32 {
        self.smallest
    }

    /// Returns the largest norm.
    pub fn largest(&self) -> f32 {
        self.largest
    }
}

fn norms_of<T: Element>(
    elements: &[T],
    dimension: usize,
    to_f32: fn(T) -> f32,
    context: &RunContext<'_>,
) -> Result<Buffer<f32>, KernelError> {
    let mut norms = Buffer::zeroed(elements.len() / dimension);
    let rows_per_task = (NUMBERS_PER_TASK / dimension).max(1);
    let tasks = norms.par_chunks_mut(rows_per_task).zip(elements.par_chunks(rows_per_task * dimension));
    tasks.try_for_each(|(norms, vectors)| {
        context.check()?;
        for (norm, vector) in norms.iter_mut().zip(vectors.chunks_exact(dimension)) {
            let squares = vector.iter().map(|&element| f64::from(to_f32(element)).powi(2));
            *norm = squares.sum::<f64>().sqrt() as f32;
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{OperandValue, Vectors};

    #[test]
    fn norms_are_made_once_and_are_the_last_array() {
        let context = RunContext::detached();
        let elements = [3.0, 4.0, 0.0, 0.0, 1.0, -1.0];
        for vectors in [
            Vectors::new(2, elements.map(|element| element as f32).to_vec()).unwrap(),
            Vectors::new(2, elements.map(|element| F16::from_f32(element as f32)).to_vec()).unwrap(),
            Vectors::new(2, elements.map(|element| Bf16::from_f32(element as f32)).to_vec()).unwrap(),
        ] {
            let bytes = vectors.bytes();
            assert_eq!(vectors.arrays().len(), 1);
            assert_eq!(vectors.norms(&context).unwrap().values()[..], [5.0, 0.0, 2.0_f64.sqrt() as f32]);
            let norms = [(); 2].map(|()| vectors.norms(&context).unwrap());
            assert_eq!(norms[0].values().as_ptr(), norms[1].values().as_ptr());
            assert_eq!((norms[0].smallest(), norms[0].largest()), (2.0_f64.sqrt() as f32, 5.0));
            let arrays = vectors.arrays();
            assert_eq!((arrays.len(), arrays[1].name), (2, "norms"));
            assert_eq!(arrays.iter().map(|array| array.bytes.len() as u64).sum::<u64>(), bytes);
        }
    }

    #[test]
    fn a_norm_beyond_single_precision_is_infinite() {
        let vectors = Vectors::new(4, vec![f32::MAX; 4]).unwrap();
        assert_eq!(vectors.norms(&RunContext::detached()).unwrap().values()[..], [f32::INFINITY]);
    }

    #[test]
    fn computing_norms_ends_with_the_request() {
        let cancelled = RunContext::new(Some(&|| true), None);
        let error = Vectors::new(1, vec![1.0_f32]).unwrap().norms(&cancelled).unwrap_err();
        assert!(matches!(error, KernelError::Cancelled), "{error}");
    }
}
