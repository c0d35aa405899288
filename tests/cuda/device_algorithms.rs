//! The algorithms on device arrays that kernels share, at sizes around a tile and at large ones.

use tower_kernels::cuda::{Arg, Launch, Module};
use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::device::cancel::CancelSignal;
use tower_kernels::kernels::device::gemm::{self, Epilogue, Matrix};
use tower_kernels::kernels::device::{radix_sort, scan};
use tower_kernels::kernels::ordered_bits::SortOrder;
use tower_kernels::service::Buffer;

use crate::probe::Bench;

crate::tests! {
    hash_tables_count_keys
    offsets_are_the_sums_of_what_comes_before
    values_are_sorted_by_their_keys
    products_of_matrices_are_those_of_the_definition
}

const SIZES: [usize; 8] = [0, 1, 255, 4095, 4096, 4097, 100_000, (3 << 20) + 1];

fn offsets_are_the_sums_of_what_comes_before() {
    let bench = Bench::new(1).with("test/scan", |cuda| {
        let mut random = Random::new(3);
        for size in SIZES {
            let counts: Vec<u32> = (0..size).map(|_| random.word() as u32).collect();
            let on_device = cuda.upload(&counts)?;
            let offsets = scan::offsets(&on_device, cuda)?;
            let offsets = cuda.download(&offsets)?;
            let sums = counts.iter().scan(0, |sum, count| {
                *sum += u64::from(*count);
                Some(*sum)
            });
            assert!(offsets.iter().copied().eq(std::iter::once(0).chain(sums)), "{size} counts");
        }
        Ok(Buffer::default())
    });
    // Memory of the run before is used again.
    for _ in 0..3 {
        bench.run("test/scan").unwrap();
    }
}

fn values_are_sorted_by_their_keys() {
    let bench = Bench::new(1).with("test/sort-by-key", |cuda| {
        let mut random = Random::new(4);
        for size in SIZES {
            // Few keys, so that many values stay in order.
            let keys: Vec<i64> = (0..size).map(|_| random.below(300).cast_signed() - 150).collect();
            let values: Vec<f32> = (0..size).map(|_| random.number() as f32).collect();
            let (on_device, of_values) = (cuda.upload(&keys)?, cuda.upload(&values)?);
            let (sorted, moved) = radix_sort::sort_by_key(&on_device, &of_values, SortOrder::Descending, cuda)?;
            let (sorted, moved) = (cuda.download(&sorted)?, cuda.download(&moved)?);
            let mut expected: Vec<(i64, f32)> = keys.into_iter().zip(values).collect();
            expected.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
            assert!(sorted.iter().copied().zip(moved.iter().copied()).eq(expected), "{size} keys");
        }
        Ok(Buffer::default())
    });
    for _ in 0..3 {
        bench.run("test/sort-by-key").unwrap();
    }
}

fn products_of_matrices_are_those_of_the_definition() {
    let bench = Bench::new(1).with("test/gemm", |cuda| {
        let mut random = Random::new(5);
        let cancel = CancelSignal::new(cuda)?;
        // Around the tiles of 128 rows, 32, 64 and 128 columns, and steps of 16.
        for (m, n, k) in [(1, 1, 1), (128, 128, 16), (129, 33, 17), (300, 64, 100), (257, 7, 433), (1000, 130, 31)] {
            let mut numbers = |len: u32| (0..len).map(|_| random.between(-1.0, 1.0) as f32).collect::<Vec<_>>();
            let (a, b, bias) = (numbers(m * k), numbers(k * n), numbers(n));
            let (on_device, factor) = (cuda.upload(&a)?, cuda.upload(&b)?);
            let product = cuda.alloc(m as usize * n.next_multiple_of(4) as usize)?;
            let product = Matrix::padded(product, m, n);
            let relu = 1;
            let epilogue = Epilogue { bias: Some(cuda.upload(&bias)?), activation: relu, ..Epilogue::default() };
            let (on_device, factor) = (Matrix::new(on_device, m, k), Matrix::new(factor, k, n));
            gemm::multiply(&on_device, &factor, &product, &epilogue, &cancel, cuda)?;
            let found = cuda.download(&product.numbers)?;
            for row in 0..m as usize {
                for column in 0..n as usize {
                    let term = |i: usize| f64::from(a[row * k as usize + i]) * f64::from(b[i * n as usize + column]);
                    let sum: f64 = f64::from(bias[column]) + (0..k as usize).map(term).sum::<f64>();
                    let error = f64::from(found[row * product.stride as usize + column]) - sum.max(0.0);
                    assert!(error.abs() < 1e-6 * f64::from(k), "{m} x {k} x {n}, [{row}, {column}]: off by {error}");
                }
            }
        }
        Ok(Buffer::default())
    });
    // Memory of the run before is used again.
    for _ in 0..2 {
        bench.run("test/gemm").unwrap();
    }
}

/// A table in global memory that a block fills; the sums that `add` returns at most, the counts in the end, and the count
/// that `find` returns for each key, 0 where it finds a key that is not there.
static HASH_TABLE: Module = {
    const SOURCE: &str = concat!(
        include_str!("../../src/kernels/include/hash_table.cuh"),
        r#"
        extern "C" __global__ void count_keys(u32 n, const u32* keys, u32 slots, u32* table_keys, u32* table_counts,
            u32* largest, u32* counts, u32* found) {
            const CountTable table(table_keys, table_counts, slots);
            table.clear(threadIdx.x, blockDim.x);
            __syncthreads();
            for (u32 i = threadIdx.x; i < n; i += blockDim.x) atomicMax(&largest[keys[i]], table.add(keys[i], i + 1));
            __syncthreads();
            table.for_each(threadIdx.x, blockDim.x, [&](u32 key, u32 count) { atomicAdd(&counts[key], count); });
            for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
                const u32* count = table.find(keys[i]);
                const bool finds_absent = table.find(keys[i] + (1u << 20)) != nullptr;
                found[i] = count == nullptr || finds_absent ? 0 : *count;
            }
        }
        "#
    );
    // SAFETY: it writes to the arrays that it is passed, at keys below their lengths.
    unsafe { Module::from_source("test/hash-table", SOURCE) }
};

fn hash_tables_count_keys() {
    const MAX_KEY: usize = 1 << 20;
    let bench = Bench::new(1).with("test/hash-table", |cuda| {
        let mut random = Random::new(6);
        // Few keys and many, in tables that have little room left, and of other sizes than powers of two.
        for (distinct, len, slots) in
            [(1, 1, 2_u32), (1, 5_000, 2), (50, 3_000, 51), (3_000, 3_000, 4_500), (900, 9, 16)]
        {
            let keys: Vec<u32> = (0..distinct).map(|_| random.below(MAX_KEY as u64) as u32).collect();
            let keys: Vec<u32> = (0..len).map(|_| keys[random.below(distinct as u64) as usize]).collect();
            let mut expected = vec![0; MAX_KEY];
            (1..).zip(&keys).for_each(|(count, &key)| expected[key as usize] += count);
            let on_device = cuda.upload(&keys)?;
            let (table_keys, table_counts) = (cuda.alloc::<u32>(slots as usize)?, cuda.alloc::<u32>(slots as usize)?);
            let (largest, counts) = (cuda.zeroed::<u32>(MAX_KEY)?, cuda.zeroed::<u32>(MAX_KEY)?);
            let len = keys.len() as u32;
            let found = cuda.alloc::<u32>(keys.len())?;
            let args: [&dyn Arg; 8] = [&len, &on_device, &slots, &table_keys, &table_counts, &largest, &counts, &found];
            cuda.launch(&HASH_TABLE, "count_keys", Launch::new(1, 256), &args)?;
            let [largest, counts, found] = cuda.download_all([&largest, &counts, &found])?;
            assert!(found.iter().zip(&keys).all(|(&count, &key)| count == expected[key as usize]), "{distinct} keys");
            assert!(counts[..] == expected && largest[..] == expected, "{distinct} keys in {slots} slots");
        }
        Ok(Buffer::default())
    });
    bench.run("test/hash-table").unwrap();
}
