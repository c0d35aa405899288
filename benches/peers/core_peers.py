"""`core/sort` and `core/top-k` on a GPU beside CuPy (CUB), torch, and a plain read of the data, all of it on the device.

    python scripts/build_device_code.py --unpack FOLDER      needs no GPU
    python benches/peers/core_peers.py FOLDER                needs CuPy and torch; FOLDER has sm_90 code, for an H100 or H200

Launches our device code as src/kernels/device/radix_sort.rs and src/kernels/core/top_k/{cuda,long_rows}.rs do, checks the outputs, and
prints the median of the times between two events.
"""

import pathlib
import statistics
import sys

import cupy
import numpy
import torch

FOLDER = pathlib.Path(sys.argv[1])
SORT = cupy.RawModule(path=str(FOLDER / "radix-sort.sm_90.cubin"))
TOP_K = cupy.RawModule(path=str(FOLDER / "top-k.sm_90.cubin"))
# CuPy reduces the grids of all launches of such a module to what fits on the device.
TOP_K_COOPERATIVE = cupy.RawModule(path=str(FOLDER / "top-k.sm_90.cubin"), enable_cooperative_groups=True)
MULTIPROCESSORS = cupy.cuda.Device().attributes["MultiProcessorCount"]
DIGITS = 256
KINDS = {"u": 0, "i": 1, "f": 2}


def u32(value):
    return numpy.uint32(value)


def word(array):
    return "u32" if array.dtype.itemsize == 4 else "u64"


def sort(array, with_indices, descending=False, moved=None):
    """Returns the sorted array, and the indices if they are wanted, or the 32-bit values `moved` in the order of their keys."""
    with_indices = with_indices or moved is not None
    size, passes = array.size, array.dtype.itemsize
    tile = 384 * (16 if passes == 4 else 10)
    order = (u32(KINDS[array.dtype.kind]), u32(descending))
    counts, uniform = cupy.zeros(passes * DIGITS, cupy.uint32), cupy.empty(passes, cupy.uint32)
    next_begin = cupy.empty(DIGITS, cupy.uint32)
    blocks = max(1, min(8 * MULTIPROCESSORS, -(-size // 2048)))
    SORT.get_function(f"sort_count_{word(array)}")((blocks,), (256,), (numpy.uint64(size), array, *order, counts))
    SORT.get_function("sort_begin")((passes,), (DIGITS,), (numpy.uint64(size), counts, uniform))
    uniform = uniform.get()
    digits = [digit for digit in range(passes) if not uniform[digit]] or [0]
    keys = [cupy.empty_like(array) for _ in range(2)]
    values = [cupy.empty(size if with_indices else 1, cupy.uint32) for _ in range(2)]
    tiles = -(-size // tile)
    words = cupy.empty(tiles * DIGITS + 1, cupy.uint32)
    keys_in, values_in = array, values[0] if moved is None else moved
    for turn, digit in enumerate(digits):
        words.data.memset_async(0, words.nbytes)
        flags = (turn == 0, turn + 1 == len(digits), with_indices, turn == 0 and moved is None)
        SORT.get_function(f"sort_pass_{word(array)}")((tiles,), (384,), (
            u32(size), u32(0), u32(8 * digit), *order, *map(u32, flags), keys_in, keys[turn % 2], values_in,
            values[turn % 2], counts[digit * DIGITS:], next_begin, words, words[tiles * DIGITS:]))
        keys_in, values_in = keys[turn % 2], values[turn % 2]
    return keys_in, values_in


def top_k(array, rows, k, largest=True):
    """Returns the first k of each row, and their indices."""
    size, bits = array.size // rows, array.dtype.itemsize
    if size * bits >= 4 << 20 and k <= 512 and 2 * MULTIPROCESSORS >= rows:
        return top_k_of_long_rows(array, rows, k, largest)
    word_type = cupy.dtype(f"u{bits}")
    bounds = cupy.full(rows, numpy.iinfo(word_type).max, word_type)
    order = (u32(KINDS[array.dtype.kind]), u32(largest))
    entry, source = "numbers", (array,)
    spans = -(-size * bits // (8 * 64 * 512))
    while True:
        parts = max(1, min(2 * MULTIPROCESSORS // rows, spans))
        keys, indices = cupy.empty(rows * parts * k, word_type), cupy.empty(rows * parts * k, cupy.uint32)
        function = TOP_K.get_function(f"top_k_{entry}_{word(array)}")
        function((rows * parts,), (512,), (u32(size), u32(k), u32(parts), *order, *source, bounds, keys, indices))
        if parts == 1:
            return keys.view(array.dtype), indices
        size, entry, source = parts * k, "candidates", (keys, indices)
        spans = -(-size // 4096)


def top_k_of_long_rows(array, rows, k, largest):
    """The same by one cooperative launch, as src/kernels/core/top_k/long_rows.rs does it."""
    size, bits = array.size // rows, array.dtype.itemsize
    word_type = cupy.dtype(f"u{bits}")
    parts = min(2 * MULTIPROCESSORS, 1024) // rows
    minima_of_block = min(-(-4 * max(k, 256) // parts), 2048 // parts, 512)
    steps_of_group = -(-(-(-size * bits // (8 * 16 * 32))) // (parts * 1024))
    blocks = rows * parts
    progress = cupy.empty(rows * 3, cupy.uint32)
    progress.data.memset_async(0, progress.nbytes)
    minima, collected = cupy.empty(blocks * minima_of_block, word_type), cupy.empty(blocks * k, word_type)
    minima_indices = cupy.empty(minima.size, cupy.uint32)
    collected_indices = cupy.empty(collected.size, cupy.uint32)
    keys, indices = cupy.empty(rows * k, word_type), cupy.empty(rows * k, cupy.uint32)
    sizes = map(u32, (size, k, parts, steps_of_group, minima_of_block, KINDS[array.dtype.kind], largest))
    TOP_K_COOPERATIVE.get_function(f"top_k_long_rows_{word(array)}")((blocks,), (512,), (
        *sizes, array, progress, minima, minima_indices, collected, collected_indices, keys, indices))
    return keys.view(array.dtype), indices


def median_ms(work, runs=9, queued=False):
    """The median time between two events. If `queued`, the device is kept busy before them until all launches are queued, so
    that what Python takes between launches is not in the time; `work` must not wait for the device then."""
    work()
    times = []
    for _ in range(runs):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        if queued:
            torch.cuda._sleep(2_000_000)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end))
    return statistics.median(times)


def row(name, ours, peers):
    print(f"{name:<44}{ours:9.3f}" + "".join(f"   {peer} {ms:.3f} ({ms / ours:.2f} x)" for peer, ms in peers.items()))


def sorts():
    for dtype, bits in [("uint32", 27), ("float32", 27), ("uint64", 26), ("float64", 26)]:
        random = cupy.random.default_rng(1)
        array = random.integers(0, 1 << 32, 1 << bits, dtype=cupy.uint64).astype(cupy.uint32)
        if dtype == "uint64":
            array = random.integers(0, 1 << 63, 1 << bits, dtype=cupy.uint64)
        if dtype.startswith("float"):
            array = random.standard_normal(1 << bits, dtype=dtype)
        ordered, indices = sort(array, True)
        assert bool((ordered == cupy.sort(array)).all()) and bool((array[indices] == ordered).all()), dtype
        assert bool((sort(array, False)[0] == ordered).all()), dtype
        del ordered, indices
        row(f"sort, {dtype}, 2^{bits}", median_ms(lambda: sort(array, False)), {"CuPy": median_ms(lambda: cupy.sort(array))})
        row(f"sort with indices, {dtype}, 2^{bits}", median_ms(lambda: sort(array, True)),
            {"CuPy": median_ms(lambda: cupy.argsort(array))})
    for size in [1_000, 100_000, 1 << 20, 1 << 24]:
        array = cupy.random.default_rng(2).integers(0, 1 << 31, size, dtype=cupy.uint32)
        row(f"sort, uint32, {size}", median_ms(lambda: sort(array, False)), {"CuPy": median_ms(lambda: cupy.sort(array))})


def device_ms(work, runs=9):
    return median_ms(work, runs, queued=True)


def selections():
    array = cupy.random.default_rng(3).standard_normal(1 << 27, dtype=cupy.float32)
    tensor = torch.as_tensor(array, device="cuda")
    read = device_ms(lambda: tensor.sum())
    orders = {"random": array, "ascending": cupy.sort(array), "equal": cupy.full_like(array, 1.5)}
    for name, values in orders.items():
        for k in [1, 100, 1000]:
            found, indices = top_k(values, 1, k)
            expected = torch.topk(torch.as_tensor(values, device="cuda"), k).values
            assert bool((torch.as_tensor(found, device="cuda") == expected).all()), (name, k)
            assert bool((values[indices] == found).all()), (name, k)
            here = torch.as_tensor(values, device="cuda")
            row(f"top {k} of float32, 2^27, {name}", device_ms(lambda: top_k(values, 1, k)),
                {"read": read, "torch": device_ms(lambda: torch.topk(here, k))})
    for rows in [32, 4096, 1 << 17]:
        found, _ = top_k(array, rows, 100)
        matrix = tensor.view(rows, -1)
        expected = torch.topk(matrix, 100).values.flatten()
        assert bool((torch.as_tensor(found, device="cuda") == expected).all()), rows
        row(f"top 100 of {rows} rows of float32, 2^27", device_ms(lambda: top_k(array, rows, 100), 3),
            {"read": read, "torch": device_ms(lambda: torch.topk(matrix, 100), 3)})


if __name__ == "__main__":
    print(f"{torch.cuda.get_device_name()}, CuPy {cupy.__version__}, torch {torch.__version__}; ms")
    sorts()
    selections()
