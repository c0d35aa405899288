#!/usr/bin/env python3
"""This crate's server beside FastAPI, LitServe, mosec and Triton, for the same saxpy on one machine with a GPU: requests a second,
latency, and processor time, in turns in one run. The others run it on the GPU; ours where the response comes first, which is the
CPU, and in the last rows on the GPU as well.

    compare.py PROGRAM [--seconds 3] [--rounds 2] [--elements 1024] [--server-cores 0-9] [--load-cores 10-15] [--triton FOLDER]

PROGRAM is `tower-kernels`, which is both one of the servers and the load. Needs Linux, a GPU, torch, and what requirements.txt
lists. Triton is left out without FOLDER, which is that of an unpacked wheel of `nvidia-pytriton`; see ../inference.sh.

FastAPI, LitServe and mosec get the document of our REST API as JSON. Triton speaks the Open Inference Protocol, with JSON and with binary
data; ours is measured with both protocols."""

import argparse
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PORT = 18700
REST = f"http://127.0.0.1:{PORT}"
CONNECTIONS = (1, 32, 256)
TICKS = os.sysconf("SC_CLK_TCK")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--elements", type=int, default=1024)
    parser.add_argument("--server-cores", default="0-9")
    parser.add_argument("--load-cores", default="10-15")
    parser.add_argument("--triton", type=pathlib.Path)
    return parser.parse_args()


ARGS = arguments()


class NotStarted(Exception):
    pass


class Server:
    """A server in a session of its own, pinned to its cores."""

    def __init__(self, name, command, ready, loads, env=None):
        self.name, self.command, self.ready, self.loads, self.env = name, command, ready, loads, env or {}

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ["taskset", "-c", ARGS.server_cores, *self.command],
            stdout=self.log, stderr=self.log, env=os.environ | self.env, start_new_session=True, cwd=HERE,
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(REST + self.ready, timeout=1)
                return self
            except urllib.error.HTTPError as error:
                # It listens, and has no such page.
                if error.code in (404, 405):
                    return self
            except OSError:
                pass
            time.sleep(0.2)
        self.__exit__()
        self.log.seek(0)
        raise NotStarted(f"{self.name} does not start:\n" + self.log.read()[-4000:].decode(errors="replace"))

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        # Workers that did not hear of it.
        for process in self.session():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        time.sleep(0.5)

    def session(self):
        processes = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                processes.append(int(folder.name))
        return processes

    def cpu_seconds(self):
        """Processor time of all its processes that still run."""
        ticks = 0
        for process in self.session():
            try:
                fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS


def python(file, *args):
    return [sys.executable, str(HERE / file), *args]


def servers():
    native = ["linalg/saxpy", "--rest", REST]
    model = ["linalg.saxpy", "--rest", REST, "--protocol", "v2"]
    grpc = ["linalg/saxpy", "--grpc", f"http://127.0.0.1:{PORT + 1}", "--tensors"]
    ours = [ARGS.program, "serve", "--rest-listen", f"127.0.0.1:{PORT}", "--grpc-listen", f"127.0.0.1:{PORT + 1}"]
    yield Server("tower-kernels", ours, "/health", [
        ("JSON", native), ("tensors", [*native, "--tensors"]),
        ("v2, JSON", model), ("v2, binary", [*model, "--tensors"]),
        ("gRPC, tensors", grpc), ("gRPC, tensors, on the GPU", [*grpc, "--header", "backend: cuda"]),
    ])
    yield Server("FastAPI", python("fastapi_server.py", str(PORT)), "/ready", [("JSON", native)])
    yield Server("LitServe", python("litserve_server.py", str(PORT)), "/health", [("JSON", native)])
    yield Server("mosec", python("mosec_server.py", "--port", str(PORT)), "/", [("JSON", native)])
    if ARGS.triton:
        triton, folder = ["saxpy", "--rest", REST, "--protocol", "v2"], ARGS.triton.resolve() / "pytriton/tritonserver"
        yield Server("Triton", [
            str(folder / "bin/tritonserver"), f"--model-repository={HERE}/models", f"--backend-directory={folder}/backends",
            "--model-control-mode=none", "--http-address=127.0.0.1", f"--http-port={PORT}", "--allow-grpc=false",
            "--allow-metrics=false",
        ], "/v2/models/saxpy/ready", [("v2, JSON", triton), ("v2, binary", [*triton, "--tensors"])],
            {"LD_LIBRARY_PATH": f"{ARGS.triton.resolve()}/nvidia_pytriton.libs"})


def measure(server, target, connections, input_file):
    """Requests a second, p50 and p99 in microseconds, errors, and microseconds of the server's processor time a request."""
    with tempfile.NamedTemporaryFile() as results:
        command = ["taskset", "-c", ARGS.load_cores, ARGS.program, "bench", *target, "--input", input_file,
                   "--concurrency", str(connections), "--duration", f"{ARGS.seconds}s", "--warmup", "500ms",
                   "--allow-errors", "--json", results.name]
        before = server.cpu_seconds()
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{server.name}, {target}: {done.stdout}{done.stderr}")
        cpu, elapsed = server.cpu_seconds() - before, time.monotonic() - started
        run = json.load(open(results.name))
    errors = sum(error["count"] for error in run["errors"].values())
    rate = run["requests_per_s"]
    # The warm-up is as busy as the rest.
    return rate, run["latency_ns"]["p50"] / 1e3, run["latency_ns"]["p99"] / 1e3, errors, 1e6 * cpu / (elapsed * rate)


def main():
    draw = random.Random(1)
    numbers = lambda: [round(draw.uniform(-100, 100), 2) for _ in range(ARGS.elements)]
    rows, failed = {}, False
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"a": 2.5, "x": numbers(), "y": numbers()}, file)
        file.flush()
        for _ in range(ARGS.rounds):
            for server in servers():
                try:
                    with server:
                        for what, target in server.loads:
                            for connections in CONNECTIONS:
                                figures = measure(server, target, connections, file.name)
                                rows.setdefault((server.name, what, connections), []).append(figures)
                except NotStarted as error:
                    failed = True
                    print(error, file=sys.stderr)
    print("| server | payload | connections | requests/s | p50, us | p99, us | errors | CPU of the server, us |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for (name, what, connections), rounds in rows.items():
        rate, p50, p99, errors, cpu = (statistics.median(column) for column in zip(*rounds))
        print(f"| {name} | {what} | {connections} | {rate:.0f} | {p50:.0f} | {p99:.0f} | {errors:.0f} | {cpu:.0f} |")
    return int(failed)


sys.exit(main())
