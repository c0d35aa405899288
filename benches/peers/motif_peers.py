"""The motif census in igraph, on the graphs that the CUDA bench writes.

    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- motifs
    python benches/peers/motif_peers.py 3 /tmp/graphs/kron18
    python benches/peers/motif_peers.py 4 /tmp/graphs/road1024 /tmp/graphs/planted18

The first argument is the size of the motifs: igraph lists every connected subgraph, which for four nodes of a graph of hubs
takes days. For three it also counts the triads of the graph with its edges directed from the lower to the higher node.
igraph runs on one core; a second figure divides by the cores, which is the most that it could gain.
"""

import os
import pathlib
import sys
import time

import igraph
import numpy


def timed(name, work):
    cores = len(os.sched_getaffinity(0))
    start = time.perf_counter()
    result = work()
    ms = (time.perf_counter() - start) * 1e3
    print(f"    igraph, {name} {ms:.1f} ms, / {cores} cores {ms / cores:.1f} ms: {result}", flush=True)


def main():
    size = int(sys.argv[1])
    for path in map(pathlib.Path, sys.argv[2:]):
        edges = numpy.fromfile(path, dtype=numpy.uint32).reshape(-1, 2)
        nodes = int(edges.max()) + 1
        print(f"{path.name}: {nodes} nodes, {len(edges)} edges", flush=True)
        graph = igraph.Graph(n=nodes, edges=edges)
        if size == 3:
            arcs = igraph.Graph(n=nodes, edges=edges, directed=True)
            timed("triad census", lambda: list(arcs.triad_census()))
        timed(f"motifs of {size}", lambda: graph.motifs_randesu(size=size, cut_prob=[0.0] * size))


if __name__ == "__main__":
    main()
