// The passes of k-means++ over the points. See seeding.rs for the algorithm.
//
// A pass computes, for each of a few candidates, the distance of each point to the nearest centroid if the candidate
// becomes one, and the sum of these over each segment of SEGMENT points. `select_candidate` then takes the candidate of
// the lowest total, and draws the next candidates with probabilities in proportion to the distances.

#ifndef TOWER_KERNELS_KMEANS_SEEDING
#define TOWER_KERNELS_KMEANS_SEEDING

constexpr u32 SEGMENT = 1024;
constexpr u32 SEED_THREADS = 256;
// Features of the candidates that are in shared memory at a time.
constexpr u32 SEED_FEATURES = 256;
// Threads that read a row together.
constexpr u32 SEED_ROW_THREADS = 8;
constexpr u32 SEED_ROWS = SEED_THREADS / SEED_ROW_THREADS;

// The sum over the block, in a fixed order, for all threads.
template <u32 THREADS> static __device__ double sum_block(double value) {
    __shared__ double sums[THREADS / 32];
#pragma unroll
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_xor_sync(0xffffffff, value, delta);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = 0.0;
#pragma unroll
    for (u32 warp = 0; warp < THREADS / 32; warp++) sum += sums[warp];
    return sum;
}

// Squared distances of shifted and scaled points, of a segment of them, to candidates; a block for each segment.
//
//   nearest      of each point; null before the first centroid, where all candidates are the same point
//   distances    [CANDIDATES][n], the lower of `nearest` and the distance to the candidate
//   segment_sums [CANDIDATES][segments], their sums
template <u32 CANDIDATES>
static __device__ void seed_segment(u32 segment, u32 n, u32 d, u32 segments, float scale, const float* shift,
    const float* points, const u32* candidates, const float* nearest, float* distances, double* segment_sums) {
    // Points that a thread computes together, with one read of the candidates.
    constexpr u32 POINTS = CANDIDATES > 8 ? 2 : 4;
    __shared__ float shared[CANDIDATES][SEED_FEATURES];
    __shared__ float shared_shift[SEED_FEATURES];
    const u32 lane = threadIdx.x % SEED_ROW_THREADS, row = threadIdx.x / SEED_ROW_THREADS;
    double sums[CANDIDATES];
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) sums[c] = 0.0;
    const u64 start = (u64)segment * SEGMENT;
    const bool is_packed = d % 4 == 0 && (u64)points % 16 == 0;
    for (u32 base = 0; base < SEGMENT; base += SEED_ROWS * POINTS) {
        const u64 first_point = start + base + row * POINTS;
        float partial[POINTS][CANDIDATES];
        // Beyond the last point the last one is read, and nothing is written.
        const float* rows[POINTS];
#pragma unroll
        for (u32 p = 0; p < POINTS; p++) {
            rows[p] = points + min(first_point + p, (u64)n - 1) * d;
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) partial[p][c] = 0.0f;
        }
        for (u32 first = 0; first < d; first += SEED_FEATURES) {
            const u32 features = min(SEED_FEATURES, d - first);
            // Where all features fit, the candidates are loaded once.
            if (base == 0 || d > SEED_FEATURES) {
                __syncthreads();
                for (u32 f = threadIdx.x; f < features; f += SEED_THREADS) {
                    shared_shift[f] = shift[first + f];
#pragma unroll
                    for (u32 c = 0; c < CANDIDATES; c++) {
                        shared[c][f] = fmaf(points[(u64)candidates[c] * d + first + f], scale, -shared_shift[f]);
                    }
                }
                __syncthreads();
            }
            if (is_packed) {
#pragma unroll 1
                for (u32 f = 4 * lane; f < features; f += 4 * SEED_ROW_THREADS) {
                    const float4 s = *(const float4*)(shared_shift + f);
                    float4 x[POINTS];
#pragma unroll
                    for (u32 p = 0; p < POINTS; p++) {
                        const float4 y = __ldcs((const float4*)(rows[p] + first + f));
                        x[p] = {fmaf(y.x, scale, -s.x), fmaf(y.y, scale, -s.y), fmaf(y.z, scale, -s.z),
                            fmaf(y.w, scale, -s.w)};
                    }
#pragma unroll
                    for (u32 c = 0; c < CANDIDATES; c++) {
                        const float4 of = *(const float4*)(shared[c] + f);
#pragma unroll
                        for (u32 p = 0; p < POINTS; p++) {
                            const float4 by = {x[p].x - of.x, x[p].y - of.y, x[p].z - of.z, x[p].w - of.w};
                            float& sum = partial[p][c];
                            sum = fmaf(by.x, by.x, fmaf(by.y, by.y, fmaf(by.z, by.z, fmaf(by.w, by.w, sum))));
                        }
                    }
                }
            } else {
#pragma unroll 1
                for (u32 f = lane; f < features; f += SEED_ROW_THREADS) {
                    float x[POINTS];
#pragma unroll
                    for (u32 p = 0; p < POINTS; p++) x[p] = fmaf(rows[p][first + f], scale, -shared_shift[f]);
#pragma unroll
                    for (u32 c = 0; c < CANDIDATES; c++)
#pragma unroll
                        for (u32 p = 0; p < POINTS; p++) {
                            const float by = x[p] - shared[c][f];
                            partial[p][c] = fmaf(by, by, partial[p][c]);
                        }
                }
            }
        }
#pragma unroll
        for (u32 p = 0; p < POINTS; p++) {
            const u64 point = first_point + p;
            const float before = nearest != nullptr && point < n ? nearest[point] : __int_as_float(0x7f800000);
#pragma unroll
            for (u32 c = 0; c < CANDIDATES; c++) {
                float distance = partial[p][c];
#pragma unroll
                for (u32 delta = 1; delta < SEED_ROW_THREADS; delta *= 2) {
                    distance += __shfl_xor_sync(0xffffffff, distance, delta);
                }
                distance = fminf(distance, before);
                // Each lane of a row writes the distances to other candidates.
                if (lane == c % SEED_ROW_THREADS && point < n) {
                    distances[(u64)c * n + point] = distance;
                    sums[c] += distance;
                }
            }
        }
    }
#pragma unroll
    for (u32 c = 0; c < CANDIDATES; c++) {
        const double sum = sum_block<SEED_THREADS>(sums[c]);
        if (threadIdx.x == 0) segment_sums[(u64)c * segments + segment] = sum;
    }
}

// The first index below `count` at which the sum of the values up to it is `target` or more, and the sum before it.
// Where rounding leaves the sum below the target it is the last index. A warp calls it.
template <class Value> static __device__ u32 find_sum(u32 count, double target, double& before, const Value& value) {
    const u32 lane = threadIdx.x % 32;
    before = 0.0;
    double next = lane < count ? value(lane) : 0.0;
    for (u32 base = 0; base < count; base += 32) {
        const double mine = next;
        // Loaded ahead, as each round waits for the one before.
        next = base + 32 + lane < count ? value(base + 32 + lane) : 0.0;
        const double up_to_here = scan_warp(mine);
        const u32 reached = __ballot_sync(0xffffffff, base + lane < count && before + up_to_here >= target);
        const u32 last = min(31u, count - 1 - base);
        if (reached != 0 || base + 32 >= count) {
            const u32 found = reached != 0 ? __ffs(reached) - 1 : last;
            before += __shfl_sync(0xffffffff, up_to_here - mine, found);
            return base + found;
        }
        before += __shfl_sync(0xffffffff, up_to_here, 31);
    }
    return 0;
}

constexpr u32 SELECT_THREADS = 512;

// Takes the candidate of the lowest total as the next centroid, and draws `draws` new candidates. One block, with a
// warp for each candidate and for each draw.
//
//   chosen   where the point that becomes a centroid is written
//   uniform  a number from 0 to 1 for each draw
//   which    which candidate it was, for the next pass
static __device__ void select_candidate(u32 n, u32 segments, u32 num_candidates, u32 draws, const float* distances,
    const double* segment_sums, const double* uniform, u32* candidates, u32* chosen, u32* which) {
    __shared__ double totals[SELECT_THREADS / 32];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp < num_candidates) {
        double sum = 0.0;
#pragma unroll 4
        for (u32 i = lane; i < segments; i += 32) sum += segment_sums[(u64)warp * segments + i];
#pragma unroll
        for (u32 delta = 16; delta > 0; delta /= 2) sum += __shfl_xor_sync(0xffffffff, sum, delta);
        if (lane == 0) totals[warp] = sum;
    }
    __syncthreads();
    u32 best = 0;
    for (u32 c = 1; c < num_candidates; c++) {
        if (totals[c] < totals[best]) best = c;
    }
    if (threadIdx.x == 0) {
        *chosen = candidates[best];
        *which = best;
    }
    __syncthreads();
    if (warp >= draws) return;
    const double target = uniform[warp] * totals[best];
    double before;
    const u32 segment = find_sum(segments, target, before, [=](u32 i) {
        return segment_sums[(u64)best * segments + i];
    });
    const u64 start = (u64)segment * SEGMENT;
    double unused;
    const u32 index = find_sum((u32)min((u64)SEGMENT, n - start), target - before, unused, [=](u32 i) {
        return (double)distances[(u64)best * n + start + i];
    });
    if (lane == 0) candidates[warp] = (u32)start + index;
}

#endif
