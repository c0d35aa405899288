// Elementwise kernels: row i of each output is a function of row i of each input.
//
// A kernel is one entry and one function of a row:
//
//   extern "C" __global__ void ELEMENTWISE scale(u64 n, float a, const float* x, float* out) {
//       elementwise<4>(n, [=](float x) { return a * x; }, outputs(out), operand(x));
//   }
//
// `elementwise<W>` takes W rows a thread at a time, in accesses of 16 bytes where every array is aligned for
// it; W is 4 for f32 and 2 for f64. Any grid is right: threads stride over what the grid does not cover. An
// output may be the array of an input; any other overlap is not allowed.

#ifndef TOWER_KERNELS_ELEMENTWISE
#define TOWER_KERNELS_ELEMENTWISE

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

// 256 threads a block, as the host launches them.
#define ELEMENTWISE __launch_bounds__(256)

// An input: one element for each row (stride 1), or one for all rows (stride 0).
template <class T> struct Operand {
    const T* at;
    u32 stride;
};

template <class T> static __device__ Operand<T> operand(const T* at, u32 stride = 1) { return {at, stride}; }

// The N output arrays.
template <class T, int N> struct Outputs {
    T* at[N];
};

template <class T, class... Rest>
static __device__ Outputs<T, 1 + sizeof...(Rest)> outputs(T* first, Rest*... rest) { return {{first, rest...}}; }

// One row of N outputs, which the function of a row returns where N > 1.
template <class T, int N> struct Row {
    T at[N];
};

template <class T> static __device__ T output_of(const T& row, int) { return row; }
template <class T, int N> static __device__ T output_of(const Row<T, N>& row, int output) { return row.at[output]; }

// W elements that are read or written at once.
template <class T, int W> struct alignas(sizeof(T) * W) Pack {
    T at[W];
};

template <int BYTES> struct Word;
template <> struct Word<1> { typedef unsigned char Type; };
template <> struct Word<2> { typedef unsigned short Type; };
template <> struct Word<4> { typedef unsigned int Type; };
template <> struct Word<8> { typedef uint2 Type; };
template <> struct Word<16> { typedef uint4 Type; };

// Each element is used once, so the accesses are streaming ones, which leave the cache to others.
template <class T, int W> static __device__ Pack<T, W> read_pack(const Operand<T>& in, u64 pack) {
    Pack<T, W> out;
    if (W > 1 && in.stride == 0) {
        const T value = *in.at;
#pragma unroll
        for (int i = 0; i < W; i++) out.at[i] = value;
    } else {
        typedef typename Word<sizeof(out)>::Type Bits;
        const Bits bits = __ldcs((const Bits*)in.at + in.stride * pack);
        memcpy(&out, &bits, sizeof(out));
    }
    return out;
}

template <class T, int W> static __device__ void write_pack(T* out, u64 pack, const Pack<T, W>& values) {
    typedef typename Word<sizeof(values)>::Type Bits;
    Bits bits;
    memcpy(&bits, &values, sizeof(values));
    __stcs((Bits*)out + pack, bits);
}

template <int W, class T> static __device__ bool is_aligned(const T* at) {
    return ((u64)at & (sizeof(T) * W - 1)) == 0;
}

template <int W, class F, class T, int N, class... In>
static __device__ void compute_pack(u64 pack, const F& row, const Outputs<T, N>& out, const Pack<In, W>&... in) {
    Pack<T, W> results[N];
#pragma unroll
    for (int i = 0; i < W; i++) {
        const auto result = row(in.at[i]...);
#pragma unroll
        for (int k = 0; k < N; k++) results[k].at[i] = output_of(result, k);
    }
#pragma unroll
    for (int k = 0; k < N; k++) write_pack<T, W>(out.at[k], pack, results[k]);
}

template <int W, class F, class T, int N, class... In>
static __device__ void elementwise(u64 n, const F& row, const Outputs<T, N>& out, Operand<In>... in) {
    const u64 threads = (u64)gridDim.x * blockDim.x;
    bool packed = ((in.stride == 0 || is_aligned<W>(in.at)) && ...);
#pragma unroll
    for (int k = 0; k < N; k++) packed = packed && is_aligned<W>(out.at[k]);
    // One loop for whole packs and the rest: with a second one, NVRTC 12.2 orders its address arithmetic
    // differently from run to run, and the PTX would not be reproducible.
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i * W < n; i += threads) {
        if (packed && (i + 1) * W <= n) {
            compute_pack<W>(i, row, out, read_pack<In, W>(in, i)...);
        } else {
            const u64 end = min((i + 1) * W, n);
            for (u64 k = i * W; k < end; k++) compute_pack<1>(k, row, out, read_pack<In, 1>(in, k)...);
        }
    }
}

#endif
