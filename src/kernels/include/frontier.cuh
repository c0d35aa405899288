// A breadth-first search from many sources at once, level by level, that changes its direction.
//
// An *item* is a pair (source, node), numbered source * n + node. All sources go in step, so that they share launches,
// barriers and the balance of load. A level either pushes from its items to their successors, or, where it has a large
// part of the arcs, pulls: each item that was not reached looks for a predecessor at this level, and stops at the first.
//
// The items of a level are a part of `list`, in an order that varies. The progress is in a `Frontier`, which the host
// zeroes and reads. A level is `advance_level`, called by all blocks of a cooperative launch:
//
//   while (search.has_level(max_entries)) search.advance_level();
//
// Source: Beamer, Asanovic, Patterson, "Direction-Optimizing Breadth-First Search", SC 2012.
#pragma once

#include "load_balance.cuh"

constexpr u32 UNREACHED = 0xffffffffu; // as a distance
constexpr u32 FRONTIER_THREAD_ARCS = 16; // arcs that one thread follows

// The progress of a search; src/kernels/graph/breadth_first_search/mod.rs has the same layout.
struct Frontier {
    u64 tail;          // entries in the list
    u64 begin, end;    // the level: entries begin..end of the list
    u64 level_arcs;    // arcs of the level's items
    u64 next_arcs;     // the same of the level being found
    u32 depth;         // of the level
    u32 taken;         // chunks that blocks took beyond their first
    u32 blocks_done;   // blocks that wait at the barrier
    u32 barrier_generation; // how often all blocks have passed it
    u32 cancelled;     // 1: the request is cancelled, and nothing here has a meaning any more
    u32 stopped;       // 1: it was cancelled before the last barrier, so that all blocks end at the same level
};

struct BreadthFirstSearch {
    u32 n, num_sources;
    u32 pull_factor; // a level pulls if its arcs times this are more than all arcs of all sources; 0: never
    const u32 *out_row, *out_column, *in_row, *in_column;
    u32* distance;   // of each item, UNREACHED at first
    u32* list;       // of n * num_sources items
    Frontier* frontier;
    const volatile u32* cancel;

    __device__ CancelSignal cancel_signal() const { return CancelSignal{cancel, &frontier->cancelled}; }

    // Starts from one item of each source. One block calls it.
    __device__ void start(const u32* sources) const {
        __shared__ u64 arcs;
        if (threadIdx.x == 0) arcs = 0;
        __syncthreads();
        for (u32 source = threadIdx.x; source < num_sources; source += blockDim.x) {
            const u32 node = sources[source], item = source * n + node;
            distance[item] = 0;
            list[source] = item;
            atomicAdd(&arcs, (u64)(out_row[node + 1] - out_row[node]));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            frontier->tail = frontier->end = num_sources;
            frontier->level_arcs = arcs;
        }
    }

    // Whether there is a level, of at most this many entries. All blocks see the same.
    __device__ bool has_level(u64 max_entries) const {
        const u64 entries = frontier->end - frontier->begin;
        return entries != 0 && entries <= max_entries && frontier->stopped == 0;
    }

    // Finds the next level and makes it the present one. All blocks of a cooperative launch call it.
    __device__ void advance_level() const {
        if (frontier->level_arcs * pull_factor > (u64)out_row[n] * num_sources) {
            pull();
        } else {
            push();
        }
        grid_barrier(&frontier->blocks_done, &frontier->barrier_generation, [&] {
            frontier->begin = frontier->end;
            frontier->end = frontier->tail;
            frontier->level_arcs = frontier->next_arcs;
            frontier->next_arcs = 0;
            frontier->taken = 0;
            if (frontier->depth++ % LEVELS_PER_POLL == 0) cancel_signal().poll_cancel();
            frontier->stopped = *(volatile u32*)&frontier->cancelled;
        });
    }

private:
    __device__ bool has_few_arcs(const u32* row) const { return row[n] / n <= FRONTIER_THREAD_ARCS; }

    __device__ u32 arcs_of(u32 item) const {
        const u32 node = item % n;
        return out_row[node + 1] - out_row[node];
    }

    // Adds the arcs that the lanes of a warp have found.
    __device__ void add_arcs(u64 arcs) const {
#pragma unroll
        for (u32 delta = 16; delta > 0; delta /= 2) arcs += __shfl_down_sync(ALL, arcs, delta);
        if (lane_id() == 0 && arcs != 0) atomicAdd(&frontier->next_arcs, arcs);
    }

    __device__ void push() const {
        __shared__ u32 buffers[WARPS][APPEND_BUFFER];
        WarpAppendBuffer<u32> out = {buffers[warp_id()], list, &frontier->tail, 0};
        const u64 begin = frontier->begin, total = frontier->end - begin;
        const u32 next = frontier->depth + 1;
        u64 arcs_found = 0;
        // Follows arcs from, from + stride, ... of an item; the whole warp calls it, each lane with its own.
        auto follow = [&](const WorkItem& work, u32 from, u32 stride) {
            const u32 base = work.item - work.item % n;
            for (u32 k = from; __any_sync(ALL, k < work.arcs); k += 4 * stride) {
                u32 item[4];
                bool fresh[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const bool has = k + i * stride < work.arcs;
                    item[i] = has ? base + out_column[work.first + k + i * stride] : 0;
                    fresh[i] = has && distance[item[i]] == UNREACHED;
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const bool first = fresh[i] && atomicCAS(&distance[item[i]], UNREACHED, next) == UNREACHED;
                    if (first) arcs_found += arcs_of(item[i]);
                    out.push(first, item[i]);
                }
            }
        };
        balance_load(total, has_few_arcs(out_row), &frontier->taken, cancel_signal(),
            [&](bool valid, u64 piece) {
                WorkItem work = {0, 0, 0, 0};
                if (valid) {
                    const u32 item = list[begin + piece], node = item % n, first = out_row[node];
                    work = WorkItem{item, 0, first, out_row[node + 1] - first};
                }
                WorkItem mine = work;
                if (work.arcs > FRONTIER_THREAD_ARCS) mine.arcs = 0;
                else work.arcs = 0;
                follow(mine, 0, 1);
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                follow(work, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
            });
        out.flush();
        add_arcs(arcs_found);
    }

    __device__ void pull() const {
        __shared__ u32 buffers[WARPS][APPEND_BUFFER];
        WarpAppendBuffer<u32> out = {buffers[warp_id()], list, &frontier->tail, 0};
        const u32 depth = frontier->depth;
        u64 arcs_found = 0;
        // Lists the item if it was reached. The whole warp calls it.
        auto record = [&](bool reached, u32 item) {
            if (reached) {
                distance[item] = depth + 1;
                arcs_found += arcs_of(item);
            }
            out.push(reached, item);
        };
        balance_load((u64)n * num_sources, has_few_arcs(in_row), &frontier->taken, cancel_signal(),
            [&](bool valid, u64 piece) {
                WorkItem work = {(u32)piece, 0, 0, 0};
                bool reached = false;
                if (valid && distance[work.item] == UNREACHED) {
                    const u32 node = work.item % n, base = work.item - node;
                    u32 arc = in_row[node];
                    const u32 end = in_row[node + 1], mine = min(end, arc + FRONTIER_THREAD_ARCS);
                    while (arc < mine && !reached) reached = distance[base + in_column[arc++]] == depth;
                    if (!reached) work = WorkItem{work.item, 0, arc, end - arc};
                }
                record(reached, work.item);
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                const u32 base = work.item - work.item % n, stride = whole_block ? BLOCK : 32;
                const u32 own = whole_block ? threadIdx.x : lane_id();
                bool reached = false;
                for (u32 k = 0; k < work.arcs && !reached; k += stride) {
                    const bool hit =
                        k + own < work.arcs && distance[base + in_column[work.first + k + own]] == depth;
                    reached = whole_block ? __syncthreads_or(hit) : __any_sync(ALL, hit);
                }
                if (!whole_block || warp_id() == 0) record(reached && lane_id() == 0, work.item);
            });
        out.flush();
        add_arcs(arcs_found);
    }
};
