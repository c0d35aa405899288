#!/usr/bin/env bash
# Calls a real server with tensors, as the clients of model servers write and read them: `tests/clients/tensors.py`.
#
#   tests/clients/tensors.sh [COMMAND ARGUMENT...]
#
# COMMAND starts a server and writes its address, as http://HOST:PORT, to its output. Needs Python 3 with pip; installs
# the client below target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/clients/served.sh
[ $# -gt 0 ] || set -- cargo run --quiet --locked --features full --bin tower-kernels -- \
    serve --rest-listen 127.0.0.1:0 --grpc-listen off
tools tensor-tools requirements-tensors.txt
serve "$@"

timeout 60 python3 tests/clients/tensors.py "$url"
still_serves
