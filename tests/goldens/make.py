"""Writes the goldens that the tests read: betweenness by networkx, option prices by mpmath.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make.py

Both are JSON. Betweenness scores are networkx's own. Option quotes are computed in 40 digits from the very doubles that
the file gives as inputs and rounded once, so they are right to half a unit in the last place; scipy's normal
distribution is checked against them here to 1e-11, so that formula and reference cannot share a mistake.
"""

import json
import math
import pathlib
import random

import mpmath as mp
import networkx as nx
import numpy
from scipy.stats import norm

HERE = pathlib.Path(__file__).parent
mp.mp.dps = 40


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text("[\n" + lines + "\n]\n")


def betweenness(name, graph, sources=None):
    """One case: the edges once, the scores normalized and not."""
    nodes = list(graph.nodes())
    graph = nx.relabel_nodes(graph, {node: index for index, node in enumerate(nodes)})
    ordered = graph.__class__()
    ordered.add_nodes_from(range(len(nodes)))
    ordered.add_edges_from(graph.edges())
    case = {
        "name": name,
        "num_nodes": len(nodes),
        "directed": ordered.is_directed(),
        "edges": [[u, v] for u, v in ordered.edges()],
    }
    if sources is None:
        scores = [nx.betweenness_centrality(ordered, normalized=normalized) for normalized in (True, False)]
    else:
        case["sources"] = sources
        scores = [
            nx.betweenness_centrality(ordered, k=len(sources), normalized=normalized, seed=Drawn(sources))
            for normalized in (True, False)
        ]
    case["normalized"], case["raw"] = ([value[node] for node in ordered] for value in scores)
    return case


class Drawn(random.Random):
    """Stands for networkx's random numbers and draws the given nodes."""

    def __init__(self, nodes):
        super().__init__(0)
        self.nodes = nodes

    def sample(self, population, k):
        assert k == len(self.nodes) and set(self.nodes) <= set(population)
        return list(self.nodes)


def graphs():
    page = nx.Graph([(0, 1), (1, 2), (2, 3), (0, 3)])
    yield betweenness("page", page)
    yield betweenness("karate", nx.karate_club_graph())
    yield betweenness("les miserables", nx.les_miserables_graph())
    yield betweenness("grid", nx.grid_2d_graph(9, 13))
    yield betweenness("star", nx.star_graph(40))
    apart = nx.disjoint_union_all([nx.path_graph(7), nx.cycle_graph(9), nx.empty_graph(4), nx.complete_graph(6)])
    yield betweenness("disconnected", apart)
    multiple = nx.MultiGraph(nx.gnm_random_graph(60, 150, seed=3))
    multiple.add_edges_from([(u, v) for u, v in list(multiple.edges())[::3]])
    multiple.add_edges_from((node, node) for node in range(0, 60, 4))
    yield betweenness("multigraph with loops", multiple)
    yield betweenness("Erdos-Renyi", nx.gnm_random_graph(2000, 10000, seed=11))
    yield betweenness("Barabasi-Albert", nx.barabasi_albert_graph(2000, 5, seed=12))
    directed = nx.gnp_random_graph(300, 0.01, seed=13, directed=True)
    yield betweenness("directed", directed)
    yield betweenness("directed with loops", nx.MultiDiGraph([(0, 0), (0, 1), (0, 1), (1, 2), (2, 0), (2, 3), (1, 3)]))
    yield betweenness("two nodes", nx.path_graph(2))
    yield betweenness("one node", nx.empty_graph(1))
    draw = random.Random(5)
    yield betweenness("karate, pivots", nx.karate_club_graph(), draw.sample(range(34), 10))
    yield betweenness("karate, two pivots", nx.karate_club_graph(), [0, 33])
    yield betweenness("karate, every node a pivot", nx.karate_club_graph(), draw.sample(range(34), 34))
    yield betweenness("directed, pivots", directed, draw.sample(range(300), 37))
    yield betweenness("disconnected, pivots", apart, draw.sample(range(len(apart)), 12))


def quote(spot, strike, rate, volatility, years, dividend, call):
    """Price, delta, gamma, vega, theta, rho in 40 digits."""
    s, k, r, v, t, q = (mp.mpf(value) for value in (spot, strike, rate, volatility, years, dividend))
    w = 1 if call else -1
    forward, owed, deviation = s * mp.exp(-q * t), k * mp.exp(-r * t), v * mp.sqrt(t)
    if deviation == 0:
        worth = w * (forward - owed)
        chance = mp.mpf(1) if worth > 0 else mp.mpf(0.5) if worth == 0 else mp.mpf(0)
        return [
            w * (forward - owed) * chance,
            w * mp.exp(-q * t) * chance,
            mp.mpf(0),
            mp.mpf(0),
            w * (q * forward - r * owed) * chance,
            w * t * owed * chance,
        ]
    d1 = (mp.log(s / k) + (r - q) * t) / deviation + deviation / 2
    d2 = d1 - deviation
    density = mp.exp(-d1 * d1 / 2) / mp.sqrt(2 * mp.pi)
    gained, paid = forward * mp.ncdf(w * d1), owed * mp.ncdf(w * d2)
    return [
        w * (gained - paid),
        w * gained / s,
        forward / s * density / (s * deviation),
        forward * density * mp.sqrt(t),
        -forward * density * v / (2 * mp.sqrt(t)) + w * (q * gained - r * paid),
        w * t * paid,
    ]


def contracts():
    draw = numpy.random.default_rng(21)
    ordinary = [
        (draw.uniform(50, 150), draw.uniform(50, 150), draw.uniform(-0.02, 0.1), draw.uniform(0.05, 0.8),
         draw.uniform(0.01, 3), draw.uniform(0, 0.06))
        for _ in range(900)
    ]
    wide = [
        (10 ** draw.uniform(-3, 5), 10 ** draw.uniform(-3, 5), draw.uniform(-0.1, 0.3), 10 ** draw.uniform(-2, 0.7),
         10 ** draw.uniform(-3, 1.5), draw.uniform(-0.05, 0.2))
        for _ in range(500)
    ]
    near = [
        (100.0, 100 * (1 + draw.normal() * scale), draw.uniform(0, 0.05), 10 ** draw.uniform(-3, 0),
         10 ** draw.uniform(-4, 0), 0.0)
        for scale in (0.0, 1e-9, 1e-4, 1e-2)
        for _ in range(50)
    ]
    certain = [
        (spot, 100.0, rate, volatility, years, dividend)
        for spot in (80.0, 100.0, 125.0)
        for rate in (0.0, 0.04)
        for dividend in (0.0, 0.02)
        for volatility, years in ((0.0, 0.0), (0.3, 0.0), (0.0, 2.0))
        # exp(-0.08) of equal numbers: in and out of the money by rounding alone says nothing.
        if not (spot == 100.0 and years > 0 and rate == dividend != 0)
    ]
    for terms in ordinary + wide + near + certain:
        terms = [float(value) for value in terms]
        for call in (True, False):
            yield terms, call


def main():
    write("betweenness.json", graphs())
    cases = []
    for terms, call in contracts():
        quotes = [float(value) for value in quote(*terms, call)]
        spot, strike, rate, volatility, years, dividend = terms
        if volatility * years > 0:
            d1 = (math.log(spot / strike) + (rate - dividend) * years) / (volatility * math.sqrt(years))
            d1 += volatility * math.sqrt(years) / 2
            delta = norm.cdf(d1) if call else -norm.cdf(-d1)
            assert abs(quotes[1] - delta * math.exp(-dividend * years)) < 1e-11 + 1e-13 / (volatility * years**0.5)
        cases.append([*terms, "call" if call else "put", *quotes])
    write("option_pricing.json", cases)


if __name__ == "__main__":
    main()
