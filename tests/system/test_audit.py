"""The audit of the real program: killed, restarted, filled up, tampered with."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conftest import PROGRAM, png

# As the server calls its smallest bound.
LEAST = 64 << 10


def lines(folder: Path) -> list[dict]:
    """Every whole line of an audit, by file."""
    texts = (file.read_text() for file in sorted(folder.glob("*.jsonl")))
    return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def verify(small_archive, tmp_path):
    """(exit code, text) of `medsearch verify-audit`."""

    def run():
        command = [PROGRAM, "verify-audit", "--archive", small_archive, "--audit-dir", tmp_path / "audit"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def start(small_archive, serve, tmp_path):
    """A server with an audit."""

    def begin(*arguments):
        audit = ("--audit-dir", tmp_path / "audit", *arguments)
        return serve(small_archive, "--model", "thumbnail", *audit, log=tmp_path / "log")

    return begin


def test_a_killed_server_is_named_and_no_answered_write_is_missing(start, verify, tmp_path):
    server = start()
    added = []
    for number in range(5):
        status, answer = server.post_image(
            "/v1/images",
            png(number),
            **{"class": "NORMAL", "patient_id": f"Doe^Jane{number}", "study_uid": f"1.2.840.99999.{number}"},
        )
        assert status == 201
        added.append(answer["id"])
    assert server.post_image("/v1/search", png(1))[0] == 200
    metrics = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    server.kill()
    written = [line for line in lines(tmp_path / "audit") if line["what"] == "addImage" and line.get("status") == 201]
    assert [line["images"][0] for line in written] == added
    code, text = verify()
    assert code == 0, text
    assert "was killed" in text, text

    start().stop()
    code, text = verify()
    assert code == 0, text
    assert text.count("was killed") == 1, text
    assert "in 2 files of 2 processes" in text, text
    # The second start holds the end of the first: cut off, it is missed, whatever the archive knew of it.
    # Both may have started in one second: then their names do not say which was first.
    [first] = [file for file in (tmp_path / "audit").glob("*.jsonl") if added[0] in file.read_text()]
    whole = first.read_bytes()
    first.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    code, text = verify()
    assert code == 3, text
    assert f"{first.name}: ends at line" in text, text
    # A picture of somebody else under the same line.
    first.write_bytes(whole.replace(added[0].encode(), added[1].encode(), 1))
    code, text = verify()
    assert code == 3, text
    assert "was changed" in text, text
    first.write_bytes(whole)
    assert verify()[0] == 0
    texts = [first.read_text()]
    first.unlink()
    code, text = verify()
    assert code == 3, text
    assert "are missing" in text, text

    texts += [file.read_text() for file in (tmp_path / "audit").glob("*.jsonl")]
    said = "".join([metrics, (tmp_path / "log").read_text(), *texts])
    for whose in ("Doe^Jane", "1.2.840.99999", 'filename="x"'):
        assert whose not in said


def test_a_full_audit_refuses_changes_and_answers_searches(start, verify, tmp_path):
    server = start("--audit-bytes-max", LEAST)
    # A search's line names its neighbors: some hundred fill the folder.
    status = 201
    for number in range(1000):
        status, _ = server.post_image("/v1/search", png(number % 7), k=30)
        assert status == 200
        if sum(file.stat().st_size for file in (tmp_path / "audit").glob("*.jsonl")) > LEAST - 1500:
            break
    for number in range(5):
        server.post_image("/v1/search", png(number), k=30)
    status, problem = server.post_image("/v1/images", png(100), **{"class": "NORMAL"})
    assert (status, problem["type"]) == (507, "/problems/storage-full")
    delete = urllib.request.Request(f"{server.url}/v1/images/{'0' * 36}", method="DELETE")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(delete, timeout=30)
    assert (refused.value.code, refused.value.headers["Retry-After"]) == (507, "30")
    assert server.post_image("/v1/search", png(1), k=30)[0] == 200
    time.sleep(0.5)  # lines of searches are written behind their answers
    metrics = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    assert "medsearch_audit_broken 1" in metrics
    lost = next(int(line.split()[1]) for line in metrics.splitlines() if line.startswith("medsearch_audit_lost_total"))
    server.stop()

    # With room again everything goes on, and the gap is on record.
    server = start("--audit-bytes-max", 2 * LEAST)
    assert server.post_image("/v1/images", png(100), **{"class": "NORMAL"})[0] == 201, "it was refused before"
    server.stop()
    gaps = [line["lost"] for line in lines(tmp_path / "audit") if line["what"] == "gap"]
    assert sum(gaps) == lost > 3
    code, text = verify()
    assert code == 0, text
    assert f"{lost} events have no line" in text, text
