// Triangles at each node of an oriented graph: each edge leads to its end of higher degree, so that a triangle is found
// once, as a common successor of the two ends of an arc.
//
// For each node with two or more successors, these are put into a hash set in shared memory (intersect.cuh), and the
// successors of each of them are looked up in it. A hit (node, middle, top) is counted in the set for `middle` and
// `top`, and in a register for `node`, so that global memory takes one atomic addition an arc and not one a triangle.
//
// A node of up to WARP_ROW successors is the work of a warp, a larger one of a block. A row of more than
// BLOCK_SLOTS / 2 successors goes through the set in pieces, each of which is looked up by itself.
//
// Buffers, for n nodes (n < 2^28) and m arcs
//   offsets  u32[n + 1], columns u32[m]   the oriented graph
//   list     u32[n]     nodes for warps from the front, those for blocks from the back; need not be cleared
//   control  Control    zero at first
//   counts   u64[n]     zero at first; triangles of each node in the end
//   cancel   u32        the host's: not zero once the request is cancelled
//
// Host algorithm
//   1. triangles_list<<<ceil(n / 256), 256>>>
//   2. triangles_count<<<BLOCKS_PER_MULTIPROCESSOR * multiprocessors, 256>>>
// Once a block has seen that the request is cancelled all end, and the counts have no meaning.
//
// All counts are integers, so the order of the additions does not matter.

#include "intersect.cuh"

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / 32;
constexpr u32 WARP_ROW = 128;
constexpr u32 WARP_SLOTS = 4 * WARP_ROW;
constexpr u32 BLOCK_SLOTS = WARPS * WARP_SLOTS; // 32 KB with the counts, so that six blocks fit on a multiprocessor
constexpr u32 ROW_LANES = 8;        // of a warp that work on the same row
constexpr u32 NODES_PER_TAKE = 8;   // that a warp takes at a time
constexpr u32 TAKES_PER_POLL = 16;  // takes of a warp or block, of which one polls the host's flag
constexpr u32 ROWS_PER_CHECK = 64;  // rows of a warp in a block's node, between two checks of control.cancelled
constexpr u32 CHECKS_PER_POLL = 16; // such checks, of which one polls the host's flag

struct Control {
    u32 warp_nodes, block_nodes; // in the list
    u32 warp_taken, block_taken; // nodes of them that were taken
    u32 cancelled;               // 1 once a block has seen the host's flag
};

// The host's flag is slow to read, so it is polled seldom, and whoever sees it tells the others.
static __device__ bool is_cancelled(Control* control, const volatile u32* cancel, bool poll) {
    if (poll && *cancel != 0) *(volatile u32*)&control->cancelled = 1;
    return *(volatile u32*)&control->cancelled != 0;
}

// Counts the triangles whose lowest node is `node`, by the threads of `group`, of which LANES work on a row.
template <class Group, u32 LANES, u32 SLOTS>
static __device__ void count_node(Group group, NodeSet<SLOTS> set, u32 node, const u32* offsets, const u32* columns,
                                  Control* control, u64* counts, const volatile u32* cancel) {
    constexpr u32 PIECE = SLOTS / 2;
    const u32 begin = offsets[node], end = offsets[node + 1];
    const u32 lane = group.rank() % LANES, first_row = group.rank() / LANES;
    u32 of_node = 0;
    for (u32 piece = begin; piece < end; piece += PIECE) {
        const u32 piece_end = min(end, piece + PIECE);
        set.reset(group, piece_end - piece);
        group.sync();
        for (u32 at = piece + group.rank(); at < piece_end; at += Group::SIZE) set.insert(columns[at]);
        group.sync();
        u32 rows = 0;
        for (u32 at = begin + first_row; at < end; at += Group::SIZE / LANES) {
            // Only long rows take long enough for it.
            if (Group::SIZE > 32 && ++rows % ROWS_PER_CHECK == 0) {
                const bool poll = threadIdx.x == 0 && rows / ROWS_PER_CHECK % CHECKS_PER_POLL == 0;
                if (is_cancelled(control, cancel, poll)) break;
            }
            const u32 middle = columns[at];
            const u32 found = count_row<LANES>(set, columns, offsets[middle], offsets[middle + 1], lane);
            if (found > 0) {
                of_node += found;
                const u32 slot = set.find(middle);
                if (slot == NO_SLOT) {
                    atomicAdd(&counts[middle], (u64)found); // it is in another piece
                } else {
                    atomicAdd(&set.counts[slot], found);
                }
            }
        }
        group.sync();
        set.for_each(group, [&](u32 other, u32 count) { atomicAdd(&counts[other], (u64)count); });
        group.sync();
    }
    // The node's own, once for each warp.
    u64 sum = of_node;
    for (u32 delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
    if (threadIdx.x % 32 == 0 && sum > 0) atomicAdd(&counts[node], sum);
}

// Lists the nodes that have two or more successors, by the size of their rows.
extern "C" __global__ void __launch_bounds__(256)
    triangles_list(u32 nodes, const u32* offsets, u32* list, Control* control) {
    list_rows(nodes, offsets, WARP_ROW, list, &control->warp_nodes, &control->block_nodes);
}

extern "C" __global__ void __launch_bounds__(256)
    triangles_count(u32 nodes, const u32* offsets, const u32* columns, const u32* list, Control* control, u64* counts,
                    const volatile u32* cancel) {
    __shared__ __align__(8) u32 memory[2 * BLOCK_SLOTS];
    __shared__ u32 taken;
    // Large nodes first, so that small ones fill the end.
    for (u32 take = 0;; take++) {
        if (threadIdx.x == 0) {
            const bool ends = is_cancelled(control, cancel, take % TAKES_PER_POLL == 0);
            taken = ends ? NO_NODE : atomicAdd(&control->block_taken, 1);
        }
        __syncthreads();
        const u32 at = taken;
        if (at >= control->block_nodes) break;
        count_node<BlockGroup<THREADS>, 32>(BlockGroup<THREADS>(), NodeSet<BLOCK_SLOTS>(memory), list[nodes - 1 - at],
                                            offsets, columns, control, counts, cancel);
        __syncthreads();
    }
    __syncthreads();
    const NodeSet<WARP_SLOTS> set(memory + threadIdx.x / 32 * 2 * WARP_SLOTS);
    for (u32 take = 0;; take++) {
        u32 at = 0;
        if (threadIdx.x % 32 == 0) {
            const bool ends = is_cancelled(control, cancel, threadIdx.x == 0 && take % TAKES_PER_POLL == 0);
            at = ends ? NO_NODE : atomicAdd(&control->warp_taken, NODES_PER_TAKE);
        }
        at = __shfl_sync(0xffffffffu, at, 0);
        if (at >= control->warp_nodes) break;
        const u32 end = min(at + NODES_PER_TAKE, control->warp_nodes);
        for (; at < end; at++) {
            count_node<WarpGroup, ROW_LANES>(WarpGroup(), set, list[at], offsets, columns, control, counts, cancel);
        }
    }
}
