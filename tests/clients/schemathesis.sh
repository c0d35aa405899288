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
tools=target/schemathesis-tools
[ $# -gt 0 ] || set -- cargo run --quiet --locked --features full --example axum_server -- 127.0.0.1:0

stamp=$tools/requirements.txt
if ! cmp --silent tests/clients/requirements.txt "$stamp"; then
    rm -rf "$tools"
    python3 -m pip install --quiet --disable-pip-version-check --target "$tools" -r tests/clients/requirements.txt
    cp tests/clients/requirements.txt "$stamp"
fi
export PYTHONPATH="$PWD/$tools" PYTHONDONTWRITEBYTECODE=1

work=$(mktemp -d)
"$@" >"$work/log" 2>&1 &
server=$!
stop() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

url=
for _ in $(seq 600); do
    url=$(grep -oEm1 'http://[0-9a-z.:-]+' "$work/log" || true)
    [ -z "$url" ] && kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$url" ]; then
    echo "the server has not said where it listens:" >&2
    cat "$work/log" >&2
    exit 1
fi

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

if ! kill -0 "$server" 2>/dev/null; then
    echo "the server is gone:" >&2
    cat "$work/log" >&2
    exit 1
fi
