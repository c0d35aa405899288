// Load balancing for work of very uneven size: an item with few arcs goes to one thread, one with
// many to a warp, one with very many to the whole block.
//
// Source: Merrill, Garland, Grimshaw, "Scalable GPU Graph Traversal", PPoPP 2012.
#pragma once

#include "cancel.cuh"

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffffu;
constexpr u32 BLOCK = 256;       // threads of every launch
constexpr u32 WARPS = BLOCK / 32;
constexpr u32 WARP_ARCS = 1024;  // arcs that one warp takes
constexpr u32 APPEND_BUFFER = 128;      // entries that a warp gathers before it appends them
constexpr u32 POLLING_BLOCKS = 16;  // blocks, of which one polls the cancel flag
constexpr u32 POLL_CYCLES = 1 << 20; // between two polls: half a millisecond
constexpr u32 LEVELS_PER_POLL = 16; // levels of a launch of many, of which one polls the cancel flag
constexpr u32 ALL_TAKEN = 1u << 31; // as a count of chunks taken: more than there are

struct WorkItem {
    u32 item, wanted, first, arcs;
};

// A chunk's items that are too large for a thread: those for warps from the front, those for the
// block from the back.
struct LargeItems {
    WorkItem work[BLOCK];
    u32 for_warps, for_block, next_chunk;

    __device__ void add(const WorkItem& one) {
        const bool by_warp = one.arcs <= WARP_ARCS;
        work[by_warp ? atomicAdd(&for_warps, 1) : BLOCK - 1 - atomicAdd(&for_block, 1)] = one;
    }
};

static __device__ u32 lane_id() { return threadIdx.x % 32; }
static __device__ u32 warp_id() { return threadIdx.x / 32; }

// Distributes `total` pieces of work to the grid in chunks. `small(valid, piece)` is called by every thread and returns
// the work that is too large for it (no arcs: none); `large(work, whole_block)` is then called by one warp or by all.
// `taken`, zero at first, counts the chunks that blocks took beyond their first; without it they take every gridDim-th.
// Once the request is cancelled the remaining chunks are skipped, where they are counted. Launches that are shorter
// than the time between two polls do not poll: who launches many levels in one polls between them.
// Pieces that are `mostly_small` come in chunks that fill the threads of a block; others in chunks
// down to one a warp.
template <class Small, class Large>
static __device__ void balance_load(
    u64 total, bool mostly_small, u32* taken, CancelSignal cancel_signal, Small small, Large large) {
    __shared__ LargeItems large_items;
    const u64 even = (total + gridDim.x - 1) / gridDim.x;
    u64 last_poll = clock64();
    const u32 chunk = (u32)min(max(even, (u64)(mostly_small ? BLOCK / 2 : WARPS)), (u64)BLOCK);
    for (u64 at = blockIdx.x; at * chunk < total;) {
        if (threadIdx.x == 0) large_items.for_warps = large_items.for_block = 0;
        __syncthreads();
        const u64 piece = at * chunk + threadIdx.x;
        const WorkItem left = small(threadIdx.x < chunk && piece < total, piece);
        if (left.arcs != 0) large_items.add(left);
        __syncthreads();
        for (u32 j = warp_id(); j < large_items.for_warps; j += WARPS) large(large_items.work[j], false);
        for (u32 j = 0; j < large_items.for_block; j++) large(large_items.work[BLOCK - 1 - j], true);
        if ((u64)gridDim.x * chunk >= total) break;
        if (taken == nullptr) {
            at += gridDim.x;
        } else if (threadIdx.x == 0) {
            large_items.next_chunk = atomicAdd(taken, 1);
            if (blockIdx.x % POLLING_BLOCKS == 0 && clock64() - last_poll > POLL_CYCLES) {
                last_poll = clock64();
                if (cancel_signal.poll_cancel()) atomicMax(taken, ALL_TAKEN);
            }
        }
        __syncthreads();
        if (taken != nullptr) at = gridDim.x + (u64)large_items.next_chunk;
    }
}

// Entries that a warp has found and not yet appended to the list, so that many need one atomic on the
// shared tail.
template <class Entry> struct WarpAppendBuffer {
    Entry* buffer;
    Entry* list;
    u64* tail;
    u32 fill;

    __device__ void flush() {
        if (fill == 0) return;
        __syncwarp();
        u64 base = 0;
        if (lane_id() == 0) base = atomicAdd(tail, (u64)fill);
        base = __shfl_sync(ALL, base, 0);
        for (u32 i = lane_id(); i < fill; i += 32) list[base + i] = buffer[i];
        __syncwarp();
        fill = 0;
    }

    // Called by the whole warp; lanes with `has` append an entry.
    __device__ void push(bool has, Entry entry) {
        const u32 pushing = __ballot_sync(ALL, has);
        if (pushing == 0) return;
        if (has) buffer[fill + __popc(pushing & ((1u << lane_id()) - 1))] = entry;
        fill += __popc(pushing);
        if (fill > APPEND_BUFFER - 32) flush();
    }
};

// A barrier for the first `blocks` blocks of a cooperative launch, which are all that have not ended: the last to arrive
// calls `last` in one thread, and then all go on. What was written before is visible after. Both words are zero at first.
template <class Last>
static __device__ void grid_barrier(u32 blocks, u32* arrived, u32* passed, Last last) {
    __syncthreads();
    if (threadIdx.x == 0) {
        volatile u32* barrier_generation = passed;
        const u32 now = *barrier_generation; // it stays until this block has arrived
        __threadfence();
        if (atomicAdd(arrived, 1) == blocks - 1) {
            __threadfence();
            last();
            *arrived = 0;
            __threadfence();
            *barrier_generation = now + 1;
        } else {
            while (*barrier_generation == now) {}
        }
        __threadfence();
    }
    __syncthreads();
}

// For all blocks of the launch.
template <class Last>
static __device__ void grid_barrier(u32* arrived, u32* passed, Last last) {
    grid_barrier(gridDim.x, arrived, passed, last);
}
