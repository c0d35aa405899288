// Prefix sums: of a warp, of a block, and of a whole array in one pass.
//
// The pass over an array is that of Merrill and Garland, *Single-pass parallel prefix scan with decoupled look-back*
// (2016). The array is cut into tiles of SCAN_TILE elements, and a block scans one tile. It publishes the sum of its
// tile, then adds up what earlier tiles have published, back to the first one whose sum includes all before it:
//
//   extern "C" __global__ void SCAN offsets(u64 n, u64* tiles, u32* next_tile, const u32* counts, u64* offsets) {
//       scan_array(n, tiles, next_tile, [=](u64 i) -> u64 { return counts[i]; },
//           [=](u64 i, u64 sum_before, u64) { offsets[i] = sum_before; });
//   }
//
// `tiles` has a word for each tile, and `next_tile` is one word; both are zero before the launch. There is a block
// for each tile. Tiles are numbered in the order in which their blocks start, so that a block only waits for blocks
// that run already. Sums are below 2^62.

#ifndef TOWER_KERNELS_SCAN
#define TOWER_KERNELS_SCAN

typedef unsigned int u32;
typedef unsigned long long u64;

// 256 threads a block, as the host launches them.
#define SCAN __launch_bounds__(256)

constexpr u32 SCAN_THREADS = 256;
constexpr u32 SCAN_ITEMS = 16;
// src/kernels/device/scan.rs has the same number.
constexpr u32 SCAN_TILE = SCAN_THREADS * SCAN_ITEMS;

// Loads and stores of words by which blocks tell each other something. The word is all there is to see, so no
// order between it and other memory is needed.
static __device__ u32 load_relaxed(const u32* at) {
    u32 value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
}
static __device__ u64 load_relaxed(const u64* at) {
    u64 value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return value;
}
static __device__ void store_relaxed(u32* at, u32 value) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" : : "l"(at), "r"(value) : "memory");
}
static __device__ void store_relaxed(u64* at, u64 value) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" : : "l"(at), "l"(value) : "memory");
}

// The sum of the lanes up to and including this one.
template <class T> static __device__ T scan_warp(T value) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 delta = 1; delta < 32; delta *= 2) {
        const T other = __shfl_up_sync(0xffffffff, value, delta);
        if (lane >= delta) value += other;
    }
    return value;
}

// The sum of the threads before this one, and in `total` that of all. All THREADS threads of the block call it.
template <u32 THREADS, class T> static __device__ T scan_block(T value, T& total) {
    __shared__ T sums[THREADS / 32];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T inclusive = scan_warp(value);
    // A thread may still read the sums of the call before.
    __syncthreads();
    if (lane == 31) sums[warp] = inclusive;
    __syncthreads();
    T before = 0;
    total = 0;
#pragma unroll
    for (u32 other = 0; other < THREADS / 32; other++) {
        if (other == warp) before = total;
        total += sums[other];
    }
    return before + inclusive - value;
}

// The two highest bits of a tile's word say what it holds: nothing yet, the sum of the tile, or the sum of the tile
// and of all before it.
constexpr u64 TILE_SUM = 1ull << 62;
constexpr u64 TILE_PREFIX = 2ull << 62;
constexpr u64 TILE_VALUE = (1ull << 62) - 1;

// The sum of all tiles before this one; publishes that of this one. The first warp of the block calls it.
static __device__ u64 look_back(u64* tiles, u32 tile, u64 sum) {
    const u32 lane = threadIdx.x % 32;
    if (lane == 0) store_relaxed(tiles + tile, (tile == 0 ? TILE_PREFIX : TILE_SUM) | sum);
    u64 before = 0;
    // Lane 0 looks at the nearest tile before this one, lane 31 at the farthest of 32.
    for (long long end = tile; end > 0; end -= 32) {
        const long long other = end - 1 - lane;
        u64 word;
        do {
            word = other < 0 ? TILE_PREFIX : load_relaxed(tiles + other);
        } while (__any_sync(0xffffffff, word < TILE_SUM));
        const u32 prefixes = __ballot_sync(0xffffffff, word >= TILE_PREFIX);
        // Tiles beyond the nearest prefix are in it.
        const bool counts = prefixes == 0 || lane <= __ffs(prefixes) - 1;
        u64 part = counts ? word & TILE_VALUE : 0;
#pragma unroll
        for (u32 delta = 16; delta > 0; delta /= 2) part += __shfl_xor_sync(0xffffffff, part, delta);
        before += part;
        if (prefixes != 0) break;
    }
    if (lane == 0 && tile > 0) store_relaxed(tiles + tile, TILE_PREFIX | (before + sum));
    return before;
}

// Calls `store(i, sum of load(j) for all j before i, load(i))` for each i below n.
template <class Load, class Store>
static __device__ void scan_array(u64 n, u64* tiles, u32* next_tile, const Load& load, const Store& store) {
    __shared__ u32 shared_tile;
    __shared__ u64 shared_before;
    // Elements go through here, so that a warp loads neighbours and a thread adds neighbours.
    __shared__ u64 exchange[SCAN_TILE + SCAN_TILE / 16];
    if (threadIdx.x == 0) shared_tile = atomicAdd(next_tile, 1);
    __syncthreads();
    const u32 tile = shared_tile;
    const u64 start = (u64)tile * SCAN_TILE;
    // A padding word for every 16 keeps the threads of a warp on different banks in either order.
    const auto place = [](u32 index) { return index + index / 16; };
#pragma unroll
    for (u32 item = 0; item < SCAN_ITEMS; item++) {
        const u32 index = item * SCAN_THREADS + threadIdx.x;
        exchange[place(index)] = start + index < n ? load(start + index) : 0;
    }
    __syncthreads();
    u64 values[SCAN_ITEMS], sum = 0;
#pragma unroll
    for (u32 item = 0; item < SCAN_ITEMS; item++) {
        values[item] = exchange[place(threadIdx.x * SCAN_ITEMS + item)];
        sum += values[item];
    }
    u64 total;
    u64 before = scan_block<SCAN_THREADS>(sum, total);
    if (threadIdx.x < 32) {
        const u64 of_tiles = look_back(tiles, tile, total);
        if (threadIdx.x == 0) shared_before = of_tiles;
    }
    __syncthreads();
    before += shared_before;
#pragma unroll
    for (u32 item = 0; item < SCAN_ITEMS; item++) {
        exchange[place(threadIdx.x * SCAN_ITEMS + item)] = before;
        before += values[item];
    }
    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < SCAN_ITEMS; item++) {
        const u32 index = item * SCAN_THREADS + threadIdx.x;
        if (start + index < n) store(start + index, exchange[place(index)], load(start + index));
    }
}

#endif
