// Monte Carlo value at risk. See mod.rs for the model, and philox.rs, simulate.rs and select.rs for the same
// computation on the CPU.
//
// A run: `var_simulate` writes the loss of each scenario, `var_count_first` and two launches of `var_count` count
// losses by their bits, from which the host finds order statistics, and `var_sums` adds up losses, once for each
// confidence level. The simulation is bound by instructions, some 40 for each factor of a scenario; the rest reads the
// losses once each.
#include "cancel.cuh"
#include "elementwise.cuh"
#include "ordered_bits.cuh"

constexpr u32 THREADS = 256;

// ------------------------------------------------------------------------------------------------ simulation

// Philox 4x32-10.
static __device__ uint4 philox(uint4 counter, u32 key_0, u32 key_1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u32 high_0 = __umulhi(0xD2511F53, counter.x), low_0 = 0xD2511F53 * counter.x;
        const u32 high_1 = __umulhi(0xCD9E8D57, counter.z), low_1 = 0xCD9E8D57 * counter.z;
        counter = {high_1 ^ counter.y ^ key_0, low_1, high_0 ^ counter.w ^ key_1, low_0};
        key_0 += 0x9E3779B9;
        key_1 += 0xBB67AE85;
    }
    return counter;
}

// Two standard normal numbers by the method of Box and Muller.
static __device__ float2 normals(u32 a, u32 b) {
    const float uniform = fmaf((float)a, 0x1p-32f, 0x1p-33f);
    const float radius = sqrtf(fmaxf(-2.0f * logf(uniform), 0.0f));
    float sine, cosine;
    // By its sign the word is from -1/2 to 1/2 of a turn, in which f32 has more digits than from 0 to 1.
    sincospif((float)(int)b * 0x1p-31f, &sine, &cosine);
    return {radius * cosine, radius * sine};
}

// The coefficients of four factors.
struct alignas(16) Group {
    float linear[4], square[4];
};

static __device__ void add_factor(float& sum, const Group& group, int index, float z) {
    sum = fmaf(fmaf(group.square[index], z, group.linear[index]), z, sum);
}

// losses[i] of the scenarios first + i, i < count.
extern "C" __global__ void __launch_bounds__(THREADS) var_simulate(
    u64 first, u64 count, u64 seed, u32 num_groups, const Group* groups, float constant, float* losses,
    const volatile u32* flag, u32* cancelled) {
    extern __shared__ Group shared[];
    if (is_cancelled({flag, cancelled})) return;
    for (u32 i = threadIdx.x; i < num_groups; i += THREADS) shared[i] = groups[i];
    __syncthreads();
    const u64 threads = (u64)gridDim.x * THREADS;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += threads) {
        const u64 scenario = first + i;
        float sum = constant;
        for (u32 g = 0; g < num_groups; g++) {
            const uint4 words = philox({(u32)scenario, (u32)(scenario >> 32), g, 0}, (u32)seed, (u32)(seed >> 32));
            const float2 a = normals(words.x, words.y), b = normals(words.z, words.w);
            const Group group = shared[g];
            add_factor(sum, group, 0, a.x);
            add_factor(sum, group, 1, a.y);
            add_factor(sum, group, 2, b.x);
            add_factor(sum, group, 3, b.y);
        }
        losses[i] = sum;
    }
}

// ------------------------------------------------------------------------------------------------ order statistics

static __device__ u32 ordered_bits(float value) {
    return NumberOrder<u32>(FLOATING_POINT, false).to_ordered(__float_as_uint(value));
}

// Counts by the first 12 bits; `counts` has 4096 elements, of 0 before.
extern "C" __global__ void __launch_bounds__(THREADS)
var_count_first(u64 n, const float* losses, u32* counts) {
    constexpr u32 BINS = 4096;
    __shared__ u32 shared[BINS];
    for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) shared[bin] = 0;
    __syncthreads();
    const u64 threads = (u64)gridDim.x * THREADS;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < n; i += threads) {
        const u32 bin = ordered_bits(losses[i]) >> 20;
        atomicAdd(&shared[bin], 1);
    }
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) {
        if (shared[bin] != 0) atomicAdd(&counts[bin], shared[bin]);
    }
}

// Counts by the 10 bits above `shift`, for losses whose higher bits are one of `prefixes`, which are in ascending
// order; `counts` has 1024 elements for each, of 0 before.
extern "C" __global__ void __launch_bounds__(THREADS)
var_count(u64 n, const float* losses, u32 shift, u32 num_prefixes, const u32* prefixes, u32* counts) {
    __shared__ u32 shared[64];
    for (u32 i = threadIdx.x; i < num_prefixes; i += THREADS) shared[i] = prefixes[i];
    __syncthreads();
    const u64 threads = (u64)gridDim.x * THREADS;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < n; i += threads) {
        const u32 bits = ordered_bits(losses[i]);
        const u32 prefix = bits >> (shift + 10);
        u32 low = 0, high = num_prefixes;
        while (low < high) {
            const u32 middle = (low + high) / 2;
            if (shared[middle] < prefix) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if (low < num_prefixes && shared[low] == prefix) atomicAdd(&counts[low * 1024 + (bits >> shift) % 1024], 1);
    }
}

// ------------------------------------------------------------------------------------------------ sums

static __device__ double2 block_sum(double2 value) {
    __shared__ double2 shared[THREADS];
    shared[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            shared[threadIdx.x].x += shared[threadIdx.x + half].x;
            shared[threadIdx.x].y += shared[threadIdx.x + half].y;
        }
        __syncthreads();
    }
    return shared[0];
}

// partials[b]: sums of x and x^2 over the losses of block b, with x the distance from `origin`, where `only_above` not
// below 0. The grid decides which losses are in which sum, so it has to depend on n alone.
extern "C" __global__ void __launch_bounds__(THREADS)
var_sums(u64 n, const float* losses, double origin, u32 only_above, double2* partials) {
    double2 sum = {0.0, 0.0};
    const u64 threads = (u64)gridDim.x * THREADS;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < n; i += threads) {
        double x = (double)losses[i] - origin;
        if (only_above && x < 0.0) x = 0.0;
        sum.x += x;
        sum.y += x * x;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}
