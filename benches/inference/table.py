#!/usr/bin/env python3
"""Prints the results of `benches/inference.sh` as a table: medians of the rounds, and the median of their ratios.

    table.py FOLDER ROUNDS"""

import json
import pathlib
import statistics
import sys

FOLDER, ROUNDS = pathlib.Path(sys.argv[1]), int(sys.argv[2])
TRANSPORTS = {"http": "HTTP", "grpc": "gRPC", "json": "HTTP, JSON"}


def read(server, round, name):
    return json.loads((FOLDER / f"{server}-{round}-{name}.json").read_text())


def row(what, to_reach, unit, figure, rounds=ROUNDS):
    """A row of a figure, which `figure(server, round)` returns."""
    ours, triton = ([figure(server, round) for round in range(1, rounds + 1)] for server in ("ours", "triton"))
    ratio = statistics.median(our / its for our, its in zip(ours, triton))
    medians = " | ".join(f"{statistics.median(figures):{unit}}" for figures in (ours, triton))
    print(f"| {what} | {medians} | {ratio:.2f} | {to_reach} |")


def client(name):
    return lambda server, round: read(server, round, "client")[name]


def load(name, figure):
    return lambda server, round: figure(read(server, round, name))


def requests(run):
    return run["requests_per_s"]


def p50_us(run):
    return run["latency_ns"]["p50"] / 1e3


print("| | ours | Triton | ours / Triton | to reach |")
print("|---|---:|---:|---:|---:|")
for transport in ("HTTP", "gRPC"):
    row(f"16 floats, {transport}, tritonclient, p50, us", "<= 0.6", ".0f", client(f"{transport} p50"))
for key, transport in TRANSPORTS.items():
    row(f"16 floats, {transport}, native load, p50, us", "<= 0.33", ".0f", load(f"{key}-1", p50_us))
for key, transport in TRANSPORTS.items():
    for flight in (1, 32, 256):
        row(f"16 floats, {transport}, {flight} in flight, requests/s", ">= 3", ".0f", load(f"{key}-{flight}", requests))
for key in ("http", "grpc"):
    row(f"16 MB, {TRANSPORTS[key]}, 2 in flight, requests/s", ">= 1.5", ".1f", load(f"{key}-large", requests))
for transport in ("HTTP", "gRPC"):
    for behaviour, what, to_reach in (
        ("timeout_behind_another", "timeout of 200 ms while another request has the worker for 1 s: answered after, ms", "<= 210 ms"),
        ("timeout_of_its_own", "timeout of 200 ms of a request that runs for 1 s: answered after, ms", "<= 210 ms"),
        ("client_gone", "client gone: its work of 2 s ends after, ms", "<= 10 ms"),
    ):
        row(f"{transport}, {what}", to_reach, ".1f", client(f"{transport} {behaviour}"), rounds=1)
row("malformed JSON: status", "400", "d", client("malformed"), rounds=1)
