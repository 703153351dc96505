"""While a page loads nothing jumps, and it never says that there is no work where there is some."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen
from waited import expect

from imgalign.config import dump_config, find_config, load_config
from imgalign.images import png
from imgalign.preferences.store import Store
from imgalign.train.config import TrainConfig
from ui.batch_asked import Asked
from ui.batches import FOLDER

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

WATCH = """window.shifts = [];
new PerformanceObserver((list) => {
  for (const { value, startTime, sources } of list.getEntries()) {
    const moved = sources.map(({ node }) => node?.id || node?.className || node?.nodeName);
    window.shifts.push([value, Math.round(startTime), ...moved]);
  }
}).observe({ type: "layout-shift", buffered: true });"""
FLASHED = """window.flashed = [];
const look = () => {
  const all = ".mo-none, .ba-none, .le-none, .co-none, .none-yet";
  for (const each of document.querySelectorAll(all)) {
    if (each.checkVisibility({ visibilityProperty: true })) flashed.push(each.innerText);
  }
  requestAnimationFrame(look);
};
requestAnimationFrame(look);"""
"""Looks at every frame whether a page says that there is nothing yet."""
WORK = {
    "candidates": ".ba-batch h3",
    "learn": ".le-fit h3",
    "train": ".mo-run h3",
    "generate": "button.co-cell",
    "results": ".duel h3",
    "people": "#people tbody th",
}
"""What each page shows of the work that there is."""
LOADING = {"train": "#cost .cost", "candidates": ".ba-none"}
MOST = 0.1
"""Layout shift altogether, by https://web.dev/articles/cls; up to there it is called good."""


def test_no_page_jumps_while_it_loads(page, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page.add_init_script(WATCH)
    jumping = {}
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for name, last in LOADING.items():
            page.goto(f"{address}/{name}")
            page.locator(last).wait_for()
            page.wait_for_timeout(1000)
            shifts = page.evaluate("window.shifts")
            if sum(value for value, *_ in shifts) > MOST:
                jumping[name, width] = shifts
    assert jumping == {}


@pytest.fixture
def work(here: Path, store: Store) -> dict[str, Any]:
    """A store with ranked pairs, a batch, a reward model and a run; a view of the Generate page."""
    runs = here / "runs"
    (runs / "mine" / "step-000006").mkdir(parents=True)
    (runs / "mine" / "step-000006" / "pytorch_lora_weights.safetensors").touch()
    status = {"state": "finished", "pid": 1, "step": 6, "total": 6}
    (runs / "mine" / "status.json").write_text(json.dumps(status))
    (runs / "mine" / "metrics.jsonl").write_text("")
    settings = load_config(TrainConfig, find_config(Path("storybook_dpo")))
    dump_config(settings, runs / "mine" / "config.yaml")
    (runs / "reward").mkdir()
    (runs / "reward" / "contract.json").write_text("{}")
    (runs / FOLDER).mkdir()
    asked = Asked(source="prompts", project="default", per_prompt=2, prompts=("a fox",), maker="m")
    (runs / FOLDER / "batch-1.asked").write_text(json.dumps(asdict(asked)))
    for number in range(4):
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (number, 90 * k, 0))),
                provenance(adapter=adapter, adapter_hash=adapter),
            )
            for k, adapter in enumerate((None, "runs/mine"))
        ]
        store.add_item(f"a fox {number}", ids, source="test")
        store.add_annotator("ann")
        item = store.next_item("ann")
        store.submit(judge(item, ranking=on_screen(store, item, ((1,), (0,)))))
    seeds = [{"seed": 5, "base": "image"}]
    group = {"prompt": "a fox", "unread": "", "rewrite": None, "seeds": seeds}
    row = {"key": "base", "name": "base", "checkpoint": False}
    return {"rows": [row], "groups": [group], "done": 1, "total": 1, "share": 1}


def test_no_page_says_that_there_is_nothing_while_it_loads_what_there_is(
    work: dict[str, Any], page: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.pages.generate.restore", lambda _, last: json.loads(last))
    kept = json.dumps(json.dumps([{"at": 0, "value": work}]))
    page.add_init_script(f"localStorage.setItem('imgalign.generate.history', {kept});")
    page.add_init_script(FLASHED)
    flashed = {}
    for name, shown in WORK.items():
        page.goto(f"{address}/{name}")
        expect(page.locator(shown).first).to_be_visible()
        if found := page.evaluate("window.flashed"):
            flashed[name] = found[0]
    assert flashed == {}


def test_what_was_drawn_before_and_is_not_kept_any_more_is_not_waited_for(
    work: dict[str, Any], page: Any, address: str
) -> None:
    kept = json.dumps(json.dumps([{"at": 0, "value": work}]))
    page.add_init_script(f"localStorage.setItem('imgalign.generate.history', {kept});")
    page.goto(f"{address}/generate")
    expect(page.locator(".co-none")).to_be_visible()
    expect(page.locator(".co-history")).to_be_visible()
