// The entry of the prefix sum, which src/kernels/device/scan.rs launches; scan.cuh has the algorithm.

#include "scan.cuh"

// offsets[i] is the sum of the counts before i, for i from 0 to n; n is at least 1.
extern "C" __global__ void SCAN scan_offsets(u64 n, u64* tiles, u32* next_tile, const u32* counts, u64* offsets) {
    scan_array(n, tiles, next_tile, [=](u64 i) -> u64 { return counts[i]; }, [=](u64 i, u64 before, u64 count) {
        offsets[i] = before;
        if (i + 1 == n) offsets[n] = before + count;
    });
}
