#!/usr/bin/env python3
"""Calls a running server with tensors, as clients of model servers write and read them.

    python -m venv env && env/bin/pip install -r tests/clients/requirements-tensors.txt
    cargo run --features server -- serve
    env/bin/python tests/clients/tensors.py [http://127.0.0.1:8080]

`tests/clients/tensors.sh` does all of it.

Bodies are built and answers read by `tritonclient`; only the path is not its own. Ends with a status other than 0 at
the first answer that is not what numpy, or the same request as JSON, says.
"""

import json
import math
import sys
import urllib.error
import urllib.request

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

DATATYPES = {"uint8": "UINT8", "uint32": "UINT32", "uint64": "UINT64", "float32": "FP32", "float64": "FP64"}
BASE = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def post(path, body, headers):
    """Status, headers and body of the answer."""
    request = urllib.request.Request(BASE + path, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def tensor(name, array, binary=True):
    array = np.asarray(array)
    if array.dtype == bool:
        datatype = "BOOL"
    else:
        datatype = DATATYPES[array.dtype.name]
    infer_input = InferInput(name, list(array.shape), datatype)
    infer_input.set_data_from_numpy(array, binary_data=binary)
    return infer_input


def infer(kernel, inputs, **options):
    """Runs a kernel; the answer as tritonclient reads it."""
    body, head_length = InferenceServerClient.generate_request_body(inputs, **options)
    if head_length is None:
        head_length = len(body)
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head_length)}
    status, headers, body = post(f"/kernels/{kernel}/execute", body, headers)
    if status != 200:
        raise SystemExit(f"{kernel}: status {status}: {body!r}")
    assert headers["content-type"] == "application/octet-stream", headers["content-type"]
    head_length = int(headers["inference-header-content-length"])
    return InferenceServerClient.parse_response_body(body, header_length=head_length)


def as_json(kernel, document):
    body = json.dumps(document).encode()
    status, _, body = post(f"/kernels/{kernel}/execute", body, {"content-type": "application/json"})
    if status != 200:
        raise SystemExit(f"{kernel}: status {status}: {body!r}")
    return json.loads(body)["output"]


def same(what, left, right):
    """The same bits, and the same type and shape."""
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
        raise SystemExit(f"{what} differs: {left.dtype} {left.shape} and {right.dtype} {right.shape}\n{left}\n{right}")
    print(f"ok  {what}: {left.dtype} {left.shape}")


def saxpy():
    random = np.random.default_rng(1)
    for length in (1, 1000, 1_000_000):
        x, y = (random.random(length, dtype=np.float32) for _ in range(2))
        # Exact: a power of two is multiplied without rounding, so that the sum is rounded once here too.
        a = np.array([2.0], dtype=np.float32)
        result = infer("linalg/saxpy", [tensor("a", a), tensor("x", x), tensor("y", y)], request_id="mine")
        same(f"saxpy of {length}", result.as_numpy("y"), 2 * x + y)
        assert result.get_response()["id"] == "mine"
    # Data in the JSON head, alone and beside tensors.
    x = np.array([1.5, 2.5], dtype=np.float32)
    for binary in (True, False):
        inputs = [tensor("a", a, binary=False), tensor("x", x, binary), tensor("y", x, binary)]
        same("saxpy with data in the head", infer("linalg/saxpy", inputs).as_numpy("y"), 3 * x)


def pricing():
    spot = np.linspace(50, 150, 1001)
    kind = np.frombuffer(b"put", dtype=np.uint8)
    values = {"strike": 100.0, "rate": 0.05, "volatility": 0.2, "time": 0.5}
    inputs = [tensor("spot", spot), tensor("kind", kind)]
    inputs += [tensor(name, np.array([value])) for name, value in values.items()]
    result = infer("risk/option-pricing", inputs, parameters={"timeout_ms": 5000, "tenant": "acme"})
    expected = as_json("risk/option-pricing", {"spot": spot.tolist(), "kind": "put", **values})
    for name, greeks in expected.items():
        same(f"option pricing, {name}", result.as_numpy(name), np.array(greeks))
    # A closed form, to see that both are not wrong alike.
    d1 = (math.log(50 / 100) + (0.05 + 0.02) * 0.5) / (0.2 * math.sqrt(0.5))
    d2 = d1 - 0.2 * math.sqrt(0.5)
    normal = lambda x: math.erfc(-x / math.sqrt(2)) / 2
    price = 100 * math.exp(-0.025) * normal(-d2) - 50 * normal(-d1)
    if abs(result.as_numpy("price")[0] - price) > 1e-9:
        raise SystemExit(f"the price is {result.as_numpy('price')[0]} where it is to be {price}")
    # Some of the outputs, in the order asked for.
    result = infer("risk/option-pricing", inputs, outputs=[InferRequestedOutput("rho"), InferRequestedOutput("price")])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["rho", "price"]
    same("option pricing, rho alone", result.as_numpy("rho"), np.array(expected["rho"]))


def betweenness():
    # The path 0 - 1 - 2 - 3: of three pairs that do not hold the node, two pass through each inner one.
    offsets = np.array([0, 1, 3, 5, 6], dtype=np.uint32)
    columns = np.array([1, 0, 2, 1, 3, 2], dtype=np.uint32)
    inputs = [tensor("row_offsets", offsets), tensor("column_indices", columns), tensor("normalized", np.array([False]))]
    result = infer("graph/betweenness-centrality", inputs)
    same("betweenness of a path", result.as_numpy("scores"), np.array([0.0, 2.0, 2.0, 0.0]))
    edges = np.array([[0, 1], [1, 2], [2, 3]], dtype=np.uint32)
    inputs = [tensor("num_nodes", np.array([4], dtype=np.uint64)), tensor("edges", edges)]
    expected = as_json("graph/betweenness-centrality", {"num_nodes": 4, "edges": edges.tolist()})
    same("betweenness of edges", infer("graph/betweenness-centrality", inputs).as_numpy("scores"),
         np.array(expected["scores"]))


def refusals():
    body, head_length = InferenceServerClient.generate_request_body([tensor("a", np.zeros(1, dtype=np.float32))])
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head_length)}
    for name, sent, field in (
        ("a missing tensor", body, "x"),
        ("a short body", body[:-1], "inputs[0].parameters.binary_data_size"),
        ("a surplus", body + b"!", "inputs"),
    ):
        status, answer, text = post("/kernels/linalg/saxpy/execute", sent, headers)
        problem = json.loads(text)
        if (status, answer["content-type"], problem["field"]) != (400, "application/problem+json", field):
            raise SystemExit(f"{name}: {status} {problem}")
        print(f"ok  {name}: {problem['detail']}")


if __name__ == "__main__":
    saxpy()
    pricing()
    betweenness()
    refusals()
    print("all as expected")
