// The first k numbers of long rows, by the minima of groups.
//
// All blocks are resident. Those of a row read it in groups of consecutive numbers, and keep the least number of each.
// Then they share the least of these of every few groups: the k-th of them is a bound that k numbers are at or before.
// Groups with such numbers are read again, which are little more than k in most rows, and the numbers at or before the
// bound are collected. The block that is the last to end selects among them.
//
// This is Dr. Top-k of Gaihre et al., *Dr. Top-k: delegate-centric top-k on GPUs* (2021), with the bound taken from the
// delegates of delegates, so that blocks wait for each other only once.

#ifndef TOWER_KERNELS_LONG_ROWS
#define TOWER_KERNELS_LONG_ROWS

#include "collect.cuh"

// Groups that a block reads at most. Their minima are where it collects entries later.
// src/kernels/core/top_k/long_rows.rs has the same number.
constexpr u32 MAX_GROUPS = 1024, GROUPS_PER_THREAD = MAX_GROUPS / THREADS;
static_assert(MAX_GROUPS <= CAPACITY, "there is room for the minima");

// What the blocks of a row share; all zero before the launch.
struct RowProgress {
    u32 minima_done;
    u32 blocks_done;
    u32 collected;
};

// A step of a warp: PACKS loads of 16 bytes by each lane.
template <class Key> struct WarpStep {
    static constexpr u32 PACK = 16 / sizeof(Key), PACKS = 8, N = PACK * PACKS, LEN = 32 * N;

    static __device__ u64 index(u64 start, u32 item) {
        return start + (item / PACK * 32 + threadIdx.x % 32) * PACK + item % PACK;
    }

    // Calls `visit(item, ordered bits)` for the numbers from `start`. Only the last step of a row is not a whole one.
    template <class Visit>
    static __device__ void read(const Key* numbers, u32 n, NumberOrder<Key> order, u64 start, Visit visit) {
        if (start + LEN <= n) {
            Key keys[N];
#pragma unroll
            for (u32 pack = 0; pack < PACKS; pack++) {
                const uint4 words = __ldcs((const uint4*)(numbers + index(start, pack * PACK)));
                memcpy(keys + pack * PACK, &words, sizeof(words));
            }
#pragma unroll
            for (u32 item = 0; item < N; item++) visit(item, order.to_ordered(keys[item]));
        } else {
#pragma unroll 1
            for (u32 item = 0; item < N; item++)
                if (index(start, item) < n) visit(item, order.to_ordered(numbers[index(start, item)]));
        }
    }
};

// Reads some groups of a row: each warp one of them at a time.
template <class Key> struct GroupReader {
    typedef WarpStep<Key> Step;
    static constexpr u32 SPAN = 8;
    const Key* numbers;
    u32 n;
    NumberOrder<Key> order;
    u32 steps_of_group;
    const u32* groups;
    u32 group_count;

    __device__ u64 steps() const { return (u64)(group_count + WARPS - 1) / WARPS * steps_of_group; }

    // The first index that the warp reads in a step, or n if there is none.
    __device__ u64 start(u64 step) const {
        const u32 round = (u32)step / steps_of_group, place = round * WARPS + threadIdx.x / 32;
        if (place >= group_count) return n;
        return ((u64)groups[place] * steps_of_group + (u32)step % steps_of_group) * Step::LEN;
    }

    __device__ Entry<Key> entry(u64 step, u32 item) const {
        const u64 index = Step::index(start(step), item);
        return {order.to_ordered(numbers[index]), (u32)index};
    }

    __device__ u32 items_before(u64 step, Key bound) const {
        const u64 from = start(step);
        if (from >= n) return 0;
        u32 before = 0;
        Step::read(numbers, n, order, from, [&](u32 item, Key key) { before |= (u32)(key <= bound) << item; });
        return before;
    }
};

// Waits for the blocks of a row. What they have written before is visible after.
static __device__ void wait_for_blocks(u32* arrived, u32 blocks) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1);
        while (load_relaxed(arrived) < blocks) {}
        __threadfence();
    }
    __syncthreads();
}

// The arguments of the kernel.
template <class Key> struct LongRows {
    u32 n, k;
    // Blocks of a row, steps of a group, and minima that a block shares: up to THREADS, and up to CAPACITY for a row.
    u32 parts, steps_of_group, minima_of_block;
    NumberOrder<Key> order;
    RowProgress* progress;
    // The minima that blocks share, each with the last index of its group.
    Key* minima;
    u32* minima_indices;
    // What the blocks collect, at most k each.
    Key* collected;
    u32* collected_indices;
};

// A block of a row, and the groups that it reads: one in every `parts`.
template <class Key> struct BlockOfRow {
    typedef WarpStep<Key> Step;
    const LongRows<Key>& rows;
    Shared<Key>& shared;
    const Key* numbers;
    u32 row, part, group_len, group_count;

    __device__ BlockOfRow(const LongRows<Key>& rows, const Key* numbers)
        : rows(rows), shared(shared_of_block<Key>()), row(blockIdx.x / rows.parts), part(blockIdx.x % rows.parts) {
        this->numbers = numbers + (u64)row * rows.n;
        group_len = rows.steps_of_group * Step::LEN;
        const u32 groups_of_row = rows.n / group_len + (rows.n % group_len != 0);
        group_count = part < groups_of_row ? (groups_of_row - part - 1) / rows.parts + 1 : 0;
    }

    __device__ u32 group(u32 place) const { return place * rows.parts + part; }

    // Finds the minimum of each group. The warps take groups as they get on: some are much faster than others.
    __device__ void find_minima() {
        __shared__ u32 taken;
        if (threadIdx.x == 0) taken = 0;
        __syncthreads();
        while (true) {
            const u32 place = __shfl_sync(~0u, threadIdx.x % 32 == 0 ? atomicAdd(&taken, 1) : 0, 0);
            if (place >= group_count) break;
            Key least = ~Key(0);
            u64 start = (u64)group(place) * group_len;
            for (const u64 end = start + group_len; start < end; start += Step::LEN)
                Step::read(numbers, rows.n, rows.order, start, [&](u32, Key key) { least = min(least, key); });
#pragma unroll
            for (u32 delta = 16; delta > 0; delta /= 2) least = min(least, __shfl_xor_sync(~0u, least, delta));
            if (threadIdx.x % 32 == 0) shared.keys[place] = least;
        }
        __syncthreads();
    }

    // Shares the least of the minima of every few groups. Groups that are near each other in the row are not among the
    // same few, so that the bound is near the k-th number if the first ones are side by side.
    __device__ void share_minima() {
        const u32 shared_minima = rows.minima_of_block;
        u32 lanes = 32;
        while (lanes * shared_minima > THREADS) lanes /= 2;
        const u32 minimum = threadIdx.x / lanes, lane = threadIdx.x % lanes;
        Entry<Key> least = {~Key(0), NO_INDEX};
        for (u32 place = lane * shared_minima + minimum; place < group_count; place += lanes * shared_minima) {
            const u64 last = ((u64)group(place) + 1) * group_len - 1;
            const Entry<Key> other = {shared.keys[place], (u32)min(last, (u64)NO_INDEX)};
            if (minimum < shared_minima && is_at_or_before(other, least)) least = other;
        }
        for (u32 delta = lanes / 2; delta > 0; delta /= 2) {
            const Entry<Key> other = {__shfl_xor_sync(~0u, least.key, delta), __shfl_xor_sync(~0u, least.index, delta)};
            if (is_at_or_before(other, least)) least = other;
        }
        if (minimum < shared_minima && lane == 0) {
            const u32 at = blockIdx.x * shared_minima + minimum;
            rows.minima[at] = least.key;
            rows.minima_indices[at] = least.index;
        }
    }

    // The bound of the row by what its blocks have shared, of which there is as much as a block can collect.
    __device__ Entry<Key> find_row_bound() {
        const u32 count = rows.parts * rows.minima_of_block;
        if (count <= rows.k) return {~Key(0), NO_INDEX};
        for (u32 place = threadIdx.x; place < count; place += THREADS) {
            shared.keys[place] = __ldcg(rows.minima + row * count + place);
            shared.indices[place] = __ldcg(rows.minima_indices + row * count + place);
        }
        if (threadIdx.x == 0) shared.count = count;
        __syncthreads();
        const Entry<Key> bound = keep_first<Key>(rows.k);
        if (threadIdx.x == 0) shared.count = 0;
        __syncthreads();
        return bound;
    }

    // Collects the numbers at or before the bound, or the first k of them. `minima` are those of this thread's groups.
    __device__ void collect(const Key (&minima)[GROUPS_PER_THREAD], Collector<Key>& collector) {
        __shared__ u32 found[MAX_GROUPS];
        __shared__ u32 found_count;
        if (threadIdx.x == 0) found_count = 0;
        __syncthreads();
#pragma unroll
        for (u32 item = 0; item < GROUPS_PER_THREAD; item++) {
            const u32 place = item * THREADS + threadIdx.x;
            const Entry<Key> first = {minima[item], group(place) * group_len};
            if (place < group_count && is_at_or_before(first, collector.bound)) found[atomicAdd(&found_count, 1)] = group(place);
        }
        __syncthreads();
        collector.read_all(GroupReader<Key>{numbers, rows.n, rows.order, rows.steps_of_group, found, found_count});
        collector.keep_k();
    }

    // Adds what is collected to what the other blocks of the row have; returns whether this is the last one.
    __device__ bool add_collected(RowProgress* progress, Key* keys, u32* indices) {
        __shared__ u32 before;
        if (shared.count > 0) {
            if (threadIdx.x == 0) before = atomicAdd(&progress->collected, shared.count);
            __syncthreads();
            for (u32 place = threadIdx.x; place < shared.count; place += THREADS) {
                keys[before + place] = shared.keys[place];
                indices[before + place] = shared.indices[place];
            }
            __threadfence();
        }
        __syncthreads();
        if (threadIdx.x == 0) before = atomicAdd(&progress->blocks_done, 1);
        __syncthreads();
        __threadfence();
        return before == rows.parts - 1;
    }
};

template <class Key>
static __device__ void top_k_of_long_row(const LongRows<Key>& rows, const Key* numbers, Key* keys, u32* indices) {
    BlockOfRow<Key> block(rows, numbers);
    RowProgress* progress = rows.progress + block.row;
    clear_entries<Key>();
    block.find_minima();
    block.share_minima();
    // Where these are, the block collects entries from now on.
    Key minima[GROUPS_PER_THREAD];
#pragma unroll
    for (u32 item = 0; item < GROUPS_PER_THREAD; item++) minima[item] = block.shared.keys[item * THREADS + threadIdx.x];
    wait_for_blocks(&progress->minima_done, rows.parts);
    Collector<Key> collector = {block.shared, rows.k, block.find_row_bound(), nullptr};
    block.collect(minima, collector);
    const u64 list = (u64)block.row * rows.parts * rows.k;
    Key* collected = rows.collected + list;
    u32* collected_indices = rows.collected_indices + list;
    if (!block.add_collected(progress, collected, collected_indices)) return;
    if (threadIdx.x == 0) block.shared.count = 0;
    __syncthreads();
    collector.read_all(CandidateReader<Key>{collected, collected_indices, load_relaxed(&progress->collected)});
    collector.write_sorted(rows.order, keys + (u64)block.row * rows.k, indices + (u64)block.row * rows.k);
}

#endif
