"""`graph/value-similarity` on a GPU beside torch on it, and scipy on one core: all pairs of histograms.

    python scripts/build_device_code.py --unpack FOLDER      needs no GPU
    python benches/peers/similarity_peers.py FOLDER          needs CuPy, torch and scipy; FOLDER has sm_90 code

Launches our device code as src/kernels/graph/value_similarity/cuda.rs does, without the bands, compares distances with
torch's, and prints the median of the times between two events. torch writes the distances of some rows with all others,
and takes the smallest; ours selects in the same launch. A term is a bin of a pair.
"""

import pathlib
import statistics
import sys
import time

import cupy
import numpy
import torch

MODULE = cupy.RawModule(path=str(pathlib.Path(sys.argv[1]) / "value-similarity.sm_90.cubin"))
TILE, THREADS, MAX_PAIRS = 64, 256, 1000
u32, u64, f64 = numpy.uint32, numpy.uint64, numpy.float64


def prepare(histograms, metric):
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    return numpy.ascontiguousarray(shares if metric == "jsd" else shares.cumsum(axis=1)[:, :-1])


def search(rows, metric, bound, room):
    """Launches the search of all pairs; returns what it found."""
    count, width = rows.shape
    found, cancel = cupy.zeros(2, cupy.uint64), cupy.zeros(1, cupy.uint32)
    distances, pairs = room
    tiles = -(-count // TILE)
    MODULE.get_function(f"similarity_{metric}")((tiles, tiles), (THREADS,), (
        u32(count), u64(width), rows, u32(0), u32(0), f64(0), f64(bound), u32(0), u32(0), found, distances, pairs, cancel))
    return found, distances, pairs


def by_torch(rows, metric, step):
    """The smallest distances, of which those of a row and itself are left out."""
    best = torch.empty(0, dtype=torch.float64, device="cuda")
    for first in range(0, len(rows), step):
        p, q = rows[first:first + step, None], rows[None]
        if metric == "jsd":
            mixture = (p + q) / 2
            terms = torch.xlogy(p, p / mixture).nan_to_num_(0) + torch.xlogy(q, q / mixture).nan_to_num_(0)
            distances = (terms.sum(-1) / (2 * numpy.log(2))).clamp_(0).sqrt_()
        else:
            distances = torch.cdist(rows[first:first + step], rows, p=1)
        later = torch.arange(len(rows), device="cuda") > torch.arange(first, first + len(distances), device="cuda")[:, None]
        best = torch.cat([best, distances[later]])
        if len(best) > MAX_PAIRS:
            best = best.topk(MAX_PAIRS, largest=False).values
    return best


def median_ms(work, runs):
    work()
    times = []
    for _ in range(runs):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        torch.cuda.synchronize()
        start.record()
        work()
        torch.cuda.synchronize()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end))
    return statistics.median(times)


def main():
    random = numpy.random.default_rng(3)
    for count, bins in [(2_000, 64), (10_000, 64), (2_000, 1_000)]:
        histograms = random.gamma(1.0, size=(count, bins))
        for metric in ["jsd", "wasserstein"]:
            host = prepare(histograms, metric)
            rows, tensor = cupy.asarray(host), torch.from_numpy(host).cuda()
            step = max(1, (1 << 28) // (count * bins)) if metric == "jsd" else 256
            expected = by_torch(tensor, metric, step).sort().values
            # The pairs up to the last wanted one are stored.
            bound = float(expected[-1]) * (1 + 1e-12)
            room = cupy.empty(1 << 22), cupy.empty(1 << 23, cupy.uint32)
            found, distances, _ = search(rows, metric, bound, room)
            matching, stored = (int(number) for number in found.get())
            assert matching == count * (count - 1) // 2 and stored == MAX_PAIRS, (matching, stored)
            error = numpy.abs(numpy.sort(distances[:stored].get()) / expected.cpu().numpy() - 1).max()
            assert error < 1e-9, error
            ours = median_ms(lambda: search(rows, metric, bound, room), 7)
            peer = median_ms(lambda: by_torch(tensor, metric, step), 3)
            terms = count * (count - 1) / 2 * host.shape[1]
            line = f"{metric}, {count} x {bins}: {ours:.3f} ms, {terms / ours / 1e6:.0f} G terms/s; torch {peer:.1f} ms, {peer / ours:.1f} x"
            try:
                import scipy.spatial.distance

                start = time.perf_counter()
                name = "jensenshannon" if metric == "jsd" else "cityblock"
                scipy.spatial.distance.cdist(host[:100], host[:200], name)
                terms_per_ms = 100 * 200 * host.shape[1] / (time.perf_counter() - start) / 1e3
                line += f"; scipy on one core {terms / terms_per_ms:.0f} ms"
            except ImportError:
                line += "; scipy is not installed"
            print(line)


if __name__ == "__main__":
    main()
