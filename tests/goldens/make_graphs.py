"""Writes graphs.json: what the graph kernels other than betweenness compute, by networkx.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_graphs.py

Each case has a graph without self-loops and parallel edges, and networkx's own results for it.
"""

import json
import pathlib

import networkx as nx
import numpy

HERE = pathlib.Path(__file__).parent
# PageRank is run to this tolerance and compared to a looser one, so that the order of additions does not matter.
TOLERANCE = 1e-12


def simple(graph):
    """The graph with nodes numbered from 0, without self-loops and parallel edges."""
    numbers = {node: index for index, node in enumerate(graph)}
    plain = (nx.DiGraph if graph.is_directed() else nx.Graph)()
    plain.add_nodes_from(range(len(numbers)))
    plain.add_edges_from((numbers[u], numbers[v]) for u, v in graph.edges() if u != v)
    return plain


def values(scores):
    return [scores[node] for node in sorted(scores)]


def pagerank(graph, **options):
    """One run: its options, and the scores or that networkx does not converge."""
    run = {"options": options}
    arguments = {"alpha": options["damping"], "max_iter": options["max_iterations"], "tol": options["tolerance"]}
    if "weights" in options:
        arguments["personalization"] = dict(enumerate(options["weights"]))
    try:
        run["scores"] = values(nx.pagerank(graph, **arguments))
    except nx.PowerIterationFailedConvergence:
        run["scores"] = None
    return run


def runs(graph):
    nodes = len(graph)
    usual = {"damping": 0.85, "max_iterations": 1000, "tolerance": TOLERANCE}
    yield pagerank(graph, **usual)
    yield pagerank(graph, **{**usual, "damping": 0.5})
    yield pagerank(graph, **usual, weights=[float(node % 3) for node in range(nodes)] if nodes > 1 else [1.0])
    yield pagerank(graph, **usual, weights=[float(node == nodes // 2) for node in range(nodes)])
    yield pagerank(graph, **{**usual, "max_iterations": 3})


def converged(centrality, graph, **options):
    """The scores, or None where networkx does not converge."""
    try:
        return values(centrality(graph, **options))
    except nx.PowerIterationFailedConvergence:
        return None


def eigenvector(graph, max_iterations, tolerance):
    options = {"max_iterations": max_iterations, "tolerance": tolerance}
    return {**options, "scores": converged(nx.eigenvector_centrality, graph, max_iter=max_iterations, tol=tolerance)}


def katz(graph, normalized, max_iterations, **options):
    """A run with an alpha of 0.8 of the largest at which the iteration converges, or of 0.1 if any does."""
    eigenvalue = max(abs(value) for value in numpy.linalg.eigvals(nx.to_numpy_array(graph)))
    run = {
        "alpha": 0.8 / eigenvalue if eigenvalue > 0.1 else 0.1,
        "normalized": normalized,
        "max_iterations": max_iterations,
        "tolerance": TOLERANCE,
        **options,
    }
    beta = run.get("beta", 1.0)
    run["scores"] = converged(
        nx.katz_centrality,
        graph,
        alpha=run["alpha"],
        beta=dict(enumerate(beta)) if isinstance(beta, list) else beta,
        max_iter=max_iterations,
        tol=TOLERANCE,
        normalized=normalized,
    )
    return run


def case(name, graph):
    graph = simple(graph)
    result = {
        "name": name,
        "num_nodes": len(graph),
        "directed": graph.is_directed(),
        "edges": [[u, v] for u, v in graph.edges()],
        "density": nx.density(graph),
        "degree_centrality": values(nx.degree_centrality(graph)),
        "degrees": [degree for _, degree in sorted(graph.degree())],
        "pagerank": list(runs(graph)),
        "eigenvector": [eigenvector(graph, 5000, TOLERANCE), eigenvector(graph, 3, TOLERANCE)],
        "katz": [
            katz(graph, True, 1000),
            katz(graph, False, 1000, beta=2.5),
            katz(graph, True, 1000, beta=[float(node % 5) - 1.0 for node in range(len(graph))]),
            katz(graph, True, 3),
        ],
    }
    if graph.is_directed():
        result["in_degree_centrality"] = values(nx.in_degree_centrality(graph))
        result["out_degree_centrality"] = values(nx.out_degree_centrality(graph))
        result["in_degrees"] = [degree for _, degree in sorted(graph.in_degree())]
        result["out_degrees"] = [degree for _, degree in sorted(graph.out_degree())]
    undirected = graph.to_undirected()
    result["clustering"] = values(nx.clustering(undirected))
    result["triangles"] = values(nx.triangles(undirected))
    result["neighbours"] = [degree for _, degree in sorted(undirected.degree())]
    return result


def main():
    directed = nx.gnp_random_graph(200, 0.02, seed=13, directed=True)
    cases = [
        case("one node", nx.empty_graph(1)),
        case("two nodes", nx.path_graph(2)),
        case("one arc", nx.DiGraph([(0, 1)])),
        case("no edges", nx.empty_graph(5)),
        case("square", nx.cycle_graph(4)),
        case("karate", nx.karate_club_graph()),
        case("les miserables", nx.les_miserables_graph()),
        case("star", nx.star_graph(40)),
        case("complete", nx.complete_graph(12)),
        case("wheel", nx.wheel_graph(9)),
        case("disconnected", nx.disjoint_union_all([nx.path_graph(7), nx.cycle_graph(9), nx.empty_graph(4)])),
        case("Barabasi-Albert", nx.barabasi_albert_graph(500, 5, seed=12)),
        case("directed", directed),
        case("directed star", nx.DiGraph([(node, 0) for node in range(1, 30)])),
        case("scale-free", nx.DiGraph(nx.scale_free_graph(300, seed=4))),
    ]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / "graphs.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
