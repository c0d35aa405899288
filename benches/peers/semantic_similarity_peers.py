"""Search among vectors beside numpy's matrix product and selection, and beside torch's where there is a GPU.

    pip install numpy && python benches/peers/semantic_similarity_peers.py [threads]

Set beside our code on the same number of threads; on the GPU the corpus is on the device. Our GPU times are those of
`cargo bench --bench cuda -- similarity`.
"""

import os
import statistics
import subprocess
import sys
import time

THREADS = sys.argv[1] if len(sys.argv) > 1 else "2"
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = THREADS

import numpy

K = 10


def median_ms(work, runs=5):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def on_cpu():
    rows, dimension = 100_000, 768
    random = numpy.random.default_rng(1)
    corpus = random.standard_normal((rows, dimension), dtype=numpy.float32)
    for count in (1, 128):
        queries = random.standard_normal((count, dimension), dtype=numpy.float32)

        def search():
            scores = queries @ corpus.T
            best = numpy.argpartition(-scores, K, axis=1)[:, :K]
            order = numpy.argsort(-numpy.take_along_axis(scores, best, axis=1), axis=1)
            return numpy.take_along_axis(best, order, axis=1)

        print(f"numpy rows={rows} dimension={dimension} queries={count} dtype=float32 ms={median_ms(search):.3f}")
    command = ["cargo", "bench", "--features", "full", "--bench", "cpu_kernels", "--", "similarity"]
    subprocess.run(command, check=True)


def on_gpu():
    import torch

    if not torch.cuda.is_available():
        return
    rows, dimension = 1_000_000, 768
    for dtype in (torch.bfloat16, torch.float32):
        corpus = torch.randn(rows, dimension, device="cuda").to(dtype)
        for count in (1, 128):
            queries = torch.randn(count, dimension, device="cuda").to(dtype)

            def search():
                torch.topk(queries @ corpus.T, K, dim=1)
                torch.cuda.synchronize()

            search()
            print(f"torch rows={rows} dimension={dimension} queries={count} dtype={dtype} ms={median_ms(search, 15):.3f}")


on_cpu()
try:
    on_gpu()
except ImportError:
    print("torch is not installed")
