"""A real Prometheus reads servers that export everything: panels and rules have data, and `live.py` sees what lacks."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import pytest
import yaml
from chart import NAMESPACE, RELEASE, rule_groups
from expressions import OTHERS, PRODUCT, Metric

# What requests are counted by; other labels with free values get these.
ROUTES = [("POST", "/v1/search", status) for status in ("200", "429", "503")] + [("POST", "/v1/images", "200")]
FREE = {
    "class": ["Normal"],
    "version": ["0.1.0"],
    "method": ["cells"],
    "pacs": ["main"],
    "orthanc": ["front"],
    "cronjob": [f"{RELEASE}-compact"],
}
# The bound that the latency objective needs among them.
BOUNDS = ("0.1", "1", "10", "+Inf")
SECONDS_MAX = 60


def labelled(metric: Metric) -> Iterator[dict[str, str]]:
    """Every combination of labels that a metric has."""
    if "route" in metric.labels:
        for method, route, status in ROUTES:
            row = {"method": method, "route": route, "status": status}
            yield {name: row[name] for name in metric.labels}
        return
    names = sorted(metric.labels)
    for values in product(*(sorted(metric.labels[name]) or FREE[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def exposition(metrics: dict[str, Metric]) -> str:
    """The text that Prometheus reads: counters and histograms grow with time."""
    tick = int(time.time())
    lines = []
    for name, metric in metrics.items():
        lines.append(f"# TYPE {name} {metric.kind}")
        rows = {json.dumps(row, sort_keys=True): row for row in labelled(metric)}.values()
        for row in rows:
            if metric.kind != "histogram":
                lines.append(f"{name}{shown(row)} {tick if metric.kind == 'counter' else 1 + tick // 3 % 2}")
                continue
            for number, bound in enumerate(BOUNDS, start=1):
                lines.append(f"{name}_bucket{shown(row | {'le': bound})} {tick * number}")
            lines += [f"{name}_sum{shown(row)} {tick}", f"{name}_count{shown(row)} {tick * len(BOUNDS)}"]
    return "\n".join(lines) + "\n"


def shown(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def serve(metrics: dict[str, Metric]) -> ThreadingHTTPServer:
    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(exposition(metrics).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def job(name: str, servers: list[ThreadingHTTPServer]) -> dict:
    targets = [
        {"targets": [f"127.0.0.1:{server.server_port}"], "labels": {"namespace": NAMESPACE, "pod": f"{name}-{number}"}}
        for number, server in enumerate(servers)
    ]
    return {"job_name": name, "static_configs": targets}


class Started:
    """A Prometheus with the chart's rules and these metrics, each second."""

    def __init__(self, folder: Path, metrics: dict[str, Metric]) -> None:
        others = {name: metric for name, metric in OTHERS.items() if name != "up"}
        self.servers = [serve(metrics), serve(metrics), serve(others)]
        groups = json.loads(rule_groups())["groups"]
        (folder / "rules.yaml").write_text(
            yaml.safe_dump({"groups": [{**group, "interval": "1s"} for group in groups]})
        )
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [job(RELEASE, self.servers[:2]), job("kube-state-metrics", self.servers[2:])],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = (folder / "prometheus.log").open("w")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def asked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(__file__).with_name("live.py")
        return subprocess.run(
            [sys.executable, str(program), "--prometheus", self.url, "--since", "60s", *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def wait_for_rules(self) -> None:
        """Until what is recorded last, and from other recorded series, is there."""
        until = time.monotonic() + SECONDS_MAX
        while time.monotonic() < until:
            try:
                query = f"{self.url}/api/v1/query?query=medsearch:suggestions:ratio6h"
                with urllib.request.urlopen(query, timeout=5) as answer:
                    if json.load(answer)["data"]["result"]:
                        return
            except OSError:
                pass
            assert self.process.poll() is None, "Prometheus ended"
            time.sleep(0.5)
        raise AssertionError("the rules recorded nothing")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.close()
        for server in self.servers:
            server.shutdown()


@pytest.fixture
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Started]:
    without = request.param
    prometheus = Started(tmp_path, {name: metric for name, metric in PRODUCT.items() if name not in without})
    try:
        prometheus.wait_for_rules()
        # Two more rounds: some rules read what others recorded.
        time.sleep(3)
        yield prometheus
    finally:
        prometheus.stop()
        shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.mark.parametrize("started", [()], indirect=True, ids=["everything exported"])
def test_every_panel_and_rule_has_data_where_everything_is_exported(started: Started) -> None:
    outcome = started.asked()
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "known there, but not exported: none" in outcome.stdout
    assert re.search(r"; [0-9]+ expressions have data, 0 have none, 0 need none, 0 are refused", outcome.stdout)
    with urllib.request.urlopen(f"{started.url}/api/v1/rules", timeout=5) as answer:
        groups = json.load(answer)["data"]["groups"]
    # A rule may parse and still fail on real series: many-to-many, or a label twice.
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []


@pytest.mark.parametrize("started", [("medsearch_quality_drift",)], indirect=True, ids=["one metric missing"])
def test_a_panel_without_data_is_named(started: Started) -> None:
    outcome = started.asked()
    assert outcome.returncode == 1
    assert "no data: quality.json: Drift" in outcome.stdout and "MedsearchQueriesDrift" in outcome.stdout
    assert "known there, but not exported: medsearch_quality_drift" in outcome.stdout
    assert started.asked("--allow", "medsearch_quality_drift").returncode == 0
