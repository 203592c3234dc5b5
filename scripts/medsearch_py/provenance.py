"""What a figure is worth nothing without: commit, machine, date, load and command line of the run that measured it."""

import datetime
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


def provenance(command: Sequence[str] | None = None) -> dict:
    """Call it before the work begins: the load average is that of the moment. `command`: by default this process's."""
    return {
        "command": shlex.join(map(shown, command or sys.argv)),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def write_figures(path: Path, before: dict, figures: dict) -> None:
    """What was measured under what it was measured with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(before | {"figures": figures}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def commit() -> str:
    """The commit that is checked out, `-dirty` where tracked files other than figures differ from it."""
    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
        return f"{head}-dirty" if changed else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git checkout"


def git(*arguments: str) -> str:
    """What git prints about this checkout."""
    command = [shutil.which("git") or "git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def machine() -> dict:
    """Nothing that names the machine, all that makes it fast or slow."""
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The model's name; aarch64 has none in /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def shown(argument: str | Path) -> str:
    """An argument of the command line: paths of the checkout below it, others by their name alone."""
    path = Path(argument)
    if not path.is_absolute():
        return str(argument)
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    return f"…/{path.name}"
