#!/usr/bin/env python3
"""Make an archive on which replicas that share its shards have every occasion to disagree with one machine.

    scripts/make_cluster_archive.py --out .local/soak/containers --images 20000 --shards 8

Four classes of smooth random patterns, 32x32 grey pixels, in the space of thumbnails. Every seventh vector equals
another one of its class, every eleventh and thirteenth picture is that of another patient (of the same class, and of
another one), patients have two images and some of them one study, and so the equal ones lie in several shards.
Writes OUT/archive with its secret, and OUT/index-bytes: the memory that all shards take.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medsearch_py.files import replacing
from medsearch_py.provenance import ROOT

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
SIZE = 32
WAVES = 6
TIE_EVERY, COPY_EVERY, CONFLICT_EVERY = 7, 11, 13
# Distances back to the picture that is copied: of the same class, and of another one.
COPY_BACK, CONFLICT_BACK = 2 * len(CLASSES), len(CLASSES) * 3 + 1
BYTES_PER_COMPONENT = 4


def main() -> int:
    args = arguments()
    for name in ("data", "embeddings", "archive"):
        shutil.rmtree(args.out / name, ignore_errors=True)
    (args.out / "archive.secret").unlink(missing_ok=True)
    draw(args.out / "data", args.images, args.seed)
    data, embeddings, model = args.out / "data", args.out / "embeddings", ("--model", "thumbnail")
    program(args, "embed", "--data", data, "--out", embeddings, *model)
    tie(embeddings, args.seed)
    where = ("--embeddings", embeddings, "--data", data, "--archive", args.out / "archive")
    graphs = ("--exact-rows-max", args.exact_rows_max) if args.exact_rows_max else ()
    program(args, "index", *where, *model, "--shards", args.shards, "--synthetic", "--retention", "thumbnail", *graphs)
    needed = index_bytes(args.out / "archive")
    (args.out / "index-bytes").write_text(f"{needed}\n")
    print(f"{args.images} images in {args.shards} shards, {needed} bytes of vectors and graphs")
    return 0


def draw(folder: Path, images: int, seed: int) -> None:
    """PNG files and their metadata.csv."""
    rng = np.random.default_rng(seed)
    angles = np.pi * (np.arange(SIZE) + 0.5) / SIZE
    cosines = np.cos(np.outer(np.arange(WAVES), angles))
    waves = np.einsum("ax,by->abxy", cosines, cosines).reshape(-1, SIZE, SIZE)[1:]
    means = rng.normal(0, 10, (len(CLASSES), len(waves)))
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    pictures: list[np.ndarray] = []
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "class", "patient_id", "study_uid", "source"))
    for number in range(images):
        of = number % len(CLASSES)
        picture = np.tensordot(means[of] + rng.normal(0, 10, len(waves)), waves, 1)
        pictures.append(np.clip(128 + picture, 0, 255).astype(np.uint8))
        shown = number
        if number % COPY_EVERY == 0 and number >= COPY_BACK:
            shown = number - COPY_BACK
        elif number % CONFLICT_EVERY == 0 and number >= CONFLICT_BACK:
            shown = number - CONFLICT_BACK
        # The same pixels in another file.
        note = PngInfo()
        note.add_text("Comment", str(number))
        name = CLASSES[of]
        Image.fromarray(pictures[shown]).save(folder / name / f"{number}.png", pnginfo=note, compress_level=1)
        patient = number // 2
        study = f"1.2.826.0.1.{patient}" if patient % 3 else ""
        writer.writerow((f"{name}/{number}.png", name, f"patient {patient}", study, f"site {number % 3}"))
    with replacing(folder / "metadata.csv") as file:
        file.write(table.getvalue().encode())


def tie(embeddings: Path, seed: int) -> None:
    """Give some rows the vector of another one."""
    rng = np.random.default_rng([seed, 1])
    for described in sorted(embeddings.glob("[!_]*.json")):
        vectors = np.load(described.with_suffix(".npy"))
        for row in range(TIE_EVERY, len(vectors), TIE_EVERY):
            vectors[row] = vectors[rng.integers(row)]
        np.save(described.with_suffix(".npy"), vectors)
        form = json.loads(described.read_text())
        # It is the digest of the vectors as they were.
        form.pop("vectors_sha256")
        described.write_text(json.dumps(form))


def index_bytes(archive: Path) -> int:
    """What a replica that held everything would count."""
    manifest = json.loads(max((archive / "manifest").glob("*.json")).read_text())
    rows = sum(entry["rows"] for entry in manifest["rows"])
    graphs = sum(entry["bytes"] for entry in manifest["graphs"])
    return rows * manifest["space"]["dimension"] * BYTES_PER_COMPONENT + graphs


def program(args: argparse.Namespace, *words: object) -> None:
    """One command of medsearch; an error ends this program too."""
    subprocess.run([str(word) for word in (args.program, *words)], check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder; what an earlier run left there is replaced")
    parser.add_argument("--images", type=int, default=20_000, help="default %(default)s")
    parser.add_argument("--shards", type=int, default=8, help="default %(default)s")
    parser.add_argument("--exact-rows-max", type=int, help="classes of a shard with more rows get a graph")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch")
    args = parser.parse_args()
    if args.images < 100 or args.shards < 1:
        parser.error("--images must be at least 100, --shards at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
