// Louvain's method: the nodes of a level move between communities, and communities become the nodes of the next level.
//
//   louvain_degrees_*    the degree of each node of the first level
//   louvain_start        the communities with which a level begins, and which nodes are active
//   A sweep:
//   louvain_count_active how many active nodes each group has, by the length of their rows
//   louvain_list_active  lists the active nodes by group
//   louvain_move_*       group by group, lets the listed nodes choose communities, and moves them
//   louvain_compare_*    by how much the units of the arcs within communities have risen
//   louvain_products     the sum of the squares of the degrees of communities
//   The next level:
//   louvain_lowest       the lowest node of each community
//   louvain_number       numbers communities by their lowest nodes
//   louvain_relabel      the numbers in place of the communities
//   louvain_compose      the community of each node of the first level
//   louvain_row_bounds   the arcs that begin in each community
//   louvain_tables       where the table of each community begins
//   louvain_clear_tables
//   louvain_headers      the first word of each table
//   louvain_insert_*     adds each arc to the table of the community in which it begins
//   louvain_rows_*       the rows of the next level
//   louvain_parents      the lowest node of the community of each node, for the numbering of the output
//
// Entries ending in _counts are for arcs that count, those in _weights for arcs with weights.
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], undirected, every column below n; n is at least 1. Arcs are in
// units. _counts: one each in the first level, u32[arcs] in merged ones; _weights: f32[arcs] times `scale`, rounded, in the
// first level, u64[arcs] in merged ones. All sums fit into these types, and degrees and their sums into u64. Communities are
// below n. The groups, the choices and the counts are those of local_moving.rs, whose results follow bit by bit: sums are of
// integers, and a choice does not depend on the order in which communities are looked at.
//
// 256 threads a block. Once the request is cancelled nothing has a meaning any more.
//
// Sources: Blondel, Guillaume, Lambiotte, Lefebvre, "Fast Unfolding of Communities in Large Networks", J. Stat. Mech. 2008;
// Naim, Manne, Halappanavar, Tumeo, "Community Detection on the GPU", IPDPS 2017 (threads, warps or blocks for a node, with
// hash tables in shared or in global memory).

#include "fixed_point.cuh"
#include "hash_table.cuh"
#include "load_balance.cuh"
#include "scan.cuh"

// Neighbours that a thread and a warp take, and a block with a table in shared memory alone.
constexpr u32 THREAD_ARCS = 8;
constexpr u32 WARP_ROW = 128;
constexpr u32 BLOCK_ROW = 1024;
constexpr u32 WARP_SLOTS = 2 * WARP_ROW;
constexpr u32 BLOCK_SLOTS = 2 * BLOCK_ROW; // as many as those of all warps
constexpr u32 HUB_ROW = 8192;              // longer rows are taken by several blocks, in parts
constexpr u32 HUB_PART = 4096;             // arcs or slots of a part
constexpr u32 SIZES = 4;                   // kinds of nodes by the number of their neighbours
constexpr u32 GROUPS = 16;                 // local_moving.rs has the same two numbers
constexpr u32 FEW_NODES = 64;              // up to so many have a group each
constexpr u32 BINS = SIZES * FEW_NODES;
constexpr u32 AHEAD = 4;                   // arcs of a thread whose loads are in flight
constexpr u32 NODES_PER_BLOCK = 1024;      // of louvain_row_bounds; cuda.rs has the same number
constexpr u32 RESULT_WORDS = 5;            // of what is found in a part of a hub's table
constexpr u32 BLOCKS_PER_HUB = 16;         // blocks that a group of few nodes with hubs gets
constexpr u32 BATCHES_PER_CHECK = 64;      // batches of a long row, of which one looks for cancellation
constexpr u32 BARRIERS_PER_POLL = 16;

static_assert(BLOCK_SLOTS == WARPS * WARP_SLOTS, "the tables of the warps are that of the block");
static_assert(BINS <= BLOCK, "a thread for each bin");

// cuda.rs has the same layout.
struct Control {
    u64 internal_change;             // of the units of arcs within communities, in this sweep
    u64 products_low, products_high; // the sum of the squares of the degrees of communities, of 128 bits
    u64 all_units;                   // of all arcs
    u32 has_moved;                   // 1: a node moved in this sweep
    u32 num_communities;
    u32 active;                      // nodes that are active in this sweep
    u32 arrived, passed;             // the barrier
    u32 cancelled;                   // 1: the request is cancelled
    u32 stopped;                     // 1: it was cancelled before the last barrier
    u32 taken;                       // chunks that blocks took beyond their first
    u32 bin_sizes[BINS], bin_fill[BINS];
    u32 bin_begins[BINS + 1];        // where the nodes of each group and size begin in the list
    u32 few[FEW_NODES];              // the active nodes, if they are not more than these
};

static_assert(sizeof(Control) == 425 * sizeof(u64), "cuda.rs has the same size");

// A bijection of 32-bit words whose result is spread evenly; node_order.rs has its source.
static __device__ u32 mix(u32 word) {
    word = (word ^ (word >> 16)) * 0x7feb352du;
    word = (word ^ (word >> 15)) * 0x846ca68bu;
    return word ^ (word >> 16);
}

// The order of the nodes in a sweep is that of their keys.
struct NodeOrder {
    u32 low, high;

    __device__ u32 key_of(u32 node) const { return mix(mix(node ^ low) + high); }
};

template <bool WEIGHTED> struct UnitsOf {
    typedef u32 Type;
};
template <> struct UnitsOf<true> {
    typedef u64 Type;
};

// A level's graph.
template <bool WEIGHTED> struct LevelGraph {
    typedef typename UnitsOf<WEIGHTED>::Type Units;

    const u32 *row, *column;
    const void* weights;
    double scale;
    u32 is_merged;

    __device__ u32 row_len(u32 node) const { return row[node + 1] - row[node]; }

    __device__ Units units(u32 arc) const {
        if (is_merged != 0) return __ldg((const Units*)weights + arc);
        if (!WEIGHTED) return 1;
        return (Units)__double2ull_rn((double)__ldg((const float*)weights + arc) * scale);
    }
};

// Sums of units by community: a table of their low words, and for weights also their high words.
template <bool WEIGHTED> struct UnitTable {
    typedef typename UnitsOf<WEIGHTED>::Type Units;

    CountTable table;
    u32* high;

    __device__ UnitTable(u32* keys, u32* low, u32* high, u32 slots) : table(keys, low, slots), high(high) {}

    __device__ void clear(u32 rank, u32 size) const {
        table.clear(rank, size);
        for (u32 slot = rank; WEIGHTED && slot < table.slots; slot += size) high[slot] = 0;
    }

    __device__ void add_at(u32 slot, Units units) const {
        if (WEIGHTED) {
            add_to_words(&table.counts[slot], &high[slot], nullptr, units);
        } else {
            atomicAdd(&table.counts[slot], (u32)units);
        }
    }

    __device__ void add(u32 community, Units units) const { add_at(table.slot_of(community), units); }

    // The slots of a part, which begins at one of them.
    __device__ UnitTable part(u32 begin) const {
        return UnitTable(table.keys + begin, table.counts + begin, high + begin, min(HUB_PART, table.slots - begin));
    }

    __device__ bool try_add(u32 community, Units units, u32 max_probes) const {
        const u32 slot = table.try_slot_of(community, max_probes);
        if (slot != NO_KEY) add_at(slot, units);
        return slot != NO_KEY;
    }

    __device__ Units units_at(u64 slot) const {
        return WEIGHTED ? (Units)((u64)high[slot] << 32 | table.counts[slot]) : (Units)table.counts[slot];
    }

    // Calls function(community, units) for each community.
    template <class Function> __device__ void for_each(u32 rank, u32 size, Function function) const {
#pragma unroll 1
        for (u32 slot = rank; slot < table.slots; slot += size) {
            if (table.keys[slot] != NO_KEY) function(table.keys[slot], units_at(slot));
        }
    }
};

// Adds a value of each thread to a word in global memory, modulo 2^64.
static __device__ void add_to(u64* sum, u64 value) {
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(ALL, value, delta);
    if (lane_id() == 0 && value != 0) atomicAdd(sum, value);
}

static __device__ u32 node_of_thread() { return blockIdx.x * BLOCK + threadIdx.x; }

// The thread's part of a loop over the arcs of a row, AHEAD in each call: function(arcs, others) gets their indices, and
// their other ends, which are NO_KEY beyond the row. Threads whose `from` is below `stride` make the same number of calls. A
// long row ends early if the request is cancelled.
template <class Function>
static __device__ void for_each_batch(
    const u32* column, u32 first, u32 arcs, u32 from, u32 stride, CancelSignal cancel, Function function) {
    u32 batch = 0;
#pragma unroll 1
    for (u32 base = 0; base < arcs; base += AHEAD * stride) {
        u32 indices[AHEAD], others[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 arc = base + i * stride + from;
            indices[i] = first + arc;
            others[i] = arc < arcs ? __ldg(column + first + arc) : NO_KEY;
        }
        function(indices, others);
        if (++batch % BATCHES_PER_CHECK == 0) {
            const bool cancelled = is_cancelled_at(cancel, batch / BATCHES_PER_CHECK);
            if (__shfl_sync(ALL, cancelled, 0)) break;
        }
    }
}

// A community that a node may move to.
struct Candidate {
    double score;
    u32 community;

    __device__ static Candidate none() { return {-__longlong_as_double(0x7ff0000000000000ll), NO_KEY}; }

    __device__ void see(Candidate other) {
        if (other.score > score || (other.score == score && other.community < community)) *this = other;
    }

    // The best of the lanes of a warp, and the units of the own community, which one of them has at most.
    __device__ void see_warp(u64& own_units) {
#pragma unroll 1
        for (u32 delta = 16; delta > 0; delta /= 2) {
            see({__shfl_xor_sync(ALL, score, delta), __shfl_xor_sync(ALL, community, delta)});
            own_units |= __shfl_xor_sync(ALL, own_units, delta);
        }
    }

    // The same of a block, in its first thread.
    __device__ void see_block(u64& own_units) {
        __shared__ double scores[WARPS];
        __shared__ u32 communities[WARPS];
        __shared__ u64 own[WARPS];
        see_warp(own_units);
        __syncthreads();
        if (lane_id() == 0) {
            scores[warp_id()] = score;
            communities[warp_id()] = community;
            own[warp_id()] = own_units;
        }
        __syncthreads();
        if (threadIdx.x != 0) return;
#pragma unroll 1
        for (u32 warp = 1; warp < WARPS; warp++) {
            see({scores[warp], communities[warp]});
            own_units |= own[warp];
        }
    }
};

// The nodes of a group choose, and then move.
template <bool WEIGHTED> struct Moving {
    typedef LevelGraph<WEIGHTED> Graph;
    typedef typename Graph::Units Units;
    typedef UnitTable<WEIGHTED> Table;

    u32 n;
    Graph graph;
    u32 *community, *target, *is_active;
    u32* hub_state; // of a hub: how many parts of its table were looked at, and then whether it moves
    const u64* degree;
    u64* degree_sum;
    double resolution;
    u64 all_units;
    // Words of global memory, of which a row uses 1.5 for each arc, from 1.5 times where it begins. The tables of hubs are
    // empty between the choices.
    u32 *table_keys, *table_low, *table_high;
    Control* control;
    CancelSignal cancel;

    // The modularity with the node in a community, but for a factor and a term that are the same for all. The same
    // operations as on the CPU, none of them fused.
    struct Scores {
        u64 degree;
        u32 own;
        double expected_per_degree;

        // `sum` is that of the degrees of the community's nodes.
        __device__ double of(u32 community, u64 sum, u64 units) const {
            const u64 others = sum - (community == own ? degree : 0);
            return __dsub_rn(__ull2double_rn(units), __dmul_rn(expected_per_degree, __ull2double_rn(others)));
        }
    };

    __device__ Scores scores_of(u32 node) const {
        const u64 all = all_units == 0 ? 1 : all_units;
        const double expected = __ddiv_rn(__dmul_rn(resolution, __ull2double_rn(degree[node])), __ull2double_rn(all));
        return {degree[node], community[node], expected};
    }

    // The own community unless another is better. Returns whether it is another.
    __device__ bool decide(u32 node, const Scores& scores, u64 own_units, Candidate best) const {
        const double own = scores.of(scores.own, degree_sum[scores.own], own_units);
        is_active[node] = 0;
        // A huge resolution makes it no number.
        const bool moves = best.score > (own == own ? own : Candidate::none().score);
        if (moves) target[node] = best.community;
        return moves;
    }

    __device__ void choose_by_thread(u32 node) const {
        const u32 first = graph.row[node], arcs = graph.row[node + 1] - first;
        const Scores scores = scores_of(node);
        u32 communities[THREAD_ARCS];
        Units units[THREAD_ARCS];
        u64 sums[THREAD_ARCS];
#pragma unroll
        for (u32 i = 0; i < THREAD_ARCS; i++) {
            communities[i] = i < arcs ? community[__ldg(graph.column + first + i)] : NO_KEY;
            units[i] = i < arcs ? graph.units(first + i) : 0;
        }
#pragma unroll
        for (u32 i = 0; i < THREAD_ARCS; i++) sums[i] = i < arcs ? degree_sum[communities[i]] : 0;
        Candidate best = Candidate::none();
        Units own_units = 0;
#pragma unroll
        for (u32 i = 0; i < THREAD_ARCS; i++) {
            if (i >= arcs) break;
            Units to = 0;
#pragma unroll
            for (u32 j = 0; j < THREAD_ARCS; j++) to += communities[j] == communities[i] ? units[j] : 0;
            if (communities[i] == scores.own) {
                own_units = to;
            } else {
                best.see({scores.of(communities[i], sums[i], to), communities[i]});
            }
        }
        decide(node, scores, own_units, best);
    }

    // Calls add(community, units) for the neighbours of a node, by the thread's warp together.
    template <class Add>
    __device__ void for_each_neighbor(u32 first, u32 arcs, u32 from, u32 stride, Add add) const {
        const bool counts = !WEIGHTED && graph.is_merged == 0;
        for_each_batch(graph.column, first, arcs, from, stride, cancel, [&](const u32* indices, const u32* others) {
            u32 communities[AHEAD];
            Units units[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                communities[i] = others[i] == NO_KEY ? NO_KEY : community[others[i]];
                units[i] = others[i] == NO_KEY ? 0 : graph.units(indices[i]);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                // Later on most neighbours have the same community. The lanes that have add together where arcs count 1.
                const u32 same = counts ? __match_any_sync(ALL, communities[i]) : 1u << lane_id();
                if (communities[i] == NO_KEY || lane_id() != __ffs(same) - 1) continue;
                add(communities[i], counts ? (Units)__popc(same) : units[i]);
            }
        });
    }

    // The best community of a table but the own, whose units are set; of the slots of one thread.
    __device__ Candidate best_of(const Table& table, const Scores& scores, u32 rank, u32 size, u64& own_units) const {
        Candidate best = Candidate::none();
#pragma unroll 1
        for (u32 base = rank; base < table.table.slots; base += AHEAD * size) {
            u32 communities[AHEAD];
            u64 sums[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 slot = base + i * size;
                communities[i] = slot < table.table.slots ? table.table.keys[slot] : NO_KEY;
                sums[i] = communities[i] == NO_KEY ? 0 : degree_sum[communities[i]];
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                if (communities[i] == NO_KEY) continue;
                const u64 units = table.units_at(base + i * size);
                if (communities[i] == scores.own) {
                    own_units = units;
                } else {
                    best.see({scores.of(communities[i], sums[i], units), communities[i]});
                }
            }
        }
        return best;
    }

    __device__ void choose_by_warp(u32 node, u32* keys, u32* low, u32* high) const {
        const u32 first = graph.row[node], arcs = graph.row[node + 1] - first;
        const Table table(keys, low, high, max(32u, 2 * arcs));
        const Scores scores = scores_of(node);
        table.clear(lane_id(), 32);
        __syncwarp();
        for_each_neighbor(first, arcs, lane_id(), 32, [&](u32 other, Units units) { table.add(other, units); });
        __syncwarp();
        u64 own_units = 0;
        Candidate best = best_of(table, scores, lane_id(), 32, own_units);
        best.see_warp(own_units);
        __syncwarp();
        if (lane_id() == 0) decide(node, scores, own_units, best);
    }

    // The table in global memory of a row that is too long for one in shared memory alone.
    __device__ Table global_table(u32 first, u32 arcs) const {
        const u32 most = min(arcs, n);
        const u64 begin = (u64)first + first / 2;
        return Table(table_keys + begin, table_low + begin, table_high + begin, most > BLOCK_ROW ? most + most / 2 : 0);
    }

    // With a table in shared memory, and one in global memory for the communities that have no room there.
    __device__ void choose_by_block(u32 node, u32* keys, u32* low, u32* high) const {
        const u32 first = graph.row[node], arcs = graph.row[node + 1] - first, most = min(arcs, n);
        const Table table(keys, low, high, min(2 * most, BLOCK_SLOTS));
        const Table large_table = global_table(first, arcs);
        const Scores scores = scores_of(node);
        // Without the other table, this one has room for all.
        const u32 max_probes = large_table.table.slots > 0 ? MAX_PROBES : ALL;
        __syncthreads();
        table.clear(threadIdx.x, BLOCK);
        large_table.clear(threadIdx.x, BLOCK);
        __syncthreads();
        for_each_neighbor(first, arcs, threadIdx.x, BLOCK, [&](u32 other, Units units) {
            if (!table.try_add(other, units, max_probes)) large_table.add(other, units);
        });
        __syncthreads();
        u64 own_units = 0;
        Candidate best = best_of(table, scores, threadIdx.x, BLOCK, own_units);
        best.see(best_of(large_table, scores, threadIdx.x, BLOCK, own_units));
        best.see_block(own_units);
        if (threadIdx.x == 0) decide(node, scores, own_units, best);
    }

    __device__ u32 arc_parts(u32 node) const { return (graph.row_len(node) + HUB_PART - 1) / HUB_PART; }

    __device__ u32 slot_parts(u32 node) const {
        const u32 most = min(graph.row_len(node), n);
        return (most + most / 2 + HUB_PART - 1) / HUB_PART;
    }

    // Adds a part of a hub's row to its table, which is empty at first.
    __device__ void fill_by_block(u32 node, u32 part, u32* keys, u32* low, u32* high) const {
        const u32 first = graph.row[node], arcs = graph.row[node + 1] - first, begin = part * HUB_PART;
        const Table table(keys, low, high, BLOCK_SLOTS), hub_table = global_table(first, arcs);
        __syncthreads();
        table.clear(threadIdx.x, BLOCK);
        if (part == 0 && threadIdx.x == 0) hub_state[node] = 0;
        __syncthreads();
        for_each_neighbor(first + begin, min(HUB_PART, arcs - begin), threadIdx.x, BLOCK, [&](u32 other, Units units) {
            if (!table.try_add(other, units, MAX_PROBES)) hub_table.add(other, units);
        });
        __syncthreads();
        table.for_each(threadIdx.x, BLOCK, [&](u32 other, Units units) { hub_table.add(other, units); });
    }

    // Finds the best community of a part of a hub's table, and empties it. The last block to have done so finds the best of
    // all parts.
    __device__ void choose_by_blocks(u32 node, u32 part) const {
        __shared__ bool is_last;
        const u32 first = graph.row[node], parts = slot_parts(node);
        const Table hub_table = global_table(first, graph.row[node + 1] - first), of_part = hub_table.part(part * HUB_PART);
        const Scores scores = scores_of(node);
        u64 own_units = 0;
        Candidate best = best_of(of_part, scores, threadIdx.x, BLOCK, own_units);
        __syncthreads();
        of_part.clear(threadIdx.x, BLOCK);
        best.see_block(own_units);
        // Until then the result is where the part was.
        volatile u32* result = of_part.table.counts;
        if (threadIdx.x == 0) {
            const u64 score = __double_as_longlong(best.score);
            result[0] = (u32)score;
            result[1] = (u32)(score >> 32);
            result[2] = best.community;
            result[3] = (u32)own_units;
            result[4] = (u32)(own_units >> 32);
            __threadfence();
            is_last = atomicAdd(&hub_state[node], 1) == parts - 1;
            __threadfence();
        }
        __syncthreads();
        if (!is_last) return;
        best = Candidate::none();
        own_units = 0;
#pragma unroll 1
        for (u32 other = threadIdx.x; other < parts; other += BLOCK) {
            volatile u32* of_other = hub_table.part(other * HUB_PART).table.counts;
            const u64 score = (u64)of_other[1] << 32 | of_other[0];
            best.see({__longlong_as_double(score), of_other[2]});
            own_units |= (u64)of_other[4] << 32 | of_other[3];
            for (u32 i = 0; i < RESULT_WORDS; i++) of_other[i] = 0;
        }
        best.see_block(own_units);
        if (threadIdx.x == 0) hub_state[node] = decide(node, scores, own_units, best);
    }

    // Moves a hub if it has chosen another community: the arcs of a part.
    __device__ void apply_by_blocks(u32 node, u32 part) const {
        if (hub_state[node] == 0) return;
        const u32 to = target[node], begin = part * HUB_PART, arcs = min(HUB_PART, graph.row_len(node) - begin);
        if (part == 0 && threadIdx.x == 0) set(node, community[node], to);
        activate_all(graph.row[node] + begin, arcs, threadIdx.x, BLOCK, to);
    }

    __device__ void apply_by_thread(u32 node) const {
        const u32 from = community[node], to = target[node];
        if (from == to) return;
        set(node, from, to);
        const u32 first = graph.row[node], arcs = graph.row[node + 1] - first;
#pragma unroll 1
        for (u32 i = 0; i < arcs; i++) activate(__ldg(graph.column + first + i), to);
    }

    __device__ void set(u32 node, u32 from, u32 to) const {
        atomicAdd(&degree_sum[from], 0 - degree[node]);
        atomicAdd(&degree_sum[to], degree[node]);
        community[node] = to;
        control->has_moved = 1;
    }

    // A neighbour of a node that moves chooses again, unless it will be in the same community. It may be moving at the same
    // time.
    __device__ void activate(u32 neighbor, u32 to) const {
        if (target[neighbor] != to) is_active[neighbor] = 1;
    }

    // Moves a node if it has chosen another community; by a group of threads, which `sync` synchronizes.
    template <class Sync> __device__ void apply(u32 node, u32 rank, u32 size, Sync sync) const {
        const u32 from = community[node], to = target[node];
        sync();
        if (from == to) return;
        if (rank == 0) set(node, from, to);
        activate_all(graph.row[node], graph.row_len(node), rank, size, to);
    }

    __device__ void activate_all(u32 first, u32 arcs, u32 rank, u32 size, u32 to) const {
        for_each_batch(graph.column, first, arcs, rank, size, cancel, [&](const u32*, const u32* others) {
            u32 targets[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) targets[i] = others[i] == NO_KEY ? to : target[others[i]];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                if (targets[i] != to) is_active[others[i]] = 1;
            }
        });
    }
};

// The degrees of the first level, which the host zeroes: they are added up by several threads where rows are long.
template <bool WEIGHTED>
static __device__ void add_degrees(
    u32 n, const LevelGraph<WEIGHTED>& graph, u64* degree, Control* control, const volatile u32* cancel) {
    u64 all = 0;
    auto add = [&](const WorkItem& work, u32 from, u32 stride) {
        u64 sum = 0;
#pragma unroll 1
        for (u32 i = from; i < work.arcs; i += stride) sum += graph.units(work.first + i);
        if (sum != 0) atomicAdd(&degree[work.item], sum);
        all += sum;
    };
    balance_load(n, graph.row[n] / n <= THREAD_ARCS, &control->taken, CancelSignal{cancel, &control->cancelled},
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid) return work;
            work.first = graph.row[work.item];
            work.arcs = graph.row_len(work.item);
            if (work.arcs <= THREAD_ARCS) {
                add(work, 0, 1);
                work.arcs = 0;
            }
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            add(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
        });
    add_to(&control->all_units, all);
}

// Communities are those of `start`, or with `single` one for each node.
extern "C" __global__ void __launch_bounds__(256) louvain_start(
    u32 n, const u32* row, u32 single, const u32* start, u32* community, u32* target, u32* saved, u32* is_active) {
    const u32 node = node_of_thread();
    if (node >= n) return;
    const u32 own = single != 0 ? node : start[node];
    community[node] = own;
    target[node] = own;
    saved[node] = own;
    // Nodes without neighbours never move.
    is_active[node] = row[node + 1] > row[node];
}

static __device__ u32 bin_of(u32 node, const u32* row, u32 group) {
    const u32 arcs = row[node + 1] - row[node];
    return SIZES * group + (arcs <= THREAD_ARCS ? 0 : arcs <= WARP_ROW ? 1 : arcs <= HUB_ROW ? 2 : 3);
}

static __device__ u32 group_of(u32 node, NodeOrder order) { return order.key_of(node) / (0x80000000u / (GROUPS / 2)); }

// The nodes of a block of these two entries.
struct NodeRange {
    u32 begin, end;

    __device__ explicit NodeRange(u32 n) {
        const u32 size = (n + gridDim.x - 1) / gridDim.x;
        begin = min(n, blockIdx.x * size);
        end = min(n, begin + size);
    }
};

// How many active nodes of the block each bin has; by the whole block, with a word of shared memory for each.
static __device__ void count_bins(
    NodeRange nodes, const u32* row, NodeOrder order, const u32* is_active, u32* bin_sizes) {
    if (threadIdx.x < BINS) bin_sizes[threadIdx.x] = 0;
    __syncthreads();
    for (u32 node = nodes.begin + threadIdx.x; node < nodes.end; node += BLOCK) {
        if (is_active[node] != 0) atomicAdd(&bin_sizes[bin_of(node, row, group_of(node, order))], 1);
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(256) louvain_count_active(
    u32 n, const u32* row, u32 seed_low, u32 seed_high, const u32* is_active, Control* control) {
    __shared__ u32 bin_sizes[BINS];
    __shared__ u32 active_before, listed;
    const NodeRange nodes(n);
    count_bins(nodes, row, {seed_low, seed_high}, is_active, bin_sizes);
    const u32 of_bin = threadIdx.x < BINS ? bin_sizes[threadIdx.x] : 0;
    if (of_bin != 0) atomicAdd(&control->bin_sizes[threadIdx.x], of_bin);
    u32 active;
    scan_block<BLOCK>(of_bin, active);
    if (active == 0) return;
    if (threadIdx.x == 0) {
        active_before = atomicAdd(&control->active, active);
        listed = 0;
    }
    __syncthreads();
    if (active_before + active > FEW_NODES) return;
#pragma unroll 1
    for (u32 node = nodes.begin + threadIdx.x; node < nodes.end; node += BLOCK) {
        if (is_active[node] != 0) control->few[active_before + atomicAdd(&listed, 1)] = node;
    }
}

// Few nodes have a group each, in their order.
static __device__ void list_few(const u32* row, NodeOrder order, u32* list, Control* control) {
    const u32 count = control->active;
    for (u32 bin = threadIdx.x; bin <= BINS; bin += BLOCK) control->bin_begins[bin] = min(count, (bin + SIZES - 1) / SIZES);
    __syncthreads();
    if (threadIdx.x >= count) return;
    const u32 node = control->few[threadIdx.x], key = order.key_of(node);
    u32 before = 0;
#pragma unroll 1
    for (u32 i = 0; i < count; i++) before += order.key_of(control->few[i]) < key;
    list[before] = node;
    // Bins of the group up to the node's own begin at the node, and later ones behind it.
    for (u32 bin = SIZES * before; bin <= bin_of(node, row, before); bin++) control->bin_begins[bin] = before;
}

extern "C" __global__ void __launch_bounds__(256) louvain_list_active(
    u32 n, const u32* row, u32 seed_low, u32 seed_high, const u32* is_active, u32* list, Control* control) {
    __shared__ u32 bin_sizes[BINS], next[BINS];
    const NodeOrder order = {seed_low, seed_high};
    if (control->active <= FEW_NODES) {
        if (blockIdx.x == 0) list_few(row, order, list, control);
        return;
    }
    const NodeRange nodes(n);
    count_bins(nodes, row, order, is_active, bin_sizes);
    u32 total;
    const bool has_bin = threadIdx.x < BINS;
    const u32 begin = scan_block<BLOCK>(has_bin ? control->bin_sizes[threadIdx.x] : 0, total);
    if (blockIdx.x == 0 && has_bin) control->bin_begins[threadIdx.x] = begin;
    if (blockIdx.x == 0 && threadIdx.x == 0) control->bin_begins[BINS] = total;
    const u32 of_bin = has_bin ? bin_sizes[threadIdx.x] : 0;
    if (of_bin != 0) next[threadIdx.x] = begin + atomicAdd(&control->bin_fill[threadIdx.x], of_bin);
    __syncthreads();
#pragma unroll 1
    for (u32 node = nodes.begin + threadIdx.x; node < nodes.end; node += BLOCK) {
        if (is_active[node] != 0) list[atomicAdd(&next[bin_of(node, row, group_of(node, order))], 1)] = node;
    }
}

// The tasks of a group: a node for a whole block, nodes for each warp, or for each thread. The first ones take longest.
struct Tasks {
    u32 begin, warps_begin, blocks_begin, end, hubs_end;

    __device__ explicit Tasks(const u32* begins)
        : begin(begins[0]), warps_begin(begins[1]), blocks_begin(begins[2]), end(begins[3]), hubs_end(begins[4]) {}

    __device__ u32 hubs() const { return hubs_end - end; }
    __device__ u32 by_block() const { return end - blocks_begin; }
    __device__ u32 by_warps() const { return (blocks_begin - warps_begin + WARPS - 1) / WARPS; }
    __device__ u32 count() const { return by_block() + by_warps() + (warps_begin - begin + BLOCK - 1) / BLOCK; }

    template <class ByThread, class ByWarp, class ByBlock>
    __device__ void run(u32 blocks, const u32* list, ByThread by_thread, ByWarp by_warp, ByBlock block) const {
        for (u32 task = blockIdx.x; task < count(); task += blocks) {
            if (task < by_block()) {
                block(list[blocks_begin + task]);
            } else if (task < by_block() + by_warps()) {
                const u32 at = warps_begin + (task - by_block()) * WARPS + warp_id();
                // The tables of the warps are that of the block.
                __syncthreads();
                if (at < blocks_begin) by_warp(list[at]);
            } else {
                const u32 at = begin + (task - by_block() - by_warps()) * BLOCK + threadIdx.x;
                if (at < warps_begin) by_thread(list[at]);
            }
        }
    }
};

// Calls function(hub, part) with each part of hubs, in one of the blocks.
template <class Parts, class Function>
static __device__ void for_each_part(
    const u32* hubs, u32 count, u32 blocks, const Parts& parts_of, const Function& function) {
    __shared__ u32 begins[BLOCK];
    u32 first_task = blockIdx.x;
    for (u32 base = 0; base < count; base += BLOCK) {
        u32 total;
        const u32 parts = base + threadIdx.x < count ? parts_of(hubs[base + threadIdx.x]) : 0;
        const u32 begin = scan_block<BLOCK>(parts, total);
        begins[threadIdx.x] = begin;
        __syncthreads();
        u32 task = first_task;
        for (; task < total; task += blocks) {
            // The last hub that begins at the task or before it.
            u32 hub = 0;
#pragma unroll 1
            for (u32 step = BLOCK / 2; step > 0; step /= 2) hub += begins[hub + step] <= task ? step : 0;
            function(hubs[base + hub], task - begins[hub]);
        }
        first_task = task - total;
        __syncthreads();
    }
}

// The blocks of a launch that have tasks wait for one another; the others have ended. Returns whether the request is
// cancelled.
static __device__ bool wait_for_blocks(u32 blocks, u32& barriers, CancelSignal cancel, Control* control) {
    const bool polls = ++barriers % BARRIERS_PER_POLL == 0;
    if (blocks == 1) {
        const bool cancelled = threadIdx.x == 0 && (cancel.is_seen() || (polls && cancel.poll_cancel()));
        return __syncthreads_or(cancelled) != 0;
    }
    volatile u32* stopped = &control->stopped;
    grid_barrier(blocks, &control->arrived, &control->passed, [&] {
        if (cancel.is_seen() || (polls && cancel.poll_cancel())) *stopped = 1;
    });
    return *stopped != 0;
}

template <bool WEIGHTED> static __device__ void move_groups(const Moving<WEIGHTED>& moving, const u32* list) {
    __shared__ u32 keys[BLOCK_SLOTS], low[BLOCK_SLOTS], high[WEIGHTED ? BLOCK_SLOTS : WARPS];
    __shared__ u32 begins[BINS + 1];
    __shared__ u32 most_tasks;
    constexpr u32 WARP_HIGH = WEIGHTED ? WARP_SLOTS : 1;
    for (u32 bin = threadIdx.x; bin <= BINS; bin += BLOCK) begins[bin] = moving.control->bin_begins[bin];
    if (threadIdx.x == 0) most_tasks = 0;
    __syncthreads();
    if (threadIdx.x < FEW_NODES) {
        const Tasks tasks(begins + SIZES * threadIdx.x);
        atomicMax(&most_tasks, tasks.count() + BLOCKS_PER_HUB * tasks.hubs());
    }
    __syncthreads();
    const u32 blocks = min(gridDim.x, most_tasks);
    if (blockIdx.x >= blocks) return;
    u32 barriers = 0;
    for (u32 group = 0; group < FEW_NODES; group++) {
        const Tasks tasks(begins + SIZES * group);
        const u32* hubs = list + tasks.end;
        if (begins[SIZES * group] == tasks.hubs_end) continue;
        for_each_part(hubs, tasks.hubs(), blocks, [&](u32 hub) { return moving.arc_parts(hub); },
            [&](u32 hub, u32 part) { moving.fill_by_block(hub, part, keys, low, high); });
        tasks.run(blocks, list,
            [&](u32 node) { moving.choose_by_thread(node); },
            [&](u32 node) {
                const u32 at = warp_id() * WARP_SLOTS;
                moving.choose_by_warp(node, keys + at, low + at, high + warp_id() * WARP_HIGH);
            },
            [&](u32 node) { moving.choose_by_block(node, keys, low, high); });
        if (wait_for_blocks(blocks, barriers, moving.cancel, moving.control)) return;
        if (tasks.hubs() > 0) {
            for_each_part(hubs, tasks.hubs(), blocks, [&](u32 hub) { return moving.slot_parts(hub); },
                [&](u32 hub, u32 part) { moving.choose_by_blocks(hub, part); });
            if (wait_for_blocks(blocks, barriers, moving.cancel, moving.control)) return;
            for_each_part(hubs, tasks.hubs(), blocks, [&](u32 hub) { return moving.arc_parts(hub); },
                [&](u32 hub, u32 part) { moving.apply_by_blocks(hub, part); });
        }
        tasks.run(blocks, list,
            [&](u32 node) { moving.apply_by_thread(node); },
            [&](u32 node) { moving.apply(node, lane_id(), 32, [] { __syncwarp(); }); },
            [&](u32 node) { moving.apply(node, threadIdx.x, BLOCK, [] { __syncthreads(); }); });
        if (wait_for_blocks(blocks, barriers, moving.cancel, moving.control)) return;
    }
}

// Nodes are compared that have moved since the communities were saved. The arc from the other end is counted with this one
// unless the other end has moved, too.
template <bool WEIGHTED>
static __device__ void compare(
    u32 n, const LevelGraph<WEIGHTED>& graph, const u32* community, const u32* saved, Control* control,
    const volatile u32* cancel) {
    u64 change = 0;
    auto count = [&](const WorkItem& work, u32 from, u32 stride) {
        const u32 now = community[work.item], before = saved[work.item];
#pragma unroll 2
        for (u32 i = from; i < work.arcs; i += stride) {
            const u32 other = __ldg(graph.column + work.first + i);
            const u32 other_now = community[other], other_before = saved[other];
            const bool is_internal = now == other_now, was_internal = before == other_before;
            if (is_internal == was_internal) continue;
            const u64 units = (u64)graph.units(work.first + i) << (other_now == other_before);
            change += is_internal ? units : 0 - units;
        }
    };
    balance_load(n, true, &control->taken, CancelSignal{cancel, &control->cancelled},
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid || community[work.item] == saved[work.item]) return work;
            work.first = graph.row[work.item];
            work.arcs = graph.row_len(work.item);
            if (work.arcs <= THREAD_ARCS) {
                count(work, 0, 1);
                work.arcs = 0;
            }
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            count(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
        });
    add_to(&control->internal_change, change);
}

extern "C" __global__ void __launch_bounds__(256) louvain_products(u32 n, const u64* degree_sum, Control* control) {
    FixedSum sum = {0, 0};
    for (u32 community = node_of_thread(); community < n; community += gridDim.x * BLOCK) {
        sum.merge({degree_sum[community] * degree_sum[community], __umul64hi(degree_sum[community], degree_sum[community])});
    }
    sum = sum_warp(sum);
    if (lane_id() != 0 || (sum.low | sum.high) == 0) return;
    const u64 before = atomicAdd(&control->products_low, sum.low);
    atomicAdd(&control->products_high, sum.high + (before > ~sum.low));
}

// lowest[community] is the complement of its lowest node, and zero at first.
extern "C" __global__ void __launch_bounds__(256) louvain_lowest(u32 n, const u32* community, u32* lowest) {
    const u32 node = node_of_thread();
    const bool valid = node < n;
    const u32 own = valid ? community[node] : NO_KEY;
    // Many nodes may have one community: of the lanes that have the same, the first has the lowest node.
    const u32 same = __match_any_sync(ALL, own);
    if (valid && lane_id() == __ffs(same) - 1 && *(volatile u32*)&lowest[own] < ~node) atomicMax(&lowest[own], ~node);
}

// numbers[node] is the number of the community whose lowest node that is. A block for each SCAN_TILE nodes; `tiles` and
// `next_tile` are zero at first.
extern "C" __global__ void SCAN louvain_number(
    u32 n, u64* tiles, u32* next_tile, const u32* community, const u32* lowest, u32* numbers, Control* control) {
    scan_array(n, tiles, next_tile, [=](u64 node) -> u64 { return ~lowest[community[node]] == (u32)node; },
        [=](u64 node, u64 before, u64 is_lowest) {
            numbers[node] = (u32)before;
            if (node + 1 == n) control->num_communities = (u32)(before + is_lowest);
        });
}

extern "C" __global__ void __launch_bounds__(256) louvain_relabel(
    u32 n, const u32* lowest, const u32* numbers, u32* community) {
    const u32 node = node_of_thread();
    if (node < n) community[node] = numbers[~lowest[community[node]]];
}

extern "C" __global__ void __launch_bounds__(256) louvain_compose(u32 n, const u32* community, u32* partition) {
    const u32 node = node_of_thread();
    if (node < n) partition[node] = community[partition[node]];
}

extern "C" __global__ void __launch_bounds__(256) louvain_parents(
    u32 n, const u32* partition, const u32* lowest, u32* parents) {
    const u32 node = node_of_thread();
    if (node < n) parents[node] = ~lowest[partition[node]];
}

// bounds[community], zero at first: the arcs of its nodes. A community that has many nodes of a block is added to once.
extern "C" __global__ void __launch_bounds__(256) louvain_row_bounds(
    u32 n, const u32* row, const u32* community, u32* bounds) {
    __shared__ u32 keys[2 * NODES_PER_BLOCK], of_block[2 * NODES_PER_BLOCK];
    const CountTable table(keys, of_block, 2 * NODES_PER_BLOCK);
    table.clear(threadIdx.x, BLOCK);
    __syncthreads();
    const u32 begin = blockIdx.x * NODES_PER_BLOCK, end = min(n, begin + NODES_PER_BLOCK);
    for (u32 node = begin + threadIdx.x; node < end; node += BLOCK) table.add(community[node], row[node + 1] - row[node]);
    __syncthreads();
    table.for_each(threadIdx.x, BLOCK, [&](u32 key, u32 arcs) { atomicAdd(&bounds[key], arcs); });
}

// The first slot of a community's table has its number with this bit, which is in no number of a community.
constexpr u32 HEADER = 0x80000000u;

// table_begins[count + 1]. A table has a header, and 1.5 slots for each neighbour that there may be. As louvain_number is
// launched.
extern "C" __global__ void SCAN louvain_tables(
    u32 count, u64* tiles, u32* next_tile, const u32* bounds, u64* table_begins) {
    auto slots = [=](u64 community) -> u64 {
        const u32 most = min(bounds[community], count - 1);
        return 1 + most + most / 2;
    };
    scan_array(count, tiles, next_tile, slots, [=](u64 community, u64 before, u64 of_community) {
        table_begins[community] = before;
        if (community + 1 == count) table_begins[count] = before + of_community;
    });
}

extern "C" __global__ void __launch_bounds__(256) louvain_clear_tables(
    u64 slots, u32* keys, u32* low, u32* high, u32 is_weighted) {
#pragma unroll 2
    for (u64 slot = node_of_thread(); slot < slots; slot += gridDim.x * BLOCK) {
        keys[slot] = NO_KEY;
        low[slot] = 0;
        if (is_weighted != 0) high[slot] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(256) louvain_headers(u32 count, const u64* table_begins, u32* keys) {
    const u32 community = node_of_thread();
    if (community < count) keys[table_begins[community]] = HEADER | community;
}

// The tables of the communities, in global memory.
template <bool WEIGHTED> struct CommunityTables {
    const u64* begins;
    u32 *keys, *low, *high;

    __device__ UnitTable<WEIGHTED> of(u32 community) const {
        const u64 begin = begins[community] + 1;
        return UnitTable<WEIGHTED>(keys + begin, low + begin, high + begin, (u32)(begins[community + 1] - begin));
    }
};

template <bool WEIGHTED>
static __device__ void insert(
    u32 n, const LevelGraph<WEIGHTED>& graph, const u32* community, const CommunityTables<WEIGHTED>& tables,
    Control* control, const volatile u32* cancel) {
    typedef typename LevelGraph<WEIGHTED>::Units Units;
    const CancelSignal signal = {cancel, &control->cancelled};
    balance_load(n, graph.row[n] / n <= THREAD_ARCS, &control->taken, signal,
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid) return work;
            work.first = graph.row[work.item];
            work.arcs = graph.row_len(work.item);
            if (work.arcs > THREAD_ARCS) return work;
            const u32 own = community[work.item];
            const UnitTable<WEIGHTED> table = tables.of(own);
#pragma unroll 1
            for (u32 i = 0; i < work.arcs; i++) {
                const u32 other = community[__ldg(graph.column + work.first + i)];
                if (other != own) table.add(other, graph.units(work.first + i));
            }
            work.arcs = 0;
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            const u32 own = community[work.item];
            const UnitTable<WEIGHTED> table = tables.of(own);
            const u32 from = whole_block ? threadIdx.x : lane_id(), stride = whole_block ? BLOCK : 32;
            for_each_batch(graph.column, work.first, work.arcs, from, stride, signal,
                [&](const u32* indices, const u32* others) {
                    u32 communities[AHEAD];
#pragma unroll
                    for (u32 i = 0; i < AHEAD; i++) communities[i] = others[i] == NO_KEY ? own : community[others[i]];
#pragma unroll
                    for (u32 i = 0; i < AHEAD; i++) {
                        // The lanes whose arcs lead to the same community add together where each counts 1.
                        const bool counts = !WEIGHTED && graph.is_merged == 0;
                        const u32 same = counts ? __match_any_sync(ALL, communities[i]) : 1u << lane_id();
                        if (communities[i] == own || lane_id() != __ffs(same) - 1) continue;
                        const Units units = counts ? (Units)__popc(same) : graph.units(indices[i]);
                        table.add(communities[i], units);
                    }
                });
        });
}

// next_row[count + 1] and the rows of the next level: the keys of all tables, one after the other. `slots` is that of all
// tables. A block for each SCAN_TILE slots, otherwise as louvain_number is launched.
template <bool WEIGHTED>
static __device__ void make_rows(
    u64 slots, u64* tiles, u32* next_tile, const UnitTable<WEIGHTED>& all_tables, u32 count, u32* next_row,
    u32* next_column, typename UnitsOf<WEIGHTED>::Type* next_weights) {
    const u32* keys = all_tables.table.keys;
    scan_array(slots, tiles, next_tile, [=](u64 slot) -> u64 { return keys[slot] < HEADER; },
        [=](u64 slot, u64 before, u64 is_neighbor) {
            const u32 key = keys[slot];
            if (is_neighbor != 0) {
                next_column[before] = key;
                next_weights[before] = all_tables.units_at(slot);
            } else if (key != NO_KEY) {
                next_row[key - HEADER] = (u32)before;
            }
            if (slot + 1 == slots) next_row[count] = (u32)(before + is_neighbor);
        });
}

// The entries that there are for arcs that count and for arcs with weights.
#define ENTRIES(SUFFIX, WEIGHTED)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) louvain_degrees_##SUFFIX(                                          \
        u32 n, const u32* row, const void* weights, double scale, u64* degree, Control* control,                         \
        const volatile u32* cancel) {                                                                                    \
        add_degrees<WEIGHTED>(n, {row, nullptr, weights, scale, 0}, degree, control, cancel);                            \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) louvain_move_##SUFFIX(                                             \
        u32 n, const u32* row, const u32* column, const void* weights, double scale, u32 is_merged, u32* community,      \
        u32* target, u32* is_active, u32* hub_state, const u64* degree, u64* degree_sum, double resolution,              \
        u64 all_units, u32* table_keys, u32* table_low, u32* table_high, const u32* list, Control* control,              \
        const volatile u32* cancel) {                                                                                    \
        const Moving<WEIGHTED> moving = {n, {row, column, weights, scale, is_merged}, community, target, is_active,      \
            hub_state, degree, degree_sum, resolution, all_units, table_keys, table_low, table_high, control,            \
            {cancel, &control->cancelled}};                                                                              \
        move_groups<WEIGHTED>(moving, list);                                                                             \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) louvain_compare_##SUFFIX(                                          \
        u32 n, const u32* row, const u32* column, const void* weights, double scale, u32 is_merged,                      \
        const u32* community, const u32* saved, Control* control, const volatile u32* cancel) {                          \
        compare<WEIGHTED>(n, {row, column, weights, scale, is_merged}, community, saved, control, cancel);               \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) louvain_insert_##SUFFIX(                                           \
        u32 n, const u32* row, const u32* column, const void* weights, double scale, u32 is_merged,                      \
        const u32* community, const u64* table_begins, u32* keys, u32* low, u32* high, Control* control,                 \
        const volatile u32* cancel) {                                                                                    \
        insert<WEIGHTED>(n, {row, column, weights, scale, is_merged}, community, {table_begins, keys, low, high},        \
            control, cancel);                                                                                            \
    }                                                                                                                    \
    extern "C" __global__ void SCAN louvain_rows_##SUFFIX(                                                               \
        u64 slots, u64* tiles, u32* next_tile, u32* keys, u32* low, u32* high, u32 count, u32* next_row,                 \
        u32* next_column, UnitsOf<WEIGHTED>::Type* next_weights) {                                                       \
        make_rows<WEIGHTED>(slots, tiles, next_tile, {keys, low, high, 0}, count, next_row, next_column, next_weights);  \
    }

ENTRIES(counts, false)
ENTRIES(weights, true)
