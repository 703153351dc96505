"""Claims: an app in which people rank, and look at people and results, does not load torch; a page
that needs it loads it."""

import sys
from pathlib import Path

import pytest
from rank_page import press, start, wait_for_progress, wait_until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        sys.platform != "linux", reason="what a process has loaded is read in /proc"
    ),
]


def test_torch_is_loaded_by_the_first_page_that_needs_it(process, page, add_items):
    def has_torch():
        return "/torch/lib/" in Path(f"/proc/{process.id}/maps").read_text()

    add_items(2)
    process.start()
    process.wait_until_ready()
    start(page, process.address)
    press(page, "1 2 3 4 Enter")
    wait_for_progress(page, "1 of 2")
    for name, shown in (("people", ".people"), ("results", ".none-yet")):
        page.goto(f"{process.address}/{name}")
        page.locator(shown).first.wait_for()
        page.wait_for_timeout(1500)  # in which its libraries would be there
        assert not has_torch(), name
    page.goto(f"{process.address}/train")
    wait_until(page, has_torch)
