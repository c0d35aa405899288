// Sums over the points of each cluster, in an order that depends on the labels alone.
//
// Points are sorted by label with a counting sort: they are cut into parts, a warp counts the labels of its part, and a
// prefix sum over the counts, by label and then by part, gives the place of each part's points of each label. Then each
// cluster is cut into pieces of at most PIECE points, whose sums are added up in order. All sums are in double
// precision.

#ifndef TOWER_KERNELS_KMEANS_CENTROIDS
#define TOWER_KERNELS_KMEANS_CENTROIDS

#ifndef TOWER_KERNELS_SCAN
#error "centroids.cuh needs scan.cuh before it"
#endif

// A label of k or more is none: where a run is cancelled, the assignment ends before all points have labels, and what
// has been launched after it runs nevertheless.

constexpr u32 ALL_LANES = 0xffffffff;

// Adds the labels of each part to `counts[label * parts + part]`, which is zero before. A warp for each part.
static __device__ void count_labels(u32 n, u32 k, u32 part_len, u32 parts, const u32* labels, u32* counts) {
    const u32 part = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (part >= parts) return;
    const u64 start = (u64)part * part_len, end = min(start + part_len, (u64)n);
    for (u64 i = start + threadIdx.x % 32; i < end; i += 32) {
        const u32 label = labels[i];
        if (label < k) atomicAdd(&counts[(u64)label * parts + part], 1);
    }
}

// Writes the points in the order of their labels, those of the same label in their own order. `places[label * parts +
// part]` is where the part's points of this label begin, and becomes where they end.
static __device__ void sort_by_label(
    u32 n, u32 k, u32 part_len, u32 parts, const u32* labels, u32* places, u32* order) {
    const u32 part = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (part >= parts) return;
    const u64 start = (u64)part * part_len, end = min(start + part_len, (u64)n);
    for (u64 base = start; base < end; base += 32) {
        const u64 i = base + lane;
        const u32 label = i < end ? labels[i] : k;
        const bool has_point = label < k;
        const u32 lanes = __match_any_sync(ALL_LANES, label);
        const u32 leader = __ffs(lanes) - 1;
        u32 place = 0;
        if (has_point && lane == leader) place = atomicAdd(&places[(u64)label * parts + part], __popc(lanes));
        place = __shfl_sync(ALL_LANES, place, leader) + __popc(lanes & ((1u << lane) - 1));
        if (has_point) order[place] = (u32)i;
    }
}

// How the threads of a block share rows: FEATURES neighbours read a row together, and the others read other rows.
struct RowThreads {
    u32 width;   // threads of a row, a power of two
    u32 lane;    // of the thread in its row
    u32 row;     // which of the block's rows it reads
    u32 rows;

    // For rows of `features` elements; `most` is a power of two.
    __device__ RowThreads(u32 features, u32 most) {
        width = 1;
        while (width < features && width < most) width *= 2;
        lane = threadIdx.x % width;
        row = threadIdx.x / width;
        rows = blockDim.x / width;
    }
};

// The sum over the block's rows of a value of each lane, for the threads of row 0. `shared` has a word for each thread.
static __device__ double sum_over_rows(const RowThreads& threads, double value, double* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    if (threads.row == 0) {
        for (u32 row = 0; row < threads.rows; row++) sum += shared[row * threads.width + threads.lane];
    }
    return sum;
}

constexpr u32 PIECE = 256;
constexpr u32 PIECE_THREADS = 128;

// Where the points of a cluster end in the sorted order: where its last part ends.
static __device__ u32 cluster_end(u32 parts, const u32* places, u32 cluster) {
    return places[(u64)(cluster + 1) * parts - 1];
}

static __device__ u32 cluster_start(u32 parts, const u32* places, u32 cluster) {
    return cluster == 0 ? 0 : cluster_end(parts, places, cluster - 1);
}

// first_pieces[c] is the number of pieces of the clusters before c, for c from 0 to k. One block of THREADS threads.
template <u32 THREADS>
static __device__ void count_pieces(u32 k, u32 parts, const u32* places, u32* first_pieces) {
    u32 before = 0;
    for (u32 base = 0; base < k; base += THREADS) {
        const u32 cluster = base + threadIdx.x;
        u32 pieces = 0;
        if (cluster < k) {
            const u32 len = cluster_end(parts, places, cluster) - cluster_start(parts, places, cluster);
            pieces = (len + PIECE - 1) / PIECE;
        }
        u32 total;
        const u32 first = before + scan_block<THREADS>(pieces, total);
        if (cluster < k) first_pieces[cluster] = first;
        before += total;
    }
    if (threadIdx.x == 0) first_pieces[k] = before;
}

// The sum of the points of a piece, for a block of PIECE_THREADS threads: piece_sums[piece * d + feature].
static __device__ void sum_piece(u32 piece, u32 d, u32 k, u32 parts, const float* points, const u32* places,
    const u32* order, const u32* first_pieces, double* piece_sums) {
    __shared__ double shared[PIECE_THREADS * 4];
    __shared__ u32 rows[PIECE];
    // The last cluster that begins at or before this piece and is not empty.
    u32 low = 0, high = k;
    while (high - low > 1) {
        const u32 middle = low + (high - low) / 2;
        if (first_pieces[middle] <= piece) low = middle;
        else high = middle;
    }
    const u32 start = cluster_start(parts, places, low) + (piece - first_pieces[low]) * PIECE;
    const u32 len = min(PIECE, cluster_end(parts, places, low) - start);
    for (u32 i = threadIdx.x; i < len; i += PIECE_THREADS) rows[i] = order[start + i];
    __syncthreads();
    const bool is_packed = d % 4 == 0 && (u64)points % 16 == 0;
    const u32 packs = is_packed ? d / 4 : d;
    const RowThreads threads(packs, PIECE_THREADS);
    for (u32 base = 0; base < packs; base += threads.width) {
        const u32 pack = base + threads.lane;
        const bool has_pack = pack < packs;
        double sums[4] = {0.0, 0.0, 0.0, 0.0};
        if (has_pack && is_packed) {
            const float4* const column = (const float4*)points + pack;
#pragma unroll 8
            for (u32 i = threads.row; i < len; i += threads.rows) {
                const float4 x = __ldcs(column + (u64)rows[i] * packs);
                sums[0] += x.x;
                sums[1] += x.y;
                sums[2] += x.z;
                sums[3] += x.w;
            }
        } else if (has_pack) {
#pragma unroll 8
            for (u32 i = threads.row; i < len; i += threads.rows) sums[0] += points[(u64)rows[i] * packs + pack];
        }
        const u32 elements = is_packed ? 4 : 1;
#pragma unroll
        for (u32 element = 0; element < 4; element++) {
            if (element >= elements) break;
            const double sum = sum_over_rows(threads, sums[element], shared);
            if (threads.row == 0 && has_pack) piece_sums[(u64)piece * d + pack * elements + element] = sum;
        }
    }
}

#endif
