"""Downloads that say quickly when a host can't be reached, and go on where they stopped."""

import hashlib
import threading
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

BLOCK = 1 << 20


class UnreachableError(Exception):
    """The host doesn't answer, or stopped answering."""


def check_reachable(url: str, timeout_s: float) -> None:
    """One small request; also a resolver that hangs is given up after `timeout_s`."""
    failure: list[Exception] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})  # noqa: S310
            with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310 - http and https only, see check_scheme
                pass
        except OSError as error:
            failure.append(error)

    check_scheme(url)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise UnreachableError(f"no answer within {timeout_s:g} s")
    if failure:
        raise UnreachableError(str(failure[0]))


def check_scheme(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise UnreachableError(f"`{url}` is not an http address")


def download(url: str, path: Path, timeout_s: float, md5: str | None) -> None:
    """Fetch `url` to `path`; `path.part` keeps what has come. md5: hex, None to trust the source.

    Raises UnreachableError when the host stops answering, ValueError for a wrong digest.
    """
    check_scheme(url)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    total = 0
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            append = have > 0 and answer.status == 206
            total = int(answer.headers.get("Content-Length") or 0) + (have if append else 0)
            with (
                part.open("ab" if append else "wb") as file,
                tqdm(total=total, initial=have if append else 0, unit="B", unit_scale=True, desc="fetching") as bar,
            ):
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: everything had come before
            raise UnreachableError(str(error)) from error
    except OSError as error:
        raise UnreachableError(str(error)) from error
    if part.stat().st_size < total:
        raise UnreachableError(f"the connection ended {total - part.stat().st_size} bytes early")
    if md5 is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            part.unlink()
            raise ValueError(f"the file's md5 is {found}, expected {md5}")
    part.replace(path)
