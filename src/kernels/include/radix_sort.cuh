// A stable radix sort of a whole array: 32- or 64-bit keys, with or without a 32-bit value for each.
//
// It sorts by the least significant 8 bits first, and by the next 8 in each further pass, as Adinets and Merrill,
// *Onesweep: a faster least significant digit radix sort for GPUs* (2022), do: a pass reads and writes each key once.
//   count     reads the keys once and counts the digits of all passes.
//   begin     turns the counts of each pass into the places where the keys of each digit begin.
//   pass      moves the keys to their places. A block takes a tile of the keys, ranks them within the tile, and learns
//             by decoupled look-back (see scan.cuh) how many keys of each digit are in the tiles before.
//
// Keys are ordered bits (see ordered_bits.cuh); numbers become that in the first pass and numbers again in the last.
// A pass is launched in portions of a bounded number of keys, each of which begins where the one before ended.

#ifndef TOWER_KERNELS_RADIX_SORT
#define TOWER_KERNELS_RADIX_SORT

#ifndef TOWER_KERNELS_SCAN
#error "radix_sort.cuh needs scan.cuh before it"
#endif
#ifndef TOWER_KERNELS_ORDERED_BITS
#error "radix_sort.cuh needs ordered_bits.cuh before it"
#endif

constexpr u32 DIGIT_BITS = 8;
constexpr u32 DIGITS = 1 << DIGIT_BITS;

static __device__ u32 digit_of(u32 key, u32 shift) { return (key >> shift) % DIGITS; }
static __device__ u32 digit_of(u64 key, u32 shift) { return (u32)(key >> shift) % DIGITS; }

// ---- count and begin

constexpr u32 COUNT_THREADS = 256;

// Adds the number of keys with each digit of each pass to `counts[pass * DIGITS + digit]`, which is zero before.
template <class Key> static __device__ void count_digits(u64 n, const Key* keys, NumberOrder<Key> order, u32* counts) {
    constexpr u32 PASSES = sizeof(Key);
    __shared__ u32 shared[PASSES * DIGITS];
    for (u32 i = threadIdx.x; i < PASSES * DIGITS; i += COUNT_THREADS) shared[i] = 0;
    __syncthreads();
    const auto count = [&](Key bits) {
        const Key key = order.to_ordered(bits);
#pragma unroll
        for (u32 pass = 0; pass < PASSES; pass++) atomicAdd(&shared[pass * DIGITS + digit_of(key, pass * DIGIT_BITS)], 1);
    };
    constexpr u32 PACK = 16 / sizeof(Key);
    struct alignas(16) Keys {
        Key at[PACK];
    };
    const u64 thread = (u64)blockIdx.x * COUNT_THREADS + threadIdx.x, threads = (u64)gridDim.x * COUNT_THREADS;
    const u64 packs = (u64)keys % 16 == 0 ? n / PACK : 0;
    for (u64 i = thread; i < packs; i += threads) {
        const Keys pack = ((const Keys*)keys)[i];
#pragma unroll
        for (u32 k = 0; k < PACK; k++) count(pack.at[k]);
    }
    for (u64 i = packs * PACK + thread; i < n; i += threads) count(keys[i]);
    __syncthreads();
    for (u32 i = threadIdx.x; i < PASSES * DIGITS; i += COUNT_THREADS) {
        if (shared[i] != 0) atomicAdd(&counts[i], shared[i]);
    }
}

// Turns the counts of a pass into the place where each digit begins. `uniform[pass]` becomes 1 where all keys have the
// same digit, so that the pass would move nothing. A block for each pass, of DIGITS threads.
static __device__ void begin_digits(u64 n, u32* counts, u32* uniform) {
    u32* const of_pass = counts + blockIdx.x * DIGITS;
    const u32 count = of_pass[threadIdx.x];
    u32 total;
    of_pass[threadIdx.x] = scan_block<DIGITS>(count, total);
    const bool is_uniform = __syncthreads_or(count == n);
    if (threadIdx.x == 0) uniform[blockIdx.x] = is_uniform;
}

// ---- pass

// src/kernels/device/radix_sort.rs has the same numbers: threads of a block, and keys of a tile. With more keys of 32
// bits a thread, pairs take so many registers that fewer blocks run at a time, and a sort takes 1.7 times as long.
constexpr u32 PASS_THREADS = 384;
template <class Key> constexpr u32 PASS_ITEMS = sizeof(Key) == 4 ? 16 : 10;
template <class Key> constexpr u32 PASS_TILE = PASS_THREADS * PASS_ITEMS<Key>;

// The two highest bits of the word of a tile and digit: as for the tiles of a scan, with 30 bits for the count.
constexpr u32 DIGIT_SUM = 1u << 30;
constexpr u32 DIGIT_PREFIX = 2u << 30;
constexpr u32 DIGIT_VALUE = (1u << 30) - 1;

// What a pass does, besides the arrays.
template <class Key> struct Pass {
    u32 shift;
    NumberOrder<Key> order;
    // The first pass reads numbers, and the last writes numbers.
    bool is_first;
    bool is_last;
};

// The lanes of the warp whose keys have the same digit.
static __device__ u32 lanes_with_same(u32 digit) {
    u32 lanes = 0xffffffff;
#pragma unroll
    for (u32 bit = 0; bit < DIGIT_BITS; bit++) {
        const bool is_set = digit >> bit & 1;
        const u32 set = __ballot_sync(0xffffffff, is_set);
        lanes &= is_set ? set : ~set;
    }
    return lanes;
}

// Moves a portion of the keys to their places.
//
//   n            keys of the portion
//   first_index  index of its first key in the whole array
//   values_in    where it is null, the value of a key is its index
//   values_out   where it is null, the keys have no values
//   begin        where the next key of each digit goes, of DIGITS words
//   next_begin   the same for the next portion, which the last tile writes
//   tiles        DIGITS words for each tile, zero before
//   next_tile    one word, zero before
template <class Key>
static __device__ void sort_pass(u32 n, u32 first_index, Pass<Key> pass, const Key* keys_in, Key* keys_out,
    const u32* values_in, u32* values_out, const u32* begin, u32* next_begin, u32* tiles, u32* next_tile) {
    constexpr u32 ITEMS = PASS_ITEMS<Key>, TILE = PASS_TILE<Key>, WARPS = PASS_THREADS / 32;
    union Shared {
        // Of each warp and digit: the number of keys, then the rank of its next key in the tile.
        u32 warps[WARPS][DIGITS];
        Key keys[TILE];
        u32 values[TILE];
    };
    __shared__ Shared shared;
    // Where a key of this digit and of rank 0 in the tile would go.
    __shared__ u32 destinations[DIGITS];
    __shared__ u32 shared_tile;
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;

    if (thread == 0) shared_tile = atomicAdd(next_tile, 1);
    for (u32 i = thread; i < WARPS * DIGITS; i += PASS_THREADS) ((u32*)shared.warps)[i] = 0;
    __syncthreads();
    const u32 tile = shared_tile, start = tile * TILE;
    const u32 count = min(TILE, n - start);

    // The keys of a warp are neighbours. What pads the last tile is sorted behind all of its keys.
    Key keys[ITEMS];
    const u32 warp_start = warp * 32 * ITEMS + lane;
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
        const u32 index = warp_start + item * 32;
        keys[item] = ~Key(0);
        if (index < count) {
            const Key bits = keys_in[start + index];
            keys[item] = pass.is_first ? pass.order.to_ordered(bits) : bits;
        }
    }

    // The number of keys of each digit is published before anything else, since other tiles wait for it.
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) atomicAdd(&shared.warps[warp][digit_of(keys[item], pass.shift)], 1);
    __syncthreads();
    u32 of_digit = 0;
    if (thread < DIGITS) {
#pragma unroll
        for (u32 other = 0; other < WARPS; other++) {
            const u32 of_warp = shared.warps[other][thread];
            shared.warps[other][thread] = of_digit;
            of_digit += of_warp;
        }
        store_relaxed(tiles + tile * DIGITS + thread, (tile == 0 ? DIGIT_PREFIX : DIGIT_SUM) | of_digit);
    }
    u32 total;
    const u32 rank_of_digit = scan_block<PASS_THREADS>(of_digit, total);
    if (thread < DIGITS) {
#pragma unroll
        for (u32 other = 0; other < WARPS; other++) shared.warps[other][thread] += rank_of_digit;
    }
    __syncthreads();

    // Ranks within the tile. Lanes with the same digit rank in their order, and so do items and warps.
    u32 ranks[ITEMS];
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
        const u32 digit = digit_of(keys[item], pass.shift);
        const u32 lanes = lanes_with_same(digit);
        const u32 leader = 31 - __clz(lanes);
        u32 rank = 0;
        if (lane == leader) rank = atomicAdd(&shared.warps[warp][digit], __popc(lanes));
        rank = __shfl_sync(0xffffffff, rank, leader);
        ranks[item] = rank + __popc(lanes & ((1u << lane) - 1));
    }
    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) shared.keys[ranks[item]] = keys[item];

    // A thread for each digit adds up the tiles before.
    if (thread < DIGITS) {
        u32 before = 0;
        for (u32 other = tile; other > 0; other--) {
            u32 word;
            do word = load_relaxed(tiles + (other - 1) * DIGITS + thread);
            while (word < DIGIT_SUM);
            before += word & DIGIT_VALUE;
            if (word >= DIGIT_PREFIX) break;
        }
        if (tile > 0) store_relaxed(tiles + tile * DIGITS + thread, DIGIT_PREFIX | (before + of_digit));
        const u32 first = begin[thread] + before;
        destinations[thread] = first - rank_of_digit;
        // The padding of the last tile has the last digit, and is not moved.
        const u32 padding = thread == DIGITS - 1 ? TILE - count : 0;
        if (start + count == n) next_begin[thread] = first + of_digit - padding;
    }
    __syncthreads();

    // Keys of the same digit are neighbours now, and go to neighbouring places.
    u32 places[ITEMS];
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
        const u32 rank = thread + item * PASS_THREADS;
        const Key key = shared.keys[rank];
        places[item] = destinations[digit_of(key, pass.shift)] + rank;
        if (rank < count) keys_out[places[item]] = pass.is_last ? pass.order.from_ordered(key) : key;
    }
    if (values_out == nullptr) return;

    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
        const u32 index = warp_start + item * 32;
        u32 value = first_index + start + index;
        if (values_in != nullptr && index < count) value = values_in[start + index];
        shared.values[ranks[item]] = value;
    }
    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
        const u32 rank = thread + item * PASS_THREADS;
        if (rank < count) values_out[places[item]] = shared.values[rank];
    }
}

#endif
