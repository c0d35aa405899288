#!/usr/bin/env python3
"""Checks deploy/ against its schemas and against the program, which it starts and sends requests to.

    pip install --target DIR -r scripts/requirements-deploy.txt
    PYTHONPATH=DIR python3 scripts/check_deploy.py target/debug/tower-kernels

Manifests and compose files are checked against their schemas, and the Dockerfile by hadolint. Every setting in deploy/ must
exist in the program, every probe must succeed, and every metric and label of a dashboard, an alert or the autoscaler must be
on the /metrics page of a running server, or in the golden page of GPU metrics. promtool and kubectl are used if they are
installed.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import contextmanager

import kubernetes_validate
import promql_parser
import yaml

ROOT = pathlib.Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
# The oldest maintained version, and the newest.
KUBERNETES = ["1.34", "1.37"]
# Labels added by Prometheus and by its discovery on Kubernetes.
TARGET_LABELS = {"job", "instance", "namespace", "pod"}
# The metrics of a server with a GPU, and with device processes, which tests compare with the program.
OTHER_METRICS = [ROOT / "tests/goldens/gpu_metrics.txt", ROOT / "tests/goldens/process_metrics.txt"]
# An API key for this check.
KEY = "of-the-check-alone-and-long-enough"


def check(holds, *what):
    if not holds:
        raise SystemExit("deploy: " + " ".join(map(str, what)))


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    check(done.returncode == 0, *command, "exited with", done.returncode, "\n", done.stdout, done.stderr)
    return done.stdout


def tool(name):
    """A tool from a Python package, or an installed one."""
    brought = [pathlib.Path(entry, "bin", name) for entry in sys.path]
    return next(filter(pathlib.Path.exists, brought), None) or shutil.which(name)


def document(path):
    return yaml.safe_load(path.read_text())


def merge(base, patch):
    """A strategic merge, as far as the overlays use it: lists of named items are merged by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = base | {key: merge(base.get(key), value) for key, value in patch.items()}
        return {key: value for key, value in merged.items() if value is not None}
    if isinstance(patch, list) and all(isinstance(item, dict) and "name" in item for item in patch):
        named = {item["name"]: item for item in base or []}
        for item in patch:
            if item.get("$patch") == "delete":
                del named[item["name"]]
            else:
                named[item["name"]] = merge(named.get(item["name"], {}), item)
        return list(named.values())
    return patch


def deployments():
    base = document(DEPLOY / "kubernetes/base/deployment.yml")
    return {"base": base, "gpu": merge(base, document(DEPLOY / "kubernetes/gpu/deployment.yml"))}


# Schemas.


def check_manifests():
    base = DEPLOY / "kubernetes/base"
    listed = document(base / "kustomization.yaml")["resources"]
    there = sorted(path.name for path in base.glob("*.yml"))
    check(sorted(listed) == there, "the kustomization lists", sorted(listed), "but the folder has", there)
    manifests = [one for name in listed for one in yaml.safe_load_all((base / name).read_text())]
    manifests.append(deployments()["gpu"])
    for kubectl in filter(None, [tool("kubectl")]):
        for overlay in ("base", "gpu"):
            manifests += yaml.safe_load_all(run(kubectl, "kustomize", DEPLOY / "kubernetes" / overlay))
    for manifest in manifests:
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                check(False, manifest["kind"], manifest["metadata"]["name"], version, error.path, error.message)
    return f"{len(manifests)} manifests are valid for Kubernetes {' and '.join(KUBERNETES)}"


def check_compose():
    files = sorted(DEPLOY.glob("docker-compose*.yml"))
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files)
    for file in files:
        for name, service in document(file)["services"].items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                check(not source.startswith(".") or (DEPLOY / source).exists(), file.name, name, "mounts", source)
    return f"{len(files)} compose files are valid"


def check_dockerfile():
    run(tool("hadolint"), DEPLOY / "Dockerfile")
    text = (DEPLOY / "Dockerfile").read_text()
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    numbers = lambda version: [int(part) for part in version.split(".")]
    (rust,) = re.findall(r"^FROM rust:([\d.]+)-slim-bookworm@", text, re.M)
    check(numbers(rust) >= numbers(manifest["package"]["rust-version"]), "the image's Rust", rust, "is too old")
    profile, features = re.search(r"--profile (\w+) --features (\w+)", text).groups()
    check(profile in manifest["profile"] and features in manifest["features"], "no", profile, "or no", features)
    tags = set(re.findall(r"tower-kernels:(\d[\w.]*)", text + (DEPLOY / "docker-compose.yml").read_text()))
    tags |= {image["newTag"] for image in document(DEPLOY / "kubernetes/base/kustomization.yaml")["images"]}
    tags |= set(re.findall(r"^ARG VERSION=(.+)$", text, re.M))
    check(tags == {manifest["package"]["version"]}, "images of", tags)
    config = tomllib.loads((DEPLOY / "tower-kernels.toml").read_text())
    exposed = re.search(r"^EXPOSE (.+)$", text, re.M)[1].split()
    check(exposed == [config[server]["listen"].rpartition(":")[2] for server in ("rest", "grpc")], "EXPOSE", exposed)
    return "the Dockerfile passes hadolint"


def check_images():
    """Every foreign image is pinned by digest."""
    images = re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.M)
    for file in DEPLOY.glob("docker-compose*.yml"):
        images += [one["image"] for one in document(file)["services"].values() if "build" not in one and "image" in one]
    for image in images:
        check(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image, "is not named by tag and digest")
    return f"{len(images)} images are pinned by digest; scripts/pin_images.py compares them with their tags"


def check_hardening():
    """Containers are unprivileged and have limits."""
    compose = document(DEPLOY / "docker-compose.yml")["services"]
    for name, service in compose.items():
        limits = service["deploy"]["resources"]["limits"]
        check({"memory", "pids"} <= set(limits), name, "has no limit of memory and pids")
        check(service["read_only"] and service["cap_drop"] == ["ALL"], name, "has a writable root or capabilities")
        check("no-new-privileges:true" in service["security_opt"], name, "can gain privileges")
        check(not service["user"].startswith(("0", "root")), name, "is root")
        check(all(port.startswith("127.0.0.1:") for port in service["ports"]), name, "is not only on the loopback")
    grafana = compose["grafana"]["environment"]
    check(grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true", "Grafana has its default administrator")
    check(grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer", "anonymous users can edit in Grafana")
    for name, deployment in deployments().items():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        check(pod["securityContext"]["runAsNonRoot"], name, "may be root")
        check(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name, "has no seccomp profile")
        context = container["securityContext"]
        check(context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name, context)
        check(context["capabilities"] == {"drop": ["ALL"]}, name, context)
        requests, limits = (container["resources"][kind]["memory"] for kind in ("requests", "limits"))
        check(requests == limits, name, "requests less memory than its limit:", requests, limits)
    return "containers are unprivileged and have memory limits"


def check_network_policy():
    policy = document(DEPLOY / "kubernetes/base/network.yml")["spec"]
    check(policy["policyTypes"] == ["Ingress", "Egress"] and policy["egress"] == [], "the pods have outgoing access")
    for rule in policy["ingress"]:
        check(rule.get("from") and rule.get("ports"), "any client has access", rule)
        for peer in rule["from"]:
            check(peer["podSelector"].get("matchLabels"), "any pod has access", peer)
    for kubectl in filter(None, [tool("kubectl")]):
        for overlay in ("base", "gpu"):
            rendered = list(yaml.safe_load_all(run(kubectl, "kustomize", DEPLOY / "kubernetes" / overlay)))
            (one,) = (one for one in rendered if one["kind"] == "NetworkPolicy")
            check(one["spec"] == policy, overlay, "changes the policy:", one["spec"])
            name = {"app.kubernetes.io/name": "tower-kernels"}
            (deployment,) = (one for one in rendered if one["kind"] == "Deployment")
            check(deployment["spec"]["selector"]["matchLabels"] == name, deployment["spec"]["selector"])
            check(deployment["spec"]["template"]["metadata"]["labels"] == name, "pods lack the label", name)
    return "the network policy restricts access"


# Queries to Prometheus.


def queries():
    """Each query with its place, and with variables replaced by sample values."""
    plain = lambda text: re.sub(r"\$\w+", ".*", text.replace("$__rate_interval", "1m"))
    rules = document(DEPLOY / "prometheus/rules.yml")
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        yield f"alert {rule['alert']}", rule["expr"]
    dashboard = json.loads((DEPLOY / "grafana/dashboards/tower-kernels.json").read_text())
    uids = {source["uid"] for source in document(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]}
    for panel in dashboard["panels"]:
        check(panel["type"] == "row" or panel["datasource"]["uid"] in uids, panel["title"], "has no data source")
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", plain(target["expr"])
    for variable in dashboard["templating"]["list"]:
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
        yield f"variable {variable['name']}", f"count by ({label}) ({plain(selector)})"
    for rule in document(DEPLOY / "kubernetes/prometheus-adapter/values.yml")["rules"]["custom"]:
        yield "adapter", rule["seriesQuery"]
        yield "adapter", rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod="x"')


def parts(expression):
    """An expression and its subexpressions."""
    yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for argument in getattr(expression, "args", None) or []:
        yield from parts(argument)


def check_queries(page):
    series = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(\{.*\})?", line).groups()
            series.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
    outcomes = set(re.findall(r'Self::\w+ => "(\w+)"', (ROOT / "src/error/kind.rs").read_text())) | {"ok"}
    count = 0
    for where, query in queries():
        count += 1
        try:
            every = list(parts(promql_parser.parse(query)))
        except ValueError as error:
            check(False, where, query, error)
        selectors = [part for part in every if isinstance(part, promql_parser.VectorSelector)]
        check(selectors, where, "selects nothing:", query)
        known = set(TARGET_LABELS)
        for selector in selectors:
            check(selector.name == "up" or selector.name in series, where, "selects", selector.name, "which does not exist")
            labels = series.get(selector.name, set()) | TARGET_LABELS
            known |= labels
            for matcher in selector.matchers.matchers:
                check(matcher.name in labels, where, selector.name, "has no label", matcher.name)
                if matcher.name in ("outcome", "code"):
                    check(set(matcher.value.split("|")) <= outcomes, where, "selects the outcome", matcher.value)
        for part in every:
            modifier = getattr(part, "modifier", None)
            if isinstance(part, promql_parser.AggregateExpr) and modifier:
                check(set(modifier.labels) <= known, where, "groups by", modifier.labels, "of", known)
    metrics = document(DEPLOY / "kubernetes/base/autoscaler.yml")["spec"]["metrics"]
    wanted = [metric["pods"]["metric"]["name"] for metric in metrics if "pods" in metric]
    rules = document(DEPLOY / "kubernetes/prometheus-adapter/values.yml")["rules"]["custom"]
    made = [rule["name"]["as"] for rule in rules]
    check(wanted == made, "the autoscaler uses", wanted, "but the adapter provides", made)
    return f"{count} queries select existing metrics"


def check_prometheus():
    promtool = tool("promtool")
    if not promtool:
        return "promtool is not installed: its checks and the alert tests are NOT run"
    folder = DEPLOY / "prometheus"
    run(promtool, "check", "config", folder / "prometheus.yml")
    run(promtool, "test", "rules", folder / "rules_test.yml")
    return "promtool's checks and the alert tests pass"


# The program.


def environment(container):
    return {variable["name"]: variable["value"] for variable in container.get("env", [])}


def check_settings(program):
    usage = run(program, "serve", "--help")
    variables = set(re.findall(r"\[env: (\w+)", usage))
    flags = set(re.findall(r"(--[a-z][\w-]*)", usage))
    for path in filter(pathlib.Path.is_file, DEPLOY.rglob("*")):
        named = set(re.findall(r"\bTOWER_KERNELS_\w+", path.read_text()))
        check(named <= variables, path.name, "names", named - variables, "which the program does not read")
    for command in re.findall(r"tower-kernels serve([^`\n]*)", "".join(p.read_text() for p in DEPLOY.rglob("*.*"))):
        named = set(re.findall(r"(--[a-z][\w-]*)", command))
        check(named <= flags, "`tower-kernels serve`", "has no", named - flags)

    clean = {name: value for name, value in os.environ.items() if not name.startswith("TOWER_KERNELS_")}
    image, pods = DEPLOY / "tower-kernels.toml", DEPLOY / "kubernetes/base/tower-kernels.toml"
    runtime, _ = yaml.safe_load_all((DEPLOY / "kserve/serving-runtime.yml").read_text())
    run(program, *runtime["spec"]["containers"][0]["args"], "--print-config", env=clean)
    compose = document(DEPLOY / "docker-compose.gpu.yml")["services"]["tower-kernels"]["environment"]
    containers = {name: one["spec"]["template"]["spec"]["containers"][0] for name, one in deployments().items()}
    for file, variables in [(image, {}), (image, compose), *((pods, environment(one)) for one in containers.values())]:
        shown = run(program, "serve", "--config", file, "--print-config", env=clean | variables)
        effective = tomllib.loads(shown)
        check(effective["log"]["format"] == "json", file, shown)

    # The mounted files are those named by the image and the settings.
    mounted = {mount["name"]: mount["mountPath"] for mount in containers["base"]["volumeMounts"]}
    named = re.search(r"TOWER_KERNELS_CONFIG=(\S+)", (DEPLOY / "Dockerfile").read_text())[1]
    check(named == f"{mounted['config']}/tower-kernels.toml", named, "is not in", mounted)
    named = tomllib.loads(pods.read_text())["auth"]["api_keys_file"]
    check(named == f"{mounted['api-keys']}/api-keys.toml", named, "is not in", mounted)
    seconds = lambda text: float(re.fullmatch(r"(\d+)s", text)[1])
    for name, deployment in deployments().items():
        grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        drain = tomllib.loads(run(program, "serve", "--config", pods, "--print-config", env=clean))["drain"]
        check(grace > seconds(drain["notice"]) + seconds(drain["limit"]), name, "is killed before its drain ends:", grace, drain)
    drain = tomllib.loads(run(program, "serve", "--config", image, "--print-config", env=clean))["drain"]
    grace = document(DEPLOY / "docker-compose.yml")["services"]["tower-kernels"]["stop_grace_period"]
    check(seconds(grace) > seconds(drain["notice"]) + seconds(drain["limit"]), "Compose kills it before its drain ends:", grace)
    return "every setting exists in the program"


def ask(address, path, body=None, key=None):
    scheme = "" if "://" in address else "http://"
    request = urllib.request.Request(f"{scheme}{address}{path}", body and json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    if key:
        request.add_header("x-api-key", key)
    try:
        # The certificate was made by this check.
        with urllib.request.urlopen(request, timeout=20, context=ssl._create_unverified_context()) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "127.0.0.1:%d" % listener.getsockname()[1]


@contextmanager
def served(program, scheme="", *more):
    """The program with the settings of the pods, except for its addresses and the path of the secret."""
    rest, grpc = free(), free()
    keys = tempfile.NamedTemporaryFile("w", suffix=".toml")
    print(f'[[api_keys]]\ntenant = "acme"\nkey_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"', file=keys, flush=True)
    config = DEPLOY / "kubernetes/base/tower-kernels.toml"
    other = ["--rest-listen", rest, "--grpc-listen", grpc, "--drain-notice", "100ms", "--auth-api-keys-file", keys.name, *more]
    server = subprocess.Popen([program, "serve", "--config", config, *other], stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while True:
            check(server.poll() is None, "the server exited with", server.returncode)
            try:
                ask(scheme + rest, "/health/live")
                break
            except urllib.error.URLError:
                check(time.monotonic() - begun < 20, "the server does not respond")
                time.sleep(0.05)
        yield scheme + rest, grpc
        server.terminate()
        check(server.wait(20) == 0, "on SIGTERM the server exited with", server.returncode)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def check_probes(rest, grpc):
    """Each probe, at its named port."""
    address = {"http": rest, "grpc": grpc}
    count = 0
    for name, deployment in deployments().items():
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        config = tomllib.loads((DEPLOY / "kubernetes/base/tower-kernels.toml").read_text())
        for server, port in [("rest", "http"), ("grpc", "grpc")]:
            check(config[server]["listen"].endswith(f":{ports[port]}"), name, port, "is not", config[server]["listen"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            status, body = ask(address[get["port"]], get["path"])
            check(status == 200, name, probe, get, "returns", status, body)
            count += 1
        notes = deployment["spec"]["template"]["metadata"]["annotations"]
        check(notes["prometheus.io/port"] == str(ports["http"]), "Prometheus scrapes", notes)
        check(ask(rest, notes["prometheus.io/path"])[0] == 200, "there is no", notes["prometheus.io/path"])
    runtime, _ = yaml.safe_load_all((DEPLOY / "kserve/serving-runtime.yml").read_text())
    (container,) = runtime["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        check(ask(rest, container[probe]["httpGet"]["path"])[0] == 200, "KServe's", probe, "fails")
        count += 1
    socket.create_connection(tuple(grpc.split(":")), 5).close()
    for one in yaml.safe_load_all((DEPLOY / "kubernetes/base/services.yml").read_text()):
        check({port["targetPort"] for port in one["spec"]["ports"]} <= set(ports), one["metadata"]["name"], ports)
    return f"{count} probes succeed"


def work(rest):
    """Requests for every kind of metric."""
    saxpy = {"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0], "y": [1.0]}}
    nodes = 5_000
    cycle = {"num_nodes": nodes, "edges": [[node, (node + 1) % nodes] for node in range(nodes)]}
    slow = {"kernel_id": "graph/betweenness-centrality", "input": cycle, "metadata": {"timeout_ms": 10}}
    for body, expected in [(saxpy, 200), (slow, 504), ({"kernel_id": "no/such", "input": {}}, 404)]:
        check(ask(rest, "/execute", body)[0] == 401, body["kernel_id"], "runs without authentication")
        status, answer = ask(rest, "/execute", body, KEY)
        check(status == expected, body["kernel_id"], "returns", status, answer)


def tls_metrics(program):
    """The metrics of a server with TLS."""
    with tempfile.TemporaryDirectory() as folder:
        cert, key = f"{folder}/tls.crt", f"{folder}/tls.key"
        run(*f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {cert}".split())
        with served(program, "https://", "--tls-cert", cert, "--tls-key", key) as (rest, _):
            check(ask(rest, "/health/ready")[0] == 200, "with TLS it is not ready")
            page = ask(rest, "/metrics")[1].splitlines()
    return "".join(f"{line}\n" for line in page if line.startswith("kernel_tls_"))


def main(program):
    for part in (
        check_manifests,
        check_compose,
        check_images,
        check_hardening,
        check_network_policy,
        check_dockerfile,
        check_prometheus,
    ):
        print(part(), flush=True)
    print(check_settings(program), flush=True)
    with served(program) as (rest, grpc):
        print(check_probes(rest, grpc), flush=True)
        work(rest)
        page = ask(rest, "/metrics")[1]
    print(check_queries(page + "".join(file.read_text() for file in OTHER_METRICS) + tls_metrics(program)), flush=True)
    print("the server drained and exited with 0")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]).resolve())
