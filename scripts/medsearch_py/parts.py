"""Finished parts of a long run: small, durable, found again after a kill."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .dataset import Entry
from .files import replacing, write_json


class Parts:
    """`OUT/.partial/<space>-<precision>/NNNNNN.npy` with a `.json` that is written last.

    A part without its `.json` never happened. Row i of the one belongs to item i of the other.
    """

    def __init__(self, out: Path, run_key: str) -> None:
        self.folder = out / ".partial" / run_key
        self.folder.mkdir(parents=True, exist_ok=True)
        # (file, size, changed, frame) -> (part, row); vectors stay on disk.
        self.finished: dict[tuple, tuple[int, int]] = {}
        self.next = 0
        for path in sorted(self.folder.glob("*.json")):
            number = int(path.stem)
            self._remember(number, json.loads(path.read_text(encoding="utf-8")))
            self.next = max(self.next, number + 1)

    def holds(self, entry: Entry) -> bool:
        """Whether this frame of this very file (path, size, time) is done."""
        return _key(entry) in self.finished

    def add(self, entries: list[Entry], items: list[dict], vectors: np.ndarray) -> None:
        """Write one part; on return it is durable. items: {"sha256", "facts"}; vectors: float32 [n, D]."""
        with replacing(self._path(self.next, "npy")) as file:
            np.save(file, np.ascontiguousarray(vectors, dtype="<f4"))
        described = [
            {**entry.named(), "size": entry.size, "changed": entry.changed, **item}
            for entry, item in zip(entries, items, strict=True)
        ]
        write_json(self._path(self.next, "json"), described, indent=None)
        self._remember(self.next, described)
        self.next += 1

    def items(self, entries: list[Entry]) -> Iterator[tuple[Entry, dict]]:
        """The items of finished entries, in the order asked for."""
        cache: dict[int, list] = {}
        for entry in entries:
            part, row = self.finished[_key(entry)]
            if part not in cache:
                cache = {part: json.loads(self._path(part, "json").read_text(encoding="utf-8"))}
            yield entry, cache[part][row]

    def vectors(self, entries: list[Entry]) -> Iterator[np.ndarray]:
        """The vectors of finished entries, one part in memory at a time."""
        part, rows = -1, np.empty((0, 0))
        for entry in entries:
            wanted, row = self.finished[_key(entry)]
            if wanted != part:
                part, rows = wanted, np.load(self._path(wanted, "npy"))
            yield rows[row]

    def remove(self) -> None:
        """Forget everything, once the final files are in place."""
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _remember(self, number: int, described: list[dict]) -> None:
        for row, item in enumerate(described):
            self.finished[(item["file"], item["size"], item["changed"], item.get("frame", 1))] = (number, row)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:06d}.{suffix}"


def _key(entry: Entry) -> tuple:
    return (entry.file, entry.size, entry.changed, entry.frame)
