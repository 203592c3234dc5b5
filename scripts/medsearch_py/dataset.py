"""Labelled folders and zips: which images there are, and of which class."""

import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .raster import check_file_size

IMAGES, MASKS = "images", "masks"
IGNORED_NAMES = {"thumbs.db", "desktop.ini", "metadata.csv"}
IGNORED_SUFFIXES = {".txt", ".md", ".csv", ".xlsx"}
IGNORED_FOLDERS = {"__MACOSX"}


class DatasetError(Exception):
    """The data folder can't be read as labelled images."""


@dataclass(frozen=True)
class Entry:
    """One image: a frame, from 1, of the file at this path below the data folder; class None directly in it."""

    file: str
    folder_class: str | None
    size: int
    changed: int
    frame: int = 1

    def named(self) -> dict:
        """What names it in records and lists; the first frame goes without saying."""
        return {"file": self.file} if self.frame == 1 else {"file": self.file, "frame": self.frame}


class FolderSource:
    """Files below a folder; `changed` is the modification time in nanoseconds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def listing(self) -> dict[str, tuple[int, int]]:
        """Every file's relative path -> (size, changed)."""
        found = {}
        for path in self.path.rglob("*"):
            if path.is_file():
                state = path.stat()
                found[path.relative_to(self.path).as_posix()] = (state.st_size, state.st_mtime_ns)
        return found

    def read(self, file: str) -> bytes:
        path = self.path / file
        check_file_size(path.stat().st_size)
        return path.read_bytes()


class ZipSource:
    """Files in a zip, read where they lie; `changed` is the entry's CRC."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        self.lock = threading.Lock()

    def listing(self) -> dict[str, tuple[int, int]]:
        return {info.filename: (info.file_size, info.CRC) for info in self.zip.infolist() if not info.is_dir()}

    def read(self, file: str) -> bytes:
        with self.lock:
            check_file_size(self.zip.getinfo(file).file_size)
            return self.zip.read(file)


class Dataset:
    """Images by class, in the order of their paths' bytes; `root` is stripped from their names."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            self.source = FolderSource(path)
        elif zipfile.is_zipfile(path):
            self.source = ZipSource(path)
        else:
            raise DatasetError(f"`{path}` is neither a folder nor a zip")
        listing = self.source.listing()
        visible = {file: state for file, state in listing.items() if not _hidden(file)}
        self.root = class_root(visible)
        inside = {file[len(self.root) :]: state for file, state in visible.items() if file.startswith(self.root)}
        self.entries, self.documents, self.unread = sort_out(inside)
        if not self.entries:
            raise DatasetError(f"no images in `{path}`: expected {path.name}/<CLASS>/ or {path.name}/<CLASS>/images/")

    def read(self, file: str) -> bytes:
        """Bytes of an entry or document; ImageProblem above the size limit."""
        return self.source.read(self.root + file)


def class_root(files: Iterable[str]) -> str:
    """The prefix of the folder that holds the class folders: "" or, inside a wrapper, "NAME/".

    A wrapper is a lone folder, nothing beside it but documents, that holds more than `images` and `masks`.
    """
    root = ""
    paths = [PurePosixPath(file) for file in files]
    while True:
        depth = root.count("/")
        beside = {path.parts[depth] for path in paths if len(path.parts) == depth + 1 and not _document(path.name)}
        documents = {path.name.lower() for path in paths if len(path.parts) == depth + 1}
        folders = {path.parts[depth] for path in paths if len(path.parts) > depth + 1}
        if beside or len(folders) != 1 or "metadata.csv" in documents:
            return root
        below = {path.parts[depth + 1] for path in paths if len(path.parts) > depth + 2}
        if not below - {IMAGES, MASKS}:
            return root
        root += f"{folders.pop()}/"


def sort_out(files: dict[str, tuple[int, int]]) -> tuple[list[Entry], list[str], list[str]]:
    """Entries in bytewise order, root documents, and files too deep to have a class."""
    entries, documents, unread = [], [], []
    for file, (size, changed) in files.items():
        parts = file.split("/")
        folders = parts[:-1]
        if _document(parts[-1]):
            if not folders:
                documents.append(file)
        elif not folders or len(folders) == 1 or (len(folders) == 2 and folders[1] == IMAGES):
            if folders[:1] != [MASKS]:
                entries.append(Entry(file, folders[0] if folders else None, size, changed))
        elif folders[1] != MASKS:
            unread.append(file)
    entries.sort(key=lambda entry: entry.file.encode())
    return entries, sorted(documents), sorted(unread)


def _hidden(file: str) -> bool:
    parts = file.split("/")
    return any(part.startswith(".") for part in parts) or parts[0] in IGNORED_FOLDERS


def _document(name: str) -> bool:
    lower = name.lower()
    return lower in IGNORED_NAMES or lower.startswith("readme") or PurePosixPath(lower).suffix in IGNORED_SUFFIXES
