"""The browser for the API works under a policy without exceptions, and the policies are in force."""

import pytest


@pytest.fixture
def bare(new_context):
    """A page whose breaches of the policy are kept: swagger-ui says other things on the console too."""
    page = new_context().new_page()
    page.breaches = []
    page.on("console", lambda said: "Content Security Policy" in said.text and page.breaches.append(said.text))
    return page


@pytest.mark.signed_in
def test_operations_can_be_looked_at_and_tried(bare, url):
    bare.goto(url + "/docs/")
    operation = bare.locator(".opblock-get").filter(has_text="/v1/classes").first
    operation.locator(".opblock-summary").click()
    operation.locator(".execute").click()
    operation.locator(".live-responses-table .response-col_status").filter(has_text="200").wait_for()
    posted = bare.locator(".opblock-post").first
    posted.locator(".opblock-summary").click()
    posted.locator(".opblock-body").wait_for()
    assert not bare.breaches


def test_the_policy_holds(bare, url):
    """A script and a style in the page's text do nothing."""
    bare.goto(url + "/")
    outcome = bare.evaluate(
        """() => {
            const style = document.createElement("p");
            style.setAttribute("style", "position: fixed");
            document.body.append(style);
            const outcome = [getComputedStyle(style).position];
            try {
                document.body.innerHTML = "<p>";
                outcome.push("taken");
            } catch (error) {
                outcome.push(error.name);
            }
            return outcome;
        }"""
    )
    assert outcome == ["static", "TypeError"]
    assert bare.breaches
