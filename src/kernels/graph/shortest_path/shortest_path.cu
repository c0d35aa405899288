// What follows from the distances from some sources: predecessors in an unweighted graph, and what leads to some nodes alone.
//
//   shortest_path_predecessors  the lowest predecessor of each item that is one level before it
//   shortest_path_gather_32, shortest_path_gather_64  the values of the targets of each source, of those of all items
//   shortest_path_walk  the paths to the targets of each source, along the predecessors of all items
//
// Graph: CSR by out-arcs, row offsets u32[n + 1], columns u32[arcs], every column below n. An item is a pair (source, node),
// source * n + node; there are fewer than 2^32 of them. `distance` and `predecessor` are u32[items]. The host zeroes the word
// `taken` of `frontier`, which is 0 after a search. A pair is a source and a target, source * num_targets + target; there are
// fewer than 2^32 of them. `targets` is u32[num_targets], each below n.

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

template <class T>
static __device__ void gather(u32 n, u32 num_targets, u32 pairs, const u32* targets, const T* values, T* gathered) {
    const u32 pair = blockIdx.x * BLOCK + threadIdx.x;
    if (pair < pairs) gathered[pair] = values[(u64)(pair / num_targets) * n + targets[pair % num_targets]];
}

// One thread a pair.
extern "C" __global__ void __launch_bounds__(256) shortest_path_gather_32(
    u32 n, u32 num_targets, u32 pairs, const u32* targets, const u32* values, u32* gathered) {
    gather(n, num_targets, pairs, targets, values, gathered);
}

extern "C" __global__ void __launch_bounds__(256) shortest_path_gather_64(
    u32 n, u32 num_targets, u32 pairs, const u32* targets, const u64* values, u64* gathered) {
    gather(n, num_targets, pairs, targets, values, gathered);
}

// One thread a pair, which writes the path backwards. `begins` is u32[pairs + 1]: a path has as many nodes as its shortest
// paths have, or none. The predecessor of the first node, and of any after a search that was cancelled, may be no node.
extern "C" __global__ void __launch_bounds__(256) shortest_path_walk(
    u32 n, u32 num_targets, u32 pairs, const u32* targets, const u32* predecessor, const u32* begins, u32* path_nodes,
    const volatile u32* cancel) {
    const u32 pair = blockIdx.x * BLOCK + threadIdx.x;
    if (pair >= pairs) return;
    const u32* const of_source = predecessor + (u64)(pair / num_targets) * n;
    const u32 begin = begins[pair];
    u32 node = targets[pair % num_targets];
    for (u32 at = begins[pair + 1]; at > begin && node < n; at--) {
        path_nodes[at - 1] = node;
        node = of_source[node];
        if (at % 1024 == 0 && *cancel != 0) return;
    }
}
