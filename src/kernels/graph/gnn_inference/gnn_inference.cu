// The sparse part of graph convolutions: sums, means and maxima over the predecessors of every node, and what is done to
// whole rows. spmm.cuh has the first; the products with weights are in device/gemm.cu.
//
// Host algorithm: gnn_list_long_rows once, and gnn_inverse_roots for the GCN's weights; then for each layer gnn_sum or
// gnn_max and its join, before or after a product; and gnn_normalize_rows and gnn_softmax_rows where wanted.

#include "spmm.cuh"

// Registers for eight blocks: more warps hide more of the memory's latency than more registers do.
#define GNN __launch_bounds__(256, 8)

extern "C" __global__ void GNN gnn_list_long_rows(
    u32 rows, const u32* offsets, u32* counts, uint2* longs, uint2* pieces) {
    list_long_rows(rows, offsets, counts, longs, pieces);
}

// 1 / sqrt(in-degree), with the self-loop where there are self-loops; 0 without arcs. A thread for each node.
extern "C" __global__ void GNN gnn_inverse_roots(u32 nodes, const u32* offsets, u32 has_self_loops, float* roots) {
    const u32 node = blockIdx.x * BLOCK + threadIdx.x;
    if (node >= nodes) return;
    const u32 degree = offsets[node + 1] - offsets[node] + has_self_loops;
    roots[node] = degree > 0 ? 1.0f / sqrtf((float)degree) : 0.0f;
}

#define SPMM_ENTRY(NAME, OP, V)                                                                                        \
    extern "C" __global__ void GNN NAME(u32 rows, const u32* offsets, const u32* columns, const u32* counts,          \
        const uint2* longs, const uint2* pieces, u32 lanes, u32 piece_blocks, const float* x, u32 x_stride, u32 width, \
        u32 has_self_loops, u32 is_mean, const float* weights, const float* bias, u32 activation,                      \
        float negative_slope, float* out, u32 out_stride, float* partials, const volatile u32* flag,                   \
        u32* cancelled) {                                                                                              \
        spmm<OP, V>({rows, offsets, columns, counts, longs, pieces},                                                   \
            {x, x_stride, width, has_self_loops, is_mean, weights, bias, activation, negative_slope, out, out_stride}, \
            lanes, piece_blocks, partials, {flag, cancelled});                                                         \
    }

#define JOIN_ENTRY(NAME, OP)                                                                                           \
    extern "C" __global__ void GNN NAME(u32 rows, const u32* offsets, const u32* columns, const u32* counts,          \
        const uint2* longs, const uint2* pieces, const float* x, u32 x_stride, u32 width, u32 has_self_loops,          \
        u32 is_mean, const float* weights, const float* bias, u32 activation, float negative_slope, float* out,        \
        u32 out_stride, const float* partials) {                                                                       \
        spmm_join<OP>({rows, offsets, columns, counts, longs, pieces},                                                 \
            {x, x_stride, width, has_self_loops, is_mean, weights, bias, activation, negative_slope, out, out_stride}, \
            partials);                                                                                                 \
    }

// Rows whose numbers are aligned, four at a time, and other rows.
SPMM_ENTRY(gnn_sum_4, Sum, 4)
SPMM_ENTRY(gnn_sum_1, Sum, 1)
SPMM_ENTRY(gnn_max_4, Max, 4)
SPMM_ENTRY(gnn_max_1, Max, 1)
JOIN_ENTRY(gnn_sum_join, Sum)
JOIN_ENTRY(gnn_max_join, Max)

static __device__ float warp_sum(float value) {
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_xor_sync(ALL, value, delta);
    return value;
}

// Subtracts from each row its mean, divides it by its standard deviation, and applies the activation. A warp for each
// row.
extern "C" __global__ void GNN gnn_normalize_rows(
    u32 rows, u32 width, u32 stride, u32 activation, float negative_slope, float epsilon, float* x) {
    for (u32 row = blockIdx.x * WARPS + warp_id(); row < rows; row += gridDim.x * WARPS) {
        float* const numbers = x + (u64)row * stride;
        float sum = 0.0f;
        for (u32 i = lane_id(); i < width; i += 32) sum += numbers[i];
        const float mean = warp_sum(sum) / width;
        float squares = 0.0f;
        for (u32 i = lane_id(); i < width; i += 32) {
            const float difference = numbers[i] - mean;
            squares = fmaf(difference, difference, squares);
        }
        const float scale = 1.0f / sqrtf(warp_sum(squares) / width + epsilon);
        for (u32 i = lane_id(); i < width; i += 32) {
            numbers[i] = activate(activation, negative_slope, (numbers[i] - mean) * scale);
        }
    }
}

// The softmax of each row, where `probabilities` is not null, and the index of its largest number, the first of equal
// ones, where `predictions` is not null. NaN is larger than any number. A warp for each row.
extern "C" __global__ void GNN gnn_softmax_rows(
    u32 rows, u32 width, const float* x, float* probabilities, u32* predictions) {
    for (u32 row = blockIdx.x * WARPS + warp_id(); row < rows; row += gridDim.x * WARPS) {
        const float* const numbers = x + (u64)row * width;
        float most = __int_as_float(0xff800000);
        u32 index = ~0u;
        for (u32 i = lane_id(); i < width; i += 32) {
            const float number = numbers[i];
            if (index == ~0u || number > most || (isnan(number) && !isnan(most))) {
                most = number;
                index = i;
            }
        }
        for (u32 delta = 16; delta > 0; delta /= 2) {
            const float other = __shfl_xor_sync(ALL, most, delta);
            const u32 other_index = __shfl_xor_sync(ALL, index, delta);
            const bool is_equal = other == most || (isnan(other) && isnan(most));
            const bool is_larger = other > most || (isnan(other) && !isnan(most));
            if (other_index != ~0u && (index == ~0u || is_larger || (is_equal && other_index < index))) {
                most = other;
                index = other_index;
            }
        }
        if (predictions != nullptr && lane_id() == 0) predictions[row] = index;
        if (probabilities == nullptr) continue;
        float sum = 0.0f;
        for (u32 i = lane_id(); i < width; i += 32) sum += expf(numbers[i] - most);
        const float scale = 1.0f / warp_sum(sum);
        for (u32 i = lane_id(); i < width; i += 32) {
            probabilities[(u64)row * width + i] = expf(numbers[i] - most) * scale;
        }
    }
}
