// Katz centrality by power iteration. spmv.cuh has the sums over predecessors.
//
// Element `node` of `values` is the node's score, as is places[node] of `from` before an iteration and that of `to` after
// it. `squares` has the sum of the squares of the scores. The scores are 0 in the beginning.
//
// Host algorithm: the ranks of rows and chunks; then, until the vector is done, spmv_multiply_1 and katz_update, with
// `from` and `to` swapped after each pair; then katz_normalize, if scores are to be normalized. Further launches of the
// former two do nothing.

#include "spmv_segments.cuh"

struct UpdateScore {
    double alpha;
    const double* betas;
    const u32* places;
    double* values;
    double* to;

    struct Loaded {
        double old, beta;
        u32 place;
    };

    __device__ Loaded load(u32 node, u32) const { return {values[node], betas[node], places[node]}; }

    __device__ double2 operator()(u32 node, u32, const Loaded& loaded, double sum) const {
        const double score = alpha * sum + loaded.beta;
        values[node] = score;
        to[loaded.place] = score;
        return make_double2(fabs(score - loaded.old), score * score);
    }
};

// Ends an iteration with the sums of rows.
template <class RowSums>
static __device__ void update_scores(const RowSums& row_sums, const UpdateScore& update, IterationState* states,
    double* squares, double2* block_sums, u32* blocks_done) {
    const auto finish = [=](u32 vector, double2 sums) {
        states[vector].end_iteration(sums.x);
        *squares = sums.y;
    };
    update_nodes(row_sums, 1, states, block_sums, blocks_done, update, finish);
}

extern "C" __global__ void SPMV katz_update(u32 nodes, u32 chunks, u32 slots, u32 width, const u32* offsets,
    const u32* row_ranks, const u32* places, const double* sums, const double* carries, IterationState* states,
    double alpha, const double* betas, double* values, double* to, double* squares, double2* block_sums,
    u32* blocks_done) {
    const ChunkSums row_sums = {{nodes, chunks, offsets, row_ranks}, sums, carries};
    update_scores(row_sums, {alpha, betas, places, values, to}, states, squares, block_sums, blocks_done);
}

// The same after segments_multiply.
extern "C" __global__ void SEGMENTS_UPDATE katz_update_segments(u32 nodes, u32 sums_of_vector, u32 slots, u32 width,
    const u32* piece_offsets, const u32* positions, const u32* places, const double* sums, IterationState* states,
    double alpha, const double* betas, double* values, double* to, double* squares, double2* block_sums,
    u32* blocks_done) {
    const PieceSums row_sums = {nodes, sums_of_vector, piece_offsets, positions, sums};
    update_scores(row_sums, {alpha, betas, places, values, to}, states, squares, block_sums, blocks_done);
}

// Divides the scores by their norm, unless that is 0. Any grid.
extern "C" __global__ void SPMV katz_normalize(u32 nodes, const double* squares, double* values) {
    if (!(*squares > 0.0)) return;
    const double norm = sqrt(*squares);
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        values[node] /= norm;
    }
}
