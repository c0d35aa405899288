// Segmented reduction: the elements of each segment of an array to one state, with the same bits in every run.
//
// A segment is a range of neighbouring elements, at least one. The array is cut into tiles of SEGMENTED_TILE elements:
//
//   segment_begins     from a flag of the first element of each segment, lists where the segments and those of each tile
//                      begin: a prefix sum (see scan.cuh)
//   reduce_tile        a block reduces the elements of a tile: thread by thread, then by a segmented scan of the threads
//   reduce_span        adds up what the tiles have of a segment that goes beyond the tile in which it begins
//
// In which order the states of a segment are merged depends on where it begins and ends, and on nothing else. A pass with
// decoupled look-back would read as much, but the order in which it adds depends on which blocks are ahead of others, and
// sums of floating-point numbers with it.
//
// A state is a struct of whole 64-bit words:
//
//   struct Sum {
//       double sum;
//       __device__ static Sum identity() { return {-0.0}; }
//       __device__ void merge(const Sum& later) { sum += later.sum; }
//   };
//
// Merging with the identity changes no bit.

#ifndef TOWER_KERNELS_SEGMENTED_REDUCE
#define TOWER_KERNELS_SEGMENTED_REDUCE

#ifndef TOWER_KERNELS_SCAN
#error "segmented_reduce.cuh needs scan.cuh before it"
#endif

// 256 threads a block, as the host launches them.
#define SEGMENTED_REDUCE __launch_bounds__(256)

constexpr u32 SEGMENTED_THREADS = 256;
constexpr u32 SEGMENTED_WARPS = SEGMENTED_THREADS / 32;
constexpr u32 SEGMENTED_ITEMS = 8;
// src/kernels/core/segmented_aggregate/cuda.rs has the same number.
constexpr u32 SEGMENTED_TILE = SEGMENTED_THREADS * SEGMENTED_ITEMS;
// Tiles of a span that a warp adds up; all of its block add up a longer one.
constexpr u32 SEGMENTED_WARP_SPAN = 2048;

template <class State> static __device__ State shuffle_state_up(const State& state, u32 delta) {
    constexpr int WORDS = sizeof(State) / sizeof(u64);
    static_assert(sizeof(State) % sizeof(u64) == 0, "a state is a struct of whole words");
    u64 words[WORDS];
    memcpy(words, &state, sizeof(state));
#pragma unroll
    for (int i = 0; i < WORDS; i++) words[i] = __shfl_up_sync(0xffffffff, words[i], delta);
    State other;
    memcpy(&other, words, sizeof(other));
    return other;
}

template <class State> static __device__ State shuffle_state_down(const State& state, u32 delta) {
    constexpr int WORDS = sizeof(State) / sizeof(u64);
    u64 words[WORDS];
    memcpy(words, &state, sizeof(state));
#pragma unroll
    for (int i = 0; i < WORDS; i++) words[i] = __shfl_down_sync(0xffffffff, words[i], delta);
    State other;
    memcpy(&other, words, sizeof(other));
    return other;
}

// Lists where segments begin. `is_first(i)` tells whether element i is the first of a segment; element 0 is.
//
//   begins        the index of each segment's first element, room for n of them
//   tile_begins   for each tile, how many segments begin before it; behind the last, the number of segments
//   scan_tiles    a word for each tile of the scan, zero before
//   next_tile     one word, zero before
template <class IsFirst>
static __device__ void segment_begins(
    u64 n, u64* scan_tiles, u32* next_tile, const IsFirst& is_first, u32* begins, u32* tile_begins) {
    constexpr u32 WARPS = SCAN_THREADS / 32;
    __shared__ u32 shared_tile;
    __shared__ u64 shared_before;
    __shared__ u32 of_warps[WARPS];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) shared_tile = atomicAdd(next_tile, 1);
    __syncthreads();
    const u32 tile = shared_tile;
    // The elements of a warp are neighbours. A ballot has the flags of 32 of them.
    const u64 start = (u64)tile * SCAN_TILE + warp * 32 * SCAN_ITEMS + lane;
    u32 firsts[SCAN_ITEMS], of_warp = 0;
#pragma unroll
    for (u32 item = 0; item < SCAN_ITEMS; item++) {
        const u64 i = start + item * 32;
        firsts[item] = __ballot_sync(0xffffffff, i < n && is_first(i));
        of_warp += __popc(firsts[item]);
    }
    if (lane == 0) of_warps[warp] = of_warp;
    __syncthreads();
    u32 total = 0, before_warp = 0;
#pragma unroll
    for (u32 other = 0; other < WARPS; other++) {
        if (other == warp) before_warp = total;
        total += of_warps[other];
    }
    if (warp == 0) {
        const u64 of_tiles = look_back(scan_tiles, tile, total);
        if (lane == 0) shared_before = of_tiles;
    }
    __syncthreads();
    u32 before = (u32)shared_before + before_warp;
#pragma unroll
    for (u32 item = 0; item < SCAN_ITEMS; item++) {
        const u64 i = start + item * 32;
        const u32 own = before + __popc(firsts[item] & ((1u << lane) - 1)), is_own = firsts[item] >> lane & 1;
        if (is_own != 0) begins[own] = (u32)i;
        if (i % SEGMENTED_TILE == 0 && i < n) tile_begins[i / SEGMENTED_TILE] = own;
        if (i + 1 == n) tile_begins[i / SEGMENTED_TILE + 1] = own + is_own;
        before += __popc(firsts[item]);
    }
}

// What a thread, a warp or a tile has of the segments: the state of its elements since the last first element of a
// segment, or of all of its elements where there is none.
template <class State> struct OpenSegment {
    State state;
    bool has_first;

    __device__ void append(const OpenSegment& later) {
        if (later.has_first) {
            state = later.state;
        } else {
            state.merge(later.state);
        }
        has_first |= later.has_first;
    }
};

template <class State> static __device__ OpenSegment<State> shuffle_open_up(const OpenSegment<State>& open, u32 delta) {
    return {shuffle_state_up(open.state, delta), __shfl_up_sync(0xffffffff, (int)open.has_first, delta) != 0};
}

// What all threads before this one have, and in `total` what the block has. All threads call it.
template <class State>
static __device__ OpenSegment<State> scan_open(const OpenSegment<State>& own, OpenSegment<State>& total) {
    __shared__ u64 shared[SEGMENTED_WARPS][sizeof(State) / sizeof(u64)];
    __shared__ bool shared_first[SEGMENTED_WARPS];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    OpenSegment<State> inclusive = own;
#pragma unroll 1
    for (u32 delta = 1; delta < 32; delta *= 2) {
        OpenSegment<State> other = shuffle_open_up(inclusive, delta);
        if (lane >= delta) {
            other.append(inclusive);
            inclusive = other;
        }
    }
    if (lane == 31) {
        memcpy(shared[warp], &inclusive.state, sizeof(State));
        shared_first[warp] = inclusive.has_first;
    }
    __syncthreads();
    OpenSegment<State> before = {State::identity(), false};
    total = before;
#pragma unroll 1
    for (u32 other = 0; other < SEGMENTED_WARPS; other++) {
        if (other == warp) before = total;
        OpenSegment<State> of_warp;
        memcpy(&of_warp.state, shared[other], sizeof(State));
        of_warp.has_first = shared_first[other];
        total.append(of_warp);
    }
    const OpenSegment<State> of_lanes = shuffle_open_up(inclusive, 1);
    if (lane > 0) before.append(of_lanes);
    return before;
}

// Reduces the elements of a tile. The block has SEGMENTED_THREADS threads.
//
//   load(i)           the element i, which is loaded once
//   state_of(value)   its state
//   store(s, state)   called for each segment that begins in the tile, with the state of its elements in the tile
//   leads             what each tile has of the segment that began before it
//   tails             what each tile has of the last segment that begins in it
template <class State, class Value, class Load, class StateOf, class Store>
static __device__ void reduce_tile(u64 n, u32 tile, const u32* begins, const u32* tile_begins, State* leads,
    State* tails, const Load& load, const StateOf& state_of, const Store& store) {
    // Elements go through here, so that a warp loads neighbours and a thread reduces neighbours.
    __shared__ Value exchange[SEGMENTED_TILE + SEGMENTED_TILE / SEGMENTED_ITEMS];
    __shared__ alignas(8) unsigned char firsts[SEGMENTED_TILE];
    const auto place = [](u32 index) { return index + index / SEGMENTED_ITEMS; };
    const u32 thread = threadIdx.x;
    const u64 start = (u64)tile * SEGMENTED_TILE;
    const u32 count = (u32)min((u64)SEGMENTED_TILE, n - start);
    const u32 first_segment = tile_begins[tile], end_segment = tile_begins[tile + 1];
    ((u64*)firsts)[thread] = 0;
#pragma unroll
    for (u32 item = 0; item < SEGMENTED_ITEMS; item++) {
        const u32 index = item * SEGMENTED_THREADS + thread;
        if (index < count) exchange[place(index)] = load(start + index);
    }
    __syncthreads();
    for (u32 segment = first_segment + thread; segment < end_segment; segment += SEGMENTED_THREADS) {
        firsts[begins[segment] - (u32)start] = 1;
    }
    __syncthreads();

    const u64 of_thread = ((const u64*)firsts)[thread];
    u32 all;
    // The segment that is open before the thread's elements; one before the first of the tile if it began earlier.
    u32 segment = first_segment + scan_block<SEGMENTED_THREADS>((u32)__popcll(of_thread), all) - 1;
    const u32 open_segment = segment;
    State lead = State::identity(), state = State::identity();
    bool has_first = false;
#pragma unroll
    for (u32 item = 0; item < SEGMENTED_ITEMS; item++) {
        const u32 index = thread * SEGMENTED_ITEMS + item;
        if (index >= count) break;
        if (of_thread >> (8 * item) & 1) {
            if (has_first) {
                store(segment, state);
            } else {
                lead = state;
            }
            has_first = true;
            segment++;
            state = State::identity();
        }
        state.merge(state_of(exchange[place(index)]));
    }
    OpenSegment<State> total;
    const OpenSegment<State> before = scan_open(OpenSegment<State>{state, has_first}, total);
    if (has_first) {
        State ended = before.state;
        ended.merge(lead);
        if (before.has_first) {
            store(open_segment, ended);
        } else {
            leads[tile] = ended;
        }
    }
    if (thread == 0) {
        if (total.has_first) {
            store(end_segment - 1, total.state);
            tails[tile] = total.state;
        } else {
            leads[tile] = total.state;
        }
    }
}

// The merged states of a warp's lanes, in lane 0.
template <class State> static __device__ State merge_lanes(State state) {
#pragma unroll 1
    for (u32 delta = 16; delta > 0; delta /= 2) state.merge(shuffle_state_down(state, delta));
    return state;
}

// Calls store(s, state) again for each segment that begins in one of SEGMENTED_THREADS tiles and goes beyond its tile.
template <class State, class Store>
static __device__ void reduce_spans(u64 n, u32 first_tile, u32 tiles, u32 segments, const u32* begins,
    const u32* tile_begins, const State* leads, const State* tails, const Store& store) {
    __shared__ u32 spans[SEGMENTED_THREADS];
    __shared__ u64 of_warps[SEGMENTED_WARPS][sizeof(State) / sizeof(u64)];
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const u32 own_tile = first_tile + thread;
    u32 span = 0;
    if (own_tile < tiles && tile_begins[own_tile + 1] > tile_begins[own_tile]) {
        const u32 next = tile_begins[own_tile + 1];
        const u64 end = next < segments ? begins[next] : n;
        span = (u32)((end - 1) / SEGMENTED_TILE) - own_tile;
    }
    spans[thread] = span;
    __syncthreads();
    for (u32 index = warp; index < SEGMENTED_THREADS; index += SEGMENTED_WARPS) {
        const u32 len = spans[index], tile = first_tile + index;
        if (len == 0 || len > SEGMENTED_WARP_SPAN) continue;
        State state = State::identity();
        for (u32 i = lane; i < len; i += 32) state.merge(leads[tile + 1 + i]);
        state = merge_lanes(state);
        if (lane == 0) {
            State whole = tails[tile];
            whole.merge(state);
            store(tile_begins[tile + 1] - 1, whole);
        }
    }
    for (u32 index = 0; index < SEGMENTED_THREADS; index++) {
        const u32 len = spans[index], tile = first_tile + index;
        if (len <= SEGMENTED_WARP_SPAN) continue;
        State state = State::identity();
        for (u32 i = thread; i < len; i += SEGMENTED_THREADS) state.merge(leads[tile + 1 + i]);
        state = merge_lanes(state);
        __syncthreads();
        if (lane == 0) memcpy(of_warps[warp], &state, sizeof(State));
        __syncthreads();
        if (thread == 0) {
            State whole = tails[tile];
            for (u32 other = 0; other < SEGMENTED_WARPS; other++) {
                State of_warp;
                memcpy(&of_warp, of_warps[other], sizeof(State));
                whole.merge(of_warp);
            }
            store(tile_begins[tile + 1] - 1, whole);
        }
    }
}

#endif
