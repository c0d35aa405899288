// The counts that the modularity of a partition follows from.
//
//   modularity_count_arcs    the units of all arcs, and of those between nodes of the same community; with `is_weighted`,
//                            the out-degree of each node, and with `is_directed` its in-degree
//   modularity_add_degrees   adds the degree of each node to the sum of its community: the given ones, or with `by_rows`
//                            the arcs of the rows
//   modularity_add_products  adds up the product of the two sums of each community
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], every column below n. communities is u32[n], each below n. Arcs are
// counted in units: one each, or with `is_weighted` their weights, f32[arcs], times `scale`, rounded. The host zeroes
// `counts`, the degrees and the sums, all u64[n]; those that are not wanted may be empty. All arithmetic is in integers, so
// the order of the additions does not matter. Once the request is cancelled nothing has a meaning any more.
//
// 256 threads a block; any grid in modularity_count_arcs and modularity_add_products, and a block for each NODES_PER_BLOCK
// nodes in modularity_add_degrees.

#include "fixed_point.cuh"
#include "hash_table.cuh"
#include "load_balance.cuh"

constexpr u32 THREAD_ARCS = 16;       // arcs that one thread counts
constexpr u32 NODES_PER_BLOCK = 1024; // modularity_score/cuda.rs has the same number
constexpr u32 SLOTS = 2 * NODES_PER_BLOCK;

// modularity_score/cuda.rs has the same layout.
struct Counts {
    u64 arcs;
    u64 internal_arcs;
    u64 products_low, products_high; // a sum of 128 bits
    u32 taken;                       // chunks that blocks took beyond their first
    u32 cancelled;                   // 1: the request is cancelled
};

// Adds a value of each thread to a word in global memory.
static __device__ void add_to(u64* sum, u64 value) {
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(ALL, value, delta);
    if (lane_id() == 0 && value != 0) atomicAdd(sum, value);
}

extern "C" __global__ void __launch_bounds__(256) modularity_count_arcs(
    u32 n, const u32* row, const u32* column, u32 is_weighted, const float* weights, double scale, const u32* communities,
    u64* out_degrees, u32 is_directed, u64* in_degrees, Counts* counts, const volatile u32* cancel) {
    u64 all = 0, internal = 0;
    auto count = [&](const WorkItem& work, u32 from, u32 stride) {
        const u32 community = communities[work.item];
        u64 degree = 0;
        for (u32 i = from; i < work.arcs; i += stride) {
            const u32 arc = work.first + i, other = __ldg(column + arc);
            const u64 units = is_weighted != 0 ? __double2ull_rn((double)__ldg(weights + arc) * scale) : 1;
            degree += units;
            if (communities[other] == community) internal += units;
            if (is_directed != 0) atomicAdd(&in_degrees[other], units);
        }
        if (is_weighted != 0 && degree != 0) atomicAdd(&out_degrees[work.item], degree);
        all += degree;
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
    add_to(&counts->arcs, all);
    add_to(&counts->internal_arcs, internal);
}

// A community that has many nodes of a block is added to once.
extern "C" __global__ void __launch_bounds__(256) modularity_add_degrees(
    u32 n, u32 by_rows, const u32* row, const u64* degrees, const u32* communities, u64* sums) {
    __shared__ u32 keys[SLOTS], low[SLOTS], high[SLOTS];
    const CountTable table(keys, low, SLOTS);
    table.clear(threadIdx.x, BLOCK);
    for (u32 slot = threadIdx.x; slot < SLOTS; slot += BLOCK) high[slot] = 0;
    __syncthreads();
    const u32 begin = blockIdx.x * NODES_PER_BLOCK, end = min(n, begin + NODES_PER_BLOCK);
    for (u32 node = begin + threadIdx.x; node < end; node += BLOCK) {
        const u64 degree = by_rows != 0 ? row[node + 1] - row[node] : degrees[node];
        const u32 slot = table.slot_of(communities[node]);
        add_to_words(&low[slot], &high[slot], nullptr, degree);
    }
    __syncthreads();
    for (u32 slot = threadIdx.x; slot < SLOTS; slot += BLOCK) {
        if (keys[slot] != NO_KEY) atomicAdd(&sums[keys[slot]], (u64)high[slot] << 32 | low[slot]);
    }
}

extern "C" __global__ void __launch_bounds__(256) modularity_add_products(
    u32 n, const u64* out_sums, const u64* in_sums, Counts* counts) {
    FixedSum sum = {0, 0};
    for (u32 community = blockIdx.x * BLOCK + threadIdx.x; community < n; community += gridDim.x * BLOCK) {
        const u64 out = out_sums[community], in = in_sums[community];
        sum.merge({out * in, __umul64hi(out, in)});
    }
    sum = sum_warp(sum);
    if (lane_id() != 0 || (sum.low | sum.high) == 0) return;
    const u64 before = atomicAdd(&counts->products_low, sum.low);
    atomicAdd(&counts->products_high, sum.high + (before > ~sum.low));
}
