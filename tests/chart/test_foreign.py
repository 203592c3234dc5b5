"""Manifests of kinds that are not Kubernetes' own, held against their CustomResourceDefinitions.

TypeScript finds fields that there are not, and values of another type; the generated checks find values out of range.
"""

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from chart import CASES, FOREIGN, of_kind, rendered

# By `scripts/lib/crds`; none where there is no Node.js.
CRDS = os.environ.get("MEDSEARCH_CRDS", "")
PACKAGES = {"gateway.networking.k8s.io": "gateway-api", "monitoring.coreos.com": "prometheus-operator"}
CHECK = """
import { readFileSync } from "node:fs";
for (const { module, kind, manifest } of JSON.parse(readFileSync(0, "utf8"))) {
  const model = (await import(module))[kind];
  try { new model(manifest).validate(); } catch (error) { console.log(`${kind}: ${error.message}`); }
}
"""

pytestmark = pytest.mark.skipif(not CRDS, reason="needs Node.js and npm")


def module_of(manifest: dict) -> str:
    group = manifest["apiVersion"].split("/")[0]
    return f"@kubernetes-models/{PACKAGES[group]}/{manifest['apiVersion']}/{manifest['kind']}"


def problems(manifests: list[dict], folder: Path) -> str:
    """What TypeScript and the checks say, nothing where all is well."""
    (folder / "node_modules").symlink_to(Path(CRDS) / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "check.js").write_text(CHECK)
    for number, manifest in enumerate(manifests):
        kind = manifest["kind"]
        (folder / f"manifest-{number}.ts").write_text(
            f'import type {{ I{kind} }} from "{module_of(manifest)}";\n'
            f"export const manifest: I{kind} = {json.dumps(manifest, indent=1)};\n"
        )
    options = ["--noEmit", "--strict", "--skipLibCheck", "--types", "", "--target", "es2022"]
    options += ["--module", "node16", "--moduleResolution", "node16"]
    sources = sorted(path.name for path in folder.glob("manifest-*.ts"))
    typed = run(["node_modules/.bin/tsc", *options, *sources], folder)
    listed = [{"module": module_of(each), "kind": each["kind"], "manifest": each} for each in manifests]
    return typed + run(["node", "check.js"], folder, json.dumps(listed))


def run(command: list[str], folder: Path, given: str = "") -> str:
    outcome = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0 or outcome.stdout, outcome.stderr
    return outcome.stdout


def test_manifests_fit_the_definitions(tmp_path: Path) -> None:
    manifests = [each for case in CASES for each in rendered(case) if each["kind"] in FOREIGN]
    assert {each["kind"] for each in manifests} == FOREIGN
    assert problems(manifests, tmp_path) == ""


def misspelt(spec: dict) -> None:
    spec["selektor"] = {}


def nested(spec: dict) -> None:
    next(iter(spec.get("rules") or spec.get("endpoints") or spec["groups"]))["intervall"] = "1m"


def number(spec: dict) -> None:
    """A text where there is a list, a number where there is a text."""
    for name in ("hostnames", "endpoints", "groups"):
        if name in spec:
            spec[name] = 7


@pytest.mark.parametrize("spoil", [misspelt, nested, number])
@pytest.mark.parametrize(("case", "kind"), [("httproute", "HTTPRoute"), ("everything", "ServiceMonitor")])
def test_what_does_not_fit_is_found(case: str, kind: str, spoil: Callable[[dict], None], tmp_path: Path) -> None:
    manifest = copy.deepcopy(of_kind(rendered(case), kind))
    spoil(manifest["spec"])
    assert "manifest-0.ts" in problems([manifest], tmp_path)
