// Graph attention: the softmax over the predecessors of every node, fused with the sum that it weights.
//
// `z` has the transformed features of the nodes: head h of node u is the `head_width` numbers from h * head_width on of
// its row. The weight of an arc comes from its score, which is leaky_relu(source_scores[u, h] + target_scores[v, h]) for
// GAT. For GATv2 it comes from the row of u itself where the lanes that have a head can add it up, and otherwise from
// `arc_scores`, which attention_arc_scores has made. csr_rows.cuh has how rows are dealt to warps: one reads each row of z
// once, and keeps the largest score so far, to which its sums are relative, as in Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018. Exponentials are those of the special function units, with a relative error
// of about 1e-7 times the score's distance from the largest.
//
// With self-loops a node is its own last predecessor: the scores and weights of the arcs of row v are from
// offsets[v] + v on, and otherwise from offsets[v] on.
//
// Host algorithm: attention_list_long_rows, and attention_node_scores or attention_arc_scores; one of the entries
// attention_sum and attention_join; attention_weights and attention_mean_heads where wanted.

#include "spmm.cuh"

// Registers for eight blocks: more warps hide more of the memory's latency than more registers do.
#define ATTENTION __launch_bounds__(256, 8)

constexpr u32 ATTENTION_UNROLL = 2; // rows that a group of lanes reads at a time

struct Scores {
    u32 heads;
    float negative_slope;
    const float* source; // float[nodes, heads]
    const float* target; // float[nodes, heads]
    const float* arcs;   // float[arcs, heads], or null

    // Of an arc with this index among the scores, if they are by arc.
    __device__ float of(u32 from, u32 to, u64 arc, u32 head) const {
        if (arcs != nullptr) return __ldg(arcs + arc * heads + head);
        const float score = __ldg(source + (u64)from * heads + head) + __ldg(target + (u64)to * heads + head);
        return score < 0.0f ? negative_slope * score : score;
    }
};

// GATv2's scores from the rows of the sources: those of a head are the products of its vector with
// leaky_relu(source + target), which the lanes of the head add up. A lane has V columns; the lanes of a head are a power of
// two.
template <u32 V> struct RowScores {
    Numbers<V> target, vector;
    u32 head_lanes;
    float negative_slope;

    __device__ float of(const Numbers<V>& row) const {
        float sum = 0.0f;
#pragma unroll
        for (u32 i = 0; i < V; i++) {
            const float both = row.at[i] + target.at[i];
            sum = fmaf(vector.at[i], both < 0.0f ? negative_slope * both : both, sum);
        }
        for (u32 delta = head_lanes / 2; delta > 0; delta /= 2) sum += __shfl_xor_sync(ALL, sum, delta);
        return sum;
    }
};

// V sums of numbers weighted by exp(score - most), and the sum of the weights.
template <u32 V> struct Softmax {
    float most, total;
    Numbers<V> sum;

    __device__ Softmax() : most(__int_as_float(0xff800000)), total(0.0f) {
#pragma unroll
        for (u32 i = 0; i < V; i++) sum.at[i] = 0.0f;
    }

    // Makes the sums relative to a score that is not lower.
    __device__ void raise(float score) {
        if (score == most) return;
        const float factor = __expf(most - score);
        most = score;
        total *= factor;
#pragma unroll
        for (u32 i = 0; i < V; i++) sum.at[i] *= factor;
    }

    // Adds a number with this score, to which `most` has been raised.
    __device__ void add(float score, const Numbers<V>& row) {
        const float weight = __expf(score - most);
        total += weight;
#pragma unroll
        for (u32 i = 0; i < V; i++) sum.at[i] = fmaf(weight, row.at[i], sum.at[i]);
    }

    __device__ void add(const Softmax& other) {
        Softmax scaled = other;
        const float score = fmaxf(most, other.most);
        raise(score);
        scaled.raise(score);
        total += scaled.total;
#pragma unroll
        for (u32 i = 0; i < V; i++) sum.at[i] += scaled.sum.at[i];
    }
};

// What is done with the sum of a row.
struct Attention {
    Scores scores;
    u32 head_width, width; // width = heads * head_width
    const float* z;
    u32 z_stride;
    u32 has_self_loops;
    // Of GATv2 by rows: the rows of the targets, the vectors, and where scores are to be stored or null.
    const float* targets;
    const float* vectors;
    float* stored_scores;
    const float* bias; // float[width] or null
    u32 activation;
    float activation_slope;
    float* out; // float[nodes, width]
    // Of each node and head, the largest score and the sum of the exponentials relative to it; or null.
    float2* norms;

    __device__ u64 first_score(u32 row, u32 arc) const { return (u64)arc + (has_self_loops ? row : 0); }

    template <u32 V> __device__ RowScores<V> row_scores(const LaneColumns<V>& at, u32 row) const {
        RowScores<V> from = {{}, {}, head_width / V, scores.negative_slope};
        if (at.column < width) {
            from.target.read(targets + (u64)row * z_stride + at.column);
            from.vector.read(vectors + at.column);
        }
        return from;
    }

    __device__ void store_score(u32 row, u32 arc, u32 column, float score) const {
        if (stored_scores == nullptr || column >= width || column % head_width != 0) return;
        stored_scores[first_score(row, arc) * scores.heads + column / head_width] = score;
    }

    template <bool BY_ROW, u32 V>
    __device__ Softmax<V> sum(const LaneColumns<V>& at, const u32* columns, u32 row, u32 first, u32 end) const {
        Softmax<V> softmax;
        const u32 head = at.column < width ? at.column / head_width : 0;
        RowScores<V> from_rows;
        if (BY_ROW) from_rows = row_scores(at, row);
        // All lanes go on as long as one has arcs, as they add up scores together.
        const u32 group = BY_ROW ? 0 : at.group;
        for (u32 base = first; base + group < end; base += ATTENTION_UNROLL * at.groups) {
            const u32 arc = base + at.group;
            u32 column[ATTENTION_UNROLL];
            float score[ATTENTION_UNROLL];
            Numbers<V> numbers[ATTENTION_UNROLL];
            float most = softmax.most;
#pragma unroll
            for (u32 j = 0; j < ATTENTION_UNROLL; j++) {
                const bool is_arc = arc < end && end - arc > j * at.groups;
                column[j] = is_arc ? __ldg(columns + arc + j * at.groups) : ~0u;
            }
#pragma unroll
            for (u32 j = 0; j < ATTENTION_UNROLL; j++) {
                if (column[j] == ~0u || at.column >= width) continue;
                if (!BY_ROW) score[j] = scores.of(column[j], row, first_score(row, arc + j * at.groups), head);
                numbers[j].read(z + (u64)column[j] * z_stride + at.column);
            }
#pragma unroll
            for (u32 j = 0; j < ATTENTION_UNROLL; j++) {
                if (BY_ROW) score[j] = from_rows.of(numbers[j]);
                if (column[j] == ~0u || at.column >= width) continue;
                if (BY_ROW) store_score(row, arc + j * at.groups, at.column, score[j]);
                most = fmaxf(most, score[j]);
            }
            softmax.raise(most);
#pragma unroll
            for (u32 j = 0; j < ATTENTION_UNROLL; j++) {
                if (column[j] != ~0u && at.column < width) softmax.add(score[j], numbers[j]);
            }
            if (end - base <= ATTENTION_UNROLL * at.groups) break;
        }
        for (u32 delta = at.lanes; delta < 32; delta *= 2) {
            Softmax<V> other;
            other.most = __shfl_xor_sync(ALL, softmax.most, delta);
            other.total = __shfl_xor_sync(ALL, softmax.total, delta);
#pragma unroll
            for (u32 i = 0; i < V; i++) other.sum.at[i] = __shfl_xor_sync(ALL, softmax.sum.at[i], delta);
            softmax.add(other);
        }
        return softmax;
    }

    template <bool BY_ROW, u32 V>
    __device__ void finish(const LaneColumns<V>& at, Softmax<V> softmax, u32 row, u32 end) const {
        const bool is_column = at.column < width;
        const u32 head = is_column ? at.column / head_width : 0;
        Numbers<V> own = {};
        if (has_self_loops && is_column) own.read(z + (u64)row * z_stride + at.column);
        float score = BY_ROW && has_self_loops ? row_scores(at, row).of(own) : 0.0f;
        if (!is_column || at.group != 0) return;
        if (has_self_loops) {
            if (BY_ROW) {
                store_score(row, end, at.column, score);
            } else {
                score = scores.of(row, row, first_score(row, end), head);
            }
            softmax.raise(fmaxf(softmax.most, score));
            softmax.add(score, own);
        }
        if (norms != nullptr && at.column % head_width == 0) {
            norms[(u64)row * scores.heads + head] = make_float2(softmax.most, softmax.total);
        }
        Numbers<V> result;
#pragma unroll
        for (u32 i = 0; i < V; i++) {
            // Without arcs there is no sum of weights.
            const float value = softmax.total == 0.0f ? 0.0f : softmax.sum.at[i] / softmax.total;
            const float shift = bias != nullptr && at.column + i < width ? __ldg(bias + at.column + i) : 0.0f;
            result.at[i] = activate(activation, activation_slope, value + shift);
        }
        const bool is_aligned = width % 4 == 0 && ((u64)out & 15) == 0;
        result.write(out + (u64)row * width, at.column, width, is_aligned);
    }
};

extern "C" __global__ void ATTENTION attention_list_long_rows(
    u32 rows, const u32* offsets, u32* counts, uint2* longs, uint2* pieces) {
    list_long_rows(rows, offsets, counts, longs, pieces);
}

// The products of each head of a node with its two vectors, float[heads, 2, head_width]: the first for the node as the
// target of arcs, the second for it as their source. A thread for each node and head.
extern "C" __global__ void ATTENTION attention_node_scores(u32 nodes, u32 heads, u32 head_width, const float* z,
    u32 z_stride, const float* vectors, float* source, float* target) {
    for (u64 i = blockIdx.x * (u64)BLOCK + threadIdx.x; i < (u64)nodes * heads; i += gridDim.x * (u64)BLOCK) {
        const u32 head = (u32)(i % heads);
        const float* const numbers = z + i / heads * z_stride + (u64)head * head_width;
        const float* const of_target = vectors + 2 * head * head_width;
        const float* const of_source = of_target + head_width;
        float as_source = 0.0f, as_target = 0.0f;
        for (u32 at = 0; at < head_width; at++) {
            as_source = fmaf(numbers[at], __ldg(of_source + at), as_source);
            as_target = fmaf(numbers[at], __ldg(of_target + at), as_target);
        }
        source[i] = as_source;
        target[i] = as_target;
    }
}

// GATv2's score of each arc, vector . leaky_relu(sources[u] + targets[v]) for each head. Groups of `lanes` lanes take
// some arcs each.
extern "C" __global__ void __launch_bounds__(256) attention_arc_scores(u32 rows, const u32* offsets, const u32* columns,
    const u32* counts, const uint2* longs, const uint2* pieces, u32 lanes, u32 piece_blocks, u32 heads, u32 head_width,
    float negative_slope, const float* sources, const float* targets, u32 stride, const float* vectors,
    u32 has_self_loops, float* scores, const volatile u32* flag, u32* cancelled) {
    const CsrRows csr = {rows, offsets, columns, counts, longs, pieces};
    constexpr u32 ARCS = 4; // of a group at a time
    const u32 group = lane_id() / lanes, groups = 32 / lanes, lane = lane_id() % lanes;
    // The self-loop is the arc after the last.
    const auto score = [&](u32 row, u32 first, u32 end, bool has_own) {
        const u32 count = end - first + (has_own ? 1 : 0);
        float* const to = scores + ((u64)first + (has_self_loops ? row : 0)) * heads;
        for (u32 step = 0; step < count; step += ARCS * groups) {
            const float* source[ARCS];
#pragma unroll
            for (u32 j = 0; j < ARCS; j++) {
                const u32 arc = step + group + j * groups;
                source[j] = sources + (u64)(arc < end - first ? __ldg(columns + first + arc) : row) * stride;
            }
            for (u32 head = 0; head < heads; head++) {
                float sum[ARCS] = {};
                for (u32 at = lane; at < head_width; at += lanes) {
                    const float target = __ldg(targets + (u64)row * stride + head * head_width + at);
                    const float vector = __ldg(vectors + head * head_width + at);
#pragma unroll
                    for (u32 j = 0; j < ARCS; j++) {
                        const float both = __ldg(source[j] + head * head_width + at) + target;
                        sum[j] = fmaf(both < 0.0f ? negative_slope * both : both, vector, sum[j]);
                    }
                }
#pragma unroll
                for (u32 j = 0; j < ARCS; j++) {
                    for (u32 delta = lanes / 2; delta > 0; delta /= 2) sum[j] += __shfl_xor_sync(ALL, sum[j], delta);
                    const u32 arc = step + group + j * groups;
                    if (lane == 0 && arc < count) to[(u64)arc * heads + head] = sum[j];
                }
            }
        }
    };
    for_each_row(csr, piece_blocks, {flag, cancelled}, [&](u32, u32 row, u32 first, u32 end) {
        score(row, first, end, has_self_loops != 0 && end == offsets[row + 1]);
    });
}

// Adds up the rows of z. The sums of the pieces of long rows go to `partials`, float[pieces, 4 * ceil(width / 4)], and
// their norms to `partial_norms`, float2[pieces, heads].
template <bool BY_ROW, u32 V>
static __device__ void attend(const CsrRows& csr, const Attention& attention, u32 lanes, u32 piece_blocks,
    float* partials, float2* partial_norms, CancelSignal cancel) {
    const LaneColumns<V> at(lanes);
    const u32 width = attention.width, partial_stride = (width + 3) / 4 * 4;
    for_each_row(csr, piece_blocks, cancel, [&](u32 piece, u32 row, u32 first, u32 end) {
        const Softmax<V> softmax = attention.template sum<BY_ROW>(at, csr.columns, row, first, end);
        if (piece == NO_PIECE) {
            attention.template finish<BY_ROW>(at, softmax, row, end);
            return;
        }
        if (at.group != 0 || at.column >= width) return;
        softmax.sum.write(partials + (u64)piece * partial_stride, at.column, width, true);
        if (at.column % attention.head_width == 0) {
            const u64 norm = (u64)piece * attention.scores.heads + at.column / attention.head_width;
            partial_norms[norm] = make_float2(softmax.most, softmax.total);
        }
    });
}

#define SUM_ENTRY(NAME, BY_ROW, V, BLOCKS)                                                                             \
    extern "C" __global__ void __launch_bounds__(256, BLOCKS) NAME(u32 rows, const u32* offsets, const u32* columns, const u32* counts,    \
        const uint2* longs, const uint2* pieces, u32 lanes, u32 piece_blocks, u32 heads, u32 head_width,               \
        float negative_slope, const float* source, const float* target, const float* arc_scores, const float* z,       \
        u32 z_stride, u32 has_self_loops, const float* targets, const float* vectors, float* stored_scores,            \
        const float* bias, u32 activation, float activation_slope, float* out, float2* norms, float* partials,         \
        float2* partial_norms, const volatile u32* flag, u32* cancelled) {                                             \
        const Attention attention = {{heads, negative_slope, source, target, arc_scores}, head_width,                  \
            heads * head_width, z, z_stride, has_self_loops, targets, vectors, stored_scores, bias, activation,        \
            activation_slope, out, norms};                                                                             \
        attend<BY_ROW, V>({rows, offsets, columns, counts, longs, pieces}, attention, lanes, piece_blocks, partials,   \
            partial_norms, {flag, cancelled});                                                                         \
    }

// Where the numbers of a head are aligned and a multiple of four, and otherwise; and for GATv2 where they are also a power
// of two that a warp reads at once.
SUM_ENTRY(attention_sum_4, false, 4, 8)
SUM_ENTRY(attention_sum_1, false, 1, 8)
SUM_ENTRY(attention_sum_rows_4, true, 4, 6)

// Puts the pieces of each long row together. blockIdx.y is a range of 32 V columns.
template <bool BY_ROW, u32 V>
static __device__ void join(
    const CsrRows& csr, const Attention& attention, const float* partials, const float2* partial_norms) {
    const LaneColumns<V> at(32);
    const u32 width = attention.width, partial_stride = (width + 3) / 4 * 4;
    for_each_long_row(csr, [&](u32 row, u32 first_piece, u32 count) {
        Softmax<V> softmax;
        for (u32 i = 0; i < count && at.column < width; i++) {
            const u64 piece = (u64)first_piece + i;
            const float2 norm = partial_norms[piece * attention.scores.heads + at.column / attention.head_width];
            Softmax<V> part;
            part.most = norm.x;
            part.total = norm.y;
            part.sum.read(partials + piece * partial_stride + at.column);
            softmax.add(part);
        }
        attention.template finish<BY_ROW>(at, softmax, row, csr.offsets[row + 1]);
    });
}

#define JOIN_ENTRY(NAME, BY_ROW, V)                                                                                    \
    extern "C" __global__ void ATTENTION NAME(u32 rows, const u32* offsets, const u32* columns, const u32* counts,    \
        const uint2* longs, const uint2* pieces, u32 heads, u32 head_width, float negative_slope,                      \
        const float* source, const float* target, const float* arc_scores, const float* z, u32 z_stride,               \
        u32 has_self_loops, const float* targets, const float* vectors, float* stored_scores, const float* bias,       \
        u32 activation, float activation_slope, float* out, float2* norms, const float* partials,                      \
        const float2* partial_norms) {                                                                                 \
        const Attention attention = {{heads, negative_slope, source, target, arc_scores}, head_width,                  \
            heads * head_width, z, z_stride, has_self_loops, targets, vectors, stored_scores, bias, activation,        \
            activation_slope, out, norms};                                                                             \
        join<BY_ROW, V>({rows, offsets, columns, counts, longs, pieces}, attention, partials, partial_norms);          \
    }

JOIN_ENTRY(attention_join, false, 1)
JOIN_ENTRY(attention_join_rows, true, 4)

// The weights of all arcs: exp(score - most) / total.
extern "C" __global__ void ATTENTION attention_weights(u32 rows, const u32* offsets, const u32* columns,
    const u32* counts, const uint2* longs, const uint2* pieces, u32 piece_blocks, u32 heads, float negative_slope,
    const float* source, const float* target, const float* arc_scores, u32 has_self_loops, const float2* norms,
    float* weights, const volatile u32* flag, u32* cancelled) {
    const CsrRows csr = {rows, offsets, columns, counts, longs, pieces};
    const Scores scores = {heads, negative_slope, source, target, arc_scores};
    const auto weigh = [&](u32 row, u32 first, u32 end, bool has_own) {
        const u64 arcs = end - first + (has_own ? 1 : 0), base = (u64)first + (has_self_loops ? row : 0);
        for (u64 i = lane_id(); i < arcs * heads; i += 32) {
            const u32 head = (u32)(i % heads), arc = first + (u32)(i / heads);
            const float2 norm = norms[(u64)row * heads + head];
            const float score = scores.of(arc < end ? __ldg(columns + arc) : row, row, base + i / heads, head);
            weights[base * heads + i] = __expf(score - norm.x) / norm.y;
        }
    };
    for_each_row(csr, piece_blocks, {flag, cancelled}, [&](u32, u32 row, u32 first, u32 end) {
        weigh(row, first, end, has_self_loops != 0 && end == offsets[row + 1]);
    });
}

// The mean over the heads of each node, with a bias and the activation.
extern "C" __global__ void ATTENTION attention_mean_heads(u32 nodes, u32 heads, u32 head_width, const float* of_heads,
    const float* bias, u32 activation, float activation_slope, float* out) {
    for (u64 i = blockIdx.x * (u64)BLOCK + threadIdx.x; i < (u64)nodes * head_width; i += gridDim.x * (u64)BLOCK) {
        const float* const numbers = of_heads + i / head_width * heads * head_width + i % head_width;
        float sum = 0.0f;
        for (u32 head = 0; head < heads; head++) sum += numbers[(u64)head * head_width];
        const float shift = bias == nullptr ? 0.0f : __ldg(bias + i % head_width);
        out[i] = activate(activation, activation_slope, sum / heads + shift);
    }
}
