// The scan of Hopper (sm_90a) for up to 128 queries and vectors of single precision: the queries stay in shared memory, and
// the vectors pass through a ring of stages beside them, are rounded, and go to the tensor cores from registers.
//
// Four warps copy 128 bytes of each of 64 vectors to a stage, and before that bring them into the second-level cache, as
// the ring alone does not hold what has to be in flight. Two warpgroups take turns at 64 vectors: one multiplies while the
// other ranks what it has. They read a stage into registers, from where the tensor cores take it, and free it at once.
//
// Turns are also what makes waits right: a wait tells the phase of a barrier by its parity, so that no warpgroup may be two
// phases behind or ahead.

#ifndef TOWER_KERNELS_WIDE_RING_SCAN
#define TOWER_KERNELS_WIDE_RING_SCAN

#include "cancel.cuh"
#include "ranks.cuh"
#include "tensor_cores.cuh"
#include "tensor_memory.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
namespace wide_ring {
constexpr u32 RING_COLUMNS = 128;
// Vectors that a warpgroup has at a time.
constexpr u32 TILE = 64;
// Bytes of a vector, of a stage, and of the same part of all queries. plan.rs has the bytes of the stages.
constexpr u32 STAGE_BYTES = TILE * ROW_BYTES, QUERY_BYTES = RING_COLUMNS * ROW_BYTES;
constexpr u32 STAGES = 4;
constexpr u32 MULTIPLIERS = 256, COPIERS = 128;
// Stages by which vectors are brought into the second-level cache before they are copied. With many more, that is too small.
constexpr u32 AHEAD = 8;

struct Barriers {
    u64 filled[STAGES], read[STAGES];
    // Whether a warpgroup may start with its next tile.
    u64 turn[2];
};

// Copies rounded queries to shared memory, 64 numbers of each together. Their order is that in which a thread has the
// numbers of vectors: eight numbers are two of each of four pieces of 16 bytes.
static __device__ void load_query_rows(u8* to, u32 padded, const u16* rounded) {
    const u32 pieces = padded / 8;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < RING_COLUMNS * pieces; i += MULTIPLIERS) {
        const u32 query = i / pieces, piece = i % pieces % 8;
        const u32 t = piece % 4, first = 4 * (piece / 4);
        const uint4 words = reinterpret_cast<const uint4*>(rounded)[i];
        u8* const own = to + i % pieces / 8 * QUERY_BYTES + 4 * t;
        *reinterpret_cast<u32*>(own + swizzled(query, first)) = words.x;
        *reinterpret_cast<u32*>(own + swizzled(query, first + 1)) = words.y;
        *reinterpret_cast<u32*>(own + swizzled(query, first + 2)) = words.z;
        *reinterpret_cast<u32*>(own + swizzled(query, first + 3)) = words.w;
    }
}

// Brings the vectors of the block's tiles into the second-level cache, as many bytes at a time as a stage has.
struct Prefetcher {
    const u8* corpus;
    // In bytes.
    u64 at, end_of_tile, end, of_tile;

    __device__ Prefetcher(const void* vectors, u64 of_vector, u32 rows, u32 tile)
        : corpus(static_cast<const u8*>(vectors)), end(rows * of_vector), of_tile(TILE * of_vector) {
        at = tile * of_tile;
        end_of_tile = at + of_tile;
    }

    __device__ void next() {
        const u64 until = min(min(at + STAGE_BYTES, end_of_tile), end);
        if (at < until)
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(corpus + at), "r"(u32(until - at)) : "memory");
        at += STAGE_BYTES;
        if (at < end_of_tile) return;
        at = end_of_tile + (gridDim.x - 1) * of_tile;
        end_of_tile = at + of_tile;
    }
};

// Fills the stages with the vectors of the block's tiles.
static __device__ void copy_vectors(u8* stages, Barriers& barriers, u32 rows, u32 dimension, u32 steps, u32 first_tile,
    u32 end_tile, const float* corpus) {
    constexpr u32 BYTES = sizeof(float), ROWS = COPIERS / 8, COPIES = TILE / ROWS;
    const u32 thread = threadIdx.x % COPIERS, row = thread / 8, piece = thread % 8;
    const u32 to = shared_address(stages) + swizzled(row, piece);
    Prefetcher prefetcher(corpus, u64(dimension) * BYTES, rows, first_tile + blockIdx.x);
    for (u32 i = 0; i < AHEAD && thread == 0; i++) prefetcher.next();
    u32 stage = 0, parity = 1;
    for (u32 tile = first_tile + blockIdx.x; tile < end_tile; tile += gridDim.x) {
        const u8* from[COPIES];
#pragma unroll
        for (u32 i = 0; i < COPIES; i++)
            from[i] = reinterpret_cast<const u8*>(corpus + u64(min(tile * TILE + row + ROWS * i, rows - 1)) * dimension);
        for (u32 step = 0; step < steps; step++) {
            const u32 at = step * ROW_BYTES + piece * 16;
            const bool is_there = at < dimension * BYTES;
            wait_for(barriers.read[stage], parity);
#pragma unroll
            for (u32 i = 0; i < COPIES; i++) {
                // Zeros where there are no numbers.
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                                 to + stage * STAGE_BYTES + i * ROWS * ROW_BYTES),
                    "l"(from[i] + (is_there ? at : 0)), "r"(is_there ? 16 : 0) : "memory");
            }
            arrive_after_copies(barriers.filled[stage]);
            if (thread == 0) prefetcher.next();
            if (++stage == STAGES) {
                stage = 0;
                parity ^= 1;
            }
        }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// The products of the vectors of a tile with all queries. `position` counts the stages that have been filled before.
static __device__ void multiply_tile(
    float (&sums)[RING_COLUMNS / 8][4], const u8* stages, Barriers& barriers, u64 queries, u32 steps, u32 position) {
    const u32 lane = threadIdx.x % 32, t = lane % 4, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll 2
    for (u32 step = 0; step < steps; step++) {
        const u32 stage = (position + step) % STAGES;
        wait_for(barriers.filled[stage], (position + step) / STAGES % 2);
        // Eight numbers of two vectors, in two pieces of 16 bytes.
        Eight<float> eights[2];
#pragma unroll
        for (u32 word = 0; word < 2; word++) {
            const u8* from = stages + stage * STAGE_BYTES + swizzled(row, 2 * t + word);
            eights[0].words[word] = *reinterpret_cast<const uint4*>(from);
            eights[1].words[word] = *reinterpret_cast<const uint4*>(from + 8 * ROW_BYTES);
        }
        const Operands<F32, 1> upper = operands<F32, 1>(eights[0]), lower = operands<F32, 1>(eights[1]);
        __syncwarp();
        if (lane == 0) arrive(barriers.read[stage]);
        if (step > 0) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        // A part of the queries has 64 numbers, in eight pieces of 16 bytes.
        const u32 numbers = step * (ROW_BYTES / sizeof(float));
        const u64 from = queries + numbers / 64 * (QUERY_BYTES / 16) + numbers % 64 / 8;
        const u32(&u)[4] = upper.parts[0];
        const u32(&l)[4] = lower.parts[0];
        Bfloat16::multiply128(sums, u[0], l[0], u[1], l[1], from, step > 0);
        Bfloat16::multiply128(sums, u[2], l[2], u[3], l[3], from + 2, true);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    }
    // All stages of the tile have been filled.
    if (lane == 0) arrive(barriers.turn[1 - threadIdx.x / 128]);
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// Threads whose lanes differ in this bit merge what they have, each for one half of the places.
template <u32 HALF> static __device__ void keep_half(BestTwo (&values)[RING_COLUMNS / 4]) {
    const bool is_upper = threadIdx.x & HALF;
#pragma unroll
    for (u32 i = 0; i < HALF; i++) {
        const BestTwo kept = is_upper ? values[HALF + i] : values[i], sent = is_upper ? values[i] : values[HALF + i];
        const float best = __shfl_xor_sync(ALL_LANES, sent.best, HALF);
        values[i] = kept;
        values[i].merge(best, __shfl_xor_sync(ALL_LANES, sent.second, HALF));
    }
}

// As `scan`. Dynamic shared memory: the queries, the stages, and 512 floats.
static __device__ void ring_scan(u32 queries, u32 rows, u32 dimension, u32 padded, u32 metric, u32 first_group, u32 end_group,
    const float* corpus, const float* norms, const u16* rounded, const float* scales, const float* slacks,
    float* maxima, u32* part_maxima, CancelSignal cancel) {
    extern __shared__ __align__(1024) u8 ring[];
    __shared__ Barriers barriers;
    __shared__ float column_scales[RING_COLUMNS];
    if (is_cancelled(cancel)) return;
    const u32 groups = (rows + GROUP - 1) / GROUP, first_tile = first_group / 2, end_tile = (end_group + 1) / 2;
    const u32 steps = padded * sizeof(float) / ROW_BYTES;
    u8* const stages = ring + padded / 64 * QUERY_BYTES;
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; stage++) {
            init_barrier(barriers.filled[stage], COPIERS);
            // A thread of each warp of a warpgroup.
            init_barrier(barriers.read[stage], 4);
        }
        init_barrier(barriers.turn[0], 4);
        init_barrier(barriers.turn[1], 4);
    }
    __syncthreads();
    if (threadIdx.x >= MULTIPLIERS) {
        copy_vectors(stages, barriers, rows, dimension, steps, first_tile, end_tile, corpus);
        return;
    }
    load_query_rows(ring, padded, rounded);
    for (u32 i = threadIdx.x; i < RING_COLUMNS; i += MULTIPLIERS) column_scales[i] = i < queries ? scales[i] : 1.0f;
    // Written by threads, read by the tensor cores.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync 5, %0;" ::"n"(MULTIPLIERS) : "memory");

    const u32 warpgroup = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const RankOfProduct rank(metric);
    // Two warps have the halves of a group. The second gives the first what it has.
    const u32 pair = warpgroup * 2 + warp / 2;
    const bool is_second = warp % 2;
    float* const halves = reinterpret_cast<float*>(stages + STAGES * STAGE_BYTES) + pair * RING_COLUMNS;
    const auto meet_other_half = [&] { asm volatile("bar.sync %0, 64;" ::"r"(1 + pair) : "memory"); };
    // What a thread keeps: the best of the queries 16 g + 2 t, the one after it, and those 8 further on.
    constexpr u32 KEPT = 4;
    const auto query_of = [&](u32 i) { return 16 * g + i / 2 * 8 + 2 * t + i % 2; };
    const auto slack_of = [&](u32 i) { return query_of(i) < queries ? __ldg(slacks + query_of(i)) : 1.0f; };
    float best[KEPT] = {NO_RANK, NO_RANK, NO_RANK, NO_RANK};
    // Counts the block's tiles.
    u32 index = warpgroup;
    for (u32 tile = first_tile + blockIdx.x + warpgroup * gridDim.x; tile < end_tile; tile += 2 * gridDim.x, index += 2) {
        const u32 row = tile * TILE + 16 * warp + g;
        const float row_norms[2] = {norms[min(row, rows - 1)], norms[min(row + 8, rows - 1)]};
        float sums[RING_COLUMNS / 8][4];
        // The first warpgroup starts.
        wait_for(barriers.turn[warpgroup], (index / 2 + 1 - warpgroup) % 2);
        multiply_tile(sums, stages, barriers, matrix_descriptor(shared_address(ring)), steps, index * steps);
        float factors[2], penalties[2];
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            factors[i] = rank.factor(row_norms[i]);
            penalties[i] = rank.penalty(row_norms[i]);
        }
        BestTwo values[RING_COLUMNS / 4];
#pragma unroll
        for (u32 i = 0; i < RING_COLUMNS / 4; i++) {
            const float scale = column_scales[i / 2 * 8 + 2 * t + i % 2];
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                const float value = fmaf(-scale, penalties[j], sums[i / 2][2 * j + i % 2] * factors[j]);
                values[i].add(row + 8 * j < rows ? value : NO_RANK, 16 * is_second + g + 8 * j);
            }
        }
        // The best of the 16 vectors of the warp: from value 4 g on.
        keep_half<16>(values);
        keep_half<8>(values);
        keep_half<4>(values);
        // Not before the last values have been read.
        meet_other_half();
        if (is_second) {
#pragma unroll
            for (u32 i = 0; i < KEPT; i++)
                halves[query_of(i)] = values[i].packed(__fdividef(1.0f, slack_of(i)));
        }
        meet_other_half();
        const u32 group = tile * (TILE / GROUP) + warp / 2;
        if (is_second || group >= groups) continue;
#pragma unroll
        for (u32 i = 0; i < KEPT; i++) {
            const float slack = slack_of(i), other = halves[query_of(i)];
            values[i].merge(other, BestTwo::others(other, slack));
            const float value = values[i].packed(__fdividef(1.0f, slack));
            best[i] = fmaxf(best[i], value);
            if (query_of(i) < queries) maxima[u64(query_of(i)) * groups + group] = value;
        }
    }
    if (is_second) return;
#pragma unroll
    for (u32 i = 0; i < KEPT; i++) {
        if (query_of(i) < queries)
            atomicMax(part_maxima + query_of(i) * PARTS + (blockIdx.x * 4 + pair) % PARTS, to_ordered(best[i]));
    }
}
} // namespace wide_ring
#endif

#endif
