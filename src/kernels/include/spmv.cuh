// Sparse matrix times dense vectors, for power iterations on graphs: the sums over the predecessors of every node.
//
// The matrix is the adjacency of a graph in CSR form, whose entries are all 1: `offsets` u32[nodes + 1] and `columns`
// u32[arcs]. Up to some vectors are multiplied at once, so that a column index is read once for all of them.
//
// A warp takes a chunk of SPMV_CHUNK arcs, whatever rows they are of, so that all warps have the same work whatever the
// degrees are. Flags say at which arcs a row begins, one bit for each arc; there the sum of the row before is complete.
// What is left at the end of a chunk is its carry: the sum of a row is what its last chunk completes and the carries of
// the chunks before, back to the one that the row begins in. Rows without arcs have no flag, so sums are stored by
// rank, which is the number of rows with arcs before a row.
//
//   spmv_count_rows, spmv_scan_counts, spmv_rank_rows, spmv_rank_chunks
//              make ranks, flags and the ranks of chunks, once for a graph, in this order
//   spmv_multiply    completes sums and carries
//   update_nodes     gives the sum of each row to a function object, and adds up two numbers that it returns
//
// The order of all additions depends on the graph alone, so that a vector has the same bits whatever other vectors are
// multiplied with it, and on every run.
//
// Source: Blelloch, Heroux, Zagha, "Segmented Operations for Sparse Matrix Computation on Vector Multiprocessors",
// 1993.

#ifndef TOWER_KERNELS_SPMV
#define TOWER_KERNELS_SPMV

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 SPMV_THREADS = 256; // of every launch
constexpr u32 SPMV_WARPS = SPMV_THREADS / 32;
constexpr u32 SPMV_LANE_ARCS = 4; // that a lane takes at once
constexpr u32 SPMV_STEP = 32 * SPMV_LANE_ARCS;
constexpr u32 SPMV_STEPS = 2;
constexpr u32 SPMV_CHUNK = SPMV_STEPS * SPMV_STEP;
constexpr u32 SPMV_BLOCK_ROWS = 16 * SPMV_THREADS; // of a block that ranks rows
constexpr u32 ALL_LANES = 0xffffffffu;

// 256 threads a block, as the host launches them, and registers for four blocks: more of either is slower.
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

struct Matrix {
    u32 nodes, chunks; // chunks = arcs / SPMV_CHUNK + 1: one arc more than there are has a flag
    const u32* offsets;
    const u32* columns;
    const u32* ranks;       // u32[nodes + 1]
    const uint4* flags;     // a bit for each arc, in whole chunks
    const u32* chunk_ranks; // u32[chunks], the number of rows with arcs that begin before the chunk
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

// V numbers that are read at once.
template <u32 V> struct Pack;
template <> struct Pack<1> {
    double at[1];
    __device__ void read(const double* from) { at[0] = __ldg(from); }
};
template <> struct Pack<2> {
    double at[2];
    __device__ void read(const double* from) {
        const double2 both = __ldg((const double2*)from);
        at[0] = both.x;
        at[1] = both.y;
    }
};

static __device__ u32 low_bits(u32 count) { return (1u << count) - 1; } // of fewer than 32

// The arcs of a lane in a step: their columns, at which of them rows begin, and how many rows begin before in the step.
struct LaneArcs {
    u32 column[SPMV_LANE_ARCS];
    u32 begins, begins_before, begins_in_step;
    u32 count;

    __device__ void read(const Matrix& matrix, u32 arcs, u64 first) {
        const u32 lane = threadIdx.x % 32;
        const u64 arc = first + lane * SPMV_LANE_ARCS;
        count = arc >= arcs ? 0 : (u32)min((u64)SPMV_LANE_ARCS, arcs - arc);
        if (count == SPMV_LANE_ARCS && ((u64)matrix.columns & 15) == 0) {
            // Read once in an iteration: it should not take the cache from the vectors.
            const uint4 all = __ldcs((const uint4*)(matrix.columns + arc));
            column[0] = all.x;
            column[1] = all.y;
            column[2] = all.z;
            column[3] = all.w;
        } else {
#pragma unroll
            for (u32 i = 0; i < SPMV_LANE_ARCS; i++) column[i] = i < count ? matrix.columns[arc + i] : 0;
        }
        const uint4 flags = __ldcs(matrix.flags + first / SPMV_STEP);
        const u32 word = lane / 8, shift = lane % 8 * 4;
        const u32 own = word == 0 ? flags.x : word == 1 ? flags.y : word == 2 ? flags.z : flags.w;
        const u32 x = __popc(flags.x), y = __popc(flags.y), z = __popc(flags.z);
        begins = own >> shift & 15;
        begins_before = (word > 0 ? x : 0) + (word > 1 ? y : 0) + (word > 2 ? z : 0) + __popc(own & low_bits(shift));
        begins_in_step = x + y + z + __popc(flags.w);
    }
};

// Multiplies the chunk of a warp with vectors `first_vector` and, for V = 2, the next. Element `node` of vector v is
// from[node * width + v]; its sums are sums[v * nodes + rank], its carries carries[v * chunks + chunk].
template <u32 V>
static __device__ void multiply(const Matrix& matrix, u32 width, u32 first_vector, const double* from, double* sums,
    double* carries, const LaneArcs* steps, u32 chunk) {
    const u32 lane = threadIdx.x % 32;
    Pack<V> elements[SPMV_STEPS][SPMV_LANE_ARCS];
#pragma unroll
    for (u32 s = 0; s < SPMV_STEPS; s++) {
#pragma unroll
        for (u32 i = 0; i < SPMV_LANE_ARCS; i++) {
            if (i < steps[s].count) {
                elements[s][i].read(from + (u64)steps[s].column[i] * width + first_vector);
            } else {
#pragma unroll
                for (u32 v = 0; v < V; v++) elements[s][i].at[v] = 0.0;
            }
        }
    }
    u32 rank = matrix.chunk_ranks[chunk];
    double carry[V] = {};
#pragma unroll
    for (u32 s = 0; s < SPMV_STEPS; s++) {
        const LaneArcs& arcs = steps[s];
        const u32 ending_lanes = __ballot_sync(ALL_LANES, arcs.begins != 0);
        const u32 ending_before = ending_lanes & low_bits(lane);
        // The last lane up to this one in which a row begins.
        const u32 up_to = ending_lanes & (low_bits(lane) | 1u << lane);
        const u32 from_lane = up_to == 0 ? 0 : 31 - __clz(up_to);
#pragma unroll
        for (u32 v = 0; v < V; v++) {
            double* const out = sums + (u64)(first_vector + v) * matrix.nodes;
            double sum = 0.0, first = 0.0;
            // A row that begins at an arc ends the one before it, whose rank is one less.
            u32 ended = rank + arcs.begins_before;
            bool is_first = true;
#pragma unroll
            for (u32 i = 0; i < SPMV_LANE_ARCS; i++) {
                if (arcs.begins >> i & 1) {
                    if (is_first) {
                        first = sum;
                    } else {
                        out[ended - 1] = sum;
                    }
                    is_first = false;
                    ended++;
                    sum = 0.0;
                }
                sum += elements[s][i].at[v];
            }
#pragma unroll
            for (u32 delta = 1; delta < 32; delta *= 2) {
                const double other = __shfl_up_sync(ALL_LANES, sum, delta);
                if (lane >= from_lane + delta) sum += other;
            }
            double before = __shfl_up_sync(ALL_LANES, sum, 1);
            if (lane == 0) before = 0.0;
            if (ending_before == 0) before += carry[v];
            const u32 rank_before = rank + arcs.begins_before;
            if (arcs.begins != 0 && rank_before > 0) out[rank_before - 1] = before + first;
            const double last = __shfl_sync(ALL_LANES, sum, 31);
            carry[v] = ending_lanes == 0 ? carry[v] + last : last;
        }
        rank += arcs.begins_in_step;
    }
    if (lane == 0) {
#pragma unroll
        for (u32 v = 0; v < V; v++) carries[(u64)(first_vector + v) * matrix.chunks + chunk] = carry[v];
    }
}

// Multiplies the chunk of each warp with all vectors that are not done. A warp for each chunk.
extern "C" __global__ void SPMV spmv_multiply(u32 nodes, u32 chunks, u32 width, const u32* offsets, const u32* columns,
    const u32* ranks, const uint4* flags, const u32* chunk_ranks, const IterationState* states, const double* from,
    double* sums, double* carries) {
    const Matrix matrix = {nodes, chunks, offsets, columns, ranks, flags, chunk_ranks};
    bool all_done = true;
    for (u32 vector = 0; vector < width; vector++) all_done = all_done && states[vector].done;
    const u32 chunk = blockIdx.x * SPMV_WARPS + threadIdx.x / 32;
    if (all_done || chunk >= chunks) return;
    const u32 arcs = offsets[nodes];
    LaneArcs steps[SPMV_STEPS];
#pragma unroll
    for (u32 s = 0; s < SPMV_STEPS; s++) steps[s].read(matrix, arcs, (u64)chunk * SPMV_CHUNK + s * SPMV_STEP);
    if (width % 2 == 0) {
        for (u32 vector = 0; vector < width; vector += 2) {
            if (states[vector].done && states[vector + 1].done) continue;
            multiply<2>(matrix, width, vector, from, sums, carries, steps, chunk);
        }
    } else {
        for (u32 vector = 0; vector < width; vector++) {
            if (!states[vector].done) multiply<1>(matrix, width, vector, from, sums, carries, steps, chunk);
        }
    }
}

// The sums of the rows of a warp, one for each lane, in a vector. A lane whose row is not below `nodes` gets 0. All
// lanes must call it.
static __device__ double row_sum(const Matrix& matrix, u64 row, u32 vector, const double* sums, const double* carries) {
    constexpr u32 LANE_CHUNKS = 8; // a row of more chunks is added up by all lanes
    const double* const of_vector = carries + (u64)vector * matrix.chunks;
    const bool is_row = row < matrix.nodes;
    const u32 begin = is_row ? matrix.offsets[row] : 0, end = is_row ? matrix.offsets[row + 1] : 0;
    double sum = begin < end ? sums[(u64)vector * matrix.nodes + matrix.ranks[row]] : 0.0;
    const u32 first = begin / SPMV_CHUNK, last = end / SPMV_CHUNK;
    const bool is_long = last - first > LANE_CHUNKS;
    if (!is_long) {
        for (u32 chunk = first; chunk < last; chunk++) sum += of_vector[chunk];
    }
    for (u32 long_lanes = __ballot_sync(ALL_LANES, is_long); long_lanes != 0; long_lanes &= long_lanes - 1) {
        const u32 owner = __ffs(long_lanes) - 1, lane = threadIdx.x % 32;
        const u32 row_first = __shfl_sync(ALL_LANES, first, owner), row_last = __shfl_sync(ALL_LANES, last, owner);
        double part = 0.0;
        for (u32 chunk = row_first + lane; chunk < row_last; chunk += 32) part += of_vector[chunk];
        for (u32 delta = 16; delta > 0; delta /= 2) part += __shfl_xor_sync(ALL_LANES, part, delta);
        if (lane == owner) sum += part;
    }
    return sum;
}

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

// Calls `update(node, vector, sum)` for every node and vector that is not done, with the sum of the row; otherwise as
// update_rows.
template <class Update, class Finish>
static __device__ void update_nodes(const Matrix& matrix, u32 width, const IterationState* states, const double* sums,
    const double* carries, double2* block_sums, u32* blocks_done, const Update& update, const Finish& finish) {
    const auto update_row = [&](u64 row, u32 vector) {
        const double sum = row_sum(matrix, row, vector, sums, carries);
        return row < matrix.nodes ? update((u32)row, vector, sum) : make_double2(0.0, 0.0);
    };
    update_rows(matrix.nodes, width, states, block_sums, blocks_done, update_row, finish);
}

#endif
