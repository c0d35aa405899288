"""Writes value_similarity.json: distances of histograms by scipy.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_value_similarity.py

Each case has histograms, and for each metric all distances: `jensenshannon` with base 2, and `wasserstein_distance` of
the middles of the bins. No two distances of a case are so near each other that rounding could change their order, but
for those of equal histograms.
"""

import itertools
import json
import pathlib

import numpy
import scipy.spatial.distance
import scipy.stats

HERE = pathlib.Path(__file__).parent
random = numpy.random.default_rng(31)


def jensen_shannon(p, q):
    # scipy's own is not a number where rounding makes the divergence negative.
    return 0.0 if numpy.array_equal(p, q) else float(scipy.spatial.distance.jensenshannon(p, q, base=2))


def case(name, histograms, edges):
    histograms = numpy.asarray(histograms, dtype=numpy.float64)
    edges = numpy.asarray(edges, dtype=numpy.float64)
    middles = (edges[:-1] + edges[1:]) / 2
    pairs = list(itertools.combinations(range(len(histograms)), 2))
    jsd = [jensen_shannon(histograms[a], histograms[b]) for a, b in pairs]
    wasserstein = [
        float(scipy.stats.wasserstein_distance(middles, middles, histograms[a], histograms[b])) for a, b in pairs
    ]
    return {
        "name": name,
        "num_distributions": len(histograms),
        "distributions": histograms.ravel().tolist(),
        "bin_edges": edges.tolist(),
        "pairs": pairs,
        "jsd": jsd,
        "wasserstein": wasserstein,
    }


def sparse(rows, bins):
    histograms = random.gamma(0.4, size=(rows, bins)) * (random.random((rows, bins)) < 0.5)
    histograms[:, 0] += 0.01
    return histograms


def main():
    smooth = random.dirichlet(numpy.full(24, 5.0), size=20)
    near = smooth[0] * (1 + 1e-4 * random.normal(size=(8, 24)))
    cases = [
        case("one bin", [[1.0], [5.0], [0.25]], [0, 1]),
        case("two bins", [[1, 0], [0, 1], [1, 1], [3, 1]], [0, 1, 2]),
        case("disjoint", numpy.eye(6), range(7)),
        case("counts", random.poisson(3.0, size=(15, 12)) + 1, range(13)),
        case("smooth", smooth, numpy.cumsum(random.uniform(0.1, 3.0, 25))),
        case("sparse", sparse(25, 40), numpy.linspace(-5, 5, 41)),
        case("nearly equal", near, numpy.linspace(0, 1, 25)),
        case("of many sizes", sparse(12, 17) * 10.0 ** random.uniform(-8, 8, (12, 1)), numpy.geomspace(1, 1e6, 18)),
        case("equal", numpy.repeat(random.dirichlet(numpy.ones(9), size=3), 3, axis=0), range(10)),
    ]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / "value_similarity.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
