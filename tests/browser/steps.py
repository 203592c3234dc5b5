"""What a person does on the page, for the tests."""

import base64
import json

TILES = "#neighbors .tile:not([hidden])"


def upload(page, path):
    page.set_input_files("#file", path)
    page.wait_for_selector("#neighbors .tile")


def search_case(page, case):
    """Searches from a case of the archive, as a reload of such an answer does."""
    page.evaluate("id => history.replaceState({ answer: 'lost', from: id }, '')", case)
    page.reload()
    page.wait_for_selector("#neighbors .tile")


def send_files(page, kind, *files):
    """Drops or pastes `(name, bytes)` files as a desktop would."""
    page.evaluate(
        """([kind, files]) => {
            const transfer = new DataTransfer();
            for (const [name, base64] of files) {
                transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
            }
            const init = { bubbles: true, cancelable: true };
            if (kind === "paste") {
                document.body.dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: transfer }));
            } else {
                document.body.dispatchEvent(new DragEvent("dragover", { ...init, dataTransfer: transfer }));
                document.body.dispatchEvent(new DragEvent("drop", { ...init, dataTransfer: transfer }));
            }
        }""",
        [kind, [[name, base64.b64encode(content).decode()] for name, content in files]],
    )


def fetched(route):
    """The server's answer to a request that a test holds back; Playwright leaves out that it comes from the page."""
    return route.fetch(headers={**route.request.headers, "sec-fetch-site": "same-origin"})


def change_answer(page, change):
    """Lets `change(answer)` edit the answers to searches by id before the page sees them."""

    def handle(route):
        response = fetched(route)
        answer = response.json()
        change(answer)
        route.fulfill(response=response, json=answer)

    page.route("**/v1/search/by-id", handle)


def watch_uploads(page, change=""):
    """Keeps the fields of uploads in `sent`, and lets the script `change` edit each `answer` before the page sees it.

    In the page, since Chromium hides the bodies of uploaded files from routes.
    """
    page.evaluate(
        """change => {
            window.sent = [];
            const edit = new Function("answer", change);
            const { prototype } = XMLHttpRequest;
            const { send } = prototype;
            const { get } = Object.getOwnPropertyDescriptor(prototype, "responseText");
            prototype.send = function (body) {
                this.uploads = body instanceof FormData;
                const texts = this.uploads && [...body].filter(([, value]) => typeof value === "string");
                if (texts) sent.push(Object.fromEntries(texts));
                send.call(this, body);
            };
            Object.defineProperty(prototype, "responseText", { get() {
                const text = get.call(this);
                if (!this.uploads || this.status !== 200) return text;
                const answer = JSON.parse(text);
                edit(answer);
                return JSON.stringify(answer);
            } });
        }""",
        change,
    )


def refuse(page, slug, status=400, pattern="**/v1/search*", detail="made by a test", **headers):
    """Answers with a problem instead of asking the server."""
    body = {
        "type": f"/problems/{slug}",
        "title": slug,
        "status": status,
        "detail": detail,
        "request_id": "r-1",
    }
    page.route(
        pattern,
        lambda route: route.fulfill(
            status=status, headers={"content-type": "application/problem+json", **headers}, body=json.dumps(body)
        ),
    )


def images_painted(page, selector):
    """Waits until every image under a selector has pixels."""
    page.wait_for_function(
        "s => [...document.querySelectorAll(s)].every((i) => i.complete && i.naturalWidth > 0)", arg=f"{selector} img"
    )
