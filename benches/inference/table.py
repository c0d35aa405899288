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


def row(what, to_reach, unit, figure):
    """A row of a figure, which `figure(server, round)` returns."""
    ours, triton = ([figure(server, round) for round in range(1, ROUNDS + 1)] for server in ("ours", "triton"))
    ratio = statistics.median(our / its for our, its in zip(ours, triton))
    print(f"| {what} | {statistics.median(ours):{unit}} | {statistics.median(triton):{unit}} | {ratio:.2f} | {to_reach} |")


def row_once(what, to_reach, unit, name):
    """A row of a figure of the first round alone, which is no ratio."""
    ours, triton = (client(name)(server, 1) for server in ("ours", "triton"))
    print(f"| {what} | {ours:{unit}} | {triton:{unit}} | | {to_reach} |")


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
        ("timeout_behind_another", "timeout of 200 ms behind a request of 1 s: answered after, ms", "<= 210"),
        ("timeout_of_its_own", "timeout of 200 ms of a request of 1 s: answered after, ms", "<= 210"),
        ("client_gone", "client gone: its work of 2 s ends after, ms", "<= 10"),
    ):
        row_once(f"{transport}, {what}", to_reach, ".1f", f"{transport} {behaviour}")
row_once("HTTP, malformed JSON: status", "400", "d", "malformed")
