"""Writes the goldens of `linalg/dot`, `linalg/weighted-sum-product` and `stats/moments`: tests/goldens/sums.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_sums.py

Dot products and weighted sums are exact sums of the very numbers in the file, rounded once (Python's fractions).
Moments are numpy's and scipy's, with scipy's defaults: population moments, and the excess kurtosis.
"""

import fractions
import json
import pathlib

import numpy
import scipy.stats

HERE = pathlib.Path(__file__).parent
random = numpy.random.default_rng(13)


def single(size):
    return random.normal(scale=10.0 ** random.uniform(-2, 2), size=size).astype(numpy.float32)


def exact(*terms):
    """The sum of products of doubles, rounded once."""
    total = fractions.Fraction(0)
    for term in terms:
        product = fractions.Fraction(1)
        for factor in term:
            product *= fractions.Fraction(float(factor))
        total += product
    return float(total)


def dot(size):
    x, y = single(size), single(size)
    return {"x": x.tolist(), "y": y.tolist(), "dot": exact(*zip(x, y))}


def weighted_sum_product(size):
    a, b, c = (float(numpy.float32(value)) for value in random.normal(size=3))
    x, y, z, w = (single(size) for _ in range(4))
    out = [exact((a, x[i]), (b, y[i]), (c, z[i], w[i])) for i in range(size)]
    return {"a": a, "b": b, "c": c, "x": x.tolist(), "y": y.tolist(), "z": z.tolist(), "w": w.tolist(), "out": out}


def moments(x):
    x = numpy.asarray(x, dtype=numpy.float64)
    wide = x.astype(numpy.longdouble)
    return {
        "x": x.tolist(),
        "mean": float(wide.mean()),
        "variance": float(wide.var()),
        "skewness": float(scipy.stats.skew(wide)),
        "kurtosis": float(scipy.stats.kurtosis(wide)),
    }


sizes = [1, 2, 3, 15, 16, 17, 64, 257]
goldens = {
    "dot": [dot(size) for size in sizes],
    "weighted_sum_product": [weighted_sum_product(size) for size in sizes],
    "moments": [
        moments([1.0, 2.0, 3.0, 10.0]),
        moments([-1.0, 1.0]),
        moments(random.normal(size=300)),
        moments(random.exponential(size=257)),
        moments(1e9 + random.normal(size=300)),
        moments(random.lognormal(sigma=2.0, size=300) * 1e-60),
        moments(random.pareto(1.5, size=64) * 1e20),
    ],
}
lines = ",\n".join(
    f'"{name}":[\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]"
    for name, cases in goldens.items()
)
(HERE / "sums.json").write_text("{\n" + lines + "\n}\n")
