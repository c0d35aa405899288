"""Layers of graph neural networks in torch: the time of each step on the graph that the CUDA bench of PageRank writes.

    pip install torch numpy
    TOWER_KERNELS_BENCH_GRAPHS=/tmp/graphs cargo bench --bench cuda -- pagerank
    python benches/peers/gnn_peers.py /tmp/graphs/kron20-directed

A graph convolution is `torch.sparse.mm` with the normalized adjacency in CSR form (cuSPARSE) and a dense product without
TF32 (cuBLAS). Attention is written plainly, with a row for each arc: torch has no fused operation for it. Without a GPU the
same runs on the CPU.
"""

import statistics
import sys
import time

import numpy
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def median_ms(work, runs=7):
    def run():
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def normalized(source, target, nodes):
    """D^-1/2 (A + I) D^-1/2, with rows of targets."""
    loops = torch.arange(nodes, device=DEVICE)
    rows, columns = torch.cat([target, loops]), torch.cat([source, loops])
    roots = torch.bincount(rows, minlength=nodes).float().rsqrt()
    matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), roots[rows] * roots[columns], (nodes, nodes))
    return matrix.coalesce().to_sparse_csr()


def attention(values, vectors, source, target, heads):
    """GAT, with self-loops among the arcs."""
    nodes, width = values.shape
    values = values.view(nodes, heads, width // heads)
    to, of = (values * vectors[:, 0]).sum(2), (values * vectors[:, 1]).sum(2)
    scores = torch.nn.functional.leaky_relu(to[target] + of[source], 0.2)
    index = target[:, None].expand(-1, heads)
    most = torch.full_like(to, -torch.inf).scatter_reduce(0, index, scores, "amax")
    weights = torch.exp(scores - most[target])
    weights = weights / torch.zeros_like(to).index_add(0, target, weights)[target]
    return torch.zeros_like(values).index_add(0, target, weights[:, :, None] * values[source])


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    edges = torch.from_numpy(numpy.fromfile(sys.argv[1], dtype=numpy.uint32).reshape(-1, 2).astype(numpy.int64))
    source, target = edges.to(DEVICE).T.contiguous()
    nodes = int(edges.max()) + 1
    print(f"torch {torch.__version__} on {DEVICE}: {nodes} nodes, {len(edges)} arcs, ms")
    matrix = normalized(source, target, nodes)
    for width in (32, 64, 128):
        rows, weights = torch.randn(nodes, width, device=DEVICE), torch.randn(width, width, device=DEVICE)
        sparse = median_ms(lambda: torch.sparse.mm(matrix, rows))
        layer = median_ms(lambda: torch.relu(torch.sparse.mm(matrix, rows) @ weights))
        print(f"GCN, a layer {width} x {width}: {layer:.3f}, of it the sparse product {sparse:.3f}")
    loops = torch.arange(nodes, device=DEVICE)
    source, target = torch.cat([source, loops]), torch.cat([target, loops])
    for heads, head_dim in ((8, 8), (1, 64), (4, 32)):
        values = torch.randn(nodes, heads * head_dim, device=DEVICE)
        vectors = torch.randn(heads, 2, head_dim, device=DEVICE)
        try:
            taken = median_ms(lambda: attention(values, vectors, source, target, heads), 3)
        except torch.OutOfMemoryError:
            print(f"GAT, {heads} heads of {head_dim}: not enough memory for a row of each arc")
            continue
        print(f"GAT, {heads} heads of {head_dim}: {taken:.3f}")


if __name__ == "__main__":
    main()
