// Launches whose blocks begin before those of the launch before them have ended (`Launch::overlapping`), so that starting a
// grid takes no time of its own. Devices before compute capability 9.0 run one after the other.

#ifndef TOWER_KERNELS_OVERLAP
#define TOWER_KERNELS_OVERLAP

// Lets the blocks of the next launch begin where there is room for them, once all blocks of this one have called this. They
// wait with wait_for_last_launch.
static __device__ __forceinline__ void begin_next_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the launch before this one, and with it all before that, has ended and what it has written is visible. Before
// that a kernel of an overlapping launch reads nothing but what no other kernel writes, and the signal to cancel.
static __device__ __forceinline__ void wait_for_last_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#endif
