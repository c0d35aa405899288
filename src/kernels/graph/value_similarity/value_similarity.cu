// Comparison of all pairs of rows, in tiles, with a selection of those that may be among the most similar.
//
// `rows` is f64[count * width]. A block compares TILE rows from `first_a` on with TILE rows from `first_b` on; a thread
// has 4 x 4 pairs, and reads 8 numbers from shared memory for the terms of 16 pairs. A pair (a, b) with a < b that has
// the least similarity is counted. It is stored if it comes before the bound, in the order of distance, a and b.
//
// Host algorithm: launches over bands of rows, the first ones small; after each it reads what has been stored, and keeps
// the first of all so far, the last of which is the next bound. There is room for all pairs of a launch.

#include "cancel.cuh"

typedef unsigned int u32;
typedef unsigned long long u64;

// src/kernels/graph/value_similarity/cuda.rs has the same numbers.
constexpr u32 TILE = 64;
constexpr u32 THREADS = 256;

constexpr u32 SIDE = 16;             // threads along each side of a tile
constexpr u32 PER_THREAD = TILE / SIDE;
constexpr u32 BINS = 16;             // of each row that are in shared memory at a time
constexpr u32 STRIDE = TILE + 1;     // so that threads with successive bins of a row write to different banks
constexpr u32 BINS_PER_POLL = 1024;
// Blocks of a diagonal, of which those of one poll the host's flag.
constexpr u32 BLOCKS_PER_POLL = 32;

struct Found {
    u64 matching; // pairs with the least similarity
    u32 stored;
    u32 unused;
};

// Below this relative difference of two bins a series is used.
constexpr double SERIES_BOUND = 0.25;
constexpr double LN_2 = 0.69314718055994530942;

struct JensenShannon {
    static constexpr bool HAS_LOGARITHMS = true;

    // What a bin adds to four times the divergence in nats; `divergence` of distance.rs is the same.
    static __device__ double term(double p, double ln_p, double q, double ln_q) {
        const double sum = p + q, difference = fabs(p - q);
        if (difference <= SERIES_BOUND * sum) {
            if (difference == 0.0) return 0.0;
            const double d = difference / sum, square = d * d;
            double value = 1.0 / (12 * 23);
#pragma unroll
            for (int k = 11; k >= 1; k--) value = value * square + 1.0 / (k * (2 * k - 1));
            return sum * square * value;
        }
        return 2.0 * (p * ln_p + q * ln_q - sum * (log(sum) - LN_2));
    }
    static __device__ double distance(double sum) { return fmin(sqrt(sum / (4.0 * LN_2)), 1.0); }
    static __device__ double similarity(double distance) { return 1.0 - distance; }
};

struct Wasserstein {
    static constexpr bool HAS_LOGARITHMS = false;

    static __device__ double term(double p, double, double q, double) { return fabs(p - q); }
    static __device__ double distance(double sum) { return sum; }
    static __device__ double similarity(double distance) { return 1.0 / (1.0 + distance); }
};

struct Bound {
    double distance;
    u32 a, b;

    __device__ bool comes_after(double other, u32 other_a, u32 other_b) const {
        if (other != distance) return other < distance;
        return other_a != a ? other_a < a : other_b < b;
    }
};

// Some bins of the rows of a tile, and their logarithms if the metric has them; that of 0 is 0, as it is multiplied by 0.
template <class Metric> struct Tile {
    double values[BINS][STRIDE];
    double logarithms[Metric::HAS_LOGARITHMS ? BINS : 1][STRIDE];

    // Copies BINS bins from `first_bin` on; 0 where there are none.
    __device__ void load(u32 count, u64 width, const double* rows, u32 first_row, u64 first_bin) {
#pragma unroll
        for (u32 item = 0; item < TILE * BINS / THREADS; item++) {
            const u32 index = item * THREADS + threadIdx.x;
            const u32 row = index / BINS, bin = index % BINS;
            const bool is_there = first_row + row < count && first_bin + bin < width;
            const double value = is_there ? rows[(u64)(first_row + row) * width + first_bin + bin] : 0.0;
            values[bin][row] = value;
            if (Metric::HAS_LOGARITHMS) logarithms[bin][row] = value > 0.0 ? log(value) : 0.0;
        }
    }

    __device__ double logarithm(u32 bin, u32 row) const { return Metric::HAS_LOGARITHMS ? logarithms[bin][row] : 0.0; }
};

template <class Metric>
static __device__ void search_tile(u32 count, u64 width, const double* rows, u32 first_a, u32 first_b,
    double min_similarity, Bound bound, Found* found, double* distances, uint2* pairs, CancelSignal cancel) {
    __shared__ Tile<Metric> tile_a, tile_b;
    first_a += blockIdx.y * TILE;
    first_b += blockIdx.x * TILE;
    // Nothing to do where no b is above an a.
    if (first_a >= count || first_b >= count || first_b + TILE - 1 <= first_a) return;
    const u32 x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    double sums[PER_THREAD][PER_THREAD] = {};
    for (u64 bin = 0; bin < width; bin += BINS) {
        bool stops = false;
        if (bin % BINS_PER_POLL == 0 && threadIdx.x == 0) {
            stops = cancel.is_seen() || ((blockIdx.x + blockIdx.y) % BLOCKS_PER_POLL == 0 && cancel.poll_cancel());
        }
        if (__syncthreads_or(stops)) return;
        tile_a.load(count, width, rows, first_a, bin);
        tile_b.load(count, width, rows, first_b, bin);
        __syncthreads();
#pragma unroll 1
        for (u32 k = 0; k < BINS; k++) {
            double p[PER_THREAD], ln_p[PER_THREAD], q[PER_THREAD], ln_q[PER_THREAD];
#pragma unroll
            for (u32 i = 0; i < PER_THREAD; i++) {
                p[i] = tile_a.values[k][y + i * SIDE];
                ln_p[i] = tile_a.logarithm(k, y + i * SIDE);
                q[i] = tile_b.values[k][x + i * SIDE];
                ln_q[i] = tile_b.logarithm(k, x + i * SIDE);
            }
#pragma unroll
            for (u32 i = 0; i < PER_THREAD; i++) {
#pragma unroll
                for (u32 j = 0; j < PER_THREAD; j++) sums[i][j] += Metric::term(p[i], ln_p[i], q[j], ln_q[j]);
            }
        }
    }
    u32 matching = 0;
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; i++) {
#pragma unroll
        for (u32 j = 0; j < PER_THREAD; j++) {
            const u32 a = first_a + y + i * SIDE, b = first_b + x + j * SIDE;
            const double distance = Metric::distance(sums[i][j]);
            if (a >= b || b >= count || !(Metric::similarity(distance) >= min_similarity)) continue;
            matching++;
            if (!bound.comes_after(distance, a, b)) continue;
            const u32 place = atomicAdd(&found->stored, 1);
            distances[place] = distance;
            pairs[place] = make_uint2(a, b);
        }
    }
    for (u32 delta = 16; delta > 0; delta /= 2) matching += __shfl_xor_sync(0xffffffffu, matching, delta);
    if (threadIdx.x % 32 == 0 && matching != 0) atomicAdd(&found->matching, (u64)matching);
}

#define SEARCH(name, Metric)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256) name(u32 count, u64 width, const double* rows, u32 first_a,     \
        u32 first_b, double min_similarity, double bound_distance, u32 bound_a, u32 bound_b, Found* found,            \
        double* distances, uint2* pairs, const volatile u32* flag, u32* cancelled) {                                  \
        const Bound bound = {bound_distance, bound_a, bound_b};                                                       \
        search_tile<Metric>(                                                                                          \
            count, width, rows, first_a, first_b, min_similarity, bound, found, distances, pairs, {flag, cancelled}); \
    }

SEARCH(similarity_jsd, JensenShannon)
SEARCH(similarity_wasserstein, Wasserstein)
