//! The search on the CPU, parallel over ranges of the corpus.
//!
//! A task keeps the best vectors of its range for each query. It computes the dot products of some vectors with all queries
//! in single precision, in vector instructions, and from each product and the bound of its error the best rank that the
//! vector can have. Only where that is better than the worst that is kept, the rank is computed in double precision.
//!
//! A dot product of `d` numbers that is computed in single precision, in whatever order, is off by at most
//! `d u / (1 - d u)` times the product of the norms, where `u` is 2^-24.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pulp::Arch;
use rayon::prelude::*;

use super::products::Products;
use super::score::{Key, Metric, Queries, VectorElement};
use crate::service::{KernelError, RunContext, VectorElements, Vectors};

/// Queries of one pass over the corpus.
const QUERIES_PER_PASS: usize = 128;
/// Vectors whose products are computed together: in single precision they fit into the second-level cache.
const ROWS_PER_BLOCK: usize = 32;
/// The fewest vectors that are worth a task.
const MIN_ROWS_PER_TASK: usize = 1 << 10;
/// Tasks for each thread.
const TASKS_PER_THREAD: usize = 4;
/// Products of two numbers between two checks of the context: less than a millisecond.
const PRODUCTS_PER_CHECK: usize = 1 << 21;
/// Norms whose product is outside of these bounds are not bounded in single precision, where sums may overflow or lose
/// digits.
const MIN_PRODUCT: f64 = 1e-25;
const MAX_PRODUCT: f64 = 1e37;

/// Bytes that a run allocates besides its output.
pub(super) fn scratch_bytes(queries: u64, k: u64, dimension: u64) -> u64 {
    let tasks = (TASKS_PER_THREAD * rayon::current_num_threads()) as u64;
    let queries_per_pass = queries.min(QUERIES_PER_PASS as u64);
    // The best of each query, once in the task and once merged, and the products.
    let best = queries_per_pass.saturating_mul(k.saturating_mul(16).saturating_add(64 + 4 * ROWS_PER_BLOCK as u64));
    let rows = dimension.saturating_mul(4 * ROWS_PER_BLOCK as u64);
    tasks.saturating_mul(best.saturating_add(rows)).saturating_add(queries.saturating_mul(k.saturating_mul(8) + 8))
}

/// Returns the keys of the best `k` vectors of each query, best first, query after query.
///
/// # Errors
/// Those of [`RunContext::check`].
///
/// # Panics
/// Where `k` is 0 or larger than the number of vectors, or the dimensions differ.
pub fn search(
    corpus: &Vectors,
    queries: &Queries<'_>,
    k: usize,
    context: &RunContext<'_>,
) -> Result<Vec<Key>, KernelError> {
    assert!(k > 0 && k <= corpus.rows(), "{k} of {} vectors", corpus.rows());
    assert_eq!(corpus.dimension(), queries.dimension);
    let norms = corpus.norms(context)?.values();
    match corpus.elements() {
        VectorElements::F32(elements) => search_in(&Corpus { elements, norms }, queries, k, context),
        VectorElements::F16(elements) => search_in(&Corpus { elements, norms }, queries, k, context),
        VectorElements::Bf16(elements) => search_in(&Corpus { elements, norms }, queries, k, context),
    }
}

/// The vectors and their norms.
struct Corpus<'a, T> {
    elements: &'a [T],
    norms: &'a [f32],
}

fn search_in<T: VectorElement>(
    corpus: &Corpus<'_, T>,
    queries: &Queries<'_>,
    k: usize,
    context: &RunContext<'_>,
) -> Result<Vec<Key>, KernelError> {
    let rows = corpus.norms.len();
    let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
    let rows_per_task = rows.div_ceil(tasks).max(MIN_ROWS_PER_TASK);
    let mut keys = Vec::with_capacity(queries.len() * k);
    for first in (0..queries.len()).step_by(QUERIES_PER_PASS) {
        let pass = first..queries.len().min(first + QUERIES_PER_PASS);
        let starts: Vec<usize> = (0..rows).step_by(rows_per_task).collect();
        let of_task = |start: usize| {
            let mut task = Task::new(corpus, queries, pass.clone(), k);
            task.run(start..rows.min(start + rows_per_task), context)?;
            Ok(task.best)
        };
        let best = starts.into_par_iter().map(of_task).collect::<Result<Vec<_>, KernelError>>()?;
        for query in 0..pass.len() {
            let start = keys.len();
            keys.extend(best.iter().flat_map(|best| best[query].iter().map(|key| key.0)));
            keys[start..].sort_unstable_by(|a, b| b.cmp(a));
            keys.truncate(start + k);
        }
    }
    Ok(keys)
}

/// The search of some queries in a range of the corpus.
struct Task<'a, T> {
    corpus: &'a Corpus<'a, T>,
    queries: &'a Queries<'a>,
    pass: std::ops::Range<usize>,
    k: usize,
    /// The best of each query, the worst of them at the top.
    best: Vec<BinaryHeap<Reverse<Key>>>,
}

impl<'a, T: VectorElement> Task<'a, T> {
    fn new(corpus: &'a Corpus<'a, T>, queries: &'a Queries<'a>, pass: std::ops::Range<usize>, k: usize) -> Self {
        let best = pass.clone().map(|_| BinaryHeap::with_capacity(k)).collect();
        Self { corpus, queries, pass, k, best }
    }

    fn run(&mut self, rows: std::ops::Range<usize>, context: &RunContext<'_>) -> Result<(), KernelError> {
        let dimension = self.queries.dimension;
        let queries = &self.queries.numbers[self.pass.start * dimension..self.pass.end * dimension];
        let mut products = vec![0.0; self.pass.len() * ROWS_PER_BLOCK];
        let mut widened = vec![0.0; if T::as_f32(&[]).is_some() { 0 } else { ROWS_PER_BLOCK * dimension }];
        let arch = Arch::new();
        let mut unchecked = PRODUCTS_PER_CHECK;
        for start in rows.clone().step_by(ROWS_PER_BLOCK) {
            let block = start..rows.end.min(start + ROWS_PER_BLOCK);
            unchecked += block.len() * queries.len();
            if unchecked >= PRODUCTS_PER_CHECK {
                context.check()?;
                unchecked = 0;
            }
            let vectors = &self.corpus.elements[block.start * dimension..block.end * dimension];
            let products = &mut products[..self.pass.len() * block.len()];
            arch.dispatch(Products { queries, vectors, dimension, widened: &mut widened, products });
            self.keep_best(block, products);
        }
        Ok(())
    }

    /// Keeps the best of some vectors. `products` has those of each query with all of them.
    fn keep_best(&mut self, block: std::ops::Range<usize>, products: &[f32]) {
        let (queries, dimension) = (self.queries, self.queries.dimension);
        let bound = RankBound::new(queries.metric, dimension);
        for ((best, query), products) in self.best.iter_mut().zip(self.pass.clone()).zip(products.chunks(block.len())) {
            let norm = queries.norms[query];
            for (row, &product) in block.clone().zip(products) {
                let worst = best.peek().filter(|_| best.len() == self.k).map(|worst| worst.0);
                let may_be_better = |worst: Key| {
                    bound.best_rank(product, norm, self.corpus.norms[row].into()) >= f64::from(worst.rank())
                };
                if worst.is_some_and(|worst| !may_be_better(worst)) {
                    continue;
                }
                let vector = &self.corpus.elements[row * dimension..(row + 1) * dimension];
                let rank = queries.metric.exact_rank(queries.query(query), norm, vector);
                let key = Key::new(rank, row as u32);
                if worst.is_none() {
                    best.push(Reverse(key));
                } else if worst.is_some_and(|worst| key > worst)
                    && let Some(mut worst) = best.peek_mut()
                {
                    *worst = Reverse(key);
                }
            }
        }
    }
}

/// Bounds ranks from products in single precision.
#[derive(Clone, Copy)]
struct RankBound {
    metric: Metric,
    /// The largest error of a product, as a part of the product of the norms.
    error: f64,
}

impl RankBound {
    fn new(metric: Metric, dimension: usize) -> Self {
        const UNIT: f64 = 1.0 / (1 << 24) as f64;
        let sum = dimension as f64 * UNIT;
        // The norms and the rank that it is compared with are rounded as well.
        Self { metric, error: if sum < 0.5 { sum / (1.0 - sum) + 4.0 * UNIT } else { f64::INFINITY } }
    }

    /// The best rank of a query and a vector with this product and these norms.
    fn best_rank(self, product: f32, query_norm: f64, norm: f64) -> f64 {
        const ROUNDING: f64 = 4.0 / (1 << 24) as f64;
        let norms = query_norm * norm;
        if !(MIN_PRODUCT..MAX_PRODUCT).contains(&norms) {
            return f64::INFINITY;
        }
        let largest = f64::from(product) + self.error * norms;
        match self.metric {
            Metric::Dot => largest,
            Metric::Cosine => largest / norms,
            Metric::L2 => {
                let squares = query_norm * query_norm + norm * norm;
                -(squares * (1.0 - ROUNDING) - 2.0 * largest).max(0.0).sqrt() * (1.0 - ROUNDING)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_within_their_bound() {
        use crate::kernels::authoring::Random;

        let mut random = Random::new(3);
        for dimension in [1, 7, 16, 33, 768] {
            for num_queries in [1, 3, 4, 9] {
                let mut numbers =
                    |count: usize| -> Vec<f32> { (0..count * dimension).map(|_| random.number() as f32).collect() };
                let (queries, vectors) = (numbers(num_queries), numbers(5));
                let mut products = vec![0.0; num_queries * 5];
                let widened = &mut [];
                let task =
                    Products { queries: &queries, vectors: &vectors, dimension, widened, products: &mut products };
                Arch::new().dispatch(task);
                let searched = Queries::new(&queries, dimension, Metric::Dot);
                let of_vectors = Queries::new(&vectors, dimension, Metric::Dot);
                let error = RankBound::new(Metric::Dot, dimension).error;
                for (index, &product) in products.iter().enumerate() {
                    let (query, vector) = (index / 5, index % 5);
                    let pairs = searched.query(query).iter().zip(of_vectors.query(vector));
                    let exact: f64 = pairs.map(|(&q, &c)| f64::from(q) * f64::from(c)).sum();
                    let bound = error * searched.norms[query] * of_vectors.norms[vector];
                    assert!((f64::from(product) - exact).abs() <= bound, "{dimension}: {product} {exact}");
                }
            }
        }
    }

    #[test]
    fn a_cancelled_search_ends() {
        let corpus = Vectors::new(2, vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
        corpus.norms(&RunContext::detached()).unwrap();
        let queries = Queries::new(&[1.0, 0.0], 2, Metric::Dot);
        let error = search(&corpus, &queries, 1, &RunContext::new(Some(&|| true), None)).unwrap_err();
        assert!(matches!(error, KernelError::Cancelled), "{error}");
        assert_eq!(search(&corpus, &queries, 1, &RunContext::detached()).unwrap()[0].index(), 1);
    }
}
