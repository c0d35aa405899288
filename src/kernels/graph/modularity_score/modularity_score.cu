// The counts that the modularity of a partition follows from.
//
//   modularity_count_arcs    the arcs between nodes of the same community; with `counts_in_degrees`, the in-degree of
//                            each node
//   modularity_add_degrees   adds the degree of each node to the sum of its community
//   modularity_add_products  adds up the product of the two sums of each community
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], every column below n. communities is u32[n], each below n. The
// host zeroes `counts`, `in_degrees` (u32[n]) and the sums (u32[n]). All arithmetic is in integers, so the order of the
// additions does not matter. Once the request is cancelled nothing has a meaning any more.
//
// 256 threads a block; any grid in modularity_count_arcs and modularity_add_products, and a block for each NODES_PER_BLOCK
// nodes in modularity_add_degrees.

#include "hash_table.cuh"
#include "load_balance.cuh"

constexpr u32 THREAD_ARCS = 16;       // arcs that one thread counts
constexpr u32 NODES_PER_BLOCK = 2048; // modularity_score/cuda.rs has the same number
constexpr u32 SLOTS = 2 * NODES_PER_BLOCK;

struct Counts {
    u64 internal_arcs;
    u64 degree_products;
    u32 taken;     // chunks that blocks took beyond their first
    u32 cancelled; // 1: the request is cancelled
};

// Adds a value of each thread to a word in global memory.
static __device__ void add_to(u64* sum, u64 value) {
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(ALL, value, delta);
    if (lane_id() == 0 && value != 0) atomicAdd(sum, value);
}

extern "C" __global__ void __launch_bounds__(256) modularity_count_arcs(
    u32 n, const u32* row, const u32* column, const u32* communities, u32 counts_in_degrees, u32* in_degrees,
    Counts* counts, const volatile u32* cancel) {
    u64 internal = 0;
    auto count = [&](const WorkItem& work, u32 from, u32 stride) {
        const u32 community = communities[work.item];
        for (u32 arc = from; arc < work.arcs; arc += stride) {
            const u32 other = __ldg(column + work.first + arc);
            internal += communities[other] == community;
            if (counts_in_degrees != 0) atomicAdd(&in_degrees[other], 1);
        }
    };
    balance_load(n, row[n] / n <= THREAD_ARCS, &counts->taken, CancelSignal{cancel, &counts->cancelled},
        [&](bool valid, u64 piece) {
            WorkItem work = {(u32)piece, 0, 0, 0};
            if (!valid) return work;
            work.first = row[work.item];
            work.arcs = row[work.item + 1] - work.first;
            if (work.arcs <= THREAD_ARCS) {
                count(work, 0, 1);
                work.arcs = 0;
            }
            return work;
        },
        [&](const WorkItem& work, bool whole_block) {
            count(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
        });
    add_to(&counts->internal_arcs, internal);
}

// The degrees are given, or are those of the rows. A community that has many nodes of a block is added to once.
extern "C" __global__ void __launch_bounds__(256) modularity_add_degrees(
    u32 n, u32 by_rows, const u32* row, const u32* degrees, const u32* communities, u32* sums) {
    __shared__ u32 keys[SLOTS], of_block[SLOTS];
    const CountTable table(keys, of_block, SLOTS);
    table.clear(threadIdx.x, BLOCK);
    __syncthreads();
    const u32 begin = blockIdx.x * NODES_PER_BLOCK, end = min(n, begin + NODES_PER_BLOCK);
    for (u32 node = begin + threadIdx.x; node < end; node += BLOCK) {
        table.add(communities[node], by_rows != 0 ? row[node + 1] - row[node] : degrees[node]);
    }
    __syncthreads();
    table.for_each(threadIdx.x, BLOCK, [&](u32 community, u32 sum) { atomicAdd(&sums[community], sum); });
}

extern "C" __global__ void __launch_bounds__(256) modularity_add_products(
    u32 n, const u32* out_sums, const u32* in_sums, Counts* counts) {
    u64 sum = 0;
    for (u32 community = blockIdx.x * BLOCK + threadIdx.x; community < n; community += gridDim.x * BLOCK) {
        sum += (u64)out_sums[community] * in_sums[community];
    }
    add_to(&counts->degree_products, sum);
}
