"""While a page loads nothing jumps, in a real browser."""

import pytest

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
FILLED = {"train": "#cost .cost", "candidates": ".ba-none"}
MOST = 0.1
"""Layout shift altogether, by https://web.dev/articles/cls; up to there it is called good."""


def test_no_page_jumps_while_it_loads(page, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page.add_init_script(WATCH)
    jumping = {}
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for name, last in FILLED.items():
            page.goto(f"{address}/{name}")
            page.locator(last).wait_for()
            page.wait_for_timeout(1000)
            shifts = page.evaluate("window.shifts")
            if sum(value for value, *_ in shifts) > MOST:
                jumping[name, width] = shifts
    assert jumping == {}
