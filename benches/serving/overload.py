#!/usr/bin/env python3
"""What a server does with twice the requests that its GPU can run: whether those beyond go to the CPU.

    overload.py PROGRAM [--seconds 3] [--server-cores 0-9] [--load-cores 10-15]

PROGRAM is `tower-kernels`. Betweenness centrality of a stored random graph of 256 nodes takes the CPU about as long as the GPU.
Requests first ask for the GPU, then for the CPU, each as many as it can run; then they ask for neither, at twice the rate of the
first. Needs Linux and a GPU."""

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
import urllib.request

REST, GRPC = "127.0.0.1:18710", "127.0.0.1:18711"
KERNEL = "graph/betweenness-centrality"
NODES, EDGES = 256, 4096

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("--seconds", type=float, default=3)
parser.add_argument("--server-cores", default="0-9")
parser.add_argument("--load-cores", default="10-15")
ARGS = parser.parse_args()


def load(name, *arguments):
    """Requests a second that succeeded, and latencies."""
    with tempfile.NamedTemporaryFile() as results, tempfile.NamedTemporaryFile("w") as file:
        json.dump({"graph": {"operand": "random"}}, file)
        file.flush()
        command = ["taskset", "-c", ARGS.load_cores, ARGS.program, "bench", KERNEL, "--grpc", f"http://{GRPC}", "--input", file.name,
                   "--duration", f"{ARGS.seconds}s", "--warmup", "1s", "--allow-errors", "--json", results.name, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = json.load(open(results.name))
    errors = {kind: error["count"] for kind, error in run["errors"].items()}
    rate, latency = run["requests_per_s"], run["latency_ns"]
    print(f"| {name} | {rate:.0f} | {latency['p50'] / 1e3:.0f} | {latency['p99'] / 1e3:.0f} | {errors or 0} |", flush=True)
    return rate


with tempfile.TemporaryFile() as log:
    server = subprocess.Popen(
        ["taskset", "-c", ARGS.server_cores, ARGS.program, "serve", "--rest-listen", REST, "--grpc-listen", GRPC], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://{REST}/health/ready", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        draw = random.Random(1)
        edges = [[draw.randrange(NODES), draw.randrange(NODES)] for _ in range(EDGES)]
        graph = json.dumps({"num_nodes": NODES, "edges": edges})
        subprocess.run([ARGS.program, "operand", "put", "random", "--type", "graph", "--rest", f"http://{REST}"], input=graph, text=True,
                       check=True, stdout=subprocess.DEVNULL)
        print("| | requests/s | p50, us | p99, us | errors |\n|---|---:|---:|---:|---|")
        gpu = load("on the GPU alone", "--concurrency", "64", "--header", "backend: cuda")
        cpu = load("on the CPU alone", "--concurrency", "64", "--header", "backend: cpu")
        both = load("anywhere, as many as it can", "--concurrency", "128")
        twice = load("anywhere, twice the rate of the GPU", "--rate", f"{2 * gpu:.0f}", "--concurrency", "512")
        print(f"\n{twice / (gpu + 0.8 * cpu):.2f} of the GPU alone and 0.8 of the CPU alone ({both / (gpu + 0.8 * cpu):.2f} as many as it can)")
        with urllib.request.urlopen(f"http://{REST}/metrics") as metrics:
            for line in metrics.read().decode().splitlines():
                if line.startswith("kernel_backend") and "predicted" not in line and os.environ.get("VERBOSE"):
                    print(line)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
