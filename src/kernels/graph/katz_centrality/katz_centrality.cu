// Katz centrality by power iteration. spmv.cuh has the sums over predecessors.
//
// Element `node` of `values` is the node's score, as is that of `from` before an iteration and that of `to` after it.
// `squares` has the sum of the squares of the scores. The scores are 0 in the beginning.
//
// Host algorithm: the ranks of rows and chunks; then, until the vector is done, spmv_multiply and katz_update, with
// `from` and `to` swapped after each pair; then katz_normalize, if scores are to be normalized. Further launches of the
// former two do nothing.

#include "spmv.cuh"

extern "C" __global__ void SPMV katz_update(u32 nodes, u32 chunks, u32 width, const u32* offsets, const u32* row_ranks,
    const double* sums, const double* carries, IterationState* states, double alpha, const double* betas,
    double* values, double* to, double* squares, double2* block_sums, u32* blocks_done) {
    const Matrix matrix = {nodes, chunks, offsets, nullptr, row_ranks, nullptr, nullptr};
    const auto update = [=](u32 node, u32, double sum) {
        const double score = alpha * sum + betas[node];
        const double difference = fabs(score - values[node]);
        values[node] = score;
        to[node] = score;
        return make_double2(difference, score * score);
    };
    const auto finish = [=](u32 vector, double2 sums) {
        states[vector].end_iteration(sums.x);
        *squares = sums.y;
    };
    update_nodes(matrix, width, states, sums, carries, block_sums, blocks_done, update, finish);
}

// Divides the scores by their norm, unless that is 0. Any grid.
extern "C" __global__ void SPMV katz_normalize(u32 nodes, const double* squares, double* values) {
    if (!(*squares > 0.0)) return;
    const double norm = sqrt(*squares);
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        values[node] /= norm;
    }
}
