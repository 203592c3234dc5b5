"""A bucket on this machine: the S3 server of tests/storage, told what goes wrong and asked who asked for what."""

import json
import os
import subprocess
import threading
from pathlib import Path

from conftest import ROOT, medsearch

PROGRAM = Path(os.environ.get("MEDSEARCH_STORAGE", ROOT / "target/release/examples/storage"))
SECRET_KEY = "the-secret-access-key"  # noqa: S105 (of a server that lives as long as a test)


class Bucket:
    """A running server over a folder, empty at first. It ends with its input, and so with this process."""

    def __init__(self, folder: Path, wrapper=()):
        assert PROGRAM.exists(), f"{PROGRAM} is not built: cargo build --release --example storage"
        self.folder = folder
        self.process = subprocess.Popen(
            [*wrapper, PROGRAM, "serve", "--folder", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.turn = threading.Lock()
        self.endpoint = self.process.stdout.readline().strip()
        assert self.endpoint.startswith("http://"), "the S3 server did not start"

    def order(self, *words):
        """Tells it something, for example `down`, and gives back what it says to that."""
        with self.turn:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
            said = json.loads(self.process.stdout.readline())
        assert not (isinstance(said, dict) and "error" in said), (words, said)
        return said

    def counts(self, *, client=None):
        """Requests by kind and status since the last time, of one client or of all together."""
        found: dict[str, int] = {}
        for row in self.order("counts"):
            if client in (None, row["client"]):
                name = f"{row['request']} {row['status']}"
                found[name] = found.get(name, 0) + row["requests"]
        return found

    def environment(self, number=None):
        """What a program needs to be a client. Those with a number are counted apart."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "key" if number is None else f"key-{number}",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def objects(self, prefix):
        """Where the objects of a place in it lie."""
        return self.folder / "bucket" / prefix

    def run(self, *arguments, **options):
        """One command of the program as a client."""
        return medsearch(*arguments, env={**os.environ, **self.environment()}, **options)

    def stop(self):
        """Closes its input and waits."""
        self.process.stdin.close()
        self.process.wait(20)


def race(bucket, archive, secret, figures, *arguments, wrapper=()):
    """Writers that race (`storage write`); gives what they found, which has to hold."""
    command = [*wrapper, PROGRAM, "write", "--archive", archive, "--secret-file", secret, "--json", figures, *arguments]
    run = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **bucket.environment()},
    )
    assert run.returncode == 0, f"{run.stdout[-3000:]}{run.stderr[-2000:]}"
    return json.loads(Path(figures).read_text())


def prove(figures, *arguments):
    """The server's own proof (`storage prove`)."""
    command = [PROGRAM, "prove", "--json", figures, *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout[-3000:]}{run.stderr[-2000:]}"
    return json.loads(Path(figures).read_text())
