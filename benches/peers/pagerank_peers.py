"""PageRank in cupyx.scipy.sparse, networkit and scipy: the time of an iteration on the graph that the CUDA bench writes.

    pip install cupy-cuda12x networkit scipy
    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- pagerank
    python benches/peers/pagerank_peers.py /tmp/graphs/kron20-directed

All compute in double precision. networkit runs on all cores, and a peer that is not installed is left out.
"""

import os
import statistics
import sys
import time

import numpy
import scipy.sparse

ITERATIONS = 20
DAMPING = 0.85


def median_ms(work, runs=7):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times) / ITERATIONS


def iterate(xp, transposed, degrees):
    """The iterations as networkx writes them, with the arrays of numpy or cupy."""
    nodes = transposed.shape[0]
    dangling = degrees == 0
    inverse = xp.where(dangling, 0.0, 1.0 / xp.maximum(degrees, 1))
    ranks = xp.full(nodes, 1.0 / nodes)
    for _ in range(ITERATIONS):
        last = ranks
        ranks = DAMPING * (transposed @ (last * inverse) + last[dangling].sum() / nodes) + (1.0 - DAMPING) / nodes
        difference = float(xp.abs(ranks - last).sum())
    return ranks, difference


def main():
    edges = numpy.fromfile(sys.argv[1], dtype=numpy.uint32).reshape(-1, 2)
    nodes = int(edges.max()) + 1
    ones = numpy.ones(len(edges))
    transposed = scipy.sparse.csr_matrix((ones, (edges[:, 1], edges[:, 0])), shape=(nodes, nodes))
    degrees = numpy.bincount(edges[:, 0], minlength=nodes)
    print(f"{nodes} nodes, {len(edges)} arcs, ms an iteration")
    print(f"scipy, one core: {median_ms(lambda: iterate(numpy, transposed, degrees), 1):.2f}")
    try:
        import cupy
        import cupyx.scipy.sparse

        on_device = cupyx.scipy.sparse.csr_matrix(transposed)
        device_degrees = cupy.asarray(degrees)
        print(f"cupyx.scipy.sparse: {median_ms(lambda: iterate(cupy, on_device, device_degrees)):.4f}")
    except ImportError:
        print("cupyx.scipy.sparse: not installed")
    try:
        import networkit

        cores = len(os.sched_getaffinity(0))
        networkit.setNumberOfThreads(cores)
        ends = edges.astype(numpy.uint64)
        graph = networkit.GraphFromCoo((ends[:, 0].copy(), ends[:, 1].copy()), n=nodes, directed=True)

        def ranks():
            algorithm = networkit.centrality.PageRank(graph, damp=DAMPING, tol=0.0)
            algorithm.maxIterations = ITERATIONS
            algorithm.run()

        print(f"networkit, {cores} cores: {median_ms(ranks):.2f}")
    except ImportError:
        print("networkit: not installed")


if __name__ == "__main__":
    main()
