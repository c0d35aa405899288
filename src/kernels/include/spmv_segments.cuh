// Sums over the predecessors of every node, as in spmv.cuh, of a graph whose arcs are arranged by segments of the nodes
// that they come from: src/kernels/graph/segmented.rs makes the arrays and describes them.
//
// A block has the contributions of one segment in shared memory. Most of its warps add up pieces from that segment, and the
// others pieces of arcs from anywhere, whose contributions are in the L2 cache. A warp takes slices that lie one after the
// other, about as much as each other warp, and reads them ahead. A piece is added up by one lane, column by column, so that
// the order of all additions depends on the graph alone. The lanes of a slice store their sums side by side.
//
//   segments_multiply   fills the sums of all slices
//   PieceSums           for update_nodes: the sum of a row is that of its pieces

#ifndef TOWER_KERNELS_SPMV_SEGMENTS
#define TOWER_KERNELS_SPMV_SEGMENTS

#include "overlap.cuh"
#include "spmv.cuh"

constexpr u32 SEGMENT_NODES = 24000;
constexpr u32 NEAR_AHEAD = 4; // steps that a lane reads ahead
constexpr u32 FAR_AHEAD = 2;

// Of entries that update nodes: registers for six blocks of a multiprocessor, as the host launches them.
#define SEGMENTS_UPDATE __launch_bounds__(SPMV_THREADS, 6)

// A segment's contribution at the column in the low or the high half of a word, whose highest bit is not of the column.
static __device__ double at_low(const double* segment, u32 word) { return segment[word & 0x7fff]; }
static __device__ double at_high(const double* segment, u32 word) { return segment[word >> 16 & 0x7fff]; }

// The steps of one lane, and where their sums go. Reads those after the last as the last, so that reading does not branch.
template <class Step> struct LaneSteps {
    const Step* steps; // 32 apart
    u32 count;
    double* sums; // 32 apart, one for each slice

    // `begins` has the first step and the first slice of each warp, and the end.
    __device__ LaneSteps(const Step* all, const uint2* begins, u32 warp, double* all_sums) {
        const uint2 begin = begins[warp];
        steps = all + (u64)begin.x * 32 + threadIdx.x % 32;
        count = begins[warp + 1].x - begin.x;
        sums = all_sums + (u64)begin.y * 32 + threadIdx.x % 32;
    }

    // Read once in an iteration: it should not take the cache from the vectors.
    __device__ Step read(u32 step) const { return __ldcs(steps + min(step, count - 1) * 32); }
};

// The sum of a lane's piece.
struct PieceSum {
    double sum;
    double* to;

    // Adds a step, which may be the last of its slice; `is_new` is false for steps after the last that the warp has.
    // Selections, as branches would keep reads from being ahead.
    __device__ void add(double of_step, bool is_last, bool is_new) {
        sum += of_step;
        if (is_last && is_new) *to = sum;
        to += is_last ? 32 : 0;
        sum = is_last ? 0.0 : sum;
    }
};

// Adds up pieces from the segment in shared memory. `ahead` has the first steps.
static __device__ void add_up_near(
    const LaneSteps<uint2>& steps, uint2 (&ahead)[NEAR_AHEAD], const double* segment) {
    constexpr u32 LAST = 1u << 15;
    PieceSum sum = {0.0, steps.sums};
    for (u32 begin = 0; begin < steps.count; begin += NEAR_AHEAD) {
#pragma unroll
        for (u32 i = 0; i < NEAR_AHEAD; i++) {
            const uint2 step = ahead[i];
            ahead[i] = steps.read(begin + i + NEAR_AHEAD);
            const double of_step =
                (at_low(segment, step.x) + at_high(segment, step.x)) + (at_low(segment, step.y) + at_high(segment, step.y));
            sum.add(of_step, step.x & LAST, begin + i < steps.count);
        }
    }
}

// Adds up pieces from anywhere.
static __device__ void add_up_far(const LaneSteps<uint4>& steps, const double* from) {
    constexpr u32 LAST = 1u << 31;
    PieceSum sum = {0.0, steps.sums};
    uint4 ahead[FAR_AHEAD];
#pragma unroll
    for (u32 i = 0; i < FAR_AHEAD; i++) ahead[i] = steps.read(i);
    for (u32 begin = 0; begin < steps.count; begin += FAR_AHEAD) {
        double contributions[FAR_AHEAD][4];
        bool are_last[FAR_AHEAD];
#pragma unroll
        for (u32 i = 0; i < FAR_AHEAD; i++) {
            const uint4 step = ahead[i];
            are_last[i] = step.x & LAST;
            contributions[i][0] = __ldg(from + (step.x & ~LAST));
            contributions[i][1] = __ldg(from + step.y);
            contributions[i][2] = __ldg(from + step.z);
            contributions[i][3] = __ldg(from + step.w);
        }
#pragma unroll
        for (u32 i = 0; i < FAR_AHEAD; i++) ahead[i] = steps.read(begin + i + FAR_AHEAD);
#pragma unroll
        for (u32 i = 0; i < FAR_AHEAD; i++) {
            const double of_step =
                (contributions[i][0] + contributions[i][1]) + (contributions[i][2] + contributions[i][3]);
            sum.add(of_step, are_last[i], begin + i < steps.count);
        }
    }
}

// Multiplies with one vector, unless that is done. One block for each multiprocessor, with the shared memory of a segment
// and a zero; `far_warps` of its warps are for pieces from anywhere. `near_begins` and `far_begins` have the first steps and
// slices of all warps of each kind and the end, those of a block together.
extern "C" __global__ void __launch_bounds__(SPMV_MULTIPLY_THREADS, 1) segments_multiply(u32 far_warps,
    const u32* block_segments, const uint2* near_begins, const uint2* near_steps, const uint2* far_begins,
    const uint4* far_steps, const IterationState* states, const double* from, double* sums, const volatile u32* flag,
    u32* cancelled) {
    extern __shared__ double2 shared_pairs[];
    double* const segment = (double*)shared_pairs;
    begin_next_launch();
    // Beside the end of the last launch: this, which asks the host, and the first steps, which do not change.
    const bool stops = is_cancelled({flag, cancelled});
    const u32 near_warps = SPMV_MULTIPLY_THREADS / 32 - far_warps, warp = threadIdx.x / 32;
    if (warp >= near_warps) {
        const LaneSteps<uint4> steps(far_steps, far_begins, blockIdx.x * far_warps + warp - near_warps, sums);
        wait_for_last_launch();
        if (steps.count > 0 && !stops && !states->done) add_up_far(steps, from);
        return;
    }
    const LaneSteps<uint2> steps(near_steps, near_begins, blockIdx.x * near_warps + warp, sums);
    uint2 ahead[NEAR_AHEAD] = {};
#pragma unroll
    for (u32 i = 0; i < NEAR_AHEAD; i++) {
        if (steps.count > 0) ahead[i] = steps.read(i);
    }
    wait_for_last_launch();
    if (stops || states->done) return;
    const double2* const pairs = (const double2*)(from + (u64)block_segments[blockIdx.x] * SEGMENT_NODES);
#pragma unroll 8
    for (u32 i = threadIdx.x; i < SEGMENT_NODES / 2; i += near_warps * 32) shared_pairs[i] = __ldg(pairs + i);
    if (threadIdx.x == 0) segment[SEGMENT_NODES] = 0.0;
    asm volatile("bar.sync 1, %0;" ::"r"(near_warps * 32) : "memory"); // not of the other warps
    if (steps.count > 0) add_up_near(steps, ahead, segment);
}

// The sums of rows of pieces.
struct PieceSums {
    u32 rows;
    u32 sums_of_vector;
    const u32* offsets;   // of the pieces of each row
    const u32* positions; // of the sum of each piece
    const double* sums;

    // The pieces of a row.
    struct Bounds {
        u32 begin, end;
    };

    __device__ u32 nodes() const { return rows; }

    __device__ Bounds bounds(u32 row) const { return {offsets[row], offsets[row + 1]}; }

    // The sum of the row of each lane, which is 0 for bounds that are. All lanes must call it, with rows in order. They read
    // the sums of all their pieces side by side, whatever rows these are of, so that none waits for the row with the most.
    __device__ double sum(const Bounds& row, u32 vector) const {
        constexpr u32 LANE_SUMS = 4; // that a lane reads at a time
        constexpr u32 BATCH = 32 * LANE_SUMS;
        __shared__ double batches[SPMV_WARPS][BATCH];
        double* const batch = batches[threadIdx.x / 32];
        const double* const of_vector = sums + (u64)vector * sums_of_vector;
        const u32 lane = threadIdx.x % 32, rows_with_pieces = __ballot_sync(ALL_LANES, row.begin < row.end);
        if (rows_with_pieces == 0) return 0.0;
        const u32 first = __shfl_sync(ALL_LANES, row.begin, __ffs(rows_with_pieces) - 1);
        const u32 last = __shfl_sync(ALL_LANES, row.end, 31 - __clz(rows_with_pieces));
        double sum = 0.0;
        for (u32 begin = first; begin < last; begin += BATCH) {
            const u32 end = begin + BATCH;
            u32 of_pieces[LANE_SUMS];
            double numbers[LANE_SUMS];
#pragma unroll
            for (u32 i = 0; i < LANE_SUMS; i++) {
                of_pieces[i] = __ldg(positions + min(begin + 32 * i + lane, last - 1));
            }
#pragma unroll
            for (u32 i = 0; i < LANE_SUMS; i++) numbers[i] = __ldg(of_vector + of_pieces[i]);
            const bool has_all = row.begin <= begin && end <= row.end;
            if (__any_sync(ALL_LANES, has_all)) {
                double all = (numbers[0] + numbers[1]) + (numbers[2] + numbers[3]);
                for (u32 delta = 16; delta > 0; delta /= 2) all += __shfl_xor_sync(ALL_LANES, all, delta);
                sum += has_all ? all : 0.0;
                continue;
            }
#pragma unroll
            for (u32 i = 0; i < LANE_SUMS; i++) batch[32 * i + lane] = numbers[i];
            __syncwarp();
            for (u32 piece = max(row.begin, begin); piece < min(row.end, end); piece++) sum += batch[piece - begin];
            __syncwarp(); // before the next batch
        }
        return sum;
    }
};

#endif
