#!/usr/bin/env python3
"""Every PromQL expression of the chart's dashboards and rules, and the metrics that they may use.

Prints the expressions, one a line, with the dashboards' variables filled in, so that each can be asked of a Prometheus:

    tests/chart/expressions.py --namespace medsearch --job medsearch
    tests/chart/expressions.py --rules-out rules.json   # the rules for Prometheus itself, as JSON, which is YAML
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

from chart import CHART, NAMESPACE, RELEASE, rule_groups

ANY = frozenset[str]()
"""Values of a label that are not a closed list."""
PROMETHEUS = {"namespace": ANY, "job": ANY, "pod": ANY, "instance": ANY}
"""Labels that Prometheus adds to whatever it reads."""


@dataclass(frozen=True)
class Metric:
    kind: str
    labels: dict[str, frozenset[str]]


def metric(kind: str, **labels: str) -> Metric:
    return Metric(kind, {name: frozenset(values.split()) for name, values in labels.items()})


# What the program exports, as src/metrics.rs has it.
PRODUCT = {
    "medsearch_build_info": metric("gauge", version=""),
    "medsearch_http_requests_total": metric("counter", route="", method="", status=""),
    "medsearch_http_request_duration_seconds": metric("histogram", route="", method=""),
    "medsearch_http_in_flight_requests": metric("gauge"),
    "medsearch_requests_refused_total": metric(
        "counter",
        reason="no_key unknown_key expired_key token_malformed token_algorithm token_type token_key token_signature "
        "token_issuer token_audience token_expired token_early no_role issuer_unavailable unknown_session "
        "expired_session login insufficient_scope forbidden_origin rate_limited wrong_keys identity_misses "
        "content_encoding",
    ),
    "medsearch_keys_file_broken": metric("gauge"),
    "medsearch_labels_file_broken": metric("gauge"),
    "medsearch_oidc_issuer_broken": metric("gauge"),
    "medsearch_audit_lines_total": metric("counter"),
    "medsearch_audit_lost_total": metric("counter"),
    "medsearch_audit_broken": metric("gauge"),
    "medsearch_audit_bytes": metric("gauge"),
    "medsearch_audit_bytes_max": metric("gauge"),
    "medsearch_audit_heads_total": metric("counter", outcome="committed failed"),
    "medsearch_tls_certificate_expires_timestamp_seconds": metric("gauge", port="public inner"),
    "medsearch_tls_files_broken": metric("gauge", port="public inner"),
    "medsearch_stage_duration_seconds": metric("histogram", stage="decode preprocess queue model search"),
    "medsearch_queue_depth": metric("gauge"),
    "medsearch_queue_max": metric("gauge"),
    "medsearch_queue_dropped_total": metric("counter"),
    "medsearch_batch_size": metric("histogram"),
    "medsearch_archive_version": metric("gauge"),
    "medsearch_archive_images": metric("gauge", **{"class": ""}),
    "medsearch_archive_label_conflicts": metric("gauge"),
    "medsearch_archive_lost_graphs": metric("gauge"),
    "medsearch_archive_manifest_age_seconds": metric("gauge"),
    "medsearch_search_path_total": metric("counter", path="hnsw exact", **{"class": ""}),
    "medsearch_suggestions_total": metric("counter", status="suggested inconclusive out_of_distribution"),
    "medsearch_calibrations_total": metric("counter", outcome="valid not_valid"),
    "medsearch_pacs_pulls_total": metric("counter", pacs="", outcome="pulled not_found too_large late busy failed"),
    "medsearch_pacs_pull_duration_seconds": metric("histogram", pacs=""),
    "medsearch_orthanc_instances_total": metric(
        "counter", orthanc="", outcome="accepted known not_image outside gone refused failed"
    ),
    "medsearch_orthanc_errors_total": metric("counter", orthanc=""),
    "medsearch_orthanc_lag": metric("gauge", orthanc=""),
    "medsearch_orthanc_followed": metric("gauge", orthanc=""),
    "medsearch_orthanc_sweeps_total": metric("counter", orthanc="", outcome="done incomplete refused failed"),
    "medsearch_orthanc_deleted_images_total": metric("counter", orthanc=""),
    "medsearch_orthanc_deletions_refused": metric("gauge", orthanc=""),
    "medsearch_explanations_total": metric("counter", method=""),
    "medsearch_near_identical_total": metric("counter", outcome="found not_found"),
    "medsearch_reports_total": metric("counter"),
    "medsearch_received_total": metric(
        "counter",
        outcome="accepted known not_image outside_sop_class outside_modality outside_body_part outside_view "
        "refused_broken refused_syntax refused_other_study refused_conflict refused_too_large refused_burned_in "
        "refused_full refused_busy refused_late refused_unavailable",
    ),
    "medsearch_inbox_total": metric("counter", outcome="embedded known failed outside erased again"),
    "medsearch_inbox_files": metric("gauge"),
    "medsearch_inbox_oldest_age_seconds": metric("gauge"),
    "medsearch_inbox_failed_files": metric("gauge"),
    "medsearch_ingest_total": metric("counter", outcome="inserted duplicate relabelled conflict failed"),
    "medsearch_commit_duration_seconds": metric("histogram"),
    "medsearch_shard_search_duration_seconds": metric("histogram", where="local remote"),
    "medsearch_shard_requests_total": metric("counter", outcome="answered failed late"),
    "medsearch_hedges_total": metric("counter", outcome="won lost"),
    "medsearch_retries_total": metric("counter"),
    "medsearch_ejections_total": metric("counter"),
    "medsearch_coverage_missing_total": metric("counter"),
    "medsearch_shards": metric("gauge", state="assigned held missing"),
    "medsearch_peers": metric("gauge", state="known alive ejected slow"),
    "medsearch_index_bytes": metric("gauge"),
    "medsearch_index_bytes_max": metric("gauge"),
    "medsearch_cache_bytes": metric("gauge"),
    "medsearch_quality_recall_at_10": metric("histogram"),
    "medsearch_quality_vote_agreement_total": metric("counter", outcome="same different"),
    "medsearch_quality_drift": metric("gauge"),
    "medsearch_storage_requests_total": metric(
        "counter", operation="get put list delete head", outcome="ok missing taken failed"
    ),
    "medsearch_storage_damage_total": metric("counter", place="storage cache"),
    "medsearch_spans_total": metric("counter", outcome="exported dropped"),
    # The prometheus crate's collector of the process.
    "process_cpu_seconds_total": metric("counter"),
    "process_max_fds": metric("gauge"),
    "process_open_fds": metric("gauge"),
    "process_resident_memory_bytes": metric("gauge"),
    "process_start_time_seconds": metric("gauge"),
}
# What others export.
OTHERS = {
    "up": metric("gauge"),
    # kube-state-metrics
    "kube_cronjob_created": metric("gauge", cronjob=""),
    "kube_cronjob_status_last_schedule_time": metric("gauge", cronjob=""),
    "kube_cronjob_status_last_successful_time": metric("gauge", cronjob=""),
}


def series() -> dict[str, Metric]:
    """Every series by its full name: a histogram is three."""
    known = {}
    for name, each in (PRODUCT | OTHERS).items():
        if each.kind == "histogram":
            bounds = Metric(each.kind, {**each.labels, "le": ANY})
            known |= {f"{name}_bucket": bounds, f"{name}_sum": each, f"{name}_count": each}
        else:
            known[name] = each
    return known


@dataclass(frozen=True)
class Expression:
    where: str
    text: str
    alert: bool = False


VARIABLES = {"$__rate_interval": "5m", "$__range": "6h", "$__interval": "1m", "$pod": ".+"}


def dashboard_files() -> list[Path]:
    return sorted((CHART / "dashboards").glob("*.json"))


def panels(board: dict) -> list[dict]:
    """All panels, those of folded rows too."""
    return [each for panel in board["panels"] for each in (panel, *panel.get("panels", []))]


def of_dashboards(namespace: str = NAMESPACE, job: str = RELEASE) -> list[Expression]:
    found = []
    for path in dashboard_files():
        board = json.loads(path.read_text())
        texts = [(panel["title"], target["expr"]) for panel in panels(board) for target in panel.get("targets", [])]
        texts += [(f"annotation {each['name']}", each["expr"]) for each in board["annotations"]["list"]]
        for title, text in texts:
            filled = text.replace("$namespace", namespace).replace("$job", job)
            for name, value in VARIABLES.items():
                filled = filled.replace(name, value)
            found.append(Expression(f"{path.name}: {title}", filled))
    return found


def of_rules(namespace: str = NAMESPACE, job: str = RELEASE) -> list[Expression]:
    return [
        Expression(rule.get("alert") or rule["record"], rule["expr"], alert="alert" in rule)
        for group in json.loads(rule_groups(job, namespace))["groups"]
        for rule in group["rules"]
    ]


SELECTOR = re.compile(r"(?<![\w:.\"])([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')


def selectors(text: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Names of series with what is asked of their labels. Every selector has braces: that tells it from a function."""
    return [(name, MATCHER.findall(inside)) for name, inside in SELECTOR.findall(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--job", default=RELEASE, help="the release's full name")
    parser.add_argument("--rules-out", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.rules_out:
        options.rules_out.write_text(rule_groups(options.job, options.namespace))
        return
    for each in of_dashboards(options.namespace, options.job) + of_rules(options.namespace, options.job):
        print(f"{each.where}\t{' '.join(each.text.split())}")


if __name__ == "__main__":
    main()
