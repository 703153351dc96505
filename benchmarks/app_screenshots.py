"""Screenshots of every page of the app, for the README and the docs.

    python benchmarks/app_walk.py --keep studio
    python benchmarks/app_screenshots.py studio --out docs/images

`studio` is a folder in which somebody has worked; in a copy of it three simulated annotators judge
more sets, some of which are gold items, a reward model is fitted, and sets are left to be judged.
Each page is shown as it is there and as it is in an empty folder, on a laptop, a phone and a 4K
screen, light and dark: one sheet of all twelve per page (`pages/NAME.jpg`), to be looked at, and
the laptop's light one alone for the README (`NAME.png`), with that of a run's report
(`report.png`). Needs Chromium.
"""

import argparse
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app_walk import CHROMIUM, imgalign, keys_of, served
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from imgalign.preferences.gold import mark_gold
from imgalign.preferences.guidelines import set_guidelines
from imgalign.preferences.store import Store
from imgalign.storybook.scenes import evaluation_prompts

PAGES = ("candidates", "rank", "people", "learn", "train", "generate", "results")
JUDGED, OPEN, GOLD = 24, 8, 4
"""Sets that others judge, sets left for the pictures, and gold items among the former."""
GUIDELINES = (
    "First the prompt: what it names must be there.\nThen light and mood, as you like them."
)
HEIGHT = 620
"""Of one picture in a sheet."""
SHORTER = """(folder) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.data.includes(folder)) node.data = node.data.replaceAll(folder, "~/studio");
  }
}"""
"""The folder is one of a moment, whose name nobody needs to read."""
GAP = 24
MARGIN = 40


@dataclass(frozen=True)
class Screen:
    """What a browser is as large as."""

    name: str
    width: int
    height: int
    touch: bool = False


SCREENS = (
    Screen("laptop", 1280, 800),
    Screen("phone", 390, 844, touch=True),
    Screen("4K", 3840, 2160),
)


@contextmanager
def opened(browser: Any, screen: Screen, scheme: str) -> Iterator[Any]:
    """A page of a browser of this size."""
    context = browser.new_context(
        viewport={"width": screen.width, "height": screen.height},
        color_scheme=scheme,
        has_touch=screen.touch,
        is_mobile=screen.touch,
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    yield page
    context.close()


def enrich(folder: Path) -> None:
    """What one person's walk leaves empty: other annotators, gold items, a reward, open sets."""

    def run(*arguments: str) -> None:
        subprocess.run(imgalign(*arguments), cwd=folder, check=True)

    def candidates(name: str, prompts: Sequence[str], *more: str) -> None:
        (folder / name).write_text("\n".join(prompts) + "\n", encoding="utf-8")
        run("candidates", "--prompts", name, "--steps", "10", *more)

    prompts = evaluation_prompts(JUDGED + OPEN, seed=77, held_out=False)
    candidates("judged.txt", prompts[:JUDGED], "--overlap", "3", "--seed", "50000")
    run("storybook", "rank", "--group", "cosy", "--annotators", "3", "--seed", "1")
    with Store.open(f"sqlite:///{folder / 'imgalign.db'}") as store:
        answers = {
            each.item_id: each.ranking
            for each in store.rankings()
            if each.prompt in prompts and len(each.ranking or ()) > 1
        }
        for item, answer in list(answers.items())[:GOLD]:
            assert answer is not None
            mark_gold(store, item, answer)
        set_guidelines(store.database, "default", GUIDELINES)
    candidates("open.txt", prompts[JUDGED:], "--seed", "60000")
    run("reward", "train", "--out", "runs/taste")


def show(page: Any, address: str, name: str, *, full: bool) -> None:
    """Bring a page into the state that is worth a picture."""
    page.goto(f"{address}/{'' if name == 'rank' else name}")
    page.wait_for_function(f"() => document.title === '{name.title()} - imgalign'")
    if name == "rank":
        page.get_by_label("Your name or initials").fill("Bea")
        page.keyboard.press("Enter")
        page.locator(".rk[data-state=ranking], .rk[data-state=empty]").first.wait_for()
        if full:
            page.locator(".rk-guide[open]").wait_for()
            page.keyboard.press("Escape")
            for key in keys_of(((2,), (0,)), 4)[:-1]:
                page.keyboard.press(key)
    if name == "generate" and full:
        page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
        page.get_by_label("Prompts").fill("\n".join(evaluation_prompts(2, seed=5)))
        page.get_by_role("button", name="Generate", exact=True).click()
        page.locator(".co-cell img").nth(15).wait_for()
    waits = {"train": ".mo-samples img", "results": ".duel", "candidates": ".ba-set img"}
    if full and name in waits:
        page.locator(waits[name]).first.wait_for()
    page.wait_for_timeout(2500)


def taken(
    browser: Any, address: str, name: str, *, folder: Path, full: bool
) -> dict[tuple[str, str], Image.Image]:
    """The page on every screen, light and dark."""
    found = {}
    for screen in SCREENS:
        for scheme in ("light", "dark"):
            with opened(browser, screen, scheme) as page:
                show(page, address, name, full=full)
                page.evaluate(SHORTER, str(folder))
                found[screen.name, scheme] = Image.open(io.BytesIO(page.screenshot()))
    return found


def take_report(browser: Any, folder: Path, out: Path) -> None:
    """The report of a run of the folder, on a laptop."""
    run = next(path.parent for path in sorted((folder / "runs").glob("*/config.yaml")))
    subprocess.run(imgalign("report", str(run.relative_to(folder))), cwd=folder, check=True)
    with opened(browser, SCREENS[0], "light") as page:
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_timeout(1500)
        page.screenshot(path=out)


def sheet(rows: dict[str, dict[tuple[str, str], Image.Image]]) -> Image.Image:
    """All pictures of a page, one row each for the empty and the full one."""
    scaled = {
        name: {
            key: image.convert("RGB").resize((image.width * HEIGHT // image.height, HEIGHT))
            for key, image in row.items()
        }
        for name, row in rows.items()
    }
    widths = [image.width for image in next(iter(scaled.values())).values()]
    width = 2 * MARGIN + sum(widths) + GAP * (len(widths) - 1)
    made = Image.new("RGB", (width, len(rows) * (HEIGHT + MARGIN) + MARGIN), (128, 128, 128))
    draw = ImageDraw.Draw(made)
    for line, (name, row) in enumerate(scaled.items()):
        x, y = MARGIN, MARGIN + line * (HEIGHT + MARGIN)
        for (screen, scheme), image in row.items():
            draw.text((x, y - 22), f"{name}, {screen}, {scheme}", fill="white", font_size=18)
            made.paste(image, (x, y))
            x += image.width + GAP
    return made


def main() -> None:
    """Serve both folders, take the pictures, and stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studio", type=Path, help="folder in which somebody has worked")
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=PAGES)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    (given.out / "pages").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        worked, empty = Path(name) / "worked", Path(name) / "empty"
        shutil.copytree(given.studio, worked)
        enrich(worked)
        empty.mkdir()
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        with served(worked) as full, served(empty) as blank:
            for page in given.pages:
                rows = {
                    "empty": taken(browser, blank, page, folder=empty, full=False),
                    "full": taken(browser, full, page, folder=worked, full=True),
                }
                sheet(rows).save(given.out / "pages" / f"{page}.jpg", quality=82)
                rows["full"]["laptop", "light"].convert("RGB").save(given.out / f"{page}.png")
                print(page, flush=True)
        take_report(browser, worked, given.out / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
