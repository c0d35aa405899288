// The entries of the radix sort, which src/kernels/device/radix_sort.rs launches; radix_sort.cuh has the algorithm.

#include "scan.cuh"
#include "ordered_bits.cuh"
#include "radix_sort.cuh"

#define COUNT(KEY)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(COUNT_THREADS) sort_count_##KEY(                                     \
        u64 n, const KEY* keys, u32 kind, u32 descending, u32* counts) {                                              \
        count_digits<KEY>(n, keys, NumberOrder<KEY>(kind, descending != 0), counts);                                  \
    }

#define PASS(KEY)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(PASS_THREADS, 3) sort_pass_##KEY(u32 n, u32 first_index, u32 shift,  \
        u32 kind, u32 descending, u32 is_first, u32 is_last, u32 has_values, u32 values_are_indices,                  \
        const KEY* keys_in, KEY* keys_out, const u32* values_in, u32* values_out, const u32* begin, u32* next_begin,  \
        u32* tiles, u32* next_tile) {                                                                                 \
        const Pass<KEY> pass = {shift, {kind, descending != 0}, is_first != 0, is_last != 0};                         \
        sort_pass<KEY>(n, first_index, pass, keys_in, keys_out, values_are_indices ? nullptr : values_in,             \
            has_values ? values_out : nullptr, begin, next_begin, tiles, next_tile);                                  \
    }

COUNT(u32)
COUNT(u64)
PASS(u32)
PASS(u64)

extern "C" __global__ void __launch_bounds__(DIGITS) sort_begin(u64 n, u32* counts, u32* uniform) {
    begin_digits(n, counts, uniform);
}
