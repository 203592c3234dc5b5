"""Dashboards: JSON that Grafana takes, laid out without holes or overlaps."""

import json

import pytest
from expressions import dashboard_files, panels, selectors

BOARDS = {path.stem: json.loads(path.read_text()) for path in dashboard_files()}


def test_there_are_both_and_their_ids_differ() -> None:
    assert set(BOARDS) == {"operations", "quality"}
    uids = [board["uid"] for board in BOARDS.values()]
    assert len(set(uids)) == len(uids) and all(0 < len(uid) <= 40 for uid in uids)
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_are_whole(name: str) -> None:
    board = BOARDS[name]
    assert "id" not in board, "Grafana gives that"
    ids = [panel["id"] for panel in panels(board)]
    assert len(set(ids)) == len(ids)
    variables = {each["name"] for each in board["templating"]["list"]}
    titles = set()
    for panel in panels(board):
        assert panel["title"]
        if panel["type"] == "row":
            titles = set()
            continue
        assert panel["title"] not in titles, "two panels of a row have one title"
        titles.add(panel["title"])
        assert panel["type"] in ("stat", "timeseries")
        assert panel["fieldConfig"]["defaults"]["unit"]
        # No dashboard is tied to one installation: the data source is chosen.
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            for _, matchers in selectors(target["expr"]):
                asked = {label: value for label, _, value in matchers}
                assert asked["namespace"] == "$namespace" and asked["job"] == "$job"
                assert ("pod" not in asked) or "pod" in variables
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_lies_on_another(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken.get((x, y))}"
                taken[x, y] = panel["title"]
    rows = {y for _, y in taken}
    assert rows == set(range(max(rows) + 1)), "there is a gap"
