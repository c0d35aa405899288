#!/usr/bin/env bash
# User-space instructions that a server takes for a small request over REST (callgrind), and the system calls that it makes
# (strace): a bare axum handler, our router alone, and `tower-kernels serve` with its pipeline. Both hold on a busy machine,
# where times do not. Needs valgrind, strace and Python.
#
# The profiles are kept: callgrind_annotate --inclusive=yes FOLDER/program.callgrind
#
# `BUILT=FOLDER` has the programs.
#
#   benches/instructions.sh [REQUESTS]
set -euo pipefail
cd "$(dirname "$0")"
requests=${1:-2400}
if [ -z "${BUILT:-}" ]; then
    export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
    cargo build --release --quiet --manifest-path peers/Cargo.toml --bin rest_server
    cargo build --release --quiet --manifest-path ../Cargo.toml --features server --bin tower-kernels
    BUILT=$(mktemp -d)
    cp peers/target/release/rest_server ../target/release/tower-kernels "$BUILT"
fi
port=18086
runs=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# One worker, as idle workers look for work of others.
export TOKIO_WORKER_THREADS=1
command_of() {
    case $1 in
        # Under valgrind a kernel takes so long that it would run on a worker instead of inline, on a busy machine.
        program) echo "$BUILT/tower-kernels serve --rest-listen 127.0.0.1:$port --grpc-listen off --cuda-mode off --cpu-inline 1s" ;;
        *) echo "$BUILT/rest_server $1 127.0.0.1:$port" ;;
    esac
}
# Sends so many requests over eight connections, one at a time on each.
load() {
    python3 - "$port" "$1" <<'PYTHON'
import socket, sys, time

port, requests = int(sys.argv[1]), int(sys.argv[2])
body = b'{"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0, 2.0, 3.0, 4.0], "y": [10.0, 20.0, 30.0, 40.0]}}'
head = f"POST /execute HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

def connect():
    for _ in range(300):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit("the server does not start")

connections = [connect() for _ in range(8)]
for _ in range(requests // len(connections)):
    for connection in connections:
        connection.sendall(head.encode() + body)
    for connection in connections:
        response = connection.recv(1 << 16)
        if not response.startswith(b"HTTP/1.1 200"):
            sys.exit(response.decode())
PYTHON
}
echo "| server | instructions each | system calls each |"
echo "|---|---:|---|"
for server in bare ours program; do
    valgrind --quiet --tool=callgrind --callgrind-out-file="$runs/$server" $(command_of "$server") > "$runs/log" 2>&1 &
    process=$!
    load 800
    callgrind_control --zero "$process" > "$runs/log" 2>&1
    load "$requests"
    callgrind_control --dump "$process" > "$runs/log" 2>&1
    kill -KILL "$process"
    wait "$process" 2> "$runs/log" || true
    mv "$runs/$server.1" "$runs/$server.callgrind"
    instructions=$(awk -v requests="$requests" '/^(summary|totals):/ { printf "%d", $2 / requests; exit }' "$runs/$server.callgrind")

    $(command_of "$server") > "$runs/log" 2>&1 &
    process=$!
    load 800
    strace --summary-only --follow-forks --output="$runs/calls" --attach="$process" 2> "$runs/log" &
    tracer=$!
    sleep 1
    load "$requests"
    kill -INT "$tracer"
    wait "$tracer" || true
    kill -KILL "$process"
    wait "$process" 2> "$runs/log" || true
    calls=$(awk -v requests="$requests" '$1 + 0 > 0 || $1 == "0.00" { if ($NF != "total" && $4 / requests >= 0.01)
        printf "%s%s %.2f", (n++ ? ", " : ""), $NF, $4 / requests }' "$runs/calls")
    echo "| $server | $instructions | $calls |"
done
echo "The profiles are in $runs." >&2
