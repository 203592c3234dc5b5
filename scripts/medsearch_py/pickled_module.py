"""Tensors of a file that holds a whole pickled network, without running anything of it.

torch.load's own restricted mode refuses such files: they name classes. Here every name but those that
rebuild tensors becomes an inert stand-in, so the file's classes need not be installed either.
"""

import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import torch

ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"),
    ("torch", "LongStorage"),
}


class StandIn:
    """Takes any arguments and any state, does nothing."""

    # torch looks for this on the class when the oldest format carries its source.
    dump_patches = False

    def __new__(cls, *_args, **_options):
        return super().__new__(cls)

    def __init__(self, *_args, **_options) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class Unpickler(pickle.Unpickler):
    """Knows tensors and nothing else."""

    def find_class(self, module: str, name: str):
        return super().find_class(module, name) if (module, name) in ALLOWED else StandIn

    @classmethod
    def load_one(cls, file, **options):
        """As pickle.load; torch's oldest file format starts with bare pickles."""
        return cls(file, **options).load()


class Restricted:
    """What torch.load wants of a `pickle_module`."""

    __name__ = "restricted pickle"
    Unpickler = Unpickler
    load = staticmethod(Unpickler.load_one)


def read_module_state(path: Path) -> dict[str, torch.Tensor]:
    """State dict of the pickled network in `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the oldest format compares a class's source with our stand-in's
        module = torch.load(path, map_location="cpu", weights_only=False, pickle_module=Restricted)
    return dict(_tensors(module, ""))


def _tensors(module: StandIn, prefix: str):
    content = getattr(module, "__dict__", {})
    for group in ("_parameters", "_buffers"):
        for name, value in (content.get(group) or OrderedDict()).items():
            if isinstance(value, torch.Tensor):
                yield prefix + name, value.detach()
    for name, child in (content.get("_modules") or OrderedDict()).items():
        yield from _tensors(child, f"{prefix}{name}.")
