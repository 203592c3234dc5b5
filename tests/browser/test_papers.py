"""Model card, datasheet, and reports of wrong labels."""

import pytest

from conftest import ask, get_json
from steps import TILES, images_painted, refuse, search_case


@pytest.mark.signed_in
@pytest.mark.parametrize("width", [390, 1440])
def test_papers_are_read_on_demand(open_page, archive, width):
    page = open_page(width, 844)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.click("#about-open")
    page.wait_for_selector(".papers summary")
    assert not any("/v1/model/card" in url for url in asked)
    page.click("summary:has-text('Model card')")
    page.wait_for_selector(".paper h4:has-text('Intended use')")
    assert "not known" in page.inner_text(".paper >> nth=0")
    page.click("summary:has-text('Datasheet')")
    page.wait_for_selector(".paper h4:has-text('Composition')")
    table = page.locator(".paper >> nth=1").locator("table:has(caption:text-is('Images by class'))")
    counts = {
        row.locator("th").inner_text(): row.locator("td").first.inner_text() for row in table.locator("tbody tr").all()
    }
    assert counts == {each["name"]: str(each["images"]) for each in archive["classes"]}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getElementById('about').scrollWidth <= document.getElementById('about').clientWidth")


def test_markup_in_a_paper_stays_text(page):
    odd = "<img src=x onerror=alert(1)>"
    paper = {
        "title": odd,
        "lead": odd,
        "archive_version": 1,
        "sections": [
            {
                "id": "a",
                "title": odd,
                "blocks": [
                    {"kind": "text", "text": odd},
                    {"kind": "list", "items": [odd]},
                    {"kind": "facts", "facts": [{"term": odd, "value": odd}]},
                    {"kind": "table", "caption": odd, "columns": [odd], "rows": [[odd]]},
                    {"kind": "of a later server"},
                ],
            }
        ],
    }
    page.route("**/v1/model/card", lambda route: route.fulfill(json=paper))
    page.click("#about-open")
    page.click("summary:has-text('Model card')")
    page.wait_for_selector(".paper h4")
    assert page.locator(".paper img").count() == 0
    assert page.inner_text(".paper").count(odd) == 9


@pytest.mark.may_fail
def test_a_paper_that_fails_can_be_asked_for_again(page):
    refuse(page, "unavailable", 503, "**/v1/archive/datasheet")
    page.click("#about-open")
    page.click("summary:has-text('Datasheet')")
    page.wait_for_selector(".paper [role=alert]")
    page.unroute("**/v1/archive/datasheet")
    page.click(".paper button")
    page.wait_for_selector(".paper h4")


@pytest.mark.signed_in
@pytest.mark.may_fail
def test_a_wrong_label_is_reported(page, case, archive):
    if not archive["writable"]:
        pytest.skip("nobody can write to this archive")
    search_case(page, case)
    image, own = (page.locator(TILES).first.get_attribute(name) for name in ("data-id", "data-class"))
    page.click(f"{TILES} .open")
    images_painted(page, "#compare")
    page.click("#report-label")
    assert own not in page.locator(".report option").all_inner_texts()
    page.click(".report button[type=submit]")
    assert page.locator(".report form").count() == 1, "a reason is asked for"
    # Keys of the comparison are letters here.
    page.locator(".report textarea").press_sequentially("it is + 0 <b>")
    assert page.locator(".report textarea").input_value() == "it is + 0 <b>"
    assert page.evaluate("document.querySelector('.slide').style.transform").endswith("scale(1)")

    refuse(page, "overloaded", 429, "**/v1/feedback")
    page.click(".report button[type=submit]")
    page.wait_for_function("() => document.querySelector('.report [role=alert]').textContent.includes('minute')")
    page.unroute("**/v1/feedback")
    page.click(".report button[type=submit]")
    page.wait_for_selector(".report h2:has-text('Report stored')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".report", state="detached")
    assert page.is_visible("#compare"), "the comparison is still there"

    reports = [report for report in get_json("/v1/feedback")["reports"] if report["image"] == image]
    # Before anything is said of them: a run that failed leaves none to the next.
    for report in reports:
        ask(f"/v1/feedback/{report['id']}", "DELETE")
    assert [(report["reason"], report["suggested"], report["class"]) for report in reports] == [
        ("it is + 0 <b>", None, own)
    ]
