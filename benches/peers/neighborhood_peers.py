"""Similarity of nodes and cliques with cupyx and igraph, on the graph that the CUDA bench writes.

    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- neighborhoods
    python benches/peers/neighborhood_peers.py /tmp/graphs/kron

cupyx multiplies sparse matrices on the GPU: the rows of the first nodes of pairs by those of the second, element by
element, in blocks; or the rows of some nodes by the whole matrix, with the best of each row picked by a sort of its scores.
igraph runs on one core; a second figure divides by the cores, which is the most that it could gain.
"""

import os
import pathlib
import sys
import time

import numpy

try:
    import cupy
    import cupyx.scipy.sparse
except ImportError:
    cupy = None
try:
    import igraph
except ImportError:
    igraph = None

PAIRS = 1 << 20
NODES = 1000
TOP = 10


def ms(work, runs=3):
    """The median of some runs, after one that is not counted."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        if cupy is not None:
            cupy.cuda.Device().synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return sorted(times[1:])[runs // 2]


class Graph:
    def __init__(self, edges, nodes):
        both = numpy.concatenate([edges, edges[:, ::-1]])
        both = both[numpy.lexsort((both[:, 1], both[:, 0]))]
        degrees = numpy.bincount(both[:, 0], minlength=nodes)
        offsets = numpy.concatenate([[0], numpy.cumsum(degrees)])
        arrays = (cupy.ones(len(both), cupy.float32), cupy.asarray(both[:, 1].astype(numpy.int32)),
                  cupy.asarray(offsets.astype(numpy.int32)))
        self.matrix = cupyx.scipy.sparse.csr_matrix(arrays, shape=(nodes, nodes))
        self.degrees = cupy.asarray(degrees.astype(numpy.float32))

    def jaccard_of_pairs(self, pairs, block):
        scores = []
        for start in range(0, len(pairs), block):
            a, b = pairs[start:start + block, 0], pairs[start:start + block, 1]
            common = self.matrix[a].multiply(self.matrix[b]).sum(axis=1).ravel()
            scores.append(common / (self.degrees[a] + self.degrees[b] - common))
        return cupy.concatenate(scores)

    def best(self, nodes, block):
        for start in range(0, len(nodes), block):
            some = nodes[start:start + block]
            products = self.matrix[some] @ self.matrix
            lengths = cupy.diff(products.indptr)
            rows = cupy.asarray(numpy.repeat(numpy.arange(len(some)), lengths.get()))
            scores = products.data / (self.degrees[some][rows] + self.degrees[products.indices] - products.data)
            # By row, then the best first.
            order = cupy.lexsort(cupy.stack([products.indices.astype(cupy.float64), -scores.astype(cupy.float64),
                                             rows.astype(cupy.float64)]))
            first = products.indptr[:-1, None] + cupy.arange(TOP)[None, :]
            products.indices[order[cupy.minimum(first, len(order) - 1)]]


def main():
    cores = len(os.sched_getaffinity(0))
    for path in map(pathlib.Path, sys.argv[1:]):
        edges = numpy.fromfile(path, dtype=numpy.uint32).reshape(-1, 2)
        nodes = int(edges.max()) + 1
        random = numpy.random.default_rng(5)
        by_edge = random.choice(edges.ravel(), (PAIRS, 2))
        by_edge = by_edge[by_edge[:, 0] != by_edge[:, 1]]
        uniform = random.choice(numpy.unique(edges), NODES, replace=False)
        print(f"{path.name}: {nodes} nodes, {len(edges)} edges; ms")
        if cupy is not None:
            graph = Graph(edges, nodes)
            some = cupy.asarray(by_edge[:1 << 14].astype(numpy.int32))
            each = ms(lambda: graph.jaccard_of_pairs(some, 1 << 11))
            print(f"    cupyx, Jaccard of {len(by_edge)} pairs {each * len(by_edge) / len(some):.0f} (from {len(some)})")
            for name, chosen in [("uniform", uniform), ("by edge", by_edge[:NODES, 0])]:
                chosen = cupy.asarray(chosen[:100].astype(numpy.int32))
                time_of = ms(lambda: graph.best(chosen, 25), 1) * NODES / len(chosen)
                print(f"    cupyx, best {TOP} for {NODES} nodes, {name} {time_of:.0f} (from {len(chosen)})")
        if igraph is not None:
            other = igraph.Graph(n=nodes, edges=edges)
            some = by_edge[:256].tolist()
            time_of = ms(lambda: other.similarity_jaccard(pairs=some), 1) * len(by_edge) / len(some)
            print(f"    igraph, Jaccard of {len(by_edge)} pairs {time_of:.0f}, {time_of / cores:.0f} at most on {cores} cores")


if __name__ == "__main__":
    main()
