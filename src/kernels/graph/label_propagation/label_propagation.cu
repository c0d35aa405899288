// Semi-synchronous label propagation: the nodes are coloured, and those of one colour are updated at the same time.
//
//   labels_start         each node's own label; how many neighbours before it a node waits for
//   labels_list_ready    the nodes that wait for none, in `list`
//   labels_color         greedy colours: the nodes in `list`, and then those that waited for them, round by round
//   labels_class_keys    the colour of each node, and by how many threads it is updated, as one number
//   (the host sorts the nodes by this number)
//   labels_class_begins  where the nodes of each number begin
//   labels_update        updates the nodes of one colour
//   labels_lowest        the lowest node with each label
//   labels_parents       the lowest node with the label of each node
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], undirected, every column below n; n is at least 1. The nodes are
// ordered by `key_of`. A label is a node, and equally frequent labels are ordered as the nodes are. All other arrays are
// u32[n]. The host zeroes `control`, `waits_for` and `lowest`.
// 256 threads a block. Once the request is cancelled nothing has a meaning any more.
//
// Sources: Jones, Plassmann, "A Parallel Graph Coloring Heuristic", SIAM J. Sci. Comput. 14(3), 1993; Cordasco, Gargano,
// "Community Detection via Semi-Synchronous Label Propagation Algorithms", BASNA 2010.

#include "hash_table.cuh"
#include "load_balance.cuh"

// Neighbours that a thread, a warp, and a block with a table in shared memory take; label_propagation/cuda.rs has the
// last one, too.
constexpr u32 THREAD_ARCS = 16;
constexpr u32 WARP_ROW = 256;
constexpr u32 BLOCK_ROW = 2048;
constexpr u32 WARP_SLOTS = 2 * WARP_ROW;
constexpr u32 BLOCK_SLOTS = 2 * BLOCK_ROW; // as many as those of all warps
constexpr u32 SIZES = 4;                   // kinds of nodes by the number of their neighbours
constexpr u32 WINDOW = 32 * BLOCK;         // colours that a block looks at together
constexpr u32 ROUNDS_PER_POLL = 16;
constexpr u32 AHEAD = 8; // arcs of a thread whose loads are in flight

static_assert(BLOCK_SLOTS == WARPS * WARP_SLOTS, "the tables of the warps are that of the block");

// label_propagation/cuda.rs has the same layout.
struct Control {
    u32 begin, end, tail; // the nodes to colour: entries begin..end of the list, which has `tail`
    u32 rounds;
    u32 num_colors;
    u32 arrived, passed;  // the barrier
    u32 cancelled;        // 1: the request is cancelled
    u32 stopped;          // 1: it was cancelled before the last barrier
    u32 changed;          // nodes that got another label in this sweep
    u32 taken;            // chunks that blocks took beyond their first
};

// A bijection of 32-bit words whose result is spread evenly; node_order.rs has its source.
static __device__ u32 mix(u32 word) {
    word = (word ^ (word >> 16)) * 0x7feb352du;
    word = (word ^ (word >> 15)) * 0x846ca68bu;
    return word ^ (word >> 16);
}

// The order of the nodes is that of their keys.
struct NodeOrder {
    u32 low, high;

    __device__ u32 key_of(u32 node) const { return mix(mix(node ^ low) + high); }
};

// Calls function(others) with the other ends of the arcs from, from + stride, ... of a row, AHEAD of them in each call, and
// NO_KEY where there are no more. Threads whose `from` is below `stride` make the same number of calls.
template <class Function>
static __device__ void for_each_batch(const u32* column, u32 first, u32 arcs, u32 from, u32 stride, Function function) {
    for (u32 base = 0; base < arcs; base += AHEAD * stride) {
        u32 others[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 arc = base + i * stride + from;
            others[i] = arc < arcs ? __ldg(column + first + arc) : NO_KEY;
        }
        function(others);
    }
}

static __device__ u32 node_of_thread() { return blockIdx.x * BLOCK + threadIdx.x; }

extern "C" __global__ void __launch_bounds__(256) labels_start(
    u32 n, const u32* row, const u32* column, u32 seed_low, u32 seed_high, u32* labels, u32* is_active, u32* waits_for,
    Control* control, const volatile u32* cancel) {
    const NodeOrder order = {seed_low, seed_high};
    auto count = [&](const WorkItem& work, u32 from, u32 stride) {
        const u32 key = order.key_of(work.item);
        u32 before = 0;
        for (u32 arc = from; arc < work.arcs; arc += stride) {
            before += order.key_of(__ldg(column + work.first + arc)) < key;
        }
        return before;
    };
    balance_load(n, row[n] / n <= THREAD_ARCS, &control->taken, CancelSignal{cancel, &control->cancelled},
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid) return work;
            labels[work.item] = work.item;
            is_active[work.item] = 1;
            work.first = row[work.item];
            work.arcs = row[work.item + 1] - work.first;
            if (work.arcs <= THREAD_ARCS) {
                waits_for[work.item] = count(work, 0, 1);
                work.arcs = 0;
            }
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            u32 before = count(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
            for (u32 delta = 16; delta > 0; delta /= 2) before += __shfl_down_sync(ALL, before, delta);
            if (lane_id() == 0) atomicAdd(&waits_for[work.item], before);
        });
}

extern "C" __global__ void __launch_bounds__(256) labels_list_ready(
    u32 n, const u32* waits_for, u32* list, Control* control) {
    const u32 node = node_of_thread();
    if (node >= n || waits_for[node] != 0) return;
    list[atomicAdd(&control->tail, 1)] = node;
}

// Colours written by other blocks of the launch are not in the cache of this one's multiprocessor.
static __device__ u32 load_shared(const u32* at) { return __ldcg(at); }

// The lowest colour that no neighbour before the node has.
struct LowestColor {
    const u32* column;
    const u32* colors;
    NodeOrder order;

    // Calls used(colour) for neighbours before the node.
    template <class Used>
    __device__ void for_each_used(const WorkItem& work, u32 key, u32 from, u32 stride, Used used) const {
        for_each_batch(column, work.first, work.arcs, from, stride, [&](const u32* others) {
            u32 used_colors[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const bool before = others[i] != NO_KEY && order.key_of(others[i]) < key;
                used_colors[i] = before ? load_shared(colors + others[i]) : NO_KEY;
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                if (used_colors[i] != NO_KEY) used(used_colors[i]);
            }
        });
    }

    __device__ u32 by_thread(const WorkItem& work, u32 key) const {
        u32 used = 0; // up to THREAD_ARCS colours are in use, so one of the first 17 is not
        for_each_used(work, key, 0, 1, [&](u32 color) { used |= color < 32 ? 1u << color : 0; });
        return __ffs(~used) - 1;
    }

    // With 32 words of shared memory, for up to 1024 arcs.
    __device__ u32 by_warp(const WorkItem& work, u32 key, u32* words) const {
        words[lane_id()] = 0;
        __syncwarp();
        for_each_used(work, key, lane_id(), 32, [&](u32 color) {
            if (color < WARP_ARCS) atomicOr(&words[color / 32], 1u << color % 32);
        });
        __syncwarp();
        const u32 free = ~words[lane_id()];
        const u32 with_free = __ballot_sync(ALL, free != 0);
        const u32 lowest = lane_id() * 32 + __ffs(free) - 1;
        __syncwarp();
        return with_free == 0 ? WARP_ARCS : __shfl_sync(ALL, lowest, __ffs(with_free) - 1);
    }

    // With a word of shared memory for each thread.
    __device__ u32 by_block(const WorkItem& work, u32 key, u32* words) const {
        __shared__ u32 lowest;
        for (u32 base = 0;; base += WINDOW) {
            words[threadIdx.x] = 0;
            if (threadIdx.x == 0) lowest = ALL;
            __syncthreads();
            for_each_used(work, key, threadIdx.x, BLOCK, [&](u32 color) {
                if (color - base < WINDOW) atomicOr(&words[(color - base) / 32], 1u << color % 32);
            });
            __syncthreads();
            const u32 free = ~words[threadIdx.x];
            if (free != 0) atomicMin(&lowest, base + threadIdx.x * 32 + __ffs(free) - 1);
            __syncthreads();
            const u32 color = lowest;
            __syncthreads();
            if (color != ALL) return color;
        }
    }
};

// Nodes of the list have no neighbours before them without a colour, and so no neighbours in the list. A cooperative
// launch of at most `max_rounds`; the host launches it until begin and end are equal.
extern "C" __global__ void __launch_bounds__(256) labels_color(
    u32 n, const u32* row, const u32* column, u32 seed_low, u32 seed_high, u32* waits_for, u32* colors, u32* list,
    Control* control, const volatile u32* cancel, u32 max_rounds) {
    __shared__ u32 words[WARPS][32];
    const LowestColor lowest = {column, colors, {seed_low, seed_high}};
    volatile Control* progress = control;
    u32 num_colors = 0;
    // Sets the colour, and lists the nodes that waited for this one alone.
    auto finish = [&](const WorkItem& work, u32 key, u32 color, u32 from, u32 stride) {
        if (from == 0) colors[work.item] = color;
        num_colors = max(num_colors, color + 1);
        for_each_batch(column, work.first, work.arcs, from, stride, [&](const u32* others) {
            bool is_ready[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const bool after = others[i] != NO_KEY && lowest.order.key_of(others[i]) > key;
                is_ready[i] = after && atomicSub(&waits_for[others[i]], 1) == 1;
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                if (is_ready[i]) list[atomicAdd(&control->tail, 1)] = others[i];
            }
        });
    };
    for (u32 round = 0; round < max_rounds; round++) {
        const u32 begin = progress->begin, end = progress->end;
        if (begin == end || progress->stopped != 0) break;
        balance_load(end - begin, false, nullptr, CancelSignal{cancel, &control->cancelled},
            [&](bool valid, u64 piece) {
                WorkItem work = {0, 0, 0, 0};
                if (!valid) return work;
                work.item = load_shared(list + begin + piece);
                work.first = row[work.item];
                work.arcs = row[work.item + 1] - work.first;
                if (work.arcs <= THREAD_ARCS) {
                    const u32 key = lowest.order.key_of(work.item);
                    finish(work, key, lowest.by_thread(work, key), 0, 1);
                    work.arcs = 0;
                }
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                const u32 key = lowest.order.key_of(work.item);
                if (whole_block) {
                    finish(work, key, lowest.by_block(work, key, &words[0][0]), threadIdx.x, BLOCK);
                } else {
                    finish(work, key, lowest.by_warp(work, key, words[warp_id()]), lane_id(), 32);
                }
            });
        grid_barrier(&control->arrived, &control->passed, [&] {
            progress->begin = end;
            progress->end = progress->tail;
            const u32 rounds = progress->rounds + 1;
            progress->rounds = rounds;
            if (rounds % ROUNDS_PER_POLL == 0 && *cancel != 0) progress->stopped = 1;
        });
    }
    for (u32 delta = 16; delta > 0; delta /= 2) num_colors = max(num_colors, __shfl_down_sync(ALL, num_colors, delta));
    if (lane_id() == 0) atomicMax(&control->num_colors, num_colors);
}

extern "C" __global__ void __launch_bounds__(256) labels_class_keys(u32 n, const u32* row, u32* colors) {
    const u32 node = node_of_thread();
    if (node >= n) return;
    const u32 arcs = row[node + 1] - row[node];
    const u32 size = arcs <= THREAD_ARCS ? 0 : arcs <= WARP_ROW ? 1 : arcs <= BLOCK_ROW ? 2 : 3;
    colors[node] = SIZES * colors[node] + size;
}

// begins[key] for each key up to num_keys: how many of the sorted keys are below it.
extern "C" __global__ void __launch_bounds__(256) labels_class_begins(
    u32 n, u32 num_keys, const u32* sorted_keys, u32* begins) {
    const u32 at = node_of_thread();
    if (at > n) return;
    const u32 last = at == n ? num_keys : sorted_keys[at];
    for (u32 key = at == 0 ? 0 : sorted_keys[at - 1] + 1; key <= last; key++) begins[key] = at;
}

// The most frequent label of some of a node's neighbours.
struct Frequent {
    u64 best;       // its count, and the key of the label
    u32 label;      // the label of `best`
    u32 own_count;  // of the node's own label

    // The largest of several counts that a label has on the way is its final one.
    __device__ void see(u32 other, u32 count, u32 own, NodeOrder order) {
        if (other == own) own_count = max(own_count, count);
        if (count < (u32)(best >> 32)) return;
        const u64 candidate = (u64)count << 32 | order.key_of(other);
        if (candidate > best) {
            best = candidate;
            label = other;
        }
    }

    __device__ bool keeps_own(u64 most) const { return own_count == (u32)(most >> 32); }
};

// The nodes of a colour, which no edges join.
struct Update {
    const u32 *row, *column, *nodes;
    NodeOrder order;
    u32* labels;
    u32* is_active;
    Control* control;

    // Calls function(label) with the labels of neighbours, and with NO_KEY until all threads have made as many calls.
    template <class Function>
    __device__ void for_each_label(u32 begin, u32 arcs, u32 from, u32 stride, Function function) const {
        for_each_batch(column, begin, arcs, from, stride, [&](const u32* others) {
            u32 of_others[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) of_others[i] = others[i] == NO_KEY ? NO_KEY : labels[others[i]];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) function(of_others[i]);
        });
    }

    __device__ void set(u32 node, u32 label) const {
        labels[node] = label;
        control->changed = 1;
    }

    __device__ void by_thread(u32 node) const {
        if (is_active[node] == 0) return;
        is_active[node] = 0;
        const u32 begin = row[node], arcs = row[node + 1] - begin, own = labels[node];
        u32 others[THREAD_ARCS];
#pragma unroll
        for (u32 i = 0; i < THREAD_ARCS; i++) others[i] = i < arcs ? labels[__ldg(column + begin + i)] : NO_KEY;
        Frequent frequent = {0, 0, 0};
#pragma unroll
        for (u32 i = 0; i < THREAD_ARCS; i++) {
            u32 count = 0;
#pragma unroll
            for (u32 j = 0; j < THREAD_ARCS; j++) count += others[j] == others[i];
            if (i < arcs) frequent.see(others[i], count, own, order);
        }
        if (frequent.keeps_own(frequent.best)) return;
        set(node, frequent.label);
        for (u32 i = 0; i < arcs; i++) is_active[__ldg(column + begin + i)] = 1;
    }

    __device__ void by_warp(u32 node, u32* keys, u32* counts) const {
        const bool active = is_active[node] != 0;
        __syncwarp();
        if (!active) return;
        const u32 begin = row[node], arcs = row[node + 1] - begin, own = labels[node];
        const CountTable table(keys, counts, max(64u, 2 * arcs));
        if (lane_id() == 0) is_active[node] = 0;
        table.clear(lane_id(), 32);
        __syncwarp();
        Frequent frequent = {0, 0, 0};
        for_each_label(begin, arcs, lane_id(), 32, [&](u32 label) {
            if (label != NO_KEY) frequent.see(label, table.add(label, 1), own, order);
        });
        u64 most = frequent.best;
        for (u32 delta = 16; delta > 0; delta /= 2) {
            most = max(most, (u64)__shfl_xor_sync(ALL, most, delta));
            frequent.own_count = max(frequent.own_count, __shfl_xor_sync(ALL, frequent.own_count, delta));
        }
        __syncwarp();
        if (frequent.keeps_own(most)) return;
        if (frequent.best == most) set(node, frequent.label);
        for (u32 arc = lane_id(); arc < arcs; arc += 32) is_active[__ldg(column + begin + arc)] = 1;
    }

    // With a table in shared memory, and one in global memory, which has no slots for a row whose labels all fit into the
    // former.
    __device__ void by_block(u32 node, const CountTable& table, const CountTable& large_table) const {
        __shared__ u64 most;
        __shared__ u32 own_count;
        const u32 begin = row[node], arcs = row[node + 1] - begin, own = labels[node];
        table.clear(threadIdx.x, BLOCK);
        large_table.clear(threadIdx.x, BLOCK);
        if (threadIdx.x == 0) {
            is_active[node] = 0;
            most = 0;
            own_count = 0;
        }
        __syncthreads();
        Frequent frequent = {0, 0, 0};
        for_each_label(begin, arcs, threadIdx.x, BLOCK, [&](u32 label) {
            // Later on most neighbours have the same label.
            const u32 same = __match_any_sync(ALL, label);
            if (label == NO_KEY || lane_id() != __ffs(same) - 1) return;
            u32 count = 0;
            if (large_table.slots == 0) {
                count = table.add(label, __popc(same));
            } else {
                count = table.try_add(label, __popc(same));
                if (count == 0) count = large_table.add(label, __popc(same));
            }
            frequent.see(label, count, own, order);
        });
        if (frequent.best != 0) atomicMax(&most, frequent.best);
        if (frequent.own_count != 0) atomicMax(&own_count, frequent.own_count);
        __syncthreads();
        frequent.own_count = own_count;
        if (frequent.keeps_own(most)) return;
        if (frequent.best == most) set(node, frequent.label);
        for (u32 arc = threadIdx.x; arc < arcs; arc += BLOCK) is_active[__ldg(column + begin + arc)] = 1;
    }
};

// Entries begin..warps_begin of `nodes` are updated by threads, up to blocks_begin by warps, up to end by blocks, of which
// those from large_begin on also have a table in global memory. Blocks first: they take longest. `table_used` is zero at first;
// the tables have 1.5 slots for each neighbour of the large nodes of a colour.
extern "C" __global__ void __launch_bounds__(256) labels_update(
    u32 begin, u32 warps_begin, u32 blocks_begin, u32 large_begin, u32 end, const u32* row, const u32* column,
    const u32* nodes, u32 seed_low, u32 seed_high, u32* labels, u32* is_active, u32* table_keys, u32* table_counts,
    u32* table_used, Control* control, const volatile u32* cancel) {
    __shared__ u32 keys[BLOCK_SLOTS], counts[BLOCK_SLOTS];
    __shared__ u32 table_begin;
    const Update update = {row, column, nodes, {seed_low, seed_high}, labels, is_active, control};
    if (is_cancelled(CancelSignal{cancel, &control->cancelled})) return;
    const u32 num_blocks = end - blocks_begin;
    if (blockIdx.x < num_blocks) {
        const u32 at = end - 1 - blockIdx.x, node = nodes[at];
        const bool active = is_active[node] != 0;
        __syncthreads();
        if (!active) return;
        const u32 arcs = row[node + 1] - row[node];
        const CountTable table(keys, counts, min(2 * arcs, BLOCK_SLOTS));
        CountTable large_table(nullptr, nullptr, 0);
        if (at >= large_begin) {
            const u32 slots = arcs + arcs / 2;
            if (threadIdx.x == 0) table_begin = atomicAdd(table_used, slots);
            __syncthreads();
            large_table = CountTable(table_keys + table_begin, table_counts + table_begin, slots);
        }
        update.by_block(node, table, large_table);
        return;
    }
    const u32 warps_block = blockIdx.x - num_blocks, num_warp_blocks = (blocks_begin - warps_begin + WARPS - 1) / WARPS;
    if (warps_block < num_warp_blocks) {
        const u32 at = warps_begin + warps_block * WARPS + warp_id();
        if (at < blocks_begin) {
            update.by_warp(nodes[at], keys + warp_id() * WARP_SLOTS, counts + warp_id() * WARP_SLOTS);
        }
        return;
    }
    const u32 at = begin + (warps_block - num_warp_blocks) * BLOCK + threadIdx.x;
    if (at < warps_begin) update.by_thread(nodes[at]);
}

// lowest[label] is the complement of the lowest node with the label, and 0 where there is none.
extern "C" __global__ void __launch_bounds__(256) labels_lowest(u32 n, const u32* labels, u32* lowest) {
    const u32 node = node_of_thread();
    const bool valid = node < n;
    const u32 label = valid ? labels[node] : NO_KEY;
    // Most nodes may have one label: of the lanes that have the same, the first has the lowest node.
    const u32 same = __match_any_sync(ALL, label);
    if (valid && lane_id() == __ffs(same) - 1 && *(volatile u32*)&lowest[label] < ~node) {
        atomicMax(&lowest[label], ~node);
    }
}

extern "C" __global__ void __launch_bounds__(256) labels_parents(
    u32 n, const u32* labels, const u32* lowest, u32* parents) {
    const u32 node = node_of_thread();
    if (node < n) parents[node] = ~lowest[labels[node]];
}
