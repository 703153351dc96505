"""Screenshots of the app and the report on a finished demo, for the README.

    imgalign demo --out demo
    python benchmarks/app_screenshots.py demo --out docs/images

Serves the app from a temporary folder, queues new images of the shipped model for ranking there,
and takes screenshots of Rank, Train, Generate and the report with Chromium, which must be
installed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PROMPTS = ("a red fish beside a yellow boat by the sea", "two blue cats in a room")
COMPARED = "a purple mushroom\ntwo yellow cars"


def command(*arguments: str) -> list[str]:
    """A command of imgalign."""
    return [sys.executable, "-m", "imgalign", *arguments]


@contextmanager
def served(demo: Path) -> Iterator[str]:
    """Address of the app, with new images to rank and the demo's run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "runs").mkdir()
        shutil.copytree(demo / "run", folder / "runs" / "cosy")
        (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
        queue = command("candidates", "--prompts", "prompts.txt", "--per-prompt", "4")
        subprocess.run(queue, cwd=folder, check=True)
        server = subprocess.Popen(
            command("ui", "--port", "0"), cwd=folder, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if found := re.search(r"http://\S+", line):
                    yield found.group()
                    break
        finally:
            server.terminate()
            server.wait()


def take_screenshots(page: Any, address: str, report: Path, out: Path) -> None:
    """Save the four pages as PNG files in `out`."""
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.keyboard.press("Enter")
    page.locator(".rk[data-state=ranking]").wait_for()
    for key in ("3", "1"):
        page.keyboard.press(key)
    page.wait_for_timeout(1500)
    page.screenshot(path=out / "rank.png")

    page.goto(f"{address}/train")
    page.locator(".mo-samples img").wait_for()
    page.locator(".mo-run").scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    page.screenshot(path=out / "train.png", full_page=True)

    page.goto(f"{address}/generate")
    page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
    page.get_by_label("Prompts").fill(COMPARED)
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator(".co-cell img").nth(15).wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=out / "generate.png", full_page=True)

    page.goto(report.resolve().as_uri())
    page.wait_for_timeout(1500)
    page.screenshot(path=out / "report.png")


def main() -> None:
    """Serve the app, take the screenshots, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="folder of a finished demo")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    with served(given.demo) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        take_screenshots(page, address, given.demo / "run" / "report.html", given.out)
        browser.close()


if __name__ == "__main__":
    main()
