"""From an image to its neighbors."""

import re

import pytest

from files import gradient_dicom
from steps import TILES, change_answer, fetched, images_painted, search_case, send_files, upload, watch_uploads


def check_answer(page):
    """An answer is complete: query, ranked neighbors with class and proof, a vote, and how it came about."""
    tiles = page.locator(TILES)
    assert 1 <= tiles.count() <= 10
    images_painted(page, "#answer")
    similarities = [float(text.split()[-1]) for text in page.locator(f"{TILES} .similarity").all_inner_texts()]
    assert similarities == sorted(similarities, reverse=True)
    for field in ("rank", "label", "proof", "origin"):
        assert all(text.strip() for text in page.locator(f"{TILES} .{field}").all_inner_texts())
    assert page.inner_text("#verdict-title").strip()
    assert page.locator(".per-class .tile").count() >= 1
    page.click(".explain summary")
    assert "version" in page.inner_text(".explain")
    assert page.locator(".explain .timings li").count() >= 2
    assert "Not for diagnosis" in page.inner_text(".strip")


@pytest.mark.signed_in
def test_upload_with_the_picker(page, image_path):
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files(image_path)
    page.wait_for_selector("#neighbors .tile")
    assert page.get_attribute(".query img", "src").startswith("blob:")
    check_answer(page)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_upload_by_drop_and_paste(page, image_bytes, kind):
    send_files(page, kind, ("image.png", image_bytes))
    page.wait_for_selector("#neighbors .tile")
    check_answer(page)


@pytest.mark.signed_in
def test_sample(page, archive):
    if not archive["demo"]:
        pytest.skip("not a demo archive")
    assert page.locator("#sample-list li").count() == len(archive["samples"])
    page.click("#sample-list li:first-child button")
    page.wait_for_selector("#neighbors .tile")
    check_answer(page)
    assert page.locator(f'{TILES}[data-id="{archive["samples"][0]["id"]}"]').count() == 0


@pytest.mark.signed_in
def test_dicom_is_drawn_by_the_server(page, tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(gradient_dicom(96, 64))
    watch_uploads(page)
    upload(page, path)
    assert page.evaluate("sent[0].preview") == "true"
    images_painted(page, ".query")
    assert page.get_attribute(".query img", "src").startswith("data:image/png;base64,")
    assert page.evaluate("document.querySelector('.query img').naturalWidth") == 96
    page.click(f"{TILES} .open")
    page.wait_for_selector("#compare[open]")
    images_painted(page, "#compare")
    assert page.locator(".stage:has(img)").count() == 2


@pytest.mark.signed_in
def test_another_frame_is_searched(page, tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(gradient_dicom(96, 64, frames=3))
    watch_uploads(page)
    upload(page, path)
    assert "frame 1 of 3" in page.inner_text(".query figcaption")
    assert "frame" not in page.evaluate("sent[0]")
    first = page.get_attribute(".query img", "src")
    page.get_by_label("Frame").fill("4")
    page.click("text=Search this frame")
    assert page.evaluate("sent.length") == 1, "there is no fourth"
    page.get_by_label("Frame").fill("2")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.query figcaption').innerText.includes('frame 2 of 3')")
    assert page.evaluate("sent[1].frame") == "2"
    assert page.get_attribute(".query img", "src") != first
    page.go_back()
    page.wait_for_function("() => document.querySelector('.query figcaption').innerText.includes('frame 1 of 3')")


def test_one_frame_is_no_choice(page, tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(gradient_dicom(96, 64))
    upload(page, path)
    assert "frame" not in page.inner_text(".query")
    assert page.locator(".frames").count() == 0


def test_dicom_without_a_drawing_shows_its_size(page, tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(gradient_dicom(96, 64))
    watch_uploads(page, "delete answer.query.preview")
    upload(page, path)
    assert "DICOM image" in page.inner_text(".query")
    assert "96 × 64 px" in page.inner_text(".query")


def test_no_drawing_is_asked_for_what_browsers_draw(page, image_path):
    watch_uploads(page)
    upload(page, image_path)
    assert (
        "exact" in page.evaluate("sent[0]")
        and "k" not in page.evaluate("sent[0]")
        and "preview" not in page.evaluate("sent[0]")
    )


def test_file_name_stays_in_the_browser(page, image_bytes):
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
    send_files(page, "drop", ("Doe^Jane.png", image_bytes))
    page.wait_for_selector("#neighbors .tile")
    assert not any(b"Doe" in body for body in sent)


def test_dissenting_cases_are_marked_and_filtered(page, case, archive):
    other = archive["classes"][-1]["name"]

    def let_the_last_dissent(answer):
        hits, suggestion = answer["neighbors"], answer["suggestion"]
        for hit in hits:
            hit["class"] = archive["classes"][0]["name"]
        hits[-1]["class"] = other
        suggestion["class"] = archive["classes"][0]["name"]
        suggestion["votes"] = {archive["classes"][0]["name"]: len(hits) - 1, other: 1}
        suggestion["weights"] = suggestion["votes"]
        suggestion["voters"] = [hit["id"] for hit in hits]
        suggestion["status"] = "suggested"

    change_answer(page, let_the_last_dissent)
    search_case(page, case)
    assert page.locator(f"{TILES}.dissents").count() == 1
    page.click("text=/Differ from the vote 1/")
    assert page.locator(TILES).count() == 1
    assert "Differs from the vote" in page.inner_text(TILES)


def let_vote(page, case, votes, method="majority", weights=None, reason=None, **query):
    """An answer whose neighbors voted so; the first class is the suggested one."""

    def count(answer):
        hits = answer["neighbors"] = answer["neighbors"][: sum(votes.values())]
        for hit, name in zip(hits, [name for name, count in votes.items() for _ in range(count)], strict=True):
            hit["class"] = name
        first = next(iter(votes))
        answer["query"].update(query)
        answer["suggestion"] = {
            **answer["suggestion"],
            "status": "suggested",
            "class": first,
            "method": method,
            "reason": reason or f"{votes[first]} of {len(hits)} labelled {first}",
            "votes": votes,
            "weights": weights or votes,
            "voters": [hit["id"] for hit in hits],
        }

    change_answer(page, count)
    search_case(page, case)
    return page.inner_text("#verdict-title").replace("\xa0", " ")


def test_clear_vote_is_said_as_counted(page, case, archive):
    a, b, *others = [each["name"] for each in archive["classes"]]
    assert let_vote(page, case, {a: 7, b: 3}) == f"7 of 10 labelled {a}"
    assert page.title().startswith(f"7 of 10 labelled {a}")
    assert page.locator(".dissents").count() == 3
    counts = {name: page.locator(".verdict .bars li", has_text=name).locator(".count").inner_text() for name in others}
    assert all(text.startswith("0") for text in counts.values()), "no vote is told too"
    assert page.locator(".verdict .bars li").count() == len(archive["classes"])
    assert archive["name"] in page.inner_text(".footnote")


@pytest.mark.parametrize(
    "counts, reason, start, reason_has",
    [
        ([4, 4, 2], "4 of 10 labelled A, a tie with B: those of A are more similar", "No majority: 4 ", "more similar"),
        ([4, 4, 2], "4 of 10 labelled A, a tie with B: the nearest is A", "No majority: 4 ", "nearest case"),
        ([5, 3, 2], None, "No majority: 5 ", "largest share only"),
        ([6, 4], None, "Narrow: 6 ", "One case with another label"),
    ],
)
def test_unclear_vote_does_not_look_clear(page, case, archive, counts, reason, start, reason_has):
    names = [each["name"] for each in archive["classes"]]
    if len(names) < len(counts):
        pytest.skip("the archive has too few classes")
    size = "parseFloat(getComputedStyle(document.getElementById('verdict-title')).fontSize)"
    title = let_vote(page, case, dict(zip(names, counts, strict=False)), reason=reason)
    assert title.startswith(start) and all(f"{n} {name}" in title for n, name in zip(counts, names, strict=False))
    assert page.title().replace("\xa0", " ").startswith(title)
    assert page.evaluate(size) < 22
    assert f"{names[0]}" in page.inner_text(".verdict .reason") and reason_has in page.inner_text(".verdict .reason")
    if start.startswith("No majority"):
        assert page.locator(".dissents, .verdict .suggested").count() == 0


def test_weight_is_shown_beside_the_votes(page, case, archive):
    a, b = [each["name"] for each in archive["classes"]][:2]
    title = let_vote(page, case, {a: 5, b: 3}, method="prior", weights={a: 5.5, b: 5.0})
    assert title == f"Narrow by weight: 5 {a}, 3 {b}"
    assert page.locator(".verdict .bars .count").all_inner_texts()[:2] == ["5 votes, 52 %", "3 votes, 48 %"]
    assert "52 % of the weight" in page.inner_text(".verdict .reason")


def test_words_beyond_the_count_stand_below_it(page, case, archive):
    a, b = [each["name"] for each in archive["classes"]][:2]
    reason = f"8 of 10 labelled {a}, the most weight by rarity"
    title = let_vote(page, case, {a: 8, b: 2}, method="prior", weights={a: 9.0, b: 1.0}, reason=reason)
    assert title == f"8 of 10 labelled {a}"
    assert page.inner_text(".verdict .reason") == "The most weight by rarity"


def test_what_was_not_searched_is_said_beside_the_vote(page, case, archive):
    a, b = [each["name"] for each in archive["classes"]][:2]
    title = let_vote(page, case, {a: 8, b: 2}, classes=[a, b], exclude_source=["Ward 7"])
    assert title == f"8 of 10 labelled {a}"
    said = page.inner_text(".verdict")
    assert f"Only {a}, {b} were searched: the vote says nothing about other classes." in said
    assert "Cases from Ward 7 were left out." in said
    assert page.locator(".verdict .bars li").count() == 2, "a class that was not searched has no count"


def test_warnings_stand_beside_the_vote(page, case):
    message = "All 10 neighbors come from one source, Ward 7, of 3 in the archive."
    change_answer(page, lambda answer: answer.update({"warnings": [{"type": "one-source", "message": message}]}))
    search_case(page, case)
    assert message in page.inner_text(".verdict")


def test_one_class_alone_is_no_vote(page, case, archive):
    a = archive["classes"][0]["name"]
    assert let_vote(page, case, {a: 10}, classes=[a]) == f"Only {a} was searched: no vote"
    assert page.locator(".verdict .suggested").count() == 0


@pytest.mark.parametrize(
    "status, words", [("inconclusive", "No clear answer"), ("out_of_distribution", "Unlike the images in this archive")]
)
def test_no_suggestion_in_plain_words(page, case, status, words):
    change_answer(page, lambda answer: answer["suggestion"].update({"status": status, "class": None}))
    search_case(page, case)
    assert page.inner_text("#verdict-title") == words
    assert page.locator(".dissents").count() == 0


def test_what_is_missing_is_said(page, case):
    def spoil(answer):
        answer["coverage"] = {"shards": 4, "answered": 3, "missing": [2]}
        first, second, *_ = answer["neighbors"]
        first.update({"label_conflict": True, "thumbnail": None})
        second.update({"class": None, "label_source": None})
        answer["suggestion"]["voters"] = []

    change_answer(page, spoil)
    search_case(page, case)
    assert "3 of 4 parts" in page.inner_text(".verdict")
    assert "Label conflict" in page.inner_text(TILES)
    assert "Image not kept" in page.inner_text(TILES)
    assert "No label" in page.locator(TILES).nth(1).inner_text()


@pytest.mark.signed_in
def test_options(page, case, archive):
    search_case(page, case)
    only = archive["classes"][0]["name"]
    page.click("#options summary")
    page.fill("[name=k]", "3")
    for box in page.locator("[name=classes]").all():
        box.set_checked(box.get_attribute("value") == only)
    page.uncheck("[name=exclude][value=study]")
    page.check("[name=exact]")
    with page.expect_request("**/v1/search/by-id") as sent:
        page.click("#apply")
    page.wait_for_function(f"() => document.querySelectorAll('{TILES}').length === 3")
    body = sent.value.post_data_json
    assert (body["k"], body["exact"], body["classes"], body["exclude"]) == (3, True, [only], ["patient", "pixels"])
    assert {tile.get_attribute("data-class") for tile in page.locator(TILES).all()} == {only}


def test_how_to_ask_is_left_to_the_archive(page, case):
    """Asked otherwise than it is calibrated for, an answer has no confidence: only what the reader changes is said."""
    worth = {"id": "ab" * 16, "readable": True, "k": 4, "vote": "prior", "classes": [], "fitted_on": 1}
    worth["fitted_at"] = "2026-11-29T19:00:00Z"
    page.route("**/v1/archive", lambda route: route.fulfill(json={**fetched(route).json(), "calibration": worth}))
    page.reload()
    page.wait_for_selector("#archive-line span", state="attached")

    def shown():
        return page.input_value("[name=k]"), page.input_value("[name=vote]")

    assert shown() == ("4", "prior")

    def sent(act):
        with page.expect_request("**/v1/search/by-id") as request, page.expect_response("**/v1/search/by-id"):
            act()
        return {name: value for name, value in request.value.post_data_json.items() if name in ("k", "vote")}

    assert sent(lambda: search_case(page, case)) == {}
    # The server knows better: it was fitted again, or no more.
    assert shown() == ("10", "majority")
    page.click("#options summary")
    page.fill("[name=k]", "3")
    assert sent(lambda: page.click("#apply")) == {"k": 3}
    page.wait_for_function(f"() => document.querySelectorAll('{TILES}').length === 3")
    page.fill("[name=k]", "10")
    page.select_option("[name=vote]", "distance")
    assert sent(lambda: page.click("#apply")) == {"vote": "distance"}


def test_upload_progress_and_cancel(page, tmp_path, image_bytes):
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000}
    network.send("Network.emulateNetworkConditions", slow)
    path = tmp_path / "long.png"
    path.write_bytes(image_bytes + bytes(3_000_000))
    page.set_input_files("#file", path)
    page.wait_for_function("() => /Uploading, [1-9]/.test(document.getElementById('progress-text').textContent)")
    page.click("#cancel")
    page.wait_for_selector("#progress", state="hidden")
    assert page.inner_text("#live") == "Search cancelled."
    assert page.locator("#start").is_visible()


@pytest.mark.may_fail
def test_key_is_asked_for_and_sent_with_images(page, case):
    def guard(route):
        key = route.request.headers.get("x-api-key")
        if key == "secret":
            route.continue_()
        elif key == "metrics":
            problem = {"type": "/problems/insufficient-scope", "status": 403}
            route.fulfill(status=403, content_type="application/problem+json", json=problem)
        else:
            problem = {"type": "/problems/unauthorized", "status": 401}
            route.fulfill(status=401, content_type="application/problem+json", json=problem)

    page.route("**/v1/**", guard)
    page.reload()
    page.wait_for_selector("#key[open]")
    assert page.locator("#options").is_hidden(), "nothing to set before the archive is known"
    assert page.inner_text("#key-refused") == ""
    page.fill("#key-input", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('key-refused').textContent.includes('did not accept')")
    page.fill("#key-input", "metrics")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('key-refused').textContent.includes('does not permit')")
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#archive-line span")
    search_case(page, case)
    images_painted(page, "#answer")
    assert page.locator(f"{TILES} img").first.get_attribute("src").startswith("blob:")


@pytest.mark.signed_in
def test_archive_facts(page, archive):
    page.click("#about-open")
    text = page.inner_text("#about")
    assert all(each["name"] in text for each in archive["classes"])
    assert archive["licence"] is None or archive["licence"] in text
    scope = [value for values in archive["scope"].values() for value in values]
    assert ("Scope" in text) == bool(scope) and all(value in text for value in scope)
    page.keyboard.press("Escape")
    assert page.locator("#synthetic").is_visible() == archive["synthetic"]


def test_scope_names_only_what_is_there(page):
    def narrow(route):
        response = fetched(route)
        scope = {"body_part": [], "modality": ["CR", "DX"], "sop_classes": [], "view": ["PA"]}
        route.fulfill(response=response, json={**response.json(), "scope": scope})

    page.route("**/v1/archive", narrow)
    page.reload()
    page.wait_for_selector("#archive-line span", state="attached")
    page.click("#about-open")
    assert "modality: CR, DX; view: PA" in page.inner_text("#about")
    assert "body" not in page.inner_text("#about")


def test_what_similar_means_is_said(page, case):
    """The network's own features, or what was learned from labels: with the answer, and about the archive."""
    search_case(page, case)
    page.click("details.explain summary")
    assert "the network's own features" in page.inner_text("details.explain")
    page.click("#about-open")
    assert "Similar by" not in page.inner_text("#about")
    page.keyboard.press("Escape")

    metric = {
        "id": "fe" * 16, "method": "within-class whitening", "components": 64, "shrinkage": 0.8, "groups": 1200,
        "fitted_at": "2026-11-23T19:00:00Z", "fitted_on": 7,
        "images": [{"name": "A", "images": 1000}, {"name": "B", "images": 251}],
        "held_out": {"without": 0.8761, "with": 0.9189, "parts": 4},
    }  # fmt: skip
    page.route("**/v1/archive", lambda route: route.fulfill(json={**fetched(route).json(), "metric": metric}))
    page.reload()
    page.wait_for_selector("#archive-line span", state="attached")
    page.click("#about-open")
    text = page.inner_text("#about")
    assert "a metric learned from 1,251 images of 1,200 groups (version 7)" in text
    assert "91.9 % of those left out" in text and "87.6 % without it" in text
    page.keyboard.press("Escape")
    change_answer(page, lambda answer: answer.update(metric=metric["id"]))
    search_case(page, case)
    page.click("details.explain summary")
    text = page.inner_text("details.explain")
    assert "learned from its labels" in text and metric["id"] in text


def test_what_a_vote_is_worth_is_said_in_words(page, case):
    """Confidence and sets of a valid calibration; and why a suggestion was taken back."""
    search_case(page, case)
    assert "No confidence is given" in page.inner_text("#answer")
    sets = [
        {"level": 0.9, "classes": ["A", "B"], "not_available": []},
        {"level": 0.95, "classes": ["A"], "not_available": ["B"]},
    ]
    valid = {"id": "c" * 32, "valid": True, "why_not": None}
    worth = {"confidence": 0.8731, "prediction_set": ["A", "B"], "prediction_sets": sets, "calibration": valid}
    change_answer(page, lambda answer: answer["suggestion"].update(worth))
    search_case(page, case)
    said = page.inner_text(".verdict")
    assert "Of 100 answers like this about 87 are right, where the classes are as frequent as in this archive." in said
    assert "Not ruled out at 90 %: A, B." in said
    assert "Calibrated on known cases" in page.inner_text("#answer")
    page.click("details.explain summary")
    assert "A; not available for B: too few cases" in page.inner_text("details.explain")

    unlike = {
        "status": "out_of_distribution", "class": None, "confidence": None,
        "prediction_set": None, "prediction_sets": [],
        "reason": "unlike this archive: the nearest 10 images are less similar than for 39 of 40 of its own images",
    }  # fmt: skip
    change_answer(page, lambda answer: answer["suggestion"].update({**worth, **unlike}))
    search_case(page, case)
    said = page.inner_text(".verdict")
    assert "Unlike the images in this archive" in said and "are right" not in said and "Not ruled out" not in said


@pytest.mark.signed_in
def test_more_and_less_like_a_case(page, case):
    """A case becomes an example with one click, is listed, and can be taken back; Back gives the answer before."""
    search_case(page, case)
    first = page.locator(TILES).first.get_attribute("data-id")
    with page.expect_response("**/v1/search/by-id") as moved:
        page.locator(TILES).first.get_by_text("More like this").click()
    assert moved.value.request.post_data_json["liked"] == [first]
    page.wait_for_selector(".refined")
    assert page.locator(f"{TILES}[data-id='{first}']").count() == 0
    second = page.locator(TILES).first.get_attribute("data-id")
    with page.expect_response("**/v1/search/by-id") as moved:
        page.locator(TILES).first.get_by_text("Less like this").click()
    sent = moved.value.request.post_data_json
    assert (sent["liked"], sent["disliked"]) == ([first], [second])
    page.wait_for_function("() => document.querySelectorAll('.example-list li').length === 2")
    with page.expect_response("**/v1/search/by-id") as moved:
        page.locator(".refined").get_by_text("Take back").first.click()
    assert (moved.value.request.post_data_json["liked"], moved.value.request.post_data_json["disliked"]) == (
        [],
        [second],
    )
    page.wait_for_function("() => document.querySelectorAll('.example-list li').length === 1")
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('.example-list li').length === 2")
    with page.expect_response("**/v1/search/by-id") as moved:
        page.get_by_text("Search without examples").click()
    assert moved.value.request.post_data_json["liked"] == []
    page.wait_for_selector(".refined", state="detached")


def test_nearly_identical_cases_are_called_so(page, case):
    change_answer(page, lambda answer: answer["neighbors"][0].update(similarity=0.9951))
    search_case(page, case)
    assert "Nearly identical" in page.inner_text(TILES)
    assert page.get_by_text("Nearly identical").count() == 1


@pytest.mark.signed_in
def test_copies_of_a_picture_are_named_and_shown(page, case):
    copies = []

    def join(answer):
        first, *rest = answer["neighbors"]
        copies[:] = [hit["id"] for hit in rest[:2]]
        first["near_identical"] = len(copies)

    change_answer(page, join)

    def details(route):
        response = fetched(route)
        image = response.json()
        route.fulfill(response=response, json={**image, "near_identical": copies})

    page.route(re.compile(r"/v1/images/[0-9a-f]{36}$"), details)
    search_case(page, case)
    button = page.locator(".more")
    assert button.all_inner_texts() == ["+2 near-identical"]
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    page.wait_for_selector(".copies img")
    assert [item.get_attribute("data-id") for item in page.locator(".copies li").all()] == copies
    assert button.get_attribute("aria-expanded") == "true"
    button.click()
    assert page.locator(".copies").is_hidden()
    page.click(".explain summary")
    assert "shown and counted once" in page.inner_text(".explain")


@pytest.mark.parametrize(
    "age, words", [("063", "63 years"), ("1", "1 year"), ("0", "under 1 year"), ("60-69", "60-69")]
)
def test_age_in_plain_years(page, case, age, words):
    change_answer(page, lambda answer: answer["neighbors"][0]["record"].update(age=age))
    search_case(page, case)
    page.click(f"{TILES} .open")
    assert words in page.inner_text("#compare .pane:last-child .fine").split(" · ")


def test_print_is_light_and_says_what_it_is(open_page, case):
    page = open_page(color_scheme="dark")
    search_case(page, case)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.getElementById('verdict-title')).color") == "rgb(20, 25, 29)"
    for seen in (".strip", "#archive-line", ".query img", "#verdict-title", TILES):
        assert page.locator(seen).first.is_visible(), seen
    for gone in ("#new-query", "#theme", "#options", ".chip[aria-pressed='false']"):
        assert page.locator(gone).first.is_hidden(), gone


def test_theme_is_remembered(open_page):
    page = open_page(color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    page.click("#theme")
    page.reload()
    assert page.evaluate(theme) == "dark"


def layer_box(page):
    page.locator(".region-layer").scroll_into_view_if_needed()
    box = page.locator(".region-layer").bounding_box()
    return box["x"], box["y"], box["width"], box["height"]


def sent_region(page, number):
    page.wait_for_function("number => sent.length > number", arg=number)
    page.wait_for_selector(".progress", state="hidden")
    return [float(part) for part in page.evaluate("number => sent[number].region", number).split(",")]


def test_a_part_of_the_image_is_drawn_and_searched(page, image_path):
    watch_uploads(page)
    upload(page, image_path)
    assert "region" not in page.evaluate("sent[0]")
    images_painted(page, ".query")
    page.click("text=Search a part of the image")
    x, y, width, height = layer_box(page)
    page.mouse.move(x + 0.2 * width, y + 0.3 * height)
    page.mouse.down()
    page.mouse.move(x + 0.5 * width, y + 0.5 * height, steps=3)
    page.mouse.move(x + 0.6 * width, y + 0.8 * height)
    page.mouse.up()
    drawn = page.locator(".region-box").bounding_box()
    assert abs(drawn["x"] - (x + 0.2 * width)) < 3 and abs(drawn["width"] - 0.4 * width) < 3
    page.click("text=Search this part")
    assert sent_region(page, 1) == pytest.approx([0.2, 0.3, 0.4, 0.5], abs=0.02)
    # It is still seen, and an example keeps it.
    assert page.locator(".region-box").is_visible()
    assert "only a part was searched" in page.inner_text(".query figcaption")
    page.click(f"{TILES} .example")
    assert sent_region(page, 2) == sent_region(page, 1)
    page.click("text=Search the whole image")
    page.wait_for_function("() => sent.length > 3")
    page.wait_for_selector(".region-box", state="hidden")
    assert "region" not in page.evaluate("sent[3]") and "liked" in page.evaluate("sent[3]")
    page.go_back()
    page.wait_for_selector(".region-box")


@pytest.mark.signed_in
def test_heat_maps_are_of_the_part_that_was_searched(page, image_path):
    """Moved by an example, the legend says what the maps leave out."""
    watch_uploads(page)
    upload(page, image_path)
    images_painted(page, ".query")
    page.click("text=Search a part of the image")
    x, y, width, height = layer_box(page)
    page.mouse.move(x + 0.1 * width, y + 0.1 * height)
    page.mouse.down()
    page.mouse.move(x + 0.7 * width, y + 0.7 * height, steps=3)
    page.mouse.up()
    page.click("text=Search this part")
    searched = sent_region(page, 1)

    def legend():
        page.locator(f"{TILES} .open").first.click()
        page.wait_for_selector("#compare[open]")
        page.get_by_role("button", name="Where do they look alike?").click()
        return page.wait_for_selector(".heat-legend").inner_text()

    assert "Of the image itself" not in legend()
    assert sent_region(page, 2) == searched
    page.keyboard.press("Escape")
    page.wait_for_selector("#compare", state="hidden")
    page.click(f"{TILES} .example")
    assert sent_region(page, 3) == searched
    page.wait_for_selector(".refined")
    assert "Of the image itself" in legend()


def test_a_part_is_chosen_by_keys_and_numbers(page, image_path):
    watch_uploads(page)
    upload(page, image_path)
    page.focus("text=Search a part of the image")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    assert sent_region(page, 1) == pytest.approx([0.27, 0.25, 0.5, 0.52])
    page.click("text=Another part")
    for name, value in (("Left", "90"), ("Top", "10"), ("Width", "20"), ("Height", "30")):
        page.get_by_label(f"{name}, percent of the image").fill(value)
    page.click("text=Search this part")
    # What would lie beside the image is moved into it.
    assert sent_region(page, 2) == pytest.approx([0.8, 0.1, 0.2, 0.3])
    page.click("text=Another part")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert page.evaluate("sent.length") == 3
    assert page.evaluate("document.activeElement.textContent") == "Another part"


def test_a_part_is_drawn_with_a_finger(open_page, image_path):
    page = open_page(390, 844, has_touch=True, is_mobile=True)
    watch_uploads(page)
    upload(page, image_path)
    images_painted(page, ".query")
    page.tap("text=Search a part of the image")
    x, y, width, height = layer_box(page)
    touch = page.context.new_cdp_session(page)

    def send(kind, *at):
        points = [{"x": x + at[0] * width, "y": y + at[1] * height}] if at else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", 0.1, 0.1)
    for step in range(1, 6):
        send("touchMove", 0.1 + 0.1 * step, 0.1 + 0.1 * step)
    send("touchEnd")
    values = [float(field.input_value()) for field in page.locator(".region-fields input").all()]
    assert values == pytest.approx([10, 10, 50, 50], abs=3)


def test_a_case_of_the_archive_is_searched_whole(page, case):
    search_case(page, case)
    assert page.locator(".region").count() == 0
