"""The chart as the tests see it: rendered by the real Helm."""

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "medsearch"
RUNBOOK = ROOT / "RUNBOOK.md"
# Values for each way to install it; `ct`, the chart tester, takes them from there too.
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
# Kinds that are not Kubernetes' own: the Prometheus operator's and the Gateway API's.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}
RELEASE = NAMESPACE = "medsearch"
# What no case leaves out.
NEEDED = (
    "image.repository=registry.example.org/medsearch",
    "archive.url=s3://hospital/x-rays",
    "archive.secret.existingSecret=medsearch",
    "apiKey.existingSecret=medsearch",
)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = os.environ.get("MEDSEARCH_HELM", "helm")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(*arguments: str, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
    return helm("template", RELEASE, str(CHART), "--namespace", namespace, *arguments)


def values_of(case: str) -> str:
    return str(CHART / "ci" / f"{case}-values.yaml")


@cache
def rendered(case: str, *sets: str) -> tuple[dict, ...]:
    """All manifests of one case, with values set on top."""
    # --set makes a text of a number with a point.
    flags = [
        flag for each in sets for flag in ("--set-json" if re.search(r"=[0-9]+\.[0-9]+$", each) else "--set", each)
    ]
    outcome = template("--values", values_of(case), *flags)
    assert outcome.returncode == 0, outcome.stderr
    return tuple(document for document in yaml.safe_load_all(outcome.stdout) if document)


def minimal(*sets: str) -> tuple[dict, ...]:
    return rendered("minimal", *sets)


def of_kind(documents: tuple[dict, ...], kind: str, ending: str = "") -> dict:
    """The one manifest of a kind whose name ends so."""
    found = [each for each in documents if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]


def nginx_annotations(ingress: dict) -> dict[str, str]:
    """Those of nginx, by the names that come after its prefix."""
    prefix = "nginx.ingress.kubernetes.io/"
    annotations = ingress["metadata"]["annotations"]
    return {name.removeprefix(prefix): value for name, value in annotations.items() if name.startswith(prefix)}


def pod_specs(documents: tuple[dict, ...]) -> list[tuple[str, dict]]:
    """Every pod that the manifests make, with the name of what makes it."""
    found = []
    for each in documents:
        spec = {
            "Pod": lambda d: d["spec"],
            "Deployment": lambda d: d["spec"]["template"]["spec"],
            "Job": lambda d: d["spec"]["template"]["spec"],
            "CronJob": lambda d: d["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        }.get(each["kind"])
        if spec:
            found.append((each["metadata"]["name"], spec(each)))
    return found


def environment(container: dict) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@cache
def rule_groups(release: str = RELEASE, namespace: str = NAMESPACE) -> str:
    """The rules as a file for a Prometheus without the operator: the PrometheusRule's spec."""
    # The name of the release is that of the job: the ServiceMonitor takes it from the Service.
    outcome = helm(
        *("template", release, str(CHART), "--namespace", namespace, "--values", values_of("minimal")),
        *("--set", f"metrics.prometheusRule.enabled=true,fullnameOverride={release}"),
        *("--show-only", "templates/prometheusrule.yaml"),
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.dumps(yaml.safe_load(outcome.stdout)["spec"], indent=1)
