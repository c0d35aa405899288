"""Writes the goldens of `risk/monte-carlo-var`: tests/goldens/monte_carlo_var.json, by numpy.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_var.py

Linear books are simulated from the kernel's own random numbers, in double precision and in the plain way: correlated
returns of every factor, and their product with the values. Books with gammas are simulated from numpy's random numbers, so
their figures come with standard errors.
"""

import json
import pathlib

import numpy

HERE = pathlib.Path(__file__).parent
random = numpy.random.default_rng(23)
WORD = numpy.uint64(0xFFFFFFFF)
LEVELS = [0.9, 0.95, 0.99]


def philox(counter, key):
    """Philox 4x32-10 of arrays of counters: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011)."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = numpy.uint64(0xD2511F53) * x0, numpy.uint64(0xCD9E8D57) * x2
        high_a, high_b = a >> numpy.uint64(32), b >> numpy.uint64(32)
        x0, x1, x2, x3 = high_b ^ x1 ^ numpy.uint64(k0), b & WORD, high_a ^ x3 ^ numpy.uint64(k1), a & WORD
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x0, x1, x2, x3


def normals(scenarios, factors, seed):
    """The kernel's normal numbers, a row for each scenario."""
    index = numpy.arange(scenarios, dtype=numpy.uint64)
    zero = numpy.zeros_like(index)
    columns = []
    for group in range((factors + 3) // 4):
        counter = (index & WORD, index >> numpy.uint64(32), zero + numpy.uint64(group), zero)
        words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
        for first, second in (words[:2], words[2:]):
            radius = numpy.sqrt(-2 * numpy.log((first.astype(float) + 0.5) / 2**32))
            angle = 2 * numpy.pi * second.astype(float) / 2**32
            columns += [radius * numpy.cos(angle), radius * numpy.sin(angle)]
    return numpy.stack(columns[:factors], axis=1)


def summary(losses):
    losses = numpy.sort(losses)
    count = len(losses)
    value_at_risk, shortfall, errors, shortfall_errors = [], [], [], []
    for level in LEVELS:
        at = losses[int(numpy.ceil(level * count)) - 1]
        excess = numpy.maximum(losses - at, 0)
        spread = int(numpy.ceil(numpy.sqrt(count * level * (1 - level))))
        rank = int(numpy.ceil(level * count)) - 1
        value_at_risk.append(at)
        shortfall.append(at + excess.mean() / (1 - level))
        errors.append((losses[min(rank + spread, count - 1)] - losses[rank - spread]) / 2)
        shortfall_errors.append(excess.std() / ((1 - level) * numpy.sqrt(count)))
    return {
        "value_at_risk": value_at_risk,
        "expected_shortfall": shortfall,
        "value_at_risk_error": errors,
        "expected_shortfall_error": shortfall_errors,
        "mean": -losses.mean(),
        "mean_error": losses.std(ddof=1) / numpy.sqrt(count),
        "standard_deviation": losses.std(ddof=1),
    }


def book(factors, periods):
    loadings = random.normal(size=(factors, factors + 2))
    covariance = loadings @ loadings.T
    deviation = numpy.sqrt(numpy.diag(covariance))
    return {
        "values": numpy.round(random.normal(scale=1e5, size=factors), 2),
        "volatilities": numpy.round(random.uniform(0.005, 0.03, factors), 5),
        "expected_returns": numpy.round(random.normal(scale=0.001, size=factors), 6),
        "cholesky": numpy.linalg.cholesky(covariance / numpy.outer(deviation, deviation)),
        "holding_period": periods,
    }


def returns_of(terms, numbers):
    periods = terms["holding_period"]
    shocks = numbers @ terms["cholesky"].T * terms["volatilities"]
    return periods * terms["expected_returns"] + numpy.sqrt(periods) * shocks


def golden(terms, scenarios, seed, output, **more):
    lists = {key: value.ravel().tolist() if isinstance(value, numpy.ndarray) else value for key, value in terms.items()}
    input = lists | {"confidence_levels": LEVELS, "num_scenarios": scenarios, "seed": seed}
    return {"input": input, "output": output} | more


def main():
    linear, quadratic = [], []
    books = [(1, 1, 1000, 0), (2, 10, 5000, 7), (5, 1, 20000, 2**40 + 3), (19, 5, 9999, 2**64 - 1)]
    for factors, periods, scenarios, seed in books:
        terms = book(factors, periods)
        losses = -returns_of(terms, normals(scenarios, factors, seed)) @ terms["values"]
        linear.append(golden(terms, scenarios, seed, summary(losses)))
    for factors, sign in [(3, 1.0), (8, -1.0), (20, 1.0)]:
        terms = book(factors, 10)
        terms["gammas"] = numpy.round(sign * random.normal(loc=1.0, size=factors) * 2e6, 0)
        moves = returns_of(terms, random.standard_normal((2_000_000, factors)))
        losses = -(moves @ terms["values"] + 0.5 * moves**2 @ terms["gammas"])
        quadratic.append(golden(terms, 200_000, 11, summary(losses)))
    lines = [f'"{name}":[\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]"
             for name, cases in (("linear", linear), ("delta_gamma", quadratic))]
    (HERE / "monte_carlo_var.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
