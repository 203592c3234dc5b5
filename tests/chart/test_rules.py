"""Rules and alerts: each parses, uses series that exist, fires when it should and is silent when it should not."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from chart import NAMESPACE, RELEASE, RUNBOOK, minimal, of_kind, rendered, rule_groups
from expressions import PRODUCT, PROMETHEUS, SELECTOR, Expression, of_dashboards, of_rules, selectors, series

GROUPS = json.loads(rule_groups())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
EXPRESSIONS = of_dashboards() + of_rules()


def promtool(*arguments: str) -> str:
    outcome = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout + outcome.stderr


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    for case, documents in (
        ("minimal", minimal("metrics.prometheusRule.enabled=true")),
        ("everything", rendered("everything")),
    ):
        path = tmp_path / f"{case}.yaml"
        path.write_text(yaml.safe_dump(of_kind(documents, "PrometheusRule")["spec"]))
        assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))


def test_every_expression_parses(tmp_path: Path) -> None:
    path = tmp_path / "expressions.yaml"
    rules = [{"record": f"check:e{number}:x", "expr": each.text} for number, each in enumerate(EXPRESSIONS)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(path))


FUNCTIONS = {"rate", "increase", "changes", "absent", "time", "histogram_quantile", "avg_over_time"}
OPERATORS = {"sum", "min", "max", "avg", "count", "by", "and", "or", "unless", "on", "ignoring", "bool", "offset"}
WORDS = FUNCTIONS | OPERATORS | {"without", "group_left", "group_right"}


@pytest.mark.parametrize("each", EXPRESSIONS, ids=lambda each: each.where)
def test_every_expression_uses_known_series_and_labels(each: Expression) -> None:
    known = series()
    found = selectors(each.text)
    assert found
    for name, matchers in found:
        if name in RECORDED:
            continue
        assert name in known, f"{name} is exported by nobody"
        for label, how, value in matchers:
            values = (known[name].labels | PROMETHEUS).get(label)
            assert values is not None, f"{name} has no label {label}"
            if values:
                words = value.split("|") if how in ("=~", "!~") else [value]
                assert set(words) <= values, f"{name}{{{label}}} is never {value}"
    # Nothing is asked without braces, so that nothing escapes the selectors above, nor without saying of which release.
    rest = SELECTOR.sub(" ", each.text)
    names = set(re.findall(r"(?<![\w$\"])[a-z_][a-z_:]*(?![\w\"])", re.sub(r"\[[^]]*\]|\"[^\"]*\"", " ", rest)))
    labels = {label for metric in known.values() for label in metric.labels} | set(PROMETHEUS)
    assert names <= WORDS | labels, names - WORDS - labels
    assert all({"namespace"} <= {label for label, _, _ in matchers} for _, matchers in found)


def test_every_metric_of_the_product_is_looked_at() -> None:
    used = {name for each in EXPRESSIONS for name, _ in selectors(each.text)}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in PRODUCT else name for name in used}
    assert set(PRODUCT) <= bases, sorted(set(PRODUCT) - bases)


def test_the_program_exports_what_is_looked_at() -> None:
    """By the names in its source, both ways."""
    source = Path(__file__).parents[2] / "src"
    named = {
        name for path in source.rglob("*.rs") for name in re.findall(r'"(medsearch_[a-z0-9_]+)"', path.read_text())
    }
    known = {name for name in PRODUCT if name.startswith("medsearch_")}
    assert named - known == set(), "tests/chart/expressions.py does not know them"
    assert known - named == set(), "the program does not export them"


def test_alerts_say_what_where_and_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert name.startswith("Medsearch")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert not rule["annotations"]["summary"].endswith(".") and "{{" not in rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_alerts_can_be_left_out_labelled_and_led_elsewhere() -> None:
    spec = of_kind(rendered("everything"), "PrometheusRule")["spec"]
    alerts = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
    assert set(ALERTS) - set(alerts) == {"MedsearchInconclusiveOften"}
    for name, rule in alerts.items():
        assert (
            rule["labels"]["team"] == "radiology" and rule["labels"]["severity"] == ALERTS[name]["labels"]["severity"]
        )
        assert rule["annotations"]["runbook_url"] == f"https://runbooks.example.org/medsearch#{name.lower()}"
    without = of_kind(minimal("metrics.prometheusRule.enabled=true", "compact.enabled=false"), "PrometheusRule")["spec"]
    assert "MedsearchCompactOverdue" not in str(without)


def test_objectives_reach_the_rules() -> None:
    text = str(
        of_kind(
            minimal(
                "metrics.prometheusRule.enabled=true",
                "metrics.prometheusRule.objectives.availability=99.5",
                "metrics.prometheusRule.objectives.latencySeconds=0.25",
                "metrics.prometheusRule.objectives.recall=0.9",
            ),
            "PrometheusRule",
        )
    )
    assert "14.4 * 0.005" in text and 'le="0.25"' in text and "< 0.9" in text and "longer than 0.25 s" in text


# ---- RUNBOOK.md ----


def sections() -> dict[str, str]:
    parts = re.split(r"^## (Medsearch\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    anchors = {name.lower() for name in sections()}
    for rule in ALERTS.values():
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert path == RUNBOOK.name and anchor in anchors
    assert set(sections()) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_tells_meaning_cause_check_and_action(name: str) -> None:
    text = sections()[name]
    for part in ("**Meaning.**", "**Likely cause.**", "**Check.**", "**Action.**"):
        assert text.count(part) == 1, part
    assert text.count("```") >= 2 and text.count("```") % 2 == 0


def test_the_runbooks_queries_parse_and_use_known_series(tmp_path: Path) -> None:
    queries = re.findall(r"^```promql\n(.*?)^```$", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for query in queries for line in query.splitlines() if line.strip()]
    assert len(lines) >= len(ALERTS) // 2
    known = set(series()) | RECORDED
    for line in lines:
        assert selectors(line), f"no series with braces in {line}"
        for name, _ in selectors(line):
            assert name in known, name
    path = tmp_path / "runbook.yaml"
    rules = [{"record": f"check:r{number}:x", "expr": line} for number, line in enumerate(lines)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    promtool("check", "rules", str(path))


# ---- when alerts fire ----


@dataclass
class Case:
    """Series with their values each minute, without the labels `namespace` and `job`."""

    fires: dict[str, str]
    quiet: dict[str, str]
    at: str
    labels: dict[str, str] = field(default_factory=lambda: {"namespace": NAMESPACE, "job": RELEASE})


HERE = {"namespace": NAMESPACE, "job": RELEASE}
POD = HERE | {"pod": "a"}
ASKED = 'medsearch_http_requests_total{route="/v1/search",method="POST",status="%s",pod="a"}'
COUNT = 'medsearch_http_request_duration_seconds_count{route="/v1/search",method="POST",pod="a"}'
WITHIN = 'medsearch_http_request_duration_seconds_bucket{route="/v1/search",method="POST",pod="a",le="1"}'
RECALL = 'medsearch_quality_recall_at_10_%s{pod="a"}'
VOTES = 'medsearch_quality_vote_agreement_total{pod="a",outcome="%s"}'
STATUS = 'medsearch_suggestions_total{pod="a",status="%s"}'
SHARD = 'medsearch_shard_requests_total{pod="a",outcome="%s"}'
HEDGE = 'medsearch_hedges_total{pod="a",outcome="won"}'
HEADS = 'medsearch_audit_heads_total{pod="a",outcome="%s"}'
STORE = 'medsearch_storage_requests_total{pod="a",operation="get",outcome="%s"}'
INGEST = 'medsearch_ingest_total{pod="a",outcome="%s"}'
PULLS = 'medsearch_pacs_pulls_total{pacs="main",pod="a",outcome="%s"}'
FRONT = HERE | {"orthanc": "front"}
LAG = 'medsearch_orthanc_lag{orthanc="front",pod="a"}'
INSTANCES = 'medsearch_orthanc_instances_total{orthanc="front",pod="a",outcome="%s"}'
SWEEPS = 'medsearch_orthanc_sweeps_total{orthanc="front",pod="a",outcome="%s"}'
COMMIT = 'medsearch_commit_duration_seconds_bucket{pod="a",le="%s"}'
CRON = {
    label: f'kube_cronjob_{label}{{cronjob="medsearch-compact"}}'
    for label in ("status_last_schedule_time", "status_last_successful_time", "created")
}

CASES = {
    # 2 % of 100 a minute fail; 0.5 % is below 14.4 and 6 times the budget of 0.1 %
    "MedsearchErrorBudgetBurnsFast": Case(
        {ASKED % 200: "0+98x90", ASKED % 503: "0+2x90"}, {ASKED % 200: "0+199x90", ASKED % 503: "0+1x90"}, "85m"
    ),
    # 0.5 % over a day; 0.2 % is more than the budget, but not three times
    "MedsearchErrorBudgetBurnsSlowly": Case(
        {ASKED % 200: "0+199x1600", ASKED % 500: "0+1x1600"},
        {ASKED % 200: "0+1000x1600", ASKED % 500: "0+0.5x1600"},
        "26h",
    ),
    "MedsearchLatencyBudgetBurnsFast": Case(
        {COUNT: "0+100x90", WITHIN: "0+80x90"}, {COUNT: "0+100x90", WITHIN: "0+95x90"}, "85m"
    ),
    "MedsearchLatencyBudgetBurnsSlowly": Case(
        {COUNT: "0+100x1600", WITHIN: "0+95x1600"}, {COUNT: "0+100x1600", WITHIN: "0+99.5x1600"}, "26h"
    ),
    "MedsearchArchiveStale": Case(
        {
            'medsearch_archive_manifest_age_seconds{pod="a"}': "1x20",
            'medsearch_archive_manifest_age_seconds{pod="b"}': "0+60x20",
        },
        {
            'medsearch_archive_manifest_age_seconds{pod="a"}': "1x20",
            'medsearch_archive_manifest_age_seconds{pod="b"}': "59x20",
        },
        "10m",
    ),
    "MedsearchArchiveUnreachable": Case(
        {f'medsearch_archive_manifest_age_seconds{{pod="{pod}"}}': "0+60x20" for pod in "ab"},
        {
            'medsearch_archive_manifest_age_seconds{pod="a"}': "1x20",
            'medsearch_archive_manifest_age_seconds{pod="b"}': "0+60x20",
        },
        "15m",
    ),
    "MedsearchRecallLow": Case(
        {RECALL % "sum": "0+0.9x120", RECALL % "count": "0+1x120"},
        {RECALL % "sum": "0+0.97x120", RECALL % "count": "0+1x120"},
        "100m",
    ),
    "MedsearchVoteAgreementLow": Case(
        {VOTES % "same": "0+0.95x120", VOTES % "different": "0+0.05x120"},
        {VOTES % "same": "0+0.99x120", VOTES % "different": "0+0.01x120"},
        "100m",
    ),
    "MedsearchQualityUnmeasured": Case(
        {COUNT: "0+60x120", RECALL % "count": "0x120"}, {COUNT: "0+60x120", RECALL % "count": "0+1x120"}, "110m"
    ),
    "MedsearchDown": Case(
        {'up{pod="a"}': "1x5 0x20", 'up{pod="b"}': "0x25"}, {'up{pod="a"}': "1x25", 'up{pod="b"}': "0x25"}, "15m"
    ),
    "MedsearchReplicaDown": Case(
        {'up{pod="a",instance="a:8000"}': "1x5 0x20"},
        {'up{pod="a",instance="a:8000"}': "0x3 1x20"},
        "15m",
        POD | {"instance": "a:8000"},
    ),
    "MedsearchRestarts": Case(
        {'process_start_time_seconds{pod="a"}': "1x5 2x5 3x5 4x10"},
        {'process_start_time_seconds{pod="a"}': "1x10 2x10 3x10"},
        "20m",
        POD,
    ),
    "MedsearchOverloaded": Case(
        {ASKED % 200: "0+95x30", ASKED % 429: "0+5x30"}, {ASKED % 200: "0+995x30", ASKED % 429: "0+5x30"}, "25m"
    ),
    "MedsearchQueueFilling": Case(
        {'medsearch_queue_depth{pod="a"}': "240x20", 'medsearch_queue_max{pod="a"}': "256x20"},
        {'medsearch_queue_depth{pod="a"}': "256 256 256 10x20", 'medsearch_queue_max{pod="a"}': "256x20"},
        "15m",
        POD,
    ),
    "MedsearchFileDescriptorsLow": Case(
        {'process_open_fds{pod="a"}': "900x30", 'process_max_fds{pod="a"}': "1024x30"},
        {'process_open_fds{pod="a"}': "700x30", 'process_max_fds{pod="a"}': "1024x30"},
        "20m",
        POD,
    ),
    "MedsearchKeysFileBroken": Case(
        {'medsearch_keys_file_broken{pod="a"}': "0 1x20", 'medsearch_keys_file_broken{pod="b"}': "0x20"},
        # A file that is being replaced is whole again a moment later.
        {'medsearch_keys_file_broken{pod="a"}': "0 1 1 0x20", 'medsearch_keys_file_broken{pod="b"}': "0x20"},
        "10m",
    ),
    "MedsearchLabelsFileBroken": Case(
        {'medsearch_labels_file_broken{pod="a"}': "0 1x20", 'medsearch_labels_file_broken{pod="b"}': "0x20"},
        {'medsearch_labels_file_broken{pod="a"}': "0 1 1 0x20", 'medsearch_labels_file_broken{pod="b"}': "0x20"},
        "10m",
    ),
    "MedsearchIssuerUnreachable": Case(
        {'medsearch_oidc_issuer_broken{pod="a"}': "0 1x30", 'medsearch_oidc_issuer_broken{pod="b"}': "0x30"},
        # It was restarted.
        {'medsearch_oidc_issuer_broken{pod="a"}': "0 1x5 0x30", 'medsearch_oidc_issuer_broken{pod="b"}': "0x30"},
        "20m",
    ),
    "MedsearchAuditFails": Case(
        {'medsearch_audit_broken{pod="a"}': "0 1x20", 'medsearch_audit_broken{pod="b"}': "0x20"},
        {'medsearch_audit_broken{pod="a"}': "0 1 0x20", 'medsearch_audit_broken{pod="b"}': "0x20"},
        "10m",
    ),
    "MedsearchAuditFilling": Case(
        {'medsearch_audit_bytes{pod="a"}': "95x40", 'medsearch_audit_bytes_max{pod="a"}': "100x40"},
        # 0: there is no audit
        {'medsearch_audit_bytes{pod="a"}': "0x40", 'medsearch_audit_bytes_max{pod="a"}': "0x40"},
        "30m",
        POD,
    ),
    "MedsearchAuditUnanchored": Case(
        {HEADS % "failed": "0+1x60", HEADS % "committed": "0x60"},
        # One that fails now and then is made up for by the next.
        {HEADS % "failed": "0+1x60", HEADS % "committed": "0+1x60"},
        "50m",
    ),
    "MedsearchTlsFilesBroken": Case(
        {'medsearch_tls_files_broken{pod="a",port="public"}': "0 1x20"},
        # One file is there a moment before the other.
        {'medsearch_tls_files_broken{pod="a",port="public"}': "0 1 1 0x20"},
        "10m",
        HERE | {"port": "public"},
    ),
    "MedsearchCertificateExpires": Case(
        # Time begins at zero: six days, eight days.
        {'medsearch_tls_certificate_expires_timestamp_seconds{pod="a",port="inner"}': "518400x30"},
        {'medsearch_tls_certificate_expires_timestamp_seconds{pod="a",port="inner"}': "691200x30"},
        "20m",
        HERE | {"port": "inner"},
    ),
    "MedsearchIndexMemoryFilling": Case(
        {'medsearch_index_bytes{pod="a"}': "95x60", 'medsearch_index_bytes_max{pod="a"}': "100x60"},
        # -1: no bound
        {'medsearch_index_bytes{pod="a"}': "95x60", 'medsearch_index_bytes_max{pod="a"}': "-1x60"},
        "50m",
        POD,
    ),
    "MedsearchShardMissing": Case(
        {'medsearch_shards{pod="a",state="missing"}': "0 1x20"},
        {'medsearch_shards{pod="a",state="missing"}': "0 1 0x20"},
        "10m",
    ),
    "MedsearchCoverageMissing": Case(
        {'medsearch_coverage_missing_total{pod="a"}': "0+5x30", COUNT: "0+100x30"},
        {'medsearch_coverage_missing_total{pod="a"}': "0+0.5x30", COUNT: "0+100x30"},
        "20m",
    ),
    "MedsearchPeersLost": Case(
        {
            f'medsearch_peers{{pod="a",state="{state}"}}': f"{count}x30"
            for state, count in (("known", 3), ("alive", 2), ("slow", 0))
        },
        {
            f'medsearch_peers{{pod="a",state="{state}"}}': f"{count}x30"
            for state, count in (("known", 3), ("alive", 3), ("slow", 0))
        },
        "20m",
        POD,
    ),
    "MedsearchShardRequestsFail": Case(
        {SHARD % "answered": "0+90x30", SHARD % "failed": "0+5x30", SHARD % "late": "0+5x30"},
        {SHARD % "answered": "0+98x30", SHARD % "failed": "0+1x30", SHARD % "late": "0+1x30"},
        "25m",
    ),
    "MedsearchHedgesAtBudget": Case(
        {SHARD % "answered": "0+100x60", HEDGE: "0+4.9x60"}, {SHARD % "answered": "0+100x60", HEDGE: "0+2x60"}, "40m"
    ),
    "MedsearchVersionsDiffer": Case(
        {'medsearch_archive_version{pod="a"}': "5x60", 'medsearch_archive_version{pod="b"}': "5x5 7x60"},
        # a replica that is read a moment before the other is no replica that stays behind
        {'medsearch_archive_version{pod="a"}': "5+1x60", 'medsearch_archive_version{pod="b"}': "6+1x60"},
        "45m",
        POD,
    ),
    "MedsearchStorageFails": Case(
        {STORE % "ok": "0+90x30", STORE % "failed": "0+10x30"},
        {STORE % "ok": "0+99x30", STORE % "failed": "0+1x30"},
        "25m",
        HERE | {"operation": "get"},
    ),
    "MedsearchStorageDamage": Case(
        {'medsearch_storage_damage_total{pod="a",place="storage"}': "0x5 1x20"},
        # A copy in a cache is fetched again.
        {'medsearch_storage_damage_total{pod="a",place="cache"}': "0x5 1x20"},
        "15m",
    ),
    "MedsearchGraphsLost": Case(
        {'medsearch_archive_lost_graphs{pod="a"}': "2x30"},
        {'medsearch_archive_lost_graphs{pod="a"}': "2x10 0x20"},
        "25m",
    ),
    "MedsearchIngestFails": Case(
        {INGEST % "inserted": "0+8x60", INGEST % "failed": "0+2x60"},
        {INGEST % "inserted": "0+19x60", INGEST % "failed": "0+1x60"},
        "40m",
    ),
    "MedsearchInboxStuck": Case(
        {
            'medsearch_inbox_oldest_age_seconds{pod="a"}': "0+60x40",
            'medsearch_inbox_oldest_age_seconds{pod="b"}': "0x40",
        },
        # A burst that is worked off.
        {'medsearch_inbox_oldest_age_seconds{pod="a"}': "0+60x14 0x30"},
        "30m",
    ),
    "MedsearchInboxFails": Case(
        {'medsearch_inbox_total{pod="a",outcome="failed"}': "0x5 1x60"},
        {
            'medsearch_inbox_total{pod="a",outcome="failed"}': "3x60",
            'medsearch_inbox_total{pod="a",outcome="again"}': "0+1x60",
        },
        "30m",
    ),
    "MedsearchPacsPullsFail": Case(
        {PULLS % "pulled": "0+8x60", PULLS % "failed": "0+1x60", PULLS % "late": "0+1x60"},
        # What the PACS does not have is its answer.
        {PULLS % "pulled": "0+8x60", PULLS % "failed": "0+0.5x60", PULLS % "not_found": "0+20x60"},
        "40m",
        HERE | {"pacs": "main"},
    ),
    "MedsearchOrthancUnfollowed": Case(
        {'medsearch_orthanc_followed{orthanc="front",pod="a"}': "1x5 0x40"},
        {
            'medsearch_orthanc_followed{orthanc="front",pod="a"}': "1x5 0x40",
            # Another server takes over.
            'medsearch_orthanc_followed{orthanc="front",pod="b"}': "0x6 1x40",
        },
        "30m",
        FRONT,
    ),
    "MedsearchOrthancLags": Case(
        {LAG: "0x5 7x80", INSTANCES % "accepted": "0+1x5 5x80", INSTANCES % "failed": "0x85"},
        # A backlog that is worked off.
        {LAG: "0x5 900-10x80", INSTANCES % "accepted": "0+10x85"},
        "70m",
        FRONT,
    ),
    "MedsearchOrthancInstancesFail": Case(
        {INSTANCES % "failed": "0x5 1x60"},
        {INSTANCES % "failed": "3x60", INSTANCES % "refused": "0+1x60", INSTANCES % "gone": "0+1x60"},
        "30m",
        FRONT,
    ),
    "MedsearchDeletionsRefused": Case(
        {'medsearch_orthanc_deletions_refused{orthanc="front",pod="a"}': "0x10 431x20"},
        {'medsearch_orthanc_deletions_refused{orthanc="front",pod="a"}': "431x10 0x20"},
        "20m",
        FRONT,
    ),
    "MedsearchDeletionsUnseen": Case(
        {SWEEPS % "failed": "0x10 1x60 2x600", SWEEPS % "done": "4x670"},
        {SWEEPS % "failed": "0x10 1x60 2x600", SWEEPS % "done": "4x300 5x370"},
        "430m",
        FRONT,
    ),
    "MedsearchCommitsSlow": Case(
        {COMMIT % "5": "0+1x60", COMMIT % "10": "0+10x60", COMMIT % "+Inf": "0+10x60"},
        {COMMIT % "5": "0+10x60", COMMIT % "10": "0+10x60", COMMIT % "+Inf": "0+10x60"},
        "40m",
    ),
    "MedsearchCompactOverdue": Case(
        {CRON["status_last_schedule_time"]: "600x400", CRON["created"]: "0x400"},
        {
            CRON["status_last_schedule_time"]: "600x400",
            CRON["status_last_successful_time"]: "900x400",
            CRON["created"]: "0x400",
        },
        "300m",
        {"namespace": NAMESPACE, "cronjob": "medsearch-compact"},
    ),
    "MedsearchInconclusiveOften": Case(
        {STATUS % "inconclusive": "0+6x180", STATUS % "suggested": "0+4x180"},
        {STATUS % "inconclusive": "0+4x180", STATUS % "suggested": "0+6x180"},
        "150m",
        HERE | {"status": "inconclusive"},
    ),
    "MedsearchOutOfDistributionOften": Case(
        {STATUS % "out_of_distribution": "0+3x180", STATUS % "suggested": "0+7x180"},
        {STATUS % "out_of_distribution": "0+2x180", STATUS % "suggested": "0+8x180"},
        "150m",
        HERE | {"status": "out_of_distribution"},
    ),
    "MedsearchQueriesDrift": Case(
        {'medsearch_quality_drift{pod="a"}': "0.4x200"}, {'medsearch_quality_drift{pod="a"}': "0.2x200"}, "180m"
    ),
}
# How alerts that two or three conditions guard stay silent in other ways.
ALSO_QUIET = [
    # one failure on a quiet site
    ("MedsearchErrorBudgetBurnsFast", {ASKED % 200: "0+0.1x90", ASKED % 500: "0x80 1x10"}, "85m"),
    # it was bad, and is over
    ("MedsearchErrorBudgetBurnsFast", {ASKED % 200: "0+90x120", ASKED % 500: "0+10x40 400x80"}, "70m"),
    # a draining replica's /readyz is no failed request
    (
        "MedsearchErrorBudgetBurnsFast",
        {
            ASKED % 200: "0+100x90",
            'medsearch_http_requests_total{route="/readyz",method="GET",status="503",pod="a"}': "0+50x90",
        },
        "85m",
    ),
    # refused is answered
    ("MedsearchErrorBudgetBurnsFast", {ASKED % 200: "0+50x90", ASKED % 429: "0+50x90"}, "85m"),
    # nobody asked
    ("MedsearchErrorBudgetBurnsFast", {ASKED % 200: "0x90"}, "85m"),
    # too few samples to say anything
    ("MedsearchRecallLow", {RECALL % "sum": "0+0.01x120", RECALL % "count": "0+0.05x120"}, "100m"),
    ("MedsearchQualityUnmeasured", {COUNT: "0+1x120"}, "110m"),
    # nobody asks peers where everybody holds everything
    ("MedsearchHedgesAtBudget", {SHARD % "answered": "0x60", HEDGE: "0x60"}, "40m"),
    # a job that is running
    (
        "MedsearchCompactOverdue",
        {CRON["status_last_schedule_time"]: "6000x200", CRON["status_last_successful_time"]: "900x200"},
        "200m",
    ),
]
ALSO_FIRES = [
    # Prometheus was never told of any replica
    ("MedsearchDown", {}, "5m", HERE),
    (
        "MedsearchPeersLost",
        {
            f'medsearch_peers{{pod="a",state="{state}"}}': f"{count}x30"
            for state, count in (("known", 3), ("alive", 3), ("slow", 1))
        },
        "20m",
        POD,
    ),
    # 14.4 times the budget for one hour, after five without a failure: the longer windows see little of it
    ("MedsearchErrorBudgetBurnsFast", {ASKED % 200: "0+1000x370", ASKED % 500: "0x300 16+16x65"}, "362m", HERE),
    ("MedsearchLatencyBudgetBurnsFast", {COUNT: "0+100x370", WITHIN: "0+100x300 30085+85x65"}, "362m", HERE),
    # 6 times the budget for six hours, never 14.4 times
    ("MedsearchLatencyBudgetBurnsFast", {COUNT: "0+100x400", WITHIN: "0+93x400"}, "390m", HERE),
    ("MedsearchErrorBudgetBurnsFast", {ASKED % 200: "0+99x400", ASKED % 500: "0+1x400"}, "390m", HERE),
    # it succeeded once, then not any more
    (
        "MedsearchCompactOverdue",
        {CRON["status_last_schedule_time"]: "6000x400", CRON["status_last_successful_time"]: "900x400"},
        "390m",
        CASES["MedsearchCompactOverdue"].labels,
    ),
]
# All is well, for three hours.
HEALTHY = {
    'up{pod="a"}': "1x200",
    ASKED % 200: "0+100x200",
    COUNT: "0+100x200",
    WITHIN: "0+100x200",
    'medsearch_archive_manifest_age_seconds{pod="a"}': "1x200",
    'medsearch_archive_version{pod="a"}': "7x200",
    'medsearch_shards{pod="a",state="missing"}': "0x200",
    'medsearch_coverage_missing_total{pod="a"}': "0x200",
    'medsearch_peers{pod="a",state="known"}': "2x200",
    'medsearch_peers{pod="a",state="alive"}': "2x200",
    'medsearch_peers{pod="a",state="slow"}': "0x200",
    SHARD % "answered": "0+100x200",
    HEDGE: "0+1x200",
    'medsearch_keys_file_broken{pod="a"}': "0x200",
    'medsearch_labels_file_broken{pod="a"}': "0x200",
    'medsearch_oidc_issuer_broken{pod="a"}': "0x200",
    'medsearch_inbox_oldest_age_seconds{pod="a"}': "3x200",
    'medsearch_inbox_total{pod="a",outcome="failed"}': "0x200",
    'medsearch_inbox_total{pod="a",outcome="embedded"}': "0+5x200",
    'medsearch_audit_broken{pod="a"}': "0x200",
    'medsearch_audit_bytes{pod="a"}': "10x200",
    'medsearch_audit_bytes_max{pod="a"}': "100x200",
    HEADS % "failed": "0x200",
    HEADS % "committed": "0+6x200",
    'medsearch_tls_files_broken{pod="a",port="public"}': "0x200",
    'medsearch_tls_certificate_expires_timestamp_seconds{pod="a",port="public"}': "9000000x200",
    'medsearch_queue_depth{pod="a"}': "1x200",
    'medsearch_queue_max{pod="a"}': "256x200",
    RECALL % "sum": "0+0.99x200",
    RECALL % "count": "0+1x200",
    VOTES % "same": "0+1x200",
    STATUS % "suggested": "0+80x200",
    STATUS % "inconclusive": "0+15x200",
    STATUS % "out_of_distribution": "0+5x200",
    'medsearch_quality_drift{pod="a"}': "0.05x200",
    STORE % "ok": "0+60x200",
    'medsearch_storage_damage_total{pod="a",place="storage"}': "0x200",
    'process_start_time_seconds{pod="a"}': "1x200",
}


# How many times faster than allowed, over the long and the short window.
BURNS_FAST = {"14.4": ("1h", "5m"), "6": ("6h", "30m")}
BURNS_SLOWLY = {"3": ("1d", "2h"), "1": ("3d", "6h")}


def with_release(name: str) -> str:
    """A series with the labels that Prometheus gives it."""
    added = f'namespace="{NAMESPACE}"' + ("" if name.startswith("kube_") else f',job="{RELEASE}"')
    return name.replace("{", "{" + added + ",", 1)


def unit(alert: str, series: dict[str, str], at: str, labels: dict[str, str] | None) -> dict:
    """A test for promtool: at that time the alert fires with these labels, or not at all."""
    expected = [] if labels is None else [{"exp_labels": labels | ALERTS[alert]["labels"]}]
    return {
        "name": f"{alert} {'is silent' if labels is None else 'fires'}",
        "interval": "1m",
        "input_series": [{"series": with_release(name), "values": values} for name, values in series.items()],
        "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": expected}],
    }


def needed(names: set[str]) -> list[dict]:
    """The rules of these names and those that they read: a day of all rules takes promtool a minute."""
    groups = []
    for group in reversed(GROUPS):
        kept = []
        for rule in reversed(group["rules"]):
            if rule.get("alert", rule.get("record")) in names:
                names |= {name for name, _ in selectors(rule["expr"])}
                # promtool compares every annotation to the letter; they have a test of their own.
                kept.append({key: value for key, value in rule.items() if key != "annotations"})
        groups.append({**group, "rules": kept[::-1]})
    return groups[::-1]


def run_units(folder: Path, units: list[dict], names: set[str]) -> None:
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": needed(names)}))
    write_and_run(folder, units)


def write_and_run(folder: Path, units: list[dict]) -> None:
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": units}
    (folder / "units.yaml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", str(folder / "units.yaml"))


@pytest.mark.parametrize("pace, pairs", [("Fast", BURNS_FAST), ("Slowly", BURNS_SLOWLY)])
@pytest.mark.parametrize("what, series", [("Error", "errors"), ("Latency", "slow_searches")])
def test_budgets_burn_by_two_windows_each(what: str, series: str, pace: str, pairs: dict[str, tuple[str, str]]) -> None:
    """The factors and windows of https://sre.google/workbook/alerting-on-slos/, both of each pair."""
    text = ALERTS[f"Medsearch{what}BudgetBurns{pace}"]["expr"]
    found = re.findall(rf"medsearch:{series}:ratio(\w+){{[^}}]*}} > ([0-9.]+) \* [0-9.]+", text)
    assert found == [(window, factor) for factor, both in pairs.items() for window in both]


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should_and_not_when_it_should_not(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    units = [unit(alert, case.fires, case.at, case.labels), unit(alert, case.quiet, case.at, None)]
    run_units(tmp_path, units, {alert})


@pytest.mark.parametrize("alert", sorted({alert for alert, _, _ in ALSO_QUIET}))
def test_an_alert_stays_silent_for_other_reasons_too(alert: str, tmp_path: Path) -> None:
    run_units(tmp_path, [unit(alert, series, at, None) for name, series, at in ALSO_QUIET if name == alert], {alert})


@pytest.mark.parametrize("alert", sorted({alert for alert, _, _, _ in ALSO_FIRES}))
def test_an_alert_fires_for_other_reasons_too(alert: str, tmp_path: Path) -> None:
    units = [unit(alert, series, at, labels) for name, series, at, labels in ALSO_FIRES if name == alert]
    run_units(tmp_path, units, {alert})


def test_nothing_fires_where_all_is_well(tmp_path: Path) -> None:
    one = unit("MedsearchDown", HEALTHY, "180m", None)
    one["alert_rule_test"] = [{"alertname": alert, "eval_time": "180m", "exp_alerts": []} for alert in ALERTS]
    run_units(tmp_path, [one], set(ALERTS))


def test_objectives_are_recorded(tmp_path: Path) -> None:
    expected = {
        "medsearch:errors:ratio1h": 0.0099,
        "medsearch:slow_searches:ratio1h": 0.01,
        "medsearch:archive_age_seconds:max": 1,
        "medsearch:fresh:ratio": 1,
        "medsearch:recall_at_10:mean6h": 0.99,
        "medsearch:vote_agreement:ratio6h": 1,
    }
    one = unit("MedsearchDown", HEALTHY | {ASKED % 500: "0+1x200", WITHIN: "0+99x200"}, "180m", None)
    labels = f'{{namespace="{NAMESPACE}",job="{RELEASE}"}}'
    one["promql_expr_test"] = [
        {"expr": f"round({name}, 0.0001)", "eval_time": "180m", "exp_samples": [{"labels": labels, "value": value}]}
        for name, value in expected.items()
    ]
    del one["alert_rule_test"]
    run_units(tmp_path, [one], set(expected))


def test_an_hour_without_requests_does_not_spoil_the_mean_of_a_day(tmp_path: Path) -> None:
    """0/0 is not a number, and neither is a mean with one of these in it."""
    labels = f'{{namespace="{NAMESPACE}",job="{RELEASE}"}}'
    one = unit("MedsearchDown", {ASKED % 200: "0x60 0+99x60", ASKED % 503: "0x60 0+1x60"}, "110m", None)
    one["promql_expr_test"] = [
        {
            "expr": "round(avg_over_time(medsearch:errors:ratio5m[100m]), 0.0001)",
            "eval_time": "110m",
            "exp_samples": [{"labels": labels, "value": 0.01}],
        }
    ]
    del one["alert_rule_test"]
    run_units(tmp_path, [one], {"medsearch:errors:ratio5m"})


def test_what_an_alert_says(tmp_path: Path) -> None:
    """The whole text of one, with its figures."""
    (tmp_path / "rules.yaml").write_text(rule_groups())
    case = CASES["MedsearchErrorBudgetBurnsFast"]
    one = unit("MedsearchErrorBudgetBurnsFast", case.fires, case.at, HERE)
    one["alert_rule_test"][0]["exp_alerts"][0]["exp_annotations"] = {
        "summary": "Requests fail so often that the month's error budget is gone in days",
        "description": "2% of the requests to medsearch end with a server error.",
        "runbook_url": "RUNBOOK.md#medsearcherrorbudgetburnsfast",
    }
    write_and_run(tmp_path, [one])
