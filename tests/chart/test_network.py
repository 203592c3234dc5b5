"""Who reaches whom, by the rendered NetworkPolicies: evaluated here as Kubernetes defines them."""

import ipaddress

import pytest
from chart import minimal, of_kind, rendered

SERVER = {
    "app.kubernetes.io/name": "medsearch",
    "app.kubernetes.io/instance": "medsearch",
    "app.kubernetes.io/component": "server",
}
COMPACT = SERVER | {"app.kubernetes.io/component": "compact"}
INDEX = SERVER | {"app.kubernetes.io/component": "index"}
TEST = SERVER | {"app.kubernetes.io/component": "test"}
OTHER_RELEASE = SERVER | {"app.kubernetes.io/instance": "another"}


def selects(selector: dict | None, labels: dict[str, str]) -> bool:
    for expression in (selector or {}).get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return (selector or {}).get("matchLabels", {}).items() <= labels.items()


def matches(peer: dict, own: str, namespace: str | None, labels: dict[str, str], address: str | None) -> bool:
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        if address is None or ipaddress.ip_address(address) not in network:
            return False
        return not any(
            ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in peer["ipBlock"].get("except", [])
        )
    if namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != own:
        return False
    return selects(peer.get("podSelector"), labels)


def allowed(
    documents: tuple[dict, ...],
    direction: str,
    pod: dict[str, str],
    port: int,
    *,
    namespace: str | None = None,
    labels: dict[str, str] | None = None,
    address: str | None = None,
) -> bool:
    """Whether the policies for `pod` let the other side through."""
    policies = [
        each["spec"]
        for each in documents
        if each["kind"] == "NetworkPolicy"
        and direction in each["spec"]["policyTypes"]
        and selects(each["spec"]["podSelector"], pod)
    ]
    if not policies:
        return True
    key, end = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return any(
        any(matches(peer, "medsearch", namespace, labels or {}, address) for peer in rule[end])
        and ("ports" not in rule or any(each["port"] == port for each in rule["ports"]))
        for policy in policies
        for rule in policy.get(key, [])
    )


CLIENT = {"a-name-as-long-as-it-may-be-for-every-thing-client": "true"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


@pytest.mark.parametrize(
    "namespace, labels, port, expected",
    [
        ("medsearch", CLIENT, 8000, True),
        ("medsearch", {}, 8000, False),
        ("medsearch", TEST | CLIENT, 8000, True),
        ("elsewhere", CLIENT, 8000, False),
        ("gateways", {}, 8000, True),
        ("monitoring", PROMETHEUS, 8000, True),
        ("monitoring", {"app.kubernetes.io/name": "grafana"}, 8000, False),
        # the inner port: replicas of this release, and nobody else
        ("medsearch", SERVER, 8001, True),
        ("medsearch", OTHER_RELEASE, 8001, False),
        ("elsewhere", SERVER, 8001, False),
        ("medsearch", CLIENT, 8001, False),
        ("medsearch", TEST | CLIENT, 8001, False),
        ("medsearch", COMPACT, 8001, False),
        ("gateways", {}, 8001, False),
        ("monitoring", PROMETHEUS, 8001, False),
        # replicas have no business at each other's public port
        ("medsearch", SERVER, 8000, False),
        ("gateways", {}, 22, False),
    ],
)
def test_who_gets_in(namespace: str, labels: dict[str, str], port: int, expected: bool) -> None:
    assert allowed(rendered("everything"), "Ingress", SERVER, port, namespace=namespace, labels=labels) == expected


DNS = {"k8s-app": "kube-dns"}


@pytest.mark.parametrize("pod", [SERVER, COMPACT, INDEX])
@pytest.mark.parametrize(
    "where, port, expected",
    [
        ({"namespace": "kube-system", "labels": DNS}, 53, True),
        ({"namespace": "kube-system", "labels": {}}, 53, False),
        ({"namespace": "kube-system", "labels": DNS}, 443, False),
        ({"address": "52.219.1.1"}, 443, True),
        ({"address": "10.1.2.3"}, 443, True),
        ({"address": "52.219.1.1"}, 80, False),
        ({"address": "10.1.2.3"}, 22, False),
        # where clouds give out the node's credentials
        ({"address": "169.254.169.254"}, 443, False),
        ({"address": "169.254.169.254"}, 80, False),
        ({"address": "fd00:ec2::254"}, 443, False),
        ({"address": "2600:1f14::1"}, 443, True),
        ({"namespace": "elsewhere", "labels": {}}, 443, False),
    ],
)
def test_where_they_may_go(pod: dict[str, str], where: dict, port: int, expected: bool) -> None:
    assert allowed(rendered("everything"), "Egress", pod, port, **where) == expected


def test_servers_alone_send_spans_and_only_where_the_collector_is() -> None:
    documents = rendered("everything")
    for pod, namespace, port, expected in (
        (SERVER, "observability", 4318, True),
        (SERVER, "observability", 4317, False),
        (SERVER, "elsewhere", 4318, False),
        (COMPACT, "observability", 4318, False),
        (TEST, "observability", 4318, False),
    ):
        assert allowed(documents, "Egress", pod, port, namespace=namespace) == expected
    without = rendered("everything", "traces.endpoint=")
    assert not allowed(without, "Egress", SERVER, 4318, namespace="observability")


def test_servers_alone_ask_the_issuer_and_pacs() -> None:
    documents = rendered("everything")
    without = rendered("everything", "oidc.issuer=,oidc.client.id=,oidc.client.existingSecret=", "pacs.existingSecret=")
    for port, where in ((8443, {"namespace": "keycloak"}), (8042, {"address": "10.1.2.3"})):
        assert allowed(documents, "Egress", SERVER, port, **where)
        assert not any(allowed(documents, "Egress", pod, port, **where) for pod in (COMPACT, INDEX, TEST))
        assert not allowed(without, "Egress", SERVER, port, **where)
    assert not allowed(documents, "Egress", SERVER, 8042, address="10.1.3.3")
    assert not allowed(documents, "Egress", SERVER, 8443, namespace="elsewhere")


def test_only_servers_of_a_cluster_ask_each_other() -> None:
    for documents, expected in ((rendered("cluster"), True), (minimal(), False)):
        assert allowed(documents, "Egress", SERVER, 8001, namespace="medsearch", labels=SERVER) == expected
        assert allowed(documents, "Ingress", SERVER, 8001, namespace="medsearch", labels=SERVER) == expected
    assert not allowed(rendered("cluster"), "Egress", COMPACT, 8001, namespace="medsearch", labels=SERVER)


def test_nobody_asks_a_job_and_the_test_asks_servers_alone() -> None:
    documents = rendered("everything")
    for pod in (COMPACT, INDEX, TEST):
        for port in (80, 443, 8000, 8001):
            assert not allowed(documents, "Ingress", pod, port, namespace="medsearch", labels=SERVER)
    assert allowed(documents, "Egress", TEST, 8000, namespace="medsearch", labels=SERVER)
    assert not allowed(documents, "Egress", TEST, 443, address="52.219.1.1")


def test_a_folder_needs_no_storage() -> None:
    assert not allowed(rendered("folder"), "Egress", SERVER, 443, address="52.219.1.1")


def test_every_pod_that_is_made_has_a_policy() -> None:
    documents = rendered("everything")
    pods = [
        of_kind(documents, "Deployment")["spec"]["template"]["metadata"]["labels"],
        of_kind(documents, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"],
        of_kind(documents, "Job")["spec"]["template"]["metadata"]["labels"],
        of_kind(documents, "Pod")["metadata"]["labels"],
    ]
    for labels in pods:
        chosen = [
            each
            for each in documents
            if each["kind"] == "NetworkPolicy" and selects(each["spec"]["podSelector"], labels)
        ]
        assert len(chosen) == 1 and chosen[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
