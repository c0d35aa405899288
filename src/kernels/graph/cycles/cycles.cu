// Cycles of two, three and four nodes through each node of a graph.
//
// Each cycle is counted at its node of highest degree, u: the wedges u - v - w, where v and w are lower than u, are
// counted for each end w, and two of them with the same end are a cycle of four nodes. If c wedges end at w, then
//   w is opposite u in c (c - 1) / 2 cycles of four nodes;
//   v is next to u in the sum of c - 1 over the ends of its wedges;
//   w is in c triangles with u, if they are adjacent.
// In a directed graph there are two counts: `outward` of the wedges u -> v -> w, and `inward` of those w -> v -> u. A
// cycle of four nodes is one of each, and w -> u closes one of three. A walk u -> v -> w -> v -> u is counted with them
// and taken off at the end: cycles_subtract_back_and_forth.
//
// Nodes get new numbers that ascend with the degree, so that the ends lower than u are the start of a row. A node's
// number is the position of its counter, in units of 4 bits: 1 unit for a degree below 16, then 2, 4 and 8. A count of
// wedges is at most the degree of their end, so it does not overflow. Numbers between those of two nodes have empty
// rows. So the counters of half a million nodes of low degree fit into the shared memory of a multiprocessor.
//
// Sources: Chiba and Nishizeki, "Arboricity and subgraph listing algorithms", 1985; Shi and Shun, "Parallel algorithms
// for butterfly computations", 2020.
//
// A node with few wedges is the work of a warp, and one with some of a block, both with a hash table of counters in
// shared memory. The others are the work of a block with an array of counters; where that is too small for all numbers,
// blocks take windows of it.
//
// Buffers, for n nodes, s numbers and m arcs; a directed graph has two sides: its successors, then its predecessors
//   offsets  u32[s + 1], columns u32[m]  for each side: rows of numbers, ascending
//   lower    u32[m]    for each side: for an arc u -> v to a lower node the nodes of row v that are lower than u
//   wedges   u64[s]    zero at first; the wedges of each node
//   lists    u32[3 s]  the nodes for warps, for blocks with a table, and for blocks with an array
//   control  Control   zero at first
//   two, three, four   u64[s], zero at first; cycles through each node
//   total    u64       zero at first; cycles of four nodes, for the entries that count no others
//
// All counts are integers, so the order of the additions does not matter.

#include "wedge_arrays.cuh"
#include "wedge_tables.cuh"

// ---- Lists

// For each arc u -> v to a lower node, how many nodes of row v are lower than u; and the sum of these for each u.
extern "C" __global__ void __launch_bounds__(256)
    cycles_wedges(u32 numbers, u32 arcs, const u32* offsets, const u32* columns, u32* lower, u64* wedges) {
    const u32 first = blockIdx.x * THREADS, arc = first + threadIdx.x;
    const u32 node = row_of(numbers, offsets, first, min(arc, arcs - 1), arcs);
    u32 count = 0;
    if (arc < arcs) {
        const u32 middle = columns[arc];
        if (middle < node) {
            const u32 begin = offsets[middle];
            count = lower_bound(columns, begin, offsets[middle + 1], node) - begin;
        }
        lower[arc] = count;
    }
    if (__all_sync(ALL, node == __shfl_sync(ALL, node, 0))) {
        u64 sum = count;
        for (u32 delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(ALL, sum, delta);
        if (threadIdx.x % 32 == 0 && sum > 0) atomicAdd(&wedges[node], sum);
    } else if (count > 0) {
        atomicAdd(&wedges[node], (u64)count);
    }
}

// Lists the nodes with wedges, those of high degree first.
extern "C" __global__ void __launch_bounds__(256)
    cycles_list(u32 numbers, const u64* wedges, u32* lists, Control* control) {
    const u32 at = blockIdx.x * THREADS + threadIdx.x, node = numbers - 1 - at;
    const u64 count = at < numbers ? wedges[node] : 0;
    const u32 list = count <= WARP_WEDGES ? 0 : count <= BLOCK_WEDGES ? 1 : 2;
    for (u32 i = 0; i < 3; i++) {
        const u32 members = __ballot_sync(ALL, count > 0 && list == i);
        if (members == 0) continue;
        u32 base = 0;
        if (threadIdx.x % 32 == 0) base = atomicAdd(&control->listed[i], __popc(members));
        base = __shfl_sync(ALL, base, 0);
        if (count > 0 && list == i) {
            lists[(u64)i * numbers + base + __popc(members & ((1u << threadIdx.x % 32) - 1))] = node;
        }
    }
}

// The entries, for undirected graphs with one side and directed graphs with two.
#define CYCLES_SIDE(i) const u32 *offsets_##i, const u32 *columns_##i, const u32 *lower_##i
#define CYCLES_ENTRIES(suffix, SIDES, PER_NODE)                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        cycles_by_warps_##suffix(CYCLES_SIDE(0), CYCLES_SIDE(1), const u64* wedges, const u32* list, Control* control, \
                                 u64* three, u64* four, const volatile u32* flag, u32* cancelled) {                    \
        const Side sides[2] = {{offsets_0, columns_0, lower_0}, {offsets_1, columns_1, lower_1}};                      \
        count_by_warps<SIDES, PER_NODE, 8>(sides, wedges, list, control, Counts<PER_NODE>{three, four},                \
                                           CancelSignal{flag, cancelled});                                             \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        cycles_by_blocks_##suffix(CYCLES_SIDE(0), CYCLES_SIDE(1), const u64* wedges, const u32* list,                  \
                                  Control* control, u64* three, u64* four, const volatile u32* flag, u32* cancelled) { \
        const Side sides[2] = {{offsets_0, columns_0, lower_0}, {offsets_1, columns_1, lower_1}};                      \
        count_by_blocks<SIDES, PER_NODE>(sides, wedges, list, control, Counts<PER_NODE>{three, four},                  \
                                         CancelSignal{flag, cancelled});                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(1024, 1)                                                              \
        cycles_by_arrays_##suffix(CYCLES_SIDE(0), CYCLES_SIDE(1), u32 numbers, u32 words, u32 first_8, u32 first_16,   \
                                  u32 first_32, const u32* list, Control* control, u64* three, u64* four,              \
                                  const volatile u32* flag, u32* cancelled) {                                          \
        const Side sides[2] = {{offsets_0, columns_0, lower_0}, {offsets_1, columns_1, lower_1}};                      \
        count_by_arrays<SIDES, PER_NODE>(numbers, words, Widths{first_8, first_16, first_32}, sides, list, control,    \
                                         Counts<PER_NODE>{three, four}, CancelSignal{flag, cancelled});                \
    }

CYCLES_ENTRIES(undirected, 1, true)
CYCLES_ENTRIES(directed, 2, true)
CYCLES_ENTRIES(total, 1, false)

// ---- Pairs of opposite arcs

// The nodes that a node has arcs to and from: those that are lower and those that are higher.
struct Mutual {
    u32 lower, higher;
};

// Marks the arcs whose opposites are arcs too, and counts them at their first nodes.
extern "C" __global__ void __launch_bounds__(256)
    cycles_mutual(u32 numbers, u32 arcs, const u32* offsets, const u32* columns, const u32* predecessor_offsets,
                  const u32* predecessors, unsigned char* is_mutual, Mutual* mutual) {
    const u32 first = blockIdx.x * THREADS, arc = first + threadIdx.x;
    const u32 node = row_of(numbers, offsets, first, min(arc, arcs - 1), arcs);
    if (arc >= arcs) return;
    const u32 other = columns[arc], end = predecessor_offsets[node + 1];
    const u32 at = lower_bound(predecessors, predecessor_offsets[node], end, other);
    const bool is = at < end && predecessors[at] == other;
    is_mutual[arc] = is;
    if (is) atomicAdd(other < node ? &mutual[node].lower : &mutual[node].higher, 1);
}

// Takes off the walks along two pairs of opposite arcs and back, for all pairs at each node in the middle of which one
// is to a higher node. Those with an end are taken off there, and two for each at the node.
extern "C" __global__ void __launch_bounds__(256)
    cycles_subtract_back_and_forth(u32 numbers, u32 arcs, const u32* offsets, const u32* columns,
                                   const unsigned char* is_mutual, const Mutual* mutual, u64* two, u64* four) {
    const u32 first = blockIdx.x * THREADS, arc = first + threadIdx.x;
    const u32 node = row_of(numbers, offsets, first, min(arc, arcs - 1), arcs);
    if (arc < arcs && is_mutual[arc] != 0) {
        const u32 other = columns[arc];
        const Mutual at = mutual[node];
        const u32 walks = other > node ? at.lower + at.higher - 1 : at.higher;
        if (walks > 0) atomicAdd(&four[other], 0 - (u64)walks);
    }
    if (arc < numbers) {
        const Mutual at = mutual[arc];
        two[arc] = at.lower + at.higher;
        const u64 pairs = (u64)at.higher * (at.higher - 1) / 2 + (u64)at.higher * at.lower;
        if (at.higher > 0 && pairs > 0) atomicAdd(&four[arc], 0 - 2 * pairs);
    }
}
