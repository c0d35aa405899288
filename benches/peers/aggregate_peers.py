"""`core/segmented-aggregate` on a GPU beside torch and CuPy, and a plain read of the rows, all of it on the device.

    python scripts/build_device_code.py --unpack FOLDER      needs no GPU
    python benches/peers/aggregate_peers.py FOLDER           needs CuPy and torch; FOLDER has sm_90 code, for an H100 or H200

Launches our device code as src/kernels/core/segmented_aggregate/cuda.rs does, checks the outputs, and prints the median of
the times between two events. torch's scatter_reduce gets keys that are indices already, as int64; for others it needs
`unique`, which sorts. `share` is the part of the memory's bandwidth, 4.8 TB/s, that one read of the rows would take.
"""

import sys

import cupy
import numpy
import torch

from core_peers import FOLDER, KINDS, median_ms, sort, u32, word

MODULE = cupy.RawModule(path=str(FOLDER / "segmented-aggregate.sm_90.cubin"))
TILE, SCAN_TILE, PEAK = 2048, 4096, 4.8e12
STATE_WORDS = {"u32": 2, "f32": 2, "u64": 4, "f64": 3}


def aggregate(keys, values, is_sorted, poison=False):
    """Returns the keys of the groups, their counts, sums (with the high words of 64-bit integers), and smallest and largest."""
    size, indices = keys.size, None
    if not is_sorted:
        if values.dtype.itemsize == 4:
            keys, moved = sort(keys, False, moved=values)
            values = moved.view(values.dtype)
        else:
            keys, indices = sort(keys, True)
    empty = (lambda *shape: cupy.full(shape[0], 0x5A, shape[1])) if poison else cupy.empty
    length, kind = numpy.uint64(size), u32(KINDS[keys.dtype.kind])
    tiles, scan_tiles = -(-size // TILE), -(-size // SCAN_TILE)
    begins, tile_begins = empty(size, cupy.uint32), empty(tiles + 1, cupy.uint32)
    scan, descent = cupy.zeros(scan_tiles + 1, cupy.uint64), cupy.full(1, 0xFFFFFFFF, cupy.uint32)
    MODULE.get_function(f"aggregate_begins_{word(keys)}")(
        (scan_tiles,), (256,), (length, kind, keys, scan, scan[scan_tiles:], begins, tile_begins, descent))
    groups = int(tile_begins[tiles])
    assert int(descent[0]) == 0xFFFFFFFF
    name = ("f" if values.dtype.kind == "f" else "u") + str(8 * values.dtype.itemsize)
    leads, tails = (empty(tiles * STATE_WORDS[name], cupy.uint64) for _ in range(2))
    lows = empty(groups, cupy.float64 if name[0] == "f" else cupy.uint64)
    highs = empty(groups, cupy.uint64) if name == "u64" else None
    mins, maxs = empty(groups, values.dtype), empty(groups, values.dtype)
    pointer = lambda array: numpy.uint64(0) if array is None else array
    columns = (lows, pointer(highs), mins, maxs)
    kind = u32(KINDS[values.dtype.kind])
    MODULE.get_function(f"aggregate_tiles_{name}")((tiles,), (256,), (
        length, u32(0), kind, values, pointer(indices), begins, tile_begins, leads, tails, *columns))
    MODULE.get_function(f"aggregate_spans_{name}")((-(-tiles // 256),), (256,), (
        length, u32(tiles), u32(groups), kind, begins, tile_begins, leads, tails, *columns))
    keys_out, counts = empty(groups, keys.dtype), empty(groups, cupy.uint32)
    blocks = min(-(-groups // 256), 2048)
    MODULE.get_function(f"aggregate_keys_{word(keys)}")(
        (blocks,), (256,), (length, u32(groups), keys, begins, keys_out, counts))
    return keys_out, counts, lows, highs, mins, maxs


def check(keys, values, is_sorted):
    """Compares with numpy, on the host and in 64-bit integers or float64."""
    keys_out, counts, lows, highs, mins, maxs = aggregate(keys, values, is_sorted, poison=True)
    again = aggregate(keys, values, is_sorted)
    assert all(bool((one.view(cupy.uint8) == two.view(cupy.uint8)).all()) for one, two in zip((lows, mins, maxs), (again[2], again[4], again[5])))
    keys, values = keys.get(), values.get()
    expected, inverse, expected_counts = numpy.unique(keys, return_inverse=True, return_counts=True)
    order = numpy.argsort(inverse, kind="stable")
    begins = numpy.concatenate([[0], numpy.cumsum(expected_counts)[:-1]])
    ordered = values[order]
    assert numpy.array_equal(keys_out.get(), expected) and numpy.array_equal(counts.get(), expected_counts)
    assert numpy.array_equal(mins.get(), numpy.minimum.reduceat(ordered, begins), equal_nan=True)
    assert numpy.array_equal(maxs.get(), numpy.maximum.reduceat(ordered, begins), equal_nan=True)
    if values.dtype.kind == "f":
        sums = numpy.add.reduceat(ordered.astype(numpy.float64), begins)
        bound = 1e-12 * numpy.add.reduceat(numpy.abs(ordered).astype(numpy.float64), begins)
        assert bool((numpy.abs(lows.get() - sums) <= bound).all())
        return
    # Ordered bits of signed integers are half of the range above them.
    above = 1 << (8 * values.dtype.itemsize - 1) if values.dtype.kind == "i" else 0
    exact = numpy.add.reduceat(ordered.astype(object), begins) if len(values) < 1 << 18 else None
    found = lows.get().astype(object) + ((highs.get().astype(object) << 64) if highs is not None else 0)
    if exact is not None:
        assert all(a == b for a, b in zip(found - expected_counts.astype(object) * above, exact))


def checks():
    random = cupy.random.default_rng(7)
    count = 0
    for size in [1, 31, 4096, 4097, 9000, 40_000, (1 << 20) + 3]:
        for bound in [1, 3, 1000, 1 << 30]:
            for key_type in [cupy.uint32, cupy.int32, cupy.uint64, cupy.int64]:
                keys = random.integers(0, bound, size, dtype=cupy.uint64).astype(key_type)
                if key_type in (cupy.int32, cupy.int64):
                    keys -= bound // 2
                if key_type in (cupy.uint64, cupy.int64):
                    keys *= 1 << 20
                for value_type in [cupy.uint32, cupy.int32, cupy.uint64, cupy.int64, cupy.float32, cupy.float64]:
                    if size > 40_000 and (count := count + 1) % 12:
                        continue
                    bits = random.integers(0, 1 << 63, size, dtype=cupy.uint64)
                    values = (bits << 1).astype(value_type) if cupy.dtype(value_type).kind != "f" else (
                        random.standard_normal(size, dtype=value_type))
                    is_sorted = bool(bits[0] % 2)
                    check(cupy.sort(keys) if is_sorted else keys, values, is_sorted)
    nan = cupy.asarray([1.0, cupy.nan, -0.0, 0.0, 2.0], cupy.float32)
    _, _, sums, _, mins, maxs = aggregate(cupy.asarray([0, 0, 1, 1, 2], cupy.uint32), nan, True)
    assert numpy.isnan(sums.get()[0]) and numpy.isnan(mins.get()[0]) and numpy.isnan(maxs.get()[0])
    assert numpy.signbit(mins.get()[1]) and not numpy.signbit(maxs.get()[1])
    print("all outputs are right")


def times():
    print(f"{'rows, keys, values, groups':<52}{'ms':>9}{'share':>7}   torch, CuPy")
    random = cupy.random.default_rng(1)
    size = 1 << 27
    for groups in [1, 100, 10_000, 1 << 20, 1 << 25]:
        for key_type, value_type in [("uint32", "float32"), ("int64", "int64"), ("int64", "float64")]:
            keys = random.integers(0, groups, size, dtype=cupy.uint64).astype(key_type)
            values = random.integers(0, 1 << 20, size, dtype=cupy.uint32).astype(value_type)
            rows = f"2^27, {key_type}, {value_type}, {groups}"
            roof = size * (keys.dtype.itemsize + values.dtype.itemsize) / PEAK * 1e3
            ours = median_ms(lambda: aggregate(keys, values, False), 5)
            index, source = torch.as_tensor(keys.astype(cupy.int64), device="cuda"), torch.as_tensor(values, device="cuda")
            target = torch.zeros(groups, dtype=source.dtype, device="cuda")
            scatter = median_ms(lambda: target.scatter_reduce_(0, index, source, "sum"), 3)
            del index
            # An array of 64-bit keys is sorted in place of what `unique` and an inverse take, which is more.
            by_sort = median_ms(lambda: cupy.argsort(keys), 3)
            print(f"{rows:<52}{ours:9.3f}{roof / ours:7.2f}   scatter_reduce {scatter:.3f} ({scatter / ours:.2f} x), "
                  f"argsort alone {by_sort:.3f} ({by_sort / ours:.2f} x)")
            ordered = cupy.sort(keys)
            ours = median_ms(lambda: aggregate(ordered, values, True), 5)
            lengths = torch.as_tensor(cupy.bincount(ordered, minlength=groups), device="cuda")
            reduce = float("nan")
            if value_type.startswith("float") and groups <= 1 << 25:
                reduce = median_ms(lambda: torch.segment_reduce(source, "sum", lengths=lengths, unsafe=True), 3)
            print(f"{rows + ', sorted':<52}{ours:9.3f}{roof / ours:7.2f}   segment_reduce {reduce:.3f} ({reduce / ours:.2f} x)")


if __name__ == "__main__":
    print(f"{torch.cuda.get_device_name()}, CuPy {cupy.__version__}, torch {torch.__version__}")
    checks()
    times()
