#!/usr/bin/env python3
"""Build a folder laid out as the COVID-19 Radiography Database from other images, for tests.

    scripts/make_kaggle_tree.py --from data --out tree --images 21165

Its images are varied copies of those in --from; no two are equal. It is not that database, and figures
measured on it say nothing about disease.
"""

import argparse
import multiprocessing
import os
import sys
import zipfile
from pathlib import Path

from tqdm import tqdm

from medsearch_py import kaggle
from medsearch_py.dataset import Dataset, DatasetError

README = """Made by scripts/make_kaggle_tree.py in the layout of the COVID-19 Radiography Database.
The images are varied copies of other images. This is not that database.
"""
TRIES = 8


def main() -> int:
    args = arguments()
    try:
        bases = base_images(args.source)
    except DatasetError as error:
        print(f"make_kaggle_tree: {error}", file=sys.stderr)
        return 2
    root = args.out / kaggle.ROOT
    jobs = []
    for class_at, (name, count) in enumerate(kaggle.counts(args.images).items()):
        for folder in ("images", "masks"):
            (root / name / folder).mkdir(parents=True, exist_ok=True)
        (root / f"{name}.metadata.xlsx").write_bytes(kaggle.metadata_list(name, count))
        own = bases.get(name) or [path for paths in bases.values() for path in paths]
        # The same base one after the other: each process decodes it once.
        repeats = -(-count // len(own))
        jobs += [
            (root / name, f"{name}-{at + 1}.png", own[at // repeats], (args.seed, class_at, at)) for at in range(count)
        ]
    (root / "README.md.txt").write_text(README, encoding="utf-8")
    make_all(jobs, args.workers)
    if args.zip is not None:
        write_zip(args.out, args.zip)
    return 0


def base_images(source: Path) -> dict[str, list[Path]]:
    """Paths by class; the folder's labels are kept where the names match."""
    dataset = Dataset(source)
    if not source.is_dir():
        raise DatasetError("--from must be a folder")
    bases: dict[str, list[Path]] = {}
    for entry in dataset.entries:
        bases.setdefault(entry.folder_class or "", []).append(source / (dataset.root + entry.file))
    return bases


def make_all(jobs: list[tuple], workers: int) -> None:
    """Every image once; the few that turn out equal to another are made again with another key."""
    seen: set[bytes] = set()
    with multiprocessing.Pool(workers) as pool, tqdm(total=len(jobs), unit="image", desc="making", disable=None) as bar:
        for attempt in range(TRIES):
            again = []
            for job, found in zip(jobs, pool.imap(make, jobs, chunksize=32), strict=True):
                if found in seen:
                    again.append((*job[:3], (*job[3], attempt)))
                    (job[0] / "images" / job[1]).unlink()
                else:
                    seen.add(found)
                    bar.update()
            jobs = again
            if not jobs:
                return
    sys.exit(f"make_kaggle_tree: {len(jobs)} images can't be told apart: give --from more images")


def make(job: tuple[Path, str, Path, tuple]) -> bytes:
    """One image and its mask; an image there already is kept. Returns the image's digest."""
    folder, name, base, key = job
    path = folder / "images" / name
    if path.exists():
        return kaggle.digest(path.read_bytes())
    data = kaggle.variant(base, key)
    (folder / "masks" / name).write_bytes(kaggle.mask())
    temporary = folder / "images" / f".{name}.new"
    temporary.write_bytes(data)
    temporary.replace(path)
    return kaggle.digest(data)


def write_zip(out: Path, path: Path) -> None:
    """The tree as one zip, as it is downloaded; PNG doesn't shrink, so it is only stored."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in tqdm(sorted((out / kaggle.ROOT).rglob("*")), unit="file", desc="zipping", disable=None):
            if file.is_file():
                archive.write(file, file.relative_to(out).as_posix())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", required=True, type=Path, help="folder of labelled images")
    parser.add_argument("--out", required=True, type=Path, help=f"folder for {kaggle.ROOT}/")
    parser.add_argument("--images", type=int, default=200, help="images in all, default %(default)s")
    parser.add_argument("--zip", type=Path, help="write the tree as a zip too")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes, default all")
    args = parser.parse_args()
    if args.images < len(kaggle.REAL) or args.workers < 1:
        parser.error(f"--images must be at least {len(kaggle.REAL)}, --workers at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
