// How the betweenness kernels deal out work of very uneven size: an item with few arcs is one
// thread's, one with many a warp's, one with very many the whole block's.
//
// Source: Merrill, Garland, Grimshaw, "Scalable GPU Graph Traversal", PPoPP 2012.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffffu;
constexpr u32 BLOCK = 256;       // threads of every launch
constexpr u32 WARPS = BLOCK / 32;
constexpr u32 WARP_ARCS = 1024;  // arcs that one warp takes on
constexpr u32 OUTBOX = 128;      // entries that a warp holds back before it appends them
constexpr u32 LOOK_EVERY = 16;   // chunks, of which one looks whether the caller has left
constexpr u32 NO_MORE = 1u << 31; // chunks taken: more than there are

// How work ends early. The host's flag is far away, so that few look at it and tell the others.
struct Stop {
    const volatile u32* flag; // 1 once the caller has left
    u32* told;                // 1 once a block has seen that

    __device__ bool look() const {
        if (*flag == 0) return false;
        *(volatile u32*)told = 1;
        return true;
    }
};

struct Job {
    u32 item, want, first, arcs;
};

// A chunk's items that are too large for a thread: for warps from the front, for the block from
// the back.
struct Jobs {
    Job job[BLOCK];
    u32 for_warps, for_block, next_chunk;

    __device__ void add(const Job& one) {
        const bool by_warp = one.arcs <= WARP_ARCS;
        job[by_warp ? atomicAdd(&for_warps, 1) : BLOCK - 1 - atomicAdd(&for_block, 1)] = one;
    }
};

static __device__ u32 lane_id() { return threadIdx.x % 32; }
static __device__ u32 warp_id() { return threadIdx.x / 32; }

// Deals `total` pieces of work to the grid in chunks. `small(valid, piece)` is called by every
// thread and returns what it leaves to others (no arcs: nothing); `large(job, whole_block)` is
// then called by one warp or by all. `taken`, zero at first, counts the chunks that blocks took
// beyond their first; without it they take every gridDim-th. Chunks that are left when the caller
// has left are not dealt, if they are counted.
// Pieces that are `mostly_small` come in chunks that fill the threads of a block; others in chunks
// down to one a warp.
template <class Small, class Large>
static __device__ void deal(u64 total, bool mostly_small, u32* taken, Stop stop, Small small, Large large) {
    __shared__ Jobs jobs;
    const u64 even = (total + gridDim.x - 1) / gridDim.x;
    const u32 chunk = (u32)min(max(even, (u64)(mostly_small ? BLOCK / 2 : WARPS)), (u64)BLOCK);
    for (u64 at = blockIdx.x; at * chunk < total;) {
        if (threadIdx.x == 0) jobs.for_warps = jobs.for_block = 0;
        __syncthreads();
        const u64 piece = at * chunk + threadIdx.x;
        const Job left = small(threadIdx.x < chunk && piece < total, piece);
        if (left.arcs != 0) jobs.add(left);
        __syncthreads();
        for (u32 j = warp_id(); j < jobs.for_warps; j += WARPS) large(jobs.job[j], false);
        for (u32 j = 0; j < jobs.for_block; j++) large(jobs.job[BLOCK - 1 - j], true);
        if ((u64)gridDim.x * chunk >= total) break;
        if (taken == nullptr) {
            at += gridDim.x;
        } else if (threadIdx.x == 0) {
            jobs.next_chunk = atomicAdd(taken, 1);
            if (jobs.next_chunk % LOOK_EVERY == 0 && stop.look()) atomicMax(taken, NO_MORE);
        }
        __syncthreads();
        if (taken != nullptr) at = gridDim.x + (u64)jobs.next_chunk;
    }
}

// Entries that a warp found and has yet to append, so that the shared tail sees one atomic for many.
struct Outbox {
    uint2* box;
    uint2* list;
    u64* tail;
    u32 fill;

    __device__ void flush() {
        if (fill == 0) return;
        __syncwarp();
        u64 base = 0;
        if (lane_id() == 0) base = atomicAdd(tail, (u64)fill);
        base = __shfl_sync(ALL, base, 0);
        for (u32 i = lane_id(); i < fill; i += 32) list[base + i] = box[i];
        __syncwarp();
        fill = 0;
    }

    // Called by the whole warp; lanes with `has` give an entry.
    __device__ void post(bool has, u32 item, u32 bits) {
        const u32 givers = __ballot_sync(ALL, has);
        if (givers == 0) return;
        if (has) box[fill + __popc(givers & ((1u << lane_id()) - 1))] = make_uint2(item, bits);
        fill += __popc(givers);
        if (fill > OUTBOX - 32) flush();
    }
};

// Every block of a cooperative launch comes here before any goes on, and the last to come calls
// `last` first, in one thread. What was written before is seen after. Both words are zero at first.
template <class Last>
static __device__ void meet(u32* arrived, u32* passed, Last last) {
    __syncthreads();
    if (threadIdx.x == 0) {
        volatile u32* gate = passed;
        const u32 now = *gate; // it stays until this block has come
        __threadfence();
        if (atomicAdd(arrived, 1) == gridDim.x - 1) {
            __threadfence();
            last();
            *arrived = 0;
            __threadfence();
            *gate = now + 1;
        } else {
            while (*gate == now) {}
        }
        __threadfence();
    }
    __syncthreads();
}
