#!/usr/bin/env bash
# REST beside a bare axum handler over loopback, in turns in one run: requests a second and latencies.
#
#   json:    a handler that reads and writes the same JSON and does the same sum
#   tensors: a handler that answers with the 16 MB that it got, where ours has a kernel that answers with its input
#
# Needs wrk. `BUILT=FOLDER` has the programs, for a machine without Rust.
#
#   benches/http.sh [SECONDS [json|tensors [ROUNDS]]]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5}
rows=${2:-json tensors}
if [ -z "${BUILT:-}" ]; then
    cargo build --release --quiet --manifest-path peers/Cargo.toml --bin rest_server
    BUILT=peers/target/release
fi
scripts=$(mktemp -d)
trap 'rm -rf "$scripts"; kill $(jobs -p) 2>/dev/null || true' EXIT
cat > "$scripts/done.lua" <<'LUA'
function done(summary, latency)
    local bad = summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout
    io.write(string.format("| %.0f | %.0f | %.0f | %d |\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(99), bad))
end
LUA
cat - "$scripts/done.lua" > "$scripts/json.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0, 2.0, 3.0, 4.0], "y": [10.0, 20.0, 30.0, 40.0]}}'
LUA
cat - "$scripts/done.lua" > "$scripts/tensors.lua" <<'LUA'
local elements = 4000000
local head = string.format('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [%d], ' ..
    '"parameters": {"binary_data_size": %d}}]}', elements, 4 * elements)
wrk.method = "POST"
wrk.headers["content-type"] = "application/octet-stream"
wrk.headers["inference-header-content-length"] = #head
wrk.body = head .. string.rep("\0\0\128\63", elements)
LUA
"$BUILT/rest_server" bare 127.0.0.1:18081 &
"$BUILT/rest_server" ours 127.0.0.1:18082 2>/dev/null &
sleep 1
for row in $rows; do
    case $row in
        json) path=/execute connections=32 ;;
        # As many as there are processors to copy with, or so: each has 16 MB to send and to be sent.
        tensors) path=/kernels/bench/identity/execute connections=2 ;;
        *) echo "$row is neither json nor tensors" >&2; exit 2 ;;
    esac
    echo
    echo "| $row: server | round | requests/s | p50, us | p99, us | errors |"
    echo "|---|---|---:|---:|---:|---:|"
    for round in $(seq "${3:-3}"); do
        for server in bare:18081 ours:18082; do
            printf '| %s | %s ' "${server%:*}" "$round"
            wrk -t1 -c"$connections" -d"${seconds}s" -s "$scripts/$row.lua" "http://127.0.0.1:${server#*:}$path" |
                tail -n 1
        done
    done
done
