#!/usr/bin/env bash
# Uses a real server through clients of the Open Inference Protocol, as they are: tritonclient (the newest and one of two
# years ago), KServe's and curl; and checks KServe's manifest against its types.
#
#   tests/clients/inference.sh [COMMAND ARGUMENT...]
#
# COMMAND starts a server and writes the address of REST, as http://HOST:PORT, to its output; --grpc-listen, --inference-shared-memory
# and --inference-model-control are added. Needs Python 3 with pip; installs the clients below target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/clients/served.sh
[ $# -gt 0 ] || set -- cargo run --quiet --locked --features full --bin tower-kernels -- serve --rest-listen 127.0.0.1:0
grpc=$(python3 -c 'import socket; free = socket.create_server(("127.0.0.1", 0)); print("127.0.0.1:%d" % free.getsockname()[1])')
serve "$@" --grpc-listen "$grpc" --inference-shared-memory --inference-model-control

for version in newest oldest; do
    echo "-- tritonclient, the $version"
    tools "inference-$version" "requirements-inference-$version.txt"
    timeout 120 python3 tests/clients/inference.py "${url#http://}" "$grpc" tritonclient
done

echo "-- kserve"
tools inference-kserve requirements-inference-kserve.txt
timeout 120 python3 tests/clients/inference.py "${url#http://}" "$grpc" kserve
python3 tests/clients/kserve_manifest.py deploy/kserve/serving-runtime.yml

echo "-- curl"
curl --silent --fail "$url/v2/health/ready"
answer=$(curl --silent --fail "$url/v2/models/linalg.saxpy/infer" -d '{"inputs": [
    {"name": "a", "datatype": "FP32", "shape": [1], "data": [2]},
    {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]},
    {"name": "y", "datatype": "FP32", "shape": [2], "data": [10, 20]}]}')
echo "$answer"
grep -q '"data":\[12.0,24.0\]' <<<"$answer"
still_serves
