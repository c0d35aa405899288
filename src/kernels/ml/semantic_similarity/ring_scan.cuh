// The scan of Hopper (sm_90a) for up to 128 queries and vectors of 16-bit numbers. Most of the queries stays in registers, so
// that shared memory has room for a ring of stages with the vectors that are in flight.
//
// Four warps copy, 128 numbers of each of 64 vectors to a stage. Two warpgroups have 64 queries each and multiply every stage
// with them: queries are the left operand of the tensor cores, which may come from registers, and the stage is the right one,
// which comes from shared memory. So a thread has the ranks of two queries with the vectors of a group. While one warpgroup
// ranks vectors, the other multiplies.

#ifndef TOWER_KERNELS_RING_SCAN
#define TOWER_KERNELS_RING_SCAN

#include "cancel.cuh"
#include "number_formats.cuh"
#include "ranks.cuh"
#include "tensor_memory.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
namespace ring {
// Vectors of a stage, numbers of a vector in it, and the most stages that a vector takes. plan.rs has the last product.
constexpr u32 TILE = 64, STEP = 128, STEPS = 6;
// Steps whose numbers of the queries are in registers. The others are in shared memory.
constexpr u32 STEPS_IN_REGISTERS = 4, STEPS_IN_MEMORY = STEPS - STEPS_IN_REGISTERS;
// Rows of 128 bytes are in blocks of 64 numbers: two of a stage, and two of the queries of a warpgroup for each step.
constexpr u32 BLOCK_BYTES = 64 * ROW_BYTES, STAGE_BYTES = 2 * BLOCK_BYTES;
constexpr u32 QUERY_BYTES = 2 * STEPS_IN_MEMORY * BLOCK_BYTES;
// plan.rs has the bytes of these and of the queries.
constexpr u32 STAGES = 10;
constexpr u32 MULTIPLIERS = 256, COPIERS = 128;
// Numbers of a vector in a product of the tensor cores.
constexpr u32 DEPTH = 16;

struct Barriers {
    u64 filled[STAGES], read[STAGES];
};

// A stage, and the parity of the phases of its barriers.
struct Position {
    u32 stage = 0, parity = 0;

    __device__ void advance() {
        if (++stage < STAGES) return;
        stage = 0;
        parity ^= 1;
    }
};

// Where the product `index` of a step begins in two blocks, in these units.
static __device__ u64 product_offset(u32 index) {
    constexpr u32 OF_BLOCK = 64 / DEPTH;
    return (index / OF_BLOCK * BLOCK_BYTES + index % OF_BLOCK * DEPTH * 2) / 16;
}

// Fills the stages with the vectors of the block's tiles.
static __device__ void copy_vectors(u8* stages, Barriers& barriers, u32 rows, u32 dimension, u32 steps, u32 first_tile,
    u32 end_tile, const u16* corpus) {
    // A thread copies the same piece of eight numbers of every eighth vector.
    constexpr u32 PIECES = STEP / 8, ROWS = COPIERS / PIECES;
    static_assert(ROWS == 8, "rows of a thread that are swizzled alike");
    const u32 thread = threadIdx.x % COPIERS, row = thread / PIECES, piece = thread % PIECES;
    const u32 to = shared_address(stages) + piece / 8 * BLOCK_BYTES + swizzled(row, piece % 8);
    Position position;
    for (u32 tile = first_tile + blockIdx.x; tile < end_tile; tile += gridDim.x) {
        for (u32 step = 0; step < steps; step++) {
            const u32 at = step * STEP + piece * 8;
            const bool is_there = at < dimension;
            wait_for(barriers.read[position.stage], position.parity ^ 1);
#pragma unroll
            for (u32 i = 0; i < TILE / ROWS; i++) {
                const u16* from = corpus + u64(min(tile * TILE + row + ROWS * i, rows - 1)) * dimension + (is_there ? at : 0);
                // Zeros where there are no numbers.
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                                 to + position.stage * STAGE_BYTES + i * ROWS * ROW_BYTES),
                    "l"(from), "r"(is_there ? 16 : 0) : "memory");
            }
            arrive_after_copies(barriers.filled[position.stage]);
            position.advance();
        }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// Copies the last numbers of rounded queries to shared memory: for each warpgroup and step the blocks of its 64 queries.
static __device__ void load_queries_in_memory(u8* to, u32 padded, const u16* rounded) {
    constexpr u32 FIRST = STEPS_IN_REGISTERS * STEP, PIECES = STEPS_IN_MEMORY * STEP / 8;
    for (u32 i = threadIdx.x; i < 128 * PIECES; i += MULTIPLIERS) {
        const u32 query = i / PIECES, piece = i % PIECES, at = FIRST + piece * 8;
        u8* const block = to + query / 64 * QUERY_BYTES + piece / 8 * BLOCK_BYTES;
        *reinterpret_cast<uint4*>(block + swizzled(query % 64, piece % 8)) =
            at < padded ? *reinterpret_cast<const uint4*>(rounded + query * padded + at) : make_uint4(0, 0, 0, 0);
    }
    // Written by threads, read by the tensor cores.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync 1, %0;" ::"n"(MULTIPLIERS) : "memory");
}

// As `scan`. Dynamic shared memory: the last numbers of the queries, and the stages.
template <class Corpus>
static __device__ void ring_scan(u32 queries, u32 rows, u32 dimension, u32 padded, u32 metric, u32 first_group, u32 end_group,
    const u16* corpus, const float* norms, const u16* rounded, const float* scales, const float* slacks, float* maxima,
    u32* part_maxima, CancelSignal cancel) {
    extern __shared__ __align__(1024) u8 queries_and_stages[];
    __shared__ Barriers barriers;
    if (is_cancelled(cancel)) return;
    constexpr u32 GROUPS = TILE / GROUP;
    const u32 groups = (rows + GROUP - 1) / GROUP, steps = padded / STEP;
    const u32 first_tile = first_group / GROUPS, end_tile = (end_group + GROUPS - 1) / GROUPS;
    u8* const stages = queries_and_stages + 2 * QUERY_BYTES;
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; stage++) {
            init_barrier(barriers.filled[stage], COPIERS);
            // A thread of each warp that multiplies.
            init_barrier(barriers.read[stage], MULTIPLIERS / 32);
        }
    }
    __syncthreads();
    // Registers go from those who copy to those who multiply.
    if (threadIdx.x >= MULTIPLIERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        copy_vectors(stages, barriers, rows, dimension, steps, first_tile, end_tile, corpus);
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    load_queries_in_memory(queries_and_stages, padded, rounded);
    // A thread has the queries `query` and `query` + 8.
    const u32 lane = threadIdx.x % 32, t = lane % 4, query = threadIdx.x / 32 * 16 + lane / 4;
    constexpr u32 PRODUCTS = STEP / DEPTH;
    u32 numbers[STEPS_IN_REGISTERS * PRODUCTS][4];
#pragma unroll
    for (u32 i = 0; i < STEPS_IN_REGISTERS * PRODUCTS; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 at = i * DEPTH + j / 2 * 8 + 2 * t;
            numbers[i][j] = at < padded ? *reinterpret_cast<const u32*>(rounded + (query + j % 2 * 8) * padded + at) : 0;
        }
    }
    float own_scales[2], inverse_slacks[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        const bool is_query = query + 8 * i < queries;
        own_scales[i] = is_query ? scales[query + 8 * i] : 1.0f;
        inverse_slacks[i] = is_query ? __fdividef(1.0f, slacks[query + 8 * i]) : 1.0f;
    }
    const RankOfProduct rank(metric);
    const u64 stage_rows = matrix_descriptor(shared_address(stages));
    const u64 query_rows = matrix_descriptor(shared_address(queries_and_stages) + threadIdx.x / 128 * QUERY_BYTES);
    // Of the four threads that have two queries and two groups, each keeps one of each.
    const u32 kept_query = query + t % 2 * 8, kept_group = t / 2;
    // The best of the block's groups, which go to parts in turn.
    constexpr u32 TURNS = 2;
    float best_of_part[TURNS] = {NO_RANK, NO_RANK};
    u32 turn = 0;
    Position position;
#pragma unroll 1
    for (u32 tile = first_tile + blockIdx.x; tile < end_tile; tile += gridDim.x, turn = (turn + 1) % TURNS) {
        float own_norms[GROUPS];
#pragma unroll
        for (u32 i = 0; i < GROUPS; i++) own_norms[i] = norms[min(tile * TILE + GROUP * i + lane, rows - 1)];
        float sums[TILE / 8][4];
        u32 last = 0;
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            if (step >= steps) continue;
            wait_for(barriers.filled[position.stage], position.parity);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
            const u64 from = stage_rows + position.stage * (STAGE_BYTES / 16);
#pragma unroll
            for (u32 i = 0; i < PRODUCTS; i++) {
                const bool adds = step > 0 || i > 0;
                if (step < STEPS_IN_REGISTERS) {
                    Corpus::Format::multiply64(sums, numbers[step % STEPS_IN_REGISTERS * PRODUCTS + i], from + product_offset(i), adds);
                } else {
                    const u64 of_step = query_rows + (step - STEPS_IN_REGISTERS) * (2 * BLOCK_BYTES / 16);
                    Corpus::Format::multiply64(sums, of_step + product_offset(i), from + product_offset(i), adds);
                }
            }
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if (step > 0) {
                asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                if (lane == 0) arrive(barriers.read[last]);
            }
            last = position.stage;
            position.advance();
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        if (lane == 0) arrive(barriers.read[last]);

        float value = NO_RANK;
#pragma unroll
        for (u32 i = 0; i < GROUPS; i++) {
            const float own_factor = rank.factor(own_norms[i]), own_penalty = rank.penalty(own_norms[i]);
            BestTwo best[2];
#pragma unroll
            for (u32 j = 0; j < GROUP / 4; j++) {
                const u32 vector = j / 2 * 8 + 2 * t + j % 2;
                const bool is_row = tile * TILE + GROUP * i + vector < rows;
                const float factor = __shfl_sync(ALL_LANES, own_factor, vector);
                const float penalty = __shfl_sync(ALL_LANES, own_penalty, vector);
#pragma unroll
                for (u32 q = 0; q < 2; q++) {
                    const float product = sums[GROUP / 8 * i + j / 2][2 * q + j % 2];
                    best[q].add(is_row ? fmaf(-own_scales[q], penalty, product * factor) : NO_RANK, vector);
                }
            }
#pragma unroll
            for (u32 q = 0; q < 2; q++) {
                best[q].merge_lanes(1);
                best[q].merge_lanes(2);
            }
            if (kept_group == i) value = t % 2 == 0 ? best[0].packed(inverse_slacks[0]) : best[1].packed(inverse_slacks[1]);
        }
        const u32 group = tile * GROUPS + kept_group;
        if (group >= groups || kept_query >= queries) continue;
        maxima[u64(kept_query) * groups + group] = value;
#pragma unroll
        for (u32 i = 0; i < TURNS; i++)
            if (i == turn) best_of_part[i] = fmaxf(best_of_part[i], value);
    }
    if (kept_query >= queries) return;
#pragma unroll
    for (u32 i = 0; i < TURNS; i++) {
        const u32 part = ((blockIdx.x * TURNS + i) * GROUPS + kept_group) % PARTS;
        atomicMax(part_maxima + kept_query * PARTS + part, to_ordered(best_of_part[i]));
    }
}
} // namespace ring
#endif

#endif
