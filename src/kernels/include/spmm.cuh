// Sparse matrix times dense matrix: for each row of a matrix in CSR form, the sum or the maximum of the rows of a dense
// matrix that its columns name. csr_rows.cuh has how rows are dealt to warps.
//
// Row v of the dense matrix is float[width] at `x + v * x_stride`. A warp takes up to 32 V columns of it: groups of
// `lanes` lanes read a row each, V numbers a lane, and several rows before the first is added up. blockIdx.y is the
// range of columns. The order of additions depends on the row and on `lanes` alone.
//
// What is moved is, for each arc, a row of x, a column index and where there are weights one of these.
#pragma once

#include "activation.cuh"
#include "csr_rows.cuh"

constexpr u32 SPMM_UNROLL = 3; // rows that a group of lanes reads at a time: of 1 to 8 the fastest on an H200

// V numbers of a row, read and written at once.
template <u32 V> struct Numbers {
    float at[V];

    __device__ void read(const float* from) {
        if constexpr (V == 4) {
            *(float4*)at = __ldg((const float4*)from);
        } else {
            at[0] = __ldg(from);
        }
    }

    // Writes those whose columns are below `width`.
    __device__ void write(float* row, u32 column, u32 width, bool is_aligned) const {
        if (V == 4 && is_aligned && column + V <= width) {
            *(float4*)(row + column) = *(const float4*)at;
            return;
        }
#pragma unroll
        for (u32 i = 0; i < V; i++) {
            if (column + i < width) row[column + i] = at[i];
        }
    }
};

struct Sum {
    static __device__ float identity() { return 0.0f; }
    static __device__ float add(float sum, float value, float weight) { return fmaf(weight, value, sum); }
};

// Weights are not used. NaN is larger than any number.
struct Max {
    static __device__ float identity() { return __int_as_float(0xff800000); }
    static __device__ float add(float most, float value, float) { return value > most || isnan(value) ? value : most; }
};

// The columns of the dense matrix that a lane takes: V from `column` on, which may be past the end.
template <u32 V> struct LaneColumns {
    u32 lanes, group, groups, column;

    __device__ explicit LaneColumns(u32 lanes)
        : lanes(lanes), group(lane_id() / lanes), groups(32 / lanes),
          column((blockIdx.y * lanes + lane_id() % lanes) * V) {}
};

// Adds up rows of x for the arcs from `first` to `end`, of which the group takes every groups-th, and then over the
// groups. `weights` of the columns of x may be null for 1.
template <class Op, u32 V>
static __device__ Numbers<V> add_rows(const LaneColumns<V>& at, const u32* columns, u32 first, u32 end, const float* x,
    u32 x_stride, u32 width, const float* weights) {
    Numbers<V> sum;
#pragma unroll
    for (u32 i = 0; i < V; i++) sum.at[i] = Op::identity();
    for (u32 arc = first + at.group; arc < end; arc += SPMM_UNROLL * at.groups) {
        u32 column[SPMM_UNROLL];
        float weight[SPMM_UNROLL];
        Numbers<V> row[SPMM_UNROLL];
#pragma unroll
        for (u32 j = 0; j < SPMM_UNROLL; j++) {
            // Also where the sum of the steps is over 2^32.
            const bool is_arc = end - arc > j * at.groups;
            column[j] = is_arc ? __ldg(columns + arc + j * at.groups) : ~0u;
        }
#pragma unroll
        for (u32 j = 0; j < SPMM_UNROLL; j++) {
            if (column[j] == ~0u || at.column >= width) continue;
            weight[j] = weights == nullptr ? 1.0f : __ldg(weights + column[j]);
            row[j].read(x + (u64)column[j] * x_stride + at.column);
        }
#pragma unroll
        for (u32 j = 0; j < SPMM_UNROLL; j++) {
            if (column[j] == ~0u || at.column >= width) continue;
#pragma unroll
            for (u32 i = 0; i < V; i++) sum.at[i] = Op::add(sum.at[i], row[j].at[i], weight[j]);
        }
        if (end - arc <= SPMM_UNROLL * at.groups) break;
    }
    for (u32 delta = at.lanes; delta < 32; delta *= 2) {
#pragma unroll
        for (u32 i = 0; i < V; i++) {
            sum.at[i] = Op::add(sum.at[i], __shfl_xor_sync(ALL, sum.at[i], delta), 1.0f);
        }
    }
    return sum;
}

// What follows from the sum of a row.
struct RowUpdate {
    const float* x;
    u32 x_stride;
    u32 width;
    u32 has_self_loops; // a row is one of its own columns
    u32 is_mean;        // the sum is divided by the number of arcs
    const float* weights; // of the columns; also of the rows, by which the sum is multiplied; or null
    const float* bias;  // float[width] or null
    u32 activation;
    float negative_slope;
    float* out;
    u32 out_stride;

    template <class Op, u32 V>
    __device__ void finish(const LaneColumns<V>& at, Numbers<V> sum, u32 row, u32 arcs) const {
        if (at.column >= width || at.group != 0) return;
        const float weight = weights == nullptr ? 1.0f : __ldg(weights + row);
        if (has_self_loops) {
            Numbers<V> own;
            own.read(x + (u64)row * x_stride + at.column);
#pragma unroll
            for (u32 i = 0; i < V; i++) sum.at[i] = Op::add(sum.at[i], own.at[i], weight);
            arcs++;
        }
        const float scale = is_mean ? (arcs > 0 ? 1.0f / arcs : 0.0f) : weight;
#pragma unroll
        for (u32 i = 0; i < V; i++) {
            const float value = arcs > 0 ? scale * sum.at[i] : 0.0f;
            const float shift = bias != nullptr && at.column + i < width ? __ldg(bias + at.column + i) : 0.0f;
            sum.at[i] = activate(activation, negative_slope, value + shift);
        }
        const bool is_aligned = out_stride % 4 == 0 && ((u64)out & 15) == 0;
        sum.write(out + (u64)row * out_stride, at.column, width, is_aligned);
    }
};

// Adds up all rows; those of long rows go to `partials`, float[pieces, 4 * ceil(width / 4)].
template <class Op, u32 V>
static __device__ void spmm(
    const CsrRows& csr, const RowUpdate& update, u32 lanes, u32 piece_blocks, float* partials, CancelSignal cancel) {
    const LaneColumns<V> at(lanes);
    const u32 partial_stride = (update.width + 3) / 4 * 4;
    for_each_row(csr, piece_blocks, cancel, [&](u32 piece, u32 row, u32 first, u32 end) {
        const Numbers<V> sum =
            add_rows<Op, V>(at, csr.columns, first, end, update.x, update.x_stride, update.width, update.weights);
        if (piece == NO_PIECE) {
            update.template finish<Op, V>(at, sum, row, end - first);
        } else if (at.group == 0) {
            sum.write(partials + (u64)piece * partial_stride, at.column, update.width, true);
        }
    });
}

// Adds up the partial sums of each long row. blockIdx.y is a range of 32 columns.
template <class Op>
static __device__ void spmm_join(const CsrRows& csr, const RowUpdate& update, const float* partials) {
    const LaneColumns<1> at(32);
    const u32 partial_stride = (update.width + 3) / 4 * 4;
    for_each_long_row(csr, [&](u32 row, u32 first_piece, u32 pieces) {
        Numbers<1> sum = {{Op::identity()}};
        if (at.column < update.width) {
            const float* partial = partials + (u64)first_piece * partial_stride + at.column;
            for (u32 piece = 0; piece < pieces; piece++, partial += partial_stride) {
                sum.at[0] = Op::add(sum.at[0], *partial, 1.0f);
            }
        }
        update.template finish<Op, 1>(at, sum, row, csr.offsets[row + 1] - csr.offsets[row]);
    });
}
