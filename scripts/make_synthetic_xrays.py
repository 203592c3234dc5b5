#!/usr/bin/env python3
"""Draw synthetic chest radiographs in four labelled folders, for a demo without any real image.

    scripts/make_synthetic_xrays.py --out data/synthetic --count 400 --seed 1

The classes differ by drawn patterns. Nothing about disease can be learned or measured on them.
"""

import argparse
import csv
import io
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medsearch_py.files import replacing
from medsearch_py.opacities import CLASSES
from medsearch_py.radiograph import SIZE, radiograph

NOTE = f"""# SYNTHETIC

These images are drawn by `scripts/make_synthetic_xrays.py`. They show no person, and the patterns that
tell the classes apart are caricatures: no statement about accuracy on real images follows from them.
Every image has SYNTHETIC burned in. {SIZE}x{SIZE} pixels, 8-bit grey PNG; classes {", ".join(CLASSES)}.
Public domain (CC0 1.0).
"""
COLUMNS = ("file", "class", "patient_id", "source", "view", "sex", "age")
# Every fourth person comes twice.
SECOND_VISIT_EVERY = 4


def main() -> int:
    args = arguments()
    rows = plan(args.count, args.seed)
    for name in CLASSES:
        (args.out / name).mkdir(parents=True, exist_ok=True)
    jobs = [(args.out / row["file"], row, args.seed) for row in rows]
    with multiprocessing.Pool(args.workers) as pool:
        for _ in tqdm(
            pool.imap_unordered(draw, jobs, chunksize=4), total=len(jobs), unit="image", desc="drawing", disable=None
        ):
            pass
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, text in (("metadata.csv", table.getvalue()), ("SYNTHETIC.md", NOTE)):
        with replacing(args.out / name) as file:
            file.write(text.encode())
    return 0


def plan(count: int, seed: int) -> list[dict]:
    """Rows of metadata.csv in the order of files; a person's images share class, sex and age."""
    rows: list[dict] = []
    made = dict.fromkeys(CLASSES, 0)
    person = 0
    while len(rows) < count:
        name = CLASSES[person % len(CLASSES)]
        rng = np.random.default_rng([seed, person])
        visits = 2 if (person // len(CLASSES)) % SECOND_VISIT_EVERY == SECOND_VISIT_EVERY - 1 else 1
        sex, age = rng.choice(["F", "M"]), int(np.clip(rng.normal(55, 17), 18, 90))
        for visit in range(min(visits, count - len(rows))):
            made[name] += 1
            rows.append(
                {
                    "file": f"{name}/{name}-{made[name]}.png",
                    "class": name,
                    "patient_id": f"SYN{person:05d}",
                    "source": "synthetic",
                    "view": "PA",
                    "sex": sex,
                    "age": age,
                    "person": person,
                    "visit": visit,
                }
            )
        person += 1
    return sorted(rows, key=lambda row: row["file"].encode())


def draw(job: tuple[Path, dict, int]) -> None:
    """One file; one that is there already was finished by an earlier run with the same arguments."""
    path, row, seed = job
    if path.exists():
        return
    person = np.random.default_rng([seed, row["person"], 1])
    visit = np.random.default_rng([seed, row["person"], 2, row["visit"]])
    image = radiograph(row["class"], person, visit, row["sex"] == "F")
    # Renamed when whole; no fsync each: a lost image would only be drawn again.
    temporary = path.with_name(f".{path.name}.new")
    image.save(temporary, "PNG")
    temporary.replace(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for the class folders")
    parser.add_argument("--count", type=int, default=400, help="images in all, default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes, default all")
    args = parser.parse_args()
    if args.count < len(CLASSES) or args.workers < 1:
        parser.error(f"--count must be at least {len(CLASSES)}, --workers at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
