"""An archive of drawn vectors, cut in shards: as large as wanted, without a model or a network."""

import json
import subprocess
from pathlib import Path

import numpy as np

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
DIMENSION = 1024
"""Of the thumbnail embedder, which needs no model."""
NUMBER_BYTES = 4


def drawn_archive(program: Path, images: Path, folder: Path, rows: int, shards: int) -> Path:
    """Makes it in `folder`: records as `embed` writes them of a few `images` of these classes, vectors drawn."""
    random = np.random.default_rng(0)
    embeddings, archive = folder / "embeddings", folder / "archive"
    run(program, "embed", "--data", images, "--out", embeddings, "--model", "thumbnail")
    for number, name in enumerate(CLASSES):
        described = embeddings / f"{name}.json"
        form = json.loads(described.read_text())
        form.pop("vectors_sha256", None)
        record = form["records"][0]
        record.pop("pixels_sha256", None)
        # Each of a patient of its own: these are what shards are cut by.
        form["records"] = [
            record
            | {"id": f"{name}/{row}", "file": f"{name}/{row}.png", "patient_id": f"{number}-{row}"}
            | {"sha256": f"{number:032x}{row:032x}"}
            for row in range(rows // len(CLASSES))
        ]
        vectors = random.random((len(form["records"]), DIMENSION), dtype=np.float32)
        np.save(embeddings / f"{name}.npy", vectors + (np.arange(DIMENSION) % len(CLASSES) == number))
        described.write_text(json.dumps(form))
    where = ("--embeddings", embeddings, "--model", "thumbnail", "--archive", archive)
    run(program, "index", *where, "--shards", shards, "--synthetic")
    return archive


def room_for(shards: float, of: int, rows: int) -> int:
    """Memory for so many of an archive's shards, of rows alone: of so few there are no graphs."""
    return int(rows * DIMENSION * NUMBER_BYTES * shards / of)


def run(program: Path, *arguments: object) -> None:
    """Runs a command of medsearch."""
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"medsearch {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
