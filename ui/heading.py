"""The pages of the app by their names, and the header on each of them."""

from collections.abc import Sequence

from ui.theme import asset

PAGES = {
    "candidates": "Candidates",
    "rank": "Rank",
    "people": "People",
    "learn": "Learn",
    "train": "Train",
    "generate": "Generate",
    "results": "Results",
}
"""What each is called, by its address; in this order the header links to them."""


def header(current: str, served: Sequence[str], *, root: str) -> str:
    """HTML of the header of a page, with links to those that are served; `root` is at "/"."""
    links = "".join(
        f'<a href="{"./" if name == root else name}"'
        f"{' aria-current=page' if name == current else ''}>{PAGES[name]}</a>"
        for name in served
    )
    title = f'<h1 class="unseen">{PAGES[current]}</h1>'
    nav = f'<nav aria-label="Pages">{links}</nav>'
    # role.js fills it in where there are accounts.
    who = (
        '<div class="who" hidden><a href="password"><b></b></a>'
        '<button type="button" class="btn">Log out</button></div>'
    )
    return f'<header class="top">{asset("logo.svg")}{title}{nav}{who}</header>'
