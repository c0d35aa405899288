//! [`Products`]: dot products in single precision, in vector instructions.

use pulp::{Simd, WithSimd};

use super::score::VectorElement;

/// The dot products of queries and vectors in single precision, query after query.
pub(super) struct Products<'a, T> {
    pub(super) queries: &'a [f32],
    pub(super) vectors: &'a [T],
    pub(super) dimension: usize,
    /// Room for the vectors in single precision, where they are not.
    pub(super) widened: &'a mut [f32],
    pub(super) products: &'a mut [f32],
}

impl<T: VectorElement> WithSimd for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, vectors, dimension, widened, products } = self;
        let vectors = match T::as_f32(vectors) {
            Some(vectors) => vectors,
            None => {
                let widened = &mut widened[..vectors.len()];
                for (to, from) in widened.iter_mut().zip(vectors) {
                    *to = from.widen();
                }
                widened
            }
        };
        let rows = vectors.len() / dimension;
        let num_queries = queries.len() / dimension;
        let mut query = 0;
        while query + 4 <= num_queries {
            products_of::<S, 4, 2>(
                simd,
                &queries[query * dimension..],
                vectors,
                dimension,
                &mut products[query * rows..],
            );
            query += 4;
        }
        while query < num_queries {
            products_of::<S, 1, 4>(
                simd,
                &queries[query * dimension..],
                vectors,
                dimension,
                &mut products[query * rows..],
            );
            query += 1;
        }
    }
}

/// The products of `Q` queries with all vectors, `R` vectors at a time.
#[inline(always)]
fn products_of<S: Simd, const Q: usize, const R: usize>(
    simd: S,
    queries: &[f32],
    vectors: &[f32],
    dimension: usize,
    products: &mut [f32],
) {
    let rows = vectors.len() / dimension;
    let mut row = 0;
    while row + R <= rows {
        tile::<S, Q, R>(simd, queries, &vectors[row * dimension..], dimension, &mut products[row..], rows);
        row += R;
    }
    while row < rows {
        tile::<S, Q, 1>(simd, queries, &vectors[row * dimension..], dimension, &mut products[row..], rows);
        row += 1;
    }
}

/// The products of the first `Q` queries with the first `R` vectors, each query's `stride` after the last one's.
#[inline(always)]
fn tile<S: Simd, const Q: usize, const R: usize>(
    simd: S,
    queries: &[f32],
    vectors: &[f32],
    dimension: usize,
    products: &mut [f32],
    stride: usize,
) {
    let lanes = S::F32_LANES;
    let len = dimension / lanes;
    let mut query_words = [&[] as &[S::f32s]; Q];
    for (index, words) in query_words.iter_mut().enumerate() {
        *words = &S::as_simd_f32s(&queries[index * dimension..][..len * lanes]).0[..len];
    }
    let mut vector_words = [&[] as &[S::f32s]; R];
    for (index, words) in vector_words.iter_mut().enumerate() {
        *words = &S::as_simd_f32s(&vectors[index * dimension..][..len * lanes]).0[..len];
    }
    let mut sums = [[simd.splat_f32s(0.0); R]; Q];
    for at in 0..len {
        for (words, sums) in query_words.iter().zip(&mut sums) {
            let query = words[at];
            for (words, sum) in vector_words.iter().zip(sums) {
                *sum = simd.mul_add_e_f32s(query, words[at], *sum);
            }
        }
    }
    for (query, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let mut product = simd.reduce_sum_f32s(sum);
            for at in len * lanes..dimension {
                product += queries[query * dimension + at] * vectors[vector * dimension + at];
            }
            products[query * stride + vector] = product;
        }
    }
}
