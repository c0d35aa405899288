// Collects entries (ordered bits, index) in the shared memory of a block.
//
// When there is no room the block keeps the first k of them, and from then on takes no entry that comes after the last
// of these. The threads of a block agree on what to do once in a span of steps, and otherwise read on by themselves. A
// span that has more entries than there is room for is taken back and read again, step by step.

#ifndef TOWER_KERNELS_COLLECT
#define TOWER_KERNELS_COLLECT

#include "scan.cuh"
#include "ordered_bits.cuh"

constexpr u32 THREADS = 512;
// Entries that a block collects, and the most that it keeps. src/kernels/core/top_k/cuda.rs has the same numbers.
constexpr u32 CAPACITY = 2048;
constexpr u32 MAX_K = 1024;
static_assert(CAPACITY >= 2 * MAX_K, "half of the capacity is free once the first k are kept");
constexpr u32 ENTRIES_PER_THREAD = CAPACITY / THREADS;
constexpr u32 WARPS = THREADS / 32;
constexpr u32 RANK_LANES = 4;
constexpr u32 BIN_BITS = 10, BINS_PER_THREAD = (1 << BIN_BITS) / THREADS;

template <class Key> struct Entry {
    Key key;
    u32 index;
};
template <class Key> static __device__ bool is_at_or_before(const Entry<Key>& a, const Entry<Key>& b) {
    return a.key < b.key || (a.key == b.key && a.index <= b.index);
}

// No entry of a row has this index.
constexpr u32 NO_INDEX = ~0u;

template <class Key> struct Shared {
    Key keys[CAPACITY];
    u32 indices[CAPACITY];
    // May be more than CAPACITY while entries are added.
    u32 count;
    // What find_bound counts in; all zero when it is called and when it returns.
    u32 bins[1 << BIN_BITS];
    u32 bin;
    u32 before_bin;
    u32 of_bin;
    Key lows[WARPS];
    Key highs[WARPS];
};

// What the block shares. Not a parameter: the compiler is to see that it is shared memory.
template <class Key> static __device__ Shared<Key>& shared_of_block() {
    __shared__ Shared<Key> shared;
    return shared;
}

// The value that is the k-th, how many are before it, and how many are equal to it; or a greater one, if all that are
// not after it are among the first k.
template <class Value> struct Bound {
    Value value;
    u32 before;
    u32 equal;
};

static __device__ u32 bit_length(u32 value) { return 32 - __clz(value); }
static __device__ u32 bit_length(u64 value) { return 64 - __clzll(value); }

// Finds the k-th of the values that are set in `among`. Each thread of the block has ITEMS values.
//
// The values between the least and the greatest are counted in bins of equal width, and then those of the bin that has
// the k-th, until all of a bin are wanted or they are equal.
template <class Key, class Value, u32 ITEMS>
static __device__ Bound<Value> find_bound(const Value (&values)[ITEMS], u32 among, u32 k) {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 thread = threadIdx.x;
    Value low = ~Value(0), high = 0;
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
        if (among >> item & 1) {
            low = min(low, values[item]);
            high = max(high, values[item]);
        }
    }
#pragma unroll
    for (u32 delta = 16; delta > 0; delta /= 2) {
        low = min(low, __shfl_xor_sync(~0u, low, delta));
        high = max(high, __shfl_xor_sync(~0u, high, delta));
    }
    if (thread % 32 == 0) {
        shared.lows[thread / 32] = low;
        shared.highs[thread / 32] = high;
    }
    __syncthreads();
#pragma unroll 4
    for (u32 warp = 0; warp < WARPS; warp++) {
        low = min(low, (Value)shared.lows[warp]);
        high = max(high, (Value)shared.highs[warp]);
    }
    u32 total_before = 0;
    while (true) {
        const u32 bits = bit_length(high - low), shift = bits > BIN_BITS ? bits - BIN_BITS : 0;
#pragma unroll
        for (u32 item = 0; item < ITEMS; item++) {
            const bool is_there = (among >> item & 1) && low <= values[item] && values[item] <= high;
            if (is_there) atomicAdd(&shared.bins[(u32)((values[item] - low) >> shift)], 1);
        }
        __syncthreads();
        u32 counts[BINS_PER_THREAD], sum = 0, total;
#pragma unroll
        for (u32 i = 0; i < BINS_PER_THREAD; i++) {
            counts[i] = shared.bins[thread * BINS_PER_THREAD + i];
            shared.bins[thread * BINS_PER_THREAD + i] = 0;
            sum += counts[i];
        }
        u32 before = scan_block<THREADS>(sum, total);
#pragma unroll
        for (u32 i = 0; i < BINS_PER_THREAD; i++) {
            if (before < k && k <= before + counts[i]) {
                shared.bin = thread * BINS_PER_THREAD + i;
                shared.before_bin = before;
                shared.of_bin = counts[i];
            }
            before += counts[i];
        }
        __syncthreads();
        low += (Value)shared.bin << shift;
        high = low + min(high - low, (Value(1) << shift) - 1);
        k -= shared.before_bin;
        total_before += shared.before_bin;
        if (shared.of_bin == k || shift == 0) return {high, total_before, shared.of_bin};
    }
}

// Keeps the first k of the collected entries, of which there are more; returns a bound that these are at or before.
// Called seldom and from several places, so it is one copy.
template <class Key> static __device__ __noinline__ Entry<Key> keep_first(u32 k) {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 thread = threadIdx.x, count = min(shared.count, CAPACITY);
    Key keys[ENTRIES_PER_THREAD];
    u32 indices[ENTRIES_PER_THREAD], among = 0;
#pragma unroll
    for (u32 item = 0; item < ENTRIES_PER_THREAD; item++) {
        const u32 place = item * THREADS + thread;
        if (place >= count) continue;
        keys[item] = shared.keys[place];
        indices[item] = shared.indices[place];
        among |= 1u << item;
    }
    const Bound<Key> of_keys = find_bound<Key>(keys, among, k);
    Entry<Key> bound = {of_keys.value, NO_INDEX};
    if (of_keys.before + of_keys.equal > k) {
        u32 ties = among;
#pragma unroll
        for (u32 item = 0; item < ENTRIES_PER_THREAD; item++)
            if (keys[item] != bound.key) ties &= ~(1u << item);
        bound.index = find_bound<Key>(indices, ties, k - of_keys.before).value;
    }
    if (thread == 0) shared.count = 0;
    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < ENTRIES_PER_THREAD; item++) {
        if ((among >> item & 1) && is_at_or_before(Entry<Key>{keys[item], indices[item]}, bound)) {
            const u32 place = atomicAdd(&shared.count, 1);
            shared.keys[place] = keys[item];
            shared.indices[place] = indices[item];
        }
    }
    __syncthreads();
    return bound;
}

// Sorts the collected entries, at most MAX_K, by a bitonic network. A warp has 64 consecutive places, and each lane two of
// them, 32 apart, so that most of the steps are within a warp.
template <class Key> static __device__ __noinline__ void sort_entries() {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 first = threadIdx.x / 32 * 64 + threadIdx.x % 32, count = shared.count;
    Entry<Key> entries[2];
#pragma unroll
    for (u32 item = 0; item < 2; item++) {
        const u32 place = first + 32 * item;
        entries[item] = {~Key(0), NO_INDEX};
        if (place < count) entries[item] = {shared.keys[place], shared.indices[place]};
    }
    for (u32 run = 2; run / 2 < count; run *= 2) {
        for (u32 stride = run / 2; stride > 0; stride /= 2) {
            Entry<Key> others[2] = {entries[1], entries[0]};
            if (stride > 32) {
                __syncthreads();
#pragma unroll
                for (u32 item = 0; item < 2; item++) {
                    shared.keys[first + 32 * item] = entries[item].key;
                    shared.indices[first + 32 * item] = entries[item].index;
                }
                __syncthreads();
#pragma unroll
                for (u32 item = 0; item < 2; item++) {
                    const u32 place = (first + 32 * item) ^ stride;
                    others[item] = {shared.keys[place], shared.indices[place]};
                }
            } else if (stride < 32) {
#pragma unroll
                for (u32 item = 0; item < 2; item++) {
                    others[item].key = __shfl_xor_sync(~0u, entries[item].key, stride);
                    others[item].index = __shfl_xor_sync(~0u, entries[item].index, stride);
                }
            }
#pragma unroll
            for (u32 item = 0; item < 2; item++) {
                const u32 place = first + 32 * item;
                const bool takes_first = ((place & run) == 0) == ((place & stride) == 0);
                if (is_at_or_before(others[item], entries[item]) == takes_first) entries[item] = others[item];
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < 2; item++) {
        shared.keys[first + 32 * item] = entries[item].key;
        shared.indices[first + 32 * item] = entries[item].index;
    }
    __syncthreads();
}

// Collects entries and the bound that they are at or before.
template <class Key> struct Collector {
    Shared<Key>& shared;
    u32 k;
    Entry<Key> bound;
    // That of all blocks of the row, where they share one.
    Key* row_bound;

    // Takes over the bound of the row where it is the better one.
    __device__ void share_bound() {
        const Key of_row = load_relaxed(row_bound);
        if (of_row < bound.key) bound = {of_row, NO_INDEX};
    }

    // Keeps the first k of the collected entries, of which there are more. All threads of the block call it.
    __device__ void keep() {
        const Entry<Key> kept = keep_first<Key>(k);
        if (is_at_or_before(kept, bound)) bound = kept;
        if (row_bound != nullptr && threadIdx.x == 0) atomicMin(row_bound, bound.key);
    }

    // Adds the items of a step that are set in `open`, and that may be among the first k, while there is room; returns
    // those for which there was none. Few are added, and read again rather than kept in registers.
    template <class Reader> __device__ u32 add(const Reader& reader, u64 step, u32 open) {
        for (; open != 0; open &= open - 1) {
            const Entry<Key> entry = reader.entry(step, __ffs(open) - 1);
            if (!is_at_or_before(entry, bound)) continue;
            const u32 place = atomicAdd(&shared.count, 1);
            if (place >= CAPACITY) break;
            shared.keys[place] = entry.key;
            shared.indices[place] = entry.index;
        }
        return open;
    }

    // Whether there was no room for some of the entries, and now there is. All threads of the block call it.
    __device__ bool make_room(bool is_full) {
        const bool any_is_full = __syncthreads_or(is_full);
        if (any_is_full) keep();
        return any_is_full;
    }

    // Reads the steps from `start` to `end`. All threads of the block call it.
    template <class Reader> __device__ void read_span(const Reader& reader, u64 start, u64 end) {
        const u32 count = shared.count;
        __syncthreads();
        for (bool by_step = false;; by_step = true) {
            u32 open = 0;
            for (u64 step = start; step < end && open == 0; step++) {
                open = reader.items_before(step, bound.key);
                do open = add(reader, step, open);
                while (by_step && make_room(open != 0));
            }
            if (by_step || !__syncthreads_or(open != 0)) return;
            if (threadIdx.x == 0) shared.count = count;
            __syncthreads();
            if (count > k) keep();
        }
    }

    // Reads all steps of a reader. All threads of the block call it.
    template <class Reader> __device__ void read_all(const Reader& reader) {
        for (u64 step = 0; step < reader.steps(); step += Reader::SPAN)
            read_span(reader, step, min(step + Reader::SPAN, reader.steps()));
    }

    // Keeps no more than the first k.
    __device__ void keep_k() {
        __syncthreads();
        if (shared.count > k) keep();
    }

    // Writes the first k of the collected entries, at most THREADS / RANK_LANES, each in the place of its rank, which that
    // many lanes count. It takes less time than to sort: the code is small, and only one block ever runs it.
    __device__ void write_by_rank(NumberOrder<Key> order, Key* keys, u32* indices) const {
        const u32 place = threadIdx.x / RANK_LANES, lane = threadIdx.x % RANK_LANES;
        const Entry<Key> entry = {shared.keys[place], shared.indices[place]};
        u32 rank = 0;
#pragma unroll 4
        for (u32 other = lane; other < shared.count; other += RANK_LANES)
            rank += is_at_or_before(Entry<Key>{shared.keys[other], shared.indices[other]}, entry);
#pragma unroll
        for (u32 delta = 1; delta < RANK_LANES; delta *= 2) rank += __shfl_xor_sync(~0u, rank, delta);
        // An entry is at or before itself.
        if (place < shared.count && lane == 0 && rank <= k) {
            keys[rank - 1] = order.from_ordered(entry.key);
            indices[rank - 1] = entry.index;
        }
    }

    // Writes the first k of the collected entries in order.
    __device__ void write_sorted(NumberOrder<Key> order, Key* keys, u32* indices) {
        __syncthreads();
        // To sort up to twice as many takes no longer than to keep the first.
        if (shared.count > MAX_K || shared.count > 2 * k) keep();
        if (shared.count <= THREADS / RANK_LANES) return write_by_rank(order, keys, indices);
        sort_entries<Key>();
        for (u32 place = threadIdx.x; place < k; place += THREADS) {
            keys[place] = order.from_ordered(shared.keys[place]);
            indices[place] = shared.indices[place];
        }
    }
};

// Reads the candidates of a row, which have their indices with them.
template <class Key> struct CandidateReader {
    static constexpr u32 N = 4, STEP = N * THREADS, SPAN = 2;
    const Key* keys;
    const u32* indices;
    u32 n;

    __device__ u64 steps() const { return ((u64)n + STEP - 1) / STEP; }

    __device__ u64 place(u64 step, u32 item) const { return step * STEP + item * THREADS + threadIdx.x; }

    __device__ Entry<Key> entry(u64 step, u32 item) const {
        return {keys[place(step, item)], indices[place(step, item)]};
    }

    __device__ u32 items_before(u64 step, Key bound) const {
        u32 before = 0;
#pragma unroll
        for (u32 item = 0; item < N; item++) {
            const u64 at = place(step, item);
            if (at < n && indices[at] != NO_INDEX && keys[at] <= bound) before |= 1u << item;
        }
        return before;
    }
};

// Begins to collect.
template <class Key> static __device__ void clear_entries() {
    Shared<Key>& shared = shared_of_block<Key>();
    for (u32 bin = threadIdx.x; bin < 1 << BIN_BITS; bin += THREADS) shared.bins[bin] = 0;
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
}

#endif
