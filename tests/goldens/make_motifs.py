"""Writes the goldens of `graph/cycle-participation` and `graph/motif-detection`: tests/goldens/motifs.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_motifs.py

Cycles are those that networkx lists, and triads are networkx's census. Subgraphs of three and four nodes are counted by
igraph, whose numbers for them are looked up by example.
"""

import json
import pathlib
import random

import igraph
import networkx as nx

HERE = pathlib.Path(__file__).parent
TRIADS = ["021D", "021U", "021C", "111D", "111U", "030T", "030C", "201", "120D", "120U", "120C", "210", "300"]
EXAMPLES = {
    "path_3": [(0, 1), (1, 2)],
    "triangle": [(0, 1), (1, 2), (0, 2)],
    "path_4": [(0, 1), (1, 2), (2, 3)],
    "star_4": [(0, 1), (0, 2), (0, 3)],
    "cycle_4": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "tailed_triangle": [(0, 1), (1, 2), (0, 2), (2, 3)],
    "diamond": [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)],
    "clique_4": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)],
}


def motifs(graph):
    """The number of connected subgraphs of each kind."""
    undirected = nx.Graph(graph)
    as_igraph = igraph.Graph(len(graph), list(undirected.edges()))
    found = {size: as_igraph.motifs_randesu(size) for size in (3, 4)}
    counts = {}
    for name, edges in EXAMPLES.items():
        size = 1 + max(max(edge) for edge in edges)
        counts[name] = int(found[size][igraph.Graph(size, edges).isoclass()])
    return counts


def cycles(graph):
    """The number of cycles of two, three and four nodes through each node."""
    counts = {length: [0] * len(graph) for length in (2, 3, 4)}
    for cycle in nx.simple_cycles(graph, length_bound=4):
        for node in cycle:
            counts[len(cycle)][node] += 1
    return [counts[length] for length in (2, 3, 4)]


def golden(name, graph):
    graph = nx.convert_node_labels_to_integers(graph)
    edges = [list(edge) for edge in graph.edges()]
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    case = {"name": name, "num_nodes": len(graph), "directed": graph.is_directed(), "edges": edges}
    case["cycles"], case["motifs"] = cycles(graph), motifs(graph)
    if graph.is_directed():
        census = nx.triadic_census(graph)
        case["triads"] = [census[triad] for triad in TRIADS]
    return case


def graphs():
    yield golden("square", nx.Graph([(0, 1), (1, 2), (2, 3), (0, 3)]))
    yield golden("karate", nx.karate_club_graph())
    yield golden("complete", nx.complete_graph(9))
    yield golden("star", nx.star_graph(30))
    yield golden("grid", nx.grid_2d_graph(6, 7))
    yield golden("bipartite", nx.complete_bipartite_graph(6, 9))
    yield golden("disconnected", nx.disjoint_union_all([nx.path_graph(7), nx.empty_graph(4), nx.complete_graph(6)]))
    loops = nx.gnm_random_graph(50, 200, seed=3)
    loops.add_edges_from((node, node) for node in range(0, 50, 4))
    yield golden("loops", loops)
    yield golden("power law with triangles", nx.powerlaw_cluster_graph(200, 4, 0.6, seed=12))
    yield golden("small world", nx.watts_strogatz_graph(200, 8, 0.1, seed=13))
    yield golden("one node", nx.empty_graph(1))
    yield golden("directed ring", nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 0)]))
    yield golden("directed complete", nx.complete_graph(7, create_using=nx.DiGraph))
    yield golden("tournament", nx.tournament.random_tournament(20, seed=14))
    yield golden("directed random", nx.gnm_random_graph(80, 700, seed=15, directed=True))
    yield golden("directed sparse", nx.gnm_random_graph(150, 400, seed=16, directed=True))
    # Some edges with their opposites, some without.
    draw, power_law = random.Random(17), nx.powerlaw_cluster_graph(150, 5, 0.5, seed=17)
    arcs = [arc for u, v in power_law.edges() for arc in draw.choice([[(u, v)], [(v, u)], [(u, v), (v, u)]])]
    yield golden("directed power law", nx.DiGraph(arcs))


def main():
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in graphs())
    (HERE / "motifs.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
