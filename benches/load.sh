#!/usr/bin/env bash
# Our load generator beside wrk: the same requests to the same bare axum server, as many connections and one thread each,
# in turns in one run. Needs wrk, and Python for the table.
#
#   benches/load.sh [SECONDS] [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5} rounds=${2:-5}
cargo build --release --quiet --manifest-path peers/Cargo.toml --bin rest_server
cargo build --release --quiet --manifest-path ../Cargo.toml --features server --bin tower-kernels
runs=$(mktemp -d)
trap 'rm -rf "$runs"; kill $(jobs -p) 2>/dev/null || true' EXIT
input='{"a": 2.0, "x": [1.0, 2.0, 3.0, 4.0], "y": [10.0, 20.0, 30.0, 40.0]}'
echo "$input" > "$runs/input"
cat > "$runs/wrk.lua" <<LUA
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"kernel_id":"linalg/saxpy","input":$input}'
function done(summary, latency)
    local bad = summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout
    io.write(string.format("%.1f %.1f %.1f %.1f %d %d\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(90), latency:percentile(99), bad, summary.requests))
end
LUA
peers/target/release/rest_server bare 127.0.0.1:18085 &
sleep 1
# What a command has used of the processor, in microseconds, goes to $runs/cpu.
timed() { TIMEFORMAT='%U %S'; { time "$@"; } 2> "$runs/cpu"; }
for round in $(seq "$rounds"); do
    timed wrk -t1 -c32 -d"${seconds}s" -s "$runs/wrk.lua" http://127.0.0.1:18085/execute > "$runs/last"
    echo "$(tail -n 1 "$runs/last") $(tail -n 1 "$runs/cpu")" > "$runs/wrk-$round"
    # Without a warm-up, as wrk has none.
    timed ../target/release/tower-kernels bench linalg/saxpy --rest http://127.0.0.1:18085 --input "$runs/input" \
        --concurrency 32 --threads 1 --duration "${seconds}s" --warmup 0s --allow-errors \
        --json "$runs/ours-$round.json" > "$runs/last"
done
python3 - "$runs" "$rounds" <<'PYTHON'
import json, pathlib, statistics, sys

folder, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
print("| load from | round | requests/s | p50, us | p90, us | p99, us | errors | CPU each, us |")
print("|---|---|---:|---:|---:|---:|---:|---:|")
seen = {"wrk": [], "bench": []}
for round in range(1, rounds + 1):
    rate, p50, p90, p99, bad, requests, user, system = map(float, (folder / f"wrk-{round}").read_text().split())
    seen["wrk"].append((rate, p50, p90, p99, bad, (user + system) * 1e6 / requests))
    run = json.loads((folder / f"ours-{round}.json").read_text())
    latency = [run["latency_ns"][name] / 1e3 for name in ("p50", "p90", "p99")]
    bad = sum(error["count"] for error in run["errors"].values())
    seen["bench"].append((run["requests_per_s"], *latency, bad, run["cpu_us_per_request"]))
    for load, rows in seen.items():
        rate, p50, p90, p99, bad, cpu = rows[-1]
        print(f"| {load} | {round} | {rate:.0f} | {p50:.0f} | {p90:.0f} | {p99:.0f} | {bad:.0f} | {cpu:.1f} |")
ratios = [statistics.median(b[column] / w[column] for b, w in zip(seen["bench"], seen["wrk"])) for column in range(4)]
print("| bench / wrk, median of rounds | | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " | | |")
PYTHON
