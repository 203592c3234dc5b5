"""The runner of the README's examples: what it picks, what counts as failed, what stays from block to block."""

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import run_readme

TEXT = """
```sh
never run
```

```sh run
export GREETING=hello
echo set
```

```python run
import os
print(os.environ["IMAGE"])
```

```sh run
echo "$GREETING again"
```
"""


def test_only_marked_blocks_are_run_and_their_lines_are_known():
    found = run_readme.examples(TEXT)
    assert [(example.line, example.language) for example in found] == [(6, "sh"), (11, "python"), (16, "sh")]


def test_other_marks_are_run_where_they_are_asked_for():
    text = TEXT + "\n```sh run-with-pacs\necho there\n```\n"
    assert [example.line for example in run_readme.examples(text, ["run-with-pacs"])] == [20]
    assert len(run_readme.examples(text, ["run", "run-with-pacs"])) == 4


def test_a_server_that_asks_nobody_for_a_key_is_no_trial_of_one():
    class Anybody(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self):
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Anybody) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert not run_readme.asks_for_a_key(url)
        Anybody.status = 401
        assert run_readme.asks_for_a_key(url)
        server.shutdown()


def test_what_a_shell_block_exports_stays(tmp_path: Path):
    state = tmp_path / "exported"
    state.touch()
    environment = os.environ | {"IMAGE": "x.png"}
    outputs = [run_readme.run(example, environment, state) for example in run_readme.examples(TEXT)]
    assert outputs == [(True, "set\n"), (True, "x.png\n"), (True, "hello again\n")]


@pytest.mark.parametrize(
    "code",
    ["false\necho after", "echo x; exit 3", "true", "false | cat", "echo $UNSET_NAME"],
)
def test_failures_and_silence_are_failures(tmp_path: Path, code: str):
    state = tmp_path / "exported"
    state.touch()
    well, _ = run_readme.run(run_readme.Example(1, "sh", code), dict(os.environ), state)
    assert not well


def test_an_unknown_language_is_refused():
    with pytest.raises(SystemExit, match="line 1"):
        run_readme.examples("```rust run\nfn main() {}\n```\n")


def test_the_projects_readme_has_an_example_for_each_main_endpoint():
    text = (Path(run_readme.ROOT) / "README.md").read_text(encoding="utf-8")
    code = "".join(example.code for example in run_readme.examples(text))
    for path in ("search", "search/by-id", "search/by-vector", "embeddings", "images", "patients/delete", "archive"):
        assert f"/v1/{path}" in code, path
