// PageRank by power iteration, several vectors at once. spmv.cuh has the sums over predecessors.
//
// Element `node` of vector v is ranks[v * nodes + node]. Its contribution to each of its successors is rank / out-degree,
// and 0 for a node without successors, at places[node] of the vector's Contributions; an iteration reads those of `from`
// and writes those of `to`. `inverse_degrees` has 1 / out-degree, or 0.
//
// Host algorithm: the ranks of rows and chunks, and pagerank_start; then, until all vectors are done, spmv_multiply_1 or
// _2 and pagerank_update, with `from` and `to` swapped after each update. Further launches do nothing to a vector that is
// done.

// overlap.cuh has code by __CUDA_ARCH__, so this source is compiled for each architecture.
#include "spmv_segments.cuh"

constexpr u32 UNIFORM = 0xffffffffu; // as a seed: every node has the same weight
constexpr u32 DENSE = 0xfffffffeu;   // as a seed: the weights are in `weights`

// The parameters of a vector.
struct Vector {
    double damping;
    double dangling; // the sum of the ranks of nodes without successors
    u32 seed;        // the node that has all the weight of the personalization, UNIFORM or DENSE
    u32 unused;
};

struct UpdateRank {
    u32 nodes;
    Contributions contributions;
    const u32* places;
    double uniform; // 1 / nodes
    const double* inverse_degrees;
    const double* weights; // weights[node * width + v], of vectors that are DENSE
    const Vector* vectors;
    double* ranks;
    double* to;

    __device__ double weight(u32 seed, u32 node, u32 vector) const {
        if (seed == UNIFORM) return uniform;
        if (seed == DENSE) return weights[(u64)node * contributions.width + vector];
        return seed == node ? 1.0 : 0.0;
    }

    struct Loaded {
        double old, inverse_degree;
        u32 place;
    };

    __device__ Loaded load(u32 node, u32 vector) const {
        return {ranks[(u64)vector * nodes + node], inverse_degrees[node], places[node]};
    }

    __device__ double2 operator()(u32 node, u32 vector, const Loaded& loaded, double sum) const {
        const Vector& parameters = vectors[vector];
        const double share = weight(parameters.seed, node, vector);
        const double damping = parameters.damping;
        const double rank = damping * (sum + parameters.dangling * share) + (1.0 - damping) * share;
        ranks[(u64)vector * nodes + node] = rank;
        // Other contributions stay 0.
        if (loaded.inverse_degree > 0.0) to[contributions.index(loaded.place, vector)] = rank * loaded.inverse_degree;
        return make_double2(loaded.inverse_degree > 0.0 ? 0.0 : rank, fabs(rank - loaded.old));
    }
};

// Fills inverse_degrees, and the uniform ranks that iterations begin with. Any grid.
extern "C" __global__ void SPMV pagerank_start(u32 nodes, u32 slots, u32 width, u32 in_pairs, double uniform, const u32* places,
    const u32* out_offsets, double* inverse_degrees, const IterationState* states, Vector* vectors, double* ranks, double* from,
    double2* block_sums, u32* blocks_done) {
    __shared__ double2 warp_sums[SPMV_WARPS];
    const Contributions contributions = {slots, width, in_pairs != 0};
    double2 dangling = make_double2(0.0, 0.0);
    for (u32 node = blockIdx.x * SPMV_THREADS + threadIdx.x; node < nodes; node += gridDim.x * SPMV_THREADS) {
        const u32 degree = out_offsets[node + 1] - out_offsets[node];
        const double inverse_degree = degree > 0 ? 1.0 / degree : 0.0;
        inverse_degrees[node] = inverse_degree;
        for (u32 vector = 0; vector < width; vector++) {
            ranks[(u64)vector * nodes + node] = uniform;
            from[contributions.index(places[node], vector)] = uniform * inverse_degree;
        }
        dangling.x += degree > 0 ? 0.0 : 1.0; // a count, which is exact
    }
    dangling = add_block(dangling, warp_sums);
    for (u32 vector = 0; vector < width; vector++) {
        if (threadIdx.x == 0) block_sums[(u64)blockIdx.x * width + vector] = dangling;
    }
    finish_vectors(width, states, block_sums, blocks_done, [=](u32 vector, double2 sums) {
        vectors[vector].dangling = sums.x * uniform;
    });
}

// Ends an iteration with the sums of rows.
template <class RowSums>
static __device__ void update_ranks(const RowSums& row_sums, const UpdateRank& update, IterationState* states,
    Vector* vectors, double2* block_sums, u32* blocks_done) {
    const auto finish = [=](u32 vector, double2 sums) {
        vectors[vector].dangling = sums.x;
        states[vector].end_iteration(sums.y);
    };
    update_nodes(row_sums, update.contributions.width, states, block_sums, blocks_done, update, finish);
}

extern "C" __global__ void SPMV pagerank_update(u32 nodes, u32 chunks, u32 slots, u32 width, const u32* offsets,
    const u32* row_ranks, const u32* places, const double* sums, const double* carries, double uniform,
    const double* inverse_degrees, const double* weights, IterationState* states, Vector* vectors, double* ranks,
    double* to, double2* block_sums, u32* blocks_done) {
    const UpdateRank update = {
        nodes, {slots, width, true}, places, uniform, inverse_degrees, weights, vectors, ranks, to};
    const ChunkSums row_sums = {{nodes, chunks, offsets, row_ranks}, sums, carries};
    update_ranks(row_sums, update, states, vectors, block_sums, blocks_done);
}

// The same after segments_multiply.
extern "C" __global__ void SEGMENTS_UPDATE pagerank_update_segments(u32 nodes, u32 sums_of_vector, u32 slots, u32 width,
    const u32* piece_offsets, const u32* positions, const u32* places, const double* sums, double uniform,
    const double* inverse_degrees, const double* weights, IterationState* states, Vector* vectors, double* ranks,
    double* to, double2* block_sums, u32* blocks_done) {
    begin_next_launch();
    wait_for_last_launch();
    const UpdateRank update = {
        nodes, {slots, width, false}, places, uniform, inverse_degrees, weights, vectors, ranks, to};
    const PieceSums row_sums = {nodes, sums_of_vector, piece_offsets, positions, sums};
    update_ranks(row_sums, update, states, vectors, block_sums, blocks_done);
}
