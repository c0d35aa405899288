// Sums over the neighbours that a search has at one level, as both directions of betweenness need them.
#pragma once

#include "load_balance.cuh"

constexpr u32 GROUP = 32; // sources a group: one lane each

// Sums of cells over an item's neighbours at one level, by source.
struct NeighborSum {
    const u32* column;
    const u64* stamps; // of the level's parity, this group's part
    double* cells;     // this group's part
    u32 level;

    __device__ u32 bits_at(u32 node) const {
        const u64 stamp = stamps[node];
        return (u32)(stamp >> 32) == level ? (u32)stamp : 0;
    }

    // For one source; `found` if a neighbour has it.
    __device__ double by_thread(u32 first, u32 arcs, u32 bit, bool& found) const {
        double sum = 0.0;
        found = false;
#pragma unroll 4
        for (u32 k = first; k < first + arcs; k++) {
            const u32 node = column[k];
            if (bits_at(node) >> bit & 1) {
                sum += cells[(u64)node * GROUP + bit];
                found = true;
            }
        }
        return sum;
    }

    // Adds the rows of the first four pending lanes' neighbours, in order, all in flight at once.
    __device__ void add_rows(u32& pending, u32 node, u32 hit, double& sum, u32& found) const {
        double term[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 from = pending != 0 ? __ffs(pending) - 1 : 0;
            const u32 bits = __shfl_sync(ALL, hit, from), row = __shfl_sync(ALL, node, from);
            const bool mine = pending != 0 && (bits >> lane_id() & 1);
            if (pending != 0) found |= bits;
            pending &= pending - 1;
            term[i] = mine ? cells[(u64)row * GROUP + lane_id()] : 0.0;
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) sum += term[i];
    }

    // For source `lane` of each lane, by a warp or, with the sum left in warp 0, by the block.
    // `found`, the same in all lanes, has the sources found.
    __device__ double by_warp_or_block(const WorkItem& work, bool whole_block, u32& found) const {
        __shared__ double partial[WARPS][32];
        __shared__ u32 partial_found[WARPS];
        const u32 lane = lane_id(), warp = warp_id();
        double sum = 0.0;
        found = 0;
        for (u32 base = whole_block ? warp * 32 : 0; base < work.arcs; base += whole_block ? BLOCK : 32) {
            u32 node = 0, hit = 0;
            if (base + lane < work.arcs) {
                node = column[work.first + base + lane];
                hit = bits_at(node) & work.wanted;
            }
            u32 pending = __ballot_sync(ALL, hit != 0);
            while (pending != 0) add_rows(pending, node, hit, sum, found);
        }
        if (whole_block) {
            __syncthreads(); // the last call's partial sums have been read
            partial[warp][lane] = sum;
            if (lane == 0) partial_found[warp] = found;
            __syncthreads();
            sum = 0.0;
            found = 0;
            for (u32 w = 0; w < WARPS; w++) {
                sum += partial[w][lane];
                found |= partial_found[w];
            }
        }
        return sum;
    }
};
