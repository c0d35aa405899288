"""Option pricing beside numpy and scipy: the same inputs in kind, one run.

    pip install numpy scipy && python benches/peers/pricing_peers.py [threads]

"ours" makes its outputs anew at each call, as numpy does; "again" writes into those of the call before. The difference
is the system's, which zeroes every fresh page. We take huge pages from 512 KiB an array on where there are any, numpy
from 4 MiB on.

The numpy code computes the same outputs by the same formulas, with the shared terms computed once.
"""

import os
import statistics
import subprocess
import sys
import time

import numpy
from scipy.special import ndtr

THREADS = sys.argv[1] if len(sys.argv) > 1 else "2"
os.environ["RAYON_NUM_THREADS"] = THREADS


def quote(spot, strike, rate, volatility, years, dividend, sign):
    root = numpy.sqrt(years)
    deviation = volatility * root
    growth = numpy.exp(-dividend * years)
    forward = spot * growth
    owed = strike * numpy.exp(-rate * years)
    d1 = (numpy.log(spot / strike) + (rate - dividend) * years) / deviation + deviation / 2
    d2 = d1 - deviation
    density = numpy.exp(-d1 * d1 / 2) * 0.3989422804014327
    gained = forward * ndtr(sign * d1)
    paid = owed * ndtr(sign * d2)
    sway = forward * density
    return (
        sign * (gained - paid),
        sign * gained / spot,
        growth * density / (spot * deviation),
        sway * root,
        sign * (dividend * gained - rate * paid) - sway * volatility / (2 * root),
        sign * years * paid,
    )


def median_ms(work, runs=11):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main():
    ours = {}
    command = ["cargo", "bench", "--quiet", "--bench", "cpu_kernels", "--", "pricing"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if line.startswith("pricing"):
            _, dtype, *fields = line.split()
            fields = dict(field.split("=") for field in fields)
            ours[dtype, int(fields["contracts"])] = float(fields["ms"]), float(fields["again_ms"])
    print(f"{'dtype':6}{'contracts':>10}{'numpy':>10}{'ours':>10}{'again':>10}  ms{'numpy/ours':>12}{'numpy/again':>12}")
    random = numpy.random.default_rng(7)
    for (dtype, contracts), (mine, again) in ours.items():
        kind = {"f32": numpy.float32, "f64": numpy.float64}[dtype]
        bounds = [(50, 150), (50, 150), (0.05, 0.8), (0.02, 3)]
        spot, strike, volatility, years = (random.uniform(*bound, contracts).astype(kind) for bound in bounds)
        sign = numpy.where(numpy.arange(contracts) % 2 == 0, 1, -1).astype(kind)
        rate, dividend = kind(0.03), kind(0.01)
        numpys = median_ms(lambda: quote(spot, strike, rate, volatility, years, dividend, sign))
        print(
            f"{dtype:6}{contracts:10}{numpys:10.3f}{mine:10.3f}{again:10.3f}    {numpys / mine:12.1f}{numpys / again:12.1f}"
        )


if __name__ == "__main__":
    main()
