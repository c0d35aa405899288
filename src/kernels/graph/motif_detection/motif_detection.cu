// The triangles of each arc of an oriented graph, by the directions of their arcs, and its cliques of four nodes.
//
// The lowest node of a triangle or clique has all others as successors. So for each node with two or more successors,
// these are put into a hash set (intersect.cuh), and the successors of each of them are looked up in it. A hit is a
// triangle, and a bit of a matrix: an arc between two successors. A clique of four is a triangle of that matrix: for
// each arc in it, the common successors of both ends are the ones of the intersection of two of its rows.
//
// A node of up to WARP_ROW successors is the work of a warp, a larger one of a block. A row of more than BLOCK_SLOTS /
// 2 successors goes through the set in pieces. A matrix of more than BLOCK_WORDS words is in global memory.
//
// Buffers, for n nodes (n < 2^28) and m arcs
//   offsets  u32[n + 1], columns u32[m]   the oriented graph
//   dyads    u8[m]      of a directed graph: its arcs lead as the oriented one (0), against it (1), or both ways (2)
//   list     u32[n]     nodes for warps from the front, those for blocks from the back; need not be cleared
//   matrices u32[blocks * matrix_words]   need not be cleared
//   control  Control    zero at first
//   of_arcs  u32[m]     zero at first; triangles of each arc
//   of_dyads u64[27]    zero at first; triangles by the dyads of their arcs, from the lowest to the middle node, from
//                       the lowest to the highest, and from the middle to the highest: digits of base 3
//
// All counts are integers, so the order of the additions does not matter.

#include "cancel.cuh"
#include "intersect.cuh"

constexpr u32 ALL = 0xffffffffu;
constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / 32;
constexpr u32 WARP_ROW = 64;
constexpr u32 WARP_SLOTS = 256;
constexpr u32 WARP_WORDS = WARP_ROW * WARP_ROW / 32;
constexpr u32 WARP_MEMORY = 2 * WARP_SLOTS + WARP_ROW + WARP_WORDS;
constexpr u32 BLOCK_SLOTS = 1024;
constexpr u32 BLOCK_PIECE = BLOCK_SLOTS / 2;
constexpr u32 BLOCK_WORDS = WARPS * WARP_MEMORY - 2 * BLOCK_SLOTS - BLOCK_PIECE; // a matrix of 307 nodes
constexpr u32 BLOCKS_PER_MULTIPROCESSOR = 8;
constexpr u32 COMBINATIONS = 27;
constexpr u32 ROW_LANES = 8;        // of a warp that work on the same row
constexpr u32 NODES_PER_TAKE = 8;   // that a warp takes at a time
constexpr u32 TAKES_PER_POLL = 16;  // takes of a warp or block, of which one polls the host's flag
constexpr u32 AHEAD = 4;            // loads in flight
constexpr u32 ROUNDS_PER_CHECK = 64; // rounds of AHEAD loads, or words of rows of a matrix, between two checks

struct Control {
    u32 warp_nodes, block_nodes; // in the list
    u32 warp_taken, block_taken; // nodes of them that were taken
    u32 max_row;                 // the most successors of a node
    u32 padding;
    u64 cliques;
};

struct Graph {
    const u32* offsets;
    const u32* columns;
    const unsigned char* dyads;
};

// The matrix of the arcs between the successors of a node: a row of `words` words for each.
struct Matrix {
    u32* memory;
    u32 words;

    __device__ void set(u32 row, u32 column) const { atomicOr(&memory[row * words + column / 32], 1u << column % 32); }
    __device__ u32* row(u32 index) const { return memory + index * words; }
};

// The triangles of a matrix, by the threads of a group: the sum over them.
template <class Group>
static __device__ u64 count_triangles(Group group, const Matrix& matrix, u32 rows, CancelSignal cancel) {
    u32 lanes = 1; // that work on a row
    while (lanes < matrix.words && lanes < 32) lanes *= 2;
    const u32 lane = group.rank() % lanes;
    u64 count = 0;
    u32 rounds = 0;
    for (u32 i = group.rank() / lanes; i < rows; i += Group::SIZE / lanes) {
        const u32* row = matrix.row(i);
        const u32 own = lane < matrix.words ? row[lane] : 0;
        for (u32 word = 0; word < matrix.words; word++) {
            if (++rounds % ROUNDS_PER_CHECK == 0 && is_cancelled_at(cancel, rounds / ROUNDS_PER_CHECK)) return count;
            for (u32 bits = row[word]; bits != 0; bits &= bits - 1) {
                const u32* other = matrix.row(word * 32 + __ffs(bits) - 1);
                if (lane < matrix.words) count += __popc(own & other[lane]);
                for (u32 at = lane + lanes; at < matrix.words; at += lanes) count += __popc(row[at] & other[at]);
            }
        }
    }
    return count;
}

// Counts the triangles whose lowest node is `node`, by the threads of `group`, of which LANES work on a row. Returns
// the cliques that the thread has found.
template <bool DYADS, class Group, u32 LANES, u32 SLOTS>
static __device__ u64 count_node(Group group, NodeSet<SLOTS> set, u32* of_columns, Matrix matrix, u32 node,
                                 const Graph& graph, u32* of_arcs, u32* combinations, CancelSignal cancel) {
    constexpr u32 PIECE = SLOTS / 2;
    const u32 begin = graph.offsets[node], length = graph.offsets[node + 1] - begin;
    const u32 lane = group.rank() % LANES, part = group.rank() / LANES;
    for (u32 word = group.rank(); word < length * matrix.words; word += Group::SIZE) matrix.memory[word] = 0;
    for (u32 piece = 0; piece < length; piece += PIECE) {
        const u32 piece_end = min(length, piece + PIECE);
        set.reset(group, piece_end - piece);
        group.sync();
        for (u32 at = piece + group.rank(); at < piece_end; at += Group::SIZE) {
            set.insert(graph.columns[begin + at]);
            of_columns[at - piece] = 0;
        }
        group.sync();
        for (u32 at = piece + group.rank(); at < piece_end; at += Group::SIZE) {
            set.counts[set.find(graph.columns[begin + at])] = at;
        }
        group.sync();
        u32 rounds = 0;
        bool cancelled = false;
        for (u32 base = 0; base < length; base += Group::SIZE / LANES) {
            const u32 row = base + part;
            u32 found = 0;
            if (row < length && !cancelled) {
                const u32 middle = graph.columns[begin + row], end = graph.offsets[middle + 1];
                const u32 low = DYADS ? graph.dyads[begin + row] : 0;
                for (u32 first = graph.offsets[middle] + lane; first < end; first += AHEAD * LANES) {
                    cancelled = ++rounds % ROUNDS_PER_CHECK == 0 && is_cancelled_at(cancel, rounds / ROUNDS_PER_CHECK);
                    if (cancelled) break;
                    u32 nodes[AHEAD];
#pragma unroll
                    for (u32 i = 0; i < AHEAD; i++) {
                        nodes[i] = first + i * LANES < end ? __ldg(graph.columns + first + i * LANES) : NO_NODE;
                    }
#pragma unroll
                    for (u32 i = 0; i < AHEAD; i++) {
                        const u32 slot = nodes[i] == NO_NODE ? NO_SLOT : set.find(nodes[i]);
                        if (slot == NO_SLOT) continue;
                        const u32 high_arc = first + i * LANES, column = set.counts[slot];
                        found++;
                        atomicAdd(&of_arcs[high_arc], 1);
                        atomicAdd(&of_columns[column - piece], 1);
                        matrix.set(row, column);
                        if (DYADS) {
                            const u32 index = (low * 3 + graph.dyads[begin + column]) * 3 + graph.dyads[high_arc];
                            atomicAdd(&combinations[index], 1);
                        }
                    }
                }
            }
#pragma unroll
            for (u32 delta = LANES / 2; delta > 0; delta /= 2) found += __shfl_down_sync(ALL, found, delta, LANES);
            if (lane == 0 && found > 0) atomicAdd(&of_arcs[begin + row], found);
        }
        group.sync();
        for (u32 at = piece + group.rank(); at < piece_end; at += Group::SIZE) {
            const u32 count = of_columns[at - piece];
            if (count > 0) atomicAdd(&of_arcs[begin + at], count);
        }
        group.sync();
    }
    return count_triangles(group, matrix, length, cancel);
}

// Lists the nodes that have two or more successors, by the size of their rows.
extern "C" __global__ void __launch_bounds__(256)
    motif_list(u32 nodes, const u32* offsets, u32* list, Control* control) {
    list_rows(nodes, offsets, WARP_ROW, list, &control->warp_nodes, &control->block_nodes);
    const u32 node = blockIdx.x * THREADS + threadIdx.x;
    const u32 length = node < nodes ? offsets[node + 1] - offsets[node] : 0;
    if (length > WARP_ROW) atomicMax(&control->max_row, length);
}

// Adds the counts of combinations to those of all nodes, and sets them to 0.
template <class Group> static __device__ void add_combinations(Group group, u32* combinations, u64* of_dyads) {
    group.sync();
    for (u32 i = group.rank(); i < COMBINATIONS; i += Group::SIZE) {
        if (combinations[i] > 0) atomicAdd(&of_dyads[i], (u64)combinations[i]);
        combinations[i] = 0;
    }
    group.sync();
}

template <bool DYADS>
static __device__ void count_all(u32 nodes, const Graph& graph, const u32* list, u64 matrix_words, u32* matrices,
                                 Control* control, u32* of_arcs, u64* of_dyads, CancelSignal cancel) {
    __shared__ __align__(8) u32 memory[WARPS * WARP_MEMORY];
    __shared__ u32 combinations[WARPS][COMBINATIONS];
    __shared__ u32 taken;
    const u32 warp = threadIdx.x / 32;
    for (u32 i = threadIdx.x % 32; i < COMBINATIONS; i += 32) combinations[warp][i] = 0;
    u64 cliques = 0;
    // Large nodes first, so that small ones fill the end.
    for (u32 take = 0;; take++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            const bool ends = cancel.is_seen() || ((take + blockIdx.x) % TAKES_PER_POLL == 0 && cancel.poll_cancel());
            taken = ends ? NO_NODE : atomicAdd(&control->block_taken, 1);
        }
        __syncthreads();
        if (taken >= control->block_nodes) break;
        const u32 node = list[nodes - 1 - taken];
        const u32 length = graph.offsets[node + 1] - graph.offsets[node], words = (length + 31) / 32;
        u32* of_columns = memory + 2 * BLOCK_SLOTS;
        const bool fits = length * words <= BLOCK_WORDS;
        const Matrix matrix{fits ? of_columns + BLOCK_PIECE : matrices + blockIdx.x * matrix_words, words};
        const NodeSet<BLOCK_SLOTS> set(memory);
        const BlockGroup<THREADS> group;
        cliques += count_node<DYADS, BlockGroup<THREADS>, 32>(group, set, of_columns, matrix, node, graph, of_arcs,
                                                              combinations[0], cancel);
        if (DYADS) add_combinations(group, combinations[0], of_dyads);
    }
    __syncthreads();
    u32* own = memory + warp * WARP_MEMORY;
    const NodeSet<WARP_SLOTS> set(own);
    for (u32 take = 0;; take++) {
        u32 at = 0;
        if (threadIdx.x % 32 == 0) {
            const bool polls = threadIdx.x == 0 && (take + blockIdx.x) % TAKES_PER_POLL == 0;
            const bool ends = cancel.is_seen() || (polls && cancel.poll_cancel());
            at = ends ? NO_NODE : atomicAdd(&control->warp_taken, NODES_PER_TAKE);
        }
        at = __shfl_sync(ALL, at, 0);
        if (at >= control->warp_nodes) break;
        const u32 end = min(at + NODES_PER_TAKE, control->warp_nodes);
        for (; at < end; at++) {
            const u32 node = list[at], words = (graph.offsets[node + 1] - graph.offsets[node] + 31) / 32;
            u32* of_columns = own + 2 * WARP_SLOTS;
            const Matrix matrix{of_columns + WARP_ROW, words};
            cliques += count_node<DYADS, WarpGroup, ROW_LANES>(WarpGroup(), set, of_columns, matrix, node, graph,
                                                               of_arcs, combinations[warp], cancel);
            __syncwarp();
        }
        if (DYADS) add_combinations(WarpGroup(), combinations[warp], of_dyads);
    }
    for (u32 delta = 16; delta > 0; delta /= 2) cliques += __shfl_down_sync(ALL, cliques, delta);
    if (threadIdx.x % 32 == 0 && cliques > 0) atomicAdd(&control->cliques, cliques);
}

extern "C" __global__ void __launch_bounds__(256, BLOCKS_PER_MULTIPROCESSOR)
    motif_count_undirected(u32 nodes, const u32* offsets, const u32* columns, const u32* list, u64 matrix_words,
                           u32* matrices, Control* control, u32* of_arcs, const volatile u32* flag, u32* cancelled) {
    count_all<false>(nodes, Graph{offsets, columns, nullptr}, list, matrix_words, matrices, control, of_arcs, nullptr,
                     CancelSignal{flag, cancelled});
}

extern "C" __global__ void __launch_bounds__(256, BLOCKS_PER_MULTIPROCESSOR)
    motif_count_directed(u32 nodes, const u32* offsets, const u32* columns, const unsigned char* dyads, const u32* list,
                         u64 matrix_words, u32* matrices, Control* control, u32* of_arcs, u64* of_dyads,
                         const volatile u32* flag, u32* cancelled) {
    count_all<true>(nodes, Graph{offsets, columns, dyads}, list, matrix_words, matrices, control, of_arcs, of_dyads,
                    CancelSignal{flag, cancelled});
}

// Whether `node` is in a row of ascending columns.
static __device__ bool has(const u32* offsets, const u32* columns, u32 row, u32 node) {
    u32 begin = offsets[row], end = offsets[row + 1];
    while (begin < end) {
        const u32 middle = begin + (end - begin) / 2;
        if (columns[middle] == node) return true;
        if (columns[middle] < node) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return false;
}

// Finds how the arcs of a directed graph lead between the ends of each arc of the oriented one, and counts the arcs
// that lead both ways for each node. A warp for each row.
extern "C" __global__ void __launch_bounds__(256)
    motif_dyads(u32 nodes, const u32* offsets, const u32* columns, const u32* successor_offsets, const u32* successors,
                unsigned char* dyads, u32* mutual, const volatile u32* flag, u32* cancelled) {
    if (is_cancelled(CancelSignal{flag, cancelled})) return;
    const u32 node = blockIdx.x * WARPS + threadIdx.x / 32;
    if (node >= nodes) return;
    const u32 end = offsets[node + 1];
    u32 both = 0;
    for (u32 arc = offsets[node] + threadIdx.x % 32; arc < end; arc += 32) {
        const u32 other = columns[arc];
        const bool forward = has(successor_offsets, successors, node, other);
        const bool backward = has(successor_offsets, successors, other, node);
        dyads[arc] = forward && backward ? 2 : backward;
        if (forward && backward) {
            atomicAdd(&mutual[other], 1);
            both++;
        }
    }
    for (u32 delta = 16; delta > 0; delta /= 2) both += __shfl_down_sync(ALL, both, delta);
    if (threadIdx.x % 32 == 0 && both > 0) atomicAdd(&mutual[node], both);
}
