//! The algorithms on device arrays that kernels share, at sizes around a tile and at large ones.

use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::device::{radix_sort, scan};
use tower_kernels::kernels::ordered_bits::SortOrder;
use tower_kernels::service::Buffer;

use crate::probe::Bench;

crate::tests! {
    offsets_are_the_sums_of_what_comes_before
    values_are_sorted_by_their_keys
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
