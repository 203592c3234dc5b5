"""What measuring programs share: a network exported under a recipe, and a folder of images embedded by it."""

import subprocess
import sys
from pathlib import Path

from .provenance import ROOT

MODEL = "efficientnet_lite0"
RECIPES = ("head", "layers")


def export(recipe: str, work: Path) -> Path:
    """The network under a recipe, as a folder in `work`."""
    out = work / "models" / (MODEL if recipe == "head" else f"{MODEL}_{recipe}")
    run(sys.executable, ROOT / "scripts/export_model.py", "--model", MODEL, "--recipe", recipe, "--out", out)
    return out


def embed(program: Path, data: Path, model: Path, out: Path) -> Path:
    """The vectors of a folder of images."""
    run(program, "embed", "--data", data, "--out", out, "--model", model)
    return out


def run(*command: object) -> None:
    """A program whose progress is shown, and whose failure ends this one."""
    subprocess.run([str(word) for word in command], check=True)
