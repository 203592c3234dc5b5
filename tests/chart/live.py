#!/usr/bin/env python3
"""Asks a running Prometheus every expression of the dashboards and rules and names those that have no data.

    tests/chart/live.py --prometheus http://127.0.0.1:9090 --since 30m --namespace medsearch --job medsearch

An alert that does not fire has no data, and shall have none: of alerts each series is asked for instead. A labelled
counter that never counted may be absent without fault; --allow takes a pattern for what may. Exit code 1 when anything
else has no data, 2 when Prometheus refuses an expression.
"""

import argparse
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from expressions import PRODUCT, Expression, of_dashboards, of_rules, selectors, series

POINTS = 200
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is no time: write it as 90s, 30m, 6h or 2d")
    return int(match[1]) * UNITS[match[2]]


class Prometheus:
    def __init__(self, url: str, since: int) -> None:
        self.url = url.rstrip("/")
        self.end = time.time()
        self.start = self.end - since
        self.step = max(1, since // POINTS)

    def ask(self, text: str) -> list[dict]:
        """The series that an expression has in the time asked for; a ValueError when it is refused."""
        query = {"query": text, "start": self.start, "end": self.end, "step": self.step}
        request = urllib.request.Request(
            f"{self.url}/api/v1/query_range", data=urllib.parse.urlencode(query).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from error


def has_data(result: list[dict]) -> bool:
    """At least one value that is a number: 0/0 says nothing."""
    return any(not math.isnan(float(value)) for each in result for _, value in each["values"])


def questions(namespace: str, job: str) -> list[Expression]:
    asked = []
    for each in of_dashboards(namespace, job) + of_rules(namespace, job):
        if not each.alert:
            asked.append(each)
            continue
        for name, matchers in selectors(each.text):
            # The outcome that an alert waits for may never have come: that the series exists is enough.
            kept = ",".join(
                f'{label}{how}"{value}"' for label, how, value in matchers if label in ("namespace", "job", "cronjob")
            )
            asked.append(Expression(f"{each.where}: {name}", f"{name}{{{kept}}}"))
    # Each question once, named by all who ask it.
    texts: dict[str, list[str]] = {}
    for each in asked:
        texts.setdefault(each.text, []).append(each.where)
    return [Expression("; ".join(dict.fromkeys(where)), text) for text, where in texts.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--since", type=seconds, default="30m", metavar="TIME", help="how far back data may lie (30m)")
    parser.add_argument("--namespace", default="medsearch")
    parser.add_argument("--job", default="medsearch", help="the release's full name")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="REGEX", help="expressions that may have no data"
    )
    options = parser.parse_args()
    prometheus = Prometheus(options.prometheus, options.since)
    empty, allowed, refused, answered = [], [], [], 0
    for each in questions(options.namespace, options.job):
        try:
            found = has_data(prometheus.ask(each.text))
        except ValueError as error:
            refused.append(f"{each.where}\n    {' '.join(each.text.split())}\n    {error}")
            continue
        if found:
            answered += 1
        else:
            may = any(re.search(pattern, each.text) for pattern in options.allow)
            (allowed if may else empty).append(f"{each.where}\n    {' '.join(each.text.split())}")
    exported = {
        item["metric"]["__name__"] for item in prometheus.ask(f'{{__name__=~"medsearch_.+",job="{options.job}"}}')
    }
    known = series()
    unknown = sorted(exported - set(known))
    absent = sorted(name for name in known if name.startswith("medsearch_") and name not in exported)
    for title, lines in (("no data", empty), ("no data, allowed", allowed), ("refused", refused)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"exported, but unknown to tests/chart/expressions.py: {', '.join(unknown) or 'none'}")
    print(f"known there, but not exported: {', '.join(absent) or 'none'}")
    print(
        f"{len(PRODUCT)} metrics; {answered} expressions have data, {len(empty)} have none,"
        f" {len(allowed)} need none, {len(refused)} are refused"
    )
    if refused:
        return 2
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
