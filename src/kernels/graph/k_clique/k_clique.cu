// The number of cliques of k nodes of an oriented graph, in which a clique appears once: at its lowest node, of which all
// others are successors.
//
// For each node the subgraph between its d successors is made as a matrix of bits, d rows of d bits, by looking the
// successors of each up in a hash set of all (intersect.cuh). A branch is one of the d rows: the candidates for the third
// node of a clique. The candidates that extend a clique by one of them are the intersection with its row, and at the end
// they are counted. How a branch is searched depends on d:
//
//   class 0   d <= 64           a warp for a node, a thread for a branch, the candidates in a register
//   class 1   d <= 256          a block for a node, 8 lanes for a branch, each with a word of the candidates
//   class 2   d <= 480          the same with 32 lanes
//   class 3   d <= large_limit  the same, where the matrix leaves shared memory for one block a multiprocessor
//   class 4   any               the matrix and the candidates are in global memory
//
// Nodes of classes 1 to 4 with many branches are the work of several blocks, each of which makes the matrix.
//
// Source: Almasri et al., "Parallel k-clique counting on GPUs", ICS 2022.
//
// Buffers, for n nodes (n < 2^28)
//   offsets  u32[n + 1], columns u32[m]   the oriented graph
//   control  Control    zero at first
//   items    u64[]      node and first branch; `starts` says where each class has its part
//   scratch  u32[]      for class 4, `scratch_words` for each block
//
// Host algorithm (cuda.rs)
//   1. k_clique_plan          counts the items of each class
//   2. k_clique_list          lists them
//   3. k_clique_small, _medium, _large and _huge for the classes that have items; control.count is the result
// Once a warp has seen that the request is cancelled all end, and the count has no meaning.

#include "cancel.cuh"
#include "intersect.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u32 CLASSES = 5;
constexpr u32 SMALL_DEGREE = 64, MEDIUM_DEGREE = 256, LARGE_DEGREE = 480; // as in cuda.rs
constexpr u32 SMALL_SLOTS = 4 * SMALL_DEGREE;
constexpr u32 BLOCK_SLOTS = 2048;
constexpr u32 MAX_K = 8;
constexpr u32 STEPS_PER_CHECK = 1 << 12;     // intersections, not the last ones, between two checks of control.cancelled
constexpr u32 POLL_NANOSECONDS = 1'000'000;  // between two readings of the host's flag

struct Control {
    u64 count;         // of cliques
    u64 polled;        // when the host's flag was read
    u32 items[CLASSES];
    u32 taken[CLASSES];
    u32 max_degree;
    u32 cancelled;
};

struct Graph {
    const u32* offsets;
    const u32* columns;
};

// Ends searches that take long. `step` counts the intersections of a thread, or of lanes that go together; the host's flag
// is read by whichever thread is the first to find that nobody has for some time.
struct Cancel {
    Control* control;
    const volatile u32* flag;
    u32 steps;
    bool stops;

    __device__ void check() {
        if (*(volatile u32*)&control->cancelled != 0) {
            stops = true;
            return;
        }
        u64 now;
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
        const u64 polled = *(volatile u64*)&control->polled;
        if (now - polled < POLL_NANOSECONDS || atomicCAS(&control->polled, polled, now) != polled) return;
        if (*flag == 0) return;
        *(volatile u32*)&control->cancelled = 1;
        stops = true;
    }

    // For a thread alone.
    __device__ bool step() {
        if (++steps % STEPS_PER_CHECK == 0) check();
        return stops;
    }

    // For LANES neighbouring lanes, all of which call it.
    template <u32 LANES> __device__ bool step(u32 lanes) {
        if (++steps % STEPS_PER_CHECK == 0) {
            if (threadIdx.x % LANES == 0) check();
            stops = __shfl_sync(lanes, (u32)stops, 0, LANES) != 0;
        }
        return stops;
    }
};

// ----------------------------------------------------------------------------------------------------------------- items

static __device__ u32 class_of(u32 degree, u32 large_limit) {
    if (degree <= SMALL_DEGREE) return 0;
    if (degree <= MEDIUM_DEGREE) return 1;
    if (degree <= LARGE_DEGREE) return 2;
    return degree <= large_limit ? 3 : 4;
}

// The branches of an item: more of them for nodes that have many, as each item makes the matrix.
static __device__ u32 branches_of(u32 degree, u32 branches) { return max(branches, (degree + 15) / 16); }

// Calls `add(class, items)` for each node that may be the lowest of a clique.
template <class Add>
static __device__ void for_each_node(u32 nodes, const u32* offsets, u32 k, u32 branches, u32 large_limit, Add add) {
    const u32 node = blockIdx.x * 256 + threadIdx.x;
    if (node >= nodes) return;
    const u32 degree = offsets[node + 1] - offsets[node];
    if (degree + 1 < k) return;
    const u32 which = class_of(degree, large_limit), each = branches_of(degree, branches);
    add(node, degree, which, which == 0 ? 1 : (degree + each - 1) / each);
}

extern "C" __global__ void __launch_bounds__(256)
    k_clique_plan(u32 nodes, const u32* offsets, u32 k, u32 branches, u32 large_limit, Control* control) {
    __shared__ u32 items[CLASSES], max_degree;
    if (threadIdx.x < CLASSES) items[threadIdx.x] = 0;
    if (threadIdx.x == CLASSES) max_degree = 0;
    __syncthreads();
    for_each_node(nodes, offsets, k, branches, large_limit, [&](u32, u32 degree, u32 which, u32 count) {
        atomicAdd(&items[which], count);
        atomicMax(&max_degree, degree);
    });
    __syncthreads();
    if (threadIdx.x < CLASSES && items[threadIdx.x] > 0) atomicAdd(&control->items[threadIdx.x], items[threadIdx.x]);
    if (threadIdx.x == CLASSES && max_degree > 0) atomicMax(&control->max_degree, max_degree);
}

// `next` has where the items of each class go at first.
extern "C" __global__ void __launch_bounds__(256)
    k_clique_list(u32 nodes, const u32* offsets, u32 k, u32 branches, u32 large_limit, u32* next, u64* items) {
    __shared__ u32 counts[CLASSES], starts[CLASSES];
    if (threadIdx.x < CLASSES) counts[threadIdx.x] = 0;
    __syncthreads();
    u32 of_node = 0, count_of_node = 0, class_of_node = 0, node_id = 0, each = 0;
    for_each_node(nodes, offsets, k, branches, large_limit, [&](u32 node, u32 degree, u32 which, u32 count) {
        of_node = atomicAdd(&counts[which], count);
        node_id = node;
        count_of_node = count;
        class_of_node = which;
        each = branches_of(degree, branches);
    });
    __syncthreads();
    if (threadIdx.x < CLASSES && counts[threadIdx.x] > 0) {
        starts[threadIdx.x] = atomicAdd(&next[threadIdx.x], counts[threadIdx.x]);
    }
    __syncthreads();
    for (u32 i = 0; i < count_of_node; i++) {
        items[starts[class_of_node] + of_node + i] = (u64)node_id << 32 | i * each;
    }
}

// -------------------------------------------------------------------------------------------------------------- subgraph

// Makes the rows first_row..end_row of the matrix of the successors of a node, of `words` words each, and returns how many bits
// the thread has found. Without a matrix they are only counted. The group is synchronized at the end.
template <u32 LANES, u32 SLOTS, class Group>
static __device__ u32 make_matrix(
    Group group, const Graph& graph, NodeSet<SLOTS> set, u32 begin, u32 degree, u32 first_row, u32 end_row, u32* matrix,
    u32 words) {
    const u32 lane = group.rank() % LANES;
    if (matrix != nullptr) {
        for (u32 i = group.rank(); i < degree * words; i += Group::SIZE) matrix[i] = 0;
    }
    u32 found = 0;
    for (u32 piece = 0; piece < degree; piece += SLOTS / 2) {
        const u32 piece_end = min(degree, piece + SLOTS / 2);
        set.reset(group, piece_end - piece);
        group.sync();
        for (u32 i = piece + group.rank(); i < piece_end; i += Group::SIZE) {
            const u32 node = graph.columns[begin + i];
            set.insert(node);
            set.counts[set.find(node)] = i; // its column
        }
        group.sync();
        for (u32 row = first_row + group.rank() / LANES; row < end_row; row += Group::SIZE / LANES) {
            const u32 node = graph.columns[begin + row];
            for_each_hit<LANES>(set, graph.columns, graph.offsets[node], graph.offsets[node + 1], lane, [&](u32 slot) {
                found++;
                if (matrix == nullptr) return;
                const u32 column = set.counts[slot];
                atomicOr(&matrix[row * words + column / 32], 1u << column % 32);
            });
        }
        group.sync();
    }
    return found;
}

// Adds the counts of a warp's threads to the total.
static __device__ void add_count(u64 count, Control* control) {
    for (u32 delta = 16; delta > 0; delta /= 2) count += __shfl_down_sync(ALL_LANES, count, delta);
    if (threadIdx.x % 32 == 0 && count > 0) atomicAdd(&control->count, count);
}

// ------------------------------------------------------------------------------------------------- a thread for a branch

// The cliques of SIZE nodes among the candidates.
template <u32 SIZE> static __device__ __noinline__ u64 count_by_thread(const u64* rows, u64 candidates, Cancel& cancel) {
    u64 count = 0;
    for (u64 rest = candidates; rest != 0; rest &= rest - 1) {
        const u64 next = candidates & rows[__ffsll(rest) - 1];
        if constexpr (SIZE == 2) {
            count += __popcll(next);
        } else {
            if (cancel.step()) break;
            if (__popcll(next) >= SIZE - 1) count += count_by_thread<SIZE - 1>(rows, next, cancel);
        }
    }
    return count;
}

static __device__ u64 count_by_thread(u32 size, const u64* rows, u64 candidates, Cancel& cancel) {
    switch (size) {
        case 2: return count_by_thread<2>(rows, candidates, cancel);
        case 3: return count_by_thread<3>(rows, candidates, cancel);
        case 4: return count_by_thread<4>(rows, candidates, cancel);
        case 5: return count_by_thread<5>(rows, candidates, cancel);
        default: return count_by_thread<6>(rows, candidates, cancel);
    }
}

constexpr u32 SMALL_THREADS = 256;
constexpr u32 SMALL_WARPS = SMALL_THREADS / 32;
constexpr u32 SMALL_PER_TAKE = 4;

extern "C" __global__ void __launch_bounds__(SMALL_THREADS, 4)
    k_clique_small(const u32* offsets, const u32* columns, u32 k, u32 count, const u64* items, Control* control,
                   const volatile u32* flag) {
    __shared__ __align__(8) u32 sets[SMALL_WARPS][2 * SMALL_SLOTS];
    __shared__ u64 matrices[SMALL_WARPS][SMALL_DEGREE];
    const u32 lane = threadIdx.x % 32;
    u64* const rows = matrices[threadIdx.x / 32];
    const NodeSet<SMALL_SLOTS> set(sets[threadIdx.x / 32]);
    const Graph graph = {offsets, columns};
    Cancel cancel = {control, flag, 0, false};
    u64 found = 0;
    for (;;) {
        u32 at = 0;
        if (lane == 0) {
            cancel.check();
            at = cancel.stops ? count : atomicAdd(&control->taken[0], SMALL_PER_TAKE);
        }
        at = __shfl_sync(ALL_LANES, at, 0);
        if (at >= count) break;
        for (const u32 end = min(count, at + SMALL_PER_TAKE); at < end; at++) {
            const u32 node = (u32)(items[at] >> 32), begin = offsets[node], degree = offsets[node + 1] - begin;
            const u32 bits = make_matrix<8>(WarpGroup(), graph, set, begin, degree, 0, degree,
                                             k > 3 ? (u32*)rows : nullptr, 2);
            if (k == 3) {
                found += bits;
                continue;
            }
            for (u32 branch = lane; branch < degree; branch += 32) {
                const u64 candidates = rows[branch];
                if (__popcll(candidates) + 2 >= k) found += count_by_thread(k - 2, rows, candidates, cancel);
            }
            __syncwarp();
        }
    }
    add_count(found, control);
}

// ------------------------------------------------------------------------------------------------- lanes for a branch

// The cliques of SIZE nodes among the candidates, of which each of LANES lanes has a word; the sum over the lanes.
template <u32 SIZE, u32 LANES>
static __device__ __noinline__ u64 count_by_lanes(
    const u32* own, u32 words, u32 candidates, u32 lanes, Cancel& cancel) {
    const u32 first = threadIdx.x % 32 / LANES * LANES;
    u64 count = 0;
    u32 count_of_pairs = 0;
    for (u32 with_bits = __ballot_sync(lanes, candidates != 0) >> first; with_bits != 0; with_bits &= with_bits - 1) {
        const u32 lane = __ffs(with_bits) - 1;
        for (u32 rest = __shfl_sync(lanes, candidates, lane, LANES); rest != 0; rest &= rest - 1) {
            const u32 next = candidates & own[(lane * 32 + __ffs(rest) - 1) * words];
            if constexpr (SIZE == 2) {
                count_of_pairs += __popc(next);
            } else {
                if (cancel.step<LANES>(lanes)) return count;
                if (__ballot_sync(lanes, next != 0) != 0) {
                    count += count_by_lanes<SIZE - 1, LANES>(own, words, next, lanes, cancel);
                }
            }
        }
    }
    return count + count_of_pairs;
}

template <u32 LANES>
static __device__ u64 count_by_lanes(u32 size, const u32* own, u32 words, u32 candidates, u32 lanes, Cancel& cancel) {
    switch (size) {
        case 2: return count_by_lanes<2, LANES>(own, words, candidates, lanes, cancel);
        case 3: return count_by_lanes<3, LANES>(own, words, candidates, lanes, cancel);
        case 4: return count_by_lanes<4, LANES>(own, words, candidates, lanes, cancel);
        case 5: return count_by_lanes<5, LANES>(own, words, candidates, lanes, cancel);
        default: return count_by_lanes<6, LANES>(own, words, candidates, lanes, cancel);
    }
}

// The next item of a block, or `count` at the end.
static __device__ u32 take_item(u32* taken, u32 count, Cancel& cancel) {
    __shared__ u32 item;
    __syncthreads();
    if (threadIdx.x == 0) {
        cancel.check();
        item = cancel.stops ? count : atomicAdd(taken, 1);
    }
    __syncthreads();
    return item;
}

// The branches of an item, of which groups of lanes take one after the other.
struct Branches {
    u32 begin, degree, first, end;

    __device__ Branches(const u32* offsets, u64 item, u32 branches) {
        const u32 node = (u32)(item >> 32);
        begin = offsets[node];
        degree = offsets[node + 1] - begin;
        first = (u32)item;
        end = min(degree, first + branches_of(degree, branches));
    }

    // Makes the whole matrix, or without one counts the bits of the item's rows, each of which is a clique of 3 nodes.
    template <u32 THREADS> __device__ u32 make_matrix(const Graph& graph, u32* memory, u32 k, u32* matrix) const {
        const NodeSet<BLOCK_SLOTS> set(memory);
        const BlockGroup<THREADS> group;
        if (k == 3) return ::make_matrix<32>(group, graph, set, begin, degree, first, end, nullptr, 0);
        return ::make_matrix<32>(group, graph, set, begin, degree, 0, degree, matrix, (degree + 31) / 32);
    }
};

// The words of all rows of the matrix, as dynamic shared memory.
extern __shared__ u32 block_matrix[];

template <u32 THREADS, u32 LANES>
static __device__ void count_in_shared(
    const Graph& graph, u32 k, u32 branches, u32 count, const u64* items, u32* taken, Cancel cancel) {
    __shared__ __align__(8) u32 memory[2 * BLOCK_SLOTS];
    __shared__ u32 next_branch;
    const u32 lane = threadIdx.x % LANES;
    const u32 lanes = LANES == 32 ? ALL_LANES : (1u << LANES % 32) - 1 << threadIdx.x % 32 / LANES * LANES;
    u64 found = 0;
    for (u32 at = take_item(taken, count, cancel); at < count; at = take_item(taken, count, cancel)) {
        const Branches item(graph.offsets, items[at], branches);
        const u32 words = (item.degree + 31) / 32;
        if (threadIdx.x == 0) next_branch = item.first;
        const u32 bits = item.make_matrix<THREADS>(graph, memory, k, block_matrix);
        if (k == 3) {
            found += bits;
            continue;
        }
        for (;;) {
            u32 branch = 0;
            if (lane == 0) branch = atomicAdd(&next_branch, 1);
            branch = __shfl_sync(lanes, branch, 0, LANES);
            if (branch >= item.end) break;
            const u32* const own = block_matrix + min(lane, words - 1);
            const u32 candidates = lane < words ? own[branch * words] : 0;
            found += count_by_lanes<LANES>(k - 2, own, words, candidates, lanes, cancel);
        }
        __syncwarp();
    }
    add_count(found, cancel.control);
}

extern "C" __global__ void __launch_bounds__(256)
    k_clique_medium(const u32* offsets, const u32* columns, u32 k, u32 branches, u32 count, const u64* items,
                    Control* control, const volatile u32* flag) {
    count_in_shared<256, 8>({offsets, columns}, k, branches, count, items, &control->taken[1],
                            {control, flag, 0, false});
}

extern "C" __global__ void __launch_bounds__(512)
    k_clique_large(const u32* offsets, const u32* columns, u32 k, u32 branches, u32 count, const u64* items,
                   u32 which, Control* control, const volatile u32* flag) {
    count_in_shared<512, 32>({offsets, columns}, k, branches, count, items, &control->taken[which],
                             {control, flag, 0, false});
}

// ------------------------------------------------------------------------------------------------------- global memory

// The cliques of SIZE nodes among the candidates, which are in memory; `next` has room for those of the levels below.
template <u32 SIZE>
static __device__ __noinline__ u64 count_in_memory(
    const u32* matrix, u32 words, const u32* candidates, u32* next, Cancel& cancel) {
    const u32 lane = threadIdx.x % 32;
    u64 count = 0;
    for (u32 word = 0; word < words; word++) {
        for (u32 rest = candidates[word]; rest != 0; rest &= rest - 1) {
            if (cancel.step<32>(ALL_LANES)) return count;
            const u32* const row = matrix + (u64)(word * 32 + __ffs(rest) - 1) * words;
            if constexpr (SIZE == 2) {
                for (u32 i = lane; i < words; i += 32) count += __popc(candidates[i] & row[i]);
            } else {
                u32 any = 0;
                for (u32 i = lane; i < words; i += 32) any |= next[i] = candidates[i] & row[i];
                __syncwarp();
                if (__any_sync(ALL_LANES, any != 0)) {
                    count += count_in_memory<SIZE - 1>(matrix, words, next, next + words, cancel);
                }
                __syncwarp();
            }
        }
    }
    return count;
}

static __device__ u64 count_in_memory(
    u32 size, const u32* matrix, u32 words, const u32* candidates, u32* next, Cancel& cancel) {
    switch (size) {
        case 2: return count_in_memory<2>(matrix, words, candidates, next, cancel);
        case 3: return count_in_memory<3>(matrix, words, candidates, next, cancel);
        case 4: return count_in_memory<4>(matrix, words, candidates, next, cancel);
        case 5: return count_in_memory<5>(matrix, words, candidates, next, cancel);
        default: return count_in_memory<6>(matrix, words, candidates, next, cancel);
    }
}

constexpr u32 HUGE_THREADS = 512;

extern "C" __global__ void __launch_bounds__(HUGE_THREADS)
    k_clique_huge(const u32* offsets, const u32* columns, u32 k, u32 branches, u32 count, const u64* items,
                  u64 scratch_words, u32* scratch, Control* control, const volatile u32* flag) {
    __shared__ __align__(8) u32 memory[2 * BLOCK_SLOTS];
    __shared__ u32 next_branch;
    const Graph graph = {offsets, columns};
    Cancel cancel = {control, flag, 0, false};
    u32* const matrix = scratch + blockIdx.x * scratch_words;
    u64 found = 0;
    for (u32 at = take_item(&control->taken[4], count, cancel); at < count;
         at = take_item(&control->taken[4], count, cancel)) {
        const Branches item(offsets, items[at], branches);
        const u32 words = (item.degree + 31) / 32;
        if (threadIdx.x == 0) next_branch = item.first;
        const u32 bits = item.make_matrix<HUGE_THREADS>(graph, memory, k, matrix);
        if (k == 3) {
            found += bits;
            continue;
        }
        u32* const levels = matrix + (u64)item.degree * words + (u64)(threadIdx.x / 32) * (MAX_K - 3) * words;
        for (;;) {
            u32 branch = 0;
            if (threadIdx.x % 32 == 0) branch = atomicAdd(&next_branch, 1);
            branch = __shfl_sync(ALL_LANES, branch, 0);
            if (branch >= item.end) break;
            found += count_in_memory(k - 2, matrix, words, matrix + (u64)branch * words, levels, cancel);
        }
    }
    add_count(found, control);
}
