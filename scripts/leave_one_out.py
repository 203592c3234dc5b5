#!/usr/bin/env python3
"""Leave-one-out through the HTTP API, held against numpy on the same vectors.

Every image of DATA is sent to POST /v1/search of a server over an archive made of EMBEDDINGS; its own pixels are
excluded there by default. The same neighbors and the same majority vote (ties: similarity sum, then nearest) are
computed here from the `.npy` and `.json` files alone. Where the archive is searched by a learned metric, that is fitted
here too, from the same vectors by the textbook's formulas; it has seen the images, so that its figures flatter. Which
images are copies of one picture is read from the server, as that is found by their pixels; `--near-identical keep` asks
for every copy. Prints accuracy, balanced accuracy and every disagreement; exit code 1 when there is any.
"""

import argparse
import json
import os
import sys
import urllib.request
import uuid
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from medsearch_py.provenance import provenance, write_figures

TIE = 1e-4


def load(folder: Path):
    """Unit vectors (N×D), classes and records of all classes in `folder`."""
    vectors, classes, records = [], [], []
    for description in sorted(folder.glob("*.json")):
        if description.name in ("_broken.json",):
            continue
        content = json.loads(description.read_text())
        vectors.append(np.load(description.with_suffix(".npy")).astype(np.float64))
        records += content["records"]
        classes += [content["class"]] * len(content["records"])
    matrix = np.concatenate(vectors)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.array(classes), records


def get(url: str, path: str) -> dict:
    """GET a JSON document."""
    request = urllib.request.Request(f"{url}{path}")
    if key := os.environ.get("MEDSEARCH_API_KEY"):
        request.add_header("X-API-Key", key)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def whitened(matrix, classes, shrinkage: float, components: int):
    """The rows as a metric sees them that is learned from them: within-class whitening, the widest directions kept."""
    # Equal pictures are one image.
    _, first = np.unique(matrix, axis=0, return_index=True)
    rows, labels = matrix[first], classes[first]
    mean, dimension = rows.mean(axis=0), matrix.shape[1]
    means = {label: rows[labels == label].mean(axis=0) for label in np.unique(labels)}
    residuals = rows - np.array([means[label] for label in labels])
    scatter = residuals.T @ residuals / len(rows)
    floor = shrinkage * np.trace(scatter) / dimension
    values, directions = np.linalg.eigh((1 - shrinkage) * scatter + floor * np.eye(dimension))
    root = directions @ np.diag(values**-0.5) @ directions.T
    seen = (rows - mean) @ root
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    _, _, right = np.linalg.svd(seen, full_matrices=False)
    mapped = (matrix - mean) @ root @ right[:components].T
    counts = {str(label): int((labels == label).sum()) for label in means}
    return mapped / np.linalg.norm(mapped, axis=1, keepdims=True), counts


def search(url: str, path: Path, record: dict, **options) -> dict:
    """POST /v1/search with one file, whose it is, and nothing but the standard library."""
    boundary = uuid.uuid4().hex
    parts = []
    whose = [(name, record[name]) for name in ("patient_id", "issuer", "study_uid") if record.get(name)]
    for name, value in [*options.items(), *whose]:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="q"\r\n\r\n'.encode()
    body = b"".join(parts) + head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"{url}/v1/search", data=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    if key := os.environ.get("MEDSEARCH_API_KEY"):
        request.add_header("X-API-Key", key)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def vote(classes, similarities):
    """Majority; ties by similarity sum, then by the nearest."""
    counts, sums, first = Counter(classes), defaultdict(float), {}
    for rank, (label, similarity) in enumerate(zip(classes, similarities, strict=True)):
        sums[label] += similarity
        first.setdefault(label, rank)
    return min(counts, key=lambda label: (-counts[label], -sums[label], first[label])), counts


def copies(url: str, data: Path, records: list) -> list:
    """Of each record its picture: equal for equal files and for what the server calls copies of each other."""
    ids, others = {}, {}
    for record in records:
        found = search(url, data / record["file"], record, k="20", exclude="none", near_identical="keep")["neighbors"]
        for neighbor in found:
            ids[neighbor["record"]["file"]] = neighbor["id"]
    by_bytes = {record["sha256"]: ids[record["file"]] for record in records if record["file"] in ids}
    for image in set(by_bytes.values()):
        others[image] = get(url, f"/v1/images/{image}")["near_identical"]
    # The whole list is said of each of them: the smallest id names the picture.
    return [
        min([by_bytes[digest], *others[by_bytes[digest]]]) if digest in by_bytes else digest
        for digest in (record["sha256"] for record in records)
    ]


def closed(*names) -> list:
    """The number of each row's set, where rows that share any name are in one set and None names nothing."""
    rows = range(len(names[0]))
    of = list(rows)
    while True:
        before, first = list(of), {}
        for row in rows:
            keys = [(kind, name[row]) for kind, name in enumerate(names) if name[row] is not None]
            of[row] = min([of[row], *(first.get(key, of[row]) for key in keys)])
            first.update(dict.fromkeys(keys, of[row]))
        for row in reversed(rows):
            keys = [(kind, name[row]) for kind, name in enumerate(names) if name[row] is not None]
            of[row] = min([of[row], *(first[key] for key in keys)])
        if of == before:
            return of


def numpy_answer(index: int, matrix, pictures, owners, stand_for, k: int):
    """The k most similar other images by plain numpy: not the same picture, one of all that stand for the same."""
    similarities = matrix @ matrix[index]
    order = np.argsort(-similarities, kind="stable")
    seen, picked = set(), []
    own = owners[index]
    for row in order:
        if pictures[row] == pictures[index] or (own is not None and owners[row] == own):
            continue
        if stand_for[row] in seen:
            continue
        seen.add(stand_for[row])
        picked.append(row)
        if len(picked) == k + 1:
            break
    margin = similarities[picked[k - 1]] - similarities[picked[k]] if len(picked) > k else 1.0
    picked = picked[:k]
    return picked, similarities[picked], margin


def main() -> int:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--near-identical", choices=("collapse", "keep"), default="collapse")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    before = provenance()
    matrix, classes, records = load(arguments.embeddings)
    metric = get(arguments.url, "/v1/archive")["metric"]
    if metric:
        matrix, counts = whitened(matrix, classes, metric["shrinkage"], metric["components"])
        if counts != {of["name"]: of["images"] for of in metric["images"]}:
            print(f"the archive's metric was learned from {metric['images']}, not from {counts}", file=sys.stderr)
            return 1
    digests = [record["sha256"] for record in records]
    owners = [record.get("patient_id") for record in records]
    pictures = copies(arguments.url, arguments.data, records)
    collapses = arguments.near_identical == "collapse"
    stand_for = closed(owners, pictures if collapses else digests)
    if not collapses:
        # A file of one patient stands for them, whatever other files have its bytes.
        stand_for = [owner or digest for owner, digest in zip(owners, digests, strict=True)]
    of_picture = defaultdict(set)
    for picture, label in zip(pictures, classes, strict=True):
        of_picture[picture].add(label)
    votes = np.array([len(of_picture[picture]) == 1 for picture in pictures])
    k = min(arguments.k, len(set(stand_for)) - 1)
    options = {"k": str(k), "vote": "majority", "exact": str(arguments.exact).lower()}
    options["near_identical"] = arguments.near_identical
    wrong_lists, wrong_votes, ties, predictions, worst = [], [], 0, [], 0.0
    for index, record in enumerate(records):
        answer = search(arguments.url, arguments.data / record["file"], record, **options)
        rows, similarities, margin = numpy_answer(index, matrix, pictures, owners, stand_for, k)
        theirs = [neighbor["record"]["file"] for neighbor in answer["neighbors"]]
        ours = [records[row]["file"] for row in rows]
        voters = votes[rows]
        label, counts = vote(classes[rows][voters], similarities[voters])
        for neighbor, similarity in zip(answer["neighbors"], similarities, strict=False):
            worst = max(worst, abs(neighbor["similarity"] - similarity))
        if theirs != ours:
            gaps = np.abs(np.diff(similarities))
            if (set(theirs) == set(ours) and gaps.min(initial=1.0) < TIE) or margin < TIE:
                ties += 1
            else:
                wrong_lists.append(record["file"])
        suggestion = answer["suggestion"]
        if (suggestion["class"], suggestion["votes"]) != (label, dict(counts)) and theirs == ours:
            wrong_votes.append(record["file"])
        predictions.append(suggestion["class"])
        print(f"\r{index + 1}/{len(records)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    predictions = np.array(predictions, dtype=object)
    recalls = {str(label): float(np.mean(predictions[classes == label] == label)) for label in np.unique(classes)}
    figures = {
        "images": len(records),
        "metric": metric and {"shrinkage": metric["shrinkage"], "components": metric["components"]},
        "k": k,
        "near_identical": arguments.near_identical,
        "copies": len(set(digests)) - len(set(pictures)),
        "accuracy": round(float(np.mean(predictions == classes)), 4),
        "balanced_accuracy": round(float(np.mean(list(recalls.values()))), 4),
        "sensitivity": {label: round(value, 4) for label, value in recalls.items()},
        "lists_that_differ": len(wrong_lists),
        "lists_that_differ_by_ties_under_1e-4": ties,
        "votes_that_differ": len(wrong_votes),
        "largest_similarity_difference": float(f"{worst:.2e}"),
    }
    print(json.dumps(figures, indent=1))
    if arguments.json:
        write_figures(arguments.json, before, figures)
    for name in wrong_lists + wrong_votes:
        print("differs:", name, file=sys.stderr)
    return 1 if wrong_lists or wrong_votes else 0


if __name__ == "__main__":
    sys.exit(main())
