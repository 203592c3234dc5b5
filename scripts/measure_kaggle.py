#!/usr/bin/env python3
"""The Kaggle download, from folder to archive, at any size: time, ETA, peak memory, kill -9 at half, resume.

Builds the exact tree of the COVID-19 Radiography Database out of other images, embeds it, kills the program with
SIGKILL when half of the images are done, reads from disk what it kept, lets it go on, indexes the result, and checks
that no more than one part was embedded twice and that every image is there exactly once.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from medsearch_py.kept import kept_parts
from medsearch_py.provenance import ROOT, provenance, write_figures
from medsearch_py.watched import Watched

# `part_images` of src/ingest/bulk.rs: what a kill may cost. (It may cost less: a part is closed after a time, too.)
PART_IMAGES = 128


def main() -> int:
    """Measures, checks, prints one JSON object."""
    args = arguments()
    before = provenance()
    data = make_data(args)
    embeddings, archive = args.work / "embeddings", args.work / "archive"
    for folder in (embeddings, archive):
        shutil.rmtree(folder, ignore_errors=True)
    model = ["--model", args.model]

    embed = [args.program, "embed", "--data", data, "--out", embeddings, *model, "--progress-seconds"]
    # With a line after every image the kill comes when it should; with one a second the promises are those people see.
    killed = Watched([*embed, 0]).run(kill_at=args.images // 2)
    assert killed.process.returncode == -signal.SIGKILL, "it ended before it could be killed at half"
    parts = kept_parts(embeddings)
    resumed = Watched([*embed, 1]).run().must_succeed()
    check_resume(args, killed, parts, resumed)

    index = [args.program, "index", "--embeddings", embeddings, "--data", data, *model, "--archive", archive]
    indexed = Watched(index).run().must_succeed()

    figures = {
        "images": args.images,
        "input": "zip" if args.zip else "folder",
        **check_embeddings(args, embeddings),
        **speed(args, killed, resumed),
        "kill": {
            "done_when_killed": killed.done,
            "resumed_from": sum(parts),
            "parts": len(parts),
            "embedded_again": killed.done - sum(parts),
            "embedded_by_second_run": resumed.closing.embedded,
        },
        "index_s": round(indexed.seconds, 1),
        "peak_mib": {
            "embed": max(killed.peak_kib, resumed.peak_kib) // 1024,
            "index": indexed.peak_kib // 1024,
        },
    }
    print(json.dumps(before | {"figures": figures}, indent=1, ensure_ascii=False))
    if args.json:
        write_figures(args.json, before, figures)
    return 0


def make_data(args: argparse.Namespace) -> Path:
    """The tree, or its zip; images that an earlier run of this size made are taken again."""
    tree, packed = args.work / f"tree-{args.images}", args.work / f"tree-{args.images}.zip"
    maker = [sys.executable, ROOT / "scripts/make_kaggle_tree.py", "--from", args.origin, "--out", tree]
    maker += ["--images", args.images, *(["--zip", packed] if args.zip else [])]
    subprocess.run(list(map(str, maker)), check=True)
    return packed if args.zip else tree


def check_resume(args: argparse.Namespace, killed: Watched, parts: list[int], resumed: Watched) -> None:
    """The kill cost one part at most, and the second run did what was left and nothing else."""
    kept, closing = sum(parts), resumed.closing
    assert kept >= killed.done - args.part_images, f"{killed.done} were done, only {kept} were kept"
    assert closing, "the second run did not say what it did"
    assert closing.known == kept, f"{kept} were kept, {closing.known} were taken"
    assert closing.broken == 0, f"{closing.broken} images are broken"
    most = args.images - killed.done + args.part_images
    assert closing.embedded == args.images - kept <= most, f"{closing.embedded} embedded again, {most} at most"


def check_embeddings(args: argparse.Namespace, embeddings: Path) -> dict:
    """Every image has one record and one row; counts by class."""
    counts, sources, files = {}, 0, []
    for description in sorted(embeddings.glob("*.json")):
        records = json.loads(description.read_text())["records"]
        assert np.load(description.with_suffix(".npy"), mmap_mode="r").shape[0] == len(records)
        counts[description.stem] = len(records)
        sources += sum("source" in record for record in records)
        files += [record["file"] for record in records]
    assert len(files) == len(set(files)) == args.images, (len(files), len(set(files)))
    return {"classes": counts, "with_source": sources}


def speed(args: argparse.Namespace, killed: Watched, resumed: Watched) -> dict:
    """Rates as measured. No run was whole, so the time of a whole one is put together.

    It is the first run until it was killed, the rest at the second run's rate, and the second run after its last image.
    """
    rest_s = (args.images - killed.done) / resumed.rate
    finish_s = resumed.seconds - resumed.lines[-1].at_s
    whole_s = killed.seconds + rest_s + finish_s
    return {
        "killed_after_s": round(killed.seconds, 1),
        "resume_s": round(resumed.seconds, 1),
        "embed_s_estimated": round(whole_s, 1),
        "images_per_s": {
            "first_run": killed.rate,
            "second_run": resumed.rate,
            "whole_estimated": round(args.images / whole_s, 1),
        },
        "eta_error_share": resumed.eta_error(),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="folder of labelled images")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--images", type=int, default=21_165, help="default %(default)s, as many as the real one has")
    parser.add_argument("--model", default="models/efficientnet_lite0", help="default %(default)s")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch")
    parser.add_argument(
        "--part-images", type=int, default=PART_IMAGES, help="what a kill may cost, default %(default)s"
    )
    parser.add_argument("--zip", action="store_true", help="embed the zip instead of the folder")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
