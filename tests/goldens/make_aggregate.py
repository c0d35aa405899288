"""Writes the goldens of `core/segmented-aggregate`: tests/goldens/segmented_aggregate.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_aggregate.py

Sums, means, counts and extremes are those of pandas' groupby. Decimals are added and divided by Python's `decimal`, which
rounds to the even digit of two that are as near. No float array has NaN, which pandas leaves out.
"""

import decimal
import json
import pathlib

import numpy
import pandas

HERE = pathlib.Path(__file__).parent
random = numpy.random.default_rng(25)
KEYS = ["uint32", "int32", "uint64", "int64"]
VALUES = ["uint32", "int32", "uint64", "int64", "float32", "float64"]


def integers(dtype, size, bits):
    """Random integers of this many bits, and a sign where the type has one."""
    values = random.integers(0, 1 << bits, size, dtype="uint64", endpoint=True)
    signs = random.choice([-1, 1], size) if dtype.startswith("i") else numpy.ones(size, "int64")
    return (values.astype("int64") * signs).astype(dtype)


def case(key_dtype, value_dtype, size, groups, is_sorted):
    names = integers(key_dtype, groups, 31 if key_dtype.endswith("32") else 62)
    keys = random.choice(names, size)
    if is_sorted:
        keys = numpy.sort(keys)
    if value_dtype.startswith("f"):
        values = random.normal(scale=1e3, size=size).astype(value_dtype)
    else:
        # No sum is out of range.
        values = integers(value_dtype, size, 31 if value_dtype.endswith("32") else 55)
    wide = values.astype("float64") if value_dtype.startswith("f") else values.astype(value_dtype[:-2] + "64")
    groups = pandas.DataFrame({"key": keys, "value": wide}).groupby("key")["value"]
    result = groups.agg(["count", "sum", "min", "max"])
    # pandas divides a sum in float64, which rounds large integers twice.
    means = [int(sum) / int(count) if not value_dtype.startswith("f") else float(mean)
             for sum, count, mean in zip(result["sum"], result["count"], groups.mean())]
    return {
        "keys_dtype": key_dtype, "values_dtype": value_dtype, "keys": keys.tolist(), "values": values.tolist(),
        "sorted": is_sorted, "expected": {
            "keys": result.index.tolist(), "mean": means,
            **{name: result[name].tolist() for name in ["count", "sum", "min", "max"]},
        },
    }


def decimals(scale, mean_scale):
    """Sums and means of amounts, as integers."""
    keys = random.integers(0, 10, 100)
    values = random.integers(-10**6, 10**6, 100)
    # Means that are between two digits.
    keys[:4], values[:4] = [90, 90, 91, 91], [5, 6, 6, 7]
    unit, mean_unit = decimal.Decimal(1).scaleb(-scale), decimal.Decimal(1).scaleb(-mean_scale)
    expected = {"keys": sorted(set(keys.tolist())), "sum": [], "mean": []}
    with decimal.localcontext(decimal.Context(prec=60, rounding=decimal.ROUND_HALF_EVEN)):
        for key in expected["keys"]:
            amounts = [int(value) * unit for value in values[keys == key]]
            total = sum(amounts, decimal.Decimal(0))
            expected["sum"].append(int(total / unit))
            expected["mean"].append(int((total / len(amounts)).quantize(mean_unit) / mean_unit))
    return {"keys": keys.tolist(), "values": values.tolist(), "scale": scale, "mean_scale": mean_scale, "expected": expected}


def main():
    groups = [
        case(key_dtype, value_dtype, size, groups, (index + len(value_dtype)) % 3 == 0)
        for index, key_dtype in enumerate(KEYS)
        for value_dtype in VALUES
        for size, groups in [(1, 1), (25, 4), (60, 30)]
    ]
    amounts = [decimals(scale, mean_scale) for scale, mean_scale in [(0, 0), (2, 2), (2, 6), (0, 9)]]
    document = {"groups": groups, "decimals": amounts}
    (HERE / "segmented_aggregate.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


main()
