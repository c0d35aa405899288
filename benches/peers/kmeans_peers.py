"""k-means beside scikit-learn, and where there is a GPU beside torch.

    pip install scikit-learn && python benches/peers/kmeans_peers.py [threads]

On the CPU, 10 iterations from the same number of initial centroids, and k-means++ with one iteration, on uniform random
points; scikit-learn and our code have as many threads. On a GPU, an iteration written plainly in torch (a matrix
product, an argmax and sums by label), with products in single precision and in TF32. Our times there are the rows
"k-means" of `cargo bench --bench cuda -- catalogue`.
"""

import os
import subprocess
import sys
import time

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(THREADS)

import numpy
from sklearn.cluster import KMeans


def best_ms(work, runs=3):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def on_the_cpu():
    command = ["cargo", "bench", "--quiet", "--bench", "cpu_kernels", "--", "kmeans"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"{'points x features, k':<28}{'':>10}{'scikit-learn':>14}{'ours':>10}  ms, {THREADS} threads")
    for line in output.splitlines():
        if not line.startswith("kmeans "):
            continue
        fields = dict(field.split("=") for field in line.split()[1:])
        points, features, k, iterations = (int(fields[name]) for name in ("points", "features", "k", "iterations"))
        data = numpy.random.default_rng(1).random((points, features), dtype=numpy.float32)
        for name, ours, options in [
            (f"{iterations} iterations", fields["ms"], {"init": data[:k], "max_iter": iterations}),
            ("seeding", fields["seeding_ms"], {"init": "k-means++", "max_iter": 1}),
        ]:
            model = KMeans(k, n_init=1, tol=0, algorithm="lloyd", random_state=0, **options)
            theirs = best_ms(lambda: model.fit(data))
            size, ours = f"{points} x {features}, {k}", float(ours)
            print(f"{size:<24}{name:>14}{theirs:14.1f}{ours:10.1f}{theirs / ours:8.1f} x")


def on_a_gpu(torch):
    for points, features, k in [(1 << 20, 128, 1024), (1 << 20, 128, 64), (1 << 20, 2, 64)]:
        data = torch.rand((points, features), device="cuda")
        centroids = data[:k].clone()
        products = torch.empty((points, k), device="cuda")

        def iteration():
            torch.mm(data, centroids.T, out=products)
            labels = products.sub_((centroids * centroids).sum(1) / 2).argmax(1)
            sums = torch.zeros_like(centroids).index_add_(0, labels, data)
            return sums / torch.bincount(labels, minlength=k).clamp(min=1)[:, None]

        def timed(work):
            return best_ms(lambda: (work(), torch.cuda.synchronize()), 5)

        for name, is_allowed in [("single precision", False), ("TF32", True)]:
            torch.backends.cuda.matmul.allow_tf32 = is_allowed
            product = timed(lambda: torch.mm(data, centroids.T, out=products))
            whole = timed(iteration)
            print(f"{points} x {features}, {k}, torch in {name}: product {product:.3f} ms, iteration {whole:.3f} ms")


if __name__ == "__main__":
    on_the_cpu()
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None and torch.cuda.is_available():
        on_a_gpu(torch)
