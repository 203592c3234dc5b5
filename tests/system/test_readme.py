"""The examples of README.md, as printed, against servers that ask who is there: by key, and by an issuer's token."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from conftest import PROGRAM, ROOT, Server, free_port, have, medsearch, script
from issuer import Issuer
from pacs import ENTRY, Orthanc, dicom, file_of, need_orthanc
from run_readme import examples

# The blocks of the API, and the one for a PACS.
MARKS = ("--mark", "run", "run-with-pacs")
PATIENCE_S = 60


@pytest.fixture
def pacs(tmp_path):
    """A file of a PACS `main`, a real Orthanc with the image that the text asks for."""
    orthanc = Orthanc(tmp_path / "orthanc")
    (tmp_path / "pacs.basic").write_text(f"medsearch:{ENTRY}")
    (tmp_path / "pacs.basic").chmod(0o600)
    file = tmp_path / "pacs.toml"
    file.write_text(f'[[pacs]]\nname = "main"\nurl = "{orthanc.url}/dicom-web"\nbasic_file = "pacs.basic"\n')
    orthanc.store(file_of(dicom(7, study="1.2.840.1", series="1.2.840.1.1", number=7)))
    yield ("--pacs-file", file)
    orthanc.stop()


@pytest.fixture(params=["a key", "a token"])
def asking(request, small_archive, pacs, tmp_path):
    """(server, what lets somebody do everything)."""
    port, log = free_port(), tmp_path / "log"
    if request.param == "a key":
        keys = tmp_path / "keys.json"
        key = medsearch("key", "new", "--name", "reader", "--scope", "admin", "--file", keys).stdout.strip()
        server = Server(small_archive, "--keys-file", keys, *pacs, port=port, log=log)
        yield server, key
    else:
        issuer = Issuer(f"http://127.0.0.1:{port}")
        try:
            server = Server(small_archive, *issuer.options(tmp_path, readers="admin"), *pacs, port=port, log=log)
            yield server, issuer.token()
        finally:
            issuer.stop()
    server.stop()


def test_every_example_brings_what_it_is_asked_for(asking, synthetic, tmp_path):
    server, key = asking
    image = min(synthetic.rglob("*.png"))
    where = ("--image", image, "--embeddings", tmp_path / "embeddings")
    ran = script("run_readme.py", ROOT / "README.md", "--url", server.url, "--key", key, *where, *MARKS, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert key not in (tmp_path / "log").read_text()


def test_a_pacs_is_connected_as_printed(small_archive, tmp_path):
    """From the scope and the keys to the image in the archive, with a real Orthanc and a real C-STORE."""
    need_orthanc()
    have("storescu")
    [walk] = examples((ROOT / "README.md").read_text(), ["run-with-orthanc"])
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/medsearch").symlink_to(PROGRAM.resolve())
    file = tmp_path / "image.dcm"
    file.write_bytes(file_of(dicom(11)))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin",
        "MEDSEARCH_ARCHIVE": str(small_archive),
        "MEDSEARCH_URL": url,
        "DICOM": str(file),
        # In place of the usual ports, which may be taken.
        "MEDSEARCH_LISTEN": f"127.0.0.1:{port}",
        "ORTHANC_HTTP_PORT": str(free_port()),
        "ORTHANC_DICOM_PORT": str(free_port()),
    }
    running = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", walk.code],
        cwd=tmp_path,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = running.communicate(timeout=120)
        assert running.returncode == 0, out + errors
        assert out.splitlines()[-1].startswith('"2.25.')
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/v1/archive", timeout=10)
    finally:
        # What the text starts in the background is of this session too.
        os.killpg(running.pid, signal.SIGKILL)


def test_orthanc_is_set_up_and_sends_again_as_printed(small_archive, tmp_path):
    """The text of scripts/orthanc, with other ports, at a server that takes nothing without a key."""
    need_orthanc()
    have("storescu")
    port, rest, dimse = free_port(), free_port(), free_port()
    ports = {"8000": port, "8042": rest, "4242": dimse}
    first, again = (
        re.sub("|".join(ports), lambda found: str(ports[found[0]]), example.code)
        for example in examples((ROOT / "scripts/orthanc/README.md").read_text())
    )
    keys = tmp_path / "keys.json"
    key = medsearch("key", "new", "--name", "me", "--scope", "search", "--file", keys).stdout.strip()
    sent = tmp_path / "FILE.dcm"
    sent.write_bytes(file_of(dicom(31)))
    more = tmp_path / "more.dcm"
    more.write_bytes(file_of(dicom(32, study="1.2.826.0.1.2", series="1.2.826.0.1.2.1")))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/medsearch").symlink_to(PROGRAM.resolve())
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin",
        "ORTHANC_HTTP_PORT": str(rest),
        "ORTHANC_DICOM_PORT": str(dimse),
        "ORTHANC_STABLE_AGE": "1",
    }
    # In one shell, as a reader's: it says when it is through with each, and waits for a line.
    later = f'storescu -aet MODALITY -aec ORTHANC 127.0.0.1 {dimse} "{more}"'
    failed = f"curl -fsu \"medsearch:$ORTHANC_PASSWORD\" 'http://127.0.0.1:{rest}/jobs?expand' | grep -q Failure"
    steps = [first, "echo; echo sent; read -r", later, f"until {failed}; do sleep 0.2; done"]
    walk = "\n".join([*steps, "echo failed; read -r", again])
    server = Server(small_archive, "--keys-file", keys, port=port, log=tmp_path / "log")
    reader = subprocess.Popen(
        ["timeout", "150", "bash", "-euo", "pipefail", "-c", walk],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        before = images(server, key)
        assert "sent\n" in iter(reader.stdout.readline, "")
        until_images(server, key, before + 1)
        server.kill()
        print(file=reader.stdin, flush=True)
        assert "failed\n" in iter(reader.stdout.readline, "")
        server = Server(small_archive, "--keys-file", keys, port=port, log=tmp_path / "log")
        print(file=reader.stdin, flush=True)
        until_images(server, key, before + 2)
        assert reader.wait(30) == 0
    finally:
        os.killpg(reader.pid, signal.SIGKILL)
        server.kill()


def images(server, key) -> int:
    """How many an archive has, for somebody with a key."""
    request = urllib.request.Request(f"{server.url}/v1/archive", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["images"]


def until_images(server, key, count):
    """Waits until there are so many, and no more."""
    end = time.monotonic() + PATIENCE_S
    while images(server, key) != count:
        assert time.monotonic() < end, (images(server, key), count)
        time.sleep(0.1)
