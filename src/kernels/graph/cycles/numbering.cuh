// New numbers for the nodes of a graph, and its rows by number. cycles.cu says what the numbers are.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 THREADS = 256;
constexpr u32 ALL = 0xffffffffu;
constexpr u32 NO_NUMBER = 0xffffffffu; // of nodes without neighbours

// The first of columns[begin..end], which ascend, that is not below `number`.
static __device__ u32 lower_bound(const u32* columns, u32 begin, u32 end, u32 number) {
    while (begin < end) {
        const u32 middle = begin + (end - begin) / 2;
        if (columns[middle] < number) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

// The last of the rows begin..end that starts at or before an arc.
static __device__ u32 last_row_before(const u32* offsets, u32 begin, u32 end, u32 arc) {
    while (end - begin > 1) {
        const u32 middle = begin + (end - begin) / 2;
        if (offsets[middle] <= arc) {
            begin = middle;
        } else {
            end = middle;
        }
    }
    return begin;
}

// The row of an arc, for all threads of a block whose arcs are first_arc + threadIdx.x.
static __device__ u32 row_of(u32 nodes, const u32* offsets, u32 first_arc, u32 arc, u32 arcs) {
    __shared__ u32 range[2];
    __syncthreads();
    if (threadIdx.x < 2) {
        const u32 last_arc = min(first_arc + blockDim.x - 1, arcs - 1);
        range[threadIdx.x] = last_row_before(offsets, 0, nodes, threadIdx.x == 0 ? first_arc : last_arc);
    }
    __syncthreads();
    return last_row_before(offsets, range[0], range[1] + 1, arc);
}

// Adds the arcs that leave each node to its degree, which is 0 before, and those that come in if the graph is not
// symmetric.
extern "C" __global__ void __launch_bounds__(256)
    cycles_degrees(u32 nodes, u32 arcs, u32 symmetric, const u32* offsets, const u32* columns, u32* degrees) {
    const u32 at = blockIdx.x * THREADS + threadIdx.x;
    if (at < nodes && offsets[at + 1] > offsets[at]) atomicAdd(&degrees[at], offsets[at + 1] - offsets[at]);
    if (symmetric == 0 && at < arcs) atomicAdd(&degrees[columns[at]], 1);
}

// The first ranks of nodes of degree 1, 16, 256 and 65536 or more, among ascending degrees. One block.
extern "C" __global__ void __launch_bounds__(256) cycles_widths(u32 nodes, const u32* degrees, u32* first_ranks) {
    if (threadIdx.x < 4) {
        const u32 degree = threadIdx.x == 0 ? 1 : 1u << (2u << threadIdx.x);
        first_ranks[threadIdx.x] = lower_bound(degrees, 0, nodes, degree);
    }
}

// The number of each node, from the nodes in the order of their degrees; NO_NUMBER for those of degree 0.
extern "C" __global__ void __launch_bounds__(256)
    cycles_number(u32 nodes, u32 first_1, u32 first_16, u32 first_256, u32 first_65536, u32 number_16, u32 number_256,
                  u32 number_65536, const u32* order, u32* numbers) {
    const u32 rank = blockIdx.x * THREADS + threadIdx.x;
    if (rank >= nodes) return;
    u32 number;
    if (rank < first_1) {
        number = NO_NUMBER;
    } else if (rank < first_16) {
        number = rank - first_1;
    } else if (rank < first_256) {
        number = number_16 + 2 * (rank - first_16);
    } else if (rank < first_65536) {
        number = number_256 + 4 * (rank - first_256);
    } else {
        number = number_65536 + 8 * (rank - first_65536);
    }
    numbers[order[rank]] = number;
}

// Keys that sort the arcs by their ends' numbers of `bits` bits: arcs as they are, reversed, or first all of the one
// and then all of the other.
extern "C" __global__ void __launch_bounds__(256)
    cycles_keys(u32 nodes, u32 arcs, u32 bits, u32 forward, u32 backward, const u32* offsets, const u32* columns,
                const u32* numbers, u64* keys) {
    const u32 first = blockIdx.x * THREADS, arc = first + threadIdx.x;
    const u32 row = row_of(nodes, offsets, first, min(arc, arcs - 1), arcs);
    if (arc >= arcs) return;
    const u64 from = numbers[row], to = numbers[columns[arc]];
    if (forward != 0) keys[arc] = from << bits | to;
    if (backward != 0) keys[(forward != 0 ? (u64)arcs : 0) + arc] = to << bits | from;
}

// The rows of sorted arcs.
extern "C" __global__ void __launch_bounds__(256)
    cycles_rows(u32 numbers, u32 arcs, u32 bits, const u64* keys, u32* offsets, u32* columns) {
    const u32 at = blockIdx.x * THREADS + threadIdx.x;
    if (at < arcs) columns[at] = (u32)(keys[at] & ((1ull << bits) - 1));
    if (at > numbers) return;
    u32 begin = 0, end = arcs;
    while (begin < end) {
        const u32 middle = begin + (end - begin) / 2;
        if (keys[middle] < (u64)at << bits) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    offsets[at] = begin;
}

// Puts the counts of numbers, divided, at their nodes.
extern "C" __global__ void __launch_bounds__(256)
    cycles_gather(u32 nodes, const u32* numbers, u32 divisor, const u64* counts, u64* out) {
    const u32 node = blockIdx.x * THREADS + threadIdx.x;
    if (node < nodes) out[node] = numbers[node] == NO_NUMBER ? 0 : counts[numbers[node]] / divisor;
}
