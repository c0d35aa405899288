"""Communities in networkit and igraph, on the graphs that the CUDA bench writes.

    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- communities
    python benches/peers/communities_peers.py /tmp/graphs/kron20 /tmp/graphs/planted20

networkit's label propagation (PLP), Louvain's method (PLM, without and with refinement) and modularity run on all cores;
igraph's on one. Times are medians of three, and do not contain the making of the graph.
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
    for _ in range(3):
        start = time.perf_counter()
        result = work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), result


def main():
    cores = len(os.sched_getaffinity(0))
    networkit.setNumberOfThreads(cores)
    print(f"{cores} cores, ms")
    for path in map(pathlib.Path, sys.argv[1:]):
        edges = numpy.fromfile(path, dtype=numpy.uint32).reshape(-1, 2)
        nodes = int(edges.max()) + 1
        ends = edges.astype(numpy.uint64)
        graph = networkit.GraphFromCoo((ends[:, 0].copy(), ends[:, 1].copy()), n=nodes)
        print(f"{path.name}: {nodes} nodes, {len(edges)} edges")
        quality = networkit.community.Modularity()
        for name, method in [
            ("PLP", lambda: networkit.community.PLP(graph).run().getPartition()),
            ("PLM", lambda: networkit.community.PLM(graph, refine=False).run().getPartition()),
            ("PLM with refinement", lambda: networkit.community.PLM(graph, refine=True).run().getPartition()),
        ]:
            ms, partition = median_ms(method)
            score_ms, score = median_ms(lambda: quality.getQuality(partition, graph))
            print(f"    networkit, {name} {ms:.1f}, modularity {score:.4f} in {score_ms:.1f}")
        other = igraph.Graph(n=nodes, edges=edges)
        for name, method in [
            ("label propagation", other.community_label_propagation),
            ("Louvain", other.community_multilevel),
        ]:
            start = time.perf_counter()
            partition = method()
            ms = (time.perf_counter() - start) * 1e3
            print(f"    igraph, {name} {ms:.1f}, modularity {partition.modularity:.4f}")


if __name__ == "__main__":
    main()
