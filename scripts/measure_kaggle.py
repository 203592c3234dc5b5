#!/usr/bin/env python3
"""The Kaggle download, from folder to archive, at any size: time, ETA, peak memory, kill -9 at half, resume.

Builds the exact tree of the COVID-19 Radiography Database out of real images, embeds it, kills the program with SIGKILL
when half of the images are done, lets it resume, indexes the result and checks that every image is there exactly once.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PROGRESS = re.compile(r"(\d+) of (\d+) images.*?(\d+):(\d+):(\d+) left")


class Watched:
    """A process whose peak memory and progress lines are recorded."""

    def __init__(self, command):
        self.started = time.monotonic()
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        self.lines, self.peak_kib, self.done = [], 0, 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stderr:
            if match := PROGRESS.search(line):
                self.done = int(match.group(1))
                hours, minutes, seconds = (int(part) for part in match.groups()[2:])
                self.lines.append((time.monotonic() - self.started, self.done, hours * 3600 + minutes * 60 + seconds))

    def sample(self):
        """Peak resident memory so far."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.peak_kib = max(self.peak_kib, int(re.search(r"VmHWM:\s+(\d+)", status).group(1)))
        except (OSError, AttributeError):
            pass

    def run(self, kill_at=None):
        """Waits for the end, or kills at `kill_at` images; seconds taken."""
        while self.process.poll() is None:
            self.sample()
            if kill_at and self.done >= kill_at:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                break
            time.sleep(0.05)
        return time.monotonic() - self.started

    def eta_error(self):
        """Median and worst |predicted - real| end, as a share of the whole time, after the first tenth."""
        whole = time.monotonic() - self.started
        errors = [abs(at + left - whole) / whole for at, _, left in self.lines if at > whole / 10]
        return {"median": round(float(np.median(errors)), 3), "worst": round(max(errors), 3)} if errors else None


def main() -> int:
    """Runs and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="folder of real images")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--images", type=int, default=21_165)
    parser.add_argument("--model", default="models/efficientnet_lite0")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch")
    parser.add_argument("--zip", action="store_true", help="embed the zip instead of the folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    tree = work / "tree"
    if not tree.exists():
        maker = [sys.executable, ROOT / "scripts/make_kaggle_tree.py", "--from", arguments.origin, "--out", tree]
        subprocess.run(
            [
                *map(str, maker),
                "--images",
                str(arguments.images),
                *(["--zip", work / "tree.zip"] if arguments.zip else []),
            ],
            check=True,
        )
    data = work / "tree.zip" if arguments.zip else tree
    embeddings, archive = work / "embeddings", work / "archive"
    for folder in (embeddings, archive):
        shutil.rmtree(folder, ignore_errors=True)
    embed = [
        arguments.program,
        "embed",
        "--data",
        data,
        "--out",
        embeddings,
        "--model",
        arguments.model,
        "--progress-seconds",
        "1",
    ]

    first = Watched(embed)
    killed_after = first.run(kill_at=arguments.images // 2)
    assert first.process.returncode == -signal.SIGKILL, "it ended before it could be killed at half"
    second = Watched(embed)
    resumed_after = second.run()
    assert second.process.returncode == 0, second.process.returncode
    resumed_from = second.lines[0][1] if second.lines else None

    index = Watched(
        [
            arguments.program,
            "index",
            "--embeddings",
            embeddings,
            "--data",
            data,
            "--model",
            arguments.model,
            "--archive",
            archive,
        ]
    )
    index_seconds = index.run()
    assert index.process.returncode == 0, index.process.returncode
    counts, sources, files = {}, 0, []
    for description in embeddings.glob("*.json"):
        if description.name != "_broken.json":
            records = json.loads(description.read_text())["records"]
            counts[description.stem] = len(records)
            sources += sum("source" in record for record in records)
            files += [record["file"] for record in records]
            assert np.load(description.with_suffix(".npy"), mmap_mode="r").shape[0] == len(records)
    assert len(files) == len(set(files)) == arguments.images, (len(files), len(set(files)))
    figures = {
        "images": arguments.images,
        "zip": arguments.zip,
        "classes": counts,
        "with_source": sources,
        "killed_after_s": round(killed_after, 1),
        "done_when_killed": first.done,
        "resumed_from": resumed_from,
        "resume_s": round(resumed_after, 1),
        "images_per_s": round(first.done / killed_after, 1),
        "eta_error_share": second.eta_error(),
        "peak_mib": {"embed": max(first.peak_kib, second.peak_kib) // 1024, "index": index.peak_kib // 1024},
        "index_s": round(index_seconds, 1),
        "processors": os.cpu_count(),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
