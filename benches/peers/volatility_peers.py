"""GARCH(1,1) beside the package arch: the same series, the same number of processes as we have threads, one run.

    pip install arch && python benches/peers/volatility_peers.py [threads] [series]

arch fits one series at a time; here a pool of processes shares the series, so its time is that of all cores. The sum of
the log-likelihoods is printed for both: the larger, the better the fits.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time

import numpy
from arch import arch_model

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
SERIES = int(sys.argv[2]) if len(sys.argv) > 2 else 2_000
LEN = 1_000


def simulate():
    """Series of different persistence, a row for each."""
    random = numpy.random.default_rng(11)
    alpha, beta = random.uniform(0.03, 0.15, SERIES), random.uniform(0.7, 0.84, SERIES)
    variance, square, returns = numpy.ones(SERIES), numpy.ones(SERIES), numpy.empty((SERIES, LEN))
    for step in range(LEN):
        variance = 1 - alpha - beta + alpha * square + beta * variance
        returns[:, step] = numpy.sqrt(variance) * random.standard_normal(SERIES)
        square = returns[:, step] ** 2
    return returns


def fit(series):
    model = arch_model(series, mean="Constant", vol="GARCH", p=1, q=1, rescale=False)
    return model.fit(disp="off", show_warning=False).loglikelihood


def main():
    returns = simulate()
    with multiprocessing.Pool(THREADS) as pool:
        pool.map(fit, returns[:THREADS])
        start = time.perf_counter()
        likelihood = sum(pool.map(fit, returns, chunksize=16))
        theirs = (time.perf_counter() - start) * 1e3
    with tempfile.NamedTemporaryFile() as file:
        returns.tofile(file.name)
        environment = os.environ | {"RAYON_NUM_THREADS": str(THREADS), "VOLATILITY_SERIES": file.name}
        command = ["cargo", "bench", "--quiet", "--bench", "cpu_kernels", "--", "volatility"]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    line = next(line for line in output.splitlines() if line.startswith("volatility"))
    ours = dict(field.split("=") for field in line.split()[1:])
    print(f"{SERIES} series of {LEN}, {THREADS} threads")
    print(f"arch  {theirs:12.1f} ms   log-likelihood {likelihood:.4f}")
    print(f"ours  {float(ours['ms']):12.1f} ms   log-likelihood {float(ours['log_likelihood']):.4f}")
    print(f"arch / ours {theirs / float(ours['ms']):.1f}")


if __name__ == "__main__":
    main()
