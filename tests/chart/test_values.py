"""Which values are refused, and that the schema and the README know them all."""

import json
import re

import pytest
import yaml
from chart import CHART, NEEDED, template

# --set of each, and a word of the reason.
REFUSED = [
    # nonsense
    ("replicaCount=0", "replicaCount"),
    ("replicaCount=-1", "replicaCount"),
    ("replicaCount=two", "replicaCount"),
    ("replicas=3", "replicas"),
    ("image.repository=registry.example.org/medsearch:latest", "repository"),
    ("image.digest=sha256:abc", "digest"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("server.device=gpu", "device"),
    ("server.listenHost=127.0.0.1", "listenHost"),
    ("server.uploadBytesMax=64 MiB", "uploadBytesMax"),
    ("server.frames=last", "frames"),
    ("server.requestSecondsMax=0", "requestSecondsMax"),
    ("server.drainSeconds=-1", "drainSeconds"),
    ("cache.sizeLimit=0", "sizeLimit"),
    ("cache.medium=Disk", "medium"),
    ("runAs.user=0", "runAs"),
    ("runAs.group=0", "runAs"),
    ("service.port=0", "port"),
    ("service.type=LoadBalancer", "type"),
    ("service.type=NodePort", "type"),
    ("securityContext.privileged=true", "securityContext"),
    ("hostNetwork=true", "hostNetwork"),
    ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
    ("autoscaling.metric=memory", "metric"),
    ("compact.schedule=every night", "schedule"),
    ("bulkIndex.identity=open", "identity"),
    ("bulkIndex.embeddingsPath=/etc", "embeddingsPath"),
    ("bulkIndex.embeddingsPath=../etc", "embeddingsPath"),
    ("bulkIndex.dataPath=a/../../b", "dataPath"),
    ("metrics.prometheusRule.objectives.availability=100", "availability"),
    ("metrics.prometheusRule.objectives.latencySeconds=0.3", "latencySeconds"),
    ("metrics.prometheusRule.objectives.recall=95", "recall"),
    ("metrics.serviceMonitor.interval=15", "interval"),
    ("traces.share=1.5", "share"),
    ("traces.endpoint=otel-collector:4318", "endpoint"),
    ("archive.url=/var/archive", "url"),
    ("archive.url=http://hospital/x-rays", "url"),
    # secrets in the open
    ("apiKey=0123456789abcdef", "apiKey"),
    ("apiKey.value=0123456789abcdef", "value"),
    ("apiKey.existingSecret=0123456789ABCDEF", "existingSecret"),
    ('keysFile={"format": 1, "keys": []}', "keysFile"),
    ("keysFile.content=x", "content"),
    ("keysFile.key=", "key"),
    ("metrics.serviceMonitor.apiKey.value=0123456789abcdef", "value"),
    ("cluster.innerKey.value=0123456789abcdef", "value"),
    ("archive.secret.value=00ff", "value"),
    ("archive.url=s3://key:secret@hospital/x-rays", "url"),
    ("archive.url=s3://hospital/x-rays?token=x", "url"),
    ("traces.endpoint=https://name:password@collector:4318", "endpoint"),
    ('extraEnv=[{"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": "authorization=x"}]', "extraEnv"),
    ('extraEnv=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]', "extraEnv"),
    ('extraEnv=[{"name": "AWS_SESSION_TOKEN", "value": "x"}]', "extraEnv"),
    ('extraEnv=[{"name": "azure_storage_account_key", "value": "x"}]', "extraEnv"),
    ('extraEnv=[{"name": "HTTPS_PROXY", "value": "http://user:password@proxy"}]', "extraEnv"),
    ('compact.extraEnv=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]', "extraEnv"),
    ("oidc.client.secret=0123456789abcdef", "secret"),
    ("oidc.issuer=https://name:password@issuer.example.org", "issuer"),
    ("pacs.content=x", "content"),
    # doors
    ('extraEnv=[{"name": "MEDSEARCH_PACS_FILE", "value": "/tmp/pacs.toml"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_OIDC_ISSUER", "value": "https://elsewhere"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_AUDIT_DIR", "value": "/tmp"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_API_KEY", "value": "x"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_LISTEN", "value": "0.0.0.0:9000"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_INNER_LISTEN", "value": "0.0.0.0:8001"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_API_KEY_FILE", "value": "/dev/null"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_KEYS_FILE", "value": "/tmp/keys.json"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_LABELS_FILE", "value": "/tmp/labels.csv"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_CONFIG", "value": "/tmp/x"}]', "extraEnv"),
    ('networkPolicy.clients=[{"everybody": true}]', "clients"),
    ("networkPolicy.clients=[{}]", "clients"),
    ('extraEnv=[{"name": "MEDSEARCH_REPLICA", "value": "the-same-for-all"}]', "extraEnv"),
    ('extraEnv=[{"name": "MEDSEARCH_OTLP_ENDPOINT", "value": "http://elsewhere:4318"}]', "extraEnv"),
    ('podLabels={"app.kubernetes.io/component": "other"}', "podLabels"),
    ('commonLabels={"app.kubernetes.io/name": "other"}', "commonLabels"),
    ("apiKey.existingSecret=", "apiKey.existingSecret is missing"),
    ("apiKey.existingSecret=,keysFile.existingSecret=keys", "apiKey.existingSecret is missing"),
    ("archive.secret.existingSecret=", "archive.secret.existingSecret is missing"),
    ("archive.url=", "archive.url is missing"),
    ("image.repository=", "image.repository is missing"),
    # what contradicts itself
    ("keysFile.existingSecret=medsearch,keysFile.key=api-key", "not the API key"),
    ("cluster.enabled=true", "innerKey.existingSecret is missing"),
    ("cluster.innerTls.existingSecret=medsearch-inner-tls", "needs cluster.enabled"),
    (
        "cluster.enabled=true,cluster.innerKey.existingSecret=medsearch,cluster.innerKey.key=api-key",
        "another credential",
    ),
    ("cluster.enabled=true,cluster.innerKey.existingSecret=medsearch,replicaCount=1", "replicationFactor"),
    ("cluster.enabled=true,cluster.innerKey.existingSecret=medsearch,cluster.replicationFactor=1", "replicationFactor"),
    (
        "cluster.enabled=true,cluster.innerKey.existingSecret=medsearch,podDisruptionBudget.maxUnavailable=2",
        "takes a shard away",
    ),
    ("cluster.enabled=true,cluster.innerKey.existingSecret=medsearch,cluster.indexBytesMax=4Gi", "limits.memory"),
    ("cluster.indexBytesMax=1Gi", "needs cluster.enabled"),
    ("cache.medium=Memory", "limits.memory"),
    ("autoscaling.enabled=true,autoscaling.maxReplicas=1", "maxReplicas"),
    ("archive.existingClaim=x", "file:///archive"),
    ("archive.url=file:///archive", "existingClaim"),
    ("archive.url=file:///archive,archive.existingClaim=x", "replicaCount"),
    ("archive.url=file:///archive,archive.existingClaim=x,readOnly=true,cluster.enabled=true", "bucket"),
    ("ingress.enabled=true,ingress.tlsElsewhere=true", "ingress.hosts"),
    ("ingress.enabled=true,ingress.hosts={a.example.org}", "ingress.tls"),
    ("ingress.enabled=true,ingress.tlsElsewhere=true,ingress.hosts={a.example.org}", "networkPolicy.clients"),
    ("httpRoute.enabled=true", "parentRefs"),
    ("metrics.serviceMonitor.enabled=true", "networkPolicy.monitoring"),
    ("traces.endpoint=http://collector:4318", "networkPolicy.collector"),
    ("bulkIndex.enabled=true", "bulkIndex.existingClaim"),
    ("publicUrl=search.example.org", "publicUrl"),
    ("publicUrl=https://search.example.org/path", "publicUrl"),
    ("dicomWebUrl=https://search.example.org/dicom-web/", "dicomWebUrl"),
    ("oidc.roles={radiologist}", "roles"),
    ("oidc.sessionMinutes=0", "sessionMinutes"),
    ("oidc.issuer=https://issuer.example.org", "oidc.audience and oidc.roles"),
    ("oidc.issuer=https://issuer.example.org,oidc.audience=a,oidc.roles={r=search}", "networkPolicy.issuer"),
    (
        "oidc.issuer=https://issuer.example.org,oidc.audience=a,oidc.roles={r=search},oidc.client.id=m,"
        "networkPolicy.enabled=false",
        "publicUrl",
    ),
    ("oidc.client.id=m,publicUrl=https://search.example.org", "oidc.issuer"),
    ("oidc.client.existingSecret=m", "oidc.client.id"),
    ("pacs.existingSecret=medsearch-pacs", "networkPolicy.pacs"),
    ("audit.bytesMax=none", "bytesMax"),
    ("archive.url=file:///archive,archive.existingClaim=x,replicaCount=1,audit.existingClaim=x", "another claim"),
]
ACCEPTED = [
    "replicaCount=1",
    "keysFile.existingSecret=medsearch",
    "image.repository=localhost:5000/a/medsearch",
    "server.uploadBytesMax=1000",
    'extraEnv=[{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"}]',
    'extraEnv=[{"name": "AWS_REGION", "value": "eu-central-1"}]',
    'extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]',
    'extraEnv=[{"name": "AZURE_STORAGE_ACCOUNT_KEY", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]',
    'extraEnv=[{"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]',
    'extraEnv=[{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "deployment.environment.name=test"}]',
    "traces.endpoint=https://collector/otlp,networkPolicy.enabled=false",
    "compact.schedule=@daily",
    "publicUrl=https://search.example.org,dicomWebUrl=https://dicom.example.org/dicom-web",
    "oidc.issuer=https://issuer.example.org/realms/a,oidc.audience=a,oidc.roles={r=search+ingest},networkPolicy.enabled=false",
    "audit.existingClaim=medsearch-audit",
    "pacs.existingSecret=medsearch-pacs,networkPolicy.enabled=false",
    "archive.url=az://hospital",
    "runAs.user=null",
    "global.anything=x",
]


def set_on_minimal(text: str) -> tuple[int, str]:
    needed = [flag for each in NEEDED for flag in ("--set", each)]
    outcome = template(*needed, "--set-json" if "=[" in text or '={"' in text else "--set", text)
    return outcome.returncode, outcome.stderr


@pytest.mark.parametrize("text, reason", REFUSED)
def test_refused(text: str, reason: str) -> None:
    status, said = set_on_minimal(text)
    assert status != 0, "it is accepted"
    assert reason in said, said


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: str) -> None:
    status, said = set_on_minimal(text)
    assert status == 0, said


def leaves(values: dict, above: str = "") -> list[str]:
    """Paths of values; a map that is empty or free is one."""
    found = []
    for key, value in values.items():
        path = f"{above}.{key}" if above else key
        whole = path.endswith((".requests", ".limits")) or path == "metrics.dashboards.labels"
        found += leaves(value, path) if isinstance(value, dict) and value and not whole else [path]
    return found


VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def test_the_schema_names_every_value_and_nothing_else() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: dict, node: dict, path: str) -> None:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        if "properties" not in node:
            return
        assert node["additionalProperties"] is False, path
        extra = {"global", "claims"}
        assert set(node["properties"]) - extra == set(values) - extra, path
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, node["properties"][key], f"{path}.{key}")

    compare(VALUES, schema, "values")


def test_the_readme_lists_every_value_with_its_default() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| .+ \|$", (CHART / "README.md").read_text(), re.MULTILINE)
    listed = dict(rows)
    assert len(listed) == len(rows)
    paths = leaves(VALUES)
    assert set(listed) == set(paths)
    for path in paths:
        value = VALUES
        for key in path.split("."):
            value = value[key]
        if not isinstance(value, list | dict):
            shown = '`""`' if value == "" else f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"
            assert listed[path] == shown, path


def test_every_value_has_a_comment() -> None:
    """Above it, or above a group whose names speak for themselves."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"^[a-zA-Z]+:", line) and line.rstrip().endswith(":"):
            before, after = lines[number - 1], lines[number + 1]
            inside = [each for each in lines[number + 1 : number + 8] if each.startswith("  #")]
            assert before.startswith("#") or inside or after.strip().startswith("#"), line
