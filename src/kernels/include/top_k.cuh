// The best candidates that a block finds: those of the highest score, and of equal scores those of the lowest number.
//
//   BlockTopK best(memory, state, capacity, wanted);   // shared memory, see below
//   best.clear();
//   best.offer(has, score, node);     // by all threads of the block, those that have a candidate and those that have none
//   best.finish();                    // sorts; then best.scores[i] and best.nodes[i] for i below best.state->count
//
// Candidates go into a buffer. Once it is full it is sorted, and the best `wanted` stay; from then on candidates that are
// worse than all of these are dropped, which are soon nearly all. Scores are the bits of f64 that are not negative.
//
// `memory` is 12 * capacity bytes of shared memory, aligned to 8; `capacity` is a power of two and at least
// `wanted` + THREADS.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

struct TopKState {
    u64 least_score; // a candidate has to be better than this one
    u32 least_node;
    u32 count;
};

template <u32 THREADS> struct BlockTopK {
    u64* scores;
    u32* nodes;
    TopKState* state;
    u32 capacity, wanted;

    __device__ BlockTopK(void* memory, TopKState* state, u32 capacity, u32 wanted)
        : scores((u64*)memory), nodes((u32*)((u64*)memory + capacity)), state(state), capacity(capacity), wanted(wanted) {}

    __device__ void clear() {
        __syncthreads();
        if (threadIdx.x == 0) *state = {0, 0, 0};
        __syncthreads();
    }

    // Whether a candidate may be among the best. Scores of 0 are not.
    __device__ bool is_better(u64 score, u32 node) const {
        const u64 least = state->least_score;
        return score > least || (score == least && node < state->least_node);
    }

    __device__ void offer(bool has, u64 score, u32 node) {
        has = has && is_better(score, node);
        for (;;) {
            if (has) {
                const u32 at = atomicAdd(&state->count, 1);
                if (at < capacity) {
                    scores[at] = score;
                    nodes[at] = node;
                    has = false;
                }
            }
            if (!__syncthreads_or(has)) return;
            finish();
            has = has && is_better(score, node);
        }
    }

    // Sorts the candidates and drops all but the best.
    __device__ __noinline__ void finish() {
        __syncthreads();
        const u32 count = min(state->count, capacity);
        u32 size = 1;
        while (size < count) size *= 2;
        for (u32 i = count + threadIdx.x; i < size; i += THREADS) {
            scores[i] = 0;
            nodes[i] = ~0u;
        }
        __syncthreads();
        // Batcher's bitonic sort.
        for (u32 sorted = 2; sorted <= size; sorted *= 2) {
            for (u32 stride = sorted / 2; stride > 0; stride /= 2) {
                for (u32 i = threadIdx.x; i < size / 2; i += THREADS) {
                    const u32 a = 2 * i - (i & (stride - 1)), b = a + stride;
                    const bool is_after = scores[a] < scores[b] || (scores[a] == scores[b] && nodes[a] > nodes[b]);
                    if (is_after == ((a & sorted) == 0)) swap(a, b);
                }
                __syncthreads();
            }
        }
        if (threadIdx.x == 0) {
            state->count = min(count, wanted);
            if (count >= wanted) {
                state->least_score = scores[wanted - 1];
                state->least_node = nodes[wanted - 1];
            }
        }
        __syncthreads();
    }

private:
    __device__ void swap(u32 a, u32 b) {
        const u64 score = scores[a];
        scores[a] = scores[b];
        scores[b] = score;
        const u32 node = nodes[a];
        nodes[a] = nodes[b];
        nodes[b] = node;
    }
};
