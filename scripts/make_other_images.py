#!/usr/bin/env python3
"""Write pictures that belong in no archive of chest X-rays, a folder a family, to test what is told apart.

    scripts/make_other_images.py --out data/other --count 40 --chest data/chests

`OUT.families.json` beside the folder says how many pictures of each family are independent: crops of one photograph
are different pictures of one scene. What is made of real X-rays (`--chest`) is hard to tell apart: inverted, turned,
upside down, and half a picture, at best lateral-like. Exit code 4: the packages can't be fetched from here.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from medsearch_py import other_images, picture_packages
from medsearch_py.files import write_json


def main() -> int:
    args = arguments()
    try:
        packages = picture_packages.folder()
    except picture_packages.PackagesMissingError as error:
        print(f"make_other_images: the packages with the pictures can't be installed: {error}", file=sys.stderr)
        return picture_packages.UNREACHABLE
    families = other_images.families(packages, args.seed)
    if args.chest:
        families.update(other_images.of_chests(args.chest, args.seed))
    counts = {}
    for family, pictures in families.items():
        counts[family] = save(args.out / family, pictures, args.count)
        print(f"{family}: {counts[family]['images']} images, {counts[family]['independent']} independent")
    write_json(args.out.with_name(f"{args.out.name}.families.json"), counts)
    return 0


def save(folder: Path, pictures: Iterator[tuple[str, Image.Image]], count: int) -> dict[str, int]:
    """The first `count` of a family; `independent` counts what they were made of."""
    folder.mkdir(parents=True, exist_ok=True)
    origins, images = set(), 0
    for (origin, picture), number in zip(pictures, range(count), strict=False):
        picture.save(folder / f"{number:04}-{origin}.png", "PNG")
        origins.add(origin)
        images += 1
    return {"images": images, "independent": len(origins)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for one folder a family")
    parser.add_argument("--count", type=int, default=40, help="pictures of each family at most, default %(default)s")
    parser.add_argument("--chest", type=Path, help="folder with chest X-rays (PNG, JPEG) for the hard families")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    args = parser.parse_args()
    if args.count < 1:
        parser.error("--count must be at least 1")
    if args.chest and not args.chest.is_dir():
        parser.error(f"--chest: {args.chest} is no folder")
    return args


if __name__ == "__main__":
    sys.exit(main())
