// Sums over the predecessors of every node, as in spmv.cuh, of a graph whose arcs are arranged by segments of the nodes
// that they come from: src/kernels/graph/segmented.rs makes the arrays and describes them.
//
// A block has the contributions of one segment in shared memory. Most of its warps add up pieces from that segment, and the
// others pieces of arcs from anywhere, whose contributions are in the L2 cache. A warp takes slices that lie one after the
// other, about as much as each other warp, and reads them ahead. A piece is added up by one lane, column by column, so that
// the order of all additions depends on the graph alone.
//
//   segments_multiply   fills the sums of all pieces
//   PieceSums           for update_nodes: the sum of a row is that of its pieces

#ifndef TOWER_KERNELS_SPMV_SEGMENTS
#define TOWER_KERNELS_SPMV_SEGMENTS

#include "spmv.cuh"

constexpr u32 SEGMENT_NODES = 24000;
constexpr u32 NO_PIECE = 0xffffffffu;
constexpr u32 NEAR_AHEAD = 4; // steps that a lane reads ahead
constexpr u32 FAR_AHEAD = 2;

// A segment's contribution at the column in the low or the high half of a word, whose highest bit is not of the column.
static __device__ double at_low(const double* segment, u32 word) { return segment[word & 0x7fff]; }
static __device__ double at_high(const double* segment, u32 word) { return segment[word >> 16 & 0x7fff]; }

// The steps of one lane. Reads those after the last as the last, so that reading does not branch.
template <class Step> struct LaneSteps {
    const Step* steps; // 32 apart
    u32 count;

    __device__ LaneSteps(const Step* all, const u32* warp_begins, u32 warp) {
        const u32 begin = warp_begins[warp];
        steps = all + (u64)begin * 32 + threadIdx.x % 32;
        count = warp_begins[warp + 1] - begin;
    }

    // Read once in an iteration: it should not take the cache from the vectors.
    __device__ Step read(u32 step) const { return __ldcs(steps + min(step, count - 1) * 32); }
};

// Adds up pieces from the segment in shared memory. `ahead` has the first steps.
static __device__ void add_up_near(
    const LaneSteps<uint2>& steps, uint2 (&ahead)[NEAR_AHEAD], const double* segment, double* sums) {
    constexpr u32 ABSENT = SEGMENT_NODES << 16 | SEGMENT_NODES, LAST = 1u << 15;
    bool is_first = true; // of a slice
    u32 piece = NO_PIECE;
    double sum = 0.0;
    for (u32 begin = 0; begin < steps.count; begin += NEAR_AHEAD) {
#pragma unroll
        for (u32 i = 0; i < NEAR_AHEAD; i++) {
            const uint2 step = ahead[i];
            ahead[i] = steps.read(begin + i + NEAR_AHEAD);
            // Selections, as branches would keep the reads from being ahead.
            piece = is_first ? step.x : piece;
            sum = is_first ? 0.0 : sum;
            const u32 low = is_first ? ABSENT : step.x, flagged = is_first ? step.y : step.x;
            sum += (at_low(segment, low) + at_high(segment, low)) + (at_low(segment, step.y) + at_high(segment, step.y));
            is_first = flagged & LAST;
            if (is_first && begin + i < steps.count && piece != NO_PIECE) sums[piece] = sum;
        }
    }
}

// Adds up pieces from anywhere. `absent` is a place whose contribution is 0.
static __device__ void add_up_far(const LaneSteps<uint4>& steps, u32 absent, const double* from, double* sums) {
    constexpr u32 LAST = 1u << 31;
    bool is_first = true;
    u32 piece = NO_PIECE;
    double sum = 0.0;
    uint4 ahead[FAR_AHEAD];
#pragma unroll
    for (u32 i = 0; i < FAR_AHEAD; i++) ahead[i] = steps.read(i);
    for (u32 begin = 0; begin < steps.count; begin += FAR_AHEAD) {
        double contributions[FAR_AHEAD][4];
        u32 pieces[FAR_AHEAD];
        bool are_first[FAR_AHEAD];
#pragma unroll
        for (u32 i = 0; i < FAR_AHEAD; i++) {
            const uint4 step = ahead[i];
            are_first[i] = is_first;
            pieces[i] = step.x;
            contributions[i][0] = __ldg(from + (is_first ? absent : step.x & ~LAST));
            contributions[i][1] = __ldg(from + (step.y & ~LAST));
            contributions[i][2] = __ldg(from + step.z);
            contributions[i][3] = __ldg(from + step.w);
            is_first = (is_first ? step.y : step.x) & LAST;
        }
#pragma unroll
        for (u32 i = 0; i < FAR_AHEAD; i++) ahead[i] = steps.read(begin + i + FAR_AHEAD);
#pragma unroll
        for (u32 i = 0; i < FAR_AHEAD; i++) {
            piece = are_first[i] ? pieces[i] : piece;
            sum = are_first[i] ? 0.0 : sum;
            sum += (contributions[i][0] + contributions[i][1]) + (contributions[i][2] + contributions[i][3]);
            const bool is_last = i + 1 < FAR_AHEAD ? are_first[(i + 1) % FAR_AHEAD] : is_first;
            if (is_last && begin + i < steps.count && piece != NO_PIECE) sums[piece] = sum;
        }
    }
}

// Multiplies with one vector, unless that is done. One block for each multiprocessor, with the shared memory of a segment
// and a zero; `far_warps` of its warps are for pieces from anywhere. `near_begins` and `far_begins` have the first steps of
// all warps of each kind and the end, those of a block together.
extern "C" __global__ void __launch_bounds__(SPMV_MULTIPLY_THREADS, 1) segments_multiply(u32 nodes, u32 far_warps,
    const u32* block_segments, const u32* near_begins, const uint2* near_steps, const u32* far_begins,
    const uint4* far_steps, const IterationState* states, const double* from, double* sums, const volatile u32* flag,
    u32* cancelled) {
    extern __shared__ double2 shared_pairs[];
    double* const segment = (double*)shared_pairs;
    if (is_cancelled({flag, cancelled}) || states->done) return;
    const u32 near_warps = SPMV_MULTIPLY_THREADS / 32 - far_warps, warp = threadIdx.x / 32;
    if (warp >= near_warps) {
        const LaneSteps<uint4> steps(far_steps, far_begins, blockIdx.x * far_warps + warp - near_warps);
        if (steps.count > 0) add_up_far(steps, nodes, from, sums);
        return;
    }
    const LaneSteps<uint2> steps(near_steps, near_begins, blockIdx.x * near_warps + warp);
    uint2 ahead[NEAR_AHEAD] = {};
#pragma unroll
    for (u32 i = 0; i < NEAR_AHEAD; i++) {
        if (steps.count > 0) ahead[i] = steps.read(i);
    }
    const double2* const pairs = (const double2*)(from + (u64)block_segments[blockIdx.x] * SEGMENT_NODES);
#pragma unroll 8
    for (u32 i = threadIdx.x; i < SEGMENT_NODES / 2; i += near_warps * 32) shared_pairs[i] = __ldg(pairs + i);
    if (threadIdx.x == 0) segment[SEGMENT_NODES] = 0.0;
    asm volatile("bar.sync 1, %0;" ::"r"(near_warps * 32) : "memory"); // not of the other warps
    if (steps.count > 0) add_up_near(steps, ahead, segment, sums);
}

// The sums of rows of pieces.
struct PieceSums {
    u32 rows, pieces;
    const u32* offsets;
    const double* sums;

    // The pieces of a row.
    struct Bounds {
        u32 begin, end;
    };

    __device__ u32 nodes() const { return rows; }

    __device__ Bounds bounds(u32 row) const { return {offsets[row], offsets[row + 1]}; }

    // The sum of the row of each lane, which is 0 for bounds that are. All lanes must call it.
    __device__ double sum(const Bounds& row, u32 vector) const {
        constexpr u32 LANE_PIECES = 16; // a row of more is added up by all lanes
        return sum_range<LANE_PIECES>(row.begin, row.end, sums + (u64)vector * pieces);
    }
};

#endif
