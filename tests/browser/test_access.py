"""For the keyboard, for screen readers, for small windows."""

import pytest

from steps import TILES, images_painted, search_case, upload

FOCUS_SEEN = """() => {
    const node = document.activeElement;
    if (node === document.body) return null;
    const style = getComputedStyle(node);
    const box = node.getBoundingClientRect();
    return {
        node: node.outerHTML.slice(0, 80),
        outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        inside: box.bottom > 0 && box.top < innerHeight && box.width > 0,
    };
}"""

FAULTS = """() => {
    const faults = [];
    const seen = (node) => node.checkVisibility?.() ?? true;
    const say = (what, node) => faults.push(what + ": " + node.outerHTML.slice(0, 120));
    for (const img of document.images) if (!img.hasAttribute("alt")) say("no alt", img);
    for (const node of document.querySelectorAll("button, a[href], summary")) {
        if (!(node.getAttribute("aria-label") || node.textContent).trim()) say("no name", node);
    }
    for (const node of document.querySelectorAll("input:not([hidden]), select")) {
        if (!node.labels?.length && !node.getAttribute("aria-label")) say("no label", node);
    }
    const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
    for (const id of new Set(ids)) if (ids.filter((each) => each === id).length > 1) faults.push("id twice: " + id);
    for (const name of ["aria-labelledby", "aria-controls", "aria-describedby"]) {
        for (const node of document.querySelectorAll(`[${name}]`)) {
            if (seen(node) && !document.getElementById(node.getAttribute(name))) say("points nowhere", node);
        }
    }
    const titles = [...document.querySelectorAll("h1")].filter(seen);
    if (titles.length !== 1) faults.push("not one h1 but " + titles.length);
    if (!document.documentElement.lang) faults.push("no language");
    return faults;
}"""

CONTRAST = """() => {
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const rgba = numbers(getComputedStyle(node).backgroundColor);
            if (rgba.length < 4 || rgba[3] === 1) return rgba;
        }
        return [255, 255, 255];
    };
    const low = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
        if (node.closest("[disabled], noscript, option")) continue;
        const style = getComputedStyle(node);
        const [a, b] = [luminance(numbers(style.color)), luminance(ground(node))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        if (ratio < (large ? 3 : 4.5)) low.push(`${ratio.toFixed(2)} ${texts.currentNode.data.trim().slice(0, 40)}`);
    }
    return low;
}"""


def press_until(page, key, script, limit=80):
    """Presses a key until the focus is where it should be; every stop on the way must be seen."""
    for _ in range(limit):
        page.keyboard.press(key)
        stop = page.evaluate(FOCUS_SEEN)
        assert stop is None or (stop["outlined"] and stop["inside"]), stop
        if page.evaluate(script):
            return
    raise AssertionError(f"the focus never got to {script}")


def test_keyboard_alone(page, archive, image_path):
    if archive["demo"]:
        press_until(page, "Tab", "document.activeElement.matches('#sample-list .open')")
        page.keyboard.press("Enter")
    else:
        with page.expect_file_chooser() as chooser:
            press_until(page, "Tab", "document.activeElement.id === 'choose'")
            page.keyboard.press("Enter")
        chooser.value.set_files(image_path)
    page.wait_for_selector(TILES)
    assert page.evaluate("document.activeElement.id") == "verdict-title"
    press_until(page, "Tab", "document.activeElement.matches('#neighbors .open')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare[open]")
    page.keyboard.press("ArrowRight")
    press_until(page, "Tab", "document.activeElement.id === 'search-again'")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelector('.query figcaption').textContent.includes('Case from the archive')"
    )
    press_until(page, "Tab", "document.activeElement.matches('.explain summary')")
    page.keyboard.press("Space")
    assert page.locator(".explain .timings").is_visible()


@pytest.mark.signed_in
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_names_and_contrast(open_page, image_path, theme):
    page = open_page(color_scheme=theme)

    def check(where):
        assert page.evaluate(FAULTS) == [], where
        assert page.evaluate(CONTRAST) == [], where

    page.click("#options summary")
    check("start")
    upload(page, image_path)
    images_painted(page, "#answer")
    page.click(".explain summary")
    check("answer")
    page.click(f"{TILES} .open")
    page.wait_for_selector("#compare[open]")
    check("compare")


@pytest.mark.signed_in
@pytest.mark.parametrize("width", [320, 360, 390, 768, 1024])
def test_nothing_sticks_out(open_page, image_path, width):
    page = open_page(width, 800)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    upload(page, image_path)
    page.click(".explain summary")
    page.click("#options summary")
    assert page.evaluate(fits)
    page.click(f"{TILES} .open")
    page.wait_for_selector("#compare[open]")
    assert page.evaluate("document.getElementById('compare').scrollWidth <= innerWidth")
    assert all(box.bounding_box()["height"] > 150 for box in page.locator(".stage").all())


@pytest.mark.parametrize("width", [320, 390, 640, 1440])
def test_no_name_of_a_class_runs_into_its_bar(open_page, case, width):
    page = open_page(width, 900)
    search_case(page, case)
    gaps = page.evaluate(
        """() => [...document.querySelectorAll(".verdict .bars li")].map((row) => {
            const name = row.querySelector(".label span");
            name.textContent = "Lung_Opacity_Unspecified";
            const text = document.createRange();
            text.selectNodeContents(name);
            return () => row.querySelector(".track").getBoundingClientRect().left - text.getBoundingClientRect().right;
        }).map((gap) => gap())"""
    )
    assert gaps and min(gaps) >= 4, gaps


@pytest.mark.parametrize("width, height", [(390, 844), (768, 1024), (1440, 900)])
def test_neighbors_begin_in_the_first_window(open_page, case, width, height):
    page = open_page(width, height)
    search_case(page, case)
    images_painted(page, ".query")
    assert page.evaluate("scrollY") == 0
    assert page.locator("#neighbors .well").first.bounding_box()["y"] < 0.9 * height


@pytest.mark.parametrize("width, height", [(390, 844), (1440, 900)])
def test_opened_options_can_be_sent(open_page, case, width, height):
    page = open_page(width, height)
    search_case(page, case)
    page.locator("#options summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        """() => {
            const box = document.getElementById("apply").getBoundingClientRect();
            const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
            return document.elementFromPoint(x, y)?.id === "apply" && box.bottom <= innerHeight;
        }"""
    )
    page.click("#apply")
    page.wait_for_function("() => !document.body.classList.contains('searching')")


def test_options_follow_the_window(open_page, case):
    page = open_page(1440, 900)
    search_case(page, case)
    assert page.locator(".side #options").count() == 1
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_selector(".found #options")
    page.click("#home")
    page.wait_for_selector("#options-at-start #options")


def test_archive_is_named_on_a_phone(open_page, archive, case):
    page = open_page(390, 844)
    assert page.locator("#archive-line").is_visible()
    search_case(page, case)
    assert archive["name"] in page.inner_text(".found .footnote")


def test_progress_and_result_are_said(page, case):
    search_case(page, case)
    assert "found" in page.inner_text("#live")
    assert page.get_attribute("#live", "aria-live") == "polite"


def test_still_for_those_who_ask(open_page):
    page = open_page(reduced_motion="reduce")
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every((n) => getComputedStyle(n).transitionDuration === '0s')"
    )
