"""Files that are whole or absent: written beside their place, fsynced, then renamed."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour for writing; at a clean end it takes `path`'s place durably."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object, indent: int | None = 1) -> None:
    """UTF-8 JSON, keys in the order given."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=indent, ensure_ascii=False).encode() + b"\n")
