"""Writes the goldens of the kernels on shared neighbours: tests/goldens/neighborhoods.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_neighborhoods.py

Triangles, clustering coefficients and transitivity are networkx's, and so are the scores of pairs of nodes: numbers of
common neighbours, Jaccard coefficients and Adamic-Adar indices. networkx has no cosine similarity of neighbourhoods, which
numpy computes from the rows of the adjacency matrix. Cliques are those that networkx enumerates, by their size.
"""

import itertools
import json
import pathlib
import random

import networkx as nx
import numpy

HERE = pathlib.Path(__file__).parent


def pairs_of(graph, draw):
    """Pairs of different nodes: some random, some with an edge, each the other way round as well."""
    nodes = list(graph)
    pairs = [draw.sample(nodes, 2) for _ in range(150)] + draw.sample(list(graph.edges()), min(50, graph.size()))
    return [[u, v] for u, v in pairs] + [[v, u] for u, v in pairs[:20]]


def scores(graph, pairs):
    ebunch = [tuple(pair) for pair in pairs]
    matrix = nx.to_numpy_array(graph, weight=None)
    norms = numpy.linalg.norm(matrix, axis=1)
    lengths = [norms[u] * norms[v] for u, v in ebunch]
    return {
        "common": [len(set(nx.common_neighbors(graph, u, v))) for u, v in ebunch],
        "jaccard": [score for _, _, score in nx.jaccard_coefficient(graph, ebunch)],
        "adamic_adar": [score for _, _, score in nx.adamic_adar_index(graph, ebunch)],
        "cosine": [
            float(matrix[u] @ matrix[v] / length) if length > 0 else 0.0 for (u, v), length in zip(ebunch, lengths)
        ],
    }


def cliques(graph):
    """The number of cliques of 3 to 8 nodes."""
    counts = dict.fromkeys(range(3, 9), 0)
    for clique in itertools.takewhile(lambda clique: len(clique) < 9, nx.enumerate_all_cliques(graph)):
        if len(clique) > 2:
            counts[len(clique)] += 1
    return list(counts.values())


def golden(name, graph):
    graph = nx.convert_node_labels_to_integers(graph)
    loops = list(nx.selfloop_edges(graph))
    edges = [list(edge) for edge in graph.edges()]
    graph.remove_edges_from(loops)
    case = {"name": name, "num_nodes": len(graph), "edges": edges}
    triangles, clustering = nx.triangles(graph), nx.clustering(graph)
    case["triangles"] = [triangles[node] for node in range(len(graph))]
    case["clustering"] = [float(clustering[node]) for node in range(len(graph))]
    case["transitivity"] = float(nx.transitivity(graph))
    case["average"] = float(nx.average_clustering(graph))
    has_any = any(value != 0 for value in clustering.values())
    case["average_without_zeros"] = float(nx.average_clustering(graph, count_zeros=False)) if has_any else 0.0
    case["cliques"] = cliques(graph)
    if len(graph) > 1:
        case["pairs"] = pairs_of(graph, random.Random(name))
        case.update(scores(graph, case["pairs"]))
    return case


def graphs():
    yield golden("square", nx.Graph([(0, 1), (1, 2), (2, 3), (0, 3)]))
    yield golden("karate", nx.karate_club_graph())
    yield golden("les miserables", nx.les_miserables_graph())
    yield golden("complete", nx.complete_graph(12))
    yield golden("star", nx.star_graph(40))
    yield golden("grid", nx.grid_2d_graph(6, 7))
    yield golden("bipartite", nx.complete_bipartite_graph(9, 14))
    yield golden("disconnected", nx.disjoint_union_all([nx.path_graph(7), nx.empty_graph(4), nx.complete_graph(6)]))
    loops = nx.gnm_random_graph(60, 300, seed=3)
    loops.add_edges_from((node, node) for node in range(0, 60, 4))
    yield golden("loops", loops)
    yield golden("Erdos-Renyi", nx.gnm_random_graph(400, 4000, seed=11))
    yield golden("power law with triangles", nx.powerlaw_cluster_graph(600, 6, 0.6, seed=12))
    yield golden("small world", nx.watts_strogatz_graph(500, 10, 0.1, seed=13))
    yield golden("one node", nx.empty_graph(1))


def main():
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in graphs())
    (HERE / "neighborhoods.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
