#!/usr/bin/env bash
# REST beside a bare axum handler that reads and writes the same JSON and does the same sum: requests a second and
# latencies over loopback, in turns in one run. Needs wrk.
#
#   benches/http.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5}
cargo build --release --quiet --manifest-path peers/Cargo.toml --bin rest_server
script=$(mktemp)
trap 'rm -f "$script"; kill $(jobs -p) 2>/dev/null || true' EXIT
cat > "$script" <<'LUA'
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0, 2.0, 3.0, 4.0], "y": [10.0, 20.0, 30.0, 40.0]}}'
function done(summary, latency)
    local bad = summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout
    io.write(string.format("| %.0f | %.0f | %.0f | %d |\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(99), bad))
end
LUA
peers/target/release/rest_server bare 127.0.0.1:18081 &
peers/target/release/rest_server ours 127.0.0.1:18082 2>/dev/null &
sleep 1
echo "| server | round | requests/s | p50, us | p99, us | errors |"
echo "|---|---|---:|---:|---:|---:|"
for round in 1 2 3; do
    for server in bare:18081 ours:18082; do
        printf '| %s | %s ' "${server%:*}" "$round"
        wrk -t1 -c32 -d"${seconds}s" -s "$script" "http://127.0.0.1:${server#*:}/execute" | tail -n 1
    done
done
