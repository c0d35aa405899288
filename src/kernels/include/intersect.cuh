// Intersections of rows of a graph: a hash set of one row's nodes in shared memory, in which the nodes of other rows
// are looked up and counted.
//
// Graph: CSR, row offsets u32[n + 1] and columns u32[arcs], each column below n, rows without repeats.
//
// A group of threads, which is a warp or a block, has a set:
//
//   set.reset(group, length)            for a row of up to `length` nodes; at most SLOTS / 2
//   set.insert(node)                    each node once, by any thread of the group
//   set.find(node)                      the slot of a node, or NO_SLOT
//   set.counts[slot]                    0 at first, and changed by atomicAdd
//   set.for_each(group, function)       calls function(node, count) where the count is not 0
//
// Between inserting and looking up, and between counting and for_each, the group synchronizes. `count_row` looks the
// nodes of a row up with some lanes, and `for_each_hit` calls a function for those that are found. A set is at most a
// quarter full where there are slots, and half full otherwise. Most lookups are misses, and a warp goes on until its last
// lane has ended. So slots are read in pairs: nearly all lookups end at the first.
//
// Source: Pandey et al., "TRUST: Triangle Counting Reloaded on GPUs", IEEE TPDS 32(11), 2021.

#ifndef TOWER_KERNELS_INTERSECT
#define TOWER_KERNELS_INTERSECT

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 NO_NODE = 0xffffffffu; // nodes are below 2^28
constexpr u32 NO_SLOT = 0xffffffffu;
constexpr u32 MIN_SLOTS = 32;

// The threads of a warp, which work together on a row.
struct WarpGroup {
    static constexpr u32 SIZE = 32;
    static __device__ u32 rank() { return threadIdx.x % 32; }
    static __device__ void sync() { __syncwarp(); }
    static __device__ bool any(bool is) { return __any_sync(0xffffffffu, is) != 0; }
};

// The threads of a block.
template <u32 THREADS> struct BlockGroup {
    static constexpr u32 SIZE = THREADS;
    static __device__ u32 rank() { return threadIdx.x; }
    static __device__ void sync() { __syncthreads(); }
    static __device__ bool any(bool is) { return __syncthreads_or(is) != 0; }
};

// A hash set with up to SLOTS slots: open addressing with linear probing, from the first slot of a pair.
template <u32 SLOTS> struct NodeSet {
    static_assert((SLOTS & (SLOTS - 1)) == 0, "slots are a power of two");

    u32* nodes;
    u32* counts;
    u32 slots, shift;

    // Over shared memory of 2 * SLOTS words, aligned to 8 bytes.
    __device__ explicit NodeSet(u32* memory) : nodes(memory), counts(memory + SLOTS), slots(MIN_SLOTS), shift(27) {}

    // Makes the set empty, with slots for a row. The group synchronizes before it inserts.
    template <class Group> __device__ void reset(Group group, u32 length) {
        slots = MIN_SLOTS;
        shift = 27; // 32 - log2(slots)
        while (slots < 4 * length && slots < SLOTS) {
            slots *= 2;
            shift--;
        }
        for (u32 slot = group.rank(); slot < slots; slot += Group::SIZE) {
            nodes[slot] = NO_NODE;
            counts[slot] = 0;
        }
    }

    // Multiplicative hashing: the high bits of the product.
    __device__ u32 first_slot(u32 node) const { return node * 0x9e3779b1u >> shift & ~1u; }

    __device__ void insert(u32 node) {
        u32 slot = first_slot(node);
        while (atomicCAS(&nodes[slot], NO_NODE, node) != NO_NODE) slot = (slot + 1) & (slots - 1);
    }

    // The slot of any node but NO_NODE. The second slot of a pair is used after the first.
    __device__ u32 find(u32 node) const {
        u32 slot = first_slot(node);
        for (;;) {
            const uint2 found = *(const uint2*)(nodes + slot);
            if (found.x == node) return slot;
            if (found.y == node) return slot + 1;
            if (found.y == NO_NODE) return NO_SLOT;
            slot = (slot + 2) & (slots - 1);
        }
    }

    template <class Group, class Function> __device__ void for_each(Group group, Function function) const {
        for (u32 slot = group.rank(); slot < slots; slot += Group::SIZE) {
            if (counts[slot] > 0) function(nodes[slot], counts[slot]);
        }
    }
};

// Looks up the nodes columns[begin..end], of which lane `lane` of `LANES` takes every LANES-th, and calls `hit(slot)` for
// each that is in the set.
template <u32 LANES, u32 SLOTS, class Hit>
static __device__ void for_each_hit(const NodeSet<SLOTS>& set, const u32* columns, u32 begin, u32 end, u32 lane, Hit hit) {
    constexpr u32 AHEAD = 4; // loads in flight
    const u32 length = end - begin;
    for (u32 base = 0; base < length; base += AHEAD * LANES) {
        u32 nodes[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 at = base + i * LANES + lane;
            nodes[i] = at < length ? __ldg(columns + begin + at) : NO_NODE;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 slot = nodes[i] == NO_NODE ? NO_SLOT : set.find(nodes[i]);
            if (slot != NO_SLOT) hit(slot);
        }
    }
}

// As for_each_hit, and adds 1 to the count of each node that is in the set. Returns how many the lane has found.
template <u32 LANES, u32 SLOTS>
static __device__ u32 count_row(const NodeSet<SLOTS>& set, const u32* columns, u32 begin, u32 end, u32 lane) {
    u32 found = 0;
    for_each_hit<LANES>(set, columns, begin, end, lane, [&](u32 slot) {
        atomicAdd(&set.counts[slot], 1);
        found++;
    });
    return found;
}

// Lists the rows of two or more nodes by their length: those of up to `short_length` from the front of the list, and the
// longer ones from its back. Both counts are 0 before. A thread for each row, in blocks of whole warps.
static __device__ void list_rows(u32 rows, const u32* offsets, u32 short_length, u32* list, u32* short_rows,
                                 u32* long_rows) {
    constexpr u32 ALL_LANES = 0xffffffffu;
    const u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    const u32 length = row < rows ? offsets[row + 1] - offsets[row] : 0;
    const u32 below = (1u << threadIdx.x % 32) - 1;
    const u32 are_short = __ballot_sync(ALL_LANES, length > 1 && length <= short_length);
    const u32 are_long = __ballot_sync(ALL_LANES, length > short_length);
    u32 short_at = 0, long_at = 0;
    if (threadIdx.x % 32 == 0) {
        if (are_short != 0) short_at = atomicAdd(short_rows, __popc(are_short));
        if (are_long != 0) long_at = atomicAdd(long_rows, __popc(are_long));
    }
    short_at = __shfl_sync(ALL_LANES, short_at, 0) + __popc(are_short & below);
    long_at = __shfl_sync(ALL_LANES, long_at, 0) + __popc(are_long & below);
    if (length > short_length) {
        list[rows - 1 - long_at] = row;
    } else if (length > 1) {
        list[short_at] = row;
    }
}

#endif
