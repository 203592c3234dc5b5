"""A real Prometheus reads replicas that are used: every expression of the chart's dashboards and rules has data."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from conftest import PROGRAM, ROOT, have, medsearch
from medsearch_py.client import Client
from medsearch_py.cluster import Cluster
from medsearch_py.drawn import CLASSES, room_for
from medsearch_py.load import Ingests, OpenLoop, Searches, picture

REPLICAS, SHARDS = 2, 8
# The replicas have to ask each other.
SHARDS_FIT = 6
SEARCHES_PER_S, INGESTS_PER_S = 20.0, 2.0
DATA_MAX_S = 90
# What nightly compaction is watched by comes from Kubernetes; certificates, PACS and Orthanc are where somebody set
# them up.
ELSEWHERE = "kube_cronjob_|medsearch_tls_|medsearch_pacs_|medsearch_orthanc_"
TLS = ("MedsearchTlsFilesBroken", "MedsearchCertificateExpires")
PACS = ("MedsearchPacs", "MedsearchOrthanc", "MedsearchDeletions", "Orthanc: ", "PACS: ")
ALLOWED = ("MedsearchCompactOverdue", *TLS, *PACS)
# Exported by servers that have a certificate, a PACS to ask or an Orthanc to follow.
OPTIONAL = ("medsearch_tls_", "medsearch_pacs_", "medsearch_orthanc_")


@pytest.fixture(scope="module")
def helm():
    """The rules are rendered by Helm."""
    found = subprocess.run([ROOT / "scripts/lib/helm"], capture_output=True, text=True)
    if found.returncode == 77:
        pytest.skip(found.stderr.strip())
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.fixture
def cluster(synthetic, tmp_path):
    """Replicas over an archive with pictures, and a Prometheus that looks each second."""
    have("prometheus")
    embeddings, archive = tmp_path / "embeddings", tmp_path / "archive"
    medsearch("embed", "--data", synthetic, "--out", embeddings, "--model", "thumbnail")
    where = ("--embeddings", embeddings, "--data", synthetic, "--model", "thumbnail", "--archive", archive)
    medsearch("index", *where, "--shards", SHARDS, "--synthetic")
    images = sum(len(json.loads((embeddings / f"{name}.json").read_text())["records"]) for name in CLASSES)
    room = ("--index-bytes-max", room_for(SHARDS_FIT, SHARDS, images))
    with Cluster(
        REPLICAS, archive, tmp_path / "run", "--program", PROGRAM, "--sample-share", 1, "--scrape-seconds", 1, *room
    ) as cluster:
        yield cluster


def value_of(url: str, query: str) -> float:
    """What Prometheus says at this moment; 0 where it says nothing."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/api/v1/query?query={query}", timeout=5) as answer:
        result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0
    return 0.0


@contextlib.contextmanager
def used(cluster: Cluster) -> Iterator[None]:
    """Searched and written to meanwhile; explained, reported and started again once."""
    searches = Searches(cluster.direct[0])
    loads = [
        OpenLoop(searches, cluster.direct[:1], SEARCHES_PER_S),
        OpenLoop(Ingests(searches.classes), cluster.direct[:1], INGESTS_PER_S),
    ]
    for load in loads:
        load.start()
    try:
        client = Client(cluster.direct[0])
        image = searches.ids[0]
        client.ask_form("/v1/explanations", picture(1), fields=[("neighbor", image)]).expect(200)
        client.ask_json("POST", "/v1/feedback", {"image": image, "reason": "another class"}).expect(200, 201)
        client.close()
        # The dashboards mark where a replica was started again.
        cluster.restart(1)
        yield
    finally:
        for load in loads:
            load.stop()


def test_every_panel_and_rule_has_data(helm, cluster):
    """As `tests/chart/live.py` says of an installation."""
    assert (cluster.place / "rules.json").exists(), cluster.log.read_text()
    url = f"http://127.0.0.1:{cluster.ports.prometheus}"
    until = time.monotonic() + DATA_MAX_S
    while value_of(url, "sum(up{job=%22medsearch%22})") < REPLICAS:
        assert time.monotonic() < until, (cluster.place / "prometheus.log").read_text()[-2000:]
        time.sleep(0.2)
    ask = [sys.executable, ROOT / "tests/chart/live.py", "--prometheus", url, "--since", "120s", "--allow", ELSEWHERE]
    with used(cluster):
        while True:
            asked = subprocess.run(ask, env=os.environ | {"MEDSEARCH_HELM": helm}, capture_output=True, text=True)
            if asked.returncode == 0 or time.monotonic() > until:
                break
            time.sleep(1)
    print(asked.stdout)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "exported, but unknown to tests/chart/expressions.py: none" in asked.stdout
    [absent] = re.findall(r"^known there, but not exported: (.+)$", asked.stdout, re.MULTILINE)
    assert all(name.startswith(OPTIONAL) for name in absent.split(", ")), absent
    allowed = [line for line in asked.stdout.splitlines() if line.startswith("no data, allowed: ")]
    assert all(any(alert in line for alert in ALLOWED) for line in allowed), allowed
    with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=5) as answer:
        groups = json.load(answer)["data"]["groups"]
    assert groups
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
