"""Writes the goldens of `ml/semantic-similarity`: tests/goldens/similarity.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_similarity.py

Indices are those of scikit-learn's NearestNeighbors by brute force in double precision, and for dot products of numpy's
stable sort; scores are scipy's and numpy's. Vectors are rounded to their dtype first.
"""

import json
import pathlib

import numpy
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

HERE = pathlib.Path(__file__).parent
random = numpy.random.default_rng(17)


def rounded(values, dtype):
    """Single precision, rounded to the dtype."""
    values = values.astype(numpy.float32)
    if dtype == "bfloat16":
        bits = values.view(numpy.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)
    return values.astype(dtype).astype(numpy.float32)


def case(dtype, metric, rows, dimension, queries, top_k):
    # Few digits, so that the file is short.
    vectors = random.normal(size=(rows, dimension)).round(3)
    query = random.normal(size=(queries, dimension)).round(3)
    if rows > 40:
        vectors[7] = 0
    corpus = rounded(vectors, dtype).astype(numpy.float64)
    wide = query.astype(numpy.float32).astype(numpy.float64)
    count = min(top_k, rows)
    if metric == "dot":
        scores = wide @ corpus.T
        indices = numpy.argsort(-scores, axis=1, kind="stable")[:, :count]
    else:
        kind = {"cosine": "cosine", "l2": "euclidean"}[metric]
        neighbors = NearestNeighbors(n_neighbors=count, algorithm="brute", metric=kind).fit(corpus)
        indices = neighbors.kneighbors(wide, return_distance=False)
        scores = cdist(wide, corpus, kind)
        if metric == "cosine":
            # scipy's is NaN for a vector of zeros.
            scores = 1 - numpy.where(numpy.linalg.norm(corpus, axis=1) == 0, 1, scores)
    return {
        "dtype": dtype,
        "metric": metric,
        "top_k": top_k,
        "vectors": vectors.tolist(),
        "queries": query.ravel().tolist(),
        "indices": indices.ravel().tolist(),
        "scores": numpy.take_along_axis(scores, indices, axis=1).ravel().tolist(),
    }


goldens = [
    case(dtype, metric, *sizes)
    for dtype in ["float32", "float16", "bfloat16"]
    for metric in ["cosine", "dot", "l2"]
    for sizes in [(1, 1, 1, 1), (5, 3, 2, 10), (100, 16, 9, 10), (70, 7, 3, 70), (33, 40, 2, 5)]
]
lines = ",\n".join(json.dumps(golden, separators=(",", ":")) for golden in goldens)
(HERE / "similarity.json").write_text("[\n" + lines + "\n]\n")
