"""Monte Carlo value at risk beside numpy, and beside CuPy where there is a GPU: plainly written, one run.

    pip install numpy && python benches/peers/var_peers.py [threads]

The peers draw a matrix of single-precision normal numbers, correlate them by the Cholesky factor, value the book, select
the quantile and average the tail, in chunks that fit into memory. numpy draws on all threads, a generator for each. Our
GPU times are the rows "value at risk" of `cargo bench --bench cuda -- catalogue`.
"""

import concurrent.futures
import os
import subprocess
import sys
import time

import numpy

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
os.environ["RAYON_NUM_THREADS"] = str(THREADS)
FACTORS = 64
LEVEL = 0.99


def best_ms(work, runs=3):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def factor(xp):
    correlation = numpy.full((FACTORS, FACTORS), 0.36) + 0.64 * numpy.eye(FACTORS)
    return xp.asarray(numpy.linalg.cholesky(correlation).astype(numpy.float32))


def with_numpy(scenarios):
    cholesky, values = factor(numpy), numpy.full(FACTORS, 0.125, numpy.float32)
    chunk = 50_000
    losses = numpy.empty(scenarios, numpy.float32)

    def simulate(start):
        generator = numpy.random.Generator(numpy.random.Philox(start))
        numbers = generator.standard_normal((min(chunk, scenarios - start), FACTORS), numpy.float32)
        losses[start : start + chunk] = -(numbers @ cholesky.T) @ values

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(simulate, range(0, scenarios, chunk)))
    rank = int(numpy.ceil(LEVEL * scenarios)) - 1
    quantile = numpy.partition(losses, rank)[rank]
    return quantile, losses[losses >= quantile].mean()


def with_cupy(cupy, scenarios):
    cholesky, values = factor(cupy), cupy.full(FACTORS, 0.125, numpy.float32)
    chunk = 10_000_000
    losses = cupy.empty(scenarios, numpy.float32)
    for start in range(0, scenarios, chunk):
        numbers = cupy.random.standard_normal((min(chunk, scenarios - start), FACTORS), dtype=numpy.float32)
        losses[start : start + chunk] = -(numbers @ cholesky.T) @ values
    rank = int(numpy.ceil(LEVEL * scenarios)) - 1
    quantile = cupy.partition(losses, rank)[rank]
    return float(quantile), float(losses[losses >= quantile].mean())


def main():
    command = ["cargo", "bench", "--quiet", "--bench", "cpu_kernels", "--", "var"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"{'scenarios':>12}{'numpy':>12}{'ours':>12}  ms, {THREADS} threads")
    for line in output.splitlines():
        if line.startswith("var "):
            fields = dict(field.split("=") for field in line.split()[1:])
            scenarios, ours = int(fields["scenarios"]), float(fields["ms"])
            numpys = best_ms(lambda: with_numpy(scenarios))
            print(f"{scenarios:12}{numpys:12.1f}{ours:12.1f}{numpys / ours:8.1f} x")
    try:
        import cupy
    except ImportError:
        return
    for scenarios in (1_000_000, 10_000_000, 100_000_000):
        with_cupy(cupy, scenarios)
        print(f"{scenarios:12} CuPy {best_ms(lambda: with_cupy(cupy, scenarios)):12.1f} ms")


if __name__ == "__main__":
    main()
