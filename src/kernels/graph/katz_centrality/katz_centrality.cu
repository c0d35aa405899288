// Katz centrality by power iteration, several vectors at once. spmv.cuh has the sums over predecessors.
//
// Element v * nodes + node of `values` is the node's score in vector v, as is places[node] of the vector's Contributions in
// `from` before an iteration and in `to` after it; `betas` has the same order. `alphas` and `squares`, the sum of the squares
// of the scores, have an element for each vector. The scores are 0 in the beginning.
//
// Host algorithm: the ranks of rows and chunks; then, until all vectors are done, spmv_multiply_1 or _2 and katz_update, with
// `from` and `to` swapped after each update; then katz_normalize for each vector whose scores are to be normalized. Further
// launches of the former do nothing to a vector that is done.

#include "spmv_segments.cuh"

struct UpdateScore {
    u32 nodes;
    Contributions contributions;
    const u32* places;
    const double* alphas;
    const double* betas;
    double* values;
    double* to;

    struct Loaded {
        double old, beta;
        u32 place;
    };

    __device__ u64 index(u32 node, u32 vector) const { return (u64)vector * nodes + node; }

    __device__ Loaded load(u32 node, u32 vector) const {
        return {values[index(node, vector)], betas[index(node, vector)], places[node]};
    }

    __device__ double2 operator()(u32 node, u32 vector, const Loaded& loaded, double sum) const {
        const double score = alphas[vector] * sum + loaded.beta;
        values[index(node, vector)] = score;
        to[contributions.index(loaded.place, vector)] = score;
        return make_double2(fabs(score - loaded.old), score * score);
    }
};

// Ends an iteration with the sums of rows.
template <class RowSums>
static __device__ void update_scores(const RowSums& row_sums, const UpdateScore& update, IterationState* states,
    double* squares, double2* block_sums, u32* blocks_done) {
    const auto finish = [=](u32 vector, double2 sums) {
        states[vector].end_iteration(sums.x);
        squares[vector] = sums.y;
    };
    update_nodes(row_sums, update.contributions.width, states, block_sums, blocks_done, update, finish);
}

extern "C" __global__ void SPMV katz_update(u32 nodes, u32 chunks, u32 slots, u32 width, const u32* offsets,
    const u32* row_ranks, const u32* places, const double* sums, const double* carries, IterationState* states,
    const double* alphas, const double* betas, double* values, double* to, double* squares, double2* block_sums,
    u32* blocks_done) {
    const UpdateScore update = {nodes, {slots, width, true}, places, alphas, betas, values, to};
    const ChunkSums row_sums = {{nodes, chunks, offsets, row_ranks}, sums, carries};
    update_scores(row_sums, update, states, squares, block_sums, blocks_done);
}

// The same after segments_multiply.
extern "C" __global__ void SEGMENTS_UPDATE katz_update_segments(u32 nodes, u32 sums_of_vector, u32 slots, u32 width,
    const u32* piece_offsets, const u32* positions, const u32* places, const double* sums, IterationState* states,
    const double* alphas, const double* betas, double* values, double* to, double* squares, double2* block_sums,
    u32* blocks_done) {
    const UpdateScore update = {nodes, {slots, width, false}, places, alphas, betas, values, to};
    const PieceSums row_sums = {nodes, sums_of_vector, piece_offsets, positions, sums};
    update_scores(row_sums, update, states, squares, block_sums, blocks_done);
}

// Divides the scores by their norm, unless that is 0. Any grid.
extern "C" __global__ void SPMV katz_normalize(u32 nodes, const double* squares, double* values) {
    if (!(*squares > 0.0)) return;
    const double norm = sqrt(*squares);
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        values[node] /= norm;
    }
}
