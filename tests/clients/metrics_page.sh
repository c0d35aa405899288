#!/usr/bin/env bash
# Reads the metrics of a real server with Prometheus's own parsers: `tests/clients/metrics_page.py`.
#
#   tests/clients/metrics_page.sh [COMMAND ARGUMENT...]
#
# COMMAND starts a server and writes its address, as http://HOST:PORT, to its output. Needs Python 3 with pip; installs
# the parsers below target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/clients/served.sh
[ $# -gt 0 ] || set -- cargo run --quiet --locked --features full --bin tower-kernels -- \
    serve --rest-listen 127.0.0.1:0 --grpc-listen off
tools metrics-tools requirements-metrics.txt
serve "$@"

timeout 60 python3 tests/clients/metrics_page.py "$url"
still_serves
