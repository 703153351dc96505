"""What a page shows, waited for: pages are drawn piece by piece."""

from typing import Any

TIMEOUT = 30_000
"""Milliseconds."""


def expect(what: Any) -> Any:
    """Playwright's assertions on a locator; imported late, since it may not be installed."""
    from playwright import sync_api

    sync_api.expect.set_options(timeout=TIMEOUT)
    return sync_api.expect(what)


def wait_until_settled(page: Any) -> None:
    """As a person would, begin to type when all of an answer is on the screen.

    Gradio puts it there part by part, and a field whose part is not yet done gets its value again.
    """
    page.evaluate("""() => new Promise((done) => {
      let timer = setTimeout(done, 500);
      new MutationObserver(() => {
        clearTimeout(timer);
        timer = setTimeout(done, 500);
      }).observe(document.body, {
        subtree: true, childList: true, attributes: true, characterData: true,
      });
    })""")


def unfold(page: Any, name: str) -> None:
    """Open what is folded, to type in it.

    Gradio makes its fields only now, and a moment after that gives them the values that came
    while it was folded: what is typed in between is replaced.
    """
    page.get_by_role("button", name=name).click()
    wait_until_settled(page)
