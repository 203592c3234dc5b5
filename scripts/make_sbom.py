#!/usr/bin/env python3
"""Write the bill of materials (CycloneDX 1.6, JSON) of the program: what is in it, from where, under what licence.

scripts/make_sbom.py --out .local/sbom.json

From `cargo metadata` and Cargo.lock: what the released program is built from, without what only builds or tests it;
libtorch, which lies beside it; and, as `excluded`, the Python packages that make models and archives. The same tree
gives the same bytes.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What images are built for.
PLATFORM = "x86_64-unknown-linux-gnu"
# Packages with which models and archives are made, apart from the program.
PYTHON = ("requirements.txt", "requirements-models.txt")
# Serial numbers are made of what is listed (RFC 9562, version 5).
NAMESPACE = uuid.UUID("6f2e1c52-7f0b-4e0c-9d0e-3a5b7e6b2c41")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    parser.add_argument(
        "--validate", action="store_true", help="hold it against CycloneDX's schema (cyclonedx-python-lib)"
    )
    arguments = parser.parse_args()
    written = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(written)
    if arguments.validate and (said := what_is_wrong(written)):
        print(f"error: {arguments.out}: {said}", file=sys.stderr)
        return 1
    print(f"{written.count(chr(34) + 'bom-ref')} components in {arguments.out}")
    return 0


def document() -> dict:
    """The whole bill."""
    metadata = cargo_metadata()
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    needs = runtime_needs(metadata)
    used = reachable(root, needs)
    checksums = locked_checksums()
    crates = [
        crate(packages[each], checksums) for each in sorted(used - {root}, key=lambda id_: reference(packages[id_]))
    ]
    program = packages[root]
    version = program["version"]
    listed = [*crates, libtorch(), *python_packages()]
    dependencies = [
        {"ref": reference(packages[each]), "dependsOn": sorted(reference(packages[need]) for need in needs[each])}
        for each in sorted(used, key=lambda id_: reference(packages[id_]))
    ]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "scripts/make_sbom.py"}]},
            "component": {
                "type": "application",
                "bom-ref": reference(program),
                "name": program["name"],
                "version": version,
                "description": program["description"],
                "licenses": [{"expression": program["license"]}],
                "purl": reference(program),
            },
        },
        "components": listed,
        "dependencies": dependencies,
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(bill, sort_keys=True))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "serialNumber": f"urn:uuid:{serial}"} | bill


def cargo_metadata() -> dict:
    """What cargo makes of the lock file, for one platform."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", PLATFORM]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def runtime_needs(metadata: dict) -> dict[str, list[str]]:
    """By package id: what it needs when it runs, not what builds or tests it."""

    def is_runtime(dependency: dict) -> bool:
        return any(kind["kind"] is None for kind in dependency["dep_kinds"])

    nodes = metadata["resolve"]["nodes"]
    return {node["id"]: [each["pkg"] for each in node["deps"] if is_runtime(each)] for node in nodes}


def reachable(root: str, needs: dict[str, list[str]]) -> set[str]:
    """The program and all that it needs, directly or not."""
    found, left = set(), [root]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += needs[each]
    return found


def locked_checksums() -> dict[tuple[str, str], str]:
    """SHA-256 of each crate as the registry has it."""
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(each["name"], each["version"]): each["checksum"] for each in packages if "checksum" in each}


def reference(package: dict) -> str:
    """Its package URL."""
    return f"pkg:cargo/{package['name']}@{package['version']}"


def crate(package: dict, checksums: dict[tuple[str, str], str]) -> dict:
    """A crate."""
    purl = reference(package)
    component = {
        "type": "library",
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "purl": purl,
    }
    if package["license"]:
        # Before expressions there were lists with a slash.
        component["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum := checksums.get((package["name"], package["version"])):
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return component


def libtorch() -> dict:
    """The library beside the program, taken out of the Python package of this version."""
    version = pins(ROOT / "requirements-torch.txt")["torch"]
    purl = f"pkg:pypi/torch@{version}"
    licence = [{"license": {"id": "BSD-3-Clause"}}]
    return {"type": "library", "bom-ref": purl, "name": "torch", "version": version, "purl": purl, "licenses": licence}


def python_packages() -> list[dict]:
    """What is no part of the program."""
    listed = {}
    for name in PYTHON:
        listed |= pins(ROOT / name)
    return [
        {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": "excluded"}
        for name, version in sorted(listed.items())
        if name != "torch"
        for purl in [f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"]
    ]


def pins(path: Path) -> dict[str, str]:
    """Names and versions of a requirements file."""
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;#]+)", path.read_text(), re.MULTILINE))


def what_is_wrong(written: str) -> str | None:
    """By CycloneDX's own schema."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(written)
    return str(error)[:2000] if error else None


if __name__ == "__main__":
    sys.exit(main())
