"""What the tests share: the scripts as commands, the golden files, an exported model."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Before torch is imported: waiting threads spin, which on a busy machine costs more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def script(name: str, *args: object, expect: int = 0) -> subprocess.CompletedProcess:
    """Run scripts/NAME.py to its end; the exit code is checked."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *(str(arg) for arg in args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Path:
    """Folder of the golden files."""
    folder = tmp_path_factory.mktemp("golden")
    script("make_golden", "--out", folder)
    return folder


@pytest.fixture(scope="session")
def expected(golden) -> dict:
    return json.loads((golden / "expected.json").read_text())


@pytest.fixture(scope="session")
def lite0(tmp_path_factory) -> Path:
    """A small export with the real architecture and random weights: needs no download."""
    folder = tmp_path_factory.mktemp("model") / "lite0"
    script("export_model", "--model", "efficientnet_lite0", "--seed", 7, "--input-size", 64, "--out", folder)
    return folder


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> Path:
    """Sixteen synthetic radiographs."""
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    script("make_synthetic_xrays", "--out", folder, "--count", 16, "--seed", 3)
    return folder
