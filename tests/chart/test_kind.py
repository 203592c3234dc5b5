"""`scripts/kind`, as far as it can be tried without a Kubernetes.

Its manifests, its client, and the script itself among tools that only say what they would do.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from chart import ROOT, environment, of_kind, rendered, values_of
from test_network import SERVER, allowed
from test_render import KUBERNETES

MANIFESTS = ROOT / "tests" / "kubernetes"
CLIENT = MANIFESTS / "client"
SCRIPT = (ROOT / "scripts" / "kind").read_text()
VALUES = yaml.safe_load(Path(values_of("kind")).read_text())


def manifests(name: str) -> tuple[dict, ...]:
    return tuple(yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text()))


LOADER, ASKING, STORE = (manifests(name) for name in ("loader", "client", "store"))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("documents", [LOADER, ASKING, STORE], ids=["loader", "client", "store"])
def test_manifests_fit_kubernetes_schemas(documents: tuple[dict, ...], version: str) -> None:
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("documents", [LOADER, ASKING], ids=["loader", "client"])
def test_pods_beside_the_servers_keep_to_the_profile_restricted(documents: tuple[dict, ...]) -> None:
    spec = of_kind(documents, "Pod")["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
        assert container["image"] == f"{VALUES['image']['repository']}:{VALUES['image']['tag']}"
        assert container["imagePullPolicy"] == VALUES["image"]["pullPolicy"] == "Never"


def test_what_the_chart_names_is_made() -> None:
    documents = rendered("kind")
    claim = of_kind(LOADER, "PersistentVolumeClaim")["metadata"]["name"]
    assert VALUES["bulkIndex"]["existingClaim"] == claim
    assert f"TAG={VALUES['image']['repository']}:{VALUES['image']['tag']}\n" in SCRIPT
    for name in ("archive-secret", "api-key", "inner-key"):
        assert f'--from-file="$SECRETS/{name}"' in SCRIPT
    secrets = {VALUES[key]["existingSecret"] for key in ("apiKey",)} | {VALUES["archive"]["secret"]["existingSecret"]}
    assert secrets | {VALUES["cluster"]["innerKey"]["existingSecret"]} == {"medsearch"}
    # Of eight shards no replica has room for more than six and a half, and there are as many images as that counts on.
    images = int(re.search(r"^IMAGES=([0-9]+)", SCRIPT, re.MULTILINE)[1])
    assert VALUES["cluster"]["indexBytesMax"] == images * 32 * 32 * 4 * 13 // 16
    # Small enough for one machine with four nodes.
    assert of_kind(documents, "Deployment")["spec"]["replicas"] == 3
    host, port = VALUES["extraEnv"][1]["value"].removeprefix("http://").split(":")
    service = of_kind(STORE, "Service")
    assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert int(port) == service["spec"]["ports"][0]["port"]
    bucket = VALUES["archive"]["url"].removeprefix("s3://").split("/")[0]
    (container,) = of_kind(STORE, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert f"-bucket={bucket}" in container["args"]
    assert re.fullmatch(r"docker\.io/[a-z/]+@sha256:[0-9a-f]{64}", container["image"])


def test_the_network_policies_let_through_who_should_get_through() -> None:
    documents = rendered("kind")
    client = of_kind(ASKING, "Pod")["metadata"]["labels"]
    assert allowed(documents, "Ingress", SERVER, 8000, namespace="medsearch", labels=client)
    assert not allowed(documents, "Ingress", SERVER, 8001, namespace="medsearch", labels=client)
    loader = of_kind(LOADER, "Pod")["metadata"].get("labels", {})
    assert not allowed(documents, "Ingress", SERVER, 8000, namespace="medsearch", labels=loader)
    store = of_kind(STORE, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for component in ("server", "index", "compact"):
        pod = SERVER | {"app.kubernetes.io/component": component}
        assert allowed(documents, "Egress", pod, 8333, namespace="storage", labels=store)
        assert not allowed(documents, "Egress", pod, 443, address="52.219.1.1")


def test_nobody_who_asks_is_drained() -> None:
    cluster = yaml.safe_load((MANIFESTS / "kind.yaml").read_text())
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker", "worker"]
    for spec in (
        of_kind(ASKING, "Pod")["spec"],
        of_kind(STORE, "Deployment")["spec"]["template"]["spec"],
    ):
        assert spec["nodeSelector"] == {"node-role.kubernetes.io/control-plane": ""}
        assert spec["tolerations"][0]["key"] == "node-role.kubernetes.io/control-plane"


# ---- the client ----


class Searched(BaseHTTPRequestHandler):
    """Answers searches as the program does, each with the next of `statuses`."""

    statuses: list[str]
    key = "0123456789abcdef-key"

    def do_GET(self) -> None:
        self.answer(200, json.dumps({"name": "x", "space": {"id": "ab01", "dimension": 4}}, separators=(",", ":")))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked.append(body)
        status = self.statuses[len(asked) % len(self.statuses)]
        answer = {"coverage": {"shards": 8, "missing": [3] if status == "missing" else []}, "text": "é"}
        text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
        self.answer(503 if status == "503" else 200, text)

    def answer(self, status: int, text: str) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            status, text = 401, "{}"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


asked: list[dict] = []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The client's environment, for a server that answers well, without a shard, and not."""
    asked.clear()
    handler = type("Handler", (Searched,), {"statuses": ["200", "missing", "503"], "protocol_version": "HTTP/1.1"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    key = tmp_path / "key"
    key.write_text(Searched.key)
    place = {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": str(server.server_port), "KEY_FILE": str(key)}
    yield {"PATH": os.environ["PATH"], **place}
    server.shutdown()
    server.server_close()


def client(served: dict[str, str], *arguments: str) -> str:
    run = subprocess.run(["bash", CLIENT, *arguments], env=served, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_client_asks_one_search_after_another_and_says_what_came(served: dict[str, str]) -> None:
    began = time.time() * 1000
    process = subprocess.Popen(
        ["bash", CLIENT, "trickle", "0.01"], env=served, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    lines = [process.stdout.readline().split() for _ in range(6)]
    process.terminate()
    assert process.wait(10) == 0
    assert sorted(status for _, status, _ in lines) == ["200", "200", "503", "503", "missing", "missing"]
    for at, _, took in lines:
        assert began <= int(at) <= time.time() * 1000
        assert 0 <= int(took) < 10_000
    assert all(len(body["vector"]) == 4 and body["space"] == "ab01" and body["exact"] for body in asked)
    assert asked[0]["vector"] != asked[1]["vector"]


def test_the_client_says_none_where_nobody_answers(served: dict[str, str]) -> None:
    process = subprocess.Popen(
        ["bash", CLIENT, "trickle", "0.01"], env=served, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    process.stdout.readline()
    # Nobody may read the key: as if the connection failed.
    Path(served["KEY_FILE"]).unlink()
    seen = {process.stdout.readline().split()[1] for _ in range(5)}
    process.terminate()
    process.wait(10)
    assert "none" in seen


def test_the_client_tells_open_ports_from_closed_ones(served: dict[str, str]) -> None:
    assert client(served, "reach", "127.0.0.1", served["SERVER_PORT"]) == "yes\n"
    assert client(served, "reach", "127.0.0.1", "1") == "no\n"
    # Universal newlines have taken the carriage returns.
    head, _, body = client(served, "ask", "GET", "/v1/archive").partition("\n\n")
    assert head.startswith("HTTP/1.1 200") and json.loads(body)["name"] == "x"


# ---- the script, among tools that only say what they would do ----

# Answers of a cluster in which all goes well; `FAULT` spoils one of them. Every call is written down.
TOOL = r"""
import json, os, sys, time
name, arguments = os.path.basename(sys.argv[1]), sys.argv[2:]
faults = os.environ.get("FAULT", "").split(",")
log = os.environ["CALLS"]
before = open(log).read() if os.path.exists(log) else ""
with open(log, "a") as file:
    file.write(name + " " + " ".join(arguments) + "\n")
line = " ".join(arguments)
says = lambda text: print(text, end="")
if name == "kind":
    if arguments[0] == "version":
        says("kind v0.23.0 go1.22 linux/amd64\n" if "old kind" in faults else "kind v0.33.0 go1.25 linux/amd64\n")
    elif line == "get clusters" and "cluster there" in faults:
        says("medsearch-kind\n")
    elif line.startswith("create cluster"):
        open(os.environ["KUBECONFIG"], "w").close()
        sys.exit(1 if "no cluster" in faults else 0)
elif name == "docker":
    if arguments[0] == "save":
        open(arguments[2], "w").close()
    sys.exit(1 if line == "info" and "no engine" in faults else 0)
elif name == "helm":
    if arguments[0] == "version":
        says("v4.3.1\n")
    if arguments[0] == "test":
        says("passed: it is ready\n")
        sys.exit(1 if "helm test" in faults else 0)
    # Long enough for the searches that an upgrade is judged by.
    if arguments[0] == "upgrade":
        time.sleep(0.5)
elif name == "kubectl":
    if line.startswith("version"):
        says(json.dumps({"serverVersion": {"gitVersion": "v1.37.0"}}))
    elif "logs client" in line:
        now = int(time.time() * 1000)
        begun = {"lost in drain": "kubectl drain", "lost in upgrade": "helm upgrade"}
        lost = any(begun[fault] in before for fault in faults if fault in begun)
        for at in range(now - 30_000, now):
            says(f"{at} {'none' if lost and at % 20 == 0 else 200} 12\n")
    elif "get pods" in line and "nodeName" in line:
        says("node-a\nnode-a\nnode-c\n" if "one node" in faults else "node-a\nnode-b\nnode-c\n")
    elif "get pods" in line and "podIP" in line:
        says("10.0.0.1\n10.0.0.2\n10.0.0.3\n")
    elif "get pods" in line:
        says("localhost/medsearch:kind\n" * 3)
    elif "/metrics" in line:
        held = 8 if "all held" in faults else 5
        says(f'HTTP/1.1 200 OK\r\n\r\nmedsearch_shards{{state="held"}} {held}\n')
        says('medsearch_shard_requests_total{outcome="answered"} 40\n')
    elif "client reach" in line:
        says("yes\n" if "policy" in faults and "loader" in line else "no\n")
    elif "get pdb" in line:
        says("1 2\n" if "budget" in faults else "2 2\n")
    elif line.startswith("drain"):
        time.sleep(0.5)
    elif " tar " in line:
        sys.stdin.buffer.read()
"""
NEEDED = (
    *(
        "awk",
        "bash",
        "cat",
        "cut",
        "date",
        "df",
        "dirname",
        "env",
        "git",
        "grep",
        "head",
        "id",
        "mkdir",
        "od",
        "printf",
    ),
    *("rm", "sed", "seq", "sort", "tail", "tar", "tr", "true", "wc"),
)


@pytest.fixture
def workshop(tmp_path: Path):
    """Runs scripts/kind in a copy of what it reads, with such tools and no others."""
    root, programs = tmp_path / "checkout", tmp_path / "bin"
    for folder in ("scripts", "charts", "tests/kubernetes"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    programs.mkdir()
    (tmp_path / "tool.py").write_text(TOOL)
    for name in NEEDED:
        (programs / name).symlink_to(shutil.which(name))
    (programs / "sleep").write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 0.1\n")
    (programs / "sleep").chmod(0o755)
    for name in ("docker", "kind", "kubectl", "helm"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/tool.py "$0" "$@"\n')
        (programs / name).chmod(0o755)
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    # Pictures take long to draw.
    python.write_text(
        "#!/bin/bash\n"
        'case "$1" in scripts/make_synthetic_xrays.py) mkdir -p "$3" && echo drawn >"$3/x.png" ;; *) exec '
        f'{sys.executable} "$@" ;; esac\n'
    )
    python.chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments: str, fault: str = "", without: str = "") -> tuple[int, str, str]:
        if without:
            (programs / without).unlink()
        outcome = subprocess.run(
            [root / "scripts/kind", *arguments],
            env={"PATH": str(programs), "CALLS": str(calls), "FAULT": fault, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return outcome.returncode, outcome.stdout + outcome.stderr, calls.read_text() if calls.exists() else ""

    run.place = root / ".local/kind"
    return run


def test_all_goes_well_and_nothing_is_left_behind(workshop) -> None:
    status, said, calls = workshop("--image", "medsearch:new", "--before", "medsearch:old")
    assert status == 0, said
    assert re.search(r"^[0-9]+ passed, 0 failed$", said, re.MULTILINE), said
    assert "kind 0.33.0, v4.3.1, Kubernetes v1.37.0" in said
    install, upgrade = (line for line in calls.splitlines() if re.match("helm (install|upgrade) ", line))
    assert "image.tag=kind-before " in install and "image.tag=kind,bulkIndex.enabled=false" in upgrade
    drained = [line.split()[2] for line in calls.splitlines() if line.startswith("kubectl drain")]
    assert sorted(drained) == ["node-a", "node-b"]
    assert "docker tag medsearch:old localhost/medsearch:kind-before" in calls
    assert calls.splitlines()[-2:] == [
        "kind delete cluster --name medsearch-kind",
        "docker rmi localhost/medsearch:kind localhost/medsearch:kind-before",
    ]
    left = {path.name for path in workshop.place.iterdir()}
    assert not left & {"secrets", "kubeconfig", "image.tar", "evidence"}
    # Secrets are in files of their own, never on a command line.
    assert not re.search(r"[0-9a-f]{40}", calls)


FAULTS = {
    "one node": "three replicas are on three nodes",
    "helm test": "helm test",
    "all held": "no replica holds every shard",
    "policy": "who is no client does not reach the API",
    "lost in upgrade": "no search fails in an upgrade",
    "lost in drain": "no search fails while nodes are drained",
    "budget": "the disruption budget holds",
}


def test_what_is_not_as_promised_is_named_and_nothing_else(workshop) -> None:
    status, said, calls = workshop("--image", "medsearch:new", fault=",".join(FAULTS))
    assert status == 1, said
    named = re.findall(r"^FAILED +(.+?)(?: {2,}.*)?$", said, re.MULTILINE)
    assert named == [*FAULTS.values()], said
    assert re.search(r"^[0-9]+ passed, 7 failed$", said, re.MULTILINE)
    # The rest was tried all the same, what it was like is kept, and the cluster goes.
    assert "passed: compaction runs" in said
    assert (workshop.place / "evidence/events.txt").exists()
    assert "kind delete cluster" in calls


def test_a_cluster_that_does_not_come_up_goes_too(workshop) -> None:
    status, said, calls = workshop("--image", "medsearch:new", fault="no cluster")
    assert status == 70 and "see " in said
    assert "kind delete cluster --name medsearch-kind" in calls and "helm install" not in calls


@pytest.mark.parametrize(
    "fault, without, sentence",
    [
        ("no engine", "", "no docker or podman answers here: install one"),
        ("", "docker", "no docker or podman answers here: install one"),
        ("", "kind", "kind is missing: install 0.24 or newer"),
        ("old kind", "", "kind 0.24 or newer is needed and this is 0.23.0"),
        ("", "kubectl", "kubectl is missing: install it as"),
        ("", "helm", "helm is missing: install 3.16 or newer"),
        ("cluster there", "", "there is a cluster medsearch-kind already: choose another --name"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(workshop, fault: str, without: str, sentence: str) -> None:
    status, said, calls = workshop(fault=fault, without=without)
    assert status == 70
    assert said.count("\n") == 1 and said.startswith("error: ") and sentence in said, said
    for begun in ("create cluster", "delete cluster", "build", "rmi", "tag "):
        assert begun not in calls


def test_a_cluster_may_stay(workshop) -> None:
    status, said, calls = workshop(
        "--image", "medsearch:new", "--keep", "--name", "mine", "--node-image", "kindest/node:v1.29.0"
    )
    assert status == 0, said
    assert "kind delete cluster --name mine" in said and "kind delete" not in calls
    assert "--name mine " in calls and "--image kindest/node:v1.29.0" in calls
    assert (workshop.place / "kubeconfig").exists()


def test_the_environment_of_the_index_job_names_a_model_that_is_there() -> None:
    (container,) = of_kind(rendered("kind"), "Job")["spec"]["template"]["spec"]["containers"]
    assert environment(container)["MEDSEARCH_MODEL"] == "thumbnail"
    assert "--shards=8" in container["args"] and "--data=/import/images" in container["args"]
