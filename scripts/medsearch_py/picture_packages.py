"""Packages that are installed for the pictures in them, into a folder of their own: .venv stays as it is."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-other-images.txt"
FOLDER = ROOT / ".local/other-images"
UNREACHABLE = 4


class PackagesMissingError(Exception):
    """pip could not install them; the message is pip's last line."""


def folder() -> Path:
    """Where the packages are; installs them first if they are not there or the list has changed (80 MB)."""
    stamp, wanted = FOLDER / ".requirements", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        new = FOLDER.with_name(f".{FOLDER.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
        what = ("--no-deps", "--target", str(new), "-r", str(REQUIREMENTS))
        done = subprocess.run([*pip, *what], capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(new)
            raise PackagesMissingError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        (new / stamp.name).write_text(wanted)
        shutil.rmtree(FOLDER, ignore_errors=True)
        new.replace(FOLDER)
    # Last: what .venv has goes first.
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return FOLDER
