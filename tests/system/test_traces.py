"""Traces: what a real collector would receive of real replicas, and what becomes of searches when there is none."""

import json
import socket
import time
import urllib.request

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector import DIRECT, PATIENCE_S, Collector, texts
from conftest import free_port, medsearch, png

DIMENSION, SHARDS = 1024, 4
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "hospital=ward-3"}
PATIENT, STUDY = "PAT-4711-DOE", "1.2.840.4711.99"


@pytest.fixture
def collector():
    """A collector for one test."""
    started = Collector()
    yield started
    started.stop()


def series(server, name):
    """Sum of a series of a server."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@pytest.fixture
def replicas(synthetic, tmp_path, serve, collector):
    """Two replicas, neither with memory for all of four shards. They record what callers record and nothing else."""
    embeddings, archive = tmp_path / "embeddings", tmp_path / "archive"
    medsearch("embed", "--data", synthetic, "--out", embeddings, "--model", "thumbnail")
    where = ("--embeddings", embeddings, "--data", synthetic, "--model", "thumbnail", "--archive", archive)
    medsearch("index", *where, "--shards", SHARDS, "--synthetic")
    rows = sum(np.load(path).shape[0] for path in embeddings.glob("*.npy"))
    key = tmp_path / "inner.key"
    key.write_text("the-replicas-of-this-test")
    key.chmod(0o600)
    inner = [free_port(), free_port()]
    common = ["--peers", ",".join(f"http://127.0.0.1:{port}" for port in inner), "--inner-key-file", key]
    common += ["--index-bytes-max", rows * DIMENSION * 4 * 8 // 10]
    common += ["--otlp-endpoint", collector.url, "--trace-share", "0"]
    started = []
    for number, port in enumerate(inner):
        own = ("--replica", f"replica-{number}", "--inner-listen", f"127.0.0.1:{port}")
        log = tmp_path / f"replica-{number}.log"
        started.append(serve(archive, *common, *own, environment=DIRECT, log=log))
    end = time.monotonic() + PATIENCE_S
    while any(server.post_image("/v1/search", png(1))[0] != 200 for server in started):
        assert time.monotonic() < end, "the replicas do not hold all shards together"
        time.sleep(0.2)
    return started


def test_a_search_of_two_replicas_is_one_tree_in_the_callers_trace(replicas, collector, tmp_path):
    """Every stage is a span, every replica has its part, and nothing says whose image it was."""
    status, answer = replicas[0].post_image("/v1/search", png(7), headers=RECORDED, patient_id=PATIENT, study_uid=STUDY)
    assert status == 200 and answer["coverage"]["answered"] == SHARDS, answer
    spans = collector.wait(lambda spans: len([1 for _, span in spans if span.kind == Span.SPAN_KIND_SERVER]) >= 2)
    assert {span.trace_id.hex() for _, span in spans} == {TRACE}, "what no caller records is not recorded"

    by_id = {span.span_id: (sender, span) for sender, span in spans}
    assert len(by_id) == len(spans)
    roots = [(sender, span) for sender, span in spans if span.parent_span_id not in by_id]
    assert [(sender, span.name) for sender, span in roots] == [("replica-0", "POST /v1/search")]
    root = roots[0][1]
    assert root.parent_span_id.hex() == CALLER and root.trace_state == RECORDED["tracestate"]
    children = {span.name for _, span in spans if span.parent_span_id == root.span_id}
    assert children == {"pin", "prepare", "embed", "search", "POST /inner/v1/search", "merge", "vote"}

    calls = [span for sender, span in spans if span.kind == Span.SPAN_KIND_CLIENT]
    answers = [(sender, span) for sender, span in spans if span.kind == Span.SPAN_KIND_SERVER and span is not root]
    assert [sender for sender, _ in answers] == ["replica-1"] * len(answers)
    assert {span.parent_span_id for _, span in answers} <= {call.span_id for call in calls}
    for _, answered in answers:
        below = {(sender, span.name) for sender, span in spans if span.parent_span_id == answered.span_id}
        assert below == {("replica-1", "search")}
    for _, span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano and not span.events
        assert span.status.code != Status.STATUS_CODE_ERROR

    said = texts(root.attributes)
    assert said["http.request.method"] == "POST" and said["http.route"] == "/v1/search"
    assert said["http.response.status_code"] == "200" and said["url.scheme"] == "http"
    call = texts(calls[0].attributes)
    assert call["http.response.status_code"] == "200" and call["server.address"] == "127.0.0.1"
    assert (call["medsearch.why"], call["medsearch.outcome"]) == ("first", "answered")
    here = next(span for sender, span in spans if sender == "replica-0" and span.name == "search")
    shards = ",".join((texts(here.attributes)["medsearch.shards"], call["medsearch.shards"])).split(",")
    assert sorted(shards) == [str(shard) for shard in range(SHARDS)]
    embed = texts(next(span for _, span in spans if span.name == "embed").attributes)
    assert embed["medsearch.batch"] == "1" and float(embed["medsearch.model_ms"]) > 0

    everything = str(spans)
    secrets = [PATIENT, STUDY, *(neighbor["id"] for neighbor in answer["neighbors"])]
    assert not [secret for secret in secrets if secret in everything]
    # The lines of both replicas are found by the trace as well.
    for number in range(2):
        lines = (tmp_path / f"replica-{number}.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if TRACE in line]
        assert [line["trace_id"] for line in found if line["message"].startswith("answered")] == [TRACE]


def test_what_waits_at_the_end_is_sent(small_archive, serve, collector):
    """SIGTERM right after an answer: its spans still arrive."""
    server = serve(small_archive, "--otlp-endpoint", collector.url, environment=DIRECT)
    assert server.post_image("/v1/search", png(3))[0] == 200
    server.stop()
    assert server.process.returncode == 0
    assert "POST /v1/search" in {span.name for _, span in collector.spans}
    # Probes and scrapes are no traces.
    assert not {span.name for _, span in collector.spans if "readyz" in span.name}


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_without_its_collector_a_server_answers_and_counts_what_is_lost(how, small_archive, serve, tmp_path):
    """Nobody waits for a collector: not a search, and not the end for more than a moment."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if how == "hangs" else free_port()
        log = tmp_path / "log"
        server = serve(small_archive, "--otlp-endpoint", f"http://127.0.0.1:{port}", environment=DIRECT, log=log)
        end = time.monotonic() + PATIENCE_S
        while not series(server, 'medsearch_spans_total{outcome="dropped"}'):
            assert time.monotonic() < end, "no span is counted as lost"
            began = time.monotonic()
            assert server.post_image("/v1/search", png(4))[0] == 200
            assert time.monotonic() - began < 2
            time.sleep(0.2)
        # It goes on, and is not said again.
        for number in range(10):
            assert server.post_image("/v1/search", png(number))[0] == 200
            time.sleep(0.2)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 6 and server.process.returncode == 0
    said = [line for line in log.read_text().splitlines() if "spans are dropped" in line]
    assert len(said) == 1
