"""The model card `model.json` and the space: what makes two vectors comparable."""

import hashlib
import json
from pathlib import Path

from .pixels import PIPELINE
from .windows import WindowTable

FORMAT = 1
SPACE_FIELDS = ("weights_sha256", "layers", "pooling", "views", "dimension", "pixel_pipeline")


class CardError(Exception):
    """The folder holds no model that can be used."""


def pipeline_id(card_input: dict, channels: str, mean: list[float], std: list[float]) -> str:
    """One line that names every step from file to network; channels: `rgb` or `grey`."""
    means = ",".join(f"{value:.8f}" for value in mean)
    stds = ",".join(f"{value:.8f}" for value in std)
    size = f"{card_input['width']}x{card_input['height']}"
    return f"{PIPELINE} {card_input['fit']} {size} bilinear {channels} mean={means} std={stds}"


def space_of(card: dict) -> dict:
    """The six fields of a card that decide whether vectors may be compared, and their id."""
    space = {
        "weights_sha256": card["weights"]["sha256"],
        "layers": card["layers"],
        "pooling": card["pooling"],
        "views": card["views"],
        "dimension": card["dimension"],
        "pixel_pipeline": card["pixel_pipeline"],
    }
    return {**space, "id": space_id(space)}


def with_windows(space: dict, windows: WindowTable) -> dict:
    """The space of the same model with the windows of a table, which its pixel pipeline spells out."""
    if not windows.rules:
        return space
    space = {**space, "pixel_pipeline": f"{space['pixel_pipeline']} windows={windows}"}
    return {**space, "id": space_id(space)}


def space_id(space: dict) -> str:
    """First 32 hex digits of sha256 over one line per field."""
    lines = []
    for field in SPACE_FIELDS:
        value = space[field]
        lines.append(f"{field}={','.join(value) if isinstance(value, list) else value}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def load_card(folder: Path) -> dict:
    """Read and check `folder/model.json` against its own space and the digest of `model.pt`."""
    path = folder / "model.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError(f"no model card at `{path}`: make one with scripts/export_model.py") from error
    except ValueError as error:
        raise CardError(f"`{path}` is not JSON: {error}") from error
    if card.get("format") != FORMAT:
        raise CardError(f"`{path}` has format `{card.get('format')}`, this program reads {FORMAT}")
    computed = space_of(card)["id"]
    if card["space"] != computed:
        raise CardError(f"`{path}` says space `{card['space']}`, its fields give `{computed}`")
    digest = file_sha256(folder / "model.pt")
    if digest != card["torchscript_sha256"]:
        raise CardError(f"`{folder / 'model.pt'}` is not the file that the card describes")
    return card


def file_sha256(path: Path) -> str:
    """sha256 of a file in hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
