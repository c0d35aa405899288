#!/usr/bin/env bash
# Our server of the Open Inference Protocol beside NVIDIA's Triton, in turns in one run: latency with Triton's own client,
# requests a second with `tower-kernels bench`, 16 MB in and out, timeouts, and clients that leave.
#
# Both servers have the same two models, an identity and a sleep: Triton in its Python backend, whose process shares the
# core of the server, and ours in examples/inference_server.rs. The server has one core and the client another.
#
#   benches/inference.sh [SECONDS [ROUNDS]]
#
# SECONDS is the time of each measurement of load. Needs Linux on x86-64, and Python 3.8 to 3.13 with its shared library and
# pip, which installs Triton (a wheel of 50 MB) and its client below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-2} rounds=${2:-3}
http=127.0.0.1:18600 grpc=127.0.0.1:18601
server_core=0 client_core=1

cargo build --release --quiet --locked --features full --bin tower-kernels --example inference_server
tools=$PWD/target/inference-bench
triton=$tools/pytriton/tritonserver
if ! cat benches/inference/requirements*.txt | cmp --silent - "$tools/requirements.txt"; then
    rm -rf "$tools"
    install=(python3 -m pip install --quiet --disable-pip-version-check --target "$tools")
    "${install[@]}" -r benches/inference/requirements.txt
    "${install[@]}" --no-deps -r benches/inference/requirements-triton.txt
    # The Python backend looks for its stub, and its Python for modules, beside itself and nowhere else.
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    cp "$triton/python_backend_stubs/$version/triton_python_backend_stub" "$triton/backends/python/"
    ln -s "$tools/numpy" "$tools/numpy.libs" "$triton/backends/python/"
    chmod +x "$triton/bin/tritonserver" "$triton/backends/python/triton_python_backend_stub"
    cat benches/inference/requirements*.txt > "$tools/requirements.txt"
fi
export PYTHONPATH=$tools PYTHONDONTWRITEBYTECODE=1

runs=$(mktemp -d)
server=
trap 'stop; rm -rf "$runs"' EXIT

start() {
    if curl --silent "$http" > /dev/null; then
        echo "another server listens on $http" >&2
        exit 1
    fi
    # `exec`, so that the process that is stopped is the server's own.
    case $1 in
        ours) exec taskset -c "$server_core" target/release/examples/inference_server "$http" "$grpc" ;;
        triton)
            export LD_LIBRARY_PATH=$tools/nvidia_pytriton.libs
            exec taskset -c "$server_core" "$triton/bin/tritonserver" \
                --model-repository="$PWD/benches/inference/models" --backend-directory="$triton/backends" \
                --model-control-mode=none --http-address="${http%:*}" --http-port="${http#*:}" \
                --grpc-address="${grpc%:*}" --grpc-port="${grpc#*:}" --allow-metrics=false
            ;;
    esac > "$runs/log" 2>&1 &
    server=$!
    for _ in $(seq 300); do
        curl --silent --fail "$http/v2/models/identity/ready" > /dev/null && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    echo "the server does not start:" >&2
    cat "$runs/log" >&2
    exit 1
}

stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

# load NAME ARGUMENT...: measures the identity, with the results in $runs/SERVER-ROUND-NAME.json.
load() {
    local file=$runs/$which-$round-$1.json
    shift
    taskset -c "$client_core" target/release/tower-kernels bench identity --protocol v2 --threads 1 --warmup 300ms \
        --duration "${seconds}s" --json "$file" "$@" > "$runs/last"
}

python3 - "$runs" <<'PYTHON'
import json, pathlib, sys
for name, elements in (("small", 16), ("large", 4_000_000)):
    (pathlib.Path(sys.argv[1]) / name).write_text(json.dumps({"x": [1.0] * elements}))
PYTHON
for round in $(seq "$rounds"); do
    for which in ours triton; do
        start "$which"
        # Timeouts and clients that leave take half a minute.
        [ "$round" = 1 ] && behaviour=behaviour || behaviour=
        taskset -c "$client_core" python3 benches/inference/client.py "$http" "$grpc" "$runs/$which-$round-client.json" \
            $behaviour
        for flight in 1 32 256; do
            load "json-$flight" --input "$runs/small" --concurrency "$flight" --rest "http://$http"
            load "http-$flight" --input "$runs/small" --concurrency "$flight" --rest "http://$http" --tensors
            load "grpc-$flight" --input "$runs/small" --concurrency "$flight" --grpc "http://$grpc" --tensors
        done
        load http-large --input "$runs/large" --concurrency 2 --rest "http://$http" --tensors
        load grpc-large --input "$runs/large" --concurrency 2 --grpc "http://$grpc" --tensors
        stop
    done
done
python3 benches/inference/table.py "$runs" "$rounds"
