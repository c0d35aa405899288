# Sourced by the scripts beside it: a server for as long as the script runs, and the tools of its client.

# tools NAME REQUIREMENTS: installs what the file beside this one pins into a folder below target/, unless it is there
# already, and puts it on Python's path.
tools() {
    local folder=target/$1 requirements=tests/clients/$2
    if ! cmp --silent "$requirements" "$folder/requirements.txt"; then
        rm -rf "$folder"
        python3 -m pip install --quiet --disable-pip-version-check --target "$folder" -r "$requirements"
        cp "$requirements" "$folder/requirements.txt"
    fi
    export PYTHONPATH="$PWD/$folder" PYTHONDONTWRITEBYTECODE=1
}

# serve COMMAND [ARGUMENT...]: starts a server, which writes its address, as http(s)://HOST:PORT, to its output; the first is in
# $url from then on, and there is a folder in $work. Both end with the script.
serve() {
    work=$(mktemp -d)
    "$@" >"$work/log" 2>&1 &
    server=$!
    trap stop EXIT
    url=
    for _ in $(seq 600); do
        url=$(grep -oE 'https?://[0-9a-z.:-]+' "$work/log" | head -n 1 || true)
        [ -z "$url" ] && kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    if [ -z "$url" ]; then
        echo "the server has not said where it listens:" >&2
        cat "$work/log" >&2
        exit 1
    fi
}

stop() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -rf "$work"
}

# Fails where the server has not lived through it all.
still_serves() {
    if ! kill -0 "$server" 2>/dev/null; then
        echo "the server is gone:" >&2
        cat "$work/log" >&2
        exit 1
    fi
}
