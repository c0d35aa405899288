#!/usr/bin/env python3
"""Uses a running server through clients of the Open Inference Protocol, as they are: kernels are models.

    python -m venv env && env/bin/pip install -r tests/clients/requirements-inference-newest.txt
    cargo run --features server -- serve --inference-shared-memory --inference-model-control
    env/bin/python tests/clients/inference.py 127.0.0.1:8080 127.0.0.1:50051 tritonclient
    env/bin/pip install -r tests/clients/requirements-inference-kserve.txt
    env/bin/python tests/clients/inference.py 127.0.0.1:8080 127.0.0.1:50051 kserve

`tests/clients/inference.sh` does all of it. Ends with a status other than 0 at the first answer that is not what numpy
says.
"""

import asyncio
import queue
import sys

import numpy as np

REST, GRPC, CLIENT = sys.argv[1:4]
MODEL = "linalg.saxpy"
X = np.arange(1000, dtype=np.float32)
Y = np.ones(1000, dtype=np.float32)
# Exact: a power of two is multiplied without rounding, so that the sum is rounded once here too.
EXPECTED = 2 * X + Y


def same(what, found, expected=EXPECTED):
    """The same bits, type and shape."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype != expected.dtype or found.shape != expected.shape or found.tobytes() != expected.tobytes():
        raise SystemExit(f"{what} differs: {found.dtype} {found.shape} and {expected.dtype} {expected.shape}")
    print(f"ok  {what}")


def check(what, holds):
    if not holds:
        raise SystemExit(f"{what} does not hold")
    print(f"ok  {what}")


def saxpy(client, binary=None):
    """The inputs of the model; `binary` says how they are sent, for clients that have a choice."""
    inputs = []
    for name, array in (("a", np.array([2.0], dtype=np.float32)), ("x", X), ("y", Y)):
        tensor = client.InferInput(name, list(array.shape), "FP32")
        tensor.set_data_from_numpy(array, **({} if binary is None else {"binary_data": binary}))
        inputs.append(tensor)
    return inputs


def text_for_a_number(client):
    """Inputs that are invalid."""
    text = client.InferInput("a", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"text"], dtype=object))
    return [text]


def fails(what, call, part):
    from tritonclient.utils import InferenceServerException

    try:
        call()
    except InferenceServerException as error:
        check(f"{what} is an error of the server: {error.message()[:80]}", part in error.message())
    else:
        raise SystemExit(f"{what} has not failed")


def shared_memory(protocol, package, client, names):
    """Inputs and the output in shared memory, as tritonclient's examples have it; `names` are those of a status."""
    import os

    import tritonclient.utils.shared_memory as shm

    client.unregister_system_shared_memory()
    size = X.nbytes
    inputs_key, output_key = (f"/tower-kernels-{os.getpid()}-{protocol}-{part}" for part in ("inputs", "output"))
    inputs_handle = shm.create_shared_memory_region("inputs", inputs_key, 2 * size)
    output_handle = shm.create_shared_memory_region("output", output_key, size)
    try:
        shm.set_shared_memory_region(inputs_handle, [X, Y])
        client.register_system_shared_memory("inputs", inputs_key, 2 * size)
        client.register_system_shared_memory("output", output_key, size)
        check(f"{protocol}: regions", sorted(names(client.get_system_shared_memory_status())) == ["inputs", "output"])
        check(f"{protocol}: a region", names(client.get_system_shared_memory_status("inputs")) == ["inputs"])
        inputs = saxpy(package)
        inputs[1].set_shared_memory("inputs", size)
        inputs[2].set_shared_memory("inputs", size, offset=size)
        same(f"{protocol}: inputs in shared memory", client.infer(MODEL, inputs).as_numpy("y"))
        output = package.InferRequestedOutput("y")
        output.set_shared_memory("output", size)
        result = client.infer(MODEL, inputs, outputs=[output])
        described = result.get_output("y")
        shape = list(described["shape"] if protocol == "http" else described.shape)
        found = shm.get_contents_as_numpy(output_handle, np.float32, shape)
        same(f"{protocol}: the output in shared memory", found)
        output.set_shared_memory("output", size - 4)
        fails(f"{protocol}: a small region", lambda: client.infer(MODEL, inputs, outputs=[output]), "byte_size")
        fails(f"{protocol}: a region twice", lambda: client.register_system_shared_memory("inputs", inputs_key, size), "already")
        fails(f"{protocol}: a long region", lambda: client.register_system_shared_memory("long", inputs_key, 3 * size), "byte_size")
        fails(f"{protocol}: another file", lambda: client.register_system_shared_memory("a", "/../../etc/passwd", 1), "key")
        client.unregister_system_shared_memory("inputs")
        fails(f"{protocol}: a removed region", lambda: client.infer(MODEL, inputs), "no region")
        fails(f"{protocol}: the status of one", lambda: client.get_system_shared_memory_status("inputs"), "no region")
        client.unregister_system_shared_memory()
        check(f"{protocol}: no regions", not names(client.get_system_shared_memory_status()))
    finally:
        shm.destroy_shared_memory_region(inputs_handle)
        shm.destroy_shared_memory_region(output_handle)


def model_control(protocol, client, infer):
    """A model that is unloaded and loaded again."""
    client.unload_model(MODEL)
    check(f"{protocol}: an unloaded model is not ready", not client.is_model_ready(MODEL))
    fails(f"{protocol}: an unloaded model", infer, "unloaded")
    client.load_model(MODEL)
    check(f"{protocol}: a loaded model is ready", client.is_model_ready(MODEL))
    infer()
    fails(f"{protocol}: a configuration", lambda: client.load_model(MODEL, config="{}"), "configuration")
    fails(f"{protocol}: an unknown model to load", lambda: client.load_model("unknown"), "unknown")


def triton_http():
    import tritonclient.http as http

    client = http.InferenceServerClient(REST)
    check("http: the server is live and ready", client.is_server_live() and client.is_server_ready())
    check("http: the model is ready", client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1"))
    check("http: an unknown model is not", not client.is_model_ready("unknown"))
    check("http: metadata", client.get_server_metadata()["name"] == "tower-kernels")
    check("http: tensors", client.get_model_metadata(MODEL)["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1]}])
    check("http: configuration", client.get_model_config(MODEL)["max_batch_size"] == 0)
    check("http: index", {"linalg/saxpy"} <= {model["name"] for model in client.get_model_repository_index()})
    for binary in (True, False):
        for outputs in (None, [http.InferRequestedOutput("y", binary_data=binary)]):
            result = client.infer(MODEL, saxpy(http, binary), request_id="mine", outputs=outputs)
            same(f"http: binary {binary}, outputs {outputs is not None}", result.as_numpy("y"))
            check("http: the id", result.get_response()["id"] == "mine")
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            MODEL, saxpy(http, True), request_compression_algorithm=algorithm, response_compression_algorithm="gzip",
            outputs=[http.InferRequestedOutput("y", binary_data=False)],
        )
        same(f"http: compressed with {algorithm}", result.as_numpy("y"))
    same("http: async", client.async_infer(MODEL, saxpy(http)).get_result().as_numpy("y"))
    same("http: scheduling", client.infer(MODEL, saxpy(http), priority=1, timeout=5_000_000).as_numpy("y"))
    fails("http: an unknown model", lambda: client.infer("unknown", saxpy(http)), "unknown")
    fails("http: a missing input", lambda: client.infer(MODEL, saxpy(http)[:1]), "x")
    fails("http: a text for a number", lambda: client.infer(MODEL, text_for_a_number(http)), "a")
    fails("http: a sequence", lambda: client.infer(MODEL, saxpy(http), sequence_id=7), "sequence")
    shared_memory("http", http, client, lambda status: [region["name"] for region in status])
    model_control("http", client, lambda: client.infer(MODEL, saxpy(http)))
    fails("http: CUDA shared memory", lambda: client.register_cuda_shared_memory("a", b"aGFuZGxl", 0, 16), "CUDA")
    statistics = client.get_inference_statistics(MODEL)["model_stats"][0]
    check("http: statistics", statistics["inference_stats"]["success"]["count"] >= 8 and statistics["inference_count"] >= 8)
    pricing = []
    for name, value in (("spot", 100.0), ("strike", 90.0), ("rate", 0.05), ("volatility", 0.2), ("time", 1.0)):
        tensor = http.InferInput(name, [1], "FP64")
        tensor.set_data_from_numpy(np.array([value]))
        pricing.append(tensor)
    prices = []
    for binary in (True, False):
        kind = http.InferInput("kind", [1], "BYTES")
        kind.set_data_from_numpy(np.array([b"put"], dtype=object), binary_data=binary)
        prices.append(client.infer("risk/option-pricing", [*pricing, kind]).as_numpy("price"))
    same("http: a text", prices[0], prices[1])


def triton_grpc():
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(GRPC)
    check("grpc: the server is live and ready", client.is_server_live() and client.is_server_ready())
    check("grpc: the model is ready", client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1"))
    check("grpc: metadata", client.get_server_metadata().name == "tower-kernels")
    check("grpc: tensors", client.get_model_metadata(MODEL, as_json=True)["outputs"][0]["name"] == "y")
    check("grpc: configuration", client.get_model_config(MODEL).config.backend == "tower-kernels")
    check("grpc: index", "linalg/saxpy" in {model.name for model in client.get_model_repository_index().models})
    result = client.infer(MODEL, saxpy(grpc), request_id="mine", outputs=[grpc.InferRequestedOutput("y")])
    same("grpc: outputs", result.as_numpy("y"))
    check("grpc: the id", result.get_response().id == "mine")
    same("grpc: scheduling", client.infer(MODEL, saxpy(grpc), priority=1, timeout=5_000_000).as_numpy("y"))
    done = queue.Queue()
    client.async_infer(MODEL, saxpy(grpc), callback=lambda result, error: done.put((result, error)))
    result, error = done.get(timeout=30)
    same("grpc: async", result.as_numpy("y") if error is None else error)
    client.start_stream(callback=lambda result, error: done.put((result, error)))
    for number in range(10):
        client.async_stream_infer(MODEL, saxpy(grpc), request_id=str(number), enable_empty_final_response=number % 2 == 0)
    for number in range(10):
        result, error = done.get(timeout=30)
        same(f"grpc: stream, {number}", result.as_numpy("y") if error is None else error)
        check("grpc: the order", result.get_response().id == str(number))
    client.async_stream_infer("unknown", saxpy(grpc))
    check("grpc: an error of a stream", "unknown" in str(done.get(timeout=30)[1]))
    client.stop_stream()
    fails("grpc: an unknown model", lambda: client.infer("unknown", saxpy(grpc)), "unknown")
    fails("grpc: a missing input", lambda: client.infer(MODEL, saxpy(grpc)[:1]), "x")
    shared_memory("grpc", grpc, client, lambda status: list(status.regions))
    model_control("grpc", client, lambda: client.infer(MODEL, saxpy(grpc)))
    fails("grpc: CUDA shared memory", lambda: client.register_cuda_shared_memory("a", b"aGFuZGxl", 0, 16), "CUDA")
    statistics = client.get_inference_statistics(MODEL).model_stats[0]
    check("grpc: statistics", statistics.inference_stats.success.count >= 13)


async def triton_aio():
    import tritonclient.grpc.aio as grpc
    import tritonclient.http.aio as http

    async with http.InferenceServerClient(REST) as client:
        check("http.aio: ready", await client.is_server_ready() and await client.is_model_ready(MODEL))
        results = await asyncio.gather(*(client.infer(MODEL, saxpy(http)) for _ in range(20)))
        for result in results:
            same("http.aio", result.as_numpy("y"))
        outputs = [http.InferRequestedOutput("y", binary_data=False)]
        same("http.aio: JSON", (await client.infer(MODEL, saxpy(http), outputs=outputs)).as_numpy("y"))
    async with grpc.InferenceServerClient(GRPC) as client:
        check("grpc.aio: ready", await client.is_server_ready() and await client.is_model_ready(MODEL))
        results = await asyncio.gather(*(client.infer(MODEL, saxpy(grpc)) for _ in range(20)))
        for result in results:
            same("grpc.aio", result.as_numpy("y"))

        async def requests():
            for number in range(3):
                yield {"model_name": MODEL, "inputs": saxpy(grpc), "request_id": str(number)}

        async for result, error in client.stream_infer(requests()):
            same("grpc.aio: stream", result.as_numpy("y") if error is None else error)


async def kserve():
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
    from kserve.inference_client import RESTConfig

    def request(binary):
        inputs = []
        for name, array in (("a", np.array([2.0], dtype=np.float32)), ("x", X), ("y", Y)):
            tensor = InferInput(name, list(array.shape), "FP32")
            tensor.set_data_from_numpy(array, binary_data=binary)
            inputs.append(tensor)
        return InferRequest(MODEL, inputs, request_id="mine")

    url = f"http://{REST}"
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    check("kserve, REST: the server is live", await rest.is_server_live(url))
    check("kserve, REST: the server is ready", await rest.is_server_ready(url))
    check("kserve, REST: the model is ready", await rest.is_model_ready(url, MODEL))
    for binary in (True, False):
        response = await rest.infer(url, request(binary), model_name=MODEL)
        same(f"kserve, REST: binary {binary}", response.outputs[0].as_numpy())
        check("kserve, REST: the id", response.id == "mine")
    grpc = InferenceGRPCClient(GRPC)
    check("kserve, gRPC: the server is live", await grpc.is_server_live())
    check("kserve, gRPC: the server is ready", await grpc.is_server_ready())
    check("kserve, gRPC: the model is ready", await grpc.is_model_ready(MODEL))
    for binary in (True, False):
        response = await grpc.infer(request(binary))
        same(f"kserve, gRPC: raw {binary}", response.outputs[0].as_numpy())
    await grpc.close()


if __name__ == "__main__":
    if CLIENT == "kserve":
        asyncio.run(kserve())
    else:
        triton_http()
        triton_grpc()
        asyncio.run(triton_aio())
    print("all as expected")
