#!/usr/bin/env python3
"""Write small valid and hard files for each fuzz target to begin with: OUT/<target>/*.

scripts/make_fuzz_seeds.py --out .local/test/fuzz/seeds
"""

import argparse
import base64
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

from medsearch_py import card as cards
from medsearch_py import kaggle
from medsearch_py.golden import dicom_files, jpeg_files, png_files

# Larger seeds only slow mutation down.
BYTES_MAX = 64 << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for one folder a target")
    out = parser.parse_args().out
    dicom = dicom_files.files()
    targets = {
        "png": png_files.files(),
        "jpeg": jpeg_files.files(),
        "dicom_precheck": dicom,
        "dicom_decode": dicom,
        "npy": matrices(),
        "model_card": {"card.json": json.dumps(card()).encode()},
        "class_file": class_files(),
        "data_set": data_sets(),
        "inner_wire": inner_wire(),
        "form": forms(),
        "related": related(),
        "headers": headers(),
        "asks": asks(),
        "keys_file": keys_files(),
    }
    for target, files in targets.items():
        (out / target).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if len(content) <= BYTES_MAX:
                (out / target / name).write_bytes(content)
    print(f"{sum(map(len, targets.values()))} files for {len(targets)} targets in {out}")
    return 0


def matrices() -> dict[str, bytes]:
    """Every element type and order that is read, and some that are not."""
    values = np.arange(12).reshape(3, 4)
    arrays = {kind: values.astype(kind) for kind in ("<f2", "<f4", "<f8", ">f4", "<i4")}
    arrays |= {"fortran": np.asfortranarray(values, "<f4"), "flat": values.ravel().astype("<f4")}
    return {f"{at}.npy": saved(array) for at, array in enumerate(arrays.values())}


def saved(array: np.ndarray) -> bytes:
    """As numpy.save writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def card() -> dict:
    """A card whose fields agree, of a network that there isn't."""
    card_input, mean, std = {"width": 8, "height": 8, "fit": "squeeze"}, [0.5] * 3, [0.25] * 3
    card = {
        "format": cards.FORMAT,
        "name": "none",
        "architecture": "none",
        "weights": {"origin": "nowhere", "licence": "MIT", "sha256": "0" * 64},
        "layers": ["last"],
        "pooling": "avg",
        "views": ["whole"],
        "dimension": 4,
        "input": card_input,
        "mean": mean,
        "std": std,
        "pixel_pipeline": cards.pipeline_id(card_input, "rgb", mean, std),
        "precision": "f32",
        "torchscript_sha256": "0" * 64,
        "exported_with": "nothing",
        "seeded": 1,
    }
    return card | {"space": cards.space_of(card)["id"]}


def class_files() -> dict[str, bytes]:
    """Interchange files: with everything a record may say, without a class, with pseudonyms."""
    record = {"id": "0" * 32, "file": "A/1.png", "sha256": "0" * 64, "tags": {"site": "x"}}
    record |= dict.fromkeys(("patient_id", "issuer", "study_uid", "series_uid", "sop_uid", "source"), "1.2")
    record |= {"label_source": "folder", "view": "PA", "age": "57", "sex": "F"}
    provenance = {"model": "none", "precision": "f32", "device": "cpu", "engine": "none"}
    described = {"space": cards.space_of(card()), "provenance": provenance, "class": "A", "records": [record]}
    pseudonyms = described | {"identity": "pseudonym", "secret_id": "0" * 16}
    kinds = {"labelled": described, "unlabelled": described | {"class": None}, "pseudonyms": pseudonyms}
    return {f"{name}.json": json.dumps(value).encode() for name, value in kinds.items()}


def data_sets() -> dict[str, bytes]:
    """Zips: class folders with a metadata.csv, and the Kaggle layout with its XLSX."""
    image = next(iter(sorted(png_files.files().values(), key=len)))
    table = b"file,class,patient_id,site\nA/1.png,B,P1,x\nA/2.png,,,\n"
    plain = {"A/1.png": image, "A/2.png": image, "metadata.csv": table}
    name = next(iter(kaggle.REAL))
    top = f"{kaggle.ROOT}/{name}"
    downloaded = {f"{top}/images/{name}-1.png": image, f"{top}.metadata.xlsx": kaggle.metadata_list(name, 2)}
    return {"plain.zip": zipped(plain), "kaggle.zip": zipped(downloaded)}


def inner_wire() -> dict[str, bytes]:
    """What replicas say to each other: a question, an answer, how one is."""
    key, image, held = "0f" * 16, "0f" * 18, {"version": 7, "commit": "c", "shards": [0, 1]}
    question = {"wire": 1, "archive": "a", **held, "deadline_ms": 900, "k": 10, "exact": False, "one_per": "picture"}
    question |= {"embedding": base64.b64encode(np.array([0.6, -0.8], "<f4").tobytes()).decode()}
    question |= {
        "patients": [[key, key]],
        "studies": [key],
        "same_pixels": [key],
        "classes": ["COVID"],
        "sources": None,
    }
    question |= {"exclude_sources": ["s"], "exclude": ["patient", "study", "pixels"]}
    found = [{"id": image, "similarity": int(np.float32(0.5).view(np.uint32))}]
    ranking = {
        "shard": 1,
        "hits": found,
        "nearest_per_class": found,
        "path": {"COVID": "hnsw"},
        "eligible": {"COVID": 3},
    }
    status = {"wire": 1, "wire_oldest": 1, "instance": "i", "replica": "r", "archive": "a", "draining": False}
    said = {
        "question": question,
        "answer": {"rankings": [ranking | {"distance_evaluations": 9}]},
        "status": status | {"bytes_max": None, "held": [held]},
    }
    return {f"{name}.json": json.dumps(value).encode() for name, value in said.items()}


def forms() -> dict[str, bytes]:
    """The size of pieces, the content type on a line, and the body."""
    head = b"\x10multipart/form-data; boundary=X\n"
    field = b'--X\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    image, k = field % (b"image", b"\x89PNG\r\n"), field % (b"k", b"5")
    classes = (field % (b"classes", b"A,B")) + (field % (b"exclude", b"patient"))
    named = field.replace(b'"\r\n\r\n', b'"; filename="x"\r\nContent-Type: image/png\r\n\r\n') % (b"image", b"x")
    bodies = {"search": image + k + classes, "added": field % (b"class", b"A") + named, "two": image * 2, "open": image}
    return {name: head + body + (b"" if name == "open" else b"--X--\r\n") for name, body in bodies.items()}


def related() -> dict[str, bytes]:
    """As a form; bodies as PACS send them: with lengths, 73 characters between parts, quotes, text around, cut off."""
    part = b"--%s\r\nContent-Type: application/dicom\r\n%s\r\nDICM\r\n"
    head = b'\x10multipart/related; type="application/dicom"; boundary=%s\n'
    orthanc = b"-".join([b"0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"] * 2)
    bodies = {
        "orthanc": head % orthanc + part % (orthanc, b"Content-Length: 4\r\n") * 2 + b"--" + orthanc + b"--",
        "python": head % b'"X"' + b"\r\n" + part % (b"X", b"") + b"--X--\r\n",
        "quoted": head % b'"a;b"' + b"preamble\r\n" + part % (b"a;b", b"") + b"--a;b--\r\nepilogue",
        "open": head % b"X" + part % (b"X", b""),
        "large": head % b"X" + (part % (b"X", b"")).replace(b"DICM", b"DICM" * 2000) + b"--X--",
    }
    return bodies | {"untyped": b"\x01multipart/related; boundary=X\n--X\r\n\r\nx\r\n--X--"}


def headers() -> dict[str, bytes]:
    """Heads of requests, one of which is let in."""
    key = b"a-key-that-nobody-guesses"
    return {
        "key": b"host: localhost:8000\nx-api-key: " + key,
        "bearer": b"host: localhost:8000\nauthorization: Bearer " + key,
        "wrong": b"host: localhost:8000\nauthorization: Bearer " + key[:-1],
        "page": b"host: localhost:8000\norigin: http://localhost:8000\nsec-fetch-site: same-origin\ncookie: a=b",
        "proxy": b"host: localhost\nx-forwarded-for: 192.0.2.1\nforwarded: for=192.0.2.1",
    }


def asks() -> dict[str, bytes]:
    """What endpoints take as JSON."""
    image = "0f" * 18
    options = {"k": 5, "vote": "prior", "classes": ["A"], "exclude": ["patient"], "liked": [image], "min_version": 1}
    options |= {"exact": True, "near_identical": "keep", "allow_partial": False}
    bodies = {
        "ids": {"ids": [image]} | options,
        "vector": {"vector": [0.5, -1e30], "space": "0f" * 16} | options,
        "reference": {"pacs": "main", "study": "1.2.3", "series": "1.2.4", "instance": "1.2.5"} | options,
        "url": {"url": "https://pacs.example/studies/1.2.3"},
        "label": {"class": "A", "label_source": "PCR"},
        "report": {"image": image, "suggested": "A", "reason": "why"},
        "patient": {"patient_id": "P", "issuer": None},
    }
    return {f"{name}.json": json.dumps(body).encode() for name, body in bodies.items()}


def keys_files() -> dict[str, bytes]:
    """Lists of keys."""
    key = {"name": "pacs", "sha256": "0f" * 32, "scopes": ["search", "ingest"], "created": "2026-01-01T00:00:00Z"}
    other = {"name": "page", "sha256": "1e" * 32, "scopes": ["admin"], "created": "2026-01-01T00:00:00Z"}
    lists = {"two": [key | {"expires": "2027-01-01T00:00:00Z"}, other], "none": [], "twice": [key, key]}
    return {f"{name}.json": json.dumps({"format": 1, "keys": keys}).encode() for name, keys in lists.items()}


def zipped(files: dict[str, bytes]) -> bytes:
    """Stored, not deflated: what is inside can be mutated."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
