#!/usr/bin/env python3
"""What the program does once its CUDA device is lost; needs a GPU, and nothing but Python's own.

    cargo build --features fault-kernel --bin tower-kernels
    python tests/clients/lost_device.py target/debug/tower-kernels

Two servers, one after the other: one that is to go on, on the CPU, and one that is to end with exit code 7. Ends with a
status other than 0 at the first thing that is not so.
"""

import atexit
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

SAXPY = {"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}


def get(url, body=None):
    """Status and text of the answer; 0 where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def start(*settings):
    """A server and its address."""
    command = [sys.argv[1], "serve", "--rest-listen", "127.0.0.1:0", "--grpc-listen", "off", "--cuda-mode", "required", *settings]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    atexit.register(server.kill)
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"http://[0-9a-z.:-]+", line):
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, found.group()
    sys.exit(f"the server ended with {server.wait()}:\n{said}")


def check(what, holds):
    print(("ok  " if holds else "FAIL") + f" {what}", flush=True)
    if not holds:
        sys.exit(1)


def lose(url):
    """Has the device lost; returns when that was known, and how long readiness or the connection took to say so."""
    known = []
    watch = threading.Thread(target=lambda: known.append(until_not_ready(url)), daemon=True)
    watch.start()
    status, text = get(f"{url}/kernels/test/fault/execute", {})
    answered = time.monotonic()
    check(f"the call that faults is answered: {status} {text.strip()[:160]}", status == 503 and "lost" in text)
    watch.join()
    return known[0] - answered


def until_not_ready(url):
    while get(f"{url}/health/ready")[0] == 200:
        time.sleep(0.005)
    return time.monotonic()


def main():
    server, url = start()
    saxpy = f"{url}/kernels/linalg/saxpy/execute"
    status, text = get(saxpy, SAXPY)
    check("a call before runs", status == 200)
    late = lose(url)
    check(f"readiness says it {late * 1000:.0f} ms after the call's own answer", late < 0.1)
    status, text = get(f"{url}/metrics")
    check("metrics say it", 'kernel_backend_up{backend="CUDA",device="0"} 0' in text)
    status, text = get(saxpy, SAXPY)
    check("calls go on, on the CPU", status == 200 and "12.0" in text and server.poll() is None)
    server.kill()
    server.wait()

    server, url = start("--exit-on-device-loss", "--drain-notice", "0s")
    began = time.monotonic()
    late = lose(url)
    code = server.wait(timeout=60)
    check(f"told to, the program ends with 7: {code}, {time.monotonic() - began:.2f} s after the call", code == 7)


if __name__ == "__main__":
    main()
