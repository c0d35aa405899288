#!/usr/bin/env python3
"""Measures a server of the Open Inference Protocol with Triton's own client, and what it does with timeouts and with
clients that leave. The server has the models `identity` and `sleep`, and one worker for the second.

    client.py HTTP_ADDRESS GRPC_ADDRESS FILE [behaviour]

FILE gets the figures as JSON: latencies with tritonclient, and with `behaviour` the longest of several tries."""

import http.client
import json
import statistics
import sys
import threading
import time

import numpy as np
import tritonclient.grpc
import tritonclient.http

HTTP, GRPC, FILE = sys.argv[1:4]
REQUESTS, WARM_UP = 2000, 200
TRIES = 5
# Long enough for a request to arrive and to start.
STARTED = 0.2


def input_of(client, name, array, datatype):
    tensor = client.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def p50_us(client, address):
    """The median of requests one after another."""
    server = client.InferenceServerClient(address)
    x = np.arange(16, dtype=np.float32)
    inputs = input_of(client, "x", x, "FP32")
    times = []
    for _ in range(WARM_UP + REQUESTS):
        began = time.perf_counter()
        result = server.infer("identity", inputs)
        times.append(time.perf_counter() - began)
    if result.as_numpy("x").tobytes() != x.tobytes():
        raise SystemExit(f"{address} does not return its input")
    server.close()
    return statistics.median(times[WARM_UP:]) * 1e6


class HttpSleep:
    """A request over a connection of its own."""

    def __init__(self, millis, timeout_us=None):
        body = {"inputs": [{"name": "millis", "datatype": "UINT64", "shape": [1], "data": [millis]}]}
        if timeout_us is not None:
            body["parameters"] = {"timeout": timeout_us}
        self.connection = http.client.HTTPConnection(HTTP)
        self.connection.request("POST", "/v2/models/sleep/infer", json.dumps(body))

    def wait(self):
        """Whether it has succeeded."""
        response = self.connection.getresponse()
        response.read()
        return response.status == 200

    def leave(self):
        self.connection.close()


class GrpcSleep:
    client = tritonclient.grpc.InferenceServerClient(GRPC)

    def __init__(self, millis, timeout_us=None):
        inputs = input_of(tritonclient.grpc, "millis", np.array([millis], dtype=np.uint64), "UINT64")
        self.done, self.error = threading.Event(), None
        self.call = self.client.async_infer("sleep", inputs, self.finish, timeout=timeout_us)

    def finish(self, result, error):
        self.error = error
        self.done.set()

    def wait(self):
        self.done.wait()
        return self.error is None

    def leave(self):
        self.call.cancel()


def timeout_behind_another(sleep):
    """How long a request with a timeout of 200 ms waits while another has the worker for a second."""
    other = sleep(1000)
    time.sleep(STARTED)
    began = time.perf_counter()
    sleep(1, timeout_us=200_000).wait()
    took = time.perf_counter() - began
    return check(other.wait(), "the request that has the worker failed", took)


def timeout_of_its_own(sleep):
    """How long a request takes that would run for a second and has a timeout of 200 ms."""
    began = time.perf_counter()
    sleep(1000, timeout_us=200_000).wait()
    return time.perf_counter() - began


def client_gone(sleep):
    """How long a worker runs for a client that has left: when the next request that needs it is answered."""
    leaver = sleep(2000)
    time.sleep(STARTED)
    leaver.leave()
    began = time.perf_counter()
    succeeded = sleep(1).wait()
    return check(succeeded, "the request after one whose client left failed", time.perf_counter() - began)


def check(holds, otherwise, took):
    if not holds:
        raise SystemExit(otherwise)
    return took


def malformed():
    connection = http.client.HTTPConnection(HTTP)
    connection.request("POST", "/v2/models/identity/infer", '{"inputs": [{')
    return connection.getresponse().status


figures = {}
for name, client, address in (("HTTP", tritonclient.http, HTTP), ("gRPC", tritonclient.grpc, GRPC)):
    figures[f"{name} p50"] = p50_us(client, address)
if sys.argv[4:] == ["behaviour"]:
    for name, sleep in (("HTTP", HttpSleep), ("gRPC", GrpcSleep)):
        # The first request starts what is started once.
        sleep(1).wait()
        for behaviour in (timeout_behind_another, timeout_of_its_own, client_gone):
            figures[f"{name} {behaviour.__name__}"] = 1e3 * max(behaviour(sleep) for _ in range(TRIES))
    figures["malformed"] = malformed()
with open(FILE, "w") as file:
    json.dump(figures, file)
