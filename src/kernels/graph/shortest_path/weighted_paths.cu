// Distances from some sources by the weights of edges, and the predecessors on shortest paths.
//
//   weighted_paths_clear         all distances are infinite
//   weighted_paths_start         the sources are near
//   weighted_paths_search        a cooperative launch: up to `rounds` rounds of at most `max_entries` entries each
//   weighted_paths_clear_levels  all levels and predecessors are unreached
//   weighted_paths_start_levels  the sources are the first level
//   weighted_paths_levels        a cooperative launch, as the search: the fewest arcs of a shortest path to each item
//   weighted_paths_predecessors  the lowest predecessor of each item on such a path
//
// An item is a pair (source, node), source * n + node; there are fewer than 2^32 of them. The items whose distance fell are
// in one of two lists: near, if the distance is at most a threshold, or far. A round follows the arcs of all near items.
// When there are none, the threshold rises by `width` and the far items are split by it. The order of work varies, the
// distances do not: each is the least sum of weights along a path, added from the source on, and rounding keeps the order of
// sums.
//
// Graph: CSR of out-arcs, row offsets u32[n + 1], columns u32[arcs], every column below n; weights f32[arcs], not negative.
// `distance` is f64[items], `mark`, `level` and `predecessor` u32[items], `lists` u32[4 * items]; none need be cleared. The
// host zeroes `progress` before each of the two starts, and its word `taken` is 0 after a search.
//
// Source: Davidson, Baxter, Garland, Owens, "Work-Efficient Parallel GPU Methods for Single-Source Shortest Paths", IPDPS
// 2014; Meyer, Sanders, "Delta-stepping: a parallelizable shortest path algorithm", J. Algorithms 49 (2003).

#include "load_balance.cuh"

constexpr u64 INFINITE = 0x7ff0000000000000ull; // the bits of a distance
constexpr u32 UNREACHED = 0xffffffffu;          // as a level or a predecessor
constexpr u32 IN_NEAR = 1, IN_FAR = 2;          // bits of an item's mark: the lists that it is in
constexpr u32 THREAD_ARCS = 16;                 // arcs that one thread follows

// The progress of a search; src/kernels/graph/shortest_path/weighted_cuda.rs has the same layout.
struct Progress {
    u64 near, far;           // entries of the lists
    u64 next_near, next_far; // entries of those that a round makes
    double threshold;        // items up to this distance are near
    double settled;          // the threshold before
    double width;            // by which it rises
    u64 least_far;           // the bits of a lower bound of the distances of the far items
    u32 near_list, far_list; // which of its two lists is in use
    u32 level;               // of the items being visited
    u32 taken;               // chunks that blocks took beyond their first
    u32 blocks_done, barrier_generation;
    u32 cancelled;           // 1: the request is cancelled, and nothing here has a meaning any more
    u32 stopped;             // 1: it was cancelled before the last barrier, so that all blocks end at the same round
};

struct WeightedSearch {
    u32 n, num_sources;
    const u32 *out_row, *out_column;
    const float* weights;
    u64* distance; // as bits: those of numbers that are not negative are ordered as the numbers are
    u32 *mark, *level, *lists;
    Progress* progress;
    const volatile u32* cancel;

    __device__ u64 items() const { return (u64)n * num_sources; }
    __device__ u32* near_list(u32 which) const { return lists + which * items(); }
    __device__ u32* far_list(u32 which) const { return lists + (2 + which) * items(); }

    // Whether there is a round to do, of at most this many entries. All blocks see the same.
    __device__ bool has_round(u64 max_entries) const {
        const u64 entries = progress->near != 0 ? progress->near : progress->far;
        return entries != 0 && entries <= max_entries && progress->stopped == 0;
    }

    // All blocks of a cooperative launch call it.
    __device__ void advance_round() const {
        const bool relaxes = progress->near != 0;
        if (relaxes) {
            relax();
        } else {
            split_far();
        }
        end_round([&] {
            if (!relaxes) {
                progress->far = progress->next_far;
                progress->next_far = 0;
                progress->far_list ^= 1;
            }
            if (progress->near == 0 && progress->far != 0) {
                progress->settled = progress->threshold;
                progress->threshold = fmax(progress->threshold, __longlong_as_double(progress->least_far)) + progress->width;
                progress->least_far = INFINITE;
            }
        });
    }

    // Finds the next level along arcs of shortest paths. All blocks of a cooperative launch call it.
    __device__ void advance_level() const {
        __shared__ u32 buffers[WARPS][APPEND_BUFFER];
        WarpAppendBuffer<u32> out = {buffers[warp_id()], near_list(progress->near_list ^ 1), &progress->next_near, 0};
        const u32* list = near_list(progress->near_list);
        const u32 next = progress->level + 1;
        follow_arcs(progress->near, [&](u64 piece) { return list[piece]; }, [&](u32, u32 item, bool is_shortest) {
            const bool first = is_shortest && level[item] == UNREACHED && atomicCAS(&level[item], UNREACHED, next) == UNREACHED;
            out.push(first, item);
        });
        out.flush();
        end_round([&] { progress->level++; });
    }

    // Visits the arcs of `total` items, of which `item_of` returns each. The whole warp calls `visit` with each lane's own
    // arc: its item, the one that it leads to, and whether a shortest path takes it.
    template <class ItemOf, class Visit>
    __device__ void follow_arcs(u64 total, ItemOf item_of, Visit visit) const {
        auto follow = [&](const WorkItem& work, u32 from, u32 stride) {
            const u32 base = work.item - work.item % n;
            for (u32 k = from; __any_sync(ALL, k < work.arcs); k += stride) {
                u32 item = 0;
                bool is_shortest = false;
                if (k < work.arcs) {
                    const u32 arc = work.first + k;
                    item = base + out_column[arc];
                    is_shortest = through(work.item, arc) == distance[item];
                }
                visit(work.item, item, is_shortest);
            }
        };
        balance(total, item_of, follow);
    }

private:
    // The distance of the item that an arc leads to on the path that takes the arc, as bits.
    __device__ u64 through(u32 item, u32 arc) const {
        const double here = __longlong_as_double(*(const volatile u64*)&distance[item]);
        return __double_as_longlong(here + (double)weights[arc]);
    }

    // Calls `follow` with the arcs of `total` items: each lane of a warp has its own.
    template <class ItemOf, class Follow> __device__ void balance(u64 total, ItemOf item_of, Follow follow) const {
        balance_load(total, out_row[n] / n <= THREAD_ARCS, &progress->taken, CancelSignal{cancel, &progress->cancelled},
            [&](bool valid, u64 piece) {
                WorkItem work = {0, 0, 0, 0};
                if (valid) {
                    const u32 item = item_of(piece);
                    if (item != UNREACHED) {
                        const u32 node = item % n, first = out_row[node];
                        work = WorkItem{item, 0, first, out_row[node + 1] - first};
                    }
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
    }

    // Makes the list that the round has filled the near one; `also` is then called by one thread.
    template <class Also> __device__ void end_round(Also also) const {
        grid_barrier(&progress->blocks_done, &progress->barrier_generation, [&] {
            progress->near = progress->next_near;
            progress->next_near = 0;
            progress->near_list ^= 1;
            progress->taken = 0;
            progress->stopped = *(volatile u32*)&progress->cancelled;
            also();
        });
    }

    __device__ void lower_least_far(u64 least) const {
#pragma unroll
        for (u32 delta = 16; delta > 0; delta /= 2) least = min(least, __shfl_down_sync(ALL, least, delta));
        if (lane_id() == 0 && least != INFINITE) atomicMin(&progress->least_far, least);
    }

    // Follows the arcs of the near items.
    __device__ void relax() const {
        __shared__ u32 buffers[2][WARPS][APPEND_BUFFER];
        WarpAppendBuffer<u32> near = {buffers[0][warp_id()], near_list(progress->near_list ^ 1), &progress->next_near, 0};
        WarpAppendBuffer<u32> far = {buffers[1][warp_id()], far_list(progress->far_list), &progress->far, 0};
        const u32* list = near_list(progress->near_list);
        const u64 threshold = __double_as_longlong(progress->threshold);
        u64 least = INFINITE;
        auto take = [&](u64 piece) {
            const u32 item = list[piece];
            // Before its distance is read: if that falls from now on, the item is listed again.
            atomicAnd(&mark[item], ~IN_NEAR);
            __threadfence();
            return item;
        };
        auto follow = [&](const WorkItem& work, u32 from, u32 stride) {
            const u32 base = work.item - work.item % n;
            for (u32 k = from; __any_sync(ALL, k < work.arcs); k += stride) {
                u32 item = 0;
                bool to_near = false, to_far = false;
                if (k < work.arcs) {
                    const u32 arc = work.first + k;
                    item = base + out_column[arc];
                    const u64 reached = through(work.item, arc);
                    if (reached < *(const volatile u64*)&distance[item] && atomicMin(&distance[item], reached) > reached) {
                        __threadfence();
                        const u32 where = reached <= threshold ? IN_NEAR : IN_FAR;
                        const bool is_new = (atomicOr(&mark[item], where) & where) == 0;
                        to_near = is_new && where == IN_NEAR;
                        to_far = is_new && where == IN_FAR;
                        if (where == IN_FAR) least = min(least, reached);
                    }
                }
                near.push(to_near, item);
                far.push(to_far, item);
            }
        };
        balance(progress->near, take, follow);
        near.flush();
        far.flush();
        lower_least_far(least);
    }

    // Moves the far items up to the new threshold to the near ones, and drops those that have been near since.
    __device__ void split_far() const {
        __shared__ u32 buffers[2][WARPS][APPEND_BUFFER];
        WarpAppendBuffer<u32> near = {buffers[0][warp_id()], near_list(progress->near_list ^ 1), &progress->next_near, 0};
        WarpAppendBuffer<u32> far = {buffers[1][warp_id()], far_list(progress->far_list ^ 1), &progress->next_far, 0};
        const u32* list = far_list(progress->far_list);
        const u64 threshold = __double_as_longlong(progress->threshold);
        const u64 settled = __double_as_longlong(progress->settled);
        u64 least = INFINITE;
        const u64 stride = (u64)gridDim.x * BLOCK;
        for (u64 first = (u64)blockIdx.x * BLOCK; first < progress->far; first += stride) {
            const u64 entry = first + threadIdx.x;
            const bool valid = entry < progress->far;
            const u32 item = valid ? list[entry] : 0;
            const u64 reached = valid ? distance[item] : 0;
            const bool to_near = valid && reached > settled && reached <= threshold;
            const bool to_far = valid && reached > threshold;
            if (valid && !to_far) mark[item] = to_near ? IN_NEAR : 0;
            if (to_far) least = min(least, reached);
            near.push(to_near, item);
            far.push(to_far, item);
        }
        near.flush();
        far.flush();
        lower_least_far(least);
    }
};

// One thread an item.
extern "C" __global__ void __launch_bounds__(256) weighted_paths_clear(u32 items, u64* distance, u32* mark) {
    const u32 item = blockIdx.x * BLOCK + threadIdx.x;
    if (item >= items) return;
    distance[item] = INFINITE;
    mark[item] = 0;
}

// One block.
extern "C" __global__ void __launch_bounds__(256) weighted_paths_start(
    u32 n, u32 num_sources, const u32* sources, double width, u64* distance, u32* mark, u32* lists, Progress* progress) {
    for (u32 source = threadIdx.x; source < num_sources; source += BLOCK) {
        const u32 item = source * n + sources[source];
        distance[item] = 0;
        mark[item] = IN_NEAR;
        lists[source] = item;
    }
    if (threadIdx.x == 0) {
        progress->near = num_sources;
        progress->threshold = progress->width = width;
        progress->least_far = INFINITE;
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) weighted_paths_search(
    u32 n, u32 num_sources, const u32* out_row, const u32* out_column, const float* weights, u64* distance, u32* mark,
    u32* lists, Progress* progress, const volatile u32* cancel, u32 rounds, u32 max_entries) {
    const WeightedSearch search = {
        n, num_sources, out_row, out_column, weights, distance, mark, nullptr, lists, progress, cancel};
    for (u32 round = 0; round < rounds && search.has_round(max_entries); round++) search.advance_round();
}

// One thread an item.
extern "C" __global__ void __launch_bounds__(256) weighted_paths_clear_levels(u32 items, u32* level, u32* predecessor) {
    const u32 item = blockIdx.x * BLOCK + threadIdx.x;
    if (item < items) level[item] = predecessor[item] = UNREACHED;
}

// One block.
extern "C" __global__ void __launch_bounds__(256) weighted_paths_start_levels(
    u32 n, u32 num_sources, const u32* sources, u32* level, u32* lists, Progress* progress) {
    for (u32 source = threadIdx.x; source < num_sources; source += BLOCK) {
        const u32 item = source * n + sources[source];
        level[item] = 0;
        lists[source] = item;
    }
    if (threadIdx.x == 0) progress->near = num_sources;
}

extern "C" __global__ void __launch_bounds__(256, 4) weighted_paths_levels(
    u32 n, u32 num_sources, const u32* out_row, const u32* out_column, const float* weights, u64* distance, u32* level,
    u32* lists, Progress* progress, const volatile u32* cancel, u32 rounds, u32 max_entries) {
    const WeightedSearch search = {
        n, num_sources, out_row, out_column, weights, distance, nullptr, level, lists, progress, cancel};
    for (u32 round = 0; round < rounds && search.has_round(max_entries); round++) search.advance_level();
}

// Any grid.
extern "C" __global__ void __launch_bounds__(256) weighted_paths_predecessors(
    u32 n, u32 num_sources, const u32* out_row, const u32* out_column, const float* weights, u64* distance,
    const u32* level, u32* predecessor, Progress* progress, const volatile u32* cancel) {
    if (progress->cancelled != 0) return;
    const WeightedSearch search = {
        n, num_sources, out_row, out_column, weights, distance, nullptr, nullptr, nullptr, progress, cancel};
    search.follow_arcs(search.items(),
        [&](u64 item) { return level[item] == UNREACHED ? UNREACHED : (u32)item; },
        [&](u32 item, u32 next, bool is_shortest) {
            const u32 node = item % n;
            // Most arcs come too late to set it: a read is cheaper than an atomic.
            if (is_shortest && level[next] == level[item] + 1 && *(volatile u32*)&predecessor[next] > node) {
                atomicMin(&predecessor[next], node);
            }
        });
}
