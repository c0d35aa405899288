// ml/semantic-similarity: the exact best k vectors of a corpus for each query.
//
// The corpus is read once for up to 128 queries, on tensor cores, and for each query and group of 32 vectors the best
// rank is kept. Ranks of this pass are approximate: queries, and vectors of single precision, are rounded to 16 bits. But
// their error is bounded. So the k-th best group has a vector of at least its rank less the error, and a group that is
// worse than that by more than twice the error has none of the best k. The vectors of the other groups, a few more than k,
// are ranked again, in double precision. With the best rank of a group is kept which vector has it, and by how much the
// others are worse, so that this is mostly one vector. Where there are more than there is room for, which takes many that are
// almost equally good, the ranks of all vectors are computed in double precision for this query. Which way a query takes does
// not change its result.
//
// 1. similarity_prepare_*: rounds the queries, and bounds the error of each.
// 2. similarity_scan_*: the best rank of each group, and of each part of the groups; for many queries on Hopper as
//    `ring_scan.cuh` and `wide_ring_scan.cuh` describe. Or similarity_exact_*, of each group in double precision.
// 3. similarity_best_*: the groups that may have one of the best k vectors, the keys of their vectors, in double precision,
//    and the best of these. Where k is large, and after similarity_exact_*, core/top-k selects the groups, similarity_rank_*
//    computes the keys of all their vectors, and core/top-k selects the best.
//
// A rank is larger for a better vector: the product divided by the norm of the vector for cosine, the product, or what
// orders as the negative distance. `score.rs` has the ranks of step 3 and their keys.
//
// A thread of a tensor core's operation holds numbers of certain columns of its operands. As a sum does not depend on the
// order of its terms, the columns here are such that what a thread holds lies together in memory: vectors go from memory to
// registers in accesses of 16 bytes.

#include "cancel.cuh"
#include "number_formats.cuh"
#include "ranks.cuh"
#include "ring_scan.cuh"
#include "tensor_cores.cuh"
#include "wide_ring_scan.cuh"

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / 32;
// Threads of a block that finds the best vectors of a query. cuda.rs has the same number.
constexpr u32 SELECT_THREADS = 1024;
static_assert(SELECT_THREADS >= PARTS, "a part a thread");

static __device__ double block_sum(double value) {
    __shared__ double sums[WARPS];
    for (u32 offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0;
    for (u32 warp = 0; warp < WARPS; warp++) value += sums[warp];
    return value;
}

static __device__ float block_max(float value) {
    __shared__ float maxima[WARPS];
    for (u32 offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, offset));
    __syncthreads();
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = value;
    __syncthreads();
    for (u32 warp = 0; warp < WARPS; warp++) value = fmaxf(value, maxima[warp]);
    return value;
}

// The k-th largest of the numbers that the threads of the block have, or less: lower bits than the upper BITS of its
// ordered bits are zero. Infinitely low where there is none.
template <u32 BITS> static __device__ float kth_largest(u32 own, u32 k) {
    u32 found = 0;
#pragma unroll 1
    for (u32 bit = 31; bit + 1 > 32 - BITS; bit--) {
        const u32 trial = found | 1u << bit;
        if (__syncthreads_count(own >= trial) >= k) found = trial;
    }
    return from_ordered(max(found, to_ordered(-INFINITE)));
}

// Rounds a query a block to `terms` numbers of 16 bits, whose sum is the query times a power of two, with which its largest
// number is from 1 to 2. Blocks past `queries` write zeros.
//
// norms: the Euclidean norm. scales: the power of two. slacks: twice the largest error of its ranks in the scan; infinite
// where it cannot be bounded. largest_norm is that of the corpus. part_maxima, of queries that are rounded, are set to 0.
template <class Corpus>
static __device__ void prepare(u32 queries, u32 dimension, u32 padded, u32 terms, u32 metric, float largest_norm,
    const float* numbers, u16* rounded, double* norms, float* scales, float* slacks, u32* part_maxima) {
    typedef typename Corpus::Format Format;
    const u32 query = blockIdx.x, columns = gridDim.x;
    const bool is_query = query < queries;
    const float* own = numbers + u64(query) * dimension;
    float largest = 0;
    double squares = 0;
#pragma unroll 1
    for (u32 i = threadIdx.x; is_query && i < dimension; i += THREADS) {
        largest = fmaxf(largest, fabsf(own[i]));
        squares += double(own[i]) * own[i];
    }
    largest = block_max(largest);
    const double norm = sqrt(block_sum(squares));
    const bool is_bounded = norm > 1e-12 && norm < 1e12;
    const float scale = is_bounded ? exp2f(-float(ilogbf(largest))) : 1.0f;
    double lost = 0;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < padded; i += THREADS) {
        float rest = is_query && is_bounded && i < dimension ? own[i] * scale : 0.0f;
#pragma unroll 1
        for (u32 term = 0; term < terms; term++) {
            const u32 bits = Format::round(rest);
            rounded[(u64(term) * columns + query) * padded + i] = u16(bits);
            rest -= Format::widen(bits);
        }
        lost += double(rest) * rest;
    }
    lost = sqrt(block_sum(lost));
    if (terms > 0 && is_query) {
        for (u32 part = threadIdx.x; part < PARTS; part += THREADS) part_maxima[query * PARTS + part] = 0;
    }
    if (threadIdx.x > 0 || !is_query) return;
    const double own_norm = norm * scale;
    // An addition of a tensor core loses less than the last of 23 bits, and each number is added for each term.
    double relative = double(terms) * (padded + 64) * 0x1p-22;
    // Numbers of single precision are rounded to 8 bits, or to the sum of two such.
    if (sizeof(typename Corpus::Stored) == 4) relative += terms > 1 ? 0x1p-16 : 0x1p-9;
    double error = lost + relative * (own_norm + lost);
    // Ranks are rounded to single precision when they are compared in the end, and here lose their lower eight bits.
    if (metric == COSINE) error += 0x1p-14 * own_norm;
    if (metric == DOT) error = (error + 0x1p-14 * own_norm) * largest_norm;
    if (metric == L2) {
        const double sum = norm + largest_norm;
        error = 2 * error * largest_norm + 0x1p-14 * scale * sum * sum;
    }
    norms[query] = norm;
    scales[query] = scale;
    slacks[query] = is_bounded ? float(2 * error * (1 + 0x1p-20)) : INFINITE;
}

template <u32 COLUMNS>
static __device__ void load_columns(float (&columns)[COLUMNS], u32 queries, const float* values) {
    for (u32 i = threadIdx.x; i < COLUMNS; i += blockDim.x) columns[i] = i < queries ? values[i] : 1.0f;
}

// maxima[query * groups + group]: the best rank of each group from first_group to end_group, for queries of which there are
// COLUMNS, or as many of these as `queries`. The dimension is a multiple of 8.
#if __CUDA_ARCH__ < 800
// Without tensor cores: a vector a thread, four queries at a time.
template <class Corpus, u32 COLUMNS, u32 TERMS, u32 STAGES, u32 UNROLL, u32 AHEAD>
static __device__ void scan(u32 queries, u32 rows, u32 dimension, u32 padded, u32 metric, u32 first_group, u32 end_group,
    const typename Corpus::Stored* corpus, const float* norms, const u16* rounded, const float* scales, const float* slacks,
    float* maxima, u32* part_maxima, CancelSignal cancel) {
    constexpr u32 QUERIES = 4;
    extern __shared__ uint4 shared[];
    __shared__ float column_scales[COLUMNS], column_slacks[COLUMNS];
    if (is_cancelled(cancel)) return;
    load_queries<TERMS * COLUMNS>(shared, padded, rounded);
    load_columns(column_scales, queries, scales);
    load_columns(column_slacks, queries, slacks);
    __syncthreads();
    const u32 lane = threadIdx.x % 32, groups = (rows + GROUP - 1) / GROUP, warps = blockDim.x / 32;
    const u32 stride = query_stride(padded) / 16;
    const RankOfProduct rank(metric);
    for (u32 group = first_group + blockIdx.x * warps + threadIdx.x / 32; group < end_group; group += gridDim.x * warps) {
        const u32 row = min(group * GROUP + lane, rows - 1);
        const float factor = rank.factor(norms[row]), penalty = rank.penalty(norms[row]);
        for (u32 first = 0; first < queries; first += QUERIES) {
            float acc[QUERIES] = {};
#pragma unroll 1
            for (u32 at = 0; at < dimension; at += 8) {
                const auto eight = load8(corpus + u64(row) * dimension, at, dimension, true);
#pragma unroll
                for (u32 i = 0; i < QUERIES; i++) {
#pragma unroll
                    for (u32 term = 0; term < TERMS; term++) {
                        Eight<u16> query;
                        query.words[0] = shared[(term * COLUMNS + first + i) * stride + at / 8];
#pragma unroll
                        for (u32 j = 0; j < 8; j++) {
                            const float q = Corpus::Format::widen(query.numbers[j]);
                            acc[i] = fmaf(q, Corpus::widen(eight.numbers[j]), acc[i]);
                        }
                    }
                }
            }
#pragma unroll
            for (u32 i = 0; i < QUERIES; i++) {
                BestTwo two;
                const float own = fmaf(-column_scales[first + i], penalty, acc[i] * factor);
                two.add(group * GROUP + lane < rows ? own : NO_RANK, lane);
                for (u32 bit = 16; bit > 0; bit /= 2) two.merge_lanes(bit);
                const float value = two.packed(__fdividef(1.0f, column_slacks[first + i]));
                if (lane > 0 || first + i >= queries) continue;
                maxima[u64(first + i) * groups + group] = value;
                atomicMax(part_maxima + (first + i) * PARTS + group % PARTS, to_ordered(value));
            }
        }
    }
}
#else
// A warp has STAGES chunks of its vectors in flight, and UNROLL of them are multiplied before as many are loaded again.
template <class Corpus, u32 COLUMNS, u32 TERMS, u32 STAGES, u32 UNROLL, u32 AHEAD>
static __device__ void scan(u32 queries, u32 rows, u32 dimension, u32 padded, u32 metric, u32 first_group, u32 end_group,
    const typename Corpus::Stored* corpus, const float* norms, const u16* rounded, const float* scales, const float* slacks,
    float* maxima, u32* part_maxima, CancelSignal cancel) {
    typedef typename Corpus::Stored Stored;
    typedef TensorCores<Corpus, COLUMNS, TERMS> Cores;
    static_assert(STAGES % UNROLL == 0 && UNROLL * CHUNK * sizeof(Stored) % 128 == 0, "whole stages and lines");
    constexpr u32 TILES = COLUMNS / 8, WORDS = sizeof(Stored) / 2;
    extern __shared__ uint4 shared[];
    __shared__ float column_scales[COLUMNS], column_slacks[COLUMNS];
    if (is_cancelled(cancel)) return;
    Cores cores(shared, padded, rounded);
    load_columns(column_scales, queries, scales);
    load_columns(column_slacks, queries, slacks);
    __syncthreads();

    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 groups = (rows + GROUP - 1) / GROUP, warps = gridDim.x * (blockDim.x / 32);
    const u32 first = first_group + blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const u32 chunks = padded / CHUNK;
    // Four warps go on together, also where some of them have no group.
    const u32 end = end_group + threadIdx.x / 32 % 4;
    const RankOfProduct rank(metric);

    // What is loaded next: a chunk of the vectors g and g + 8 of a half of a group. Offsets are in units of eight numbers.
    Eight<Stored> stages[STAGES][2];
    u32 next_group = first, next_half = 0, next_at = 8 * t, offsets[2];
    const auto load_next = [&](Eight<Stored> (&stage)[2]) {
        if (next_at < CHUNK) {
#pragma unroll
            for (u32 i = 0; i < 2; i++)
                offsets[i] = min(next_group * GROUP + 16 * next_half + g + 8 * i, rows - 1) * (dimension / 8) + t;
        }
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            const uint4* from = reinterpret_cast<const uint4*>(corpus) + u64(offsets[i]) * WORDS;
#pragma unroll
            for (u32 word = 0; word < WORDS; word++)
                stage[i].words[word] =
                    next_at < dimension && next_group < end_group ? load_once(from + word) : make_uint4(0, 0, 0, 0);
            offsets[i] += CHUNK / 8;
        }
        next_at += CHUNK;
        if (next_at >= padded) {
            next_at = 8 * t;
            next_group += next_half * warps;
            next_half ^= 1;
        }
    };
    // What is brought into the second-level cache next: a line of each of the 16 vectors of a half of a group. Where shared
    // memory is large, the first-level cache has too few lines for all that has to be in flight.
    constexpr u32 LINE = 128 / sizeof(Stored);
    u32 ahead_group = first, ahead_half = 0, ahead_at = 0;
    const auto prefetch_next = [&] {
        const u32 row = ahead_group * GROUP + 16 * ahead_half + lane;
        if (lane < 16 && ahead_group < end_group && row < rows && ahead_at < dimension)
            asm volatile("prefetch.global.L2 [%0];" ::"l"(corpus + u64(row) * dimension + ahead_at));
        ahead_at += LINE;
        if (ahead_at >= padded) {
            ahead_at = 0;
            ahead_group += ahead_half * warps;
            ahead_half ^= 1;
        }
    };
    if constexpr (AHEAD > 0) {
#pragma unroll 1
        for (u32 i = 0; i < AHEAD; i++) prefetch_next();
    }
#pragma unroll
    for (u32 stage = 0; stage < STAGES; stage++) load_next(stages[stage]);

    // The best of the groups of this warp, which are in one part.
    float best_of_part[(TILES + 7) / 8][2];
#pragma unroll
    for (u32 i = 0; i < (TILES + 7) / 8; i++) best_of_part[i][0] = best_of_part[i][1] = NO_RANK;
    for (u32 group = first; group < end; group += warps) {
        // The best of the columns 2 t and 2 t + 1 of the tiles g, g + 8 and so on.
        BestTwo best[(TILES + 7) / 8][2];
#pragma unroll 1
        for (u32 half = 0; half < 2; half++) {
            const u32 row = group * GROUP + 16 * half + g;
            const float row_norms[2] = {norms[min(row, rows - 1)], norms[min(row + 8, rows - 1)]};
            cores.clear();
#pragma unroll 1
            for (u32 chunk = 0; chunk < chunks; chunk += STAGES) {
#pragma unroll
                for (u32 stage = 0; stage < STAGES; stage += UNROLL) {
                    Operands<Corpus, Cores::PARTS> a[UNROLL][2];
#pragma unroll
                    for (u32 i = 0; i < UNROLL; i++) {
                        a[i][0] = operands<Corpus, Cores::PARTS>(stages[stage + i][0]);
                        a[i][1] = operands<Corpus, Cores::PARTS>(stages[stage + i][1]);
                    }
#pragma unroll
                    for (u32 i = 0; i < UNROLL; i++) cores.add(chunk + stage + i, a[i][0], a[i][1]);
#pragma unroll
                    for (u32 i = 0; i < UNROLL; i++) load_next(stages[stage + i]);
                    if constexpr (AHEAD > 0) {
#pragma unroll
                        for (u32 i = 0; i < UNROLL * CHUNK / LINE; i++) prefetch_next();
                    }
                }
            }
            // They are together; this spares a second copy of what follows for a warp whose threads are not.
            __syncwarp();
            float factors[2], penalties[2];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                factors[i] = rank.factor(row_norms[i]);
                penalties[i] = rank.penalty(row_norms[i]);
            }
#pragma unroll
            for (u32 tile = 0; tile < TILES; tile++) {
#pragma unroll
                for (u32 column = 0; column < 2; column++) {
                    const float scale = column_scales[8 * tile + 2 * t + column];
                    BestTwo two;
#pragma unroll
                    for (u32 i = 0; i < 2; i++) {
                        const float value = fmaf(-scale, penalties[i], cores.acc[tile][2 * i + column] * factors[i]);
                        two.add(row + 8 * i < rows ? value : NO_RANK, 16 * half + g + 8 * i);
                    }
#pragma unroll
                    for (u32 bit = 4; bit < 32; bit *= 2) two.merge_lanes(bit);
                    if (tile % 8 == g) best[tile / 8][column].merge(two.best, two.second);
                }
            }
        }
        if (group >= end_group) continue;
#pragma unroll
        for (u32 i = 0; i < (TILES + 7) / 8; i++) {
#pragma unroll
            for (u32 column = 0; column < 2; column++) {
                const u32 query = 64 * i + 8 * g + 2 * t + column;
                const float packed = best[i][column].packed(__fdividef(1.0f, column_slacks[query % COLUMNS]));
                best_of_part[i][column] = fmaxf(best_of_part[i][column], packed);
                if (8 * i + g < TILES && query < queries) maxima[u64(query) * groups + group] = packed;
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < (TILES + 7) / 8; i++) {
#pragma unroll
        for (u32 column = 0; column < 2; column++) {
            const u32 query = 64 * i + 8 * g + 2 * t + column;
            if (8 * i + g < TILES && query < queries)
                atomicMax(part_maxima + query * PARTS + first % PARTS, to_ordered(best_of_part[i][column]));
        }
    }
}
#endif

// The rank of a vector in double precision, by a warp.
template <class Corpus>
static __device__ float exact_rank(u32 metric, u32 dimension, bool aligned, const float* query, double norm,
    const typename Corpus::Stored* vector) {
    const bool query_aligned = dimension % 8 == 0;
    double sum = 0, squares = 0;
#pragma unroll 1
    for (u32 at = 8 * (threadIdx.x % 32); at < dimension; at += 256) {
        const auto numbers = load8(vector, at, dimension, aligned);
        const auto query_numbers = load8(query, at, dimension, query_aligned);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const double c = Corpus::widen(numbers.numbers[i]), q = query_numbers.numbers[i];
            if (metric == L2) {
                sum += (q - c) * (q - c);
            } else {
                sum += q * c;
                if (metric == COSINE) squares += c * c;
            }
        }
    }
    for (u32 offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        squares += __shfl_xor_sync(ALL_LANES, squares, offset);
    }
    double rank = sum;
    if (metric == L2) rank = -sqrt(sum);
    if (metric == COSINE) {
        const double norms = norm * sqrt(squares);
        rank = norms > 0 ? sum / norms : 0;
    }
    // Not -0, which would come after 0.
    return float(rank) + 0.0f;
}

// The rank of a vector and its index as one number, as `Key` in score.rs. Of equal ranks the lower index has the larger key.
static __device__ u64 key_of(float rank, u32 row) { return u64(to_ordered(rank)) << 32 | ~row; }

// maxima[group]: the best rank of each group for one query, in double precision, a group a warp.
template <class Corpus>
static __device__ void exact(u32 rows, u32 dimension, u32 metric, const float* query, const double* norm,
    const typename Corpus::Stored* corpus, float* maxima, CancelSignal cancel) {
    u32 rounds = 0;
    const bool aligned = dimension % 8 == 0 && u64(corpus) % 16 == 0;
    const u32 groups = (rows + GROUP - 1) / GROUP;
    for (u32 group = blockIdx.x * WARPS + threadIdx.x / 32; group < groups; group += gridDim.x * WARPS) {
        bool stops = cancel.is_seen();
        // One block polls the host's flag, now and then.
        if (blockIdx.x == 0 && threadIdx.x % 32 == 0 && ++rounds % 16 == 1) stops = stops || cancel.poll_cancel();
        if (__any_sync(ALL_LANES, stops)) return;
        float best = -INFINITE;
#pragma unroll 1
        for (u32 row = group * GROUP; row < min(rows, (group + 1) * GROUP); row++)
            best = fmaxf(best, exact_rank<Corpus>(metric, dimension, aligned, query, *norm, corpus + u64(row) * dimension));
        if (threadIdx.x % 32 == 0) maxima[group] = best;
    }
}

// Sorts keys in shared memory from the largest on, by a bitonic network. `size` is a power of two.
static __device__ void sort_descending(u64* keys, u32 size) {
    for (u32 run = 2; run <= size; run *= 2) {
        for (u32 stride = run / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (u32 pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                const u32 low = 2 * pair - (pair & (stride - 1)), high = low + stride;
                const u64 a = keys[low], b = keys[high];
                const bool descends = (low & run) == 0;
                if ((a < b) == descends) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
        }
    }
    __syncthreads();
}

// The groups of a query whose rank in a scan is not below a bound.
struct Groups {
    float ranks[SELECT_THREADS];
    u32 indices[SELECT_THREADS];
    // It is larger than the arrays where there is no room for all.
    u32 count;

    // Finds them, by a block. `count` is 0 before.
    __device__ void find(float bound, u32 groups, const float* maxima) {
        constexpr u32 UNROLL = 16;
#pragma unroll 1
        for (u32 first = threadIdx.x; first < groups; first += UNROLL * SELECT_THREADS) {
            float values[UNROLL];
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                const u32 group = first + i * SELECT_THREADS;
                values[i] = group < groups ? maxima[group] : -INFINITE;
            }
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                const u32 group = first + i * SELECT_THREADS;
                if (values[i] < bound || group >= groups) continue;
                const u32 place = atomicAdd(&count, 1);
                if (place >= SELECT_THREADS) break;
                ranks[place] = values[i];
                indices[place] = group;
            }
        }
        __syncthreads();
    }

    // How many are better than one. They are few, so that each counts them.
    __device__ u32 count_better(float rank, u32 index) const {
        u32 better = 0;
        for (u32 i = 0; i < min(count, SELECT_THREADS); i++)
            better += ranks[i] > rank || (ranks[i] == rank && indices[i] < index);
        return better;
    }
};

// keys: those of the best k vectors of a query, a query a block, from the ranks of a scan. overflows: whether there was no
// room for all vectors that may be among them.
//
// part_maxima: ordered bits of the best rank of each part of the groups. The k-th best part is no better than the k-th best
// group, and almost as good where k is small beside PARTS, so that few groups are compared. Of most groups that remain only
// the best vector may be one of the best k.
template <class Corpus>
static __device__ void find_best(u32 rows, u32 dimension, u32 metric, u32 k, const float* numbers, const double* norms,
    const float* slacks, const typename Corpus::Stored* corpus, const float* maxima, const u32* part_maxima, u64* overflows,
    u64* keys) {
    constexpr u32 MOST = 2048;
    __shared__ Groups found;
    __shared__ u32 vectors[MOST];
    __shared__ u64 sorted[MOST];
    __shared__ u32 number;
    __shared__ float kth;
    const u32 query = blockIdx.x, thread = threadIdx.x, groups = (rows + GROUP - 1) / GROUP;
    if (thread == 0) {
        found.count = number = 0;
        kth = -INFINITE;
    }
    const float slack = slacks[query];
    const float kth_part = kth_largest<16>(thread < PARTS ? part_maxima[query * PARTS + thread] : 0, k);
    found.find(kth_part - slack, groups, maxima + u64(query) * groups);

    const bool is_there = thread < min(found.count, SELECT_THREADS);
    const float rank = is_there ? found.ranks[thread] : -INFINITE;
    const u32 group = is_there ? found.indices[thread] : 0;
    if (is_there && found.count_better(rank, group) == k - 1) kth = rank;
    __syncthreads();
    const float least = kth - slack;
    if (is_there && rank >= least) {
        const bool is_alone = BestTwo::others(rank, slack) < least;
        const u32 first = group * GROUP + (is_alone ? BestTwo::index(rank) : 0);
        const u32 count = is_alone ? 1 : min(GROUP, rows - first);
        const u32 place = atomicAdd(&number, count);
        for (u32 i = 0; i < count && place + i < MOST; i++) vectors[place + i] = first + i;
    }
    __syncthreads();
    if (thread == 0) overflows[query] = found.count > SELECT_THREADS || number > MOST;

    const u32 count = min(number, MOST);
    u32 size = 1;
    while (size < count) size *= 2;
    const bool aligned = dimension % 8 == 0 && u64(corpus) % 16 == 0;
    for (u32 i = thread / 32; i < size; i += SELECT_THREADS / 32) {
        u64 key = 0;
        if (i < count) {
            const u32 row = vectors[i];
            const float value = exact_rank<Corpus>(metric, dimension, aligned, numbers + u64(query) * dimension, norms[query],
                corpus + u64(row) * dimension);
            key = key_of(value, row);
        }
        if (thread % 32 == 0) sorted[i] = key;
    }
    sort_descending(sorted, size);
    for (u32 i = thread; i < k; i += SELECT_THREADS) keys[u64(query) * k + i] = i < size ? sorted[i] : 0;
}

// candidates: the keys of the vectors of the selected groups of each query, a group a block, and 0 for those that are not
// among the best k. selected_ranks and selected are the `places` best groups of each query, best first. overflows: whether
// more groups than these may have vectors among the best k.
template <class Corpus>
static __device__ void rank(u32 rows, u32 dimension, u32 metric, u32 k, u32 places, const float* numbers, const double* norms,
    const float* slacks, const typename Corpus::Stored* corpus, const float* selected_ranks, const u32* selected,
    u64* candidates, u64* overflows) {
    const u32 query = blockIdx.y, groups = (rows + GROUP - 1) / GROUP, place = blockIdx.x;
    const float* ranks = selected_ranks + u64(query) * places;
    const float least = k <= places ? ranks[k - 1] - slacks[query] : -INFINITE;
    if (place == 0 && threadIdx.x == 0) overflows[query] = ranks[places - 1] >= least && places < groups;
    const bool aligned = dimension % 8 == 0 && u64(corpus) % 16 == 0, is_candidate = ranks[place] >= least;
    const u32 first = selected[u64(query) * places + place] * GROUP;
    for (u32 vector = threadIdx.x / 32; vector < GROUP; vector += WARPS) {
        const u32 row = first + vector;
        u64 key = 0;
        if (is_candidate && row < rows) {
            const float value = exact_rank<Corpus>(metric, dimension, aligned, numbers + u64(query) * dimension, norms[query],
                corpus + u64(row) * dimension);
            key = key_of(value, row);
        }
        if (threadIdx.x % 32 == 0) candidates[(u64(query) * places + place) * GROUP + vector] = key;
    }
}

#define SCAN(corpus, name, columns, threads, blocks, ...)                                                                \
    extern "C" __global__ void __launch_bounds__(threads, blocks) similarity_scan_##name##_##columns(u32 queries,        \
        u32 rows, u32 dimension, u32 padded, u32 metric, u32 first_group, u32 end_group, const corpus::Stored* vectors,  \
        const float* norms, const u16* rounded, const float* scales, const float* slacks, float* maxima,                 \
        u32* part_maxima, const volatile u32* flag, u32* cancelled) {                                                              \
        __VA_ARGS__(queries, rows, dimension, padded, metric, first_group, end_group, vectors, norms, rounded, scales,   \
            slacks, maxima, part_maxima, {flag, cancelled});                                                                     \
    }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define SCAN_128(corpus, stages) ring::ring_scan<corpus>
#define SCAN_128_OF_F32 wide_ring::ring_scan
#else
#define SCAN_128(corpus, stages) scan<corpus, 128, 1, stages, 2, 6>
#define SCAN_128_OF_F32 SCAN_128(F32, 2)
#endif

#define ENTRIES(corpus, name, stages, ...)                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) similarity_prepare_##name(u32 queries, u32 dimension,          \
        u32 padded, u32 terms, u32 metric, float largest_norm, const float* numbers, u16* rounded, double* norms,        \
        float* scales, float* slacks, u32* part_maxima) {                                                 \
        prepare<corpus>(queries, dimension, padded, terms, metric, largest_norm, numbers, rounded, norms, scales,        \
            slacks, part_maxima);                                                                              \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) similarity_exact_##name(u32 rows, u32 dimension, u32 metric,   \
        const float* query, const double* norm, const corpus::Stored* vectors, float* maxima,                            \
        const volatile u32* flag, u32* cancelled) {                                                                      \
        exact<corpus>(rows, dimension, metric, query, norm, vectors, maxima, {flag, cancelled});                         \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS) similarity_best_##name(u32 rows, u32 dimension,         \
        u32 metric, u32 k, const float* numbers, const double* norms, const float* slacks,                               \
        const corpus::Stored* vectors, const float* maxima, const u32* part_maxima, u64* overflows, u64* keys) {         \
        find_best<corpus>(rows, dimension, metric, k, numbers, norms, slacks, vectors, maxima, part_maxima, overflows,   \
            keys);                                                                                                       \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) similarity_rank_##name(u32 rows, u32 dimension, u32 metric,    \
        u32 k, u32 places, const float* numbers, const double* norms, const float* slacks,                               \
        const corpus::Stored* vectors, const float* selected_ranks, const u32* selected, u64* candidates,                \
        u64* overflows) {                                                                                                \
        rank<corpus>(rows, dimension, metric, k, places, numbers, norms, slacks, vectors, selected_ranks, selected,      \
            candidates, overflows);                                                                                      \
    }                                                                                                                    \
    SCAN(corpus, name, 8, 256, 2, scan<corpus, 8, 2, 2 * stages, 2, 0>)                                                  \
    SCAN(corpus, name, 64, 256, 1, scan<corpus, 64, 1, 2 * stages, 2, 0>)                                                \
    SCAN(corpus, name, 128, 384, 1, __VA_ARGS__)

// As many bytes in flight for each type.
ENTRIES(F32, f32, 2, SCAN_128_OF_F32)
ENTRIES(F16, f16, 4, SCAN_128(F16, 4))
ENTRIES(Bf16, bf16, 4, SCAN_128(Bf16, 4))
