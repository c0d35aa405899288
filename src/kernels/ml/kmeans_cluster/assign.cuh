// The nearest centroid of each point: a matrix product on tensor cores whose tiles are reduced to the best column of
// each row as soon as they are done, so that nothing of the size of points times centroids is stored.
//
// The nearest centroid c of x has the largest x . c - |c|^2 / 2. A block has ASSIGN_ROWS points and goes through the
// centroids in tiles of COLUMNS; a warp computes 64 x 64 products, in steps of 16 features, three matrix products a
// step (split.cuh). Chunks of the rows come to shared memory by asynchronous copies, STAGES - 1 steps ahead. Where
// there is memory for it, the chunks of the points stay there from the first tile on.

#ifndef TOWER_KERNELS_KMEANS_ASSIGN
#define TOWER_KERNELS_KMEANS_ASSIGN

#ifndef TOWER_KERNELS_KMEANS_SPLIT
#error "assign.cuh needs split.cuh before it"
#endif

#include "cancel.cuh"

constexpr u32 ASSIGN_ROWS = 128;
constexpr u32 COLUMNS = 128;
// Chunks after which a block checks whether the request is cancelled: some 0.3 ms.
constexpr u32 POLL_INTERVAL = 256;

static __device__ u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }

// Copies 16 bytes to shared memory. On devices before compute capability 8.0 the copy is not asynchronous.
static __device__ void copy_async(uint4* to, const uint4* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(shared_address(to)), "l"(from) : "memory");
#else
    *to = *from;
#endif
}

// Ends a group of copies.
static __device__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Waits for all groups of copies of this thread but the last PENDING.
template <u32 PENDING> static __device__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
#endif
}

// Four matrices of 8 x 8 half-precision numbers, of which each lane gives the address of a row.
static __device__ void load_matrices(u32 (&matrices)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(address)
                 : "memory");
}

// sums += rows * columns, of 16 x 16 and 16 x 8 numbers.
static __device__ void multiply(float (&sums)[4], const u32 (&rows)[4], u32 columns_0, u32 columns_1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(columns_0), "r"(columns_1));
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(rows[0]), "r"(rows[1]), "r"(columns_0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(rows[2]), "r"(rows[3]), "r"(columns_1));
#endif
}

// The best column that a thread has seen of a row.
struct Best {
    float score;
    u32 column;

    // Of equal scores the lower column wins.
    __device__ void merge(float other_score, u32 other_column) {
        if (other_score > score || (other_score == score && other_column < column)) {
            score = other_score;
            column = other_column;
        }
    }
};

// Assigns `count` points to their nearest centroids and adds the number of labels that change to `changed`.
//
//   column_tiles   tiles of COLUMNS centroids
//   chunks         chunks of a row
//   is_resident    whether all chunks of the block's points stay in shared memory
//   points         split rows, a multiple of ASSIGN_ROWS
//   centroids      split rows, column_tiles * COLUMNS
//   half_norms     |c|^2 / 2 of each centroid, and infinity where there is none
//
// Dynamic shared memory: 128 bytes for each row of the chunks that it holds: ASSIGN_ROWS for each stage, or for each chunk
// where is_resident, and COLUMNS for each stage.
template <u32 STAGES>
static __device__ void assign(u32 count, u32 column_tiles, u32 chunks, bool is_resident, const uint4* points,
    const uint4* centroids, const float* half_norms, u32* labels, u32* changed, CancelSignal cancel) {
    constexpr u32 ROWS = ASSIGN_ROWS, THREADS = ASSIGN_ROWS;
    constexpr u32 ROW_UNITS = ROWS * CHUNK_UNITS, COLUMN_UNITS = COLUMNS * CHUNK_UNITS;
    extern __shared__ uint4 shared[];
    uint4* const shared_centroids = shared + (is_resident ? chunks : STAGES) * ROW_UNITS;
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const u32 warp_row = warp / 2 * 64, warp_column = warp % 2 * 64;
    const u32 first_row = blockIdx.x * ROWS;
    const u32 steps = column_tiles * chunks;

    // Loads the chunk of a step into its stage. Units of a row are exchanged by the row's lowest bits, so that a column
    // of eight rows is on different banks.
    u32 load_step = 0, load_tile = 0, load_chunk = 0, load_stage = 0;
    const auto load_next = [&] {
        if (load_step < steps) {
            const auto place = [](u32 unit) { return unit ^ (unit / CHUNK_UNITS % 8); };
            if (load_tile == 0 || !is_resident) {
                uint4* const to = shared + (is_resident ? load_chunk : load_stage) * ROW_UNITS;
                for (u32 unit = thread; unit < ROW_UNITS; unit += THREADS) {
                    const u64 row = first_row + unit / CHUNK_UNITS;
                    const u64 from = (row * chunks + load_chunk) * CHUNK_UNITS + unit % CHUNK_UNITS;
                    copy_async(to + place(unit), points + from);
                }
            }
            uint4* const to = shared_centroids + load_stage * COLUMN_UNITS;
            for (u32 unit = thread; unit < COLUMN_UNITS; unit += THREADS) {
                const u64 column = load_tile * COLUMNS + unit / CHUNK_UNITS;
                const u64 from = (column * chunks + load_chunk) * CHUNK_UNITS + unit % CHUNK_UNITS;
                copy_async(to + place(unit), centroids + from);
            }
            load_step++;
            load_stage = load_stage + 1 == STAGES ? 0 : load_stage + 1;
            if (++load_chunk == chunks) {
                load_chunk = 0;
                load_tile++;
            }
        }
        commit_copies();
    };
#pragma unroll
    for (u32 stage = 0; stage + 1 < STAGES; stage++) load_next();

    // Of rows group, group + 8, group + 16, ... of the warp.
    Best best[8];
#pragma unroll
    for (u32 row = 0; row < 8; row++) best[row] = {-__int_as_float(0x7f800000), 0};
    // The rows whose addresses this lane gives, and its bits of the exchange of units.
    const u32 row_offset = (warp_row + lane % 16) * 128, column_offset = (warp_column + lane % 8 + lane / 16 * 8) * 128;
    const u32 row_unit = lane / 16, column_unit = lane / 8 % 2, exchange = lane % 8;

    u32 step = 0, stage = 0;
    for (u32 tile = 0; tile < column_tiles; tile++) {
        float sums[4][8][4];
#pragma unroll
        for (u32 m = 0; m < 4; m++)
#pragma unroll
            for (u32 n = 0; n < 8; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;

        for (u32 chunk = 0; chunk < chunks; chunk++) {
            wait_for_copies<STAGES - 2>();
            bool stops = false;
            if (step % POLL_INTERVAL == POLL_INTERVAL - 1) {
                stops = is_cancelled(cancel);
            } else {
                __syncthreads();
            }
            if (stops) {
                wait_for_copies<0>();
                return;
            }
            load_next();
            const u32 rows = shared_address(shared + (is_resident ? chunk : stage) * ROW_UNITS) + row_offset;
            const u32 columns = shared_address(shared_centroids + stage * COLUMN_UNITS) + column_offset;
#pragma unroll
            for (u32 half = 0; half < CHUNK / 16; half++) {
                // The low parts are four units further on.
                const u32 row_place = (2 * half + row_unit ^ exchange) * 16;
                const u32 column_place = (2 * half + column_unit ^ exchange) * 16;
                u32 high[4][4], low[4][4];
#pragma unroll
                for (u32 m = 0; m < 4; m++) {
                    load_matrices(high[m], rows + m * 16 * 128 + row_place);
                    load_matrices(low[m], rows + m * 16 * 128 + (row_place ^ 64));
                }
#pragma unroll
                for (u32 pair = 0; pair < 4; pair++) {
                    u32 column_high[4], column_low[4];
                    load_matrices(column_high, columns + pair * 16 * 128 + column_place);
                    load_matrices(column_low, columns + pair * 16 * 128 + (column_place ^ 64));
#pragma unroll
                    for (u32 part = 0; part < 3; part++)
#pragma unroll
                        for (u32 m = 0; m < 4; m++)
#pragma unroll
                            for (u32 n = 0; n < 2; n++) {
                                const u32(&of_rows)[4] = part == 0 ? low[m] : high[m];
                                const u32(&of_columns)[4] = part == 1 ? column_low : column_high;
                                multiply(sums[m][2 * pair + n], of_rows, of_columns[2 * n], of_columns[2 * n + 1]);
                            }
                }
            }
            step++;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }

        const u32 first_column = tile * COLUMNS + warp_column + lane % 4 * 2;
#pragma unroll
        for (u32 n = 0; n < 8; n++) {
            const float2 half_norm = *(const float2*)(half_norms + first_column + n * 8);
#pragma unroll
            for (u32 m = 0; m < 4; m++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    Best& of_row = best[2 * m + i / 2];
                    const float score = sums[m][n][i] - (i % 2 == 0 ? half_norm.x : half_norm.y);
                    // Columns come in ascending order.
                    if (score > of_row.score) of_row = {score, first_column + n * 8 + i % 2};
                }
        }
    }

    // Lanes of the same group of four have the same rows, and so have two warps.
    wait_for_copies<0>();
    __syncthreads();
    Best* const shared_best = (Best*)shared;
#pragma unroll
    for (u32 row = 0; row < 8; row++) {
#pragma unroll
        for (u32 delta = 1; delta < 4; delta *= 2) {
            const float score = __shfl_xor_sync(0xffffffff, best[row].score, delta);
            const u32 column = __shfl_xor_sync(0xffffffff, best[row].column, delta);
            best[row].merge(score, column);
        }
        if (lane % 4 == 0) shared_best[(warp_row + lane / 4 + row * 8) * 2 + warp % 2] = best[row];
    }
    __syncthreads();
    // Each thread has a row.
    bool is_changed = false;
    if (first_row + thread < count) {
        Best of_row = shared_best[thread * 2];
        of_row.merge(shared_best[thread * 2 + 1].score, shared_best[thread * 2 + 1].column);
        u32* const label = labels + first_row + thread;
        is_changed = *label != of_row.column;
        *label = of_row.column;
    }
    const u32 changes = __syncthreads_count(is_changed);
    if (thread == 0 && changes > 0) atomicAdd(changed, changes);
}

#endif
