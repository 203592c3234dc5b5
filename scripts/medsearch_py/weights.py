"""Weights: where they come from, how they are read without running code, their digest."""

import hashlib
import socket
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

UNREACHABLE_AFTER_S = 20


class WeightsError(Exception):
    """Weights are missing, unreachable or of another network."""


@dataclass(frozen=True)
class Weights:
    """A state dict with its origin and licence in words.

    seed: of random weights only; digest: given where it isn't computed from the state.
    """

    state: Mapping[str, torch.Tensor]
    origin: str
    licence: str
    seed: int | None = None
    digest: str = ""


def read_state(path: Path) -> Mapping[str, torch.Tensor]:
    """State dict of a `.pth` file, by torch's restricted unpickler, never by plain pickle."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torch.load may fail in many ways; all mean the same here
        raise WeightsError(f"`{path.name}` can't be read as weights only: {error}") from error
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"`{path.name}` holds no state dict")
    return {name.removeprefix("module."): value for name, value in content.items()}


def download(url: str, folder: Path | None = None) -> Path:
    """Fetch `url` into torch's cache (its name's digest checked where it has one)."""
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    name = url.rsplit("/", 1)[-1]
    path = folder / name
    if path.exists():
        return path
    print(f"fetching {url}", flush=True)
    prefix = torch.hub.HASH_REGEX.search(name)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(UNREACHABLE_AFTER_S)
    try:
        torch.hub.download_url_to_file(url, str(path), prefix.group(1) if prefix else None)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"weights can't be fetched from {url} ({error}): fetch the file elsewhere and give it with --weights"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return path


def load_into(network: nn.Module, weights: Weights) -> None:
    """Strictly: a missing or foreign tensor is an error, batch counters apart."""
    try:
        missing, unexpected = network.load_state_dict(weights.state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"the weights don't fit: {error}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(f"the weights don't fit: missing {missing[:3]}, unexpected {list(unexpected)[:3]}")


def randomise(network: nn.Module, seed: int) -> Weights:
    """Seeded random weights whose activations neither vanish nor explode; for tests only."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, (2.0 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
            nn.init.normal_(module.running_mean, 0.0, 0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.8, 1.2, generator=generator)
    return Weights(network.state_dict(), f"random, seed {seed}", "none needed", seed)


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over name, shape and f32 little-endian values of each tensor, sorted by name."""
    total = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        values = state[name].detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        shape = "x".join(str(size) for size in values.shape)
        total.update(name.encode() + b"\0" + shape.encode() + b"\0")
        total.update(values.tobytes())
    return total.hexdigest()
