"""Betweenness from some sources in networkit and igraph, on the graphs that the CUDA bench writes.

    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- graphs
    python benches/peers/graph_files.py /tmp/graphs/kron /tmp/graphs/road

networkit runs on all cores; igraph's betweenness on one, and a second figure divides by the cores, which is the most
that it could gain. A graph without its name's sources: both take nodes that have neighbours.
"""

import os
import pathlib
import random
import sys
import time

import igraph
import networkit
import numpy


def each_ms(work, count):
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3 / count


def main():
    cores = len(os.sched_getaffinity(0))
    networkit.setNumberOfThreads(cores)
    print(f"{cores} cores, ms a source: networkit, igraph, igraph / {cores}")
    for path in map(pathlib.Path, sys.argv[1:]):
        edges = numpy.fromfile(path, dtype=numpy.uint32).reshape(-1, 2)
        nodes = int(edges.max()) + 1
        ends = edges.astype(numpy.uint64)
        kit = networkit.GraphFromCoo((ends[:, 0].copy(), ends[:, 1].copy()), n=nodes)
        samples = 4 * cores
        estimate = networkit.centrality.EstimateBetweenness(kit, samples, False, True)
        networkit_ms = each_ms(estimate.run, samples)
        graph = igraph.Graph(n=nodes, edges=edges)
        sources = random.Random(1).sample(range(len(edges)), 8)
        sources = [int(edges[index, 0]) for index in sources]
        igraph_ms = each_ms(lambda: graph.betweenness(sources=sources, targets=None), len(sources))
        print(f"{path.name}: {nodes} nodes, {len(edges)} edges: {networkit_ms:.2f}, {igraph_ms:.1f}, {igraph_ms / cores:.2f}")


if __name__ == "__main__":
    main()
