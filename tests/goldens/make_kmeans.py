"""Writes the goldens of `ml/kmeans-cluster`: tests/goldens/kmeans.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_kmeans.py

Runs with initial centroids are those of scikit-learn's `KMeans(algorithm="lloyd")`. For k-means++ there are the data of
each set, and the mean and the standard deviation of scikit-learn's inertia over SEEDS seeds.
"""

import json
import pathlib

import numpy
from sklearn.cluster import KMeans

HERE = pathlib.Path(__file__).parent
SEEDS = 50
random = numpy.random.default_rng(11)


def rounded(values):
    """To numbers that are short in JSON and the same in single precision."""
    return numpy.round(values * 64).astype("float32") / 64


def blobs(points, features, centers, deviation=1.0, offset=0.0):
    middles = random.uniform(-10, 10, size=(centers, features))
    noise = random.normal(scale=deviation, size=(points, features))
    return rounded(middles[random.integers(centers, size=points)] + noise + offset)


def numbers(values):
    return [float(value) for value in values.ravel()]


def run(name, data, init, max_iterations=300, tolerance=1e-4):
    init = numpy.asarray(init, dtype="float32")
    model = KMeans(len(init), init=init, n_init=1, max_iter=max_iterations, tol=tolerance, algorithm="lloyd").fit(data)
    # In double precision: scikit-learn adds up in single precision.
    distances = data.astype("float64") - model.cluster_centers_.astype("float64")[model.labels_]
    return {
        "name": name, "n_features": data.shape[1], "data": numbers(data), "init": numbers(init),
        "max_iterations": max_iterations, "tolerance": tolerance, "labels": model.labels_.tolist(),
        "centroids": numbers(model.cluster_centers_), "inertia": float((distances**2).sum()),
        "iterations": model.n_iter_,
    }


def seeded(name, data, k):
    inertias = [KMeans(k, init="k-means++", n_init=1, random_state=seed).fit(data).inertia_ for seed in range(SEEDS)]
    return {
        "name": name, "n_features": data.shape[1], "data": numbers(data), "k": k,
        "mean": float(numpy.mean(inertias)), "standard_deviation": float(numpy.std(inertias)),
    }


def first(data, k):
    """The first k different points."""
    return data[numpy.sort(numpy.unique(data, axis=0, return_index=True)[1])][:k]


def main():
    plane, space, offset = blobs(120, 2, 4), blobs(200, 7, 6, 3.0), blobs(150, 3, 5, offset=1000.0)
    noise = rounded(random.uniform(0, 8, size=(250, 3)))
    line = rounded(random.normal(scale=20, size=(90, 1)))
    wide = blobs(60, 150, 3)
    far = numpy.concatenate([first(plane, 3), [[500.0, 500.0]]])
    runs = [
        run("plane", plane, first(plane, 4)),
        run("space", space, first(space, 6)),
        run("offset", offset, first(offset, 5)),
        run("noise", noise, first(noise, 12)),
        run("line", line, first(line, 7)),
        run("more features than points", wide, first(wide, 3)),
        run("one cluster", space, first(space, 1)),
        run("a cluster for each point", plane[:9], plane[:9]),
        run("one iteration", noise, first(noise, 20), max_iterations=1),
        run("three iterations", noise, first(noise, 20), max_iterations=3),
        run("loose tolerance", noise, first(noise, 10), tolerance=0.02),
        run("no tolerance", noise, first(noise, 10), tolerance=0.0),
        run("an empty cluster", plane, far),
    ]
    seedings = [
        seeded("25 groups", blobs(300, 2, 25, 0.5), 25),
        seeded("noise", noise, 16),
        seeded("9 features", blobs(250, 9, 12, 1.5), 12),
    ]
    (HERE / "kmeans.json").write_text(
        "{\n\"runs\": [\n" + ",\n".join(map(json.dumps, runs)) + "\n],\n\"seedings\": [\n"
        + ",\n".join(map(json.dumps, seedings)) + "\n]\n}\n"
    )


main()
