"""Triangles in networkit and igraph, on the graphs that the CUDA bench writes.

    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- triangles
    python benches/peers/triangle_peers.py /tmp/graphs/kron

networkit's local clustering coefficients (the fast variant, which orders nodes by degree) and its triangles by edge run on
all cores; igraph's local transitivity on one.
"""

import os
import pathlib
import sys
import time

import networkit
import numpy

try:
    import igraph
except ImportError:
    igraph = None


def ms(work):
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def main():
    cores = len(os.sched_getaffinity(0))
    networkit.setNumberOfThreads(cores)
    print(f"{cores} cores, ms")
    for path in map(pathlib.Path, sys.argv[1:]):
        edges = numpy.fromfile(path, dtype=numpy.uint32).reshape(-1, 2)
        nodes = int(edges.max()) + 1
        ends = edges.astype(numpy.uint64)
        graph = networkit.GraphFromCoo((ends[:, 0].copy(), ends[:, 1].copy()), n=nodes)
        local = ms(networkit.centrality.LocalClusteringCoefficient(graph, True).run)
        graph.indexEdges()
        scores = networkit.sparsification.TriangleEdgeScore(graph)
        by_edge = ms(scores.run)
        total = int(sum(scores.scores())) // 3
        print(f"{path.name}: {nodes} nodes, {len(edges)} edges, {total} triangles")
        print(f"    networkit, local clustering {local:.1f}, by edge {by_edge:.1f}")
        if igraph is not None:
            other = igraph.Graph(n=nodes, edges=edges)
            print(f"    igraph, local transitivity {ms(other.transitivity_local_undirected):.1f}")


if __name__ == "__main__":
    main()
