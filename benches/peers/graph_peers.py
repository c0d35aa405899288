"""Betweenness beside networkit and igraph: the same graphs, the same number of threads, one run.

    pip install networkit igraph && python benches/peers/graph_peers.py [threads]

igraph's betweenness runs on one thread whatever is asked of it, so a second column divides its time by the threads,
which is the most that it could gain.
"""

import os
import statistics
import subprocess
import sys
import time

THREADS = sys.argv[1] if len(sys.argv) > 1 else "2"
os.environ["OMP_NUM_THREADS"] = THREADS
os.environ["RAYON_NUM_THREADS"] = THREADS

import igraph  # noqa: E402  (the thread count is read at import)
import networkit  # noqa: E402

networkit.setNumberOfThreads(int(THREADS))
MASK = (1 << 64) - 1


class Congruence:
    """Knuth's 64-bit linear congruence, high bits; the same as in benches/cpu_kernels.rs."""

    def __init__(self, state):
        self.state = state

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 33) % bound


def random_edges(num_nodes, count):
    random = Congruence(42)
    return [(random.below(num_nodes), random.below(num_nodes)) for _ in range(count)]


def preferential_edges(num_nodes, links):
    random, ends, edges = Congruence(42), [0], []
    for node in range(1, num_nodes):
        known = len(ends)
        for _ in range(links):
            other = ends[random.below(known)]
            edges.append((node, other))
            ends += [node, other]
    return edges


def grid_edges(side):
    for node in range(side * side):
        if node % side + 1 < side:
            yield node, node + 1
        if node // side + 1 < side:
            yield node, node + side


def simple(edges):
    return sorted({(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]})


def median_ms(work, runs=9):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main():
    cases = {
        "random": (2000, simple(random_edges(2000, 10000))),
        "preferential": (2000, simple(preferential_edges(2000, 5))),
        "grid": (2500, simple(grid_edges(50))),
    }
    ours = {}
    command = ["cargo", "bench", "--quiet", "--bench", "cpu_kernels", "--", "graph"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if line.startswith("betweenness"):
            _, name, *fields = line.split()
            ours[name] = dict(field.split("=") for field in fields)
    threads = int(THREADS)
    print(f"{'graph':14}{'nodes':>7}{'edges':>8}{'ours':>10}{'networkit':>11}{'igraph':>10}{f'igraph/{threads}':>10}  ms")
    for name, (num_nodes, edges) in cases.items():
        assert int(ours[name]["edges"]) == len(edges), "both sides build the same graph"
        kit = networkit.Graph(num_nodes)
        for edge in edges:
            kit.addEdge(*edge)
        graph = igraph.Graph(n=num_nodes, edges=edges)
        networkit_ms = median_ms(lambda: networkit.centrality.Betweenness(kit).run())
        igraph_ms = median_ms(graph.betweenness)
        mine = float(ours[name]["ms"])
        print(
            f"{name:14}{num_nodes:7}{len(edges):8}{mine:10.2f}{networkit_ms:11.2f}{igraph_ms:10.2f}{igraph_ms / threads:10.2f}"
        )


if __name__ == "__main__":
    main()
