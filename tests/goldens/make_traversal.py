"""Writes the goldens of the graph kernels on traversal, by networkx: connected_components.json, shortest_path.json,
weighted_paths.json, paths_to_targets.json and closeness.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_traversal.py

Components are networkx's sets, numbered by their lowest nodes. Distances are networkx's own; of the predecessors on all
shortest paths, which networkx returns, the lowest is taken. Unreachable nodes have null for both.
Average path lengths of connected graphs are networkx's, and checked against the sums that those of others are made of.
The metrics of whole graphs, in closeness.json too, are networkx's, of the graph without direction where edges have none.
"""

import json
import pathlib
from random import Random

import networkx as nx

HERE = pathlib.Path(__file__).parent


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text("[\n" + lines + "\n]\n")


def numbered(graph):
    """The graph with its nodes numbered in the order in which it has them."""
    return nx.convert_node_labels_to_integers(graph)


def graphs():
    yield "karate", numbered(nx.karate_club_graph())
    yield "grid", numbered(nx.grid_2d_graph(9, 13))
    yield "star", nx.star_graph(40)
    parts = [nx.path_graph(7), nx.cycle_graph(9), nx.empty_graph(4), nx.complete_graph(6)]
    yield "disconnected", nx.disjoint_union_all(parts)
    loops = nx.MultiGraph(nx.gnm_random_graph(60, 50, seed=3))
    loops.add_edges_from([(u, v) for u, v in list(loops.edges())[::3]])
    loops.add_edges_from((node, node) for node in range(0, 60, 4))
    yield "multigraph with loops", loops
    yield "many small components", nx.gnm_random_graph(2000, 900, seed=11)
    yield "one large component", nx.gnm_random_graph(2000, 3000, seed=12)
    yield "preferential attachment", nx.barabasi_albert_graph(1500, 4, seed=13)
    yield "directed", nx.gnp_random_graph(300, 0.006, seed=14, directed=True)
    yield "directed, sparse", nx.gnp_random_graph(1000, 0.0012, seed=15, directed=True)
    yield "directed path", nx.path_graph(500, create_using=nx.DiGraph)
    yield "directed cycle", nx.cycle_graph(500, create_using=nx.DiGraph)
    rings = nx.disjoint_union_all([nx.cycle_graph(size, create_using=nx.DiGraph) for size in (2, 3, 50, 5)])
    rings.add_edges_from([(0, 2), (4, 10), (30, 55), (56, 31)])
    yield "directed rings in a row", rings
    yield "one node", nx.empty_graph(1)


def described(name, graph):
    return {
        "name": name,
        "num_nodes": len(graph),
        "directed": graph.is_directed(),
        "edges": [list(edge[:2]) for edge in graph.edges()],
    }


def numbers(graph, components):
    number = {}
    for index, component in enumerate(sorted(components, key=min)):
        number.update(dict.fromkeys(component, index))
    return [number[node] for node in range(len(graph))]


def components(name, graph):
    case = described(name, graph)
    undirected = graph.to_undirected() if graph.is_directed() else graph
    case["weak"] = numbers(graph, nx.connected_components(undirected))
    if graph.is_directed():
        case["strong"] = numbers(graph, nx.strongly_connected_components(graph))
    return case


def shortest_paths(name, graph):
    case = described(name, graph)
    case["sources"] = sorted({0, len(graph) // 2, len(graph) - 1})
    case["distances"], case["predecessors"] = [], []
    for source in case["sources"]:
        predecessors, distances = nx.dijkstra_predecessor_and_distance(nx.DiGraph(graph), source, weight=lambda *_: 1)
        case["distances"].append([distances.get(node) for node in range(len(graph))])
        lowest = [min(predecessors.get(node) or [None], key=lambda node: node) for node in range(len(graph))]
        case["predecessors"].append(lowest)
    return case


def weighted_paths(name, graph):
    """Distances by weights of 0 to 8 quarters; of parallel edges, and of both directions, the least weight counts."""
    case = described(name, graph)
    random = Random(len(case["edges"]))
    case["weights"] = [random.randrange(9) / 4 for _ in case["edges"]]
    case["sources"] = sorted({0, len(graph) // 2, len(graph) - 1})
    simple = nx.DiGraph() if graph.is_directed() else nx.Graph()
    simple.add_nodes_from(range(len(graph)))
    for (start, end), weight in zip(case["edges"], case["weights"]):
        before = simple.get_edge_data(start, end, {"weight": weight})["weight"]
        simple.add_edge(start, end, weight=min(before, weight))
    case["distances"] = []
    for source in case["sources"]:
        found = nx.single_source_dijkstra_path_length(simple, source)
        case["distances"].append([found.get(node) for node in range(len(graph))])
    return case


def paths_to_targets(name, graph):
    """Distances and paths between some nodes, by edges and by the weights of `weighted_paths`. A path by weights has the fewest
    edges of the shortest: of two paths of the same weight, the units that are added for edges decide."""
    case = weighted_paths(name, graph)
    del case["distances"]
    random = Random(len(case["edges"]) + 1)
    case["targets"] = [random.randrange(len(graph)) for _ in range(7)] + case["sources"][:1]
    simple = nx.DiGraph()
    simple.add_nodes_from(range(len(graph)))
    for (start, end), weight in zip(case["edges"], case["weights"]):
        ends = [(start, end)] if graph.is_directed() else [(start, end), (end, start)]
        for start, end in ends:
            least = min(weight, simple.get_edge_data(start, end, {"weight": weight})["weight"])
            simple.add_edge(start, end, weight=least, units=int(4 * least) * 4096 + 1)
    for kind, length in (("", lambda *_: 1), ("weighted_", "units")):
        case[kind + "distances"], case[kind + "paths"] = [], []
        for source in case["sources"]:
            predecessors, found = nx.dijkstra_predecessor_and_distance(simple, source, weight=length)
            paths = [path_to(target, predecessors) if target in found else [] for target in case["targets"]]
            case[kind + "paths"].append(paths)
            if kind:
                found = nx.single_source_dijkstra_path_length(simple, source)
            case[kind + "distances"].append([found.get(target) for target in case["targets"]])
    return case


def path_to(target, predecessors):
    """The path of the lowest predecessors."""
    path = [target]
    while predecessors[path[0]]:
        path.insert(0, min(predecessors[path[0]]))
    return path


def closeness(name, graph):
    case = described(name, graph)
    simple = nx.DiGraph(graph) if graph.is_directed() else nx.Graph(graph)
    for field, wf_improved in (("improved", True), ("plain", False)):
        scores = nx.closeness_centrality(simple, wf_improved=wf_improved)
        case[field] = [scores[node] for node in range(len(graph))]
    lengths = [length for _, found in nx.all_pairs_shortest_path_length(simple) for length in found.values() if length]
    case["num_pairs"] = len(lengths)
    case["average_path_length"] = sum(lengths) / len(lengths) if lengths else 0.0
    case["diameter"] = max(lengths, default=0)
    case["connected"] = len(lengths) == len(graph) * (len(graph) - 1)
    if case["connected"]:
        assert abs(nx.average_shortest_path_length(simple) - case["average_path_length"]) < 1e-12
        assert nx.diameter(simple) == case["diameter"]
    both = nx.Graph(simple)
    both.remove_edges_from(list(nx.selfloop_edges(both)))
    simple.remove_edges_from(list(nx.selfloop_edges(simple)))
    sizes = [len(component) for component in nx.connected_components(both)]
    degrees = [degree for _, degree in both.degree()]
    case["metrics"] = {
        "num_nodes": len(graph),
        "num_edges": simple.number_of_edges(),
        "density": nx.density(simple),
        "average_degree": sum(degrees) / len(degrees),
        "min_degree": min(degrees),
        "max_degree": max(degrees),
        "average_clustering_coefficient": nx.average_clustering(both),
        "num_components": len(sizes),
        "largest_component_size": max(sizes),
        "is_connected": nx.is_connected(both),
        "average_path_length": case["average_path_length"],
        "diameter": case["diameter"],
        "num_pairs": case["num_pairs"],
    }
    return case


if __name__ == "__main__":
    write("connected_components.json", (components(*graph) for graph in graphs()))
    write("shortest_path.json", (shortest_paths(*graph) for graph in graphs()))
    write("weighted_paths.json", (weighted_paths(*graph) for graph in graphs() if len(graph[1]) <= 1000))
    write("paths_to_targets.json", (paths_to_targets(*graph) for graph in graphs() if len(graph[1]) <= 300))
    write("closeness.json", (closeness(*graph) for graph in graphs() if len(graph[1]) <= 1000))
