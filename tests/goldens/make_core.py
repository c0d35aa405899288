"""Writes the goldens of `core/sort` and `core/top-k`: tests/goldens/core.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_core.py

Sorted values and indices are those of numpy's stable sort. numpy has no descending sort: it is the ascending one of the
reversed array, reversed, which is stable as well, with the NaN moved to the end. No array has zeros of either sign, which
numpy takes as equal. The top k are the beginning of the sort of each row. NaN are written as null.
"""

import json
import pathlib

import numpy

HERE = pathlib.Path(__file__).parent
random = numpy.random.default_rng(15)
DTYPES = ["uint32", "int32", "uint64", "int64", "float32", "float64"]


def numbers(dtype, size, few):
    """Random numbers: some equal, the extremes of the type, and NaN."""
    kind = numpy.dtype(dtype)
    if kind.kind == "f":
        values = random.normal(scale=1e3, size=size).astype(dtype)
        values[random.random(size) < 0.05] = numpy.nan
        extremes = [numpy.inf, -numpy.inf, numpy.finfo(kind).max, numpy.finfo(kind).tiny]
    else:
        limits = numpy.iinfo(kind)
        values = random.integers(limits.min, limits.max, size=size, dtype=dtype, endpoint=True)
        extremes = [limits.min, limits.max]
    if few:
        values = random.choice(values[:7], size=size)
    elif size > 10:
        values[random.choice(size, size=len(extremes), replace=False)] = extremes
    return values


def order(values, descending):
    """The indices of a stable sort, NaN last."""
    if not descending:
        return numpy.argsort(values, kind="stable")
    last = len(values) - 1
    indices = last - numpy.argsort(values[::-1], kind="stable")[::-1]
    is_nan = numpy.isnan(values[indices]) if values.dtype.kind == "f" else numpy.zeros(len(values), bool)
    return numpy.concatenate([indices[~is_nan], numpy.sort(indices[is_nan])])


def plain(values):
    """As JSON: integers exactly, NaN as null, infinities by name."""
    if values.dtype.kind != "f":
        return [int(value) for value in values]
    return [None if numpy.isnan(value) else "inf" if value == numpy.inf else "-inf" if value == -numpy.inf else float(value)
            for value in values]


def sort(dtype, size, few, descending):
    values = numbers(dtype, size, few)
    indices = order(values, descending)
    if not descending:
        assert numpy.array_equal(values[indices], numpy.sort(values), equal_nan=values.dtype.kind == "f")
    return {"dtype": dtype, "values": plain(values), "descending": descending, "indices": indices.tolist()}


def top_k(dtype, rows, size, few, k, largest):
    values = numbers(dtype, rows * size, few)
    indices = [order(row, largest)[:k].tolist() for row in values.reshape(rows, size)]
    return {"dtype": dtype, "values": plain(values), "rows": rows, "k": k, "largest": largest, "indices": sum(indices, [])}


def main():
    cases = [
        sort(dtype, size, few, descending)
        for dtype in DTYPES
        for size, few in [(1, False), (40, True), (200, False)]
        for descending in [False, True]
    ]
    selections = [
        top_k(dtype, rows, size, few, k, largest)
        for dtype in DTYPES
        for rows, size, few, k in [(1, 1, False, 1), (1, 100, False, 7), (1, 90, True, 60), (5, 33, False, 33)]
        for largest in [False, True]
    ]
    (HERE / "core.json").write_text(json.dumps({"sort": cases, "top_k": selections}, separators=(",", ":")) + "\n")


main()
