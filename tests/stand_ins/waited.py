"""What a page shows, waited for: pages are drawn piece by piece."""

from typing import Any

TIMEOUT = 30_000
"""Milliseconds."""


def expect(what: Any) -> Any:
    """Playwright's assertions on a locator; imported late, since it may not be installed."""
    from playwright import sync_api

    sync_api.expect.set_options(timeout=TIMEOUT)
    return sync_api.expect(what)
