#!/usr/bin/env python3
"""Embed labelled images with PyTorch: OUT/<CLASS>.npy and OUT/<CLASS>.json.

    scripts/calculate_embeddings.py --data data --out embeddings --model models/efficientnet_lite0

Run again after an interruption it goes on where it stopped. Exit codes: 0 done; 1 failed; 2 wrong
command line; 3 some images were broken and are listed in OUT/_broken.json, the others are embedded.
"""

import argparse
import os
import sys
from pathlib import Path

from medsearch_py.card import CardError
from medsearch_py.dataset import Dataset, DatasetError
from medsearch_py.embed import run
from medsearch_py.model import load_model
from medsearch_py.pixels import BY_PERCENTILE, FRAMES
from medsearch_py.windows import WindowsError
from medsearch_py.windows import read as read_windows

SOME_BROKEN = 3
FAILED = 1


def main() -> int:
    args = arguments()
    # Records may name patients: what is written is for whoever runs this.
    os.umask(0o077)
    try:
        windows = read_windows(args.windows) if args.windows else BY_PERCENTILE
        dataset = Dataset(args.data)
        if dataset.unread:
            print(f"{len(dataset.unread)} files lie too deep and are not read", file=sys.stderr)
        model = load_model(args.model, args.device, args.threads)
        broken = run(dataset, model, args.out, args.batch, args.workers, args.limit, args.frames, windows)
    except (DatasetError, CardError, WindowsError) as error:
        print(f"calculate_embeddings: {error}", file=sys.stderr)
        return FAILED
    if broken:
        print(f"{len(broken)} broken images, listed in {args.out / '_broken.json'}", file=sys.stderr)
    return SOME_BROKEN if broken else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder or zip with <CLASS>/ or <CLASS>/images/")
    parser.add_argument("--out", required=True, type=Path, help="folder for the embeddings")
    parser.add_argument("--model", required=True, help="folder of an exported model, or `thumbnail`")
    parser.add_argument(
        "--frames", default="first", choices=FRAMES, help="of a DICOM file of several frames, default %(default)s"
    )
    parser.add_argument("--windows", type=Path, help="table of windows by modality and body part, default: percentiles")
    parser.add_argument("--batch", type=positive, default=32, help="images a batch, default %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N, default %(default)s")
    parser.add_argument("--workers", type=positive, default=len(os.sched_getaffinity(0)), help="decoding threads")
    parser.add_argument("--threads", type=positive, help="model threads on the CPU, default all")
    parser.add_argument("--limit", type=positive, help="only the first N images")
    return parser.parse_args()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
