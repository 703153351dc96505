"""The app behind a reverse proxy that gives it a path of its own, and a server that goes away."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rank_page import press, wait_until_seen
from served_app import served
from waited import expect

from ui.builds import Built

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@contextmanager
def proxy(port: int, prefix: str, *, strips: bool) -> Iterator[str]:
    """A reverse proxy that serves the app below `prefix` and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            path = self.path.removeprefix(prefix) if strips else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            behind = http.client.HTTPConnection("127.0.0.1", port)
            behind.request(self.command, path, body or None, dict(self.headers.items()))
            answer = behind.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while piece := answer.read1(65536):
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass  # the browser has closed an event stream
            finally:
                behind.close()

        do_GET = do_POST = forward  # noqa: N815  # the names that the library calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{prefix}"
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize("strips", [True, False])
def test_behind_a_proxy_with_a_path_every_page_works(
    page, settings, store, add_items, strips, monkeypatch
):
    def exported(runs, checkpoint, layout, into):
        (into / "made.zip").write_bytes(b"zip")
        return Built(into / "made.zip", "made.zip", "a LoRA")

    monkeypatch.setattr("ui.api.studio.zipped_export", exported)
    add_items(1)
    finished = {"state": "finished", "pid": 1, "step": 1, "total": 1}
    run = settings.runs / "моя 1"
    (run / "samples").mkdir(parents=True)
    (run / "step-000001").mkdir()
    (run / "step-000001" / "pytorch_lora_weights.safetensors").touch()
    (run / "status.json").write_text(json.dumps(finished))
    (run / "metrics.jsonl").write_text('{"step": 1, "reward_mean": 0.5}\n')
    image = next(store.images.root.glob("*/*.png"))
    shutil.copy(image, run / "samples" / "step-000001.png")
    settings = replace(settings, root_path="/tools/studio")
    missing: list[str] = []
    page.on("response", lambda r: missing.append(r.url) if r.status >= 400 else None)
    with served(settings, store), proxy(settings.port, "/tools/studio", strips=strips) as address:
        page.goto(f"{address}/")
        page.get_by_label("Your name or initials").fill("Ada")
        page.keyboard.press("Enter")
        page.locator(".rk[data-state=ranking]").wait_for()
        shown = "i => i.decode().then(() => i.naturalWidth)"
        assert page.locator(".rk-tile img").first.evaluate(shown) == 64
        press(page, "b Enter")
        page.locator(".rk[data-state=empty]").wait_for()

        page.get_by_role("link", name="Train", exact=True).click()
        page.locator(".mo-run[data-state=finished]").wait_for()
        expect(page.locator(".mo-run h3")).to_have_text("моя 1")
        page.locator(".mo-samples img").wait_for()
        assert page.locator(".mo-samples img").evaluate(shown) == 64
        with page.expect_download() as taking:
            page.locator(".mo-home").get_by_role("button", name="peft").click()
        assert taking.value.suggested_filename == "made.zip"
        assert taking.value.path().read_bytes() == b"zip"

        page.get_by_role("link", name="Generate", exact=True).click()
        page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
        page.get_by_label("Prompts").fill("  ")
        page.get_by_role("button", name="Generate", exact=True).click()
        page.get_by_text("write at least one, or pick an example").wait_for()
        page.get_by_role("link", name="Rank", exact=True).evaluate(
            "link => link.click()"
        )  # below the message
        page.locator(".rk[data-state=empty]").wait_for()
        page.goto("about:blank")
    # Gradio names this one with a path from the root, whatever the page's.
    assert [url for url in missing if not url.endswith("/manifest.json")] == []
    assert len(list(store.rankings())) == 1


def test_pages_of_an_earlier_server_say_so_and_offer_to_reload(page, process):
    process.start()
    process.wait_until_ready()
    tabs = {"#recipe input:checked": page, "#checkpoint input": page.context.new_page()}
    for tab, name in zip(tabs.values(), ("train", "generate"), strict=True):
        tab.set_default_timeout(60_000)
        tab.goto(f"{process.address}/{name}")
        tab.get_by_role("link", name="Rank").wait_for()
    process.end()
    for tab in tabs.values():
        tab.locator("#alive").get_by_text("does not respond").wait_for()
        assert not tab.locator("#alive").get_by_role("button").is_visible()
    process.start()
    process.wait_until_ready()
    for tab in tabs.values():
        tab.locator("#alive").get_by_text("restarted").wait_for()
        tab.locator("#alive").get_by_role("button", name="Reload").click()
        tab.get_by_role("link", name="Rank").wait_for()
    page.wait_for_timeout(4000)
    for control, tab in tabs.items():
        assert tab.locator("#alive").count() == 0
        tab.wait_for_function(f"() => document.querySelector('{control}')?.value")


def test_a_seed_that_no_generator_takes_is_said_on_the_page(page, address):
    page.goto(f"{address}/generate")
    page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
    page.get_by_label("First seed").fill(str(2**64))
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("first seed: expected a whole number").wait_for()
    page.get_by_label("First seed").fill("")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("first seed: fill in a number").wait_for()


def test_an_image_that_cannot_be_read_is_shown_as_such_and_can_be_skipped(
    page, address, store, add_items
):
    add_items(2)
    first, second = sorted(store.images.root.glob("*/*.png"))[:2]
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.keyboard.press("Enter")
    broken = 0
    for _ in range(2):
        page.locator(".rk[data-state=ranking]").wait_for()
        wait_until_seen(page)
        broken += page.locator(".rk-tile .rk-broken").count()
        before = page.locator(".rk-prompt").text_content()
        press(page, "Space Space s 1 Enter")
        page.wait_for_function(
            "(before) => document.querySelector('.rk').dataset.state === 'empty'"
            " || document.querySelector('.rk-prompt').textContent !== before",
            arg=before,
        )
    assert broken == 2
    assert [ranking.reason for ranking in store.rankings()] == ["broken image"] * 2
