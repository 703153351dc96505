"""How fast the app is for one person in Chromium: start, first page, vote to next set, and at rest.

    python benchmarks/app_speed.py
    python benchmarks/app_speed.py --votes 200 --starts 5
    python benchmarks/app_speed.py --folder many   # a store that many_rankings.py has filled

Sets of four images of 512 pixels are brought in, or a store is taken that is there. The server is
started anew several times, each time with the operating system's file cache as it is: seconds until
it answers, and until a fresh browser profile shows the first set. Then one set after another is
judged by the keyboard, half of them with half a second to look at each, half as fast as keys can be
sent; from Enter until every image of the next set is decoded and a frame later is measured by the
page's own clock. At the end the app rests with the page open. Run it with nothing beside it. Writes
results/app_speed.json.
"""

import argparse
import http.client
import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from app_walk import CHROMIUM, imgalign
from PIL import Image
from playwright.sync_api import sync_playwright
from sqlalchemy import func, select

from imgalign.evaluate.origin import hardware
from imgalign.preferences import schema
from imgalign.preferences.store import Store

RESULTS = Path(__file__).parent / "results" / "app_speed.json"
PIXELS, CANDIDATES = 512, 4
RESTS = 30
"""Seconds at rest."""
LOOKS = 0.5
"""Seconds to look at a set, at the fastest."""
WATCH = """() => {
  const tiles = () => [...document.querySelectorAll('.rk-tile img')];
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    const began = performance.now(), before = tiles().map((image) => image.src).join();
    const look = async () => {
      const now = tiles();
      if (document.querySelector('.rk')?.dataset.state === 'empty') return;
      const come = now.length && now.map((image) => image.src).join() !== before;
      if (!come || !now.every((image) => image.complete && image.naturalWidth)) {
        requestAnimationFrame(look);
        return;
      }
      await Promise.all(now.map((image) => image.decode()));
      requestAnimationFrame(() => window.took.push(performance.now() - began));
    };
    requestAnimationFrame(look);
  }, true);
}"""
"""Notes in `took` how long each Enter took until the next set was there."""


def bring(folder: Path, sets: int) -> None:
    """A store with so many sets of noise on a plain colour, which compresses as photographs do."""
    pictures, luck = folder / "pictures", np.random.default_rng(0)
    pictures.mkdir()
    for number in range(sets * CANDIDATES):
        noise = luck.normal(0, 12, (PIXELS // 4, PIXELS // 4, 3)).repeat(4, 0).repeat(4, 1)
        pixels = (luck.uniform(40, 215, 3) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number:05d}.png")
        caption = f"a picture, number {number // CANDIDATES}"
        (pictures / f"{number:05d}.txt").write_text(caption, encoding="utf-8")
    subprocess.run(imgalign("candidates", "--from", "pictures"), cwd=folder, check=True)


def num_rankings(folder: Path) -> int:
    """How many the folder's store holds."""
    with (
        Store.open(f"sqlite:///{folder / 'imgalign.db'}", images=folder / "images") as store,
        store.database.read() as connection,
    ):
        return connection.execute(select(func.count()).select_from(schema.rankings)).scalar_one()


@contextmanager
def started(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """The app, and the seconds until it answered."""
    began = time.monotonic()
    server = subprocess.Popen(
        imgalign("ui", "--port", "0"), cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = next(
            found.group() for line in server.stdout if (found := re.search(r"http://\S+", line))
        )
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        yield address, server, time.monotonic() - began
    finally:
        server.terminate()
        server.wait()


@contextmanager
def first_set(browser: Any, address: str) -> Iterator[tuple[Any, float]]:
    """The Rank page of a fresh profile with its first set, and the seconds until it was there."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(120_000)
    began = time.monotonic()
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.keyboard.press("Enter")
    page.locator(".rk[data-state=ranking]").wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rk-tile img')].every((i) => i.naturalWidth)"
    )
    yield page, time.monotonic() - began
    context.close()


def vote(page: Any, count: int, *, looks: float) -> list[float]:
    """Milliseconds from Enter to the next set, for each of `count`; `looks` are seconds."""
    page.evaluate("() => { window.took = []; }")
    for number in range(count):
        time.sleep(looks)
        for key in "2134":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.wait_for_function("(count) => window.took.length > count", arg=number)
    return list(page.evaluate("() => window.took"))


def at_rest(process: int) -> dict[str, float]:
    """Percent of a core, and megabytes."""

    def spent() -> float:
        # Nanoseconds that each thread ran; the ticks of `stat` overrate who wakes up by a timer.
        threads = Path(f"/proc/{process}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in threads) / 1e9

    before = spent()
    time.sleep(RESTS)
    status = Path(f"/proc/{process}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    return {
        "percent_of_a_core": round(100 * (spent() - before) / RESTS, 1),
        "megabytes": round(int(resident[1]) / 1024),
    }


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), digits),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], digits),
        "largest": round(ordered[-1], digits),
        "count": len(ordered),
    }


def main() -> None:
    """Start, rank, rest, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int, default=100)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="with a store in it, which is voted in")
    parser.add_argument("--beside", default="", help="what else the machine was doing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    answers, pages, votes, quick, rest = [], [], [], [], {}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = given.folder or Path(name)
        if given.folder is None:
            bring(folder, 2 * given.votes + 2)
        stored = num_rankings(folder)
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        for nth in range(given.starts):
            with started(folder) as (address, server, seconds):
                answers.append(seconds)
                with first_set(browser, address) as (page, seconds):
                    pages.append(seconds)
                    if nth == given.starts - 1:
                        page.evaluate(WATCH)
                        votes = vote(page, given.votes, looks=LOOKS)
                        quick = vote(page, given.votes, looks=0)
                        rest = at_rest(server.pid)
        browser.close()
    found = {
        "command": f"python benchmarks/app_speed.py --votes {given.votes} --starts {given.starts}"
        + " --folder many" * (given.folder is not None),
        "hardware": hardware(),
        "beside": given.beside or "nothing that is known",
        "rankings_stored_before": stored,
        "seconds_until_the_server_answers": spread(answers, 2),
        "seconds_until_the_first_set": spread(pages, 2),
        "milliseconds_from_enter_to_the_next_set": spread(votes, 1),
        "milliseconds_without_a_look_at_it": spread(quick, 1),
        "at_rest_with_a_page_open": rest,
    }
    known = json.loads(given.results.read_text("utf-8")) if given.results.exists() else {}
    size = "an empty store" if given.folder is None else "a large store"
    known[f"{size}, {hardware()['instructions']}"] = found
    given.results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
