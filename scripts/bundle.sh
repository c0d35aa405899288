#!/usr/bin/env bash
# Builds the CUDA tests and bench here and puts them into ./gpu-bundle, for GPU machines without Rust.
#
#   scripts/bundle.sh              then copy gpu-bundle to the GPU machine, and there:
#   gpu-bundle/run.sh              tests, then the bench
#   gpu-bundle/run.sh tests NAME   tests whose name contains NAME
#   gpu-bundle/run.sh memcheck     tests under compute-sanitizer, but for those that fault on purpose or hold times to bounds
#   gpu-bundle/run.sh racecheck    the built-in kernels under compute-sanitizer
#   gpu-bundle/run.sh bench PART   the bench, or a part of it: small, memory, catalogue, resident, workers, priority, devices, telemetry,
#                                  graphs, triangles, traversal, operands, isolation, isolation-settings, pagerank, batch, batch-cost, batch-pipeline
#   gpu-bundle/run.sh peers        the rows that torch has too, ours and torch's
#   gpu-bundle/run.sh soak 600     ten minutes at full load; ends with 1 where anything does not hold
set -euo pipefail
cd "$(dirname "$0")/.."
out=gpu-bundle

# Of the last argument's name.
built() {
    cargo "$@" --no-run --message-format=json-render-diagnostics |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "${!#}"
}

tests=$(built test --release --features cuda,axum,isolation --test cuda)
bench=$(built bench --features cuda,axum,isolation --bench cuda)
soak=$(built bench --features cuda --bench cuda_soak)
mkdir -p "$out"
strip -o "$out/cuda-tests" "$tests"
strip -o "$out/cuda-bench" "$bench"
strip -o "$out/cuda-soak" "$soak"
cp benches/peers/cuda_peers.py "$out"

cat > "$out/run.sh" <<'RUN'
#!/bin/sh
# See scripts/bundle.sh.
set -eu
cd "$(dirname "$0")"
chmod +x cuda-tests cuda-bench cuda-soak

# Kernels given as source need NVRTC, which a toolkit or a Python environment has, seldom on the loader's path.
nvrtc=$(find / \( -path /proc -o -path /sys \) -prune -o -name 'libnvrtc.so*' -print 2>/dev/null |
    grep -v -e builtins -e stubs -e '\.alt\.' | sort -V | tail -n 1)
if [ -n "$nvrtc" ]; then
    lib=$(mktemp -d)
    ln -s "$nvrtc" "$lib/libnvrtc.so"
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib:$(dirname "$nvrtc")"
fi
echo "NVRTC: ${nvrtc:-none}"

case "${1:-all}" in
tests) shift; ./cuda-tests "$@" ;;
memcheck) shift; compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9 ./cuda-tests --test-threads 1 --skip domain --skip faults --skip priority::high --skip telemetry "$@" ;;
racecheck) shift; compute-sanitizer --tool racecheck --error-exitcode 9 ./cuda-tests --test-threads 1 "${@:-small_inputs}" ;;
bench) shift; ./cuda-bench "$@" ;;
peers) ./cuda-bench small; python3 cuda_peers.py ;;
soak) shift; ./cuda-soak "$@" ;;
all) ./cuda-tests; ./cuda-bench ;;
*) echo "unknown: $1" >&2; exit 2 ;;
esac
RUN
chmod +x "$out/run.sh"
du -sh "$out"
