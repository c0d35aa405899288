"""gRPC over TLS with grpcio: who gets in, by which certificate, and that everything works for those who do.

Run by tests/clients/tls.sh, which makes the certificates: python3 tests/clients/tls.py HOST:PORT FOLDER
"""

import pathlib
import sys

import grpc
from grpc_client import CHECKS, SOON, Api, check

address, folder = sys.argv[1], pathlib.Path(sys.argv[2])


def channel(authority, client=None):
    read = lambda name: (folder / name).read_bytes()
    pair = (read(f"{client}.key"), read(f"{client}.crt")) if client else (None, None)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(read(f"{authority}.crt"), *pair))


def gets_in(channel):
    """Whether a connection comes about."""
    try:
        grpc.channel_ready_future(channel).result(timeout=SOON / 4)
        return True
    except grpc.FutureTimeoutError:
        return False


def health(channel):
    ask = channel.unary_unary("/grpc.health.v1.Health/Check")
    return ask(b"", timeout=SOON)


with channel("ours", "acme") as acme:
    check(gets_in(acme), "a client with a certificate is kept out")
    api = Api(acme, "v1")
    for holds in CHECKS:
        holds(api)
        print(f"grpcio {grpc.__version__} over TLS: {holds.__name__}")

with channel("ours") as nobody:
    # Probes have no certificate.
    check(health(nobody) == b"\x08\x01", "health is not SERVING")
    try:
        nobody.unary_unary("/tower_kernels.v1.Kernel/ListKernels")(b"", timeout=SOON)
        raise AssertionError("somebody without a certificate is served")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.UNAUTHENTICATED, error)

with grpc.insecure_channel(address) as plain:
    check(not gets_in(plain), "a client without TLS gets in")
with channel("theirs") as distrustful:
    check(not gets_in(distrustful), "a client takes a certificate of another authority")

# In TLS 1.3 the client is done before its certificate is looked at, so the call may be the first to hear of it.
for name in ("mallory", "late"):
    with channel("ours", name) as refused:
        try:
            health(refused)
            raise AssertionError(f"{name} gets in")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.UNAVAILABLE, name, error)
print(f"grpcio {grpc.__version__}: who has no accepted certificate is kept out")
