"""Connected components, shortest paths and closeness in igraph and networkit, on the graphs of the CUDA bench.

    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- traversal
    python benches/peers/traversal_peers.py /tmp/graphs/kron20 /tmp/graphs/road

networkit's components and searches from many nodes run on all cores; igraph, and a search from one node, run on one.
The source of that search is the node of the highest degree. Times are medians of five, and do not contain the making of
the graph.
"""

import os
import pathlib
import statistics
import sys
import time

import igraph
import networkit
import numpy


def median_ms(work):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main():
    cores = len(os.sched_getaffinity(0))
    networkit.setNumberOfThreads(cores)
    print(f"{cores} cores, ms")
    for path in map(pathlib.Path, sys.argv[1:]):
        edges = numpy.fromfile(path, dtype=numpy.uint32).reshape(-1, 2)
        nodes = int(edges.max()) + 1
        ends = edges.astype(numpy.uint64)
        kit = networkit.GraphFromCoo((ends[:, 0].copy(), ends[:, 1].copy()), n=nodes)
        graph = igraph.Graph(n=nodes, edges=edges)
        source = int(numpy.bincount(edges.ravel()).argmax())
        index = numpy.arange(len(edges), dtype=numpy.uint64)
        weights = ((index * numpy.uint64(0x9E3779B97F4A7C15)) >> numpy.uint64(40)) % numpy.uint64(1000) + numpy.uint64(1)
        weights = weights.astype(numpy.float64)
        weighted = networkit.GraphFromCoo((weights, (ends[:, 0].copy(), ends[:, 1].copy())), n=nodes, weighted=True)
        # As in the bench: each edge one way.
        low, high = edges.min(axis=1), edges.max(axis=1)
        up = (low + high) % 3 != 0
        one_way = numpy.stack([numpy.where(up, low, high), numpy.where(up, high, low)], axis=1)
        directed = igraph.Graph(n=nodes, edges=one_way, directed=True)
        ends = one_way.astype(numpy.uint64)
        directed_kit = networkit.GraphFromCoo((ends[:, 0].copy(), ends[:, 1].copy()), n=nodes, directed=True)
        strong_kit = networkit.components.StronglyConnectedComponents
        chosen = numpy.flatnonzero(numpy.bincount(edges.ravel()))[:64].tolist()
        print(f"{path.name}: {nodes} nodes, {len(edges)} edges")
        rows = {
            "components, igraph": lambda: graph.connected_components(mode="weak"),
            "components, networkit (parallel)": lambda: networkit.components.ParallelConnectedComponents(kit).run(),
            "components, networkit": lambda: networkit.components.ConnectedComponents(kit).run(),
            "strong components, igraph": lambda: directed.connected_components(mode="strong"),
            "strong components, networkit": lambda: strong_kit(directed_kit).run(),
            "distances, igraph": lambda: graph.distances(source=source),
            "by weights, igraph": lambda: graph.distances(source=source, weights=weights),
            "by weights, networkit": lambda: networkit.distance.Dijkstra(weighted, source, storePaths=False).run(),
            "by weights from 64 nodes, networkit (parallel)": lambda: networkit.distance.SPSP(weighted, chosen).run(),
            "closeness, 64 nodes, igraph": lambda: graph.closeness(vertices=chosen),
            "distances from 64 nodes, networkit (parallel)": lambda: networkit.distance.SPSP(kit, chosen).run(),
            "distances, networkit": lambda: networkit.distance.BFS(kit, source, storePaths=False).run(),
        }
        for name, work in rows.items():
            print(f"    {name:<46}{median_ms(work):10.2f}")


if __name__ == "__main__":
    main()
