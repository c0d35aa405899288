// PageRank by power iteration, several vectors at once. spmv.cuh has the sums over predecessors.
//
// Element `node` of vector v is ranks[v * nodes + node]. Its contribution to each of its successors, rank / out-degree
// and 0 for a node without successors, is contributions[node * width + v]; an iteration reads those of `from` and
// writes those of `to`. `inverse_degrees` has 1 / out-degree, or 0. A column is what is known of a vector; see the
// struct.
//
// Host algorithm: the ranks of rows and chunks, and pagerank_start; then, until all columns are done, pagerank_multiply
// and pagerank_update, with `from` and `to` swapped after each pair. Further launches do nothing to a column that is
// done.

#include "spmv.cuh"

constexpr u32 UNIFORM = 0xffffffffu; // as a seed: every node has the same weight
constexpr u32 DENSE = 0xfffffffeu;   // as a seed: the weights are in `weights`

struct Column {
    double damping;
    double tolerance;  // the L1 difference of two iterations below which it is done
    double dangling;   // the sum of the ranks of nodes without successors
    double difference; // of the last two iterations
    u32 seed;          // the node that has all the weight of the personalization, UNIFORM or DENSE
    u32 max_iterations;
    u32 iterations;
    u32 done;
};

struct UpdateRank {
    u32 nodes, width;
    double uniform; // 1 / nodes
    const double* inverse_degrees;
    const double* weights; // weights[node * width + v], of columns that are DENSE
    const Column* columns;
    double* ranks;
    double* to;

    __device__ double weight(const Column& column, u32 node, u32 vector) const {
        if (column.seed == UNIFORM) return uniform;
        if (column.seed == DENSE) return weights[(u64)node * width + vector];
        return column.seed == node ? 1.0 : 0.0;
    }

    __device__ double2 operator()(u32 node, u32 vector, double sum) const {
        const Column& column = columns[vector];
        const double share = weight(column, node, vector);
        const double rank = column.damping * (sum + column.dangling * share) + (1.0 - column.damping) * share;
        double* const old = ranks + (u64)vector * nodes + node;
        const double difference = fabs(rank - *old);
        *old = rank;
        const double inverse_degree = inverse_degrees[node];
        to[(u64)node * width + vector] = rank * inverse_degree;
        return make_double2(inverse_degree > 0.0 ? 0.0 : rank, difference);
    }
};

struct FinishRank {
    __device__ void operator()(Column& column, double2 sums) const {
        column.dangling = sums.x;
        column.difference = sums.y;
        column.iterations++;
        column.done = sums.y < column.tolerance || column.iterations >= column.max_iterations;
    }
};

// Fills inverse_degrees, and the uniform ranks that iterations begin with. Any grid.
extern "C" __global__ void SPMV pagerank_start(u32 nodes, u32 width, double uniform, const u32* out_offsets,
    double* inverse_degrees, Column* columns, double* ranks, double* from, double2* block_sums, u32* blocks_done) {
    __shared__ double2 warp_sums[SPMV_WARPS];
    double2 dangling = make_double2(0.0, 0.0);
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        const u32 degree = out_offsets[node + 1] - out_offsets[node];
        const double inverse_degree = degree > 0 ? 1.0 / degree : 0.0;
        inverse_degrees[node] = inverse_degree;
        for (u32 vector = 0; vector < width; vector++) {
            ranks[(u64)vector * nodes + node] = uniform;
            from[(u64)node * width + vector] = uniform * inverse_degree;
        }
        dangling.x += degree > 0 ? 0.0 : 1.0; // a count, which is exact
    }
    dangling = add_block(dangling, warp_sums);
    for (u32 vector = 0; vector < width; vector++) {
        if (threadIdx.x == 0) block_sums[(u64)blockIdx.x * width + vector] = dangling;
    }
    finish_vectors(width, columns, block_sums, blocks_done, [=](Column& column, double2 sums) {
        column.dangling = sums.x * uniform;
    });
}

extern "C" __global__ void SPMV pagerank_multiply(u32 nodes, u32 chunks, u32 width, const u32* offsets,
    const u32* columns, const u32* ranks, const uint4* flags, const u32* chunk_ranks, const Column* state,
    const double* from, double* sums, double* carries) {
    const Matrix matrix = {nodes, chunks, offsets, columns, ranks, flags, chunk_ranks};
    multiply_chunk(matrix, width, state, from, sums, carries);
}

extern "C" __global__ void SPMV pagerank_update(u32 nodes, u32 chunks, u32 width, double uniform, const u32* offsets,
    const u32* row_ranks, const double* sums, const double* carries, const double* inverse_degrees,
    const double* weights, Column* state, double* ranks, double* to, double2* block_sums, u32* blocks_done) {
    const Matrix matrix = {nodes, chunks, offsets, nullptr, row_ranks, nullptr, nullptr};
    const UpdateRank update = {nodes, width, uniform, inverse_degrees, weights, state, ranks, to};
    update_nodes(matrix, width, state, sums, carries, block_sums, blocks_done, update, FinishRank{});
}
