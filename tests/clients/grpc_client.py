#!/usr/bin/env python3
"""A gRPC client that is not ours, against a server of ours: everything that the service offers, really called.

    pip install --target DIR -r tests/clients/requirements-newest.txt
    PYTHONPATH=DIR python3 tests/clients/grpc_client.py target/debug/examples/grpc_server '{address}'

The arguments are the server's command; `{address}` becomes a free address. All that is known of the messages comes from
the server's reflection, by grpc.reflection.v1 and by v1alpha. Ends with 1 at the first answer that is not as it should be.
"""

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import google.protobuf
import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2 as reflection
from grpc_status import rpc_status

KERNEL, HEALTH = "tower_kernels.v1.Kernel", "grpc.health.v1.Health"
# Longer than any answer takes; a server that hangs is a failure and not a hang.
SOON = 20


def check(holds, *what):
    if not holds:
        raise AssertionError(" ".join(map(str, what)))


class Api:
    """The services of a server, by what its reflection says of them and nothing else."""

    def __init__(self, channel, version):
        self.channel = channel
        # The two versions of the protocol differ in the name of their service and in nothing on the wire.
        self.ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        self.pool = descriptor_pool.DescriptorPool()
        self.known = set()
        (listed,) = self.ask(iter([reflection.ServerReflectionRequest(list_services="")]), timeout=SOON)
        self.services = {service.name for service in listed.list_services_response.service}
        for service in (KERNEL, HEALTH):
            check(service in self.services, service, "is not among", self.services)
            self.load(reflection.ServerReflectionRequest(file_containing_symbol=service))
        self.method = {}
        for service in (KERNEL, HEALTH):
            for method in self.pool.FindServiceByName(service).methods:
                self.method[method.name] = self.callable(service, method)

    def load(self, request):
        (answer,) = self.ask(iter([request]), timeout=SOON)
        check(answer.HasField("file_descriptor_response"), "no file for", request, "but", answer)
        files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        for file in files:
            if file.name in self.known:
                continue
            self.known.add(file.name)
            for needed in file.dependency:
                if needed not in self.known:
                    self.load(reflection.ServerReflectionRequest(file_by_filename=needed))
            self.pool.Add(file) if hasattr(self.pool, "Add") else self.pool.AddSerializedFile(file.SerializeToString())

    def message(self, descriptor):
        if hasattr(message_factory, "GetMessageClass"):
            return message_factory.GetMessageClass(descriptor)
        return message_factory.MessageFactory(self.pool).GetPrototype(descriptor)

    def new(self, name, /, **fields):
        return self.message(self.pool.FindMessageTypeByName(name))(**fields)

    def callable(self, service, method):
        kind = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }[streams(method)]
        return kind(
            f"/{service}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.message(method.output_type).FromString,
        )

    def execute(self, kernel_id, document, **options):
        request = self.new("tower_kernels.v1.ExecuteRequest", kernel_id=kernel_id, input=json.dumps(document))
        answer, call = self.method["Execute"].with_call(request, **{"timeout": SOON, **options})
        return json.loads(answer.output), answer, call

    def refusal(self, kernel_id, document, **options):
        """The error that an execution ends with, and its details by type."""
        try:
            output, _, _ = self.execute(kernel_id, document, **options)
        except grpc.RpcError as error:
            return error, details(rpc_status.from_call(error))
        raise AssertionError(f"{kernel_id} was answered: {output}")


def streams(method):
    """Whether the client and the server stream; old libraries do not say it of a method but in its file."""
    file = FileDescriptorProto()
    method.containing_service.file.CopyToProto(file)
    service = next(s for s in file.service if s.name == method.containing_service.name)
    proto = next(m for m in service.method if m.name == method.name)
    return proto.client_streaming, proto.server_streaming


def details(status):
    found = {}
    for packed in status.details if status else ():
        name = packed.TypeName().rpartition(".")[2]
        message = found[name] = getattr(error_details_pb2, name)()
        check(packed.Unpack(message), "not a", name, packed)
    return found


CYCLE = {"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "normalized": True}
SAXPY = {"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}


def calls_are_answered(api):
    output, answer, call = api.execute("graph/betweenness-centrality", CYCLE, metadata=(("x-request-id", "job-7"),))
    # networkx.betweenness_centrality(networkx.cycle_graph(4))
    check(all(abs(score - 1 / 6) < 1e-9 for score in output["scores"]) and len(output["scores"]) == 4, output)
    check((answer.request_id, answer.kernel_id) == ("job-7", "graph/betweenness-centrality"), answer)
    check(answer.execution.backend in ("CPU", "CUDA") and answer.execution.batch_size >= 1, answer)


def tensors_are_answered(api):
    def tensor(name, values, shape):
        dtype = api.pool.FindEnumTypeByName("tower_kernels.v1.Dtype").values_by_name["DTYPE_FLOAT32"].number
        data = struct.pack(f"<{len(values)}f", *values)
        return api.new("tower_kernels.v1.Tensor", name=name, dtype=dtype, shape=shape, data=data)

    inputs = [tensor("a", [2.0], []), tensor("x", [1.0, 2.0, 3.0], [3]), tensor("y", [10.0, 20.0, 30.0], [3])]
    request = api.new("tower_kernels.v1.ExecuteTensorsRequest", kernel_id="linalg/saxpy", inputs=inputs)
    answer = api.method["ExecuteTensors"](request, timeout=SOON)
    (y,) = answer.outputs
    check((y.name, list(y.shape)) == ("y", [3]) and struct.unpack("<3f", y.data) == (12.0, 24.0, 36.0), answer)


def streams_answer_each_request(api):
    def request(tag, kernel_id, document):
        execute = api.new("tower_kernels.v1.ExecuteRequest", kernel_id=kernel_id, input=json.dumps(document))
        return api.new("tower_kernels.v1.ExecuteStreamRequest", tag=tag, json=execute)

    requests = [request(tag, "linalg/saxpy", {**SAXPY, "a": float(tag)}) for tag in range(50)]
    requests.append(request(50, "no/such", {}))
    answers = {answer.tag: answer for answer in api.method["ExecuteStream"](iter(requests), timeout=SOON)}
    check(len(answers) == 51, "tags:", sorted(answers))
    for tag in range(50):
        output = json.loads(answers[tag].json.output)
        check(output == {"y": [10.0 + tag, 20.0 + 2 * tag]}, tag, output)
    error = answers[50].error
    check(answers[50].WhichOneof("outcome") == "error" and error.code == grpc.StatusCode.NOT_FOUND.value[0], error)
    check(details(error)["ErrorInfo"].reason == "not_found", error)


def kernels_are_listed_and_described(api):
    ids, token = [], ""
    while True:
        request = api.new("tower_kernels.v1.ListKernelsRequest", page_size=2, page_token=token)
        page = api.method["ListKernels"](request, timeout=SOON)
        ids += [kernel.id for kernel in page.kernels]
        token = page.next_page_token
        if not token:
            break
    check(ids == sorted(set(ids)) and len(ids) == page.total_size and "linalg/saxpy" in ids, ids)
    request = api.new("tower_kernels.v1.GetKernelRequest", kernel_id="risk/option-pricing")
    kernel = api.method["GetKernel"](request, timeout=SOON)
    check("spot" in json.loads(kernel.input_schema)["properties"], kernel)
    check(json.loads(kernel.output_schema)["type"] == "object" and "CPU" in kernel.backends, kernel)


def operands_are_put_once_and_queried(api):
    def put(name, chunks):
        start = api.new("tower_kernels.v1.PutOperandStart", name=name, type="graph", json=b"")
        yield api.new("tower_kernels.v1.PutOperandRequest", start=start)
        for chunk in chunks:
            yield api.new("tower_kernels.v1.PutOperandRequest", chunk=chunk)

    document = json.dumps({key: value for key, value in CYCLE.items() if key != "normalized"}).encode()
    pieces = [document[at : at + 7] for at in range(0, len(document), 7)]
    *progress, last = api.method["PutOperand"](put("cycle", pieces), timeout=SOON)
    check(all(response.WhichOneof("outcome") == "progress" for response in progress), progress)
    stored = last.operand
    check((stored.name, stored.type, json.loads(stored.summary)["nodes"]) == ("cycle", "graph", 4), last)
    for _ in range(10):
        output, _, _ = api.execute("graph/betweenness-centrality", {"graph": {"operand": "cycle"}})
        check(all(abs(score - 1 / 6) < 1e-9 for score in output["scores"]), output)
    found = api.method["GetOperand"](api.new("tower_kernels.v1.GetOperandRequest", operand="cycle"), timeout=SOON)
    check((found.uses, found.etag) == (10, stored.etag), found)
    page = api.method["ListOperands"](api.new("tower_kernels.v1.ListOperandsRequest"), timeout=SOON)
    check([operand.name for operand in page.operands] == ["cycle"] and page.total_size == 1, page)
    delete = api.new("tower_kernels.v1.DeleteOperandRequest", operand="cycle", if_match=[stored.etag])
    check(api.method["DeleteOperand"](delete, timeout=SOON).version == stored.version, stored)
    try:
        list(api.method["PutOperand"](put("cycle", pieces[:-1]), timeout=SOON))
        raise AssertionError("half of a document was stored")
    except grpc.RpcError as error:
        check(error.code() is grpc.StatusCode.INVALID_ARGUMENT, error)


def refusals_say_what_is_wrong(api):
    for kernel_id, document, code, reason in [
        ("no/such", {}, "NOT_FOUND", "not_found"),
        ("orderbook/matching", {}, "UNIMPLEMENTED", "unsupported"),
        ("linalg/saxpy", {**SAXPY, "y": [1.0]}, "INVALID_ARGUMENT", "invalid_argument"),
    ]:
        error, found = api.refusal(kernel_id, document, metadata=(("x-request-id", "job-8"),))
        check(error.code().name == code and found["ErrorInfo"].reason == reason, error, found)
        check(found["RequestInfo"].request_id == "job-8", found)
    (violation,) = found["BadRequest"].field_violations
    check(violation.field == "y" and violation.description, found)
    error, _ = api.refusal("orderbook/matching", {})
    check("ring" in error.details(), error.details())


def deadlines_are_the_servers(api):
    # Takes seconds on anything, and the server says so before the client's own timer does, unless the machine is slow.
    nodes = 20_000
    cycle = {"num_nodes": nodes, "edges": [[node, (node + 1) % nodes] for node in range(nodes)]}
    for timeout in (0.2, 0.4, 0.8):
        begun = time.monotonic()
        error, found = api.refusal("graph/betweenness-centrality", cycle, timeout=timeout)
        check(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error)
        check(time.monotonic() - begun < timeout + 5, "it took", time.monotonic() - begun)
        if "ErrorInfo" in found:
            check(found["ErrorInfo"].reason == "deadline_exceeded", found)
            return
    raise AssertionError(f"the server never said it itself: {error}")


def gzip_is_taken_where_it_is_on(api):
    """Off by default: a compressed request can take a thousand times its size."""
    large = {"a": 1.0, "x": [0.0] * 20_000, "y": [1.0] * 20_000}
    if "--grpc-compressed-requests" not in sys.argv:
        try:
            api.execute("linalg/saxpy", large, compression=grpc.Compression.Gzip)
            check(False, "a compressed request was taken")
        except grpc.RpcError as error:
            check(error.code() is grpc.StatusCode.UNIMPLEMENTED, error)
        return
    output, _, call = api.execute("linalg/saxpy", large, compression=grpc.Compression.Gzip)
    check(output == {"y": large["y"]}, "a compressed request was misread")
    check(call.code() is grpc.StatusCode.OK, call.code())


def health_is_served(api):
    for service, name in [("", "SERVING"), (KERNEL, "SERVING")]:
        answer = api.method["Check"](api.new("grpc.health.v1.HealthCheckRequest", service=service), timeout=SOON)
        check(status_of(answer) == name, service, answer)
    try:
        api.method["Check"](api.new("grpc.health.v1.HealthCheckRequest", service="no.such"), timeout=SOON)
        raise AssertionError("a service that does not exist is said to be known")
    except grpc.RpcError as error:
        check(error.code() is grpc.StatusCode.NOT_FOUND, error)


def status_of(answer):
    return answer.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[answer.status].name


def those_who_watch_are_told_of_the_end(api, server):
    watch = api.method["Watch"](api.new("grpc.health.v1.HealthCheckRequest", service=KERNEL), timeout=SOON)
    check(status_of(next(watch)) == "SERVING", "the watch does not begin with SERVING")
    server.send_signal(signal.SIGINT)
    check(status_of(next(watch)) == "NOT_SERVING", "nobody was told of the end")
    watch.cancel()


CHECKS = [
    calls_are_answered,
    tensors_are_answered,
    streams_answer_each_request,
    kernels_are_listed_and_described,
    operands_are_put_once_and_queried,
    refusals_say_what_is_wrong,
    deadlines_are_the_servers,
    gzip_is_taken_where_it_is_on,
    health_is_served,
]


@contextmanager
def served(command):
    """Starts the server on a free address; ends it, however the checks go."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "127.0.0.1:%d" % free.getsockname()[1]
    server = subprocess.Popen([part.format(address=address) for part in command], stderr=subprocess.PIPE, text=True)
    said = []
    reader = threading.Thread(target=lambda: said.extend(server.stderr), daemon=True)
    reader.start()
    try:
        yield address, server
    except BaseException:
        server.kill()
        server.wait()
        reader.join(SOON)
        print("the server said:", *said[-30:], sep="\n  ", file=sys.stderr)
        raise
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def main(command):
    versions = f"grpcio {grpc.__version__}, protobuf {google.protobuf.__version__}"
    with served(command) as (address, server):
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=SOON)
            for version in ("v1alpha", "v1"):
                api = Api(channel, version)
                for holds in CHECKS:
                    begun = time.monotonic()
                    holds(api)
                    print(f"{versions}, {version}: {holds.__name__} ({time.monotonic() - begun:.2f} s)")
            those_who_watch_are_told_of_the_end(api, server)
        check(server.wait(SOON) == 0, "the server ended with", server.returncode)
    print(f"{versions}: those_who_watch_are_told_of_the_end")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
