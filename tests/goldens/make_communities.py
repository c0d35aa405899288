"""Writes the goldens of the graph kernels on communities, by networkx: modularity_score.json, label_propagation.json and
louvain_community.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_communities.py

Modularity and coverage are networkx's own; the coverage by weights, which networkx does not have, is a fraction of sums. So are the communities of label propagation, of graphs whose nodes are added in
the order of the kernel, and coloured in it: networkx would colour nodes of many neighbours first. Louvain's method depends
on the order of the nodes, so its golden is the modularity of the communities that networkx finds, the best of five orders.
"""

import json
import pathlib
import random

from unittest import mock

import networkx as nx
from networkx.algorithms import community
from networkx.algorithms.community import label_propagation

from make_traversal import described, numbered, numbers

HERE = pathlib.Path(__file__).parent


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text("[\n" + lines + "\n]\n")


def graphs():
    yield "karate", numbered(nx.karate_club_graph())
    yield "grid", numbered(nx.grid_2d_graph(9, 13))
    yield "star", nx.star_graph(40)
    yield "path", nx.path_graph(60)
    parts = [nx.path_graph(7), nx.cycle_graph(9), nx.empty_graph(4), nx.complete_graph(6)]
    yield "disconnected", nx.disjoint_union_all(parts)
    yield "ring of cliques", nx.ring_of_cliques(20, 6)
    yield "planted partition", nx.planted_partition_graph(8, 25, 0.4, 0.02, seed=1)
    yield "random", nx.gnm_random_graph(500, 1500, seed=2)
    yield "preferential attachment", nx.barabasi_albert_graph(800, 4, seed=3)
    yield "davis southern women", numbered(nx.davis_southern_women_graph())
    yield "les miserables", numbered(nx.les_miserables_graph())
    yield "one edge", nx.path_graph(2)
    yield "R-MAT", rmat(9, 2500)


def rmat(scale, draws):
    """Each bit of the two ends of an edge from a quadrant: 0.57, 0.19, 0.19, 0.05."""
    draw = random.Random(6)
    graph = nx.empty_graph(1 << scale)
    for _ in range(draws):
        quadrants = draw.choices(range(4), (0.57, 0.19, 0.19, 0.05), k=scale)
        ends = [[quadrant >> 1 for quadrant in quadrants], [quadrant & 1 for quadrant in quadrants]]
        graph.add_edge(*(sum(bit << index for index, bit in enumerate(bits)) for bits in ends))
    return graph


def directed_graphs():
    yield "directed", nx.gnp_random_graph(200, 0.02, seed=4, directed=True)
    yield "directed cycle", nx.cycle_graph(50, create_using=nx.DiGraph)
    yield "scale free", nx.DiGraph(nx.scale_free_graph(300, seed=5))


def without_loops(graph):
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


def weighted(name, graph):
    """The weights that the graph has, or else some of which all are `f32` numbers."""
    draw = random.Random(name)
    graph = without_loops(graph)
    for *_, edge in graph.edges(data=True):
        edge.setdefault("weight", draw.randrange(1000) / 64)
    return f"{name} with weights", graph


def weights_of(graph, weight):
    """The field of a case, in the order of its edges."""
    return {} if weight is None else {"weights": [edge[weight] for *_, edge in graph.edges(data=True)]}


def coverage(graph, sets, weight):
    if weight is None:
        return community.partition_quality(graph, sets)[0]
    internal = sum(graph.subgraph(nodes).size(weight) for nodes in sets)
    return internal / graph.size(weight)


def modularity_scores(name, graph, weight=None):
    """Random communities, few and many, and those of neighbouring numbers."""
    graph = without_loops(graph)
    draw = random.Random(len(graph))
    case = described(name, graph) | weights_of(graph, weight)
    case["partitions"] = []
    for of_node, resolution in [
        (lambda node: draw.randrange(min(3, len(graph))), 1),
        (lambda node: draw.randrange(len(graph)), 0.5),
        (lambda node: node // 7, 1),
        (lambda node: node // 7, 2.25),
        (lambda node: 0, 1),
    ]:
        communities = [of_node(node) for node in range(len(graph))]
        sets = [{node for node, other in enumerate(communities) if other == each} for each in set(communities)]
        case["partitions"].append({
            "communities": communities,
            "resolution": resolution,
            "modularity": community.modularity(graph, sets, weight=weight, resolution=resolution),
            "coverage": coverage(graph, sets, weight),
        })
    return case


def mix(word):
    word = (word ^ word >> 16) * 0x7FEB352D & 0xFFFFFFFF
    word = (word ^ word >> 15) * 0x846CA68B & 0xFFFFFFFF
    return word ^ word >> 16


def in_order(graph, seed):
    """The same graph, with its nodes in the order that label propagation has."""
    ordered = nx.Graph()
    ordered.add_nodes_from(sorted(graph, key=lambda node: mix(mix(node ^ seed & 0xFFFFFFFF) + (seed >> 32) & 0xFFFFFFFF)))
    ordered.add_edges_from(graph.edges())
    return ordered


def color_in_order(graph):
    classes = {}
    for node, color in nx.greedy_color(graph, strategy=lambda graph, _: list(graph)).items():
        classes.setdefault(color, set()).add(node)
    return dict(sorted(classes.items()))


def label_propagations(name, graph):
    case = described(name, without_loops(graph))
    case["runs"] = []
    with mock.patch.object(label_propagation, "_color_network", color_in_order):
        for seed in (0, 1, 12345 << 32 | 678):
            communities = list(community.label_propagation_communities(in_order(graph, seed)))
            modularity = community.modularity(graph, communities, weight=None) if graph.size() else 0
            case["runs"].append({"seed": seed, "communities": numbers(graph, communities), "modularity": modularity})
    return case


def louvain(name, graph, weight=None):
    graph = without_loops(graph)
    case = described(name, graph) | weights_of(graph, weight)
    case["runs"] = []
    for resolution in (1, 0.5, 2):
        found = [community.louvain_communities(graph, weight, resolution, seed=seed) for seed in range(5)]
        scores = [community.modularity(graph, communities, weight, resolution) for communities in found]
        case["runs"].append({"resolution": resolution, "modularity": max(scores)})
    return case


def both(cases, golden):
    """The goldens without weights, and then those with them."""
    yield from (golden(*case) for case in cases())
    yield from (golden(*weighted(*case), "weight") for case in cases())


if __name__ == "__main__":
    write("label_propagation.json", (label_propagations(*case) for case in graphs()))
    write("louvain_community.json", both(graphs, louvain))
    write("modularity_score.json", both(lambda: [*graphs(), *directed_graphs()], modularity_scores))
