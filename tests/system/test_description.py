"""The description of the API (OpenAPI) against the program: what schemathesis makes of it is answered as described."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import medsearch

# Of generated requests for an endpoint.
EXAMPLES, SEED = 8, 5
# What schemathesis sends where bodies are DICOM.
BODIES = Path(__file__).with_name("dicom_bodies.py")
# What fits the description is accepted, but by these. It can't say which bytes are a picture or a DICOM file,
STORES = {
    "storeInstances": "/dicom-web/studies",
    "storeInstancesOfStudy": "/dicom-web/studies/{study}",
    "storePeerInstance": "/instances",
}
BYTES = ["embed", "explain", "addImage", "searchByImage", *STORES]
# nor which classes, sources, spaces and PACS there are, nor which ids stand for no patient,
NAMES = ["relabelImage", "reportLabel", "searchById", "searchByVector", "searchByReference", "deletePatient"]
# nor what is a window, a viewport, or the place in a list.
RENDERED = ["getRendered", "getRenderedStudy", "getRenderedSeries", "getRenderedInstance", "getRenderedFrames"]
GRAMMARS = [*RENDERED, "listFeedback"]
CONFIGURATION = f"""\
[checks]
# A version that is not served yet: a refusal that says when to come back.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
# Beside what schemathesis takes for an acceptance: a header or parameter `accept` may ask for a form that is not given.
positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "406", "409", "429", "5xx"]

[[operations]]
include-operation-id = {json.dumps(BYTES + NAMES + GRAMMARS)}
checks.positive_data_acceptance.enabled = false
"""
# Each scope, and its seconds. What it does not open is refused as described.
SCOPES = {"ingest": 12, "admin": 30, "search": 12, "metrics": 6}


@pytest.fixture
def server(small_archive, serve, tmp_path):
    """A server with a key for each scope."""
    keys = {
        scope: medsearch(
            "key", "new", "--file", tmp_path / "keys.json", "--name", scope, "--scope", scope
        ).stdout.strip()
        for scope in SCOPES
    }
    # What is made up is not there, and shall be asked for all the same.
    unbounded = ("--identity-misses-per-hour", "0")
    server = serve(small_archive, "--keys-file", tmp_path / "keys.json", *unbounded, log=tmp_path / "log")
    return server, keys


def test_what_is_described_is_so_for_every_scope(server, tmp_path):
    """No answer that is not described, none of another shape, no fault of the server."""
    server, keys = server
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    for scope, seconds in SCOPES.items():
        options = ["--seed", SEED, "--max-examples", EXAMPLES, "--max-time", seconds]
        # Who ingests has time for nothing but that, so that it is sent on the slowest machine.
        only = STORES if scope == "ingest" else ()
        options += [word for name in only for word in ("--include-operation-id", name)]
        options += ["--phases", "examples,coverage,fuzzing", "--generation-database", "none"]
        run = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "--config-file", tmp_path / "schemathesis.toml"),
                *("run", f"{server.url}/openapi.json", "--header", f"X-Api-Key: {keys[scope]}"),
                *map(str, options),
                *("--continue-on-failure", "--no-color", "--warnings", "off"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "NO_PROXY": "127.0.0.1",
                "SCHEMATHESIS_HOOKS": str(BODIES),
            },
        )
        assert run.returncode == 0, f"{scope}: {run.stdout[-8000:]}{run.stderr[-2000:]}"
        assert "Tested: " in run.stdout
    assert server.process.poll() is None
    server.stop()
    lines = (tmp_path / "log").read_text().splitlines()
    answered = [json.loads(line) for line in lines if '"message":"answered' in line]
    assert len(answered) > 500
    assert {line["key"] for line in answered if "key" in line} == set(SCOPES)
    stored = {line["route"] for line in answered if line.get("key") == "ingest" and line["status"] in (200, 202, 409)}
    assert stored == set(STORES.values())
    faults = [line for line in answered if line["status"] >= 500]
    assert not [line for line in faults if line["status"] != 503 or not line["route"].startswith("/v1/search")], faults[
        :5
    ]
