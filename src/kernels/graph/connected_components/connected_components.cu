// Weakly connected components.
//
// Each node has a parent that is not higher than itself, which makes a forest: every tree is a part of a component, and
// its root is its lowest node. An arc joins two trees by setting the parent of the higher root to the lower one, with a
// compare-and-swap that fails if it is no root any more. Parents only ever become lower, so the result is the same
// whatever the order of the threads: the lowest node of each component.
//
//   components_start          parent[v] = the lower of v and its first neighbour, which is its lowest
//   components_compress       parent[v] = the root of v
//   components_join_sampled   joins the first two arcs of each node
//   components_compress
//   components_guess_largest  the root that most of 1024 sampled nodes have
//   components_join_rest      joins the other arcs of each node, but not those of a node that is in that root's tree
//                             where `skips_largest`: the graph is undirected, and the other end joins the edge
//   components_compress
//   components_number         number[v] = how many roots are lower, of each root v; their number
//   components_label          the number of each node's component in place of the parent, and the sizes
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], ascending in each row, every column below n; directed arcs are
// followed both ways. n is at least 1. The host zeroes `control`, `tiles` (u64[ceil(n / 4096)]) and `sizes`. One thread
// a node, but 256 in components_guess_largest, any grid in components_join_rest, and a block for each tile in
// components_number. Once the request is cancelled nothing has a meaning any more.
//
// Sources: Sutton, Ben-Nun, Barak, "Optimizing Parallel Graph Connectivity Computation via Subgraph Sampling", IPDPS
// 2018; Jaiganesh, Burtscher, "A High-Performance Connected Components Implementation for GPUs", HPDC 2018.

#include "load_balance.cuh"
#include "scan.cuh"

constexpr u32 SAMPLED_ARCS = 2;   // arcs of each node that are joined before the largest component is guessed
constexpr u32 SAMPLED_NODES = 1024;
constexpr u32 THREAD_ARCS = 16;   // arcs that one thread joins

struct Control {
    u32 cancelled; // 1: the request is cancelled
    u32 taken;     // chunks that blocks took beyond their first
    u32 next_tile; // tiles that blocks took
    u32 largest;   // a root of many nodes
    u32 num_components;
};

static __device__ u32 node_of_thread() { return blockIdx.x * BLOCK + threadIdx.x; }

// The root of a node. Sets the parents on the path to their grandparents. Other threads may do the same, and join
// roots; what is read is an ancestor at some time, and the root returned was one.
static __device__ u32 find_root(volatile u32* parent, u32 node) {
    u32 above = parent[node];
    if (above == node) return node;
    for (u32 next; (next = parent[above]) != above;) {
        parent[node] = next;
        node = above;
        above = next;
    }
    return above;
}

static __device__ void join(u32* parent, u32 a, u32 b) {
    a = find_root(parent, a);
    b = find_root(parent, b);
    while (a != b) {
        const u32 low = min(a, b), high = max(a, b);
        const u32 was = atomicCAS(&parent[high], high, low);
        if (was == high) return;
        a = low;
        b = was; // a lower ancestor of the node that was a root before
    }
}

extern "C" __global__ void __launch_bounds__(256) components_start(
    u32 n, const u32* row, const u32* column, u32* parent) {
    const u32 node = node_of_thread();
    if (node >= n) return;
    const u32 first = row[node];
    parent[node] = first < row[node + 1] ? min(node, column[first]) : node;
}

extern "C" __global__ void __launch_bounds__(256) components_join_sampled(
    u32 n, const u32* row, const u32* column, u32* parent, Control* control, const volatile u32* cancel) {
    if (is_cancelled(CancelSignal{cancel, &control->cancelled})) return;
    const u32 node = node_of_thread();
    if (node >= n) return;
    const u32 first = row[node], end = min(row[node + 1], first + SAMPLED_ARCS);
    for (u32 arc = first; arc < end; arc++) {
        const u32 other = column[arc];
        // The first arc to a lower node is the parent that the node began with.
        if (arc > first || other > node) join(parent, node, other);
    }
}

extern "C" __global__ void __launch_bounds__(256) components_compress(
    u32 n, u32* parent, Control* control, const volatile u32* cancel) {
    if (is_cancelled(CancelSignal{cancel, &control->cancelled})) return;
    const u32 node = node_of_thread();
    if (node >= n) return;
    const u32 root = find_root(parent, node);
    *(volatile u32*)&parent[node] = root;
}

// One block. The root that most samples have; of several, the lowest.
extern "C" __global__ void __launch_bounds__(256) components_guess_largest(
    u32 n, const u32* parent, Control* control) {
    __shared__ u32 root[SAMPLED_NODES];
    __shared__ u64 best;
    if (threadIdx.x == 0) best = 0;
    for (u32 i = threadIdx.x; i < SAMPLED_NODES; i += BLOCK) {
        // The fractional part of i * the golden ratio is spread evenly.
        root[i] = parent[(u32)((u64)(i * 2654435769u) * n >> 32)];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < SAMPLED_NODES; i += BLOCK) {
        u32 count = 0;
        for (u32 j = 0; j < SAMPLED_NODES; j++) count += root[j] == root[i];
        atomicMax(&best, (u64)count << 32 | ~root[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) control->largest = ~(u32)best;
}

extern "C" __global__ void __launch_bounds__(256) components_join_rest(
    u32 n, u32 skips_largest, const u32* row, const u32* column, u32* parent, Control* control,
    const volatile u32* cancel) {
    if (control->cancelled != 0) return;
    const u32 largest = control->largest;
    auto join_arcs = [&](const WorkItem& work, u32 from, u32 stride) {
        for (u32 arc = from; arc < work.arcs; arc += stride) join(parent, work.item, column[work.first + arc]);
    };
    balance_load(n, row[n] / n <= THREAD_ARCS, &control->taken, CancelSignal{cancel, &control->cancelled},
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid) return work;
            work.first = row[work.item] + SAMPLED_ARCS;
            const u32 end = row[work.item + 1];
            if (end <= work.first) return work;
            if (skips_largest != 0 && find_root(parent, work.item) == find_root(parent, largest)) return work;
            work.arcs = end - work.first;
            if (work.arcs <= THREAD_ARCS) {
                join_arcs(work, 0, 1);
                work.arcs = 0;
            }
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            join_arcs(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
        });
}

extern "C" __global__ void SCAN components_number(u32 n, const u32* parent, u64* tiles, u32* number, Control* control) {
    if (control->cancelled != 0) return;
    scan_array(n, tiles, &control->next_tile, [=](u64 node) -> u64 { return parent[node] == node; },
        [=](u64 node, u64 roots_before, u64 is_root) {
            if (is_root != 0) number[node] = (u32)roots_before;
            if (node == n - 1) control->num_components = (u32)(roots_before + is_root);
        });
}

extern "C" __global__ void __launch_bounds__(256) components_label(
    u32 n, const u32* number, u32* parent, u32* sizes, const Control* control) {
    if (control->cancelled != 0) return;
    __shared__ u32 of_block;
    const u32 node = node_of_thread();
    const bool valid = node < n;
    const u32 label = valid ? number[parent[node]] : 0;
    if (valid) parent[node] = label;
    if (threadIdx.x == 0) of_block = label;
    __syncthreads();
    // Most nodes are in one component: the block counts that of its first node at once, and a warp the others.
    const bool as_first = valid && label == of_block;
    const u32 count = __syncthreads_count(as_first);
    if (threadIdx.x == 0) atomicAdd(&sizes[label], count);
    const u32 others = __ballot_sync(ALL, valid && !as_first);
    if (!valid || as_first) return;
    const u32 same = __match_any_sync(others, label);
    if (lane_id() == __ffs(same) - 1) atomicAdd(&sizes[label], __popc(same));
}
