// A warp for each row of a matrix in CSR form, with rows of many arcs split into pieces for several warps.
//
// `offsets` is u32[rows + 1] and `columns` u32[arcs]. A long row, of more than CSR_PIECE arcs, is listed by
// list_long_rows with a range of pieces of CSR_PIECE arcs. for_each_row then calls a function for each row that is not long
// and for each piece, whose partial result it stores; for_each_long_row lets the results of the pieces be put together, in
// their order. So results do not depend on the order in which warps run, though the order of
// the lists does.
#pragma once

#include "cancel.cuh"
#include "load_balance.cuh"

constexpr u32 CSR_PIECE = 512;
constexpr u32 NO_PIECE = ~0u; // a whole row

struct CsrRows {
    u32 rows;
    const u32* offsets;
    const u32* columns;
    const u32* counts;   // of long rows, and of their pieces
    const uint2* longs;  // a long row, and its first piece
    const uint2* pieces; // the row of a piece, and its first arc
};

static __device__ u32 csr_pieces(u32 arcs) { return (arcs + CSR_PIECE - 1) / CSR_PIECE; }

// Lists the long rows. `counts` is 0 before; there are at most 2 * arcs / CSR_PIECE pieces.
static __device__ void list_long_rows(u32 rows, const u32* offsets, u32* counts, uint2* longs, uint2* pieces) {
    const u32 row = blockIdx.x * BLOCK + threadIdx.x;
    if (row >= rows) return;
    const u32 first = offsets[row], arcs = offsets[row + 1] - first;
    if (arcs <= CSR_PIECE) return;
    const u32 count = csr_pieces(arcs), base = atomicAdd(counts + 1, count);
    longs[atomicAdd(counts, 1)] = make_uint2(row, base);
    for (u32 i = 0; i < count; i++) pieces[base + i] = make_uint2(row, first + i * CSR_PIECE);
}

// Calls `work(piece, row, first arc, end)` in a warp, for each row that is not long with NO_PIECE, and for each piece of a
// long row. The first `piece_blocks` blocks take pieces; after them there is a block for each WARPS rows.
template <class Work>
static __device__ void for_each_row(const CsrRows& csr, u32 piece_blocks, CancelSignal cancel, Work work) {
    if (is_cancelled(cancel)) return;
    const bool takes_pieces = blockIdx.x < piece_blocks;
    const u32 count = takes_pieces ? csr.counts[1] : csr.rows, step = takes_pieces ? piece_blocks * WARPS : csr.rows;
    for (u32 i = (blockIdx.x - (takes_pieces ? 0 : piece_blocks)) * WARPS + warp_id(); i < count; i += step) {
        const uint2 at = takes_pieces ? csr.pieces[i] : make_uint2(i, csr.offsets[i]);
        const u32 end = csr.offsets[at.x + 1];
        if (takes_pieces || end - at.y <= CSR_PIECE) {
            work(takes_pieces ? i : NO_PIECE, at.x, at.y, min(end, at.y + CSR_PIECE));
        }
    }
}

// Calls `join(row, first piece, pieces)` in a warp for each long row. Any grid.
template <class Join> static __device__ void for_each_long_row(const CsrRows& csr, Join join) {
    const u32 count = csr.counts[0];
    for (u32 i = blockIdx.x * WARPS + warp_id(); i < count; i += gridDim.x * WARPS) {
        const uint2 at = csr.longs[i];
        join(at.x, at.y, csr_pieces(csr.offsets[at.x + 1] - csr.offsets[at.x]));
    }
}
