"""The image carries the bill of materials of what is in it: made where the image is built, of what is there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def admitted() -> list[str]:
    """What .dockerignore lets into the build."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*", "all but what is named is left out"
    return [line.removeprefix("!") for line in lines[1:]]


def bill(root: Path, out: Path) -> str:
    """As `root` makes it."""
    command = [sys.executable, root / "scripts/make_sbom.py", "--out", out]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return out.read_text()


def test_the_build_has_all_that_the_bill_is_made_of(tmp_path: Path) -> None:
    if not shutil.which("cargo"):
        pytest.skip("cargo is not here")
    context = tmp_path / "context"
    for name in admitted():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, context / name)
    made = bill(context, tmp_path / "image.json")
    assert made == bill(ROOT, tmp_path / "tree.json")
    names = {component["name"] for component in json.loads(made)["components"]}
    assert {"torch", "actix-web", "object_store"} <= names


def test_the_image_has_it_where_its_label_says() -> None:
    build, run = DOCKERFILE.split("FROM ${RUN_BASE}")
    made = Path(re.search(r"make_sbom\.py --out (\S+)", build)[1])
    label = Path(re.search(r'medsearch\.sbom="([^"]+)"', run)[1])
    copied = re.search(rf"COPY --from=build {made.parent}/ (\S+)/\n", run)
    assert copied and label == Path(copied[1]) / made.name
    # The image of a program that is built already takes it from the same place.
    assert f'--out "$CONTEXT{made}"' in (ROOT / "scripts/image").read_text()
