// The predecessors on shortest paths in an unweighted graph, given the distances from some sources.
//
//   shortest_path_predecessors  the lowest predecessor of each item that is one level before it
//
// Graph: CSR by out-arcs, row offsets u32[n + 1], columns u32[arcs], every column below n. An item is a pair (source, node),
// source * n + node; there are fewer than 2^32 of them. `distance` and `predecessor` are u32[items]. The host zeroes the word
// `taken` of `frontier`, which is 0 after a search.

#include "frontier.cuh"

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
