//! Tower middleware around a `Service<KernelRequest>` that runs kernels on CUDA GPUs and on the CPU.
