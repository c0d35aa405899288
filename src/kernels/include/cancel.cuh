// How a launch ends early. The host's flag lies in the host's memory: reads of it wait for one another, about a microsecond
// each, so few blocks poll it and tell the others through device memory.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

struct CancelSignal {
    const volatile u32* flag; // 1 once the request is cancelled
    u32* cancelled;           // 1 once a block has seen it

    __device__ bool poll_cancel() const {
        if (*flag == 0) return false;
        *(volatile u32*)cancelled = 1;
        return true;
    }

    // Whether a block has seen it.
    __device__ bool is_seen() const { return *(const volatile u32*)cancelled != 0; }
};

constexpr u32 CANCEL_BLOCKS = 256; // blocks, of which one polls the host's flag

// Whether the request is cancelled, the same for all threads of a block, which all call it when they start.
static __device__ bool is_cancelled(CancelSignal cancel) {
    bool cancelled = false;
    if (threadIdx.x == 0) {
        cancelled = cancel.is_seen();
        if (blockIdx.x % CANCEL_BLOCKS == 0 && blockIdx.y == 0 && cancel.poll_cancel()) cancelled = true;
    }
    return __syncthreads_or(cancelled) != 0;
}

constexpr u32 CHECKS_PER_POLL = 256;

// Whether the request is cancelled, for loops in which warps check it many times. `check` counts the checks of the
// warp: one in CHECKS_PER_POLL polls the host's flag, at a time that differs among warps and blocks. Lanes may disagree.
static __device__ bool is_cancelled_at(CancelSignal cancel, u32 check) {
    const bool polls = threadIdx.x % 32 == 0 && (check + blockIdx.x + threadIdx.x) % CHECKS_PER_POLL == 0;
    return polls ? cancel.poll_cancel() : cancel.is_seen();
}
