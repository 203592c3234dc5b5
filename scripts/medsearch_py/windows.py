"""Which window the grey values of a DICOM image get, by its modality and body part.

`src/domain/windows.rs` and `src/imaging/voi.rs` do the same in Rust, to the bit.
"""

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

RULES_MAX = 64
BYTES_MAX = 64 << 10
VALUE_MAX = 1e9
STORED_MAX = 1e9
FIELDS = {"modality", "body_part", "center", "width", "use"}
# A code string (PS3.5 6.2, VR CS).
CODE = re.compile(r"[A-Z0-9 _]{1,16}")
LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"


class WindowsError(Exception):
    """The file holds no table of windows."""


@dataclass(frozen=True)
class Voi:
    """A window over values of the modality, in the words of DICOM."""

    center: float
    width: float
    function: str = LINEAR

    def is_window(self) -> bool:
        """Finite, and at least 1 wide if it is LINEAR, else wider than 0 (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
        is_wide = self.width >= 1 if self.function == LINEAR else self.width > 0
        return math.isfinite(self.center) and math.isfinite(self.width) and is_wide

    def stored_ends(self, slope: float, intercept: float) -> tuple[float, float] | None:
        """Stored values up to which all is black and from which on all is white, the smaller one first."""
        center, half = self.center, self.width / 2.0
        if self.function == LINEAR:
            center, half = self.center - 0.5, (self.width - 1.0) / 2.0
        low, high = (center - half - intercept) / slope, (center + half - intercept) / slope
        if slope < 0:
            low, high = high, low
        is_near = abs(low) <= STORED_MAX and abs(high) <= STORED_MAX
        return (low, high) if is_near and (low < high or self.function == LINEAR) else None


@dataclass(frozen=True)
class Rule:
    """One rule: `use` is `fixed` with a `voi`, `file` or `percentile`; no modality or body part: any."""

    modality: str | None
    body_part: str | None
    use: str
    voi: Voi | None = None

    def is_for(self, modality: str | None, body_part: str | None) -> bool:
        return self.modality in (None, modality) and self.body_part in (None, body_part)

    def covers(self, other: "Rule") -> bool:
        """Whether it is for all that another one is for."""
        return self.is_for(other.modality, other.body_part)

    def __str__(self) -> str:
        kind = (self.modality or "*") + (f"/{self.body_part}" if self.body_part else "")
        return f"{kind}:{_number(self.voi.center)},{_number(self.voi.width)}" if self.voi else f"{kind}:{self.use}"


@dataclass(frozen=True)
class WindowTable:
    """Rules in their order: the first that fits an image decides, and without one its window is by percentile."""

    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        """One line, the same for the same table, as it stands in the pixel pipeline of a space."""
        return ";".join(map(str, self.rules))

    def rule(self, modality: str | None, body_part: str | None) -> Rule | None:
        """What an image of this kind gets; none: by percentile."""
        return next((rule for rule in self.rules if rule.is_for(modality, body_part)), None)

    def window(self, facts: dict, rescale: tuple[float, float] | None, proposed: Voi | None) -> dict | None:
        """The window of an image as its record has it; none: by percentile.

        rescale: slope and intercept, none if they differ from frame to frame; proposed: the file's own window.
        """
        said = facts.get("tags", {})
        rule = self.rule(said.get("modality"), said.get("body_part"))
        voi = None if rule is None else rule.voi if rule.use == "fixed" else proposed if rule.use == "file" else None
        if voi is None or rescale is None or not voi.is_window():
            return None
        ends = voi.stored_ends(*rescale)
        if ends is None:
            return None
        window = {"kind": rule.use, "low": ends[0], "high": ends[1]}
        return window | {"sigmoid": True} if voi.function == SIGMOID else window


def read(path: Path) -> WindowTable:
    """The table of a file. Raises WindowsError."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise WindowsError(f"more than {BYTES_MAX} bytes, which no table of windows has")
        return parse(json.loads(data))
    except (OSError, ValueError, RecursionError, WindowsError) as error:
        raise WindowsError(f"`{path}`: {error}") from error


def parse(written: object) -> WindowTable:
    """The table of a JSON list of rules. Raises WindowsError."""
    if not isinstance(written, list):
        raise WindowsError("a table of windows is a JSON list of rules")
    if len(written) > RULES_MAX:
        raise WindowsError(f"a table of windows has at most {RULES_MAX} rules")
    rules: list[Rule] = []
    for rule in map(_rule, written):
        for at, before in enumerate(rules):
            if before.covers(rule):
                raise WindowsError(f"rule {len(rules) + 1} is never reached: rule {at + 1} is for all that it is for")
        rules.append(rule)
    # Where everything is by percentile, such rules at the end say nothing.
    while rules and rules[-1].use == "percentile":
        rules.pop()
    return WindowTable(tuple(rules))


def levels(values: np.ndarray, window: dict) -> np.ndarray:
    """Stored values -> uint8 in a window that a table gave."""
    lowest = int(values.min())
    table = [_level(float(value), window) for value in range(lowest, int(values.max()) + 1)]
    return np.array(table, np.uint8)[values.astype(np.int32) - lowest]


def _level(value: float, window: dict) -> int:
    low, high = window["low"], window["high"]
    if window.get("sigmoid"):
        # PS3.3, C.11.2.1.3.1.
        center, width = (low + high) / 2.0, high - low
        try:
            falling = math.exp(-4.0 * (value - center) / width)
        except OverflowError:
            return 0
        return math.floor(255.0 / (1.0 + falling) + 0.5)
    if value <= low:
        return 0
    return 255 if value > high else math.floor((value - low) / (high - low) * 255.0 + 0.5)


def _rule(written: object) -> Rule:
    if not isinstance(written, dict) or not written.keys() <= FIELDS:
        raise WindowsError(f"a rule has the fields {', '.join(sorted(FIELDS))}, no others")
    center, width, use = (written.get(name) for name in ("center", "width", "use"))
    modality, body_part = _code(written.get("modality")), _code(written.get("body_part"))
    if body_part is not None and modality is None:
        raise WindowsError("a rule names a body part only beside a modality")
    if use in ("file", "percentile") and center is None and width is None:
        return Rule(modality, body_part, use)
    if use not in (None, "fixed") or not all(type(number) in (int, float) for number in (center, width)):
        raise WindowsError("a rule has a `center` and a `width`, or `use`: `file` or `percentile`")
    if not (abs(center) <= VALUE_MAX and 1 <= width <= VALUE_MAX):
        raise WindowsError(f"a window of center {center} and width {width}: widths are 1 to {VALUE_MAX:.0f}")
    # One zero, not two.
    return Rule(modality, body_part, "fixed", Voi(float(center) + 0.0, float(width)))


def _code(written: object) -> str | None:
    if written is None:
        return None
    code = written.strip().upper() if isinstance(written, str) else ""
    if not CODE.fullmatch(code):
        raise WindowsError(f"`{written}` is no modality or body part")
    return code


def _number(value: float) -> str:
    """As short as possible, without an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")
