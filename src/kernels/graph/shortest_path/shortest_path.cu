// Distances from some sources in an unweighted graph, and the predecessors on shortest paths.
//
//   shortest_path_clear         all distances, or predecessors, are unreached
//   shortest_path_start         the sources are the first level
//   shortest_path_search        a cooperative launch: up to `levels` levels of at most `max_entries` entries each
//   shortest_path_predecessors  the lowest predecessor of each item that is one level before it
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], every column below n; by out-arcs and by in-arcs. Where the
// latter are not at hand, pull_factor is 0 and they are not read. An item is a pair (source, node), source * n + node;
// there are fewer than 2^32 of them. `distance` and `predecessor` are u32[items], `list` is u32[items]; they need not be
// cleared. The host zeroes `frontier` and, before shortest_path_predecessors, its word `taken`, which is 0 after a search.

#include "frontier.cuh"

// One thread an item.
extern "C" __global__ void __launch_bounds__(256) shortest_path_clear(u32 items, u32* distance) {
    const u32 item = blockIdx.x * BLOCK + threadIdx.x;
    if (item < items) distance[item] = UNREACHED;
}

// One block.
extern "C" __global__ void __launch_bounds__(256) shortest_path_start(
    u32 n, u32 num_sources, const u32* sources, const u32* out_row, u32* distance, u32* list, Frontier* frontier) {
    BreadthFirstSearch{n, num_sources, 0, out_row, nullptr, nullptr, nullptr, distance, list, frontier, nullptr}
        .start(sources);
}

extern "C" __global__ void __launch_bounds__(256, 4) shortest_path_search(
    u32 n, u32 num_sources, u32 pull_factor, const u32* out_row, const u32* out_column, const u32* in_row,
    const u32* in_column, u32* distance, u32* list, Frontier* frontier, const volatile u32* cancel, u32 levels,
    u32 max_entries) {
    const BreadthFirstSearch search = {n, num_sources, pull_factor, out_row, out_column, in_row, in_column,
        distance, list, frontier, cancel};
    for (u32 level = 0; level < levels && search.has_level(max_entries); level++) search.advance_level();
}

// Any grid. The predecessors are unreached at first.
extern "C" __global__ void __launch_bounds__(256) shortest_path_predecessors(
    u32 n, u32 num_sources, const u32* out_row, const u32* out_column, const u32* distance, u32* predecessor,
    Frontier* frontier, const volatile u32* cancel) {
    if (frontier->cancelled != 0) return;
    auto follow = [&](const WorkItem& work, u32 from, u32 stride) {
        const u32 node = work.item % n, base = work.item - node, next = work.wanted + 1;
        for (u32 k = from; k < work.arcs; k += stride) {
            const u32 item = base + out_column[work.first + k];
            // Most arcs come too late to set it: a read is cheaper than an atomic.
            if (distance[item] == next && *(volatile u32*)&predecessor[item] > node) atomicMin(&predecessor[item], node);
        }
    };
    balance_load((u64)n * num_sources, out_row[n] / n <= FRONTIER_THREAD_ARCS, &frontier->taken,
        CancelSignal{cancel, &frontier->cancelled},
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid) return work;
            work.wanted = distance[work.item];
            if (work.wanted == UNREACHED) return work;
            const u32 node = work.item % n;
            work.first = out_row[node];
            work.arcs = out_row[node + 1] - work.first;
            if (work.arcs <= FRONTIER_THREAD_ARCS) {
                follow(work, 0, 1);
                work.arcs = 0;
            }
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            follow(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
        });
}
