"""A dataset to vectors: decode in threads, embed in batches, keep each part."""

import collections
import concurrent.futures
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import card as cards
from . import pixels
from .dataset import Dataset, DatasetError, Entry
from .files import replacing, write_json
from .metadata import Metadata
from .model import Model
from .parts import Parts
from .problems import BROKEN, ImageProblem
from .raster import file_digest
from .windows import WindowTable

# Of `<CLASS>.json`.
FORMAT = 1
PART_IMAGES = 256
UNLABELLED = "_unlabelled"
BROKEN_FILE = "_broken.json"


@dataclass(frozen=True)
class Ready:
    """One image after decoding: its input for the model, or what is wrong with it."""

    entry: Entry
    item: dict
    input: np.ndarray | None
    problem: ImageProblem | None = None


def run(
    dataset: Dataset,
    model: Model,
    out: Path,
    batch: int,
    workers: int,
    limit: int | None,
    frames: str = "first",
    windows: WindowTable = pixels.BY_PERCENTILE,
) -> list[dict]:
    """Embed everything that isn't embedded yet, write the interchange form; returns the broken images."""
    # Documents first: what is wrong with them shall not be found after an hour.
    metadata = Metadata(dataset)
    entries = images(dataset, dataset.entries[:limit], frames, workers)[:limit]
    out.mkdir(parents=True, exist_ok=True)
    space = cards.with_windows(model.space, windows)
    parts = Parts(out, f"{space['id']}-{model.provenance['precision']}")
    todo = [entry for entry in entries if not parts.holds(entry)]
    if len(todo) < len(entries):
        print(f"{len(entries) - len(todo)} of {len(entries)} images are embedded already", file=sys.stderr)
    broken = embed_all(dataset, model, windows, todo, parts, batch, workers)
    for document, count in metadata.unmatched.items():
        print(f"{document}: {count} rows name no image", file=sys.stderr)
    held = [entry for entry in entries if parts.holds(entry)]
    write_classes(metadata, space, model.provenance, held, parts, out)
    if broken:
        write_json(out / BROKEN_FILE, broken)
    else:
        (out / BROKEN_FILE).unlink(missing_ok=True)
    parts.remove()
    return broken


def images(dataset: Dataset, files: list[Entry], frames: str, workers: int) -> list[Entry]:
    """The wanted frames of each file; one that can't be read is left to be refused when it is decoded."""
    if frames == "first":
        return files

    def of_file(entry: Entry) -> list[Entry]:
        try:
            count = pixels.frames(dataset.read(entry.file))
        except Exception:  # whatever it is, decoding it says so
            count = 1
        return [replace(entry, frame=frame) for frame in pixels.wanted_frames(frames, count)]

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [image for found in pool.map(of_file, files) for image in found]


def embed_all(
    dataset: Dataset, model: Model, windows: WindowTable, todo: list[Entry], parts: Parts, batch: int, workers: int
) -> list[dict]:
    """Embed `todo` into durable parts; broken images are said at once and returned."""
    broken: list[dict] = []
    good: list[Ready] = []
    vectors: list[np.ndarray] = []
    embedded = 0

    def embed_waiting() -> None:
        nonlocal embedded
        if embedded < len(good):
            vectors.append(model.embed([ready.input for ready in good[embedded:]]))
            for at in range(embedded, len(good)):
                good[at] = Ready(good[at].entry, good[at].item, None)
            embedded = len(good)

    def keep_part() -> None:
        nonlocal embedded
        embed_waiting()
        if good:
            parts.add([ready.entry for ready in good], [ready.item for ready in good], np.concatenate(vectors))
        good.clear()
        vectors.clear()
        embedded = 0

    with tqdm(total=len(todo), unit="image", desc="embedding", smoothing=0.05) as bar:
        for ready in decoded(dataset, model, windows, todo, workers, ahead=2 * batch + workers):
            if ready.problem is not None:
                broken.append({**ready.entry.named(), "type": ready.problem.kind, "detail": str(ready.problem)})
                which = "" if ready.entry.frame == 1 else f", frame {ready.entry.frame}"
                tqdm.write(f"broken: {ready.entry.file}{which}: {ready.problem}", file=sys.stderr)
            else:
                good.append(ready)
            if len(good) - embedded >= batch:
                embed_waiting()
            if len(good) >= PART_IMAGES:
                keep_part()
            bar.update()
        keep_part()
    return broken


def decoded(
    dataset: Dataset, model: Model, windows: WindowTable, entries: list[Entry], workers: int, ahead: int
) -> Iterator[Ready]:
    """Entries in order, decoded by `workers` threads, at most `ahead` of them in memory."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for entry in entries:
                waiting.append(pool.submit(prepare, dataset, entry, model.input, windows))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def prepare(dataset: Dataset, entry: Entry, card_input: dict, windows: WindowTable) -> Ready:
    """Read a file and decode one frame of it; never raises for what is wrong with the file."""
    try:
        data = dataset.read(entry.file)
        size = card_input["width"], card_input["height"], card_input["fit"]
        prepared = pixels.prepare(data, *size, entry.frame, windows)
    except ImageProblem as problem:
        return Ready(entry, {}, None, problem)
    except Exception as error:  # a damaged zip entry, an unreadable file: one image, not the run
        return Ready(entry, {}, None, ImageProblem(BROKEN, f"can't be read: {type(error).__name__}"))
    return Ready(entry, {"sha256": file_digest(data), "facts": prepared.raster.facts}, prepared.input)


def write_classes(
    metadata: Metadata, space: dict, provenance: dict, entries: list[Entry], parts: Parts, out: Path
) -> None:
    """`<CLASS>.npy` and `<CLASS>.json` for each class, each replaced whole."""
    by_class: dict[str | None, list[Entry]] = {}
    for entry in entries:
        by_class.setdefault(metadata.class_of(entry), []).append(entry)
    for name, members in by_class.items():
        stem = file_stem(name)
        records = [metadata.record(entry, item["sha256"], item["facts"]) for entry, item in parts.items(members)]
        dimension = space["dimension"]
        digest = hashlib.sha256()
        with replacing(out / f"{stem}.npy") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(members), dimension)}
            np.lib.format.write_array_header_1_0(file, header)
            for vector in parts.vectors(members):
                file.write(vector.tobytes())
                digest.update(vector.tobytes())
        described = {
            "format": FORMAT,
            "space": space,
            "provenance": provenance,
            "class": name,
            "vectors_sha256": digest.hexdigest(),
            "records": records,
        }
        write_json(out / f"{stem}.json", described)
    written = {f"{file_stem(name)}.npy" for name in by_class}
    for stale in sorted(path.name for path in out.glob("*.npy") if path.name not in written):
        print(f"left from an earlier run: {out / stale}", file=sys.stderr)


def file_stem(name: str | None) -> str:
    """A class's file name without ending; None is the unlabelled images."""
    if name is None:
        return UNLABELLED
    if "/" in name or "\\" in name or "\0" in name or name.startswith((".", "_")):
        raise DatasetError(f"class `{name}` can't be a file name")
    return name
