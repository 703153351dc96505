"""Screenshots of every page of the app, for the README and the docs.

    python benchmarks/app_walk.py --keep studio
    python benchmarks/app_screenshots.py studio --out docs/images

`studio` is a folder in which somebody has worked; in a copy of it three simulated annotators judge
more sets, some of which are gold items, a reward model is fitted, and sets are left to be judged.
Each page is shown as it is there and as it is in an empty folder, on a laptop, a phone (down to its
third screen) and a 4K screen, light and dark: a sheet of all per page (`pages/NAME.jpg`), to be
looked at, and the laptop's light one alone for the README (`NAME.png`), with that of a run's report
(`report.png`). So are what opens over the Rank page, and where one logs in and accepts an
invitation, for which accounts are made in another copy. Needs Chromium.
"""

import argparse
import io
import re
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

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.guidelines import set_guidelines
from imgalign.preferences.store import Store
from imgalign.storybook.scenes import evaluation_prompts

PAGES = ("candidates", "rank", "people", "learn", "train", "generate", "results")
OVER_RANK = {"zoom": "Space", "votes": "h", "guidelines": "g"}
"""What is opened over the Rank page, by its key."""
DOORS = ("enter", "join")
JUDGED, OPEN, GOLD = 24, 8, 4
"""Sets that others judge, sets left for the pictures, and gold items among the former."""
GUIDELINES = (
    "First the prompt: what it names must be there.\nThen light and mood, as you like them."
)
HEIGHT = 844
"""Of one picture in a sheet."""
SCREENS_DOWN = 3
"""Of a page on a phone, one below the other."""
SHORTER = """(folder) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.data.includes(folder)) node.data = node.data.replaceAll(folder, "~/studio");
  }
}"""
"""The folder is one of a moment, whose name nobody needs to read."""
LOOK_DOWN = """async ([screens, height]) => {
  for (let screen = screens; screen >= 0; screen--) {
    scrollTo(0, screen * height);
    await new Promise((go) => setTimeout(go, 300));
    const near = [...document.images].filter((image) => {
      const { top, bottom } = image.getBoundingClientRect();
      return bottom > 0 && top < innerHeight && image.checkVisibility();
    });
    await Promise.all(near.map((image) => image.decode().catch(() => {})));
  }
}"""
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
    if name.startswith(DOORS):  # with the token of an invitation behind it
        page.goto(f"{address}/{name}")
        page.get_by_label("Name").wait_for()
        return
    over, name = name, "rank" if name in OVER_RANK else name
    page.goto(f"{address}/{'' if name == 'rank' else name}")
    page.wait_for_function(f"() => document.title.endsWith('{name.title()} - imgalign')")
    if name == "rank":
        show_rank(page, OVER_RANK.get(over), full=full)
    if name == "generate" and full:
        page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
        page.get_by_label("Prompts").fill("\n".join(evaluation_prompts(2, seed=5)))
        page.get_by_role("button", name="Generate", exact=True).click()
        page.locator(".co-cell img").nth(15).wait_for()
    waits = {"train": ".mo-samples img", "results": ".duel", "candidates": ".ba-set img"}
    if full and name in waits:
        page.locator(waits[name]).first.wait_for()
    page.wait_for_timeout(2500)


def show_rank(page: Any, key: str | None, *, full: bool) -> None:
    """Rank as Bea, with some places given; then what a key opens."""
    page.get_by_label("Your name or initials").fill("Bea")
    page.keyboard.press("Enter")
    page.locator(".rk[data-state=ranking], .rk[data-state=empty]").first.wait_for()
    if not full:
        return
    page.locator(".rk-guide[open]").wait_for()
    page.keyboard.press("Escape")
    if key == "h":  # something to be listed
        for press in keys_of(((2,), (0,), (1,), (3,)), 4):
            page.keyboard.press(press)
        page.locator(".rk-count", has_text=re.compile("^[1-9]")).wait_for()
    for press in keys_of(((2,), (0,)), 4)[:-1]:
        page.keyboard.press(press)
    if key is not None:
        page.keyboard.press(key)
        page.locator("dialog[open]").wait_for()


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
                found[screen.name, scheme] = screens_down(page, screen)
    return found


def screens_down(page: Any, screen: Screen) -> Image.Image:
    """The screen; of a phone those below it too, side by side."""
    if screen.touch:  # what is far below is loaded when one comes near
        page.evaluate(LOOK_DOWN, [SCREENS_DOWN, screen.height])
    page.evaluate("scrollTo(0, 0)")
    image = Image.open(io.BytesIO(page.screenshot(full_page=screen.touch))).convert("RGB")
    parts = -(-min(image.height, SCREENS_DOWN * screen.height) // screen.height)
    if parts <= 1:
        return image
    across = Image.new("RGB", (parts * image.width + (parts - 1) * GAP, screen.height), "grey")
    for part in range(parts):
        top = part * screen.height
        below = image.crop((0, top, image.width, min(top + screen.height, image.height)))
        across.paste(below, (part * (image.width + GAP), 0))
    return across


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
            key: image.resize((image.width * HEIGHT // image.height, HEIGHT))
            for key, image in row.items()
        }
        for name, row in rows.items()
    }
    width = max(
        2 * MARGIN + sum(image.width for image in row.values()) + GAP * (len(row) - 1)
        for row in scaled.values()
    )
    made = Image.new("RGB", (width, len(rows) * (HEIGHT + MARGIN) + MARGIN), (128, 128, 128))
    draw = ImageDraw.Draw(made)
    for line, (name, row) in enumerate(scaled.items()):
        x, y = MARGIN, MARGIN + line * (HEIGHT + MARGIN)
        for (screen, scheme), image in row.items():
            draw.text((x, y - 22), f"{name}, {screen}, {scheme}", fill="white", font_size=18)
            made.paste(image, (x, y))
            x += image.width + GAP
    return made


def keep(rows: dict[str, dict[tuple[str, str], Image.Image]], name: str, out: Path) -> None:
    """Write the sheet of a page."""
    sheet(rows).save(out / "pages" / f"{name}.jpg", quality=80)
    print(name, flush=True)


def invitation(folder: Path) -> str:
    """The token of one, after the first account was made."""
    with Store.open(f"sqlite:///{folder / 'imgalign.db'}") as store:
        people = Accounts(store.database)
        people.add("Lea", "four odd green words", role="admin", group="default")
        return people.invite(role="annotator", group="default", by=None)


def main() -> None:
    """Serve both folders, take the pictures, and stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studio", type=Path, help="folder in which somebody has worked")
    everything = [*PAGES, *OVER_RANK, *DOORS]
    parser.add_argument("--pages", nargs="+", default=everything, choices=everything)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    (given.out / "pages").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        worked, empty, guarded = (Path(name) / each for each in ("worked", "empty", "guarded"))
        shutil.copytree(given.studio, worked)
        enrich(worked)
        empty.mkdir()
        shutil.copytree(worked, guarded)
        invited = invitation(guarded)
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        with served(worked) as full, served(empty) as blank:
            for page in given.pages:
                if page in DOORS:
                    continue
                rows = {"full": taken(browser, full, page, folder=worked, full=True)}
                if page in PAGES:
                    bare = taken(browser, blank, page, folder=empty, full=False)
                    rows = {"empty": bare} | rows
                    rows["full"]["laptop", "light"].save(given.out / f"{page}.png")
                keep(rows, page, given.out)
        with served(guarded) as address:
            for page in given.pages:
                if page in DOORS:
                    place = f"join#{invited}" if page == "join" else page
                    row = taken(browser, address, place, folder=guarded, full=True)
                    keep({page: row}, page, given.out)
        take_report(browser, worked, given.out / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
