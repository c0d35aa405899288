// Cancellation of launches of many short blocks.
#pragma once

#include "load_balance.cuh"

constexpr u32 CANCEL_BLOCKS = 256; // blocks, of which one polls the host's flag

// Whether the request is cancelled, the same for all threads of a block, which all call it when they start.
static __device__ bool is_cancelled(CancelSignal cancel) {
    bool cancelled = false;
    if (threadIdx.x == 0) {
        cancelled = *(const volatile u32*)cancel.cancelled != 0;
        if (blockIdx.x % CANCEL_BLOCKS == 0 && blockIdx.y == 0 && cancel.poll_cancel()) cancelled = true;
    }
    return __syncthreads_or(cancelled) != 0;
}
