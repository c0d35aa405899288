// Eigenvector centrality by power iteration. spmv.cuh has the sums over predecessors.
//
// The score of a node is at places[node] of `from`. The last product is in `values`, by node, and then the next scores are
// in `to` and in `values`. `norm` has the Euclidean norm of the last product.
//
// Host algorithm: the ranks of rows and chunks, and eigenvector_start; then, until the vector is done, spmv_multiply_1,
// eigenvector_update and eigenvector_normalize, with `from` and `to` swapped after these three. Further launches do
// nothing.

#include "spmv_segments.cuh"

// Fills the scores that iterations begin with. Any grid.
extern "C" __global__ void SPMV eigenvector_start(
    u32 nodes, double uniform, const u32* places, double* values, double* from) {
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        values[node] = uniform;
        from[places[node]] = uniform;
    }
}

// Adds the node's own score, for the identity.
struct UpdateProduct {
    typedef double Loaded;
    double* values;

    __device__ double load(u32 node, u32) const { return values[node]; }

    __device__ double2 operator()(u32 node, u32, double score, double sum) const {
        const double value = score + sum;
        values[node] = value;
        return make_double2(value * value, 0.0);
    }
};

// Multiplies by the adjacency matrix plus the identity.
template <class RowSums>
static __device__ void update_product(const RowSums& row_sums, const IterationState* states, double* values,
    double* norm, double2* block_sums, u32* blocks_done) {
    const auto finish = [=](u32, double2 sums) { *norm = sqrt(sums.x); };
    update_nodes(row_sums, 1, states, block_sums, blocks_done, UpdateProduct{values}, finish);
}

extern "C" __global__ void SPMV eigenvector_update(u32 nodes, u32 chunks, u32 slots, u32 width, const u32* offsets,
    const u32* row_ranks, const u32* places, const double* sums, const double* carries, const IterationState* states,
    double* values, double* norm, double2* block_sums, u32* blocks_done) {
    const ChunkSums row_sums = {{nodes, chunks, offsets, row_ranks}, sums, carries};
    update_product(row_sums, states, values, norm, block_sums, blocks_done);
}

// The same after segments_multiply.
extern "C" __global__ void SEGMENTS_UPDATE eigenvector_update_segments(u32 nodes, u32 sums_of_vector, u32 slots,
    u32 width, const u32* piece_offsets, const u32* positions, const u32* places, const double* sums,
    const IterationState* states, double* values, double* norm, double2* block_sums, u32* blocks_done) {
    const PieceSums row_sums = {nodes, sums_of_vector, piece_offsets, positions, sums};
    update_product(row_sums, states, values, norm, block_sums, blocks_done);
}

// Divides by the norm, and ends the iteration.
extern "C" __global__ void SPMV eigenvector_normalize(u32 nodes, u32 width, const u32* places, IterationState* states,
    const double* norm, const double* from, double* values, double* to, double2* block_sums, u32* blocks_done) {
    const double of_product = *norm;
    const auto update = [=](u64 node, u32) {
        if (node >= nodes) return make_double2(0.0, 0.0);
        const double score = values[node] / of_product;
        const u32 place = places[node];
        values[node] = score;
        to[place] = score;
        return make_double2(fabs(score - from[place]), 0.0);
    };
    const auto finish = [=](u32 vector, double2 sums) { states[vector].end_iteration(sums.x); };
    update_rows(nodes, width, states, block_sums, blocks_done, update, finish);
}
