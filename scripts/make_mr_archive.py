#!/usr/bin/env python3
"""Make a labelled data set of MR images out of five Python packages: another domain than chests, for tests.

    scripts/make_mr_archive.py --out data/mr --count 12

Four volumes of heads are cut. Classes are the planes (axial, coronal, sagittal) or, with --by region, the parts that
axial slices show (base, middle, vertex: thirds of the head's height) and of two other bodies a shoulder and an abdomen,
DICOM as they came. A patient is a volume. Four heads are no evidence of anything but that the program takes other
images than X-rays of chests. Exit code 4: the packages can't be fetched from here.
"""

import argparse
import csv
import io
import shutil
import sys
from pathlib import Path

from medsearch_py import picture_packages, volumes
from medsearch_py.files import replacing

COLUMNS = ("file", "class", "patient_id", "source", "modality", "body_part", "place_mm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for one folder a class and metadata.csv")
    parser.add_argument(
        "--by", choices=("plane", "region"), default="plane", help="what the classes are, default plane"
    )
    parser.add_argument("--count", type=int, default=12, help="slices of each volume and plane at most, default 12")
    args = parser.parse_args()
    if args.count < 1:
        parser.error("--count must be at least 1")
    try:
        packages = picture_packages.folder()
    except picture_packages.PackagesMissingError as error:
        print(f"make_mr_archive: the packages with the volumes can't be installed: {error}", file=sys.stderr)
        return picture_packages.UNREACHABLE
    rows = []
    for source in volumes.SOURCES:
        values, sides = volumes.load(source, packages)
        for plane in volumes.PLANES if args.by == "plane" else ["axial"]:
            cut = volumes.slices(values, sides, plane, args.count)
            for at, (place, picture) in enumerate(cut):
                of = plane if args.by == "plane" else volumes.REGIONS[at * len(volumes.REGIONS) // len(cut)]
                (args.out / of).mkdir(parents=True, exist_ok=True)
                file = f"{of}/{source.name}-{place:03}.png"
                picture.save(args.out / file, "PNG")
                known = (file, of, source.name, source.file.split("/")[0], "MR", "HEAD", place)
                rows.append(dict(zip(COLUMNS, known, strict=True)))
    for single in volumes.SINGLES if args.by == "region" else []:
        (args.out / single.region).mkdir(parents=True, exist_ok=True)
        file = f"{single.region}/{single.name}.dcm"
        shutil.copyfile(packages / single.file, args.out / file)
        known = (file, single.region, single.name, "pydicom-data", "MR", single.region.upper(), 0)
        rows.append(dict(zip(COLUMNS, known, strict=True)))
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["file"].encode()))
    with replacing(args.out / "metadata.csv") as file:
        file.write(table.getvalue().encode())
    classes = {row["class"] for row in rows}
    patients = {row["patient_id"] for row in rows}
    print(f"{len(rows)} slices of {len(patients)} patients, {len(classes)} classes, in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
