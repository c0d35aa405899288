// Sparse matrix times dense vectors, for power iterations on graphs: the sums over the predecessors of every node.
//
// The matrix is the adjacency of a graph in CSR form, whose entries are all 1: `offsets` u32[nodes + 1] and `columns`
// u32[arcs]. One or two vectors are multiplied in a launch.
//
// A warp takes a chunk of SPMV_CHUNK arcs, whatever rows they are of, so that all warps have the same work whatever the
// degrees are. Bits say at which arcs a row begins; there the sum of the row before is complete. What is left at the
// end of a chunk is its carry: the sum of a row is what its last chunk completes and the carries of the chunks before,
// back to the one that the row begins in. Rows without arcs have no bit, so sums are stored by rank, which is the
// number of rows with arcs before a row.
//
// What bounds it is the number of contributions that are read from the L2 cache, each from another place. So a block
// has those that are read most often in shared memory: it copies the first ones there, and takes chunks by turns. The
// nodes with the most successors have the first places, those for which there is no room in shared memory among them,
// so that these lie together in the L1 cache.
//
//   spmv_count_rows, spmv_scan_counts, spmv_rank_rows, spmv_rank_chunks, spmv_begin_lanes
//              make ranks, bits and the ranks of chunks, once for a graph, in this order
//   spmv_degrees, spmv_place_nodes, spmv_place_top, spmv_relabel
//              give the nodes with the most successors the first places, and replace columns by their places
//   spmv_multiply_1, spmv_multiply_2
//              complete sums and carries
//   update_nodes     gives the sum of each row to a function object, and adds up two numbers that it returns
//
// The order of all additions depends on the graph and on the number of multiprocessors alone, so that a vector has the
// same bits whatever other vectors are multiplied with it, and on every run.
//
// Sources: Blelloch, Heroux, Zagha, "Segmented Operations for Sparse Matrix Computation on Vector Multiprocessors",
// 1993. Zhang et al., "Making Caches Work for Graph Analytics", 2017, orders nodes by degree for the same purpose.

#ifndef TOWER_KERNELS_SPMV
#define TOWER_KERNELS_SPMV

#include "cancel.cuh"

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 SPMV_THREADS = 256; // of every launch but those that multiply
constexpr u32 SPMV_WARPS = SPMV_THREADS / 32;
constexpr u32 SPMV_MULTIPLY_THREADS = 1024;
constexpr u32 SPMV_LANE_ARCS = 8; // of a chunk that a lane takes
constexpr u32 SPMV_CHUNK = 32 * SPMV_LANE_ARCS;
constexpr u32 SPMV_BLOCK_ROWS = 16 * SPMV_THREADS; // of a block that ranks rows
constexpr u32 ALL_LANES = 0xffffffffu;

// 256 threads a block, as the host launches them, and registers for four blocks of a multiprocessor.
#define SPMV __launch_bounds__(256, 4)

// How far the iteration of a vector is. src/kernels/graph/power_iteration_cuda.rs has the same fields.
struct IterationState {
    double tolerance;  // the L1 difference of two iterations below which it is done
    double difference; // of the last two iterations
    u32 max_iterations;
    u32 iterations;
    u32 done;
    u32 unused;

    // A difference that is not a number ends it as well.
    __device__ void end_iteration(double of_iteration) {
        difference = of_iteration;
        iterations++;
        done = !(of_iteration >= tolerance) || iterations >= max_iterations;
    }
};

// The rows of the matrix, whose sums are put together.
struct Rows {
    u32 nodes, chunks; // chunks = arcs / SPMV_CHUNK + 1: one arc more than there are has a bit
    const u32* offsets;
    const u32* ranks; // u32[nodes + 1]
};

// Where the contributions of nodes to a number of vectors are. Each node has one of `slots` places, of which one at least
// is of no node and 0. Vectors are one after the other, or two are side by side, and the last of an odd number by itself.
struct Contributions {
    u32 slots, width;
    bool in_pairs;

    __device__ u64 index(u32 place, u32 vector) const {
        if (!in_pairs) return (u64)vector * slots + place;
        const u64 first = (u64)(vector / 2 * 2) * slots;
        return vector / 2 * 2 + 1 < width ? first + 2 * (u64)place + vector % 2 : first + place;
    }
};

static __device__ double2 add(double2 a, double2 b) { return make_double2(a.x + b.x, a.y + b.y); }

// The sum over all threads of the block, in thread 0. `shared` has an entry for each warp.
static __device__ double2 add_block(double2 value, double2* shared) {
    for (u32 delta = 16; delta > 0; delta /= 2) {
        value.x += __shfl_down_sync(ALL_LANES, value.x, delta);
        value.y += __shfl_down_sync(ALL_LANES, value.y, delta);
    }
    __syncthreads(); // thread 0 may still read the last call's
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 warp = 1; warp < SPMV_WARPS; warp++) value = add(value, shared[warp]);
    }
    return value;
}

// Adds up a count of each thread: returns the sum over the threads before this one, and the sum over all in `total`.
static __device__ u32 scan_block(u32 count, u32& total) {
    __shared__ u32 warp_counts[SPMV_WARPS];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 sum = count;
    for (u32 delta = 1; delta < 32; delta *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, sum, delta);
        if (lane >= delta) sum += other;
    }
    __syncthreads(); // the last call's counts have been read
    if (lane == 31) warp_counts[warp] = sum;
    __syncthreads();
    u32 before = 0;
    total = 0;
    for (u32 other = 0; other < SPMV_WARPS; other++) {
        if (other == warp) before = total;
        total += warp_counts[other];
    }
    return before + sum - count;
}

static __device__ bool has_arcs(u32 nodes, const u32* offsets, u32 row) {
    return row < nodes && offsets[row] < offsets[row + 1];
}

// Counts the rows with arcs among SPMV_BLOCK_ROWS rows of each block.
extern "C" __global__ void SPMV spmv_count_rows(u32 nodes, const u32* offsets, u32* counts) {
    u32 count = 0;
    for (u32 i = threadIdx.x; i < SPMV_BLOCK_ROWS; i += SPMV_THREADS) {
        count += has_arcs(nodes, offsets, blockIdx.x * SPMV_BLOCK_ROWS + i) ? 1 : 0;
    }
    u32 total;
    scan_block(count, total);
    if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// Replaces each count by the sum of those before it. One block.
extern "C" __global__ void SPMV spmv_scan_counts(u32 blocks, u32* counts) {
    u32 before = 0;
    for (u32 first = 0; first < blocks; first += SPMV_THREADS) {
        const u32 block = first + threadIdx.x;
        const u32 count = block < blocks ? counts[block] : 0;
        u32 total;
        const u32 sum = scan_block(count, total);
        if (block < blocks) counts[block] = before + sum;
        before += total;
    }
}

// Writes the ranks and sets the flags, which are 0 before. As many blocks as count rows.
extern "C" __global__ void SPMV spmv_rank_rows(
    u32 nodes, const u32* offsets, const u32* counts, u32* ranks, u32* flags) {
    u32 rank = counts[blockIdx.x];
    for (u32 i = threadIdx.x; i < SPMV_BLOCK_ROWS; i += SPMV_THREADS) {
        const u32 row = blockIdx.x * SPMV_BLOCK_ROWS + i;
        const bool counts_as_row = has_arcs(nodes, offsets, row);
        u32 total;
        const u32 before = scan_block(counts_as_row ? 1 : 0, total);
        if (row <= nodes) ranks[row] = rank + before;
        rank += total;
        // The end of the last row is flagged as well.
        if (counts_as_row || row == nodes) atomicOr(flags + offsets[row] / 32, 1u << (offsets[row] % 32));
    }
}

// One thread for each chunk.
extern "C" __global__ void SPMV spmv_rank_chunks(
    u32 nodes, u32 chunks, const u32* offsets, const u32* ranks, u32* chunk_ranks) {
    const u32 chunk = blockIdx.x * SPMV_THREADS + threadIdx.x;
    if (chunk >= chunks) return;
    // The first row that begins at or after the chunk's first arc.
    u32 low = 0, high = nodes;
    while (low < high) {
        const u32 middle = low + (high - low) / 2;
        if (offsets[middle] < (u64)chunk * SPMV_CHUNK) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    chunk_ranks[chunk] = ranks[low];
}

// Counts the bits of each lane's arcs: the bits, and above them how many there are in the lanes before. A warp for each
// chunk.
extern "C" __global__ void SPMV spmv_begin_lanes(u32 chunks, const u32* flags, u16* lane_begins) {
    const u32 lane = threadIdx.x % 32;
    const u32 chunk = blockIdx.x * SPMV_WARPS + threadIdx.x / 32;
    if (chunk >= chunks) return;
    const u32 begins = flags[chunk * (SPMV_CHUNK / 32) + lane / 4] >> lane % 4 * 8 & 255;
    u32 sum = __popc(begins);
    for (u32 delta = 1; delta < 32; delta *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, sum, delta);
        if (lane >= delta) sum += other;
    }
    lane_begins[(u64)chunk * 32 + lane] = (u16)(begins | (sum - __popc(begins)) << 8);
}

// Counts the successors of each node. Any grid.
extern "C" __global__ void SPMV spmv_degrees(u32 nodes, const u32* out_offsets, u32* degrees) {
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        degrees[node] = out_offsets[node + 1] - out_offsets[node];
    }
}

// Gives each node the place of its number after `top` places. Any grid.
extern "C" __global__ void SPMV spmv_place_nodes(u32 nodes, u32 top, u32* places) {
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        places[node] = top + node;
    }
}

// Gives the first `top` nodes of a list the first places; their other places stay empty. Any grid.
extern "C" __global__ void SPMV spmv_place_top(u32 top, const u32* by_degree, u32* places) {
    for (u32 index = blockIdx.x * SPMV_THREADS + threadIdx.x; index < top; index += gridDim.x * SPMV_THREADS) {
        places[by_degree[index]] = index;
    }
}

// Replaces the nodes of some arcs by their places. Any grid.
extern "C" __global__ void SPMV spmv_relabel(u32 arcs, const u32* columns, const u32* places, u32* relabelled) {
    for (u64 arc = blockIdx.x * SPMV_THREADS + threadIdx.x; arc < arcs; arc += gridDim.x * SPMV_THREADS) {
        relabelled[arc] = places[__ldcs(columns + arc)];
    }
}

// Contributions of one place to V vectors.
template <u32 V> struct Pack;
template <> struct Pack<1> {
    double at[1];
    // Reads from shared memory if the place is one of the first, and from global memory otherwise. One of two
    // predicated loads, as the compiler would branch.
    __device__ void read(u32 place, const Pack<1>* from, u32 shared, u32 cached) {
        asm volatile("{.reg .pred p; setp.lt.u32 p, %1, %2; @p ld.shared.f64 %0, [%3]; @!p ld.global.nc.f64 %0, [%4];}"
            : "=d"(at[0]) : "r"(place), "r"(cached), "r"(shared + place * 8), "l"(from + place) : "memory");
    }
};
template <> struct alignas(16) Pack<2> {
    double at[2];
    __device__ void read(u32 place, const Pack<2>* from, u32 shared, u32 cached) {
        asm volatile("{.reg .pred p; setp.lt.u32 p, %2, %3; @p ld.shared.v2.f64 {%0, %1}, [%4];"
            " @!p ld.global.nc.v2.f64 {%0, %1}, [%5];}"
            : "=d"(at[0]), "=d"(at[1])
            : "r"(place), "r"(cached), "r"(shared + place * 16), "l"(from + place) : "memory");
    }
};

static __device__ u32 low_bits(u32 count) { return (1u << count) - 1; } // of fewer than 32

// The arcs of a lane in a chunk: their columns, at which of them rows begin, and how many rows begin before.
struct LaneArcs {
    u32 column[SPMV_LANE_ARCS];
    u32 begins;
    u32 rank;

    // An arc that there is not has the column `no_column`.
    __device__ void read(u32 arcs, u32 no_column, const u32* columns, const u16* lane_begins, const u32* chunk_ranks,
        u32 chunk) {
        const u32 lane = threadIdx.x % 32;
        const u64 arc = (u64)chunk * SPMV_CHUNK + lane * SPMV_LANE_ARCS;
        // Read once in an iteration: it should not take the cache from the vectors.
        if (arc + SPMV_LANE_ARCS <= arcs && ((u64)columns & 15) == 0) {
#pragma unroll
            for (u32 i = 0; i < SPMV_LANE_ARCS; i += 4) {
                const uint4 four = __ldcs((const uint4*)(columns + arc + i));
                column[i] = four.x;
                column[i + 1] = four.y;
                column[i + 2] = four.z;
                column[i + 3] = four.w;
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < SPMV_LANE_ARCS; i++) column[i] = arc + i < arcs ? columns[arc + i] : no_column;
        }
        const u32 packed = __ldcs(lane_begins + (u64)chunk * 32 + lane);
        begins = packed & 255;
        rank = __ldcs(chunk_ranks + chunk) + (packed >> 8);
    }
};

// Adds up the contributions of a chunk by row. Element v of the contributions is of vector v.
template <u32 V>
static __device__ void reduce_chunk(const LaneArcs& arcs, const Pack<V>* elements, u32 nodes, u32 chunks, u32 chunk,
    double* sums, double* carries) {
    const u32 lane = threadIdx.x % 32;
    const u32 ending_lanes = __ballot_sync(ALL_LANES, arcs.begins != 0);
    // The last lane up to this one in which a row begins.
    const u32 up_to = ending_lanes & (low_bits(lane) | 1u << lane);
    const u32 from_lane = up_to == 0 ? 0 : 31 - __clz(up_to);
#pragma unroll
    for (u32 v = 0; v < V; v++) {
        double* const out = sums + (u64)v * nodes;
        double sum = 0.0, first = 0.0;
        if (arcs.begins == 0) {
#pragma unroll
            for (u32 i = 0; i < SPMV_LANE_ARCS; i++) sum += elements[i].at[v];
        } else {
            // A row that begins at an arc ends the one before it, whose rank is one less.
            u32 ended = arcs.rank;
#pragma unroll
            for (u32 i = 0; i < SPMV_LANE_ARCS; i++) {
                if (arcs.begins >> i & 1) {
                    if (ended == arcs.rank) {
                        first = sum;
                    } else {
                        out[ended - 1] = sum;
                    }
                    ended++;
                    sum = 0.0;
                }
                sum += elements[i].at[v];
            }
        }
#pragma unroll
        for (u32 delta = 1; delta < 32; delta *= 2) {
            const double other = __shfl_up_sync(ALL_LANES, sum, delta);
            if (lane >= from_lane + delta) sum += other;
        }
        if (ending_lanes != 0) {
            double before = __shfl_up_sync(ALL_LANES, sum, 1);
            if (lane == 0) before = 0.0;
            if (arcs.begins != 0 && arcs.rank > 0) out[arcs.rank - 1] = before + first;
        }
        if (lane == 31) carries[(u64)v * chunks + chunk] = sum;
    }
}

// Multiplies some chunks with V vectors, unless all of these are done. One block for each multiprocessor; the first
// `cached` contributions fit into its dynamic shared memory. Stores to a part of sums and carries that is lost do no
// harm, so one of two vectors may be done.
template <u32 V>
static __device__ void multiply(u32 nodes, u32 arcs, u32 slots, u32 first_chunk, u32 end_chunk, u32 cached,
    const u32* columns, const u16* lane_begins, const u32* chunk_ranks, const IterationState* states,
    const Pack<V>* from, double* sums, double* carries, CancelSignal cancel) {
    extern __shared__ uint4 first_contributions[];
    bool all_done = true;
    for (u32 vector = 0; vector < V; vector++) all_done = all_done && states[vector].done;
    Pack<V>* const in_shared = (Pack<V>*)first_contributions;
    for (u32 place = threadIdx.x; place < cached && !all_done; place += SPMV_MULTIPLY_THREADS) {
        in_shared[place] = from[place];
    }
    if (is_cancelled(cancel) || all_done) return;
    const u32 shared = (u32)__cvta_generic_to_shared(in_shared);
    const u32 chunks = arcs / SPMV_CHUNK + 1, warps = SPMV_MULTIPLY_THREADS / 32;
    u32 chunk = first_chunk + blockIdx.x * warps + threadIdx.x / 32;
    for (; chunk < end_chunk; chunk += gridDim.x * warps) {
        LaneArcs lane_arcs;
        lane_arcs.read(arcs, slots - 1, columns, lane_begins, chunk_ranks, chunk);
        Pack<V> elements[SPMV_LANE_ARCS];
#pragma unroll
        for (u32 i = 0; i < SPMV_LANE_ARCS; i++) elements[i].read(lane_arcs.column[i], from, shared, cached);
        reduce_chunk<V>(lane_arcs, elements, nodes, chunks, chunk, sums, carries);
    }
}

#define SPMV_MULTIPLY(V)                                                                                              \
    extern "C" __global__ void __launch_bounds__(SPMV_MULTIPLY_THREADS, 1) spmv_multiply_##V(u32 nodes, u32 arcs,     \
        u32 slots, u32 first_chunk, u32 end_chunk, u32 cached, const u32* columns, const u16* lane_begins,            \
        const u32* chunk_ranks, const IterationState* states, const Pack<V>* from, double* sums, double* carries,     \
        const volatile u32* flag, u32* cancelled) {                                                                   \
        multiply<V>(nodes, arcs, slots, first_chunk, end_chunk, cached, columns, lane_begins, chunk_ranks, states,    \
            from, sums, carries, {flag, cancelled});                                                                  \
    }

SPMV_MULTIPLY(1)
SPMV_MULTIPLY(2)

// The sum of the numbers from `first` to `last` of each lane, by all lanes where they are more than LANE_NUMBERS. All lanes
// must call it.
template <u32 LANE_NUMBERS>
static __device__ double sum_range(u32 first, u32 last, const double* numbers) {
    double sum = 0.0;
    const bool is_long = last - first > LANE_NUMBERS;
    if (!is_long) {
        for (u32 i = first; i < last; i++) sum += numbers[i];
    }
    for (u32 long_lanes = __ballot_sync(ALL_LANES, is_long); long_lanes != 0; long_lanes &= long_lanes - 1) {
        const u32 owner = __ffs(long_lanes) - 1, lane = threadIdx.x % 32;
        const u32 of_owner = __shfl_sync(ALL_LANES, first, owner), end = __shfl_sync(ALL_LANES, last, owner);
        double part = 0.0;
        for (u32 i = of_owner + lane; i < end; i += 32) part += numbers[i];
        for (u32 delta = 16; delta > 0; delta /= 2) part += __shfl_xor_sync(ALL_LANES, part, delta);
        if (lane == owner) sum = part;
    }
    return sum;
}

// The sums of rows of chunks.
struct ChunkSums {
    Rows rows;
    const double* sums;
    const double* carries;

    // Where the arcs of a row begin and end, and its rank.
    struct Bounds {
        u32 begin, end, rank;
    };

    __device__ u32 nodes() const { return rows.nodes; }

    __device__ Bounds bounds(u32 row) const { return {rows.offsets[row], rows.offsets[row + 1], rows.ranks[row]}; }

    // The sum of the row of each lane, which is 0 for bounds that are. All lanes must call it.
    __device__ double sum(const Bounds& row, u32 vector) const {
        constexpr u32 LANE_CHUNKS = 8; // a row of more chunks is added up by all lanes
        const u32 first = row.begin / SPMV_CHUNK, last = row.end / SPMV_CHUNK;
        const double completed = row.begin < row.end ? sums[(u64)vector * rows.nodes + row.rank] : 0.0;
        return completed + sum_range<LANE_CHUNKS>(first, last, carries + (u64)vector * rows.chunks);
    }
};

// Whether this block is the last of the launch to get here; then all that the others have written is visible to it.
static __device__ bool is_last_block(u32* blocks_done) {
    __shared__ bool is_last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(blocks_done, 1) == gridDim.x - 1;
        if (is_last) *blocks_done = 0;
    }
    __syncthreads();
    __threadfence();
    return is_last;
}

// Calls `finish(vector, sums)` in one thread, for each vector that is not done, with the sums of all blocks. Called by
// every block; `sums` of the vectors are in block_sums.
template <class Finish>
static __device__ void finish_vectors(
    u32 width, const IterationState* states, const double2* block_sums, u32* blocks_done, const Finish& finish) {
    __shared__ double2 warp_sums[SPMV_WARPS];
    if (!is_last_block(blocks_done)) return;
    for (u32 vector = 0; vector < width; vector++) {
        if (states[vector].done) continue;
        double2 sums = make_double2(0.0, 0.0);
        for (u32 block = threadIdx.x; block < gridDim.x; block += SPMV_THREADS) {
            sums = add(sums, __ldcg(block_sums + (u64)block * width + vector));
        }
        sums = add_block(sums, warp_sums);
        // All threads read `done` before it changes: those of add_block wait for each other.
        if (threadIdx.x == 0) finish(vector, sums);
    }
}

// Calls `update(row, vector)` for every row and vector that is not done, in whole warps: also with rows that are not
// below `nodes`. Adds up the two numbers that it returns, and calls `finish` with the totals. Any grid: the totals
// depend on it.
template <class Update, class Finish>
static __device__ void update_rows(u32 nodes, u32 width, const IterationState* states, double2* block_sums,
    u32* blocks_done, const Update& update, const Finish& finish) {
    __shared__ double2 warp_sums[SPMV_WARPS];
    for (u32 vector = 0; vector < width; vector++) {
        if (states[vector].done) continue;
        double2 numbers = make_double2(0.0, 0.0);
        for (u64 first = blockIdx.x * SPMV_THREADS; first < nodes; first += gridDim.x * SPMV_THREADS) {
            numbers = add(numbers, update(first + threadIdx.x, vector));
        }
        numbers = add_block(numbers, warp_sums);
        if (threadIdx.x == 0) block_sums[(u64)blockIdx.x * width + vector] = numbers;
    }
    finish_vectors(width, states, block_sums, blocks_done, finish);
}

// Calls `update(node, vector, loaded, sum)` for every node and vector that is not done, with the sum of the row and with
// what `update.load(node, vector)` has returned, which is called before the sum is read, so that the two do not wait for
// each other; otherwise as update_rows.
template <class RowSums, class Update, class Finish>
static __device__ void update_nodes(const RowSums& row_sums, u32 width, const IterationState* states, double2* block_sums,
    u32* blocks_done, const Update& update, const Finish& finish) {
    const u32 nodes = row_sums.nodes();
    const auto update_row = [&](u64 row, u32 vector) {
        typename RowSums::Bounds bounds = {};
        typename Update::Loaded loaded = {};
        if (row < nodes) {
            bounds = row_sums.bounds((u32)row);
            loaded = update.load((u32)row, vector);
        }
        const double sum = row_sums.sum(bounds, vector);
        return row < nodes ? update((u32)row, vector, loaded, sum) : make_double2(0.0, 0.0);
    };
    update_rows(nodes, width, states, block_sums, blocks_done, update_row, finish);
}

#endif
