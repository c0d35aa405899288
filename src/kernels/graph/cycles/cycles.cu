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
// rows. So the counters of many nodes fit into shared memory: Wang, Fu and Cheng, "Rectangle counting in large
// bipartite graphs" (2014), with the order of Chiba and Nishizeki (1985).
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
//   total    u64       zero at first; cycles of four nodes, where those of each node are not asked for (the entries *_total)
//
// All counts are integers, so the order of the additions does not matter.

#include "cancel.cuh"
#include "hash_table.cuh"

constexpr u32 THREADS = 256;
constexpr u32 ALL = 0xffffffffu;
constexpr u32 WARP_WEDGES = 256;            // of a node for a warp, at most
constexpr u32 WARP_SLOTS = 480;
constexpr u32 BLOCK_WEDGES = 2048;          // of a node for a block with a table, at most
constexpr u32 BLOCK_SLOTS = 3840;
constexpr u32 ARRAY_THREADS = 1024;
constexpr u32 UNITS_PER_WORD = 8;           // of 4 bits
constexpr u32 TAKES_PER_POLL = 16;          // takes of a block, of which one polls the host's flag
constexpr u32 CHUNKS_PER_CHECK = 16;        // chunks of rows of a warp, between two checks of the signal
constexpr u32 CHUNKS_PER_POLL = 64;         // chunks, of which one polls the host's flag
constexpr u64 ALL_TAKEN = ~0ull;
constexpr u32 AHEAD = 4;                    // loads in flight

struct Control {
    u32 listed[4]; // nodes in each of three lists
    u64 taken[3];  // of them, or of them in each window, taken
};

// The first numbers of nodes with counters of 8, 16 and 32 bits.
struct Widths {
    u32 first_8, first_16, first_32;

    __device__ u32 mask(u32 number) const {
        return number < first_8 ? 0xfu : number < first_16 ? 0xffu : number < first_32 ? 0xffffu : 0xffffffffu;
    }

    // The bits of the counters in a word, from this number on, that are above 1.
    __device__ u32 more_than_one(u32 number) const {
        return number < first_8    ? 0xeeeeeeeeu
               : number < first_16 ? 0xfefefefeu
               : number < first_32 ? 0xfffefffeu
                                   : 0xfffffffeu;
    }
};

struct Side {
    const u32* offsets;
    const u32* columns;
    const u32* lower;
};

// The first of columns[begin..end], which ascend, that is not below `number`.
static __device__ u32 lower_bound(const u32* columns, u32 begin, u32 end, u32 number) {
    while (begin < end) {
        const u32 middle = begin + (end - begin) / 2;
        if (columns[middle] < number) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

// ---- New numbers

// The row of an arc, for all threads of a block whose arcs are first_arc + threadIdx.x.
static __device__ u32 row_of(u32 nodes, const u32* offsets, u32 first_arc, u32 arc, u32 arcs) {
    __shared__ u32 range[2];
    __syncthreads();
    if (threadIdx.x < 2) {
        const u32 last = min(first_arc + blockDim.x - 1, arcs - 1), at = threadIdx.x == 0 ? first_arc : last;
        u32 begin = 0, end = nodes; // the last row that starts at or before `at`
        while (end - begin > 1) {
            const u32 middle = begin + (end - begin) / 2;
            if (offsets[middle] <= at) {
                begin = middle;
            } else {
                end = middle;
            }
        }
        range[threadIdx.x] = begin;
    }
    __syncthreads();
    u32 begin = range[0], end = range[1] + 1;
    while (end - begin > 1) {
        const u32 middle = begin + (end - begin) / 2;
        if (offsets[middle] <= arc) {
            begin = middle;
        } else {
            end = middle;
        }
    }
    return begin;
}

// Adds the arcs that leave each node to its degree, which is 0 before, and those that come in if the graph is not
// symmetric.
extern "C" __global__ void __launch_bounds__(256)
    cycles_degrees(u32 nodes, u32 arcs, u32 symmetric, const u32* offsets, const u32* columns, u32* degrees) {
    const u32 at = blockIdx.x * THREADS + threadIdx.x;
    if (at < nodes && offsets[at + 1] > offsets[at]) atomicAdd(&degrees[at], offsets[at + 1] - offsets[at]);
    if (symmetric == 0 && at < arcs) atomicAdd(&degrees[columns[at]], 1);
}

// The first ranks of nodes of degree 1, 16, 256 and 65536 or more, among ascending degrees. One block.
extern "C" __global__ void __launch_bounds__(256) cycles_widths(u32 nodes, const u32* degrees, u32* first_ranks) {
    if (threadIdx.x < 4) {
        const u32 degree = threadIdx.x == 0 ? 1 : 1u << (2u << threadIdx.x);
        first_ranks[threadIdx.x] = lower_bound(degrees, 0, nodes, degree);
    }
}

// The number of each node, from the nodes in the order of their degrees; NO_KEY for those of degree 0.
extern "C" __global__ void __launch_bounds__(256)
    cycles_number(u32 nodes, u32 first_1, u32 first_16, u32 first_256, u32 first_65536, u32 number_16, u32 number_256,
                  u32 number_65536, const u32* order, u32* numbers) {
    const u32 rank = blockIdx.x * THREADS + threadIdx.x;
    if (rank >= nodes) return;
    u32 number;
    if (rank < first_1) {
        number = NO_KEY;
    } else if (rank < first_16) {
        number = rank - first_1;
    } else if (rank < first_256) {
        number = number_16 + 2 * (rank - first_16);
    } else if (rank < first_65536) {
        number = number_256 + 4 * (rank - first_256);
    } else {
        number = number_65536 + 8 * (rank - first_65536);
    }
    numbers[order[rank]] = number;
}

// Keys that sort the arcs by their ends' numbers of `bits` bits: arcs as they are, reversed, or first all of the one
// and then all of the other.
extern "C" __global__ void __launch_bounds__(256)
    cycles_keys(u32 nodes, u32 arcs, u32 bits, u32 forward, u32 backward, const u32* offsets, const u32* columns,
                const u32* numbers, u64* keys) {
    const u32 first = blockIdx.x * THREADS, arc = first + threadIdx.x;
    const u32 row = row_of(nodes, offsets, first, min(arc, arcs - 1), arcs);
    if (arc >= arcs) return;
    const u64 from = numbers[row], to = numbers[columns[arc]];
    if (forward != 0) keys[arc] = from << bits | to;
    if (backward != 0) keys[(forward != 0 ? (u64)arcs : 0) + arc] = to << bits | from;
}

// The rows of sorted arcs.
extern "C" __global__ void __launch_bounds__(256)
    cycles_rows(u32 numbers, u32 arcs, u32 bits, const u64* keys, u32* offsets, u32* columns) {
    const u32 at = blockIdx.x * THREADS + threadIdx.x;
    if (at < arcs) columns[at] = (u32)(keys[at] & ((1ull << bits) - 1));
    if (at > numbers) return;
    u32 begin = 0, end = arcs;
    while (begin < end) {
        const u32 middle = begin + (end - begin) / 2;
        if (keys[middle] < (u64)at << bits) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    offsets[at] = begin;
}

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

// ---- Counting

// The sum over the lanes of a part of a warp, in its first lane.
template <u32 LANES> static __device__ u64 sum_lanes(u64 value) {
#pragma unroll
    for (u32 delta = LANES / 2; delta > 0; delta /= 2) value += __shfl_down_sync(ALL, value, delta, LANES);
    return value;
}

// Counters in a hash table.
template <u32 SIDES> struct TableCounters {
    CountTable table; // counts of the first side

    __device__ void add(u32 side, u32 number) const { atomicAdd(table.insert(number) + side * table.slots, 1); }

    // A node that may not be there.
    __device__ u32 get(u32 side, u32 number) const {
        const u32* count = table.find(number);
        return count == nullptr ? 0 : count[side * table.slots];
    }
};

// Where the cycles are counted: for each node, or those of four nodes in all in a single word.
template <bool PER_NODE> struct Counts {
    u64* three;
    u64* four;

    __device__ void add_four(u32 node, u64 count) const { atomicAdd(PER_NODE ? &four[node] : four, count); }
};

// Cycles of four nodes whose end opposite the highest node has these counts of wedges.
template <u32 SIDES> static __device__ u64 squares_of(u32 outward, u32 inward) {
    return SIDES == 2 ? (u64)outward * inward : (u64)outward * (outward - 1) / 2;
}

// Adds the triangles of a node, whose wedges have been counted, with its neighbours in begin..end of a side to those of
// the neighbours. Returns the sum for the node. In an undirected graph all are twice the number, as each triangle of
// the node has two neighbours.
template <u32 SIDES, class Counters>
static __device__ u64 add_triangles(const Counters& counters, u32 side, const u32* columns, u32 begin, u32 end, u32 rank,
                                    u32 size, u64* three) {
    u64 triangles = 0;
    for (u32 at = begin + rank; at < end; at += size) {
        const u32 other = columns[at];
        const u32 count = counters.get(SIDES - 1 - side, other);
        if (count > 0) atomicAdd(&three[other], (SIDES == 2 ? 1 : 2) * (u64)count);
        triangles += SIDES == 2 && side == 0 ? 0 : count;
    }
    return triangles;
}

// Adds the sums over the threads to the cycles of their node.
template <bool PER_NODE>
static __device__ void add_sums(u64 triangles, u64 squares, u32 node, const Counts<PER_NODE>& out) {
    if (PER_NODE) triangles = sum_lanes<32>(triangles);
    squares = sum_lanes<32>(squares);
    if (threadIdx.x % 32 == 0) {
        if (triangles > 0) atomicAdd(&out.three[node], triangles);
        if (squares > 0) out.add_four(node, squares);
    }
}

// Adds the cycles of four nodes with their highest node to the nodes next to it.
template <u32 SIDES, u32 LANES, class Group, class Counters>
static __device__ void add_middles(Group group, const Counters& counters, u32 node, const u32* ends, const Side* sides,
                                   const Counts<true>& out) {
    const u32 lane = group.rank() % LANES, part = group.rank() / LANES;
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        const Side& graph = sides[side];
        const u32 begin = graph.offsets[node], rows = ends[side] - begin;
        // All lanes of a warp take part in the sum.
        for (u32 base = 0; base < rows; base += Group::SIZE / LANES) {
            u64 count = 0;
            u32 middle = 0;
            if (base + part < rows) {
                const u32 at = begin + base + part;
                middle = graph.columns[at];
                const u32 row = graph.offsets[middle], row_end = row + graph.lower[at];
                for (u32 i = row + lane; i < row_end; i += LANES) {
                    count += counters.get(SIDES - 1 - side, graph.columns[i]) - (SIDES == 2 ? 0 : 1);
                }
            }
            count = sum_lanes<LANES>(count);
            if (lane == 0 && count > 0) out.add_four(middle, count);
        }
    }
}

// Counts the cycles at one node by a group of threads with a table, of whom LANES work on a row.
template <u32 SIDES, bool PER_NODE, u32 LANES, class Group>
static __device__ void count_with_table(Group group, u32* memory, u32 max_slots, u32 node, u64 num_wedges,
                                        const Side* sides, Counts<PER_NODE> out) {
    const u32 slots = min(max_slots, max(16u, 2 * (u32)num_wedges));
    const TableCounters<SIDES> counters{CountTable(memory, memory + slots, slots)};
    for (u32 slot = group.rank(); slot < slots; slot += Group::SIZE) {
        memory[slot] = NO_KEY;
        for (u32 side = 0; side < SIDES; side++) memory[(1 + side) * slots + slot] = 0;
    }
    group.sync();
    const u32 lane = group.rank() % LANES, part = group.rank() / LANES;
    u32 ends[SIDES];
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        const Side& graph = sides[side];
        const u32 begin = graph.offsets[node];
        ends[side] = lower_bound(graph.columns, begin, graph.offsets[node + 1], node);
        for (u32 at = begin + part; at < ends[side]; at += Group::SIZE / LANES) {
            const u32 row = graph.offsets[graph.columns[at]], row_end = row + graph.lower[at];
            for (u32 i = row + lane; i < row_end; i += LANES) counters.add(side, graph.columns[i]);
        }
    }
    group.sync();
    u64 triangles = 0, squares = 0;
#pragma unroll
    for (u32 side = 0; PER_NODE && side < SIDES; side++) {
        const Side& graph = sides[side];
        triangles += add_triangles<SIDES>(counters, side, graph.columns, graph.offsets[node], ends[side], group.rank(),
                                          Group::SIZE, out.three);
    }
    for (u32 slot = group.rank(); slot < slots; slot += Group::SIZE) {
        if (memory[slot] == NO_KEY) continue;
        const u64 count = squares_of<SIDES>(memory[slots + slot], memory[SIDES * slots + slot]);
        if (PER_NODE && count > 0) out.add_four(memory[slot], count);
        squares += count;
    }
    add_sums(triangles, squares, node, out);
    if constexpr (PER_NODE) {
        if (group.any(squares > 0)) add_middles<SIDES, LANES>(group, counters, node, ends, sides, out);
    }
}

// The threads of a warp.
struct WarpGroup {
    static constexpr u32 SIZE = 32;
    static __device__ u32 rank() { return threadIdx.x % 32; }
    static __device__ void sync() { __syncwarp(); }
    static __device__ bool any(bool is) { return __any_sync(ALL, is) != 0; }
};

// The threads of a block.
struct BlockGroup {
    static constexpr u32 SIZE = THREADS;
    static __device__ u32 rank() { return threadIdx.x; }
    static __device__ void sync() { __syncthreads(); }
    static __device__ bool any(bool is) { return __syncthreads_or(is) != 0; }
};

// Takes the next index of a list for a block, or ALL_TAKEN at the end of the list and once the request is cancelled.
// All threads of the block call it.
static __device__ u64 take(u64* taken, u64 listed, u32 take_number, CancelSignal cancel) {
    __shared__ u64 next;
    __syncthreads();
    if (threadIdx.x == 0) {
        const bool ends = cancel.is_seen() || (take_number % TAKES_PER_POLL == 0 && cancel.poll_cancel());
        const u64 at = ends ? ALL_TAKEN : atomicAdd(taken, 1ull);
        next = at < listed ? at : ALL_TAKEN;
    }
    __syncthreads();
    return next;
}

constexpr u32 NODES_PER_WARP = 8; // that a warp takes at a time

template <u32 SIDES, bool PER_NODE, u32 LANES>
static __device__ void count_by_warps(const Side* sides, const u64* wedges, const u32* list, Control* control,
                                      Counts<PER_NODE> out, CancelSignal cancel) {
    __shared__ u32 memory[THREADS / 32 * WARP_SLOTS * (1 + SIDES)];
    const u32 warp = threadIdx.x / 32, chunk = THREADS / 32 * NODES_PER_WARP;
    const u32 listed = control->listed[0];
    for (u32 number = 0;; number++) {
        const u64 at = take(&control->taken[0], (listed + chunk - 1) / chunk, number, cancel);
        if (at == ALL_TAKEN) break;
        const u32 begin = (u32)at * chunk, end = min(listed, begin + chunk);
        for (u32 i = begin + warp; i < end; i += THREADS / 32) {
            const u32 node = list[i];
            count_with_table<SIDES, PER_NODE, LANES>(WarpGroup(), memory + warp * WARP_SLOTS * (1 + SIDES), WARP_SLOTS,
                                                     node, wedges[node], sides, out);
            __syncwarp();
        }
    }
}

template <u32 SIDES, bool PER_NODE>
static __device__ void count_by_blocks(const Side* sides, const u64* wedges, const u32* list, Control* control,
                                       Counts<PER_NODE> out, CancelSignal cancel) {
    __shared__ u32 memory[BLOCK_SLOTS * (1 + SIDES)];
    for (u32 number = 0;; number++) {
        const u64 at = take(&control->taken[1], control->listed[1], number, cancel);
        if (at == ALL_TAKEN) break;
        const u32 node = list[at];
        count_with_table<SIDES, PER_NODE, 8>(BlockGroup(), memory, BLOCK_SLOTS, node, wedges[node], sides, out);
    }
}

// Counters of a window of the numbers, from `first`, with `words` words for each side.
template <u32 SIDES> struct ArrayCounters {
    u32* memory;
    u32 words, first;
    Widths widths;

    __device__ void add(u32 side, u32 number) const {
        const u32 at = number - first;
        atomicAdd(&memory[side * words + at / UNITS_PER_WORD], 1u << at % UNITS_PER_WORD * 4);
    }

    __device__ u32 get(u32 side, u32 number) const {
        const u32 at = number - first;
        return memory[side * words + at / UNITS_PER_WORD] >> at % UNITS_PER_WORD * 4 & widths.mask(number);
    }
};

// Calls `work(column)` for each end of the wedges of `node` on one side that is in first..last, and `done(middle)`
// after those of each node in the middle in all lanes. Each warp takes nodes in the middle by itself.
template <class Work, class Done>
static __device__ void for_each_end(const Side& graph, u32 node, u32 first, u32 last, CancelSignal cancel, Work work,
                                    Done done) {
    constexpr u32 WARPS = ARRAY_THREADS / 32;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 begin = graph.offsets[node], end = lower_bound(graph.columns, begin, graph.offsets[node + 1], node);
    const u32 chunk = min(32u, max(1u, (end - begin + WARPS - 1) / WARPS));
    u32 chunks = 0;
    for (u32 base = begin + warp * chunk; base < end; base += WARPS * chunk) {
        if (++chunks % CHUNKS_PER_CHECK == 0) {
            if (warp == 0 && lane == 0 && chunks % CHUNKS_PER_POLL == 0) cancel.poll_cancel();
            if (__any_sync(ALL, cancel.is_seen())) return;
        }
        // A lane prepares a row.
        u32 middle = 0, row = 0, row_end = 0;
        if (lane < chunk && base + lane < end) {
            middle = graph.columns[base + lane];
            row = graph.offsets[middle];
            row_end = row + graph.lower[base + lane];
            if (first > 0) row = lower_bound(graph.columns, row, row_end, first);
            if (last < node) row_end = lower_bound(graph.columns, row, row_end, last);
        }
        for (u32 rows = __ballot_sync(ALL, row < row_end); rows != 0; rows &= rows - 1) {
            const u32 from = __ffs(rows) - 1;
            const u32 at_end = __shfl_sync(ALL, row_end, from);
            for (u32 at = __shfl_sync(ALL, row, from) + lane; at < at_end; at += 32 * AHEAD) {
                u32 columns[AHEAD];
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) columns[i] = at + 32 * i < at_end ? __ldg(graph.columns + at + 32 * i) : NO_KEY;
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    if (columns[i] != NO_KEY) work(columns[i]);
                }
            }
            done(__shfl_sync(ALL, middle, from));
        }
    }
}

// Adds the cycles of four nodes with their highest node, of which the end opposite it is in the window of the counters,
// to the nodes next to it.
template <u32 SIDES>
static __device__ void add_middles(const ArrayCounters<SIDES>& counters, u32 node, u32 last, const Side* sides,
                                   const Counts<true>& out, CancelSignal cancel) {
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        u64 count = 0;
        const auto add = [&](u32 end) { count += counters.get(SIDES - 1 - side, end) - (SIDES == 2 ? 0 : 1); };
        const auto done = [&](u32 middle) {
            count = sum_lanes<32>(count);
            if (threadIdx.x % 32 == 0 && count > 0) out.add_four(middle, count);
            count = 0;
        };
        for_each_end(sides[side], node, counters.first, last, cancel, add, done);
    }
}

// Adds the cycles of four nodes to the ends opposite their highest node. Returns their sum over the words of the
// thread. A warp takes 32 words at a time, and four of them at once: a lane for each unit, so that it adds to
// neighbouring counts.
template <u32 SIDES>
static __device__ u64 add_ends(const ArrayCounters<SIDES>& counters, u32 words, const Counts<true>& out) {
    const u32 lane = threadIdx.x % 32, unit = lane % UNITS_PER_WORD;
    u64 squares = 0;
    for (u32 base = threadIdx.x - lane; base < words; base += ARRAY_THREADS) {
        const u32 own = base + lane;
        const u32 outward = own < words ? counters.memory[own] : 0;
        const u32 inward = SIDES == 2 && own < words ? counters.memory[counters.words + own] : 0;
        const u32 more = counters.widths.more_than_one(counters.first + own * UNITS_PER_WORD);
        const u32 pending = __ballot_sync(ALL, SIDES == 2 ? outward != 0 && inward != 0 : (outward & more) != 0);
        for (u32 first = 0; first < 32; first += 32 / UNITS_PER_WORD) {
            if ((pending >> first) % 16 == 0) continue;
            const u32 from = first + lane / UNITS_PER_WORD;
            const u32 both[2] = {__shfl_sync(ALL, outward, from), __shfl_sync(ALL, inward, from)};
            const u32 number = counters.first + (base + from) * UNITS_PER_WORD;
            const u32 mask = counters.widths.mask(number), shift = 4 * unit;
            // A counter of several units is that of the first.
            if (shift % __popc(mask) != 0) continue;
            const u64 count = squares_of<SIDES>(both[0] >> shift & mask, both[1] >> shift & mask);
            if (count > 0) out.add_four(number + unit, count);
            squares += count;
        }
    }
    return squares;
}

// Returns the cycles of four nodes over the words of the thread, which it sets to 0.
static __device__ u64 take_ends(const ArrayCounters<1>& counters, u32 words) {
    u64 squares = 0;
    for (u32 word = threadIdx.x; word < words; word += ARRAY_THREADS) {
        const u32 all = counters.memory[word], number = counters.first + word * UNITS_PER_WORD;
        counters.memory[word] = 0;
        if ((all & counters.widths.more_than_one(number)) == 0) continue;
        const u32 mask = counters.widths.mask(number), bits = __popc(mask);
        for (u32 shift = 0; shift < 32; shift += bits) squares += squares_of<1>(all >> shift & mask, 0);
    }
    return squares;
}

// Counts the cycles at one node by a block, of which the end opposite it is in the window of the counters, which are 0
// before and after.
template <u32 SIDES, bool PER_NODE>
static __device__ void count_in_window(const ArrayCounters<SIDES>& counters, u32 node, const Side* sides,
                                       Counts<PER_NODE> out, CancelSignal cancel) {
    const u32 first = counters.first, last = min(node, first + counters.words * UNITS_PER_WORD);
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        for_each_end(sides[side], node, first, last, cancel, [&](u32 end) { counters.add(side, end); }, [](u32) {});
    }
    __syncthreads();
    u64 triangles = 0, squares = 0;
#pragma unroll
    for (u32 side = 0; PER_NODE && side < SIDES; side++) {
        const Side& graph = sides[side];
        u32 begin = graph.offsets[node], end = graph.offsets[node + 1];
        if (first > 0) begin = lower_bound(graph.columns, begin, end, first);
        end = lower_bound(graph.columns, begin, end, last);
        triangles += add_triangles<SIDES>(counters, side, graph.columns, begin, end, threadIdx.x, ARRAY_THREADS, out.three);
    }
    const u32 words = (last - first + UNITS_PER_WORD - 1) / UNITS_PER_WORD;
    if constexpr (PER_NODE) {
        squares = add_ends(counters, words, out);
    } else {
        squares = take_ends(counters, words);
    }
    add_sums(triangles, squares, node, out);
    if constexpr (PER_NODE) {
        if (__syncthreads_or(squares > 0) != 0) {
            add_middles<SIDES>(counters, node, last, sides, out, cancel);
            __syncthreads();
        }
        const u32 packs = (words + 3) / 4;
#pragma unroll
        for (u32 side = 0; side < SIDES; side++) {
            uint4* memory = (uint4*)(counters.memory + side * counters.words);
            for (u32 pack = threadIdx.x; pack < packs; pack += ARRAY_THREADS) memory[pack] = make_uint4(0, 0, 0, 0);
        }
    }
}

// `words` is a multiple of 4.
template <u32 SIDES, bool PER_NODE>
static __device__ void count_by_arrays(u32 numbers, u32 words, Widths widths, const Side* sides, const u32* list,
                                       Control* control, Counts<PER_NODE> out, CancelSignal cancel) {
    extern __shared__ __align__(16) u32 array[];
    const u32 window = words * UNITS_PER_WORD, windows = (numbers + window - 1) / window;
    for (u32 word = threadIdx.x; word < SIDES * words; word += ARRAY_THREADS) array[word] = 0;
    const u64 listed = (u64)control->listed[2] * windows;
    for (u32 number = 0;; number++) {
        const u64 at = take(&control->taken[2], listed, number, cancel);
        if (at == ALL_TAKEN) break;
        const u32 node = list[at / windows], first = (u32)(at % windows) * window;
        if (first >= node) continue;
        const ArrayCounters<SIDES> counters{array, words, first, widths};
        count_in_window<SIDES, PER_NODE>(counters, node, sides, out, cancel);
    }
}

// The entries, for undirected graphs with one side and directed graphs with two.
#define CYCLES_SIDE(i) const u32 *offsets_##i, const u32 *columns_##i, const u32 *lower_##i
#define CYCLES_ENTRIES(suffix, SIDES, PER_NODE)                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                \
        cycles_by_warps_##suffix(CYCLES_SIDE(0), CYCLES_SIDE(1), const u64* wedges, const u32* list, Control* control, \
                                 u64* three, u64* four, const volatile u32* flag, u32* cancelled) {                  \
        const Side sides[2] = {{offsets_0, columns_0, lower_0}, {offsets_1, columns_1, lower_1}};                    \
        count_by_warps<SIDES, PER_NODE, 8>(sides, wedges, list, control, Counts<PER_NODE>{three, four},              \
                                           CancelSignal{flag, cancelled});                                           \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                \
        cycles_by_blocks_##suffix(CYCLES_SIDE(0), CYCLES_SIDE(1), const u64* wedges, const u32* list, Control* control, \
                                  u64* three, u64* four, const volatile u32* flag, u32* cancelled) {                 \
        const Side sides[2] = {{offsets_0, columns_0, lower_0}, {offsets_1, columns_1, lower_1}};                    \
        count_by_blocks<SIDES, PER_NODE>(sides, wedges, list, control, Counts<PER_NODE>{three, four},                \
                                         CancelSignal{flag, cancelled});                                             \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(1024, 1)                                                            \
        cycles_by_arrays_##suffix(CYCLES_SIDE(0), CYCLES_SIDE(1), u32 numbers, u32 words, u32 first_8, u32 first_16, \
                                  u32 first_32, const u32* list, Control* control, u64* three, u64* four,            \
                                  const volatile u32* flag, u32* cancelled) {                                        \
        const Side sides[2] = {{offsets_0, columns_0, lower_0}, {offsets_1, columns_1, lower_1}};                    \
        count_by_arrays<SIDES, PER_NODE>(numbers, words, Widths{first_8, first_16, first_32}, sides, list, control,  \
                                         Counts<PER_NODE>{three, four}, CancelSignal{flag, cancelled});              \
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

// Puts the counts of numbers, divided, at their nodes.
extern "C" __global__ void __launch_bounds__(256)
    cycles_gather(u32 nodes, const u32* numbers, u32 divisor, const u64* counts, u64* out) {
    const u32 node = blockIdx.x * THREADS + threadIdx.x;
    if (node < nodes) out[node] = numbers[node] == NO_KEY ? 0 : counts[numbers[node]] / divisor;
}
