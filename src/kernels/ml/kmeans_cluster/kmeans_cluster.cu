// k-means: Lloyd's algorithm and the seeding of k-means++. See mod.rs for the definition, and cpu.rs, lloyd.rs and
// seeding.rs for the same computation on the CPU.
//
// Once: `kmeans_feature_parts` and `kmeans_feature_merge` find the mean and the variance of each feature, and
// `kmeans_split_points` the points as sums of half-precision numbers. `kmeans_seed_N` and `kmeans_select` choose
// centroids.
//
// An iteration: `kmeans_assign_N` finds the nearest centroid of each point, with tensor cores; `kmeans_count`,
// `kmeans_places` and `kmeans_sort` sort the points by it; `kmeans_pieces`, `kmeans_sum_pieces` and
// `kmeans_sum_clusters` add them up; `kmeans_update` divides, and prepares the centroids for the next iteration;
// `kmeans_finish` adds up how far they moved. At the end `kmeans_inertia` computes the distances, as it does where a
// cluster is empty.

#include "scan.cuh"
#include "split.cuh"
#include "assign.cuh"
#include "centroids.cuh"
#include "seeding.cuh"

constexpr u32 THREADS = 256;

// ---- features

// Sums of x - x0 and of (x - x0)^2 with x0 the first point, and the least and the greatest x, of a part of the points:
// parts[(part * 4 + which) * d + feature].
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_feature_parts(
    u32 n, u32 d, u32 part_len, u32 first_part, const float* points, double* parts) {
    __shared__ double shared[THREADS];
    const u32 part = first_part + blockIdx.x;
    const u64 start = (u64)part * part_len;
    const u32 len = (u32)min((u64)part_len, n - start);
    const RowThreads threads(d, THREADS);
    for (u32 base = 0; base < d; base += threads.width) {
        const u32 feature = base + threads.lane;
        double sum = 0.0, squares = 0.0;
        float least = __int_as_float(0x7f800000), greatest = -least;
        if (feature < d) {
            const double origin = points[feature];
            const float* const column = points + start * d + feature;
#pragma unroll 8
            for (u32 row = threads.row; row < len; row += threads.rows) {
                const float x = __ldcs(column + (u64)row * d);
                const double distance = x - origin;
                sum += distance;
                squares += distance * distance;
                least = fminf(least, x);
                greatest = fmaxf(greatest, x);
            }
        }
        double* const to = parts + (u64)part * 4 * d + feature;
        const bool writes = threads.row == 0 && feature < d;
        sum = sum_over_rows(threads, sum, shared);
        squares = sum_over_rows(threads, squares, shared);
        __syncthreads();
        shared[threadIdx.x] = least;
        __syncthreads();
        for (u32 row = 0; row < threads.rows; row++) {
            least = fminf(least, (float)shared[row * threads.width + threads.lane]);
        }
        __syncthreads();
        shared[threadIdx.x] = greatest;
        __syncthreads();
        for (u32 row = 0; row < threads.rows; row++) {
            greatest = fmaxf(greatest, (float)shared[row * threads.width + threads.lane]);
        }
        if (writes) {
            to[0] = sum;
            to[d] = squares;
            to[2 * d] = least;
            to[3 * d] = greatest;
        }
    }
}

// The mean and variance of each feature, and the largest distance from the mean: out[which * d + feature].
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_feature_merge(
    u32 n, u32 d, u32 num_parts, const float* points, const double* parts, double* out) {
    const u32 feature = blockIdx.x * THREADS + threadIdx.x;
    if (feature >= d) return;
    double sum = 0.0, squares = 0.0, least = parts[2 * d + feature], greatest = parts[3 * d + feature];
    for (u32 part = 0; part < num_parts; part++) {
        const double* const from = parts + (u64)part * 4 * d + feature;
        sum += from[0];
        squares += from[d];
        least = fmin(least, from[2 * d]);
        greatest = fmax(greatest, from[3 * d]);
    }
    const double step = sum / n;
    const double mean = points[feature] + step;
    out[feature] = mean;
    out[d + feature] = fmax(squares / n - step * step, 0.0);
    out[2 * d + feature] = fmax(greatest - mean, mean - least);
}

// Shifts, scales and splits the points from `first` on, for a thread of each two features. Rows from n to the end of
// the last block of an assignment become 0.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_split_points(
    u32 n, u32 d, u32 chunks, u32 first, u32 rows, float scale, const float* shift, const float* points, u16* split) {
    const u32 pairs = chunks * CHUNK / 2;
    const u64 threads = (u64)gridDim.x * THREADS;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < (u64)rows * pairs; i += threads) {
        const u64 row = first + i / pairs;
        const u32 feature = (u32)(i % pairs) * 2;
        const auto at = [&](u32 feature) {
            if (row >= n || feature >= d) return 0.0f;
            return fmaf(points[row * d + feature], scale, -shift[feature]);
        };
        store_split(split + row * chunks * 2 * CHUNK, feature, at(feature), at(feature + 1));
    }
}

// ---- assignment

#define ASSIGN(STAGES)                                                                                                \
    extern "C" __global__ void __launch_bounds__(ASSIGN_ROWS, 2) kmeans_assign_##STAGES(u32 count, u32 column_tiles,   \
        u32 chunks, u32 is_resident, const uint4* points, const uint4* centroids, const float* half_norms,            \
        u32* labels, u32* changed, const volatile u32* cancel, u32* cancelled) {                                      \
        assign<STAGES>(count, column_tiles, chunks, is_resident != 0, points, centroids, half_norms, labels, changed, \
            CancelSignal{cancel, cancelled});                                                                         \
    }

// For devices on which two blocks with three stages fit into a multiprocessor, and for others.
ASSIGN(3)
ASSIGN(2)

// ---- centroids

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_count(
    u32 n, u32 k, u32 part_len, u32 parts, const u32* labels, u32* counts) {
    count_labels(n, k, part_len, parts, labels, counts);
}

// Turns counts into places, in the same array. `tiles` and `next_tile` are as for scan_array.
extern "C" __global__ void SCAN kmeans_places(u64 count, u64* tiles, u32* next_tile, u32* places) {
    scan_array(count, tiles, next_tile, [=](u64 i) -> u64 { return places[i]; },
        [=](u64 i, u64 before, u64) { places[i] = (u32)before; });
}

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_sort(
    u32 n, u32 k, u32 part_len, u32 parts, const u32* labels, u32* places, u32* order) {
    sort_by_label(n, k, part_len, parts, labels, places, order);
}

extern "C" __global__ void __launch_bounds__(1024) kmeans_pieces(
    u32 k, u32 parts, const u32* places, u32* first_pieces) {
    count_pieces<1024>(k, parts, places, first_pieces);
}

extern "C" __global__ void __launch_bounds__(PIECE_THREADS) kmeans_sum_pieces(u32 first, u32 d, u32 k, u32 parts,
    const float* points, const u32* places, const u32* order, const u32* first_pieces, double* piece_sums) {
    const u32 piece = first + blockIdx.x;
    if (piece >= first_pieces[k]) return;
    sum_piece(piece, d, k, parts, points, places, order, first_pieces, piece_sums);
}

// The sums and the sizes of the clusters, and the number of those that are empty. A block for each cluster.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_sum_clusters(u32 d, u32 parts, const u32* places,
    const u32* first_pieces, const double* piece_sums, double* sums, u32* sizes, u32* num_empty) {
    __shared__ double shared[THREADS];
    const u32 cluster = blockIdx.x;
    const u32 begin = first_pieces[cluster], end = first_pieces[cluster + 1];
    const RowThreads threads(d, THREADS);
    for (u32 base = 0; base < d; base += threads.width) {
        const u32 feature = base + threads.lane;
        double sum = 0.0;
        if (feature < d) {
#pragma unroll 4
            for (u32 piece = begin + threads.row; piece < end; piece += threads.rows) {
                sum += piece_sums[(u64)piece * d + feature];
            }
        }
        sum = sum_over_rows(threads, sum, shared);
        if (threads.row == 0 && feature < d) sums[(u64)cluster * d + feature] = sum;
    }
    if (threadIdx.x == 0) {
        sizes[cluster] = cluster_end(parts, places, cluster) - cluster_start(parts, places, cluster);
        if (begin == end) atomicAdd(num_empty, 1);
    }
}

// Moves `count` points into empty clusters, one each, in order. One block.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_relocate(u32 count, u32 d, const u32* clusters,
    const u32* farthest, const u32* labels, const float* points, double* sums, u32* sizes) {
    for (u32 i = 0; i < count; i++) {
        const u32 to = clusters[i], from = labels[farthest[i]];
        for (u32 feature = threadIdx.x; feature < d; feature += THREADS) {
            const double x = points[(u64)farthest[i] * d + feature];
            sums[(u64)from * d + feature] -= x;
            sums[(u64)to * d + feature] = x;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            sizes[from]--;
            sizes[to] = 1;
        }
        __syncthreads();
    }
}

// What the host reads after an iteration.
struct State {
    u32 changed;     // labels
    u32 num_empty;   // clusters
    double movement; // sum of the squared distances by which the centroids moved
};

// Divides the sums of a cluster by its size; an empty one keeps its centroid. Writes the squared distance by which the
// centroid moved, and the centroid split. With `sizes` null the centroids are only split. A block for each of the
// columns of an assignment; those beyond k are no centroids. Where `state` is not null, nothing is done if there are
// empty clusters.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_update(u32 k, u32 d, u32 chunks, float scale,
    const float* shift, const double* sums, const u32* sizes, const State* state, float* centroids, double* movements,
    u16* split, float* half_norms) {
    if (state != nullptr && state->num_empty != 0) return;
    const u32 cluster = blockIdx.x;
    double movement = 0.0, norm = 0.0;
    for (u32 feature = 2 * threadIdx.x; feature < chunks * CHUNK; feature += 2 * THREADS) {
        float values[2] = {0.0f, 0.0f};
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            if (cluster >= k || feature + i >= d) continue;
            const u64 at = (u64)cluster * d + feature + i;
            float centroid = centroids[at];
            if (sizes != nullptr && sizes[cluster] != 0) {
                const float mean = (float)(sums[at] / sizes[cluster]);
                const double distance = (double)mean - centroid;
                movement += distance * distance;
                centroids[at] = centroid = mean;
            }
            values[i] = fmaf(centroid, scale, -shift[feature + i]);
            const double value = Split(values[i]).value();
            norm += value * value;
        }
        store_split(split + (u64)cluster * chunks * 2 * CHUNK, feature, values[0], values[1]);
    }
    movement = sum_block<THREADS>(movement);
    norm = sum_block<THREADS>(norm);
    if (threadIdx.x == 0) {
        half_norms[cluster] = cluster < k ? (float)(norm / 2) : __int_as_float(0x7f800000);
        if (cluster < k && sizes != nullptr) movements[cluster] = movement;
    }
}

// Adds up the movements of the centroids. One block.
extern "C" __global__ void __launch_bounds__(1024) kmeans_finish(u32 k, const double* movements, State* state) {
    double sum = 0.0;
    for (u32 cluster = threadIdx.x; cluster < k; cluster += 1024) sum += movements[cluster];
    sum = sum_block<1024>(sum);
    if (threadIdx.x == 0) state->movement = sum;
}

// ---- distances

// The squared distance of each point to its centroid, where `distances` is not null, and their sum over each part of
// the points, a block for each. A warp reads a row.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_inertia(u32 n, u32 d, u32 k, u32 part_len, u32 first_part,
    const float* points, const float* centroids, const u32* labels, double* distances, double* part_sums) {
    const u32 part = first_part + blockIdx.x, lane = threadIdx.x % 32;
    const u64 start = (u64)part * part_len, end = min(start + part_len, (u64)n);
    double sum = 0.0;
    for (u64 row = start + threadIdx.x / 32; row < end; row += THREADS / 32) {
        const u32 label = labels[row];
        if (label >= k) continue;
        const float* const centroid = centroids + (u64)label * d;
        double distance = 0.0;
#pragma unroll 4
        for (u32 feature = lane; feature < d; feature += 32) {
            const double difference = (double)points[row * d + feature] - centroid[feature];
            distance += difference * difference;
        }
#pragma unroll
        for (u32 delta = 16; delta > 0; delta /= 2) distance += __shfl_xor_sync(ALL_LANES, distance, delta);
        if (lane == 0) {
            if (distances != nullptr) distances[row] = distance;
            sum += distance;
        }
    }
    sum = sum_block<THREADS>(sum);
    if (threadIdx.x == 0) part_sums[part] = sum;
}

// ---- seeding

// A block for each segment from `first` on. `nearest` has a row for each candidate of the pass before, and `which` says
// whose distances are those to the nearest centroid; in the first pass `which` is null.
#define SEED(CANDIDATES)                                                                                               \
    extern "C" __global__ void __launch_bounds__(SEED_THREADS) kmeans_seed_##CANDIDATES(u32 first, u32 n, u32 d,       \
        u32 segments, float scale, const float* shift, const float* points, const u32* candidates, const u32* which,   \
        u32 has_nearest, const float* nearest, float* distances, double* segment_sums) {                               \
        const float* const of_chosen = has_nearest != 0 ? nearest + (u64)*which * n : nullptr;                         \
        seed_segment<CANDIDATES>(first + blockIdx.x, n, d, segments, scale, shift, points, candidates, of_chosen,      \
            distances, segment_sums);                                                                                  \
    }

SEED(4)
SEED(8)
SEED(16)

extern "C" __global__ void __launch_bounds__(SELECT_THREADS) kmeans_select(u32 n, u32 segments, u32 num_candidates,
    u32 draws, const float* distances, const double* segment_sums, const double* uniform, u32* candidates, u32* chosen,
    u32* which) {
    select_candidate(n, segments, num_candidates, draws, distances, segment_sums, uniform, candidates, chosen, which);
}

// centroids[i] = points[chosen[i]].
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_gather(
    u32 k, u32 d, const u32* chosen, const float* points, float* centroids) {
    const u64 threads = (u64)gridDim.x * THREADS;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < (u64)k * d; i += threads) {
        centroids[i] = points[(u64)chosen[i / d] * d + i % d];
    }
}
