"""Screenshots of every page of the app, for the README and the docs.

    python benchmarks/app_walk.py --keep studio
    python benchmarks/app_screenshots.py studio --out docs/images

`studio` is a folder in which somebody has worked; copies of it are worked in further, as
`app_folders.py` says. Each page is shown as it is there and as it is in an empty folder, on a
laptop, a phone (down to its third screen) and a 4K screen, light and dark: a sheet of all per page
(`pages/NAME.jpg`), to be looked at, and the laptop's light one alone for the README (`NAME.png`),
with that of a run's report (`report.png`). So is what `app_views.py` lists besides: what opens over
the Rank page and what else is ranked there, where one gets in, the People page with accounts, runs
that failed, and an app that does not answer. Needs Chromium.
"""

import argparse
import io
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app_folders import Folder, end_batches, folders
from app_views import PAGES, SHEETS, Row
from app_walk import CHROMIUM, imgalign, served
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

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
SCROLL_TO = """(at) => {
  const top = at ? document.querySelector(at).getBoundingClientRect().top + scrollY - 16 : 0;
  scrollTo(0, top);
  return Math.round(scrollY);
}"""
"""As far down as the page goes; returns how far that is."""
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


def taken(
    browser: Any, address: str, folder: Folder, row: Row
) -> dict[tuple[str, str], Image.Image]:
    """The row on every screen, light and dark."""
    found = {}
    for screen in SCREENS:
        for scheme in ("light", "dark"):
            with opened(browser, screen, scheme) as page:
                row.show(page, address, folder)
                page.wait_for_timeout(2500)
                page.evaluate(SHORTER, str(folder.path))
                found[screen.name, scheme] = screens_down(page, screen, at=row.at)
    return found


def screens_down(page: Any, screen: Screen, *, at: str) -> Image.Image:
    """The screen from `at` on; of a phone those below it too, side by side."""
    if screen.touch:  # what is far below is loaded when one comes near
        page.evaluate(LOOK_DOWN, [SCREENS_DOWN, screen.height])
    top = page.evaluate(SCROLL_TO, at)
    image = Image.open(io.BytesIO(page.screenshot(full_page=screen.touch))).convert("RGB")
    if screen.touch:
        image = image.crop((0, top, image.width, image.height))
    parts = -(-min(image.height, SCREENS_DOWN * screen.height) // screen.height)
    if parts <= 1:
        return image.crop((0, 0, image.width, screen.height))
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
    """All pictures of a page, in its rows."""
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


def main() -> None:
    """Serve the folders that are needed, take the pictures, and stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studio", type=Path, help="folder in which somebody has worked")
    parser.add_argument("--pages", nargs="+", default=list(SHEETS), choices=list(SHEETS))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    (given.out / "pages").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        within = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        stack.callback(browser.close)
        make = folders(given.studio, within)
        stack.callback(end_batches, within / "waiting")
        addresses: dict[str, str] = {}
        for name in given.pages:
            rows = {}
            for row in SHEETS[name]:
                folder = make[row.folder]()
                if row.folder not in addresses:
                    addresses[row.folder] = stack.enter_context(served(folder.path))
                rows[row.name] = taken(browser, addresses[row.folder], folder, row)
            if name in PAGES:
                rows["full"]["laptop", "light"].save(given.out / f"{name}.png")
            keep(rows, name, given.out)
        if not set(PAGES).isdisjoint(given.pages):
            take_report(browser, make["worked"]().path, given.out / "report.png")


if __name__ == "__main__":
    main()
