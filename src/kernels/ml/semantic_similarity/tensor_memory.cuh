// Shared memory from which the tensor cores of Hopper (sm_90a) read, and barriers for those who fill it.

#ifndef TOWER_KERNELS_TENSOR_MEMORY
#define TOWER_KERNELS_TENSOR_MEMORY

#include "ranks.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Bytes of a row.
constexpr u32 ROW_BYTES = 128;

static __device__ u32 shared_address(const void* pointer) { return u32(__cvta_generic_to_shared(pointer)); }

// Barriers in shared memory. A phase ends when as many threads as it was made for have arrived.
static __device__ void init_barrier(u64& barrier, u32 threads) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(threads) : "memory");
}
static __device__ void arrive(u64& barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
// Arrives when the copies that this thread has started are done.
static __device__ void arrive_after_copies(u64& barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
// Waits for the end of the phase of this parity. The phase before the first has parity 1 and is over.
static __device__ void wait_for(u64& barrier, u32 parity) {
    asm volatile("{.reg .pred done; WAIT: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra WAIT;}" ::"r"(
                     shared_address(&barrier)), "r"(parity) : "memory");
}

// Rows of 128 bytes have their pieces of 16 bytes where the tensor cores look for them ("128-byte swizzle"), so that eight
// rows reach all banks. The first row is at a multiple of 1024 bytes.
static __device__ u32 swizzled(u32 row, u32 piece) { return row * ROW_BYTES + (piece ^ row % 8) * 16; }

// For the tensor cores, such rows from an address on. Offsets in units of 16 bytes are added to it.
static __device__ u64 matrix_descriptor(u32 address) {
    const u64 eight_rows = 8 * ROW_BYTES;
    return u64(address >> 4 & 0x3fff) | u64(1) << 16 | eight_rows >> 4 << 32 | u64(1) << 62;
}
#endif

#endif
