"""Reads /metrics in both of its formats with the parsers of Prometheus's Python client, and compares them.

    python3 tests/clients/metrics_page.py http://127.0.0.1:8080

Needs `pip install prometheus-client`. The parser of OpenMetrics is strict: it refuses a page without an end, families of the
same name, units that are not in the name, and histograms whose buckets do not add up.
"""

import gzip
import json
import sys
import urllib.error
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# What Prometheus 2 and 3 send.
PROMETHEUS = {
    "2": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "3": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
}
server = sys.argv[1].rstrip("/")


def check(holds, *what):
    if not holds:
        sys.exit(" ".join(str(part) for part in what))


def ask(path, method="GET", body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server + path, method=method, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def page(content_type, **headers):
    status, answered, body = ask("/metrics", **headers)
    check(status == 200 and answered["content-type"] == content_type, headers, "is answered", status, answered)
    check("accept" in answered["vary"].lower(), "the page does not vary:", answered)
    if answered["content-encoding"] == "gzip":
        body = gzip.decompress(body)
    return body.decode()


def samples(families):
    """The series and their types. A counter's family has `_total` in one format and not in the other."""
    found = {}
    for family in families:
        check(family.samples, "the family", family.name, "is empty")
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = family.type
    return found


kernel = "/kernels/linalg/saxpy/execute"
saxpy = json.dumps({"a": 2.0, "x": [1.0], "y": [1.0]}).encode()
for body, expected in [(saxpy, 200), (b"{}", 400), (saxpy, 200)]:
    status, _, answer = ask(kernel, "POST", body, content_type="application/json")
    check(status == expected, kernel, "is answered", status, answer)
unknown = b'{"kernel_id": "no/such", "input": {}}'
check(ask("/execute", "POST", unknown, content_type="application/json")[0] == 404, "there is no/such")

text = page(TEXT)
check("# EOF" not in text and "# UNIT" not in text, "the text format has what only OpenMetrics has")
as_text = samples(parse_text(text))
for version, accept in PROMETHEUS.items():
    as_openmetrics = samples(parse_openmetrics(page(OPENMETRICS, accept=accept)))
    known = {series: kind for series, kind in as_openmetrics.items() if kind not in ("unknown", "info")}
    check(known.items() <= as_text.items(), "only for Prometheus", version, known.items() - as_text.items())
    check(as_openmetrics.keys() == as_text.keys(), "the formats differ:", as_openmetrics.keys() ^ as_text.keys())

ok = ("kernel_requests_total", (("backend", "CPU"), ("operation", "linalg/saxpy"), ("outcome", "ok")))
refused = ("kernel_requests_total", (("operation", "linalg/saxpy"), ("outcome", "invalid_argument")))
unknown = ("kernel_requests_total", (("operation", "unknown"), ("outcome", "not_found")))
for series in [ok, refused, unknown]:
    check(as_text.get(series) == "counter", series, "is not a counter of", sorted(as_text))

status, headers, body = ask("/metrics", accept_encoding="gzip, deflate", accept=PROMETHEUS["3"])
check(headers["content-encoding"] == "gzip", "the page is not compressed:", headers)
check(gzip.decompress(body).endswith(b"# EOF\n"), "the compressed page is not whole")
status, headers, body = ask("/metrics", "HEAD")
check((status, headers["content-type"], body) == (200, TEXT, b""), "HEAD is answered", status, headers, body)
print(f"{len(as_text)} series are the same in both formats")
