#!/usr/bin/env python3
"""Which recipe and which metric find a class best: every configuration tried, chosen by nested folds of patients.

A recipe is how pixels become a vector: input size, contrast stretching, views whose vectors are averaged (mirrored,
cropped), which layers, and how these are pooled (mean, or GeM: Radenović et al., TPAMI 2019). A metric is learned from
vectors: none, within-class whitening, or PLDA (Ioffe, ECCV 2006) on the same whitening, each at several shrinkages.
Balanced accuracy of the prior-corrected vote of 15, one of a patient. In each outer fold the configuration that is best
in folds of the others' patients is asked about those left out; every configuration's own figures stand beside, which
flatter whoever picks the best of them. Writes all of them; what the product has are `--recipe head` and `layers`.
"""

import argparse
import csv
import itertools
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from medsearch_py import networks, pixels
from medsearch_py.provenance import provenance, write_figures

SIZES = (224, 384)
STRETCHES = ("as it is", "stretched")
VIEWS = {"plain": 1, "mirrored": 2, "mirrored, cropped": 4}
LAYERS = ("head", "four layers")
POOLS = ("mean", "GeM")
SHRINKAGES = (0.8, 0.5, 0.3)
METRICS = (("none", None), *itertools.product(("whitened", "PLDA"), SHRINKAGES))
GEM_POWER = 3.0
CROP = 0.9
K, FOLDS, INNER = 15, 5, 4
BATCH = 32


def main() -> int:
    """Measures, prints the best and what was chosen, and keeps all."""
    args = arguments()
    before = provenance()
    torch.set_grad_enabled(False)
    figures = {}
    for data in args.data:
        files, labels, groups = read(data)
        recipes = {}
        for name in args.networks:
            recipes |= vectors(name, [data / file for file in files])
        figures[data.name] = nested(recipes, labels, groups, args.seeds)
        show(data.name, figures[data.name])
    if args.json:
        write_figures(args.json, before, figures)
    return 0


def read(data: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Files, classes and patients as numbers. An image of nobody known is a patient; equal files are one image."""
    with (data / "metadata.csv").open(newline="") as table:
        rows = sorted(csv.DictReader(table), key=lambda row: row["file"])
    contents = {row["file"]: (data / row["file"]).read_bytes() for row in rows}
    unique = {content: file for file, content in sorted(contents.items(), reverse=True)}
    rows = [row for row in rows if unique[contents[row["file"]]] == row["file"]]
    labels = np.unique([row["class"] for row in rows], return_inverse=True)[1]
    groups = np.unique([row.get("patient_id") or row["file"] for row in rows], return_inverse=True)[1]
    return [row["file"] for row in rows], labels, groups


# ---- recipes ----


def vectors(name: str, files: list[Path]) -> dict[str, np.ndarray]:
    """Unit vectors (N×D) by recipe."""
    made = {}
    for size, stretch in itertools.product(SIZES, STRETCHES):
        network = networks.build(name, networks.Wish(recipe="layers", input_size=size))
        parts = []
        for start in range(0, len(files), BATCH):
            images = np.stack([prepared(file, size, stretch) for file in files[start : start + BATCH]])
            parts.append(pooled(network, images, size))
            print(f"\r{name}, {size} px, {stretch}: {start + len(images)} of {len(files)}", end="", file=sys.stderr)
        print(file=sys.stderr)
        for layers, pool in itertools.product(LAYERS, POOLS):
            views = np.concatenate([part[layers, pool] for part in parts])
            for view, count in VIEWS.items():
                mean = views[:, :count].mean(axis=1)
                key = f"{name}, {size} px, {stretch}, {view}, {layers}, {pool}"
                made[key] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return made


def prepared(file: Path, size: int, stretch: str) -> np.ndarray:
    """uint8 [size, size, 3], by the product's own pipeline but for the stretching."""
    grey, _ = pixels.to_8_bit(pixels.decode(file.read_bytes()))
    if stretch == "stretched":
        low, high = np.percentile(grey, (1, 99))
        grey = np.clip((grey.astype(np.float32) - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
    return pixels.as_rgb(pixels.fit_and_resize(grey, size, size))


def pooled(network: networks.Network, images: np.ndarray, size: int) -> dict[tuple[str, str], np.ndarray]:
    """[N, views, D] of each choice of layers and pooling."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255
    batch = (batch - network.mean[0]) / network.std[0]
    side = round(size * CROP)
    at = (size - side) // 2
    cropped = F.interpolate(batch[..., at : at + side, at : at + side], size=(size, size), mode="bilinear")
    # In the order of VIEWS: each takes the first so many.
    views = [batch, batch.flip(-1), cropped, cropped.flip(-1)]
    found = {key: [] for key in itertools.product(LAYERS, POOLS)}
    for view in views:
        maps = network.fast(view)
        for pool in POOLS:
            layers = [F.normalize(pool_map(layer, pool), dim=1) for layer in maps]
            found["head", pool].append(layers[-1])
            found["four layers", pool].append(F.normalize(torch.cat(layers, dim=1), dim=1))
    return {key: torch.stack(of, dim=1).numpy() for key, of in found.items()}


def pool_map(layer: torch.Tensor, pool: str) -> torch.Tensor:
    """[N, C, h, w] -> [N, C]."""
    if pool == "mean":
        return layer.mean(dim=(2, 3))
    return layer.clamp(min=1e-6).pow(GEM_POWER).mean(dim=(2, 3)).pow(1 / GEM_POWER)


# ---- metrics ----


def similarities(gram: np.ndarray, dimension: int, train: np.ndarray, labels: np.ndarray) -> dict[tuple, np.ndarray]:
    """Of every image to each of `train`, by each metric learned from these alone. `gram`: inner products of all.

    In the span of the training images, so that a fit costs what its images do, whatever the dimension: with v an
    eigenvector of the scatter within classes and y a centred row, y·v is a combination of inner products.
    """
    rows = gram[:, train]
    own = labels[train]
    count, classes = len(train), np.unique(own)
    indicator = (own[:, None] == classes).astype(float)
    to_mean = indicator / indicator.sum(axis=0)
    # Centred on the mean of the training images.
    centred = rows - rows.mean(axis=1, keepdims=True)
    of_train = centred[train] - centred[train].mean(axis=0)
    centred = centred - centred[train].mean(axis=0)
    residual = np.eye(count) - indicator @ to_mean.T
    within = residual @ of_train @ residual / count
    values, directions = np.linalg.eigh(within)
    kept = values > 1e-10 * values[-1]
    values, directions = values[kept], directions[:, kept]
    along = centred @ residual @ directions / np.sqrt(count * values)
    length = np.diag(gram) - 2 * rows.mean(axis=1) + rows[train].mean()
    # The trace over all D directions is that over those of the span.
    trace = values.sum()
    found = {("none", None): rows}
    for shrinkage in SHRINKAGES:
        floor = shrinkage * trace / dimension
        gain = 1 / ((1 - shrinkage) * values + floor) - 1 / floor
        inner = centred / floor + (along * gain) @ along[train].T
        norms = np.sqrt(np.maximum(length / floor + (along**2) @ gain, 1e-12))
        found["whitened", shrinkage] = inner / norms[:, None] / norms[train]
        found["PLDA", shrinkage] = plda(inner, train, indicator, to_mean)
    return found


def plda(inner: np.ndarray, train: np.ndarray, indicator: np.ndarray, to_mean: np.ndarray) -> np.ndarray:
    """Log likelihood ratio of one class against two, in the directions between classes; the scatter within is 1."""
    weights = indicator.sum(axis=0) / len(train)
    to_class = inner @ to_mean
    between = to_mean.T @ inner[train] @ to_mean
    values, turns = np.linalg.eigh(np.sqrt(weights[:, None] * weights) * between)
    kept = values > 1e-9 * values[-1]
    spread, turns = values[kept], turns[:, kept]
    place = (to_class * np.sqrt(weights)) @ turns / np.sqrt(spread)
    same, own = spread / (1 + 2 * spread), spread**2 / (2 * (1 + spread) * (1 + 2 * spread))
    squares = (place**2) @ own
    return (place * same) @ place[train].T - squares[:, None] - squares[train]


def balanced(scores: np.ndarray, train: np.ndarray, asked: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Mean sensitivity of the prior-corrected vote of the K nearest, one of a patient. `scores`: all × train."""
    own, of = labels[train], groups[train]
    classes = np.unique(labels)
    priors = np.array([(own == one).sum() for one in classes], dtype=float)
    right = np.zeros(len(classes))
    for query in asked:
        order = np.argsort(-scores[query], kind="stable")
        order = order[np.sort(np.unique(of[order[: 8 * K]], return_index=True)[1])[:K]]
        votes = np.array([(own[order] == one).sum() for one in classes]) / np.maximum(priors, 1)
        right[np.searchsorted(classes, labels[query])] += classes[votes.argmax()] == labels[query]
    counts = np.array([(labels[asked] == one).sum() for one in classes])
    return float((right[counts > 0] / counts[counts > 0]).mean())


# ---- nested folds ----


def folds(
    labels: np.ndarray, groups: np.ndarray, items: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Part of each of `items`: whole groups, those of one first class dealt out in turn."""
    first = {group: labels[items][groups[items] == group][0] for group in np.unique(groups[items])}
    order = sorted(rng.permutation(list(first)), key=lambda group: first[group])
    part = {group: at % count for at, group in enumerate(order)}
    return np.array([part[group] for group in groups[items]])


def nested(recipes: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, seeds: int) -> dict:
    """What was tried, what was chosen, and what the chosen reached on patients that it was not chosen by."""
    grams = {name: ((matrix @ matrix.T).astype(np.float64), matrix.shape[1]) for name, matrix in recipes.items()}
    names = [(recipe, *metric) for recipe in recipes for metric in METRICS]
    tried = {name: {"inner": [], "outer": []} for name in names}
    chosen, reached = [], []
    everyone = np.arange(len(labels))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        outer = folds(labels, groups, everyone, FOLDS, rng)
        for fold in range(FOLDS):
            train, asked = everyone[outer != fold], everyone[outer == fold]
            inner = folds(labels, groups, train, INNER, rng)
            for recipe, (gram, dimension) in grams.items():
                judged = []
                for part in range(INNER):
                    others, own = train[inner != part], train[inner == part]
                    found = similarities(gram, dimension, others, labels)
                    judged.append({m: balanced(s, others, own, labels, groups) for m, s in found.items()})
                for metric, scores in similarities(gram, dimension, train, labels).items():
                    row = tried[(recipe, *metric)]
                    row["inner"].append(float(np.mean([of[metric] for of in judged])))
                    row["outer"].append(balanced(scores, train, asked, labels, groups))
            best = max(names, key=lambda name: tried[name]["inner"][-1])
            chosen.append(best)
            reached.append(tried[best]["outer"][-1])
            print(f"seed {seed}, fold {fold}: {best}, {reached[-1]:.3f}", file=sys.stderr)
    rows = [
        {
            "recipe": recipe,
            "metric": metric,
            "shrinkage": shrinkage,
            "within_training_sets": round(float(np.mean(of["inner"])), 4),
            "left_out": round(float(np.mean(of["outer"])), 4),
            "left_out_by_seed": [round(float(np.mean(part)), 4) for part in np.split(np.array(of["outer"]), seeds)],
        }
        for (recipe, metric, shrinkage), of in tried.items()
    ]
    return {
        "images": len(labels),
        "patients": len(np.unique(groups)),
        "seeds": seeds,
        "chosen_within_and_asked_outside": round(float(np.mean(reached)), 4),
        "chosen": [{"configuration": list(name), "times": chosen.count(name)} for name in dict.fromkeys(chosen)],
        "tried": sorted(rows, key=lambda row: -row["within_training_sets"]),
    }


def show(title: str, figures: dict) -> None:
    """The best by their training sets, and what nesting makes of the choice."""
    print(f"\n{title}: {figures['images']} images of {figures['patients']} patients, {len(figures['tried'])} tried")
    for row in figures["tried"][:12]:
        how = f"{row['metric']} {row['shrinkage'] or ''}"
        print(f"{row['within_training_sets']:.3f} within, {row['left_out']:.3f} left out  {row['recipe']}; {how}")
    print(f"chosen within, asked outside: {figures['chosen_within_and_asked_outside']:.3f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="labelled folders with a metadata.csv")
    parser.add_argument("--networks", nargs="+", choices=networks.RECIPES["layers"], default=["efficientnet_lite0"])
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the folds (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
