#!/usr/bin/env python3
"""Fetch PneumoniaMNIST at 224 px (CC BY 4.0) as labelled PNG files: a real, open demo data set.

    scripts/fetch_medmnist.py --out data/pneumoniamnist

Exit code 4: it can't be reached from here.
"""

import argparse
import contextlib
import csv
import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from medsearch_py.fetch import UnreachableError, check_reachable, download
from medsearch_py.files import replacing

UNREACHABLE = 4
FILE = "pneumoniamnist_224.npz"
CLASSES = {0: "Normal", 1: "Pneumonia"}
SPLITS = ("train", "val", "test")
SOURCE = "PneumoniaMNIST"
LICENCE = """# PneumoniaMNIST, 224 px

Licence: {licence} (https://creativecommons.org/licenses/by/4.0/).
From MedMNIST v2 (Yang et al., Scientific Data 2023, https://medmnist.com), made from the paediatric chest
X-rays of Kermany et al., Cell 2018 (Guangzhou Women and Children's Medical Center, CC BY 4.0).
Changes: written as one PNG a picture, sorted into folders by label. Fetched from {url}.
Not intended for clinical use.
"""


def main() -> int:
    args = arguments()
    if (args.out / "metadata.csv").exists():
        print(f"{args.out} is complete")
        return 0
    info = published()
    url = args.mirror or info["url_224"]
    if url.endswith("/"):
        url += FILE
    args.out.mkdir(parents=True, exist_ok=True)
    archive = args.out / f".{FILE}"
    try:
        if not archive.exists():
            check_reachable(url, args.timeout_s)
            print(f"{SOURCE}, {info['license']}, from {url}", flush=True)
            download(url, archive, args.timeout_s, None if args.mirror else info["MD5_224"])
    except UnreachableError as error:
        print(f"fetch_medmnist: {url} can't be reached from here ({error})", file=sys.stderr)
        return UNREACHABLE
    except ValueError as error:
        print(f"fetch_medmnist: {error}; run again to fetch it anew", file=sys.stderr)
        return 1
    rows = write_images(archive, args.out, args.count)
    write_text(args.out / "LICENCE.md", LICENCE.format(licence=info["license"], url=url))
    # Written last: a folder with this table is complete.
    write_text(args.out / "metadata.csv", as_csv(rows))
    archive.unlink()
    print(f"{len(rows)} images in {args.out}, licence {info['license']}")
    return 0


def published() -> dict:
    """The entry of the medmnist package's table, read without the package's heavy requirements."""
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        sys.exit("fetch_medmnist: the package medmnist is missing: pip install --no-deps -r requirements-medmnist.txt")
    path = Path(package.submodule_search_locations[0]) / "info.py"
    spec = importlib.util.spec_from_file_location("medmnist_info", path)
    module = importlib.util.module_from_spec(spec)
    with contextlib.redirect_stdout(io.StringIO()):
        spec.loader.exec_module(module)
    return module.INFO["pneumoniamnist"]


def write_images(archive: Path, out: Path, count: int | None) -> list[dict]:
    """PNG files, those there already left alone; returns the rows of metadata.csv."""
    for name in CLASSES.values():
        (out / name).mkdir(exist_ok=True)
    with np.load(archive, allow_pickle=False) as arrays:
        chosen = choose({split: arrays[f"{split}_labels"].reshape(-1) for split in SPLITS}, count)
        rows = []
        with tqdm(
            total=sum(len(picks) for picks in chosen.values()), unit="image", desc="writing", disable=None
        ) as bar:
            for split, picks in chosen.items():
                images = arrays[f"{split}_images"]
                labels = arrays[f"{split}_labels"].reshape(-1)
                for at in picks:
                    name = CLASSES[int(labels[at])]
                    file = f"{name}/{split}-{at:05d}.png"
                    if not (out / file).exists():
                        temporary = out / name / ".new.png"
                        Image.fromarray(images[at]).save(temporary, "PNG")
                        temporary.replace(out / file)
                    rows.append({"file": file, "class": name, "source": SOURCE, "split": split})
                    bar.update()
    return sorted(rows, key=lambda row: row["file"].encode())


def choose(labels: dict[str, np.ndarray], count: int | None) -> dict[str, list[int]]:
    """All images, or `count` with the classes in turn, in the order of the splits."""
    everything = [(split, at, int(label)) for split, values in labels.items() for at, label in enumerate(values)]
    if count is not None:
        by_class = [[item for item in everything if item[2] == label] for label in CLASSES]
        turns = [item for rank in range(len(everything)) for items in by_class for item in items[rank : rank + 1]]
        everything = turns[:count]
    chosen: dict[str, list[int]] = {split: [] for split in labels}
    for split, at, _ in everything:
        chosen[split].append(at)
    return chosen


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("file", "class", "source", "split"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for Normal/ and Pneumonia/")
    parser.add_argument("--mirror", help=f"another address of {FILE}, or the folder it is in (ends with /)")
    parser.add_argument("--timeout-s", type=float, default=5, help="give up after so long without an answer")
    parser.add_argument("--count", type=int, help="only so many images, both classes in turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
