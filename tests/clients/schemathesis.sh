#!/usr/bin/env bash
# Calls a real server as its /openapi.json says, and as it says not to, and looks for server errors and for answers that
# are not as the document has them. Ends with 0 where nothing is found.
#
#   tests/clients/schemathesis.sh [COMMAND ARGUMENT...]
#
# COMMAND starts a server and writes its address, as http://HOST:PORT, to its output. Needs Python 3 with pip; installs
# the tools below target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/clients/served.sh
[ $# -gt 0 ] || set -- cargo run --quiet --locked --features full --bin tower-kernels -- \
    serve --rest-listen 127.0.0.1:0 --grpc-listen off
tools schemathesis-tools requirements.txt
serve "$@"

python3 - "$url/openapi.json" "$work/openapi.json" <<'PY'
import sys, time, urllib.request

url, path = sys.argv[1:]
for attempt in range(50):
    try:
        document = urllib.request.urlopen(url, timeout=10).read()
        break
    except ConnectionError if attempt < 49 else ():
        time.sleep(0.1)
open(path, "wb").write(document)
PY
python3 -m openapi_spec_validator "$work/openapi.json"
python3 -c 'from schemathesis.cli import schemathesis; schemathesis()' \
    --config-file tests/clients/schemathesis.toml run --max-response-time 5 "$url/openapi.json"
still_serves
