"""What the driver takes to load the built-in kernels, as PTX and as machine code, and how fast either then is; and what
it takes to start kernels that do nothing, one by one and as a CUDA graph.

    python3 scripts/build_device_code.py --unpack FOLDER
    CUDA_CACHE_DISABLE=1 python3 benches/cuda/driver_costs.py FOLDER

Needs a GPU and its driver alone. FOLDER holds the .ptx and .cubin files.
"""

import ctypes
import os
import pathlib
import statistics
import sys
import time

CUDA = ctypes.CDLL("libcuda.so.1")


def call(name, *arguments):
    code = getattr(CUDA, name)(*arguments)
    if code != 0:
        sys.exit(f"{name} failed with error {code}")


def load(image):
    """The module, and the milliseconds that it took."""
    module = ctypes.c_void_p()
    start = time.perf_counter()
    call("cuModuleLoadData", ctypes.byref(module), image)
    return module, (time.perf_counter() - start) * 1e3


def price(module, count=16 << 20):
    """Milliseconds of one launch of black_scholes_f64 over `count` contracts, the median of 9."""
    function = ctypes.c_void_p()
    call("cuModuleGetFunction", ctypes.byref(function), module, b"black_scholes_f64")
    memory = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(13 * 8 * count))
    call("cuMemsetD32_v2", memory, 0x3FF00000, ctypes.c_size_t(2 * 12 * count))  # about 1 in f64
    call("cuMemsetD8_v2", ctypes.c_uint64(memory.value + 12 * 8 * count), 0, ctypes.c_size_t(count))
    arrays = [ctypes.c_uint64(memory.value + 8 * count * index) for index in range(13)]
    one = ctypes.c_uint32(1)
    values = [ctypes.c_uint64(count)]
    for array in arrays[:6] + [arrays[12]]:
        values += [array, one]
    values += arrays[6:12]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values))
    events = [ctypes.c_void_p(), ctypes.c_void_p()]
    for event in events:
        call("cuEventCreate", ctypes.byref(event), 0)
    times = []
    for _ in range(10):
        call("cuEventRecord", events[0], None)
        blocks = count // 512
        call("cuLaunchKernel", function, blocks, 1, 1, 256, 1, 1, 0, None, pointers, None)
        call("cuEventRecord", events[1], None)
        call("cuEventSynchronize", events[1])
        took = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(took), events[0], events[1])
        times.append(took.value)
    call("cuMemFree_v2", memory)
    return statistics.median(times[1:])


EMPTY = b".version 8.2\n.target sm_75\n.address_size 64\n.visible .entry empty() { ret; }\n\0"


def launches(blocks, count=1024):
    """Microseconds a launch, from a stream and from a graph of 32."""
    module, _ = load(EMPTY)
    function, stream, graph, ready = (ctypes.c_void_p() for _ in range(4))
    call("cuModuleGetFunction", ctypes.byref(function), module, b"empty")
    call("cuStreamCreate", ctypes.byref(stream), 1)

    def launch(times):
        for _ in range(times):
            CUDA.cuLaunchKernel(function, blocks, 1, 1, 256, 1, 1, 0, stream, None, None)

    call("cuStreamBeginCapture_v2", stream, 2)
    launch(32)
    call("cuStreamEndCapture", stream, ctypes.byref(graph))
    start = time.perf_counter()
    call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
    instantiated = (time.perf_counter() - start) * 1e6

    def timed(work):
        best = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            call("cuStreamSynchronize", stream)
            best.append((time.perf_counter() - start) * 1e6 / count)
        return min(best)

    def replay():
        for _ in range(count // 32):
            CUDA.cuGraphLaunch(ready, stream)

    return timed(lambda: launch(count)), timed(replay), instantiated


def main():
    folder = pathlib.Path(sys.argv[1])
    call("cuInit", 0)
    context, device = ctypes.c_void_p(), ctypes.c_int()
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    major, minor = ctypes.c_int(), ctypes.c_int()
    call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
    print(f"compute capability {major.value}.{minor.value}, driver cache off: {os.environ.get('CUDA_CACHE_DISABLE') == '1'}")
    print("| image | bytes | load, ms | 16M contracts, ms |\n| --- | ---: | ---: | ---: |")
    for ptx in sorted(folder.rglob("*.ptx")):
        cubin = ptx.with_name(f"{ptx.stem}.sm_{major.value}{minor.value}.cubin")
        for path in [ptx] + [cubin] * cubin.exists():
            image = path.read_bytes() + bytes(1)
            module, took = load(image)
            kernel = f"{price(module):.3f}" if "option-pricing" in path.name else ""
            print(f"| {path.name} | {len(image) - 1} | {took:.2f} | {kernel} |")
            call("cuModuleUnload", module)
    print("| blocks of 256 | launch from a stream, us | from a graph of 32, us | making the graph, us |")
    print("| ---: | ---: | ---: | ---: |")
    for blocks in [1, 132, 792]:
        stream, graph, instantiated = launches(blocks)
        print(f"| {blocks} | {stream:.2f} | {graph:.2f} | {instantiated:.0f} |")


if __name__ == "__main__":
    main()
