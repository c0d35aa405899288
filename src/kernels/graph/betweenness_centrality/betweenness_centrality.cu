// Betweenness centrality of an unweighted graph by Brandes' algorithm, many sources in one pass.
//
// Sources come in groups of 32, and a group shares every adjacency read: one bit a source in a
// 32-bit word says where its search is, one lane a source holds its path count. An *item* is a
// pair (group, node), numbered group * n + node. All groups of a batch go level by level in step,
// so that a batch pays for its launches once however many sources it has. A group may hold sources
// of several requests: each source has dependencies of its own, which are added up by request.
//
// Graph: CSR, row offsets u32[n + 1] (so fewer than 2^32 arcs), columns u32[arcs], every column
// below n. An undirected edge is two arcs. A directed graph comes twice, by out-arcs and by
// in-arcs (its transpose); an undirected one passes the same arrays for both. Self-loops lie on no
// shortest path and are harmless; parallel arcs count as that many paths, so merge them first
// where they should not.
//
// How it works
//   Forward, level d to d + 1:
//     discover  for each entry (item, sources) of the frontier, sets the bits of the sources that
//               its out-neighbours have not been reached by, and lists the items so found;
//     count     for each listed item sums the path counts of its in-neighbours at level d (pull
//               form: no atomics on doubles). Where the frontier holds a large part of the arcs,
//               discover does nothing and count itself visits all items not yet reached by all
//               of their sources. The device decides which; the host launches the same pair.
//   Backward, level d: with sigma the path count and delta the dependency, Brandes' recurrence
//     delta(v) = sum over successors w of sigma(v) / sigma(w) * (1 + delta(w)) is, for
//     g(v) = (1 + delta(v)) / sigma(v), just delta(v) = sigma(v) * G, g(v) = 1 / sigma(v) + G with
//     G = sum of g(w): a plain sum again, pulled from out-neighbours, and g takes sigma's place.
//   "Is this neighbour at level d for this source" is decided by a stamp an item: (level, bits)
//   in 64 bits, one array for even and one for odd levels. A stamp of another level is stale and
//   means no bits, so nothing is cleared between levels.
//   Work is distributed by size (load_balance.cuh): an item of few (arc, source) pairs to one thread, one of up
//   to 1024 arcs to a warp, a larger one to the whole block.
//
// A request's scores are the same bit for bit whatever batches its sources are in and whichever
// other sources share their groups:
//   - sigma and g of (item, source) are sums over neighbours whose order depends on the node's
//     degree alone: up to WARP_ARCS arcs in the order of the adjacency, by one thread or by a warp
//     (which adds zeros for the lanes that a neighbour does not concern); above, in the fixed
//     order of a block. What the other lanes decide (by thread or warp, dense or sparse, how deep
//     the batch goes) changes which threads add, and adds nothing but zeros.
//   - dependencies of (item, source) are one product, written once.
//   - scores add them up source by source, in the order of the request.
// The order within a level's list varies and does not matter.
//
// Path counts are f64, exact to 2^53. Above 2^1000 `path_overflow` is set in Control and the
// scores are meaningless (a 1000 x 1000 grid gets there); the host must report an error.
//
// Buffers of a batch of s sources, groups = ceil(s / 32), items = n * groups < 2^32
//   sources     u32[s]           each below n; a node may come several times
//   cells       f64[items * 32]  sigma, then g, of (item, source); need not be cleared
//   stamps      u64[items * 2]   zero before each batch
//   seen        u32[items]       zero before each batch
//   dependency  f64[items * 32]  of (item, source), where seen; need not be cleared
//   list        u32x2[n * s]     (item, bits), level after level; need not be cleared; 8-byte aligned
//   level_begin u64[n + 2]       where each level begins in the list; need not be cleared
//   control     Control          72 bytes, zero before each batch
//   cancel      u32              the host's: not zero once the request is cancelled
//   segments    Segment[]        the requests that have sources in the batch, in order
//   scores      f64[rows * n]    a row for each request of a batch; need not be cleared
// In bytes: n * (groups * 532 + s * 8) + 8 * n + 4 * s + rows * 8 * n + 88, and for the graph
// 4 * (n + 1 + arcs), twice if directed. With full groups that is 788 a (group, node).
//
// Host algorithm (n >= 1, s >= 1; parameters by their names in the entries below)
//   1. groups = ceil(batch / 32), the batch as large as the bytes above and items < 2^32 allow: a
//      level's launches cost the same for 32 sources as for 2000. `dense_factor` = 8: count looks
//      at all items once the frontier has over 1/8 of the arcs (0: never).
//      `wide` = min(6 * multiprocessors, ceil(items / 8)) blocks.
//   2. For each batch of sources (the last may be smaller: the same buffers with a smaller
//      `num_sources`; item = group * n + node does not move):
//      a. zero stamps, seen, control;  betweenness_seed<<<1, 256>>>
//      b. repeat: betweenness_discover<<<wide, 256>>>, betweenness_count<<<wide, 256>>>; copy
//         control to the host; stop if control.path_overflow (error) or begin == end (done). Also
//         check whether to cancel. Once the frontier is empty further launches do nothing, so
//         launch several pairs between two copies: 1 for the first 8 levels, then 4. Where those
//         8 have led to a frontier of few entries, one cooperative launch of betweenness_search
//         goes through many levels: a level of few entries takes less time than its launches.
//      c. deepest = control.depth - 1; copy level_begin[0 ..= deepest + 1].
//      d. for d = deepest, ..., 1, with count = level_begin[d + 1] - level_begin[d] entries:
//         blocks = max(min(ceil(count / 8), 16 * multiprocessors), ceil(count / 256)),
//         betweenness_accumulate<<<blocks, 256>>>(..., level_begin[d], level_begin[d + 1], d,
//         d == deepest); many levels of few entries in a row by one cooperative launch of
//         betweenness_accumulate_levels. No copies between.
//      Blocks poll `cancel` now and then and set control.cancelled; what is queued then does nothing,
//      and the contents of the buffers have no meaning.
//      e. betweenness_collect<<<(segments, clamp(ceil(n / 256), 1, 65535)), 256>>>; a row whose
//         request has no sources in later batches is done.
//
// Sources: Brandes, "A Faster Algorithm for Betweenness Centrality", J. Math. Sociol. 25(2), 2001;
// Then et al., "The More the Merrier: Efficient Multi-Source Graph Traversal", PVLDB 8(4), 2014;
// Beamer, Asanovic, Patterson, "Direction-Optimizing Breadth-First Search", SC 2012.

#include "load_balance.cuh"
#include "neighbor_sum.cuh"

constexpr u32 THREAD_PAIRS = 16; // (arc, source) pairs that one thread sums over
constexpr u32 THREAD_ARCS = 8;   // arcs that one thread discovers along
constexpr double MAX_PATHS = 1.0715086071862673e301; // 2^1000: its reciprocal is a normal number

// What the kernels of a batch know of its progress. The host reads it; zero it before each batch.
struct Control {
    u64 tail;           // entries in the list
    u64 begin, end;     // the frontier: entries begin..end of the list
    u64 frontier_arcs;  // in-arcs of the frontier's items
    u64 next_arcs;      // the same of the level being found
    u32 depth;          // of the frontier
    u32 discover_taken; // chunks that blocks took beyond their first
    u32 count_taken;
    u32 blocks_done;    // of betweenness_count; blocks that wait at the barrier of a launch of many levels
    u32 path_overflow;  // 1: a path count passed 2^1000
    u32 cancelled;           // 1: the request is cancelled, and nothing here has a meaning any more
    u32 barrier_generation;           // how often all blocks have passed the barrier
    u32 stopped;       // 1: it was cancelled before the last barrier, so that all blocks end at the same level
};

// Whether an item has, on average, few enough arcs for one thread.
static __device__ bool few_arcs(const u32* row, u32 n) { return row[n] / n <= THREAD_ARCS; }

// The sources that a group has: all 32 but in a batch's last group.
static __device__ u32 sources_of(u32 group, u32 num_sources) {
    const u32 left = num_sources - min(num_sources, group * GROUP);
    return left >= GROUP ? ALL : (1u << left) - 1;
}

// Starts a batch: every source is at level 0 with one path and depends on nothing. One block.
extern "C" __global__ void __launch_bounds__(256) betweenness_seed(
    u32 n, u32 num_sources, const u32* sources, const u32* in_row, double* cells,
    double* dependency, u64* stamps, u32* seen, uint2* list, u64* level_begin, Control* control) {
    if (blockIdx.x != 0) return;
    __shared__ u32 entries;
    if (threadIdx.x == 0) entries = 0;
    __syncthreads();
    for (u32 s = threadIdx.x; s < num_sources; s += blockDim.x) {
        if (sources[s] >= n) continue;
        const u32 item = s / GROUP * n + sources[s];
        if (atomicOr(&seen[item], 1u << s % GROUP) == 0) list[atomicAdd(&entries, 1)].x = item;
        cells[(u64)item * GROUP + s % GROUP] = 1.0;
        dependency[(u64)item * GROUP + s % GROUP] = 0.0;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < entries; i += blockDim.x) {
        const u32 item = list[i].x, node = item % n;
        const u32 bits = __ldcg(&seen[item]);
        list[i].y = bits;
        stamps[item] = bits; // level 0
        atomicAdd(&control->frontier_arcs, (u64)(in_row[node + 1] - in_row[node]));
    }
    if (threadIdx.x == 0) {
        control->tail = control->end = entries;
        level_begin[0] = 0;
        level_begin[1] = entries;
    }
}

// The forward half: from one level to the next.
struct Search {
    u32 n, groups, num_sources, dense_factor;
    const u32 *in_row, *in_column, *out_row, *out_column;
    double* cells;
    u64* stamps;
    u32* seen;
    uint2* list;
    u64* level_begin;
    Control* control;
    const volatile u32* cancel;

    // Whether count should visit all items rather than those that discover lists.
    __device__ bool dense() const {
        return control->frontier_arcs * dense_factor > (u64)in_row[n] * groups;
    }

    __device__ CancelSignal cancel_signal() const { return CancelSignal{cancel, &control->cancelled}; }

    // Lists the items that the next level has. Does nothing where count is to visit all items.
    __device__ void discover() const {
        __shared__ uint2 buffers[WARPS][APPEND_BUFFER];
        const u64 begin = control->begin, total = control->end - begin;
        if (total == 0 || dense()) return;
        const u32 next = control->depth + 1;
        u64* next_stamps = stamps + (next & 1) * (u64)n * groups;
        WarpAppendBuffer<uint2> out = {buffers[warp_id()], list, &control->tail, 0};

        // Marks `bits` at `item`; true for the one thread that is the first to reach it.
        auto reach = [&](u32 item, u32 bits) {
            if (bits == 0) return false;
            u64 old = next_stamps[item];
            for (;;) {
                const u32 have = (u32)(old >> 32) == next ? (u32)old : 0;
                if ((bits & ~have) == 0) return false;
                const u64 was = atomicCAS(&next_stamps[item], old, (u64)next << 32 | have | bits);
                if (was == old) return have == 0;
                old = was;
            }
        };
        // Follows arcs from, from + stride, ... of an item; the whole warp calls it, each lane with its own.
        auto follow = [&](const WorkItem& work, u32 from, u32 stride) {
            const u32 base = work.item - work.item % n;
            for (u32 k = from; __any_sync(ALL, k < work.arcs); k += 4 * stride) {
                u32 item[4], fresh[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const bool has = k + i * stride < work.arcs;
                    item[i] = has ? base + out_column[work.first + k + i * stride] : 0;
                    fresh[i] = has ? work.wanted & ~seen[item[i]] : 0;
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) out.push(reach(item[i], fresh[i]), make_uint2(item[i], 0));
            }
        };

        balance_load(total, few_arcs(out_row, n), &control->discover_taken, cancel_signal(),
            [&](bool valid, u64 piece) {
                WorkItem work = {0, 0, 0, 0};
                if (valid) {
                    const uint2 entry = list[begin + piece];
                    const u32 node = entry.x % n, first = out_row[node];
                    work = WorkItem{entry.x, entry.y, first, out_row[node + 1] - first};
                }
                WorkItem mine = work;
                if (work.arcs > THREAD_ARCS) mine.arcs = 0;
                else work.arcs = 0;
                follow(mine, 0, 1);
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                follow(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
            });
        out.flush();
    }

    // Counts the paths to the next level's items.
    __device__ void count() const {
        __shared__ uint2 buffers[WARPS][APPEND_BUFFER];
        __shared__ u64 block_arcs;
        const u64 end = control->end;
        if (control->begin == end) return;
        const u32 depth = control->depth;
        const bool all_items = dense();
        const u64 items = (u64)n * groups;
        // The tail stands still here unless this kernel itself appends, and then it is not read.
        const u64 total = all_items ? items : control->tail - end;
        const u64* stamps_here = stamps + (depth & 1) * items;
        u64* stamps_next = stamps + (~depth & 1) * items;
        WarpAppendBuffer<uint2> out = {buffers[warp_id()], list, &control->tail, 0};
        u64 arcs_found = 0;
        if (threadIdx.x == 0) block_arcs = 0;

        auto neighbor_sum = [&](u32 base) {
            return NeighborSum{in_column, stamps_here + base, cells + (u64)base * GROUP, depth};
        };
        auto store = [&](u32 item, u32 bit, double sum) {
            cells[(u64)item * GROUP + bit] = sum;
            if (!(sum <= MAX_PATHS)) control->path_overflow = 1;
        };
        // One thread an item: notes that sources `found` of it are at the next level.
        auto record_found = [&](u32 item, u32 found, u32 arcs) {
            seen[item] |= found;
            if (all_items) stamps_next[item] = (u64)(depth + 1) << 32 | found;
            arcs_found += arcs;
        };

        balance_load(total, few_arcs(in_row, n), &control->count_taken, cancel_signal(),
            [&](bool valid, u64 piece) {
                u32 item = 0, wanted = 0, first = 0, arcs = 0, found = 0;
                if (valid && all_items) {
                    item = (u32)piece;
                    wanted = sources_of(item / n, num_sources) & ~seen[item];
                } else if (valid) {
                    item = list[end + piece].x;
                    wanted = (u32)stamps_next[item];
                    list[end + piece].y = wanted;
                }
                if (wanted != 0) {
                    first = in_row[item % n];
                    arcs = in_row[item % n + 1] - first;
                }
                if ((u64)arcs * __popc(wanted) <= THREAD_PAIRS) {
                    for (u32 left = wanted; left != 0; left &= left - 1) {
                        const u32 bit = __ffs(left) - 1;
                        bool any;
                        const double sum = neighbor_sum(item - item % n).by_thread(first, arcs, bit, any);
                        if (any) {
                            store(item, bit, sum);
                            found |= 1u << bit;
                        }
                    }
                    if (found != 0) record_found(item, found, arcs);
                    arcs = 0;
                }
                __syncwarp();
                if (all_items) out.push(found != 0, make_uint2(item, found));
                return WorkItem{item, wanted, first, arcs};
            },
            [&](const WorkItem& work, bool whole_block) {
                u32 found;
                const double sum = neighbor_sum(work.item - work.item % n).by_warp_or_block(work, whole_block, found);
                if (found == 0 || (whole_block && warp_id() != 0)) return;
                if (found >> lane_id() & 1) store(work.item, lane_id(), sum);
                if (lane_id() == 0) record_found(work.item, found, work.arcs);
                if (all_items) out.push(lane_id() == 0, make_uint2(work.item, found));
            });
        out.flush();
        __syncthreads();
        if (arcs_found != 0) atomicAdd(&block_arcs, arcs_found);
        __syncthreads();
        if (threadIdx.x == 0 && block_arcs != 0) atomicAdd(&control->next_arcs, block_arcs);
    }

    // Makes the level that was counted the frontier. One thread, once all blocks have counted.
    __device__ void advance() const {
        const u64 end = control->end, tail = __ldcg(&control->tail);
        const u32 depth = control->depth;
        control->frontier_arcs = __ldcg(&control->next_arcs);
        control->begin = end;
        control->end = tail;
        control->depth = depth + 1;
        control->next_arcs = 0;
        control->discover_taken = control->count_taken = 0;
        level_begin[depth + 2] = tail;
    }
};

extern "C" __global__ void __launch_bounds__(256) betweenness_discover(
    u32 n, u32 groups, u32 dense_factor, const u32* in_row, const u32* out_row, const u32* out_column,
    u64* stamps, u32* seen, uint2* list, Control* control, const volatile u32* cancel) {
    if (control->cancelled != 0) return;
    Search{n, groups, 0, dense_factor, in_row, nullptr, out_row, out_column,
        nullptr, stamps, seen, list, nullptr, control, cancel}.discover();
}

// Counts the paths to the next level's items, and makes that level the frontier.
extern "C" __global__ void __launch_bounds__(256, 5) betweenness_count(
    u32 n, u32 groups, u32 num_sources, u32 dense_factor, const u32* in_row, const u32* in_column,
    double* cells, u64* stamps, u32* seen, uint2* list, u64* level_begin, Control* control,
    const volatile u32* cancel) {
    if (control->cancelled != 0 || control->begin == control->end) return;
    const Search search = {n, groups, num_sources, dense_factor, in_row, in_column, nullptr, nullptr,
        cells, stamps, seen, list, level_begin, control, cancel};
    search.count();
    // The last block to arrive sees all that the others wrote, and advances by a level.
    if (threadIdx.x == 0) {
        __threadfence();
        if (atomicAdd(&control->blocks_done, 1) == gridDim.x - 1) {
            __threadfence();
            control->blocks_done = 0;
            search.advance();
        }
    }
}

// Both of these for up to `levels` levels in one cooperative launch, while there are no more than
// `narrow` entries in the frontier: the launches of a narrow level take longer than its work.
extern "C" __global__ void __launch_bounds__(256, 4) betweenness_search(
    u32 n, u32 groups, u32 num_sources, u32 dense_factor,
    const u32* in_row, const u32* in_column, const u32* out_row, const u32* out_column,
    double* cells, u64* stamps, u32* seen, uint2* list, u64* level_begin, Control* control,
    const volatile u32* cancel, u32 levels, u32 narrow) {
    const Search search = {n, groups, num_sources, dense_factor, in_row, in_column, out_row, out_column,
        cells, stamps, seen, list, level_begin, control, cancel};
    for (u32 level = 0; level < levels; level++) {
        // All blocks see the same: these change only at the barrier.
        const u64 entries = control->end - control->begin;
        if (entries == 0 || entries > narrow || control->stopped != 0) return;
        search.discover();
        grid_barrier(&control->blocks_done, &control->barrier_generation, [] {});
        search.count();
        grid_barrier(&control->blocks_done, &control->barrier_generation, [&] {
            search.advance();
            if (level % LEVELS_PER_POLL == LEVELS_PER_POLL - 1) search.cancel_signal().poll_cancel();
            control->stopped = *(volatile u32*)&control->cancelled;
        });
    }
}

// The backward half: from one level to the one above.
struct Backward {
    u32 n, groups;
    const u32 *out_row, *out_column;
    double* cells;
    u64* stamps;
    double* dependency;
    const uint2* list;
    Control* control;
    const volatile u32* cancel;

    // Dependencies of the items of one level, after those of the level below it.
    __device__ void accumulate(u64 begin, u64 end, u32 depth, bool is_deepest) const {
        const u64 items = (u64)n * groups;
        u64* stamps_here = stamps + (depth & 1) * items;
        const u64* stamps_below = stamps + (~depth & 1) * items;

        auto neighbor_sum = [&](u32 base) {
            return NeighborSum{out_column, stamps_below + base, cells + (u64)base * GROUP, depth + 1};
        };
        // Turns sigma into g where the sum of the successors' g is known, and writes delta.
        auto finish_source = [&](u32 item, u32 bit, double sum) {
            const u64 cell = (u64)item * GROUP + bit;
            const double sigma = cells[cell];
            cells[cell] = 1.0 / sigma + sum;
            dependency[cell] = sigma * sum;
        };

        balance_load(end - begin, few_arcs(out_row, n), nullptr, CancelSignal{},
            [&](bool valid, u64 piece) {
                WorkItem work = {0, 0, 0, 0};
                if (!valid) return work;
                const uint2 entry = list[begin + piece];
                const u32 item = entry.x, bits = entry.y, node = item % n, first = out_row[node];
                const u32 arcs = is_deepest ? 0 : out_row[node + 1] - first;
                stamps_here[item] = (u64)depth << 32 | bits;
                if ((u64)arcs * __popc(bits) > THREAD_PAIRS) return WorkItem{item, bits, first, arcs};
                for (u32 left = bits; left != 0; left &= left - 1) {
                    const u32 bit = __ffs(left) - 1;
                    bool any;
                    finish_source(item, bit, neighbor_sum(item - node).by_thread(first, arcs, bit, any));
                }
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                u32 found;
                const double sum = neighbor_sum(work.item - work.item % n).by_warp_or_block(work, whole_block, found);
                if (whole_block && warp_id() != 0) return;
                if (work.wanted >> lane_id() & 1) finish_source(work.item, lane_id(), sum);
            });
    }
};

// Dependencies of one level, in as many blocks as it has chunks: some poll the cancel flag.
extern "C" __global__ void __launch_bounds__(256, 6) betweenness_accumulate(
    u32 n, u32 groups, const u32* out_row, const u32* out_column,
    double* cells, u64* stamps, double* dependency, const uint2* list, Control* control,
    const volatile u32* cancel, u64 begin, u64 end, u32 depth, u32 is_deepest) {
    if (is_cancelled(CancelSignal{cancel, &control->cancelled})) return;
    Backward{n, groups, out_row, out_column, cells, stamps, dependency, list, control, cancel}
        .accumulate(begin, end, depth, is_deepest != 0);
}

// The same for levels `from`, from - 1, ..., `to` in one cooperative launch, which are all narrow.
extern "C" __global__ void __launch_bounds__(256, 5) betweenness_accumulate_levels(
    u32 n, u32 groups, const u32* out_row, const u32* out_column,
    double* cells, u64* stamps, double* dependency, const uint2* list, const u64* level_begin,
    Control* control, const volatile u32* cancel, u32 from, u32 to, u32 deepest) {
    const Backward backward = {n, groups, out_row, out_column, cells, stamps, dependency, list, control, cancel};
    for (u32 depth = from; depth >= to; depth--) {
        if (control->cancelled != 0) return;
        backward.accumulate(level_begin[depth], level_begin[depth + 1], depth, depth == deepest);
        grid_barrier(&control->blocks_done, &control->barrier_generation, [&] {
            if (depth % LEVELS_PER_POLL == 0) CancelSignal{cancel, &control->cancelled}.poll_cancel();
        });
    }
}

// The sources of a batch that are of one request.
struct Segment {
    u32 row;        // of scores
    u32 begin, end; // sources begin..end of the batch
    u32 is_first;   // 1: the request has no sources in earlier batches
};

// scores[row][v] += dependencies of v, source by source. blockIdx.x is the segment.
extern "C" __global__ void __launch_bounds__(256) betweenness_collect(
    u32 n, const Segment* segments, const u32* seen, const double* dependency, double* scores) {
    const Segment segment = segments[blockIdx.x];
    double* row = scores + (u64)segment.row * n;
    for (u64 v = (u64)blockIdx.y * blockDim.x + threadIdx.x; v < n; v += (u64)gridDim.y * blockDim.x) {
        double sum = segment.is_first != 0 ? 0.0 : row[v];
        for (u32 begin = segment.begin; begin < segment.end;) {
            const u32 group = begin / GROUP, end = min(segment.end, (group + 1) * GROUP);
            const u64 item = (u64)group * n + v;
            const u32 reached = seen[item];
#pragma unroll 4
            for (u32 s = begin; s < end; s++) {
                if (reached >> s % GROUP & 1) sum += dependency[item * GROUP + s % GROUP];
            }
            begin = end;
        }
        row[v] = sum;
    }
}
