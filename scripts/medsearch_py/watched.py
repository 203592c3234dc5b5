"""A running `medsearch embed` or `index`, watched from outside: progress, promised ends, peak memory."""

import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRESS = re.compile(r"(\d+) of \d+ images, ([\d.]+) images/s(?:, (?:(\d+)d )?(\d+):(\d+):(\d+) left)?$")
CLOSING = re.compile(r"(\d+) of \d+ images embedded, (\d+) known from an interrupted run, (\d+) broken")
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Line:
    """A progress line. left_s: what it promised; none where it promised nothing."""

    at_s: float
    done: int
    rate: float
    left_s: int | None


@dataclass(frozen=True)
class Closing:
    """The last word of `medsearch embed`."""

    embedded: int
    known: int
    broken: int


class Watched:
    """Starts a command. `run` waits for its end, or brings it about."""

    def __init__(self, command: Sequence[object]) -> None:
        self.began = time.monotonic()
        self.seconds = 0.0
        self.lines: list[Line] = []
        self.closing: Closing | None = None
        self.said: list[str] = []
        self.peak_kib = 0
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def done(self) -> int:
        """Images finished by the last progress line, those of an earlier run included."""
        return self.lines[-1].done if self.lines else 0

    def run(self, kill_at: int | None = None) -> "Watched":
        """Wait for the end, or send SIGKILL as soon as `kill_at` images are done."""
        while self.process.poll() is None:
            self._look_at_memory()
            if kill_at and self.done >= kill_at:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
            time.sleep(LOOK_EVERY_S)
        self.seconds = time.monotonic() - self.began
        self.reader.join()
        return self

    def must_succeed(self) -> "Watched":
        """An exit code other than 0 shows what the program said."""
        assert self.process.returncode == 0, f"ended with {self.process.returncode}: {' | '.join(self.said[-5:])}"
        return self

    @property
    def rate(self) -> float:
        """Images per second as the last progress line says: those of this run, since the first was asked for."""
        return self.lines[-1].rate

    def eta_error(self) -> dict | None:
        """|promised - real| end as a share of this run's time, of the lines after its first tenth."""
        promised = [(line.at_s, line.left_s) for line in self.lines if line.left_s is not None]
        errors = [abs(at + left - self.seconds) / self.seconds for at, left in promised if at > self.seconds / 10]
        if not errors:
            return None
        return {"median": round(statistics.median(errors), 3), "worst": round(max(errors), 3), "lines": len(errors)}

    def _read(self) -> None:
        for line in self.process.stderr or ():
            text = line.strip()
            if match := PROGRESS.fullmatch(text):
                done, rate, *left = match.groups()
                self.lines.append(Line(time.monotonic() - self.began, int(done), float(rate), _seconds(left)))
            else:
                self.said.append(text)
                if match := CLOSING.match(text):
                    self.closing = Closing(*map(int, match.groups()))

    def _look_at_memory(self) -> None:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        if match := re.search(r"VmHWM:\s+(\d+)", status):
            self.peak_kib = max(self.peak_kib, int(match.group(1)))


def _seconds(left: list[str | None]) -> int | None:
    days, hours, minutes, seconds = (int(part or 0) for part in left)
    return None if left[1] is None else ((days * 24 + hours) * 60 + minutes) * 60 + seconds
