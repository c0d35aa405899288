// The first k numbers of each row in their order, with their indices; numbers that are equal by lowest index.
//
// A block reads a part of a row and collects entries (ordered bits, index) in shared memory. When there is no room it
// keeps the first k of them, found by a radix select, and from then on takes no entry that comes after the last of
// these. Blocks of a row share the best of their bounds, so that soon few of the entries that are read are collected.
// A second launch, and a third where there are many, does the same with what the blocks of each row have kept, until
// one block has all of it, sorts it and writes the output. The input is read once.
//
// A bound is at or after the k-th entry of some part of the row, and so at or after that of the row: what it excludes
// is not among the first k. Which entries are collected depends on timing, and the first k of them do not.
//
// The threads of a block agree on what to do once in a span of steps, and otherwise read on by themselves. A span that
// has more entries than there is room for is taken back and read again, step by step.

#include "scan.cuh"
#include "ordered_bits.cuh"

constexpr u32 THREADS = 512;
// Entries that a block collects, and the most that it keeps. src/kernels/core/top_k/cuda.rs has the same numbers.
constexpr u32 CAPACITY = 2048;
constexpr u32 MAX_K = 1024;
static_assert(CAPACITY >= 2 * MAX_K, "half of the capacity is free once the first k are kept");
constexpr u32 ENTRIES_PER_THREAD = CAPACITY / THREADS;
constexpr u32 DIGITS = 256;
// Bytes of numbers that a thread reads in a step.
constexpr u32 STEP_BYTES = 64;

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
    u32 digits[DIGITS];
    // May be more than CAPACITY while entries are added.
    u32 count;
    u32 digit;
    u32 before_digit;
    u32 of_digit;
};

// What the block shares. Not a parameter: the compiler is to see that it is shared memory.
template <class Key> static __device__ Shared<Key>& shared_of_block() {
    __shared__ Shared<Key> shared;
    return shared;
}

// Whether the digit of an entry at this round comes from its key; the index gives those of the last four rounds.
template <class Key> static __device__ bool is_of_key(u32 round) { return round < sizeof(Key); }

template <class Key> static __device__ u32 digit_of(const Entry<Key>& entry, u32 round) {
    const u32 shift = 8 * (is_of_key<Key>(round) ? sizeof(Key) - 1 - round : sizeof(Key) + 3 - round);
    return is_of_key<Key>(round) ? (u32)(entry.key >> shift) % DIGITS : (entry.index >> shift) % DIGITS;
}

// Finds the digit of the k-th entry among the counted ones, how many entries have lower digits, and how many have it.
template <class Key> static __device__ void find_digit(u32 k) {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 thread = threadIdx.x;
    const u32 of_digit = thread < DIGITS ? shared.digits[thread] : 0;
    u32 total;
    const u32 before = scan_block<THREADS>(of_digit, total);
    if (before < k && k <= before + of_digit) {
        shared.digit = thread;
        shared.before_digit = before;
        shared.of_digit = of_digit;
    }
    __syncthreads();
}

// Keeps the first k of the collected entries, of which there are more; returns a bound that these are at or before.
// Called seldom and from several places, so it is one copy.
template <class Key> static __device__ __noinline__ Entry<Key> keep_first(u32 k) {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 thread = threadIdx.x, count = min(shared.count, CAPACITY);
    Entry<Key> entries[ENTRIES_PER_THREAD];
#pragma unroll
    for (u32 item = 0; item < ENTRIES_PER_THREAD; item++) {
        const u32 place = item * THREADS + thread;
        entries[item] = {~Key(0), NO_INDEX};
        if (place < count) entries[item] = {shared.keys[place], shared.indices[place]};
    }
    // The digits found so far, and the bits that they do not cover.
    Entry<Key> prefix = {0, 0}, open = {~Key(0), ~0u};
    u32 wanted = k;
    for (u32 round = 0; round < sizeof(Key) + 4; round++) {
        if (thread < DIGITS) shared.digits[thread] = 0;
        __syncthreads();
#pragma unroll
        for (u32 item = 0; item < ENTRIES_PER_THREAD; item++) {
            const Entry<Key>& entry = entries[item];
            const bool has_prefix = ((entry.key ^ prefix.key) & ~open.key) == 0
                && ((entry.index ^ prefix.index) & ~open.index) == 0;
            if (has_prefix && item * THREADS + thread < count) atomicAdd(&shared.digits[digit_of(entry, round)], 1);
        }
        __syncthreads();
        find_digit<Key>(wanted);
        wanted -= shared.before_digit;
        if (is_of_key<Key>(round)) {
            open.key >>= 8;
            prefix.key |= (Key)shared.digit << (8 * (sizeof(Key) - 1 - round));
        } else {
            open.index = (u32)((u64)open.index >> 8);
            prefix.index |= shared.digit << (8 * (sizeof(Key) + 3 - round));
        }
        // All entries with this prefix are wanted.
        if (wanted == shared.of_digit) break;
    }
    const Entry<Key> bound = {prefix.key | open.key, prefix.index | open.index};
    __syncthreads();
    if (thread == 0) shared.count = 0;
    __syncthreads();
#pragma unroll
    for (u32 item = 0; item < ENTRIES_PER_THREAD; item++) {
        if (item * THREADS + thread < count && is_at_or_before(entries[item], bound)) {
            const u32 place = atomicAdd(&shared.count, 1);
            shared.keys[place] = entries[item].key;
            shared.indices[place] = entries[item].index;
        }
    }
    __syncthreads();
    return bound;
}

// Sorts the collected entries, at most MAX_K, by a bitonic network.
template <class Key> static __device__ __noinline__ void sort_entries() {
    Shared<Key>& shared = shared_of_block<Key>();
    u32 size = 1;
    while (size < shared.count) size *= 2;
    for (u32 place = shared.count + threadIdx.x; place < size; place += THREADS) {
        shared.keys[place] = ~Key(0);
        shared.indices[place] = NO_INDEX;
    }
    __syncthreads();
    for (u32 run = 2; run <= size; run *= 2) {
        for (u32 stride = run / 2; stride > 0; stride /= 2) {
            for (u32 pair = threadIdx.x; pair < size / 2; pair += THREADS) {
                const u32 low = pair / stride * stride * 2 + pair % stride, high = low + stride;
                const Entry<Key> a = {shared.keys[low], shared.indices[low]};
                const Entry<Key> b = {shared.keys[high], shared.indices[high]};
                const bool ascends = (low & run) == 0;
                if (is_at_or_before(b, a) == ascends) {
                    shared.keys[low] = b.key;
                    shared.indices[low] = b.index;
                    shared.keys[high] = a.key;
                    shared.indices[high] = a.index;
                }
            }
            __syncthreads();
        }
    }
}

// Collects entries and the bound that they are at or before.
template <class Key> struct Collector {
    Shared<Key>& shared;
    u32 k;
    Entry<Key> bound;
    // That of all blocks of the row.
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
        if (threadIdx.x == 0) atomicMin(row_bound, bound.key);
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

    // Reads the steps from `start` to `end`, and makes room as often as it takes. All threads of the block call it.
    template <class Reader> __device__ void read_steps(const Reader& reader, u64 start, u64 end) {
        for (u64 step = start; step < end; step++) {
            u32 open = reader.items_before(step, bound.key);
            while (true) {
                open = add(reader, step, open);
                if (!__syncthreads_or(open != 0)) break;
                keep();
            }
        }
    }

    // Reads a span of steps. All threads of the block call it.
    template <class Reader> __device__ void read_span(const Reader& reader, u64 start, u64 end) {
        const u32 count = shared.count;
        __syncthreads();
        u32 open = 0;
        for (u64 step = start; step < end && open == 0; step++)
            open = add(reader, step, reader.items_before(step, bound.key));
        if (!__syncthreads_or(open != 0)) return;
        if (threadIdx.x == 0) shared.count = count;
        __syncthreads();
        if (count > k) keep();
        read_steps(reader, start, end);
    }

    // Writes what this block keeps: the output of the row if it is the row's only block, and candidates otherwise.
    __device__ void finish(u32 row, u32 part, u32 parts, NumberOrder<Key> order, Key* keys, u32* indices) {
        __syncthreads();
        if (shared.count > k) keep();
        const u64 start = ((u64)row * parts + part) * k;
        if (parts == 1) sort_entries<Key>();
        for (u32 place = threadIdx.x; place < k; place += THREADS) {
            const bool is_there = place < shared.count;
            const Key key = is_there ? shared.keys[place] : ~Key(0);
            keys[start + place] = parts == 1 ? order.from_ordered(key) : key;
            indices[start + place] = is_there ? shared.indices[place] : NO_INDEX;
        }
    }
};

// Reads the numbers of a row: N items for each thread and step.
template <class Key> struct NumberReader {
    static constexpr u32 PACK = 16 / sizeof(Key), PACKS = STEP_BYTES / 16, N = PACK * PACKS, STEP = N * THREADS;
    static constexpr u32 SPAN = 8;
    const Key* numbers;
    u32 n;
    NumberOrder<Key> order;

    __device__ u64 index(u64 step, u32 item) const {
        return step * STEP + (item / PACK * THREADS + threadIdx.x) * PACK + item % PACK;
    }

    __device__ Entry<Key> entry(u64 step, u32 item) const {
        return {order.to_ordered(numbers[index(step, item)]), (u32)index(step, item)};
    }

    // A bit for each item whose key is not after the bound.
    __device__ u32 items_before(u64 step, Key bound) const {
        Key keys[N];
        u32 there = ~0u;
        if ((u64)numbers % 16 == 0 && (step + 1) * STEP <= n) {
#pragma unroll
            for (u32 pack = 0; pack < PACKS; pack++) {
                const uint4 words = __ldcs((const uint4*)(numbers + index(step, pack * PACK)));
                memcpy(keys + pack * PACK, &words, sizeof(words));
            }
        } else {
#pragma unroll
            for (u32 item = 0; item < N; item++) {
                const bool is_there = index(step, item) < n;
                keys[item] = is_there ? numbers[index(step, item)] : 0;
                if (!is_there) there &= ~(1u << item);
            }
        }
        u32 before = 0;
#pragma unroll
        for (u32 item = 0; item < N; item++) {
            if (order.to_ordered(keys[item]) <= bound) before |= 1u << item;
        }
        return before & there;
    }
};

// Reads the candidates of a row, which have their indices with them.
template <class Key> struct CandidateReader {
    static constexpr u32 N = 4, STEP = N * THREADS, SPAN = 2;
    const Key* keys;
    const u32* indices;
    u32 n;

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

// The block of a part of a row; the parts take spans by turns. `row_bounds` is all ones before the first launch.
template <class Key, class Reader>
static __device__ void top_k(
    const Reader& reader, u32 k, u32 parts, NumberOrder<Key> order, Key* row_bounds, Key* keys, u32* indices) {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 row = blockIdx.x / parts, part = blockIdx.x % parts;
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    Collector<Key> collector = {shared, k, {~Key(0), NO_INDEX}, row_bounds + row};
    const u64 steps = ((u64)reader.n + Reader::STEP - 1) / Reader::STEP;
    for (u64 start = (u64)part * Reader::SPAN; start < steps; start += (u64)parts * Reader::SPAN) {
        collector.share_bound();
        collector.read_span(reader, start, min(start + Reader::SPAN, steps));
    }
    collector.finish(row, part, parts, order, keys, indices);
}

#define TOP_K(KEY)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) top_k_numbers_##KEY(u32 n, u32 k, u32 parts, u32 kind,   \
        u32 descending, const KEY* numbers, KEY* row_bounds, KEY* keys, u32* indices) {                               \
        const NumberOrder<KEY> order(kind, descending != 0);                                                          \
        const NumberReader<KEY> reader = {numbers + (u64)(blockIdx.x / parts) * n, n, order};                         \
        top_k<KEY>(reader, k, parts, order, row_bounds, keys, indices);                                               \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) top_k_candidates_##KEY(u32 n, u32 k, u32 parts, u32 kind,\
        u32 descending, const KEY* from_keys, const u32* from_indices, KEY* row_bounds, KEY* keys, u32* indices) {    \
        const u64 start = (u64)(blockIdx.x / parts) * n;                                                              \
        const CandidateReader<KEY> reader = {from_keys + start, from_indices + start, n};                             \
        const NumberOrder<KEY> order(kind, descending != 0);                                                          \
        top_k<KEY>(reader, k, parts, order, row_bounds, keys, indices);                                               \
    }

TOP_K(u32)
TOP_K(u64)
