#!/usr/bin/env bash
# gRPC beside a bare tonic service that takes and gives the same messages and does the same sum of four elements: requests
# a second and latencies over loopback, from `tower-kernels bench`, in turns in one run. Needs Python for the table.
#
# `BUILT=FOLDER` has the programs, for a machine without Rust.
#
#   benches/grpc.sh [SECONDS] [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5} rounds=${2:-5}
if [ -z "${BUILT:-}" ]; then
    BUILT=$(mktemp -d)
    cargo build --release --quiet --manifest-path peers/Cargo.toml --bin grpc_server
    cargo build --release --quiet --manifest-path ../Cargo.toml --features server --bin tower-kernels
    cp peers/target/release/grpc_server ../target/release/tower-kernels "$BUILT"
fi
runs=$(mktemp -d)
trap 'rm -rf "$runs"; kill $(jobs -p) 2>/dev/null || true' EXIT
echo '{"a": 2.0, "x": [1.0, 2.0, 3.0, 4.0], "y": [10.0, 20.0, 30.0, 40.0]}' > "$runs/input"
"$BUILT/grpc_server" bare 127.0.0.1:18083 &
bare=$!
"$BUILT/grpc_server" ours 127.0.0.1:18084 2>/dev/null &
ours=$!
sleep 1
# The processor time of a server so far, in ticks of 10 ms.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
for round in $(seq "$rounds"); do
    for server in bare:18083 ours:18084; do
        name=${server%:*}
        before=$(ticks "${!name}")
        "$BUILT/tower-kernels" bench linalg/saxpy --grpc "http://127.0.0.1:${server#*:}" --input "$runs/input" \
            --concurrency 32 --threads 1 --channels 4 --duration "${seconds}s" --allow-errors \
            --warmup 0s --json "$runs/$name-$round.json" > "$runs/last"
        echo $(($(ticks "${!name}") - before)) > "$runs/$name-$round.ticks"
    done
done
python3 - "$runs" "$rounds" <<'PYTHON'
import json, pathlib, statistics, sys

folder, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
print("| round | bare, requests/s | ours | ratio | bare p99, us | ours | ratio | bare server's CPU each, us | ours | errors |")
print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
ratios = []
for round in range(1, rounds + 1):
    runs = [json.loads((folder / f"{server}-{round}.json").read_text()) for server in ("bare", "ours")]
    ticks = [int((folder / f"{server}-{round}.ticks").read_text()) for server in ("bare", "ours")]
    rate = [run["requests_per_s"] for run in runs]
    p99 = [run["latency_ns"]["p99"] / 1e3 for run in runs]
    cpu = [10_000 * tick / run["requests"] for tick, run in zip(ticks, runs)]
    errors = sum(error["count"] for run in runs for error in run["errors"].values())
    ratios.append((rate[1] / rate[0], p99[1] / p99[0], cpu[1] / cpu[0]))
    print(f"| {round} | {rate[0]:.0f} | {rate[1]:.0f} | {ratios[-1][0]:.2f} | {p99[0]:.0f} | {p99[1]:.0f} "
          f"| {ratios[-1][1]:.2f} | {cpu[0]:.1f} | {cpu[1]:.1f} | {errors} |")
rate, p99, cpu = (statistics.median(column) for column in zip(*ratios))
print(f"| median ratio | | | {rate:.2f} | | | {p99:.2f} | | {cpu:.2f} | |")
PYTHON
