"""What tests do on the Rank page in a browser, and what the store has then."""

import time
from collections.abc import Callable
from typing import Any

from imgalign.preferences.store import Store


def start(page: Any, address: str, name: str = "Ada") -> None:
    """Open the page and give a name."""
    page.goto(address)
    page.get_by_label("Your name or initials").fill(name)
    page.keyboard.press("Enter")
    page.locator(".rk[data-state=ranking]").wait_for()
    wait_until_seen(page)


def wait_until_seen(page: Any) -> None:
    """Wait until nothing of the set on the screen is loading any more."""
    page.wait_for_function(
        """() => !document.querySelector(".rk[data-state=ranking]")?.querySelector(
            ".rk-tile[aria-busy=true], .rk-zoom[open] .rk-pane[aria-busy=true]")"""
    )


def press(page: Any, keys: str) -> None:
    """Keys with spaces between them, as playwright names them, by somebody who looks first."""
    for key in keys.split():
        wait_until_seen(page)
        page.keyboard.press(key)


def wait_for_progress(page: Any, text: str) -> None:
    """Wait until the page says so. Example: "1 of 4"."""
    page.locator(".rk-count", has_text=text).wait_for()


def wait_until(page: Any, true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something besides the page is so, while the page goes on."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"not so within {seconds} s"
        page.wait_for_timeout(50)


def ranks_on_screen(page: Any) -> list[str]:
    """The rank that each tile shows, empty where it has none."""
    return [str(rank) for rank in page.locator(".rk-tile .rk-rank").all_text_contents()]


def stored(store: Store) -> list[tuple[str, str | None, list[list[int]]]]:
    """Verdict, reason and tie groups as places on the screen, in the order they were stored."""
    found: list[tuple[str, str | None, list[list[int]]]] = []
    for ranking in store.rankings():
        place = {candidate: position + 1 for position, candidate in enumerate(ranking.order)}
        groups = [sorted(place[c] for c in group) for group in ranking.ranking or ()]
        found.append((ranking.verdict, ranking.reason, groups))
    return found
