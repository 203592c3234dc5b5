"""What the chart makes, as Kubernetes, a security officer and an operator read it."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kubernetes_validate
import pytest
import yaml
from chart import (
    CASES,
    CHART,
    FOREIGN,
    ROOT,
    environment,
    helm,
    minimal,
    nginx_annotations,
    of_kind,
    pod_specs,
    rendered,
    template,
    values_of,
)

# The oldest that Chart.yaml allows, and the newest.
KUBERNETES = ("1.29", "1.37")


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_to_say(case: str) -> None:
    outcome = helm("lint", "--strict", str(CHART), "--values", values_of(case))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "[WARNING]" not in outcome.stdout and "[ERROR]" not in outcome.stdout


def test_without_values_helm_lints_and_an_installation_says_what_is_missing() -> None:
    assert helm("lint", "--strict", str(CHART)).returncode == 0
    outcome = template()
    assert outcome.returncode != 0 and "is missing" in outcome.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_every_manifest_fits_kubernetes_schemas(case: str, version: str) -> None:
    checked = 0
    for document in rendered(case):
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize("case", CASES)
def test_names_are_short_enough_unique_and_in_the_releases_namespace(case: str) -> None:
    seen = set()
    for document in rendered(case):
        metadata = document["metadata"]
        # A CronJob's pods get eleven characters more; nothing is named after a ConfigMap.
        assert len(metadata["name"]) <= {"CronJob": 52, "ConfigMap": 253}.get(document["kind"], 63)
        assert metadata["namespace"] == (
            "monitoring" if case == "everything" and document["kind"] == "ConfigMap" else "medsearch"
        )
        key = (document["kind"], metadata["name"])
        assert key not in seen
        seen.add(key)
        for name in ("name", "instance", "component", "version", "managed-by"):
            assert metadata["labels"][f"app.kubernetes.io/{name}"]


@pytest.mark.parametrize("case", CASES)
def test_every_pod_keeps_to_the_profile_restricted(case: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for name, spec in pod_specs(rendered(case)):
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not spec.get(key), name
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context.get("runAsUser", 1) > 0
        for container in spec["containers"] + spec.get("initContainers", []):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["privileged"] is False
            assert own["readOnlyRootFilesystem"] is True and own["capabilities"] == {"drop": ["ALL"]}
            assert all("hostPort" not in port for port in container.get("ports", []))
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= {"secret", "configMap", "emptyDir", "persistentVolumeClaim"}, name
            # Without a bound one pod fills the node's disk.
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("case", CASES)
def test_volumes_and_mounts_belong_together_and_secrets_are_read_only(case: str) -> None:
    for name, spec in pod_specs(rendered(case)):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = [mount for container in spec["containers"] for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == set(volumes), name
        for mount in mounts:
            volume = volumes[mount["name"]]
            if "secret" in volume:
                assert mount["readOnly"] is True and volume["secret"]["defaultMode"] == 0o400


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_made_and_none_stands_in_the_open(case: str) -> None:
    for document in rendered(case):
        assert document["kind"] != "Secret"
    for _, spec in pod_specs(rendered(case)):
        for container in spec["containers"]:
            for variable in container["env"]:
                if "value" in variable and any(word in variable["name"] for word in ("KEY", "SECRET", "PASSWORD")):
                    assert variable["name"].endswith("_FILE") and variable["value"].startswith("/etc/medsearch/")


@pytest.mark.parametrize("case", CASES)
def test_servers_never_listen_without_a_key(case: str) -> None:
    deployment = of_kind(rendered(case), "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    variables = environment(container)
    assert variables["MEDSEARCH_API_KEY_FILE"] == "/etc/medsearch/api-key/key"
    assert ("MEDSEARCH_KEYS_FILE" in variables) == (case == "everything")
    assert ("MEDSEARCH_INNER_LISTEN" in variables) == ("MEDSEARCH_INNER_KEY_FILE" in variables)
    # One name twice: the later would win, whichever that is.
    assert len({variable["name"] for variable in container["env"]}) == len(container["env"])


@pytest.mark.parametrize("case", CASES)
def test_only_the_test_and_clients_can_name_themselves_clients(case: str) -> None:
    for document in rendered(case):
        if document["kind"] in ("Deployment", "CronJob", "Job"):
            assert "-client" not in str(
                document["spec"].get("template", document["spec"].get("jobTemplate"))["metadata"]
            )


def test_the_deployment_loses_nobody_in_a_rollout() -> None:
    spec = of_kind(minimal(), "Deployment")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    settings = environment(container)
    drain, longest = int(settings["MEDSEARCH_DRAIN_SECONDS"]), int(settings["MEDSEARCH_REQUEST_SECONDS_MAX"])
    assert pod["terminationGracePeriodSeconds"] > drain + longest
    readiness = container["readinessProbe"]
    # The drain is long enough for the kubelet to see it twice.
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < drain
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 900
    assert spec["progressDeadlineSeconds"] > 900
    assert [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")] == [
        "/startupz",
        "/livez",
        "/readyz",
    ]
    assert {each["topologyKey"] for each in pod["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }


def test_selectors_hold_nothing_that_changes() -> None:
    for document in rendered("everything"):
        if document["kind"] == "Deployment":
            assert set(document["spec"]["selector"]["matchLabels"]) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }


def test_a_cluster_finds_itself_before_it_is_ready() -> None:
    documents = rendered("cluster")
    peers = of_kind(documents, "Service", "-peers")
    deployment = of_kind(documents, "Deployment")
    assert peers["spec"]["clusterIP"] == "None" and peers["spec"]["publishNotReadyAddresses"] is True
    settings = environment(deployment["spec"]["template"]["spec"]["containers"][0])
    assert settings["MEDSEARCH_PEERS"] == f"dns://{peers['metadata']['name']}:{peers['spec']['ports'][0]['port']}"
    assert settings["MEDSEARCH_INDEX_BYTES_MAX"] == str(3 << 30)
    assert settings["MEDSEARCH_REPLICATION_FACTOR"] == "2"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for service in (each for each in documents if each["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= labels.items()
    # The public one has no inner port, and the headless one no public port.
    assert [len(each["spec"]["ports"]) for each in documents if each["kind"] == "Service"] == [1, 1]


def test_jobs_are_no_servers() -> None:
    documents = rendered("everything")
    selector = of_kind(documents, "Service", "-peers")["spec"]["selector"]
    for document in documents:
        if document["kind"] == "CronJob":
            labels = document["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
        elif document["kind"] == "Job":
            labels = document["spec"]["template"]["metadata"]["labels"]
        elif document["kind"] == "Pod":
            labels = document["metadata"]["labels"]
        else:
            continue
        assert not selector.items() <= labels.items(), document["metadata"]["name"]


@pytest.mark.parametrize(
    "setting, variable, expected",
    [
        ("server.uploadBytesMax=64Mi", "MEDSEARCH_UPLOAD_BYTES_MAX", str(64 << 20)),
        ("server.uploadBytesMax=100M", "MEDSEARCH_UPLOAD_BYTES_MAX", "100000000"),
        ("server.uploadBytesMax=123456789012", "MEDSEARCH_UPLOAD_BYTES_MAX", "123456789012"),
        ("publicUrl=https://x-rays.example.org", "MEDSEARCH_PUBLIC_URL", "https://x-rays.example.org"),
        ("publicUrl=", "MEDSEARCH_PUBLIC_URL", None),
        ("server.pixelsMax=1000000", "MEDSEARCH_PIXELS_MAX", "1000000"),
        ("server.inFlightMax=100000", "MEDSEARCH_IN_FLIGHT_MAX", "100000"),
        ("cache.sizeLimit=10Gi", "MEDSEARCH_CACHE_BYTES_MAX", str((10 << 30) * 9 // 10)),
        ("readOnly=true", "MEDSEARCH_READ_ONLY", "true"),
        ("readOnly=false", "MEDSEARCH_READ_ONLY", None),
        ("server.decodeThreads=0", "MEDSEARCH_DECODE_THREADS", None),
        ("server.frames=all", "MEDSEARCH_FRAMES", "all"),
        ("labelsFile.existingSecret=", "MEDSEARCH_LABELS_FILE", None),
    ],
)
def test_settings_reach_the_program_as_it_reads_them(setting: str, variable: str, expected: str | None) -> None:
    deployment = of_kind(minimal(setting), "Deployment")
    assert environment(deployment["spec"]["template"]["spec"]["containers"][0]).get(variable) == expected


def test_spans_go_where_the_values_say_and_else_nowhere() -> None:
    for case, endpoint, share in (
        ("everything", "http://otel-collector.observability:4318", "0.05"),
        ("minimal", None, None),
    ):
        container = of_kind(rendered(case), "Deployment")["spec"]["template"]["spec"]["containers"][0]
        settings = environment(container)
        assert settings.get("MEDSEARCH_OTLP_ENDPOINT") == endpoint
        assert settings.get("MEDSEARCH_TRACE_SHARE") == share


def test_the_program_has_every_setting_that_it_is_given() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "cli").rglob("*.rs"))
    for case in CASES:
        for _, spec in pod_specs(rendered(case)):
            names = {variable["name"] for container in spec["containers"] for variable in container["env"]}
            for name in names:
                assert not name.startswith("MEDSEARCH_") or f'env = "{name}"' in source, name


def test_the_program_takes_the_arguments_of_the_index_job() -> None:
    source = (ROOT / "src" / "cli" / "index.rs").read_text()
    for argument in of_kind(rendered("everything"), "Job")["spec"]["template"]["spec"]["containers"][0]["args"][1:]:
        flag = argument.split("=")[0].removeprefix("--").replace("-", "_")
        assert f"    {flag}: " in source, argument


def test_large_numbers_are_written_out() -> None:
    deployment = of_kind(minimal("runAs.user=1000650000", "runAs.group=1000650000"), "Deployment")
    assert deployment["spec"]["template"]["spec"]["securityContext"]["fsGroup"] == 1000650000
    assert "e+0" not in template("--values", values_of("everything")).stdout.split("kind: ConfigMap")[0]


def test_an_autoscaler_alone_counts_replicas() -> None:
    for case, metric in (("autoscaling", "Resource"), ("everything", "Pods")):
        documents = rendered(case)
        assert "replicas" not in of_kind(documents, "Deployment")["spec"]
        scaler = of_kind(documents, "HorizontalPodAutoscaler")["spec"]
        assert [each["type"] for each in scaler["metrics"]] == [metric]
        assert scaler["scaleTargetRef"]["name"] == of_kind(documents, "Deployment")["metadata"]["name"]


def test_a_budget_for_disruptions_blocks_no_lonely_replica() -> None:
    kinds = [document["kind"] for document in minimal("replicaCount=1")]
    assert "PodDisruptionBudget" not in kinds
    assert of_kind(minimal(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_folder_has_one_writer() -> None:
    documents = rendered("folder")
    spec = of_kind(documents, "Deployment")["spec"]
    assert spec["strategy"] == {"type": "Recreate"} and spec["replicas"] == 1
    settings = environment(spec["template"]["spec"]["containers"][0])
    assert settings["MEDSEARCH_ARCHIVE"] == "file:///archive" and "MEDSEARCH_CACHE" not in settings
    job = of_kind(documents, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert job["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    several = of_kind(rendered("folder", "readOnly=true", "replicaCount=3"), "Deployment")["spec"]
    mounts = several["template"]["spec"]["containers"][0]["volumeMounts"]
    assert several["strategy"]["type"] == "RollingUpdate"
    assert next(mount for mount in mounts if mount["name"] == "archive")["readOnly"] is True


def test_the_nightly_job_may_have_credentials_of_its_own() -> None:
    container = of_kind(rendered("readonly"), "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    names = [variable["name"] for variable in container["env"]]
    assert names.index("GOOGLE_SERVICE_ACCOUNT_KEY") > names.index("GOOGLE_APPLICATION_CREDENTIALS")
    assert "MEDSEARCH_API_KEY_FILE" not in names
    assert container["args"] == ["compact"]


def test_other_values_are_another_index_job() -> None:
    names = {
        of_kind(rendered("everything", *sets), "Job")["metadata"]["name"]
        for sets in ((), ("bulkIndex.shards=4",), ("bulkIndex.name=x",))
    }
    assert len(names) == 3
    job = of_kind(rendered("everything"), "Job")["spec"]
    assert job["template"]["spec"]["containers"][0]["args"] == [
        "index",
        "--embeddings=/import/embeddings",
        "--data=/import/images",
        "--model=/import/models/efficientnet_lite0_layers",
        "--name=Chest X-rays",
        "--licence=for research in this hospital",
        "--identity=anonymous",
        "--retention=thumbnail",
        "--shards=8",
    ]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3]


def test_ingress_lets_uploads_through_and_names_the_service() -> None:
    documents = rendered("ingress")
    service = of_kind(documents, "Service")
    ingresses = [each for each in documents if each["kind"] == "Ingress"]
    # What they do about a replica that fails is tried with nginx itself (test_nginx.py).
    paths = {each["spec"]["rules"][0]["http"]["paths"][0]["path"]: each for each in ingresses}
    assert paths.keys() == {"/", "/v1/search"}
    for path, ingress in paths.items():
        annotations = nginx_annotations(ingress)
        assert int(annotations["proxy-body-size"]) > 64 << 20
        assert int(annotations["proxy-read-timeout"]) > 30
        assert ingress["spec"]["tls"] and ingress["spec"]["ingressClassName"] == "nginx"
        (rule,) = ingress["spec"]["rules"]
        backend = {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
        assert rule["http"]["paths"] == [{"path": path, "pathType": "Prefix", "backend": {"service": backend}}]
    assert "annotations" not in of_kind(rendered("everything"), "Ingress")["metadata"]


def test_annotations_that_are_given_win() -> None:
    given = {
        "nginx.ingress.kubernetes.io/proxy-read-timeout": "7",
        "owner": "radiology",
        "cert-manager.io/issuer": "ca",
    }
    own = f"ingress.annotations={json.dumps(given)}"
    outcome = template("--values", values_of("ingress"), "--set-json", own)
    assert outcome.returncode == 0, outcome.stderr
    ingresses = [each for each in yaml.safe_load_all(outcome.stdout) if each and each["kind"] == "Ingress"]
    assert len(ingresses) == 2
    for ingress in ingresses:
        assert ingress["metadata"]["annotations"]["owner"] == "radiology"
        assert nginx_annotations(ingress)["proxy-read-timeout"] == "7"
        assert nginx_annotations(ingress)["proxy-next-upstream-tries"] == "2"
    asked_for_by = [each for each in ingresses if "cert-manager.io/issuer" in each["metadata"]["annotations"]]
    assert len(asked_for_by) == 1, "two of them would want the same Secret"


def test_httproute_retries_failed_connections_once() -> None:
    route = of_kind(rendered("httproute"), "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert set(route["spec"]) == {"parentRefs", "hostnames", "rules"}
    (rule,) = route["spec"]["rules"]
    # No codes: an answer is not asked for again.
    assert rule["retry"] == {"attempts": 1}
    assert rule["backendRefs"] == [{"name": "medsearch", "port": 80}]
    assert rule["timeouts"] == {"request": "35s"}
    assert "retry" not in of_kind(rendered("everything"), "HTTPRoute")["spec"]["rules"][0]


def test_prometheus_finds_every_replica_once_and_brings_the_key() -> None:
    documents = rendered("everything")
    monitor = of_kind(documents, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    selector = monitor["spec"]["selector"]["matchLabels"]
    chosen = [
        each
        for each in documents
        if each["kind"] == "Service" and selector.items() <= each["metadata"]["labels"].items()
    ]
    assert len(chosen) == 1
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == chosen[0]["spec"]["ports"][0]["name"] and endpoint["path"] == "/metrics"
    own = {"name": "medsearch-metrics", "key": "metrics-key"}
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": own}


def test_prometheus_brings_the_api_key_where_it_has_none_of_its_own() -> None:
    monitor = of_kind(minimal("metrics.serviceMonitor.enabled=true", "networkPolicy.enabled=false"), "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "medsearch", "key": "api-key"}


def server_of(documents: tuple[dict, ...]) -> tuple[dict[str, str | None], dict, dict]:
    """The server's settings, mounts and volumes by name; nobody else has them."""
    deployment = of_kind(documents, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    own = {"pacs", "audit", "oidc-ca", "oidc-client"}
    for name, other in pod_specs(documents):
        assert name == deployment["metadata"]["name"] or not own & {volume["name"] for volume in other["volumes"]}
    return environment(container), mounts, volumes


def test_each_pod_has_a_folder_for_its_audit_that_outlives_it() -> None:
    settings, mounts, volumes = server_of(rendered("everything"))
    assert settings["MEDSEARCH_AUDIT_DIR"] == mounts["audit"]["mountPath"]
    assert settings["MEDSEARCH_AUDIT_BYTES_MAX"] == str(2 << 30)
    assert volumes["audit"]["persistentVolumeClaim"] == {"claimName": "medsearch-audit"}
    # Kubernetes replaces $(NAME) by a variable of the container, which has to be there.
    assert mounts["audit"]["subPathExpr"] == "$(POD_NAME)" and "POD_NAME" in settings
    settings, mounts, _ = server_of(minimal())
    assert "audit" not in mounts and "MEDSEARCH_AUDIT_DIR" not in settings


def test_people_sign_in_where_the_values_say_so() -> None:
    settings, mounts, volumes = server_of(rendered("everything"))
    given = {name.removeprefix("MEDSEARCH_"): value for name, value in settings.items()}
    assert given["OIDC_ISSUER"] == "https://keycloak.example.org/realms/hospital"
    assert given["OIDC_ROLE"] == "radiologist=search,pacs-admin=search+ingest+link"
    assert (given["OIDC_AUDIENCE"], given["OIDC_SCOPE_CLAIM"]) == ("medsearch", "realm_access.roles")
    assert (given["OIDC_CLIENT_ID"], given["SESSION_MINUTES"]) == ("medsearch", "480")
    assert given["PUBLIC_URL"] == "https://search.example.org"
    for variable, name, path in (
        ("OIDC_CLIENT_SECRET_FILE", "oidc-client", "secret"),
        ("OIDC_CA_FILE", "oidc-ca", "ca.crt"),
    ):
        assert given[variable] == f"{mounts[name]['mountPath']}/{path}"
    assert volumes["oidc-client"]["secret"]["items"] == [{"key": "client-secret", "path": "secret"}]
    bare, _, _ = server_of(minimal("dicomWebUrl=https://dicom.example.org/dicom-web"))
    assert bare["MEDSEARCH_DICOM_WEB_URL"] == "https://dicom.example.org/dicom-web"
    assert not [name for name in bare if "OIDC" in name or name == "MEDSEARCH_PUBLIC_URL"]


def test_the_pacs_file_lies_beside_the_files_that_it_names() -> None:
    settings, mounts, volumes = server_of(rendered("everything"))
    assert settings["MEDSEARCH_PACS_FILE"] == f"{mounts['pacs']['mountPath']}/pacs.toml"
    # No items: every key is a file.
    assert volumes["pacs"]["secret"] == {"secretName": "medsearch-pacs", "defaultMode": 0o400}


@pytest.mark.parametrize("name, file", [("keys", "keys.json"), ("labels", "labels.csv")])
def test_servers_alone_get_files_and_follow_their_changes(name: str, file: str) -> None:
    documents = rendered("everything")
    for pod, spec in pod_specs(documents):
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        is_server = pod == of_kind(documents, "Deployment")["metadata"]["name"]
        assert (name in mounts) == is_server, pod
        if is_server:
            # The kubelet never changes what is mounted by `subPath`.
            assert mounts[name] == {"name": name, "mountPath": f"/etc/medsearch/{name}", "readOnly": True}
            assert environment(container)[f"MEDSEARCH_{name.upper()}_FILE"] == f"/etc/medsearch/{name}/{file}"
            (volume,) = [volume for volume in spec["volumes"] if volume["name"] == name]
            items = [{"key": file, "path": file}]
            assert volume["secret"] == {"secretName": f"medsearch-{name}", "defaultMode": 0o400, "items": items}


@pytest.mark.parametrize("case, scheme", [("cluster", None), ("everything", "HTTPS")])
def test_servers_speak_tls_where_they_have_a_certificate_and_are_asked_so(case: str, scheme: str | None) -> None:
    documents = rendered(case)
    (container,) = of_kind(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"].get("scheme") == scheme, probe
    protocols = {
        port["appProtocol"]
        for service in documents
        if service["kind"] == "Service"
        for port in service["spec"]["ports"]
    }
    assert protocols == {(scheme or "HTTP").lower()}
    given = environment(container)
    named = {name.removeprefix("MEDSEARCH_"): value for name, value in given.items() if "_TLS_" in name}
    if scheme is None:
        assert named == {}
        return
    assert named == {
        "TLS_CERT_FILE": "/etc/medsearch/tls/tls.crt",
        "TLS_KEY_FILE": "/etc/medsearch/tls/tls.key",
        "INNER_TLS_CERT_FILE": "/etc/medsearch/inner-tls/tls.crt",
        "INNER_TLS_KEY_FILE": "/etc/medsearch/inner-tls/tls.key",
        "INNER_TLS_CA_FILE": "/etc/medsearch/inner-tls/ca.crt",
    }
    # The kubelet never changes what is mounted by `subPath`.
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    for name in ("tls", "inner-tls"):
        assert mounts[name] == {"name": name, "mountPath": f"/etc/medsearch/{name}", "readOnly": True}
    endpoint = of_kind(documents, "ServiceMonitor")["spec"]["endpoints"][0]
    full_name = of_kind(documents, "Deployment")["metadata"]["name"]
    namespace = of_kind(documents, "Deployment")["metadata"]["namespace"]
    authority = {"secret": {"name": "medsearch-tls", "key": "ca.crt"}}
    assert (endpoint["scheme"], endpoint["tlsConfig"]) == (
        "https",
        {"ca": authority, "serverName": f"{full_name}.{namespace}.svc"},
    )


def test_dashboards_arrive_as_they_are() -> None:
    maps = [each for each in rendered("everything") if each["kind"] == "ConfigMap"]
    assert len(maps) == 2
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((name, text),) = each["data"].items()
        assert text.strip() == (CHART / "dashboards" / name.removeprefix("medsearch-")).read_text().strip()


class Archive(BaseHTTPRequestHandler):
    """Answers as the program does, with and without the key."""

    key = "0123456789abcdef-key"
    open_metrics = False

    def do_GET(self) -> None:
        authorized = self.headers.get("Authorization") == f"Bearer {self.key}"
        if self.path == "/readyz":
            self.answer(200, "ready\n")
        elif self.path == "/v1/archive" and authorized:
            self.answer(200, '{"name": "x", "version": 7, "text": "%s"}' % ("é" * 5000))
        elif self.path == "/metrics" and (authorized or self.open_metrics):
            self.answer(200, "medsearch_queue_depth 0\n")
        else:
            self.answer(401, '{"type": "/problems/unauthorized"}')

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("good", [True, False])
def test_helm_test_asks_and_believes_nothing(good: bool, tmp_path: os.PathLike) -> None:
    pod = of_kind(rendered("cluster"), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    container = pod["spec"]["containers"][0]
    assert (
        container["image"]
        == of_kind(rendered("cluster"), "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    )
    handler = type("Handler", (Archive,), {"open_metrics": not good})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    key = tmp_path / "key"
    key.write_text(Archive.key + "\n")
    outcome = subprocess.run(
        [*container["command"], *container["args"]],
        env={
            "PATH": os.environ["PATH"],
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(server.server_port),
            "KEY_FILE": str(key),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    server.shutdown()
    assert (outcome.returncode == 0) == good, outcome.stdout + outcome.stderr
    assert outcome.stdout.count("passed:") == (5 if good else 4)
    assert Archive.key not in outcome.stdout + outcome.stderr


def test_notes_say_how_to_go_on_and_show_no_key() -> None:
    outcome = helm("install", "medsearch", str(CHART), "--dry-run=client", "--values", values_of("ingress"))
    assert outcome.returncode == 0, outcome.stderr
    notes = outcome.stdout.split("NOTES:")[1]
    assert "https://x-rays.example.org" in notes and "helm test" in notes
    assert '{{index .data "api-key" | base64decode}}' in notes and "medsearch key list" not in notes
    keys = ("--set", "keysFile.existingSecret=medsearch-keys")
    outcome = helm("install", "medsearch", str(CHART), "--dry-run=client", "--values", values_of("ingress"), *keys)
    assert "the Secret medsearch-keys; `medsearch key list`" in outcome.stdout.split("NOTES:")[1]


def test_the_charts_versions_are_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    cargo = (CHART.parents[1] / "Cargo.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in cargo
    assert f"\n## {chart['version']}\n" in (CHART / "CHANGELOG.md").read_text()
