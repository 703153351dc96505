import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from databases import make_tables
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from served_app import served

from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store
from ui.app import Settings

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
NO_FEATURES = (
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup"),
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades"),
    *("HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding"),
    *("ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect"),
    *("OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch"),
)
"""Of Chromium: what an address bar shows, for which each new window would build pages that take as
much time as a page of the app. The others are those that playwright names: the last list counts."""
ROOT = Path(__file__).parents[2]
SECRETS = ("SECRET-MODEL", "SECRET-RUN", "SECRET-HASH", "SECRET-SCHEDULER", "SECRET-NEGATIVE")
SECRET_SEED = 918273645


def draw_png(number: int, *, size: int = 64, **text: Any) -> bytes:
    """A house whose place and colour say which number it is; keyword arguments become chunks."""
    image = Image.new("RGB", (size, size), (205, 228, 245))
    draw = ImageDraw.Draw(image)
    hue = (37 * number) % 256
    x = 6 + (number * 11) % (size // 2)
    draw.rectangle((0, size * 3 // 4, size, size), fill=(120, 170, 110))
    draw.rectangle((x, size // 3, x + size // 3, size * 3 // 4), fill=(hue, 120, 255 - hue))
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def secret_provenance(number: int, prompt: str = "a house") -> Provenance:
    return Provenance(
        model="SECRET-MODEL",
        adapter="runs/SECRET-RUN",
        adapter_hash="SECRET-HASH",
        prompt=prompt,
        negative_prompt="SECRET-NEGATIVE",
        seed=SECRET_SEED + number,
        steps=10,
        guidance_scale=1.0,
        scheduler="SECRET-SCHEDULER",
        eta=0.0,
        width=64,
        height=64,
    )


@pytest.fixture(autouse=True)
def served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio makes an application at the end of each page of the app, and another one where it is
    mounted, which alone is served: only that one is made here, in half of the time. Apps in
    processes of their own, and of `imgalign ui`, are as gradio makes them.
    """
    none = SimpleNamespace(create_app=lambda *args, **kwargs: None)
    monkeypatch.setattr("gradio.blocks.App", none)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'imgalign.db'}"


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    make_tables(url)
    with Store.open(url, images=tmp_path / "images") as store:
        yield store


@pytest.fixture
def add_items(store: Store) -> Callable[..., list[str]]:
    """Queue items with prompts "a house, number 0", "... 1", unless they are given; `text` becomes
    PNG text chunks.
    """

    def add(
        count: int,
        *,
        num_images: int = 4,
        overlap: int = 3,
        project: str = "default",
        size: int = 64,
        prompts: Sequence[str] = (),
        **text: Any,
    ) -> list[str]:
        item_ids = []
        for index in range(count):
            prompt = prompts[index] if prompts else f"a house, number {index}"
            image_ids = [
                store.add_image(
                    draw_png(index * num_images + k, size=size, **text),
                    secret_provenance(k, prompt),
                )
                for k in range(num_images)
            ]
            item_ids.append(
                store.add_item(
                    prompt, image_ids, source="SECRET-RUN", project=project, overlap=overlap
                )
            )
        return item_ids

    return add


@pytest.fixture
def secrets(tmp_path: Path) -> tuple[str, ...]:
    """What must never reach an annotator's browser."""
    return (*SECRETS, str(SECRET_SEED)[:7], str(tmp_path), "imgalign.db")


@pytest.fixture
def model(tmp_path: Path, tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose image model is the tiny one; before the app is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_pipeline_folder)
    return tmp_path / "model"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """An app on this test's folder, at a free port, with the PAGES of its module or else all."""
    model = tmp_path / "model"
    return Settings(
        port=free_port(),
        images=tmp_path / "images",
        runs=tmp_path / "runs",
        model=str(model) if model.exists() else "storybook",
        pages=getattr(request.module, "PAGES", None),
    )


@pytest.fixture
def address(store: Store, settings: Settings) -> Iterator[str]:
    """The app on this test's store, served from a thread."""
    with served(settings, store) as address:
        yield address


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which processes of the app find the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


class AppProcess:
    """The app in a process of its own, to be killed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._options = ["--port", str(self.port), "--database", url, "--create"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "imgalign", "ui", *self._options],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                # Tests that run as a background job hand on a Ctrl-C that is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.address}/config", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self._process is not None
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.2)
        raise AssertionError(f"the server did not start: {self._log.read_text()}")

    @property
    def id(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Signal the process and wait for it; its exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        status = self._process.wait(timeout=30)
        self._process = None
        return status


@pytest.fixture
def process(tmp_path: Path, url: str) -> Iterator[AppProcess]:
    """The app on this test's store in its own process, not started yet."""
    process = AppProcess(tmp_path, url)
    yield process
    if process._process is not None:
        process.end()


@pytest.fixture(scope="module")  # its driver has an event loop in this thread, where others begin
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no chromium at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                *("--no-sandbox", "--disable-background-networking", "--disable-gpu"),
                f"--disable-features={','.join(NO_FEATURES)}",
            ],
        )
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Say what stood on the page of a browser test that failed."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page is not None:
        with contextlib.suppress(Exception):  # of a closed page there is nothing to say
            report.sections.append(("page", "\n".join([*page.said, page.evaluate(STANDS)])))
    return report


STANDS = """() => [
  location.href,
  `state: ${[...document.querySelectorAll("[data-state]")].map((e) => e.dataset.state)}`,
  `focus: ${document.activeElement?.outerHTML.slice(0, 200)}`,
  document.body.innerText.slice(0, 4000),
].join("\\n")"""


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A tab with a fresh profile. Any request to another machine fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.said = []
    page.on("console", lambda message: page.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: page.said.append(f"error: {error}"))
    outside: list[str] = []
    page.on("request", lambda r: outside.append(r.url) if _is_outside(r.url) else None)
    yield page
    context.close()
    assert outside == []


def _is_outside(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """A page of a narrow one, which is touched."""
    context = chromium.new_context(
        viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()
