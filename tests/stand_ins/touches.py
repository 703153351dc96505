"""Fingers on a page, as a touch screen sends them."""

from typing import Any


def finger(page: Any, *steps: tuple[Any, ...]) -> None:
    """Touches one after the other: (what, x, y) or (what, x, y, x, y) of two fingers. Between them
    ("rest", milliseconds), ("until", a function of the page that is true then), and
    ("at", what, locator), a touch at where that is by then.
    """
    session = page.context.new_cdp_session(page)
    for what, *at in steps:
        if what == "rest":
            page.wait_for_timeout(at[0])
            continue
        if what == "until":
            page.wait_for_function(at[0])
            continue
        if what == "at":
            what, at = at[0], middle(at[1])
        points = [{"x": at[i], "y": at[i + 1], "id": i // 2} for i in range(0, len(at), 2)]
        session.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": points})


def spread(page: Any, x: float, y: float, *, apart: float) -> None:
    """Two fingers, `apart` from each other, move to twice as far around a place."""
    half = apart / 2
    finger(
        page,
        ("touchStart", x - half, y, x + half, y),
        ("touchMove", x - 1.5 * half, y, x + 1.5 * half, y),
        ("touchMove", x - 2 * half, y, x + 2 * half, y),
        ("touchEnd",),
    )


def middle(locator: Any) -> tuple[float, float]:
    """The place to touch, or to press with a mouse."""
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
