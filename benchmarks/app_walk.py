"""A person walks through the whole app in Chromium: from an empty folder to a LoRA and a verdict.

    python benchmarks/app_walk.py --out docs/images/walk
    python benchmarks/app_walk.py --from-folder
    python benchmarks/app_walk.py --careful

Prompts become candidates (or, with --from-folder, a folder of images with captions is brought in),
they are ranked with the keyboard, the rankings train a LoRA without a reward model, the LoRA is
drawn beside its base, the pairs are ranked blind until it is decided who wins, and the LoRA is
downloaded. Nothing is done but what a browser can do. The person has the taste of one simulated
annotator, without most of the noise (--careful: with all that a careful one has), and looks at the
pixels that the page shows. Writes the seconds of each step to results/app_walk.json, and
screenshots.
"""

import argparse
import base64
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright

from imgalign.evaluate.origin import hardware
from imgalign.images import as_tensor
from imgalign.storybook.annotators import Habits, impressions
from imgalign.storybook.scenes import evaluation_prompts
from imgalign.storybook.simulate import annotators_of

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
RESULTS = Path(__file__).parent / "results" / "app_walk.json"
SETS, COMPARED = 120, 40
"""Prompts of which candidates are ranked, and prompts of the blind comparison."""
GROUP = "cosy"
DECIDED = Habits(temperature=0.04, position_bias=0.0, lapse=0.0, tie_threshold=0.02)
"""Of a person with a decided taste, who looks closely."""
RECIPE = "storybook_dpo"
OVERRIDES = "run.iterations=120"
TO_THE_TOP = "() => scrollTo(0, 0)"
PATIENCE = 900_000
"""Milliseconds until a step has failed."""


def imgalign(*arguments: str) -> list[str]:
    """A command of imgalign."""
    return [sys.executable, "-m", "imgalign", *arguments]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of the app in an empty folder."""
    server = subprocess.Popen(
        imgalign("ui", "--port", "0", "--create"), cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield next(
            found.group() for line in server.stdout if (found := re.search(r"http://\S+", line))
        )
    finally:
        server.terminate()
        server.wait()


class Walk:
    """The page, what it took so far, and the person's taste."""

    def __init__(
        self, page: Any, address: str, out: Path | None, *, kind: str, habits: Habits
    ) -> None:
        self.page, self.address, self.out, self.kind = page, address, out, kind
        self.seconds: dict[str, float] = {}
        self.shots = 0
        (self.annotator,) = annotators_of(GROUP, 1, seed=0, habits=habits)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time it."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
        print(f"{self.seconds[name]:7.1f} s  {name}", flush=True)

    def shot(self, name: str) -> None:
        """A picture of the page as it is now."""
        self.shots += 1
        if self.out is not None:
            self.page.wait_for_timeout(700)
            path = self.out / f"{self.kind}-{self.shots:02d}-{name}.jpg"
            self.page.screenshot(path=path, type="jpeg", quality=82)

    def go(self, place: str) -> None:
        """Open a page by its link in the navigation."""
        self.page.get_by_role("link", name=place, exact=True).first.click()
        self.page.wait_for_function(f"() => document.title === '{place} - imgalign'")

    def rank_all(self, *, shots: tuple[str, ...] = ()) -> int:
        """Judge every set that the Rank page shows, with the keyboard; how many that were."""
        judged = 0
        while True:
            self.page.wait_for_function(
                "() => ['ranking', 'empty'].includes(document.querySelector('.rk')?.dataset.state)"
            )
            if self.page.locator(".rk[data-state=empty]").count():
                return judged
            self.judge(shots[judged] if judged < len(shots) else None)
            judged += 1

    def judge(self, shot: str | None) -> None:
        """Look at one set, and press the keys of a verdict on it."""
        prompt, images = self.look()
        order = range(len(images))
        said = self.annotator.rank(
            impressions([prompt] * len(images), images, group=GROUP), order=order, item_id=prompt
        )
        before = self.page.locator(".rk-tile img").first.get_attribute("src")
        *first, last = keys_of(said.ranking, len(images))
        for key in first:
            self.page.keyboard.press(key)
        if shot:
            self.shot(shot)
        self.page.keyboard.press(last)
        self.page.wait_for_function(
            "(src) => document.querySelector('.rk').dataset.state === 'empty'"
            " || ![...document.querySelectorAll('.rk-tile img')].some((i) => i.src.endsWith(src))",
            arg=before,
        )

    def look(self) -> tuple[str, Any]:
        """The prompt and the pixels on the page."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.rk-tile img')].every((i) => i.naturalWidth)"
        )
        prompt = self.page.locator(".rk-prompt").inner_text()
        files = self.page.evaluate(
            """async () => {
              const shown = [...document.querySelectorAll('.rk-tile img')];
              return Promise.all(shown.map(async (image) => {
                const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
                return btoa(String.fromCharCode(...bytes));
              }));
            }"""
        )
        import torch

        opened = [Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB") for file in files]
        return prompt, torch.stack([as_tensor(image) for image in opened])


def keys_of(ranking: Any, count: int) -> list[str]:
    """The keys that say a ranking of so many, or without one that all are bad; of two one key."""
    if count == 2:
        return ["b" if not ranking else "=" if len(ranking) == 1 else str(ranking[0][0] + 1)]
    keys = [] if ranking else ["b"]
    for group in ranking or ():
        for place, candidate in enumerate(group):
            keys += [*(["="] if place else []), str(candidate + 1)]
    return [*keys, "Enter"]


def bring_prompts(walk: Walk) -> None:
    """Candidates of prompts that are typed in."""
    page = walk.page
    prompts = evaluation_prompts(SETS, seed=41, held_out=False)
    page.get_by_label("Prompts").last.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("\n".join(prompts))  # as pasted
    page.get_by_text(f"{SETS} prompts, {4 * SETS} images").wait_for()
    walk.shot("candidates")
    page.get_by_role("button", name="Make them").click()
    page.locator(".ba-set").nth(1).wait_for()
    walk.shot("candidates-come")
    page.locator(".ba-batch[data-state=made]").wait_for()


def bring_folder(walk: Walk, folder: Path) -> None:
    """Candidates that another program made, with captions beside them."""
    page = walk.page
    page.get_by_label("Images", exact=True).click()
    page.locator(".drop input").set_input_files(sorted(folder.iterdir()))
    page.get_by_text(f"{4 * SETS} images sent.").wait_for()
    walk.shot("images-sent")
    page.get_by_role("button", name="Make them").click()
    page.locator(".ba-batch[data-state=made]").wait_for()
    walk.shot("images-queued")


def train(walk: Walk) -> None:
    """A LoRA from the rankings, without a reward model."""
    page = walk.page
    page.locator(f"#recipe input[value={RECIPE}]").check()
    page.get_by_text("Not needed: it learns from images that are given.").wait_for()
    page.get_by_label("Overrides").fill(OVERRIDES)
    page.get_by_label("Overrides").blur()
    page.evaluate(TO_THE_TOP)
    walk.shot("train")
    page.get_by_role("button", name="Start training").click()
    page.locator(".mo-run[data-state=running]").wait_for()
    page.locator(".mo-chart circle").nth(3).wait_for()
    walk.shot("training")
    page.locator(".mo-run[data-state=finished]").wait_for()
    page.locator(".mo-run").scroll_into_view_if_needed()
    walk.shot("trained")


def compare(walk: Walk) -> None:
    """The LoRA beside its base, from the same noise, sent to blind ranking."""
    page = walk.page
    page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
    page.get_by_label("Prompts").fill("\n".join(evaluation_prompts(COMPARED, seed=42)))
    page.get_by_label("Images each").fill("1")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator(".co-cell img").nth(2 * COMPARED - 1).wait_for()
    page.evaluate(TO_THE_TOP)
    walk.shot("generate")
    page.get_by_text("Base against aligned").click()
    page.get_by_role("button", name="Send to ranking").click()
    page.get_by_text("in the project default-compare").first.wait_for()


def take_home(walk: Walk) -> dict[str, Any]:
    """The verdict on the Results page, and the LoRA as ComfyUI reads it."""
    page = walk.page
    duel = page.locator(".duel").first
    duel.wait_for()
    walk.shot("verdict")
    with page.expect_download() as given:
        page.get_by_role("button", name=re.compile("ComfyUI")).first.click()
    with zipfile.ZipFile(given.value.path()) as file:
        names = file.namelist()
    assert any(name.endswith(".safetensors") for name in names)
    assert "README.md" in names
    return {
        "verdict": duel.get_attribute("data-state"),
        "said": duel.locator("p").first.inner_text(),
        "rate": duel.locator("h3").inner_text(),
        "downloaded": names,
    }


def walked(walk: Walk, folder: Path | None) -> dict[str, Any]:
    """All steps; what it came to."""
    page = walk.page
    with walk.step("open the app"):
        page.goto(walk.address)
        page.get_by_label("Your name or initials").fill("Ada")
        page.get_by_role("button", name="Start ranking").click()
        page.locator(".rk[data-state=empty]").wait_for()
        page.get_by_role("link", name="Make candidates").click()
        page.wait_for_function("() => document.querySelector('#maker input')?.value")
        walk.shot("empty")
    with walk.step("candidates"):
        if folder is None:
            bring_prompts(walk)
        else:
            bring_folder(walk, folder)
    with walk.step(f"rank {SETS} sets of four"):
        page.get_by_role("link", name="Rank them").first.click()
        ranked = walk.rank_all(shots=("rank",))
    with walk.step("train"):
        walk.go("Train")
        train(walk)
    with walk.step("draw and send pairs"):
        walk.go("Generate")
        compare(walk)
    with walk.step("rank pairs blind"):
        page.get_by_role("link", name="Rank them").first.click()
        pairs = walk.rank_all(shots=("blind",))
    with walk.step("verdict and download"):
        walk.go("Results")
        found = take_home(walk)
    return {"ranked": ranked, "pairs": pairs, **found}


def images_of_elsewhere(folder: Path) -> Path:
    """Images with a caption beside each, as another program leaves them; drawn by the command."""
    prompts = evaluation_prompts(SETS, seed=43, held_out=False)
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    draw = imgalign("generate", "--prompts", "prompts.txt", "--images-per-prompt", "4")
    subprocess.run([*draw, "--out", "drawn"], cwd=folder, check=True)
    (folder / "brought").mkdir()
    for number, path in enumerate(sorted((folder / "drawn").glob("*.png"))):
        shutil.copy(path, folder / "brought" / f"picture-{number:03d}.png")
        caption = folder / "brought" / f"picture-{number:03d}.txt"
        caption.write_text(prompts[number // 4], encoding="utf-8")
    return folder / "brought"


def main() -> None:
    """Walk, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    parser.add_argument("--keep", type=Path, help="where the folder is copied to in the end")
    parser.add_argument("--from-folder", action="store_true", help="bring images of a folder in")
    parser.add_argument("--careful", action="store_true", help="a person whose votes have noise")
    parser.add_argument("--beside", default="nothing", help="what else the machine was doing")
    given = parser.parse_args()
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        there = Path(name)
        (there / "studio").mkdir()
        folder = images_of_elsewhere(there) if given.from_folder else None
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE)
        with served(there / "studio") as address:
            kind = "folder" if given.from_folder else "prompts"
            habits = Habits() if given.careful else DECIDED
            walk = Walk(page, address, given.out, kind=kind, habits=habits)
            try:
                found = walked(walk, folder)
            except PlaywrightError:  # what did not come is best seen on the page
                walk.shot("failed")
                raise
        browser.close()
        if given.keep is not None:
            shutil.copytree(there / "studio", given.keep)
    row = "from a folder" if given.from_folder else "from prompts"
    row += ", a careful person" * given.careful + f", {hardware()['instructions']}"
    seconds = {step: round(value, 1) for step, value in walk.seconds.items()}
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[row] = {
        "command": "python benchmarks/app_walk.py"
        + " --from-folder" * given.from_folder
        + " --careful" * given.careful,
        "minutes": sum(walk.seconds.values()) / 60,
        "seconds": seconds,
        **found,
        "beside": given.beside,
        "hardware": hardware(),
    }
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(known[row], indent=1))


if __name__ == "__main__":
    main()
