#!/usr/bin/env python3
"""How well pictures that belong in no archive of chest X-rays are told from X-rays of patients it has never seen.

Folds of whole patients: of four parts an archive is made and fitted as `medsearch fit` does, metric and calibration;
the fifth part and the pictures of `scripts/make_other_images.py` are asked about over HTTP. For each family the AUROC
of the distance that the server answers with, the false positives where 95 % of the X-rays are let through, and how many
the server itself calls out of distribution. The X-rays that were left out are asked about as images too, as a reader
would: how many get a suggestion, and why the others do not. Ends with 1 when a family that is not hard has an AUROC
below the bound, or too many X-rays get no suggestion in the space that folds within folds choose
(`scripts/soak quality`); of the other space it is told.
"""

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medsearch_py.client import Client
from medsearch_py.provenance import ROOT, provenance, write_figures
from medsearch_py.spaces import RECIPES, embed, export, run

AUROC_MIN = 0.99
# Of X-rays of patients never seen, for whatever reason: out of distribution, or too doubtful. In the recipe that is
# chosen without them, on both sets more often than the other: `chosen` in bench/results/quality.json.
WITHOUT_SUGGESTION_MAX = 0.2
CHOSEN_RECIPE = "layers"
FOLDS = 5
# X-rays after all, turned, cut or inverted: reported as they are.
HARD = "chest-"
STARTED_WITHIN_S = 60
LEFT_OUT = "X-rays left out"
STATUSES = ("suggested", "inconclusive", "out_of_distribution")


def main() -> int:
    """Measures, prints a table for each set and recipe, and keeps the figures."""
    args = arguments()
    before = provenance()
    figures, missed = {}, []
    for recipe in args.recipes:
        model = export(recipe, args.work)
        for data in args.data:
            pictures = pictures_beside(data, args)
            outside = vectors(embed(args.program, pictures, model, args.work / f"{data.name}-other-{recipe}"))
            inside = embed(args.program, data, model, args.work / f"{data.name}-{recipe}")
            of_set = measure(inside, data, outside, model, args)
            counted = json.loads(pictures.with_name(f"{pictures.name}.families.json").read_text())
            for name, count in counted.items():
                of_set[name]["independent"] = count["independent"]
            figures[f"{data.name}, {recipe}"] = of_set
            missed += show(f"{data.name}, {recipe}", of_set, chosen=recipe == CHOSEN_RECIPE)
    if args.json:
        write_figures(args.json, before, figures)
    print(
        "\n".join(missed) or f"every family but the hard ones has an AUROC of at least {AUROC_MIN}; X-rays are answered"
    )
    return int(bool(missed))


def pictures_beside(data: Path, args: argparse.Namespace) -> Path:
    """The families, those made of this set's own X-rays among them."""
    out = args.work / f"{data.name}-pictures"
    if not out.with_name(f"{out.name}.families.json").exists():
        run(sys.executable, ROOT / "scripts/make_other_images.py", "--out", out, "--count", args.count, "--chest", data)
    return out


def classes(folder: Path) -> Iterator[tuple[str, dict, np.ndarray]]:
    """Name, description and vectors (N×D) of each class of an interchange folder."""
    for vectors_file in sorted(folder.glob("*.npy")):
        yield vectors_file.stem, json.loads(vectors_file.with_suffix(".json").read_text()), np.load(vectors_file)


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Vectors by class."""
    return {name: matrix for name, _, matrix in classes(folder)}


def parts(folder: Path) -> dict[str, int]:
    """Patient (image, where unknown) to part, drawn evenly with a fixed seed."""
    groups = sorted({group(record) for _, description, _ in classes(folder) for record in description["records"]})
    order = np.random.default_rng(0).permutation(len(groups))
    return {group: int(at) % FOLDS for group, at in zip(groups, order, strict=True)}


def group(record: dict) -> str:
    """What must not be on both sides."""
    return record.get("patient_id") or record["id"]


def measure(folder: Path, data: Path, outside: dict[str, np.ndarray], model: Path, args: argparse.Namespace) -> dict:
    """Figures of each family, means over the folds."""
    part_of = parts(folder)
    folds = []
    for fold in range(FOLDS):
        work = args.work / "fold"
        shutil.rmtree(work, ignore_errors=True)
        left_out, files = split(folder, work / "embeddings", part_of, fold)
        archive = work / "archive"
        run(
            args.program, "index", "--embeddings", work / "embeddings", "--data", data,
            "--model", model, "--archive", archive,
        )  # fmt: skip
        # The metric is taken whatever it brings: it is with one that strangers come near.
        run(args.program, "fit", "--archive", archive, "--force")
        with served(args.program, archive) as client:
            space = client.ask("GET", "/v1/archive").expect(200)["space"]["id"]
            own = [ask(client, vector, space) for vector in left_out]
            others = {name: [ask(client, vector, space) for vector in of] for name, of in outside.items()}
            said = [suggestion_of(client, data / file) for file in files]
        folds.append({name: compare(own, answers) for name, answers in others.items()})
        folds[-1][LEFT_OUT] = {"called_outside": share_outside(own), "images": len(own)} | shares(said)
    return {name: {key: float(np.mean([f[name][key] for f in folds])) for key in folds[0][name]} for name in folds[0]}


def split(folder: Path, out: Path, part_of: dict[str, int], fold: int) -> tuple[list[np.ndarray], list[str]]:
    """Writes the interchange form without one part, and gives that part's vectors and files."""
    out.mkdir(parents=True)
    left_out, files = [], []
    for name, description, matrix in classes(folder):
        out_of = np.array([part_of[group(record)] == fold for record in description["records"]])
        left_out += list(matrix[out_of])
        files += [record["file"] for record, out in zip(description["records"], out_of, strict=True) if out]
        kept = [record for record, out in zip(description["records"], out_of, strict=True) if not out]
        np.save(out / f"{name}.npy", matrix[~out_of])
        # Without the digest of the whole class's vectors, which is of these no more.
        described = {key: value for key, value in description.items() if key != "vectors_sha256"}
        (out / f"{name}.json").write_text(json.dumps(described | {"records": kept}))
    return left_out, files


@contextlib.contextmanager
def served(program: Path, archive: Path) -> Iterator[Client]:
    """A server on a free port of this machine, for a while."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "serve", "--archive", archive, "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        give_up = time.monotonic() + STARTED_WITHIN_S
        while not ready(client):
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"`medsearch serve` does not answer (exit code {process.poll()})")
            time.sleep(0.1)
        yield client
    finally:
        process.terminate()
        process.wait()


def ready(client: Client) -> bool:
    """Whether it answers queries."""
    try:
        return client.ask("GET", "/readyz").status == 200
    except OSError:
        return False


def ask(client: Client, vector: np.ndarray, space: str) -> tuple[float, bool]:
    """Distance and whether the server calls it out of distribution."""
    query = {"vector": vector.tolist(), "space": space}
    suggestion = client.ask_json("POST", "/v1/search/by-vector", query).expect(200)["suggestion"]
    return suggestion["mahalanobis"]["distance"], suggestion["status"] == "out_of_distribution"


def suggestion_of(client: Client, image: Path) -> dict:
    """What the server says of an image, asked without options: it takes those that it is calibrated for."""
    return client.ask_form("/v1/search", image.read_bytes()).expect(200)["suggestion"]


def shares(said: list[dict]) -> dict[str, float]:
    """Shares of the outcomes, of images of which a calibration says something (not of copies of what is there)."""
    valid = [suggestion["status"] for suggestion in said if suggestion["calibration"]["valid"]]
    return {status: valid.count(status) / len(valid) for status in STATUSES} | {"asked_as_images": len(valid)}


def compare(own: list[tuple[float, bool]], others: list[tuple[float, bool]]) -> dict:
    """AUROC (share of pairs in which the other is farther), false positives at 95 % true ones, the server's word."""
    near, far = (np.array([distance for distance, _ in answers]) for answers in (own, others))
    wins = (far[:, None] > near).mean() + (far[:, None] == near).mean() / 2
    return {
        "auroc": float(wins),
        "fpr_at_95": float((far <= np.quantile(near, 0.95)).mean()),
        "called_outside": share_outside(others),
        "images": len(others),
    }


def share_outside(answers: list[tuple[float, bool]]) -> float:
    """How many the server called out of distribution."""
    return sum(outside for _, outside in answers) / len(answers)


def show(title: str, of_set: dict, *, chosen: bool) -> list[str]:
    """Prints a table, and gives what misses the bounds, in words."""
    print(f"\n{title}\n{'':26}  AUROC  FPR at 95 %  called outside  images")
    for name, row in of_set.items():
        auroc, fpr = (f"{row[key]:.3f}" if key in row else "-" for key in ("auroc", "fpr_at_95"))
        print(f"{name:26}  {auroc:>5}  {fpr:>11}  {row['called_outside']:14.3f}  {row['images']:6.0f}")
    outcomes = ", ".join(f"{status} {of_set[LEFT_OUT][status]:.3f}" for status in STATUSES)
    print(f"{LEFT_OUT}, asked about as images: {outcomes}")
    without = 1 - of_set[LEFT_OUT]["suggested"]
    too_many = chosen and without > WITHOUT_SUGGESTION_MAX
    missed = [f"{title}: {without:.3f} of the X-rays get no suggestion"] if too_many else []
    told = {name: row for name, row in of_set.items() if "auroc" in row and not name.startswith(HARD)}
    return missed + [
        f"{title}: {name}: AUROC {row['auroc']:.4f}" for name, row in told.items() if row["auroc"] < AUROC_MIN
    ]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of labelled X-rays")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in, kept: models, pictures, vectors")
    parser.add_argument("--count", type=int, default=60, help="pictures of each family at most (default 60)")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch", help="the program")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
