"""saxpy on the GPU with torch, as each of the servers here runs it. A request is the document of our own REST API, so that one
load generator measures them all."""

import orjson
import torch

KERNEL = "linalg/saxpy"


def prepare():
    """Opens the GPU, so that no request waits for that."""
    run([{"a": 1.0, "x": [0.0], "y": [0.0]}])


def run(inputs):
    """a * x + y of each input, whose arrays have the same length, in one transfer each way."""
    a = torch.tensor([[each["a"]] for each in inputs], dtype=torch.float32).cuda()
    x = torch.tensor([each["x"] for each in inputs], dtype=torch.float32).cuda()
    y = torch.tensor([each["y"] for each in inputs], dtype=torch.float32).cuda()
    return (a * x + y).cpu().tolist()


def read(body):
    return orjson.loads(body)["input"]


def write(result):
    return orjson.dumps({"kernel_id": KERNEL, "output": {"result": result}})
