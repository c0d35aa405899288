#!/usr/bin/env bash
# Calls a real server over TLS with clients that are not ours: curl, and grpcio by `tests/clients/tls.py`.
#
#   tests/clients/tls.sh [PROGRAM]
#
# Needs openssl, Python 3 with pip, and curl with HTTP/2; installs grpcio below target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/clients/served.sh
program=${1:-target/debug/tower-kernels}
tools grpcio-newest-tls requirements-newest.txt

certificates=$(mktemp -d)
# authority NAME: makes NAME.crt and NAME.key. issue AUTHORITY NAME EXTENSION [OPTION...]: makes them for NAME.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "/CN=authority $1" \
        -keyout "$certificates/$1.key" -out "$certificates/$1.crt" 2>/dev/null
}
issue() {
    local authority=$certificates/$1 name=$2 extension=$3
    shift 3
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$certificates/$name.key" -out "$certificates/$name.csr" 2>/dev/null
    openssl x509 -req -in "$certificates/$name.csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial \
        -extfile <(printf %s "$extension") -out "$certificates/$name.crt" "$@" 2>/dev/null
}
authority ours
authority theirs
issue ours server 'subjectAltName=IP:127.0.0.1,DNS:localhost' -days 1
issue ours acme 'extendedKeyUsage=clientAuth' -days 1
issue theirs mallory 'extendedKeyUsage=clientAuth' -days 1
# Of openssl's own clock: a certificate that ends when it begins.
issue ours late 'extendedKeyUsage=clientAuth' -days 0
sleep 1

serve "$program" serve --rest-listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 \
    --tls-cert "$certificates/server.crt" --tls-key "$certificates/server.key" --tls-client-ca "$certificates/ours.crt"
trap 'stop; rm -rf "$certificates"' EXIT
# The log names both on one line, REST first.
url=${url%%$'\n'*}
grpc=$(grep -oEm1 'gRPC +https://[0-9.:]+' "$work/log" | grep -oE '[0-9.]+:[0-9]+')
cd "$certificates"

body='{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}'
call() {
    curl -sS -m 30 -H 'content-type: application/json' -d "$body" -w ' %{http_code} HTTP/%{http_version}' "$@" \
        "$url/kernels/linalg/saxpy/execute" 2>&1 || echo " curl ended with $?"
}
# expect WHAT ARGUMENT...: what curl says of such a call has WHAT in it.
expect() {
    local what=$1 said
    shift
    said=$(call "$@")
    if [[ $said != *$what* ]]; then
        echo "curl $* has not said '$what', but: $said" >&2
        exit 1
    fi
    echo "curl $*: $what"
}
acme=(--cacert ours.crt --cert acme.crt --key acme.key)
expect '200 HTTP/1.1' --http1.1 "${acme[@]}"
expect '200 HTTP/2' --http2 "${acme[@]}"
expect '200 HTTP/2' --http2 --tls-max 1.2 "${acme[@]}"
expect '401 HTTP/2' --cacert ours.crt
expect 'curl ended with 60' --cacert theirs.crt
expect 'alert unknown ca' --http1.1 --cacert ours.crt --cert mallory.crt --key mallory.key
expect 'alert certificate expired' --http1.1 --cacert ours.crt --cert late.crt --key late.key
url=${url/https/http} expect '400 HTTP/1.1' --http1.1

cd "$OLDPWD"
timeout 120 python3 tests/clients/tls.py "$grpc" "$certificates"
still_serves
