// Reductions: all rows of a segment to one state, the same bits whatever the device and whatever else is in
// the launch. A segment is the rows of one request.
//
// A kernel is a state, which is a struct of f64, and two entries:
//
//   struct Sum {
//       double sum;
//       __device__ static Sum identity() { return {0.0}; }
//       __device__ void add(float x) { sum += x; }                   // one row
//       __device__ void merge(const Sum& other) { sum += other.sum; }
//   };
//   extern "C" __global__ void REDUCE sum(u32 segments, const u64* offsets, double* partials, const float* x) {
//       reduce<Sum, 4>(segments, offsets, partials, x);
//   }
//   extern "C" __global__ void REDUCE sum_merge(u32 segments, const u64* offsets, u32 blocks,
//       const double* partials, double* out) {
//       merge_partials<Sum>(segments, offsets, blocks, partials, out);
//   }
//
// Segment s is rows offsets[s] to offsets[s + 1]. The first entry is launched with a grid of (blocks,
// segments) and leaves a state for each block; the second, with a block a segment, merges these. Merging
// with `identity()` must change no bit of the other state.
//
// Which rows a thread adds, and in which order states are merged, depends on the length of the segment alone.

#ifndef TOWER_KERNELS_REDUCE
#define TOWER_KERNELS_REDUCE

#ifndef TOWER_KERNELS_ELEMENTWISE
#error "reduce.cuh needs elementwise.cuh before it"
#endif

// 256 threads a block, as the host launches them.
#define REDUCE __launch_bounds__(256)

constexpr u32 REDUCE_THREADS = 256;

// How many blocks reduce a segment of this length. src/kernels/authoring/reduction.rs has the same numbers.
static __device__ u32 blocks_of(u64 rows) {
    const u64 blocks = (rows + 4095) / 4096;
    return blocks < 1 ? 1 : blocks > 1024 ? 1024 : (u32)blocks;
}

template <class State> static __device__ State shuffle_down(const State& state, u32 delta) {
    constexpr int WORDS = sizeof(State) / sizeof(double);
    double words[WORDS];
    memcpy(words, &state, sizeof(state));
#pragma unroll
    for (int i = 0; i < WORDS; i++) words[i] = __shfl_down_sync(0xffffffff, words[i], delta);
    State other;
    memcpy(&other, words, sizeof(other));
    return other;
}

// The merged states of all threads of the block, in thread 0. All threads must call it.
template <class State> static __device__ State merge_block(State state) {
    constexpr int WARPS = REDUCE_THREADS / 32;
    static_assert(sizeof(State) % sizeof(double) == 0, "a state is a struct of double");
    __shared__ double shared[WARPS * sizeof(State) / sizeof(double)];
    State* const of_warps = (State*)shared;
    for (u32 delta = 16; delta > 0; delta /= 2) state.merge(shuffle_down(state, delta));
    // Thread 0 may still read the states of the segment before.
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = state;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < WARPS; warp++) state.merge(of_warps[warp]);
    }
    return state;
}

// A pack of rows, whether or not they may be read at once.
template <class T, int W> static __device__ Pack<T, W> gather_pack(const T* at, bool packed, u64 pack) {
    if (packed) return read_pack<T, W>(operand(at), pack);
    Pack<T, W> out;
#pragma unroll
    for (int i = 0; i < W; i++) out.at[i] = at[pack * W + i];
    return out;
}

template <class State, int W, class... In>
static __device__ void add_pack(State& state, const Pack<In, W>&... in) {
#pragma unroll
    for (int i = 0; i < W; i++) state.add(in.at[i]...);
}

// The states of the blocks of every segment, `gridDim.x` apart.
template <class State, int W, class... In>
static __device__ void reduce(u32 segments, const u64* offsets, double* partials, const In*... in) {
    for (u32 segment = blockIdx.y; segment < segments; segment += gridDim.y) {
        const u64 start = offsets[segment];
        const u64 rows = offsets[segment + 1] - start;
        const u32 blocks = blocks_of(rows);
        if (blockIdx.x >= blocks) continue;
        const bool packed = (is_aligned<W>(in + start) && ...);
        State state = State::identity();
        const u64 threads = (u64)blocks * REDUCE_THREADS;
        for (u64 i = (u64)blockIdx.x * REDUCE_THREADS + threadIdx.x; i * W < rows; i += threads) {
            // The same code adds a row wherever its segment begins: two copies might be contracted differently.
            if ((i + 1) * W <= rows) {
                add_pack<State, W>(state, gather_pack<In, W>(in + start, packed, i)...);
            } else {
                const u64 end = min((i + 1) * W, rows);
                for (u64 k = i * W; k < end; k++) state.add(in[start + k]...);
            }
        }
        state = merge_block(state);
        if (threadIdx.x == 0) ((State*)partials)[(u64)segment * gridDim.x + blockIdx.x] = state;
    }
}

// The state of every segment, from those of its blocks, which are `stride` apart from one segment to the next.
template <class State>
static __device__ void merge_partials(
    u32 segments, const u64* offsets, u32 stride, const double* partials, double* out) {
    for (u32 segment = blockIdx.x; segment < segments; segment += gridDim.x) {
        const u32 blocks = blocks_of(offsets[segment + 1] - offsets[segment]);
        State state = State::identity();
        for (u32 block = threadIdx.x; block < blocks; block += REDUCE_THREADS)
            state.merge(((const State*)partials)[(u64)segment * stride + block]);
        state = merge_block(state);
        if (threadIdx.x == 0) ((State*)out)[segment] = state;
    }
}

#endif
