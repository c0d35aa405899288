"""Writes the goldens of the neural networks on graphs: tests/goldens/gnn.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_gnn.py

Layers are computed from their published formulas with matrices in double precision: products with sparse matrices of
scipy, such as D^-1/2 (A + I) D^-1/2 of graph convolutions, and attention as a softmax over the rows of a dense matrix of
scores, with minus infinity where there is no edge.
"""

import json
import pathlib

import networkx as nx
import numpy
import scipy.sparse
import scipy.special

HERE = pathlib.Path(__file__).parent


def graphs():
    yield "karate", nx.karate_club_graph()
    yield "directed", nx.gnp_random_graph(60, 0.08, seed=4, directed=True)
    # The first node has 520 neighbours.
    hub = nx.star_graph(520)
    hub.add_edges_from(nx.path_graph(50).edges())
    yield "hub", hub
    alone = nx.DiGraph([(0, 1), (0, 2), (3, 2), (2, 4)])
    alone.add_nodes_from(range(7))
    yield "nodes without neighbours", alone


def adjacency(graph, self_loops):
    """A, with a row for each node and ones in the columns of the nodes that edges come from."""
    matrix = scipy.sparse.csr_array(nx.to_scipy_sparse_array(graph, nodelist=range(len(graph)), weight=None).T)
    matrix = (matrix > 0).astype(float)
    return scipy.sparse.csr_array(matrix + scipy.sparse.eye_array(len(graph))) if self_loops else matrix


def aggregate(matrix, rows, how):
    degrees = numpy.asarray(matrix.sum(axis=1)).ravel()
    if how == "max":
        out = numpy.zeros_like(rows)
        for node in numpy.flatnonzero(degrees):
            out[node] = rows[matrix.indices[matrix.indptr[node]:matrix.indptr[node + 1]]].max(axis=0)
        return out
    inverse = numpy.divide(1.0, degrees, out=numpy.zeros_like(degrees), where=degrees > 0)
    if how == "mean":
        return scipy.sparse.diags_array(inverse) @ matrix @ rows
    if how == "gcn":
        roots = scipy.sparse.diags_array(numpy.sqrt(inverse))
        return roots @ matrix @ roots @ rows
    return matrix @ rows


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: numpy.maximum(x, 0),
    "leaky_relu": lambda x: numpy.where(x > 0, x, 0.01 * x),
    "sigmoid": scipy.special.expit,
    "tanh": numpy.tanh,
    "elu": lambda x: numpy.where(x > 0, x, numpy.expm1(x)),
}


def normal(draw, *shape, scale=1.0):
    """Multiples of 1/32, which single precision has."""
    return (32 * scale * draw.standard_normal(shape)).round() / 32


def convolution(name, graph, draw, how, activation, self_loops, sizes, layer_norm):
    matrix = adjacency(graph, self_loops)
    features = rows = normal(draw, len(graph), sizes[0])
    weights, biases = [], []
    for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        weights.append(normal(draw, inputs, outputs, scale=inputs**-0.5))
        biases.append(normal(draw, outputs, scale=0.5))
        rows = aggregate(matrix, rows, how) @ weights[-1] + biases[-1]
        if layer + 2 < len(sizes):
            if layer_norm:
                rows = (rows - rows.mean(axis=1, keepdims=True)) / numpy.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
            rows = ACTIVATIONS[activation](rows)
    return {
        "name": f"{name}, {how}, {activation}, layers {sizes}",
        "input": {
            **described(graph),
            "node_features": features.ravel().tolist(), "layer_sizes": sizes, "aggregation": how,
            "layer_weights": numpy.concatenate([matrix.ravel() for matrix in weights]).tolist(),
            "layer_biases": numpy.concatenate(biases).tolist(), "activation": activation,
            "add_self_loops": self_loops, "layer_norm": layer_norm, "return_probabilities": True,
            "return_predictions": True,
        },
        "embeddings": rounded(rows), "probabilities": rounded(scipy.special.softmax(rows, axis=1)),
        "predictions": rows.argmax(axis=1).tolist(),
    }


def attention(name, graph, draw, variant, heads, head_dim, concat, self_loops, activation):
    has_edge = adjacency(graph, self_loops).toarray() > 0
    features = normal(draw, len(graph), 6)
    values_of, queries_of = normal(draw, 6, heads * head_dim, scale=0.5), normal(draw, 6, heads * head_dim, scale=0.5)
    vectors = normal(draw, heads, 2 * head_dim if variant == "gat" else head_dim)
    bias = normal(draw, heads * head_dim if concat else head_dim)
    values, queries = features @ values_of, features @ queries_of
    of_heads, weights = [], []
    for head in range(heads):
        columns = slice(head * head_dim, (head + 1) * head_dim)
        value, query = values[:, columns], queries[:, columns]
        if variant == "gat":
            target, source = value @ vectors[head, :head_dim], value @ vectors[head, head_dim:]
            scores = target[:, None] + source[None, :]
            scores = numpy.where(scores > 0, scores, 0.2 * scores)
        else:
            both = query[:, None, :] + value[None, :, :]
            scores = numpy.where(both > 0, both, 0.2 * both) @ vectors[head]
        alpha = numpy.zeros_like(scores)
        reached = has_edge.any(axis=1)
        alpha[reached] = scipy.special.softmax(numpy.where(has_edge, scores, -numpy.inf)[reached], axis=1)
        weights.append(alpha)
        of_heads.append(alpha @ value)
    rows = numpy.hstack(of_heads) if concat else sum(of_heads) / heads
    rows = ACTIVATIONS[activation](rows + bias)
    arcs = [(v, u) for v in range(len(graph)) for u in numpy.flatnonzero(has_edge[v]) if u != v]
    query_weights = {} if variant == "gat" else {"query_weights": queries_of.ravel().tolist()}
    return {
        "name": f"{name}, {variant}, {heads} heads of {head_dim}",
        "input": {
            **described(graph), **query_weights,
            "node_features": features.ravel().tolist(), "num_heads": heads, "head_dim": head_dim, "variant": variant,
            "value_weights": values_of.ravel().tolist(), "attention_vectors": vectors.ravel().tolist(),
            "bias": bias.tolist(), "concat_heads": concat, "add_self_loops": self_loops, "activation": activation,
            "return_attention": True,
        },
        "embeddings": rounded(rows),
        # By target and source, without self-loops.
        "weights": [[float(f"{alpha[v, u]:.6g}") for alpha in weights] for v, u in arcs],
    }


def described(graph):
    return {
        "num_nodes": len(graph), "edges": [list(edge) for edge in graph.edges()], "directed": graph.is_directed(),
    }


def rounded(rows):
    return [float(f"{number:.7g}") for number in rows.ravel()]


def main():
    draw = numpy.random.default_rng(7)
    convolutions, attentions = [], []
    options = [
        ("gcn", "relu", True, [5, 16, 3], False), ("mean", "tanh", False, [5, 4], False),
        ("sum", "elu", True, [4, 8, 8, 2], True), ("max", "leaky_relu", False, [5, 7, 2], False),
        ("gcn", "sigmoid", False, [3, 6, 4], False),
    ]
    for name, graph in graphs():
        few = options[:1] + options[3:4] if name == "hub" else options
        convolutions += [convolution(name, graph, draw, *option) for option in few]
        for variant in ["gat", "gatv2"]:
            attentions.append(attention(name, graph, draw, variant, 2, 4, True, True, "elu"))
            if name != "hub":
                attentions.append(attention(name, graph, draw, variant, 3, 5, False, False, "none"))
    lines = {
        "gnn_inference": convolutions, "graph_attention": attentions,
    }
    body = ",\n".join(
        f'"{key}": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]"
        for key, cases in lines.items()
    )
    (HERE / "gnn.json").write_text("{\n" + body + "\n}\n")


if __name__ == "__main__":
    main()
