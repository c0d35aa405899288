// The distances from many sources of an unweighted graph, summed by source or by node: a breadth-first search in which
// each node has a bit for each source, so that reading an arc once serves all of them.
//
//   multi_source_search_start          the sources are the first level
//   multi_source_search_levels_W       a cooperative launch: up to `levels` levels, with W words of 32 sources a node
//   multi_source_search_sum_by_source  the sums of distances from each source that another search has found, and those
//   multi_source_search_sum_by_node    by node: distance u32[sources * n], row by row, UNREACHED where there is none
//
// A level is pulled: each node that some source has not reached combines the words of its predecessors, and stops when it
// has all that it can get. `active` has a bit for each node of the present level, so that the words of other nodes are
// not read. Sources whose search has ended are not waited for: `live` has those that reached a node at the last level.
//
// Graph: CSR of the predecessors, row offsets u32[n + 1], columns u32[arcs], every column below n. W is 1, 4 or 32, and
// n * W is below 2^32. `visit` is u32[2 * n * W], `seen` u32[n * W], `active` u32[3 * ceil(n / 32)], `live` u32[3 * W].
// `sums` is u64[3 * sources], or u64[3 * n] to sum by node: how many distances there are but 0, their sum, and the
// largest. The host zeroes all of them but `visit`, and `progress`, before each search. Sums of integers are the same
// in any order.
//
// Source: Then et al., "The More the Merrier: Efficient Multi-Source Graph Traversal", PVLDB 8(4), 2014; pulling as in
// Beamer, Asanovic, Patterson, "Direction-Optimizing Breadth-First Search", SC 2012.

#include "frontier.cuh"

constexpr u32 UNROLLED_READS = 8; // words that a lane reads at once, to hide their latency
constexpr u32 THREAD_ARCS = 16;   // arcs that one thread follows
constexpr u32 THREAD_WORDS = 4;   // words that one thread follows them with

// The progress of a search; src/kernels/graph/multi_source_search/cuda.rs has the same layout.
struct Progress {
    u64 all_pairs;          // pairs of a source and a node that it reached, at all levels but the first
    u64 level_pairs;        // those of the last level
    u64 next_pairs;         // those of the level being found
    u32 finished;           // 1: the last level found no node
    u32 depth;              // levels that were searched
    u32 taken;              // chunks that blocks took beyond their first
    u32 blocks_done;        // blocks that wait at the barrier
    u32 barrier_generation; // how often all blocks have passed it
    u32 cancelled;          // 1: the request is cancelled, and nothing here has a meaning any more
    u32 stopped;            // 1: it was cancelled before the last barrier, so that all blocks end at the same level
};

template <class T> static __device__ T warp_sum(T value) {
#pragma unroll
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(ALL, value, delta);
    return value;
}

struct Search {
    u32 n;
    const u32 *row, *column;
    u32 *visit, *seen, *active, *live;
    u64* sums;
    u32 by_node; // whether to sum by node
    Progress* progress;
    const volatile u32* cancel;
};

// A level of a search with W words for each node. Lane l of a warp has word l % W; its 32 / W groups of lanes follow
// different arcs.
template <u32 W> struct Level {
    static constexpr u32 GROUPS = 32 / W;
    static constexpr u32 UNROLL = W < UNROLLED_READS ? W : UNROLLED_READS;
    static constexpr u32 ARCS = UNROLL * GROUPS; // arcs that a warp follows at once

    // What the warps of a block have found.
    struct Shared {
        u32 counts[32 * W]; // the nodes of each source: bit b of word w at b * W + w
        u32 live[W];        // the sources that reached any node
        u32 pairs;          // how often any of them reached one
        u32 words[W];       // what is found for a node that the whole block works on
    };

    const Search& search;
    Shared& shared;
    const u32* visit; // of the present level
    u32* next;        // of the next one
    const u32* active;
    u32* next_active;
    const u32* live;
    u32 distance;      // of the next level
    u32 next_live = 0; // the sources that this lane has found
    u32 pairs = 0;     // how often it has found one
    u32 thread_live[W <= THREAD_WORDS ? W : 1] = {}; // the sources that this thread has found alone

    __device__ static u32 word() { return lane_id() % W; }

    // Whether all lanes have found what they want.
    __device__ static bool has_all(u32 wanted, u32 found) { return __all_sync(ALL, (wanted & ~found) == 0); }

    // Returns the sources of the present level among the predecessors of a node; without those that are not wanted there
    // may be fewer. The whole warp, or block, calls it.
    __device__ u32 gather(const WorkItem& work, u32 wanted, bool whole_block) const {
        const u32 stride = whole_block ? BLOCK : 32;
        u32 found = 0;
        for (u32 k = whole_block ? warp_id() * 32 : 0; k < work.arcs; k += stride) {
            const bool has_arc = k + lane_id() < work.arcs;
            const u32 node = has_arc ? search.column[work.first + k + lane_id()] : 0;
            const u32 which = __ballot_sync(ALL, has_arc && (active[node / 32] >> node % 32 & 1));
            for (u32 arc = 0; arc < 32; arc += ARCS) {
                if ((which >> arc & (ALL >> (32 - ARCS))) == 0) continue;
                u32 words[UNROLL];
#pragma unroll
                for (u32 i = 0; i < UNROLL; i++) {
                    const u32 index = arc + i * GROUPS + lane_id() / W;
                    const u32 from = __shfl_sync(ALL, node, index);
                    words[i] = which >> index & 1 ? visit[from * W + word()] : 0;
                }
#pragma unroll
                for (u32 i = 0; i < UNROLL; i++) found |= words[i];
                if (ARCS < 32 && has_all(wanted, found)) break;
            }
#pragma unroll
            for (u32 delta = W; delta < 32; delta *= 2) found |= __shfl_xor_sync(ALL, found, delta);
            if (whole_block) {
                u32 of_block = 0;
                if (lane_id() < W) of_block = found | atomicOr(&shared.words[word()], found);
                found = __shfl_sync(ALL, of_block, word());
            }
            if (has_all(wanted, found)) break;
        }
        return found;
    }

    // Records the sources that reach a node first. One warp calls it.
    __device__ void record(u32 node, u32 seen, u32 reached) {
        if (!__any_sync(ALL, reached != 0)) return;
        if (lane_id() == 0) atomicOr(&next_active[node / 32], 1u << node % 32);
        if (lane_id() < W) {
            next[node * W + word()] = reached;
            if (reached != 0) search.seen[node * W + word()] = seen | reached;
            next_live |= reached;
            pairs += __popc(reached);
        }
        if (search.by_node) {
            const u32 sources = warp_sum(lane_id() < W ? __popc(reached) : 0);
            if (lane_id() == 0) add_to_node(node, sources);
        } else if (lane_id() < W) {
            count(word(), reached);
        }
    }

    // Adds the distances from some sources to the sum of a node. One thread calls it.
    __device__ void add_to_node(u32 node, u32 sources) const {
        u64* sums = &search.sums[3 * (u64)node];
        sums[0] += sources;
        sums[1] += (u64)sources * distance;
        sums[2] = max(sums[2], (u64)distance);
    }

    // Counts a node for the sources of a word that reached it.
    __device__ void count(u32 of_word, u32 reached) const {
        for (u32 bits = reached; bits != 0; bits &= bits - 1) {
            atomicAdd(&shared.counts[(__ffs(bits) - 1) * W + of_word], 1);
        }
    }

    // Gathers and records the sources of a node with few arcs and words. One thread calls it.
    __device__ void pull_alone(const WorkItem& work) {
        u32 wanted[W], found[W], sources = 0;
#pragma unroll
        for (u32 i = 0; i < W; i++) {
            wanted[i] = live[i] & ~search.seen[work.item * W + i];
            found[i] = 0;
        }
        for (u32 k = 0; k < work.arcs; k++) {
            const u32 from = search.column[work.first + k];
            if ((active[from / 32] >> from % 32 & 1) == 0) continue;
            u32 missing = 0;
#pragma unroll
            for (u32 i = 0; i < W; i++) {
                found[i] |= visit[from * W + i];
                missing |= wanted[i] & ~found[i];
            }
            if (missing == 0) break;
        }
#pragma unroll
        for (u32 i = 0; i < W; i++) {
            found[i] &= wanted[i];
            sources += __popc(found[i]);
        }
        if (sources == 0) return;
        atomicOr(&next_active[work.item / 32], 1u << work.item % 32);
#pragma unroll
        for (u32 i = 0; i < W; i++) {
            next[work.item * W + i] = found[i];
            search.seen[work.item * W + i] |= found[i];
            thread_live[i] |= found[i];
            if (!search.by_node) count(i, found[i]);
        }
        if (search.by_node) add_to_node(work.item, sources);
        pairs += sources;
    }

    // Finds the next level. All blocks call it.
    __device__ void pull() {
        for (u32 i = threadIdx.x; i < 32 * W; i += BLOCK) shared.counts[i] = 0;
        if (threadIdx.x < W) shared.live[threadIdx.x] = 0;
        if (threadIdx.x == 0) shared.pairs = 0;
        __syncthreads();
        balance_load(search.n, false, &search.progress->taken, CancelSignal{search.cancel, &search.progress->cancelled},
            [&](bool valid, u64 piece) {
                WorkItem work = {(u32)piece, 0, 0, 0};
                if (!valid) return work;
                bool is_wanted = false;
                for (u32 i = 0; i < W && !is_wanted; i++) is_wanted = (live[i] & ~search.seen[work.item * W + i]) != 0;
                if (!is_wanted) return work;
                work.first = search.row[work.item];
                work.arcs = search.row[work.item + 1] - work.first;
                if constexpr (W <= THREAD_WORDS) {
                    if (work.arcs <= THREAD_ARCS) {
                        pull_alone(work);
                        work.arcs = 0;
                    }
                }
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                const u32 seen = search.seen[work.item * W + word()], wanted = live[word()] & ~seen;
                if (whole_block) {
                    if (threadIdx.x < W) shared.words[threadIdx.x] = 0;
                    __syncthreads();
                }
                u32 found = gather(work, wanted, whole_block);
                if (whole_block) {
                    __syncthreads();
                    if (warp_id() != 0) return;
                    found = shared.words[word()];
                }
                record(work.item, seen, found & wanted);
            });
        if (next_live != 0) atomicOr(&shared.live[word()], next_live);
        if constexpr (W <= THREAD_WORDS) {
#pragma unroll
            for (u32 i = 0; i < W; i++) {
                if (thread_live[i] != 0) atomicOr(&shared.live[i], thread_live[i]);
            }
        }
        pairs = warp_sum(pairs);
        if (lane_id() == 0 && pairs != 0) atomicAdd(&shared.pairs, pairs);
        __syncthreads();
    }

    // Adds what the block has found to the sums and the live sources.
    __device__ void flush(u32* to_live) const {
        if (threadIdx.x < W && shared.live[threadIdx.x] != 0) atomicOr(&to_live[threadIdx.x], shared.live[threadIdx.x]);
        if (threadIdx.x == 0 && shared.pairs != 0) atomicAdd(&search.progress->next_pairs, (u64)shared.pairs);
        if (search.by_node) return;
        for (u32 i = threadIdx.x; i < 32 * W; i += BLOCK) {
            const u32 count = shared.counts[i];
            if (count == 0) continue;
            u64* sums = &search.sums[3 * (i % W * 32 + i / W)];
            atomicAdd(&sums[0], (u64)count);
            atomicAdd(&sums[1], (u64)count * distance);
            atomicMax(&sums[2], (u64)distance);
        }
    }
};

template <u32 W> static __device__ void search_levels(const Search& search, u32 levels) {
    __shared__ typename Level<W>::Shared shared;
    const u32 bitmap = (search.n + 31) / 32, words = search.n * W;
    for (u32 i = 0; i < levels && search.progress->finished == 0 && search.progress->stopped == 0; i++) {
        const u32 depth = search.progress->depth;
        // The third bitmap, which is the next level's next, is not in use now.
        const u32 present = depth % 3, next = (depth + 1) % 3, cleared = (depth + 2) % 3;
        for (u32 at = blockIdx.x * BLOCK + threadIdx.x; at < bitmap; at += gridDim.x * BLOCK) {
            search.active[cleared * bitmap + at] = 0;
        }
        if (blockIdx.x == 0 && threadIdx.x < W) search.live[cleared * W + threadIdx.x] = 0;
        Level<W> level = {search, shared, search.visit + depth % 2 * words, search.visit + (depth + 1) % 2 * words,
            search.active + present * bitmap, search.active + next * bitmap, search.live + present * W, depth + 1};
        level.pull();
        level.flush(search.live + next * W);
        grid_barrier(&search.progress->blocks_done, &search.progress->barrier_generation, [&] {
            u32 any = 0;
            for (u32 at = 0; at < W; at++) any |= *(volatile u32*)&search.live[next * W + at];
            search.progress->finished = any == 0;
            search.progress->depth = depth + 1;
            search.progress->level_pairs = search.progress->next_pairs;
            search.progress->all_pairs += search.progress->next_pairs;
            search.progress->next_pairs = 0;
            if (depth % LEVELS_PER_POLL == 0) CancelSignal{search.cancel, &search.progress->cancelled}.poll_cancel();
            search.progress->taken = 0;
            search.progress->stopped = *(volatile u32*)&search.progress->cancelled;
        });
    }
}

// One block; W * 32 sources at most.
extern "C" __global__ void __launch_bounds__(256) multi_source_search_start(
    u32 words, u32 num_sources, const u32* sources, u32* visit, u32* seen, u32* active, u32* live) {
    for (u32 i = threadIdx.x; i < num_sources * words; i += BLOCK) visit[sources[i / words] * words + i % words] = 0;
    __syncthreads();
    for (u32 source = threadIdx.x; source < num_sources; source += BLOCK) {
        const u32 node = sources[source], at = node * words + source / 32, bit = 1u << source % 32;
        atomicOr(&visit[at], bit);
        atomicOr(&seen[at], bit);
        atomicOr(&active[node / 32], 1u << node % 32);
        atomicOr(&live[source / 32], bit);
    }
}

#define MULTI_SOURCE_SEARCH_LEVELS(W)                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 4) multi_source_search_levels_##W(                               \
        u32 n, const u32* row, const u32* column, u32* visit, u32* seen, u32* active, u32* live, u64* sums,            \
        u32 by_node, Progress* progress, const volatile u32* cancel, u32 levels) {                                     \
        search_levels<W>({n, row, column, visit, seen, active, live, sums, by_node, progress, cancel}, levels);        \
    }
MULTI_SOURCE_SEARCH_LEVELS(1)
MULTI_SOURCE_SEARCH_LEVELS(4)
MULTI_SOURCE_SEARCH_LEVELS(32)

// Some distances, summed as DistanceSum of mod.rs is.
struct DistanceSum {
    u64 count = 0, total = 0, largest = 0;

    __device__ void add(u32 distance) {
        if (distance == UNREACHED || distance == 0) return;
        count++;
        total += distance;
        largest = max(largest, (u64)distance);
    }
};

// The grid's x is any, and its y any number of sources at once.
extern "C" __global__ void __launch_bounds__(256) multi_source_search_sum_by_source(
    u32 n, u32 num_sources, const u32* distance, u64* sums) {
    __shared__ u64 of_block[3];
    for (u32 source = blockIdx.y; source < num_sources; source += gridDim.y) {
        if (threadIdx.x < 3) of_block[threadIdx.x] = 0;
        __syncthreads();
        DistanceSum sum;
        const u32* of_source = distance + (u64)source * n;
        for (u32 node = blockIdx.x * BLOCK + threadIdx.x; node < n; node += gridDim.x * BLOCK) sum.add(of_source[node]);
        const u64 count = warp_sum(sum.count), total = warp_sum(sum.total);
        if (lane_id() == 0 && count != 0) {
            atomicAdd(&of_block[0], count);
            atomicAdd(&of_block[1], total);
        }
        if (sum.largest > *(volatile u64*)&of_block[2]) atomicMax(&of_block[2], sum.largest);
        __syncthreads();
        if (threadIdx.x < 2 && of_block[0] != 0) atomicAdd(&sums[3 * source + threadIdx.x], of_block[threadIdx.x]);
        if (threadIdx.x == 2) atomicMax(&sums[3 * source + 2], of_block[2]);
        __syncthreads();
    }
}

// One thread a node. Adds to the sums.
extern "C" __global__ void __launch_bounds__(256) multi_source_search_sum_by_node(
    u32 n, u32 num_sources, const u32* distance, u64* sums) {
    const u32 node = blockIdx.x * BLOCK + threadIdx.x;
    if (node >= n) return;
    DistanceSum sum;
    for (u32 source = 0; source < num_sources; source++) sum.add(distance[(u64)source * n + node]);
    u64* of_node = &sums[3 * (u64)node];
    of_node[0] += sum.count;
    of_node[1] += sum.total;
    of_node[2] = max(of_node[2], sum.largest);
}
